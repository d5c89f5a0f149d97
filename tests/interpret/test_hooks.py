"""Looking must change nothing, changing must do what is said, and nothing may be left behind."""

import itertools

import pytest
import torch
from torch import nn

from llmcourse import fast
from llmcourse.attention import document_mask, padding_mask
from llmcourse.config import CHOICES, ModelConfig
from llmcourse.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from llmcourse.evaluate.likelihood import evaluate_loss
from llmcourse.fast.decoding import is_supported
from llmcourse.finetune.lora import add_lora
from llmcourse.generate import generate
from llmcourse.interpret.hooks import PARTS, hooked, record, site_names
from llmcourse.losses import next_token_loss
from llmcourse.model import GPT
from llmcourse.positions import apply_rotary

V = 13
SMALL = dict(vocab_size=V, context_length=12, d_model=16, n_heads=4, n_layers=2)
VARIANTS = {
    "grouped": dict(n_kv_heads=2),
    "qk-norm": dict(qk_norm=True, n_kv_heads=1),
    "wide heads": dict(d_head=6, bias=True),
    "2017": dict(
        norm="layer", norm_position="post", positions="sinusoidal", mlp="relu", scaled_embeddings=True
    ),
    "gpt2": dict(norm="layer", positions="learned", mlp="gelu_tanh", bias=True),
    "untied": dict(tied_embeddings=False),
}


def small_model(seed=0, dtype=torch.float32, **options):
    torch.manual_seed(seed)
    model = GPT(ModelConfig(**SMALL | options))
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.3)
    return model.to(dtype).eval()


def some_ids(B=2, T=8, seed=0):
    return torch.randint(V, (B, T), generator=torch.Generator().manual_seed(seed))


def looks_and_copies(model):
    """Return edits of all sites that change nothing: some look, some return a copy."""
    sites = site_names(model)
    return {
        site: (lambda x: None) if "weights" in site or i % 2 else torch.clone for i, site in enumerate(sites)
    }


def same_bits(a, b):
    return a.shape == b.shape and torch.equal(a, b)


# --- looking changes nothing --------------------------------------------------------------------


@pytest.mark.parametrize("parts", list(itertools.product(*CHOICES.values())), ids="-".join)
def test_looking_changes_no_bit_in_any_combination_of_parts(parts):
    model, ids = small_model(**dict(zip(CHOICES, parts, strict=True))), some_ids()
    expected = model(ids)
    with hooked(model, looks_and_copies(model)):
        assert same_bits(model(ids), expected)
    assert list(record(model, ids, site_names(model))) == site_names(model)
    assert same_bits(model(ids), expected)


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_looking_changes_no_bit_of_loss_and_gradients(options, dtype):
    """Also in bfloat16 with gradients, where the fast attention runs."""
    model, ids = small_model(dtype=dtype, dropout=0.2, **options).train(), some_ids(T=9)

    def loss_and_gradients():
        torch.manual_seed(3)  # dropout
        model.zero_grad()
        total, count = next_token_loss(model, (ids[:, :-1], ids[:, 1:]))
        (total / count).backward()
        return [total, *(parameter.grad.clone() for parameter in model.parameters())]

    expected = loss_and_gradients()
    with hooked(model, looks_and_copies(model)):
        found = loss_and_gradients()
    assert all(map(same_bits, found, expected))
    assert model.training


def test_looking_changes_no_bit_behind_a_mask_or_padding():
    model, ids = small_model(n_kv_heads=2), some_ids()
    padding = torch.tensor([0, 3])
    ways = [
        dict(mask=document_mask(ids, end_id=0)),
        dict(mask=padding_mask(padding, 8, 8), start=-padding),
    ]
    for options in ways:
        expected = model(ids, **options)
        with hooked(model, looks_and_copies(model)):
            assert same_bits(model(ids, **options), expected)


def test_record_reads_without_dropout_and_restores_the_mode():
    model, ids = small_model(dropout=0.5), some_ids()
    expected = record(model, ids, "final_norm")["final_norm"]
    model.train()
    model.blocks[1].eval()  # a part that is frozen
    assert same_bits(record(model, ids, "final_norm")["final_norm"], expected)
    assert (model.training, model.blocks[0].training, model.blocks[1].training) == (True, True, False)


# --- what is at a site --------------------------------------------------------------------------


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_each_site_follows_from_the_one_before_by_the_weights(options):
    model, ids = small_model(dtype=torch.float64, **options), some_ids()
    at, config = record(model, ids, site_names(model)), model.config
    x, rotary = model.embed(ids)
    assert same_bits(at["embedding"], x)
    maps = model.attention_maps(ids)
    for i, block in enumerate(model.blocks):
        here = {part: at[f"blocks.{i}.{part}"] for part in PARTS}
        h = block.attention_norm(x) if block.pre_norm else x
        q, k, v = block.attention.split_heads(h, rotary)
        for letter, turned, norm in (("q", q, block.attention.q_norm), ("k", k, block.attention.k_norm)):
            expected = norm(here[f"attention.{letter}"]).transpose(1, 2)
            torch.testing.assert_close(apply_rotary(expected, *rotary) if rotary else expected, turned)
        torch.testing.assert_close(here["attention.v"].transpose(1, 2), v)
        torch.testing.assert_close(here["attention.weights"], maps[i])
        every = v.repeat_interleave(config.n_heads // (config.n_kv_heads or config.n_heads), dim=1)
        torch.testing.assert_close(here["attention.heads"].transpose(1, 2), here["attention.weights"] @ every)
        out = block.attention.out(here["attention.heads"].flatten(2))
        torch.testing.assert_close(here["attention.out"], out)
        x = x + out if block.pre_norm else block.attention_norm(x + out)
        torch.testing.assert_close(here["mlp.out"], block.mlp(block.mlp_norm(x) if block.pre_norm else x))
        torch.testing.assert_close(here["mlp.out"], block.mlp.down(here["mlp.hidden"]))
        x = x + here["mlp.out"] if block.pre_norm else block.mlp_norm(x + here["mlp.out"])
        torch.testing.assert_close(here["residual"], x)
    assert same_bits(model.unembedding(at["final_norm"]), model(ids))


def test_what_is_recorded_is_a_copy_without_gradient():
    model, ids = small_model(), some_ids()
    at = record(model, ids, ["blocks.0.residual", "blocks.0.attention.q"])
    expected = model(ids)
    for tensor in at.values():
        assert not tensor.requires_grad
        tensor.zero_()
    assert same_bits(model(ids), expected)


def test_a_row_of_ids_is_a_batch_of_one():
    model = small_model()
    row = record(model, [1, 2, 3], "embedding")["embedding"]
    assert same_bits(row, record(model, torch.tensor([[1, 2, 3]]), ["embedding"])["embedding"])


# --- changing does what it says -----------------------------------------------------------------


def zero_head(head):
    def edit(x):
        x = x.clone()
        x[:, :, head] = 0
        return x

    return edit


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_a_head_set_to_zero_is_its_columns_of_out_set_to_zero(options):
    model, other, ids = small_model(**options), small_model(**options), some_ids()
    D = model.config.head_width
    with torch.no_grad():
        other.blocks[1].attention.out.weight[:, 2 * D : 3 * D] = 0
    with hooked(model, {"blocks.1.attention.heads": zero_head(2)}):
        torch.testing.assert_close(model(ids), other(ids))
    assert (model(ids) - other(ids)).abs().max() > 1e-3


@pytest.mark.parametrize("mlp", CHOICES["mlp"])
def test_a_unit_set_to_zero_is_its_column_of_down_set_to_zero(mlp):
    model, other, ids = small_model(mlp=mlp), small_model(mlp=mlp), some_ids()
    with torch.no_grad():
        other.blocks[0].mlp.down.weight[:, 5] = 0
    unit = torch.arange(model.config.hidden_width) == 5
    with hooked(model, {"blocks.0.mlp.hidden": lambda x: x.masked_fill(unit, 0)}):
        torch.testing.assert_close(model(ids), other(ids))


def test_queries_of_zero_look_everywhere_alike():
    model, ids = small_model(n_kv_heads=2), some_ids()
    with hooked(model, {"blocks.0.attention.q": torch.zeros_like}):
        at = record(model, ids, [f"blocks.0.attention.{part}" for part in ("weights", "heads", "v")])
    visible = torch.arange(1.0, 9)
    weights = torch.ones(8, 8).tril() / visible[:, None]
    torch.testing.assert_close(at["blocks.0.attention.weights"], weights.expand(2, 4, 8, 8))
    means = at["blocks.0.attention.v"].cumsum(1) / visible[:, None, None]
    torch.testing.assert_close(at["blocks.0.attention.heads"], means.repeat_interleave(2, dim=2))


@pytest.mark.parametrize("which", ["q", "k", "v"])
def test_an_edit_of_a_projection_reaches_one_head_alone(which):
    model, ids = small_model(n_kv_heads=2, qk_norm=False), some_ids()
    before = record(model, ids, "blocks.1.attention.heads")["blocks.1.attention.heads"]

    def double_first(x):
        return torch.cat([2 * x[:, :, :1], x[:, :, 1:]], dim=2)

    with hooked(model, {f"blocks.1.attention.{which}": double_first}):
        after = record(model, ids, "blocks.1.attention.heads")["blocks.1.attention.heads"]
    changed = (after != before).any(dim=-1).any(dim=1).any(dim=0).tolist()
    assert changed == ([True, False, False, False] if which == "q" else [True, True, False, False])
    if which == "v":
        torch.testing.assert_close(after[:, :, :2], 2 * before[:, :, :2])


def test_the_residual_of_another_text_gives_its_logits():
    model, ids, others = small_model(), some_ids(), some_ids(seed=1)
    there = record(model, others, "blocks.1.residual")["blocks.1.residual"]
    with hooked(model, {"blocks.1.residual": lambda x: there}):
        assert same_bits(model(ids), model(others))


def test_an_inner_block_sees_what_the_outer_one_made_and_gradients_pass():
    model, ids = small_model(), some_ids()
    gain = torch.ones((), requires_grad=True)
    with hooked(model, {"blocks.0.residual": lambda x: gain * x}):
        with hooked(model, {"blocks.0.residual": lambda x: 2 * x}):
            at = record(model, ids, "blocks.0.residual")["blocks.0.residual"]
        model(ids).sum().backward()
    torch.testing.assert_close(at, 2 * record(model, ids, "blocks.0.residual")["blocks.0.residual"])
    assert gain.grad.abs() > 0


def test_hooks_stand_in_a_model_with_adapters():
    model, ids = small_model(), some_ids()
    add_lora(model, rank=2)
    expected = model(ids)
    with hooked(model, looks_and_copies(model)):
        assert same_bits(model(ids), expected)
    with hooked(model, {"blocks.0.attention.out": torch.zeros_like}):
        assert not same_bits(model(ids), expected)


# --- writing, and the fast decoders -------------------------------------------------------------


@pytest.mark.parametrize("prompt", [[3, 1, 4], [[3, 1, 4], [1, 5]]], ids=["one", "unequal"])
@pytest.mark.parametrize("enabled", [True, False], ids=["fast", "plain"])
def test_generate_writes_under_hooks_what_the_changed_model_writes(monkeypatch, prompt, enabled):
    monkeypatch.setattr(fast, "enabled", enabled)
    model, other = small_model(n_kv_heads=2), small_model(n_kv_heads=2)
    with torch.no_grad():
        for block in other.blocks:
            block.attention.out.weight[:, :4] = 0

    def write(model, **options):  # beyond the context of 12
        found = generate(model, prompt, max_new_tokens=15, temperature=0, **options)
        return [row.tolist() for row in found]

    with hooked(model, {f"blocks.{i}.attention.heads": zero_head(0) for i in range(2)}):
        assert write(model) == write(model, use_cache=False) == write(other)
    assert write(model) != write(other)


def test_fast_decoders_leave_a_hooked_model_alone_and_come_back():
    model = small_model()
    assert is_supported(model)
    for site in site_names(model):
        with hooked(model, {site: lambda x: None}):
            assert not is_supported(model), site
    assert is_supported(model)


def test_with_a_cache_the_weights_of_all_keys_are_seen():
    model, ids, seen = small_model(n_kv_heads=2, dtype=torch.float64), some_ids(), []
    whole = record(model, ids, "blocks.1.attention.weights")["blocks.1.attention.weights"]
    caches = model.make_caches(2)
    with torch.no_grad(), hooked(model, {"blocks.1.attention.weights": lambda x: seen.append(x)}):
        for part in ids.split([3, 4, 1], dim=1):
            model(part, caches=caches)
    assert [tuple(x.shape) for x in seen] == [(2, 4, 3, 3), (2, 4, 4, 7), (2, 4, 1, 8)]
    for x, end in zip(seen, (3, 7, 8), strict=True):
        torch.testing.assert_close(x, whole[:, :, end - x.shape[2] : end, :end])


def test_the_loss_of_a_text_is_measured_under_hooks():
    model, text = small_model(), some_ids(B=1, T=40)[0]
    with hooked(model, {"final_norm": torch.zeros_like}):
        assert evaluate_loss(model, text) == pytest.approx(torch.tensor(float(V)).log().item())


# --- nothing is left ----------------------------------------------------------------------------


def hooks_of(model):
    names = [name for name in vars(model) if "hooks" in name]
    return [(name, len(vars(part)[name])) for part in model.modules() for name in names if vars(part)[name]]


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt, ValueError])
def test_nothing_is_left_after_an_error(error):
    def fail(x):
        raise error("stop")

    model, ids = small_model().train(), some_ids()
    before = hooks_of(model)
    with pytest.raises(error), hooked(model, looks_and_copies(model) | {"blocks.1.mlp.out": fail}):
        model(ids)
    assert hooks_of(model) == before
    with (
        pytest.raises(ValueError, match="does not exist"),
        hooked(model, {"embedding": fail, "nowhere": fail}),
    ):
        pass
    with pytest.raises(ValueError, match="do not fit into the context of 12"):
        record(model, some_ids(T=13), site_names(model))
    assert hooks_of(model) == before
    assert model.training
    model(ids)


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "site",
    ["blocks.2.mlp.out", "blocks.-1.mlp.out", "blocks.0.attention", "logits", "blocks.0.residual.x", "", 3],
)
def test_a_site_that_does_not_exist_names_those_that_do(site):
    model = small_model()
    with pytest.raises(
        ValueError, match=r"does not exist: .*'embedding'.*'blocks.0' to 'blocks.1'.*mlp.hidden"
    ):
        record(model, some_ids(), [site])
    with pytest.raises(ValueError, match="does not exist"), hooked(model, {site: lambda x: x}):
        pass


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda x: x[:1], r"got \(2, 8, 16\) in torch.float32 and returned \(1, 8, 16\)"),
        (lambda x: x.double(), r"returned \(2, 8, 16\) in torch.float64"),
        (lambda x: (x,), "returned tuple"),
        (lambda x: 0.0, "returned float"),
    ],
    ids=["shape", "dtype", "tuple", "number"],
)
def test_a_function_that_returns_something_else_is_named(returned, message):
    model = small_model()
    with hooked(model, {"blocks.1.residual": returned}), pytest.raises(ValueError, match=message):
        model(some_ids())


def test_weights_are_read_only():
    model = small_model()
    edits = {"blocks.0.attention.weights": torch.zeros_like}
    with hooked(model, edits), pytest.raises(ValueError, match="read only: edit"):
        model(some_ids())


@pytest.mark.parametrize("ids", ["to be", [], [[1, 2], [3]], [[V]], [[0.5, 1]], [[-1]]], ids=str)
def test_ids_that_are_none_are_refused(ids):
    with pytest.raises(ValueError, match="prompt"):
        record(small_model(), ids, "embedding")


def test_another_kind_of_model_is_refused():
    config = EncoderDecoderConfig(vocab_size=V, d_model=16, n_layers=1)
    compiled_in_place = small_model()
    compiled_in_place.compile(backend="eager")
    part = small_model()
    part.blocks[0].compile(backend="eager")
    for model in (EncoderDecoder(config), nn.Linear(2, 2), torch.compile(small_model(), backend="eager")):
        with pytest.raises(ValueError, match=f"a {type(model).__name__} is no GPT"):
            record(model, some_ids(), "embedding")
    for model in (compiled_in_place, part):
        with pytest.raises(ValueError, match="compiled in place"):
            record(model, some_ids(), "embedding")


def test_a_model_of_transformers_is_refused():
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(vocab_size=V, n_positions=12, n_embd=16, n_layer=1, n_head=2))
    with pytest.raises(ValueError, match="from_transformers"):
        record(model, some_ids(), "embedding")
