"""Techniques: convolutions, formulas and invariances; masks and caches that the shifts must respect."""

import itertools
import math

import pytest
import torch
from torch import nn

from llmcourse.attention import causal_mask, document_mask
from llmcourse.model import GPT, ModelConfig
from llmcourse.positions import rotary_angles
from llmcourse.pretrained import load_model, save_model
from llmcourse.tokenizer import BPETokenizer
from llmcourse.tune.techniques import (
    TECHNIQUES,
    Context,
    TechniqueAttention,
    TechniqueConfig,
    TechniqueGPT,
    TokenShift,
    make_config,
    make_model,
    shift,
)

V = 13


def small_model(seed=0, **options):
    """Return a model in which every weight has a size at which a mistake shows, in float64."""
    options = dict(context_length=12, d_model=16, n_heads=4, n_layers=2) | options
    torch.manual_seed(seed)
    model = make_model(make_config(V, **options)).double().eval()
    for name, parameter in model.named_parameters():
        nn.init.normal_(parameter, mean=1.0 if "norm" in name else 0.0, std=0.3)
    return model


def some_tokens(B=2, T=8, seed=0):
    return torch.randint(V, (B, T), generator=torch.Generator().manual_seed(seed))


# --- each technique ----------------------------------------------------------------------------

EACH = {
    "embedding_shift": dict(embedding_shift=3),
    "token_shift": dict(token_shift=True),
    "value_embeddings": dict(value_embeddings=True, n_kv_heads=2),
    "bigram_table": dict(bigram_table=True),
    "logit_cap": dict(logit_cap=2.0),
    "all": dict(embedding_shift=2, token_shift=True, value_embeddings=True, bigram_table=True, logit_cap=3.0),
}


@pytest.mark.parametrize("chunks", [[8], [1] * 8, [3, 4, 1], [1, 7]])
@pytest.mark.parametrize("technique", EACH)
def test_a_model_with_techniques_is_causal_and_goes_on_from_its_cache(technique, chunks):
    model = small_model(**EACH[technique])
    token_ids = some_tokens()
    changed = token_ids.clone()
    changed[:, 5] = (changed[:, 5] + 1) % V
    caches = model.make_caches(batch_size=2)
    with torch.no_grad():
        logits = model(token_ids)
        parts = [model(part, caches=caches) for part in token_ids.split(chunks, dim=1)]
        assert torch.equal(logits[:, :5], model(changed)[:, :5])
    torch.testing.assert_close(torch.cat(parts, dim=1), logits, rtol=0, atol=1e-12)


@pytest.mark.parametrize("technique", EACH)
def test_every_parameter_gets_a_gradient(technique):
    model = small_model(**EACH[technique])
    model(some_tokens()).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 1e-6 for p in model.parameters())


def test_shifted_embeddings_are_a_convolution_over_one_hot_tokens():
    model = small_model(embedding_shift=2)
    token_ids = some_tokens()
    tables = [model.token_embedding, *model.shifted_embeddings]
    kernel = torch.stack([table.weight.T for table in reversed(tables)], dim=-1)  # (C, V, 3)
    one_hot = nn.functional.one_hot(token_ids, V).double().mT  # (B, V, T)
    expected = nn.functional.conv1d(nn.functional.pad(one_hot, (2, 0)), kernel).mT
    torch.testing.assert_close(model.embed(token_ids)[0], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("n", [1, 3, 7])
def test_shift_moves_positions_later_all_or_the_last(n):
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    expected = torch.zeros_like(x)
    expected[:, n:] = x[:, : max(5 - n, 0)]
    assert torch.equal(shift(x, n), expected)
    for last in (1, 2, 4):
        assert torch.equal(shift(x, n, last=last), expected[:, -last:])


def test_a_token_shift_is_a_depthwise_convolution_and_starts_as_none():
    layer = TokenShift(5)
    x = torch.randn(2, 7, 5)
    assert torch.equal(layer(x), x)
    nn.init.normal_(layer.weight)
    kernel = torch.stack([layer.weight, torch.ones(5)], dim=-1)[:, None]  # (C, 1, 2)
    expected = nn.functional.conv1d(nn.functional.pad(x.mT, (1, 0)), kernel, groups=5).mT
    torch.testing.assert_close(layer(x), expected)


def test_a_cap_bounds_the_logits_and_leaves_small_ones():
    plain, capped = small_model(), small_model(logit_cap=50.0)
    logits = plain(some_tokens())
    torch.testing.assert_close(capped(some_tokens()), 50 * torch.tanh(logits / 50))
    assert small_model(logit_cap=0.5)(some_tokens()).abs().max() <= 0.5


def test_a_table_of_pairs_alone_is_a_bigram_model():
    model = small_model(bigram_table=True)
    nn.init.zeros_(model.unembedding.weight)  # tied: the tokens say nothing either
    token_ids = some_tokens()
    assert torch.equal(model(token_ids), model.bigram_logits.weight[token_ids])


def test_zero_init_makes_every_block_the_identity_and_the_new_fields_change_no_other_weight():
    torch.manual_seed(0)
    plain = GPT(ModelConfig(V, d_model=16))
    torch.manual_seed(0)
    zeroed = make_model(make_config(V, d_model=16, zero_init=True, embedding_std=0.1))
    x = torch.randn(1, 5, 16)
    assert torch.equal(zeroed.blocks[0](x), x)
    assert torch.equal(zeroed.blocks[1].mlp.up.weight, plain.blocks[1].mlp.up.weight)
    torch.testing.assert_close(zeroed.token_embedding.weight, 5 * plain.token_embedding.weight)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(embedding_shift=-1), "embedding_shift=-1: must be from 0"),
        (dict(embedding_shift=12, context_length=12), r"embedding_shift=12: .* context_length - 1 = 11"),
        (dict(logit_cap=0.0), "logit_cap=0.0: must be above 0"),
        (dict(logit_cap=math.nan), "logit_cap=nan: must be above 0"),
    ],
)
def test_techniques_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TechniqueConfig(V, **options)


# --- parts that look back, and masks -----------------------------------------------------------

LOOKING_BACK = [
    dict(embedding_shift=1),
    dict(embedding_shift=3),
    dict(token_shift=True),
    dict(token_shift=True, norm_position="post"),
    dict(value_embeddings=True, bigram_table=True),
    dict(embedding_shift=2, token_shift=True, value_embeddings=True, bigram_table=True, logit_cap=3.0),
]
looking_back = pytest.mark.parametrize(
    "techniques", LOOKING_BACK, ids=lambda techniques: "+".join(techniques)
)


@looking_back
@pytest.mark.parametrize("seed", range(3))
@torch.no_grad()
def test_documents_in_one_row_get_the_logits_that_each_gets_alone(techniques, seed):
    model = small_model(seed=seed, n_kv_heads=2, context_length=20, **techniques)
    token_ids = some_tokens(B=2, T=20, seed=seed)  # several end tokens, some side by side
    token_ids[:, 4:6] = 0
    packed = model(token_ids, mask=document_mask(token_ids, end_id=0))
    for row, logits in zip(token_ids, packed, strict=True):
        ends = [t + 1 for t in range(19) if row[t] == 0]
        alone = [model(row[start:end][None])[0] for start, end in itertools.pairwise([0, *ends, 20])]
        torch.testing.assert_close(logits, torch.cat(alone), rtol=0, atol=1e-6)  # angles are in float32


@looking_back
@pytest.mark.parametrize("chunks", [[20], [6, 14], [5, 1, 1, 13], [1] * 20])
def test_a_changed_document_changes_no_bit_of_another_with_or_without_a_cache(techniques, chunks):
    model = small_model(context_length=20, **techniques)
    token_ids, outputs = some_tokens(T=20, seed=1) % (V - 1) + 1, []
    token_ids[:, 7] = 0
    for change in (0, 1):
        changed = token_ids.clone()
        changed[:, :7] = (changed[:, :7] + change - 1) % (V - 1) + 1
        mask, caches, parts, start = document_mask(changed, end_id=0), model.make_caches(2), [], 0
        for part in changed.split(chunks, dim=1):
            end = start + part.shape[1]
            parts.append(model(part, mask=mask[:, :, start:end, :end], caches=caches))
            start = end
        outputs.append(torch.cat(parts, dim=1))
    assert not torch.equal(outputs[0][:, :7], outputs[1][:, :7])
    assert torch.equal(outputs[0][:, 8:], outputs[1][:, 8:])


@looking_back
@pytest.mark.parametrize("form", ["bool", "-inf", "lowest", "heads"])
def test_padding_on_the_left_changes_nothing(techniques, form):
    model, lengths = small_model(**techniques), (8, 5, 1)
    token_ids, T = some_tokens(B=3, T=8), 8
    real = torch.arange(T) >= T - torch.tensor(lengths)[:, None]  # (B, T)
    mask = (causal_mask(T) & real[:, None])[:, None]  # (B, 1, T, S); a row of padding may look nowhere
    if form in ("-inf", "lowest"):
        hidden = -torch.inf if form == "-inf" else torch.finfo(torch.float32).min
        mask = torch.zeros(mask.shape, dtype=torch.float64).masked_fill(~mask, hidden)
    mask = mask.expand(-1, 4, -1, -1) if form == "heads" else mask
    logits = model(token_ids, mask=mask)
    for row, n in enumerate(lengths):
        alone = model(token_ids[row : row + 1, T - n :])[0]
        torch.testing.assert_close(logits[row, T - n :], alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("mask", [causal_mask(8) & ~causal_mask(8).tril(-4), torch.ones(8, 8).bool()])
def test_a_mask_that_shows_what_is_shifted_leaves_the_shifts_as_they_are(mask):
    model = small_model(embedding_shift=3)  # a window of four positions, and all positions
    assert torch.equal(model.embed(some_tokens(), mask=mask)[0], model.embed(some_tokens())[0])


@pytest.mark.parametrize("n", [1, 2, 9])
def test_what_a_shift_may_hand_on_is_the_diagonal_of_the_mask(n):
    generator = torch.Generator().manual_seed(n)
    mask = torch.rand(3, 4, 5, 8, generator=generator) < 0.3  # (B, H, T, S): 3 positions in the cache
    seen = shift(torch.ones(3, 8, 1), n, mask, last=5)[..., 0]
    for b in range(3):
        for t in range(5):
            place = 3 + t - n  # of the position n before, among all 8
            assert seen[b, t] == (place >= 0 and mask[b, :, t, place].any())


# --- a class of its own ------------------------------------------------------------------------


@pytest.mark.parametrize("preset", [ModelConfig.transformer_2017, ModelConfig.gpt2, ModelConfig.llama])
def test_without_a_technique_it_is_the_plain_model(preset):
    config = preset(V, context_length=12, d_model=16, n_layers=2, dropout=0.1)
    models = []
    for make in (lambda: GPT(config), lambda: TechniqueGPT(TechniqueConfig.of(config))):
        torch.manual_seed(0)
        models.append(make().train())
    plain, other = models
    assert list(plain.state_dict()) == list(other.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), other.parameters(), strict=True))
    for mask in (None, document_mask(some_tokens(), end_id=0)):
        outputs = []
        for model in models:
            torch.manual_seed(1)
            outputs.append(model(some_tokens(), mask))
        assert torch.equal(*outputs)
    maps = (model.attention_maps(some_tokens()) for model in models)
    assert all(torch.equal(a, b) for a, b in zip(*maps, strict=True))


def test_a_configuration_goes_to_the_class_that_knows_it():
    assert type(make_model(make_config(V))) is GPT
    for name in TECHNIQUES:
        value = TechniqueConfig.__dataclass_fields__[name].default
        assert type(make_model(make_config(V, **{name: value}))) is TechniqueGPT
    with pytest.raises(ValueError, match="a GPT is built from a ModelConfig, not from a TechniqueConfig"):
        GPT(TechniqueConfig(V))
    with pytest.raises(
        ValueError, match="a TechniqueGPT is built from a TechniqueConfig, not from a ModelConfig"
    ):
        TechniqueGPT(ModelConfig(V))


@pytest.mark.parametrize("technique", EACH)
def test_attention_maps_are_the_weights_that_the_model_mixes_with(technique):
    model, seen = small_model(**EACH[technique]), []
    split = TechniqueAttention.split_heads

    def look(self, x, context):
        q, k, v = split(self, x, context)
        scores = q @ k.repeat_interleave(self.n_heads // self.n_kv_heads, 1).mT / math.sqrt(self.d_head)
        seen.append(scores.masked_fill(~causal_mask(8), -torch.inf).softmax(-1))
        return q, k, v

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TechniqueAttention, "split_heads", look)
        model(some_tokens())
    for mine, theirs in zip(model.attention_maps(some_tokens()), seen, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)


def test_in_bfloat16_values_may_be_in_float32():
    torch.manual_seed(0)
    layer, x, values = TechniqueAttention(d_model=8, n_heads=2), torch.randn(1, 3, 8), torch.randn(1, 3, 8)
    context = Context(rotary_angles(3, 4), values=values)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = layer(x, is_causal=True, rotary=context)
    exact = layer(x, is_causal=True, rotary=context)
    torch.testing.assert_close(rounded.float(), exact, rtol=0.05, atol=0.02)


def test_a_refused_text_leaves_the_caches_as_they_were():
    model = small_model(embedding_shift=2, token_shift=True)
    token_ids, caches = some_tokens(T=12), model.make_caches(2)
    with torch.no_grad():
        first = model(token_ids[:, :6], caches=caches)
        with pytest.raises(ValueError, match="13 tokens do not fit into the context of 12"):
            model(some_tokens(T=7, seed=1), caches=caches)
        rest = model(token_ids[:, 6:], caches=caches)
        torch.testing.assert_close(torch.cat([first, rest], dim=1), model(token_ids), rtol=0, atol=1e-12)


def test_a_folder_comes_back_as_the_class_that_it_was_saved_from(tmp_path):
    tokenizer = BPETokenizer.from_merges([(97, 98)])
    torch.manual_seed(0)
    config = TechniqueConfig(258, context_length=8, d_model=16, n_layers=1, embedding_shift=2, logit_cap=3.0)
    model = TechniqueGPT(config).eval()
    save_model(tmp_path, model, tokenizer, torch.float32)
    again, _ = load_model(tmp_path, TechniqueGPT)
    assert again.config == config
    assert torch.equal(again(some_tokens()), model(some_tokens()))
    with pytest.raises(ValueError, match=r"no fields of ModelConfig .* loaded with kind=, as load_model"):
        load_model(tmp_path)
