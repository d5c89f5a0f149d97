"""Patching where the answer is known: everything, nothing, the past, and two streams computed by hand."""

import math

import pytest
import torch

from llmcourse.config import ModelConfig
from llmcourse.interpret.hooks import hooked, record, site_names
from llmcourse.interpret.patching import (
    logit_difference,
    patch_heads,
    patch_sites,
    patched_heads,
    path_effects,
    path_patch,
)
from llmcourse.model import GPT

BASE = torch.arange(24).reshape(3, 8) * 5 % 13
SOURCE = BASE.clone()
SOURCE[:, 3] = (SOURCE[:, 3] + 1) % 13
METRIC = logit_difference(torch.tensor([1, 2, 3]), torch.tensor([4, 5, 6]))
ALL = [(layer, head) for layer in range(2) for head in range(4)]


def small_model(dtype=torch.float64, seed=0, **options):
    torch.manual_seed(seed)
    config = dict(vocab_size=13, context_length=12, d_model=16, n_heads=4, n_layers=2) | options
    model = GPT(ModelConfig(**config)).to(dtype).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


# --- everything and nothing ---------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, dict(n_kv_heads=2, norm_position="post")], ids=["llama", "post"])
def test_patching_everything_is_the_source_and_nothing_is_the_base(options):
    model = small_model(torch.float32, **options).train()
    effects = patch_sites(model, SOURCE, BASE, METRIC, ["embedding", "blocks.1.residual", "final_norm"])
    assert effects.tolist() == [1, 1, 1]  # exactly
    assert torch.equal(patched_heads(model, SOURCE, BASE, []), model(BASE))
    assert torch.equal(path_patch(model, SOURCE, BASE, []), model(BASE))
    assert torch.equal(path_patch(model, SOURCE, BASE, ALL, []), model(BASE))
    assert torch.equal(path_patch(model, BASE, BASE, ALL, [(1, 0, "q"), (1, 1, "k")]), model(BASE))
    assert model.training


def test_all_sites_of_a_layer_bring_the_source_back_together():
    """The stream behind a layer is what came in and what attention and MLP have added."""
    model = small_model(torch.float32)
    sites = ["embedding", *(f"blocks.{i}.{part}" for i in range(2) for part in ("attention.out", "mlp.out"))]
    there = record(model, SOURCE, sites)
    with hooked(model, {site: lambda x, s=site: there[s] for site in sites}):
        assert torch.equal(model(BASE), model(SOURCE))


def test_positions_before_the_difference_and_of_no_influence_have_no_effect():
    model, sites = small_model(), site_names(small_model())
    sites = [site for site in sites if "weights" not in site]
    effects = patch_sites(model, SOURCE, BASE, METRIC, sites, each_position=True)
    assert effects.shape == (len(sites), 8)
    assert effects[:, :3].abs().max() == 0  # the same in both texts
    at = dict(zip(sites, effects.tolist(), strict=True))
    assert at["embedding"] == pytest.approx([0, 0, 0, 1, 0, 0, 0, 0])  # where they differ
    assert at["final_norm"] == pytest.approx([0, 0, 0, 0, 0, 0, 0, 1])  # where the metric looks
    assert at["blocks.0.attention.heads"][3] != 0
    whole = patch_sites(model, SOURCE, BASE, METRIC, ["embedding", "blocks.0.mlp.out"])
    assert whole[0] == pytest.approx(1)
    assert whole[1] != pytest.approx(at["blocks.0.mlp.out"][7], abs=1e-3)


def test_heads_are_patched_one_by_one_and_together():
    model = small_model(n_kv_heads=2)
    effects = patch_heads(model, SOURCE, BASE, METRIC)
    low, high = METRIC(model(BASE)), METRIC(model(SOURCE))
    for layer, head in ALL:
        site = f"blocks.{layer}.attention.heads"
        there = record(model, SOURCE, site)[site]

        def edit(x, head=head, there=there):
            x = x.clone()
            x[:, :, head] = there[:, :, head]
            return x

        with hooked(model, {site: edit}):
            expected = (METRIC(model(BASE)) - low) / (high - low)
        assert effects[layer, head].item() == pytest.approx(expected.item(), abs=1e-6)
        one = (METRIC(patched_heads(model, SOURCE, BASE, [(layer, head)])) - low) / (high - low)
        assert effects[layer, head].item() == pytest.approx(one.item(), abs=1e-6)


def test_the_other_direction_exchanges_the_texts():
    model = small_model()
    there = record(model, BASE, "blocks.0.attention.out")["blocks.0.attention.out"]
    with hooked(model, {"blocks.0.attention.out": lambda x: there}):
        noised = METRIC(model(SOURCE))
    clean, corrupted = METRIC(model(SOURCE)), METRIC(model(BASE))
    expected = (noised - clean) / (corrupted - clean)
    found = patch_sites(model, BASE, SOURCE, METRIC, ["blocks.0.attention.out"])
    assert found.item() == pytest.approx(expected.item(), abs=1e-6)


# --- paths --------------------------------------------------------------------------------------


def attention_by_hand(block, x_q, x_k, x_v, rotary):
    """Return what the heads read, (B, T, H, D), when queries, keys and values of each head come from other streams."""
    q = block.attention.split_heads(block.attention_norm(x_q), rotary)[0]
    k = block.attention.split_heads(block.attention_norm(x_k), rotary)[1]
    v = block.attention.split_heads(block.attention_norm(x_v), rotary)[2]
    scores = (q @ k.mT / math.sqrt(q.shape[-1])).masked_fill(torch.ones(8, 8).triu(1).bool(), float("-inf"))
    return (scores.softmax(-1) @ v).transpose(1, 2)


def written(block, heads):
    return block.attention.out(heads.flatten(2))


@pytest.mark.parametrize("through_mlps", [True, False])
@pytest.mark.parametrize("letters", ["q", "k", "v", "qk", "qkv"])
@pytest.mark.parametrize("receiver", [0, 2])
def test_a_path_to_a_later_head_is_a_second_stream_that_it_alone_reads(through_mlps, letters, receiver):
    model, sender = small_model(), 1
    first, second = model.blocks
    x, rotary = model.embed(BASE)
    heads = record(model, BASE, "blocks.0.attention.heads")["blocks.0.attention.heads"]
    sent = heads.clone()
    sent[:, :, sender] = record(model, SOURCE, "blocks.0.attention.heads")["blocks.0.attention.heads"][
        :, :, sender
    ]

    def after_first(heads, mlp_of):
        middle = x + written(first, heads)
        return middle + first.mlp(first.mlp_norm(x + written(first, mlp_of)))

    base = after_first(heads, heads)
    message = after_first(sent, sent if through_mlps else heads)
    streams = [message if letter in letters else base for letter in "qkv"]
    output = attention_by_hand(second, base, base, base, rotary)
    output[:, :, receiver] = attention_by_hand(second, *streams, rotary)[:, :, receiver]
    after = base + written(second, output)
    after = after + second.mlp(second.mlp_norm(after))
    expected = model.unembedding(model.final_norm(after))
    receivers = [(1, receiver, letter) for letter in letters]
    found = path_patch(model, SOURCE, BASE, [(0, sender)], receivers, through_mlps)
    torch.testing.assert_close(found, expected)
    assert (found - model(BASE)).abs().max() > 1e-6


@pytest.mark.parametrize("through_mlps", [True, False])
def test_a_path_to_the_logits_leaves_later_heads_as_they_are(through_mlps):
    model, at = small_model(), {}
    for name, ids in (("base", BASE), ("source", SOURCE)):
        at[name] = record(model, ids, site_names(model))
    heads = at["base"]["blocks.0.attention.heads"].clone()
    heads[:, :, 2] = at["source"]["blocks.0.attention.heads"][:, :, 2]
    x = at["base"]["embedding"] + written(model.blocks[0], heads)
    mlps = [at["base"][f"blocks.{i}.mlp.out"] for i in range(2)]
    x = x + (model.blocks[0].mlp(model.blocks[0].mlp_norm(x)) if through_mlps else mlps[0])
    x = x + at["base"]["blocks.1.attention.out"]
    x = x + (model.blocks[1].mlp(model.blocks[1].mlp_norm(x)) if through_mlps else mlps[1])
    expected = model.unembedding(model.final_norm(x))
    torch.testing.assert_close(path_patch(model, SOURCE, BASE, [(0, 2)], "logits", through_mlps), expected)


def test_a_head_of_the_last_layer_has_no_other_path_than_the_direct_one():
    model = small_model()
    patched, paths = patch_heads(model, SOURCE, BASE, METRIC), path_effects(model, SOURCE, BASE, METRIC)
    torch.testing.assert_close(paths[1], patched[1])
    assert (paths[0] - patched[0]).abs().min() > 1e-4  # others act through heads as well


def test_a_message_that_keys_alone_can_read_has_an_effect_by_keys_alone():
    """Head 0.1 writes into columns 12 to 15, which keys of layer 1 read, and nothing else does."""
    model = small_model(norm_position="pre")
    with torch.no_grad():
        for block in model.blocks:
            block.mlp.down.weight.zero_()
            block.attention.qkv.weight[:, 0] = 0  # nobody reads the scale
        out, qkv = model.blocks[0].attention.out.weight, model.blocks[1].attention.qkv.weight
        out[:12, 4:8] = 0
        model.token_embedding.weight[:, 0] = 50  # the scale of the stream, so that norms carry no message
        model.final_norm.weight[[0, 12, 13, 14, 15]] = 0
        qkv[:16, 12:] = 0
        qkv[32:, 12:] = 0
        qkv[:32] *= 40  # queries and keys
        out[12:, 4:8] *= 60
    effects = {
        letter: path_effects(model, SOURCE, BASE, METRIC, [(1, h, letter) for h in range(4)])
        for letter in "qkv"
    }
    by_key = effects["k"][0, 1].abs()
    assert by_key > 0.01
    for letter in "qv":
        assert effects[letter][0, 1].abs() < by_key / 50
    assert path_effects(model, SOURCE, BASE, METRIC, "logits")[0, 1].abs() < by_key / 50
    assert effects["k"][1].tolist() == [0] * 4


# --- errors -------------------------------------------------------------------------------------


def test_what_cannot_be_patched_is_named():
    model = small_model()
    with pytest.raises(ValueError, match=r"source is \(3, 8\) and base \(3, 7\)"):
        patch_heads(model, SOURCE, BASE[:, :7], METRIC)
    with pytest.raises(ValueError, match="shares of a difference"):
        patch_heads(model, BASE, BASE, METRIC)
    with pytest.raises(ValueError, match="shares of a difference"):
        patch_sites(model, SOURCE, BASE, lambda logits: math.nan, ["embedding"])
    with pytest.raises(ValueError, match="does not exist"):
        patch_sites(model, SOURCE, BASE, METRIC, ["blocks.2.residual"])
    for heads, message in (([(2, 0)], "does not exist"), ([(0, 4)], "has heads 0 to 3")):
        with pytest.raises(ValueError, match=message):
            patched_heads(model, SOURCE, BASE, heads)
        with pytest.raises(ValueError, match=message):
            path_patch(model, SOURCE, BASE, heads)


@pytest.mark.parametrize(
    ("receivers", "message"),
    [
        ("residual", "give 'logits', or heads"),
        ([(1, 0)], "hears nothing"),
        ([(1, 0, "heads")], "hears nothing"),
        ([(2, 0, "q")], "does not exist"),
        ([(1, 2, "k")], "has heads 0 to 1"),
    ],
)
def test_a_receiver_that_does_not_exist_is_named(receivers, message):
    with pytest.raises(ValueError, match=message):
        path_patch(small_model(n_kv_heads=2), SOURCE, BASE, [(0, 0)], receivers)


@pytest.mark.parametrize(
    ("right", "message"),
    [
        (5, r"right\[0\] is 5: give ids from 0 to 4"),
        (-1, r"right\[0\] is -1"),
        ([1, 2, 3], "3 ids for 2 rows"),
        (0.5, "right"),
    ],
)
def test_a_metric_refuses_ids_that_the_logits_do_not_have(right, message):
    with pytest.raises(ValueError, match=message):
        logit_difference(right, 0)(torch.zeros(2, 3, 5))
