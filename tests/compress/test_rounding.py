"""Rounding to nearest against a search over all codes, torch's own fake quantization, and arithmetic."""

import itertools

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from llmcourse.compress.quantize import quantize_linears
from llmcourse.compress.rounding import dequantize_weight, fit_scales, quantize_model, quantize_weight
from llmcourse.finetune.lora import add_lora
from llmcourse.model import GPT, ModelConfig
from llmcourse.packed import BITS, PackedEmbedding, PackedLinear, Scheme
from llmcourse.packed_model import are_tied

SCHEMES = [Scheme(b, g, s) for b in BITS for g in (16, "row", "tensor") for s in (True, False)]


def normal(*shape, seed=0, std=0.02):
    return std * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def restored(weight, scheme, **options):
    return dequantize_weight(*quantize_weight(weight, scheme, **options), scheme)


def small_model(**options):
    torch.manual_seed(0)
    return GPT(ModelConfig(**(dict(vocab_size=20, d_model=24, n_heads=2, n_layers=2) | options))).eval()


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_each_code_is_the_nearest_of_all(scheme):
    weight = normal(6, 32)
    codes, scales, zeros = quantize_weight(weight, scheme)
    levels = torch.arange(scheme.low, scheme.high + 1)
    for block, chosen, i in zip(
        scheme.blocks(weight), scheme.blocks(codes), range(scales.numel()), strict=True
    ):
        zero = 0 if zeros is None else zeros.flatten()[i].item()
        distance = (block[:, None] - (levels - zero) * scales.flatten()[i].float()).abs()
        taken = distance.gather(1, (chosen.long() - scheme.low)[:, None])[:, 0]
        assert torch.allclose(taken, distance.min(1).values, rtol=0, atol=1e-7)


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_the_error_is_at_most_half_a_step_where_nothing_is_cut(scheme):
    """An asymmetric grid is moved until 0 is on it, by half a step at most: so far can an end be cut."""
    weight = normal(6, 32)
    _, scales, _ = quantize_weight(weight, scheme)
    error = scheme.blocks((restored(weight, scheme) - weight).abs()).amax(1)
    steps = 0.5 if scheme.symmetric else 1.0
    assert (error <= (steps + 1e-3 * scheme.high) * scales.float().flatten()).all()


@pytest.mark.parametrize("scheme", [s for s in SCHEMES if s.group != 16], ids=str)
def test_rounding_equals_torchs_fake_quantization(scheme):
    weight = normal(6, 32)
    _, scales, zeros = quantize_weight(weight, scheme)
    zeros = torch.zeros_like(scales) if zeros is None else zeros
    limits = scheme.low, scheme.high
    if scheme.group == "tensor":
        expected = torch.fake_quantize_per_tensor_affine(weight, scales.float(), zeros.int(), *limits)
    else:
        expected = torch.fake_quantize_per_channel_affine(weight, scales.float(), zeros.int(), 0, *limits)
    assert torch.allclose(restored(weight, scheme), expected, rtol=0, atol=1e-7)


def test_zero_stays_zero_and_extremes_of_a_symmetric_group_survive():
    weight = torch.tensor([[0.0, -7.0, 3.0, 7.0], [0.0, 0.0, 0.0, 0.0], [0.0, 5.0, 6.0, 8.0]])
    for scheme in SCHEMES:
        if scheme.group != 16:
            assert (restored(weight, scheme)[weight == 0] == 0).all()
    assert torch.equal(restored(weight[:2], Scheme(4, "row")), weight[:2])
    asymmetric = restored(weight, Scheme(4, "row", symmetric=False))[2]  # the range holds 0: 15 steps to 8
    assert torch.allclose(asymmetric, torch.tensor([0, 9, 11, 15]) * 8 / 15, rtol=2.0**-11)  # of float16


def torchao_parameters(blocks, scheme):
    """choose_qparams_affine of torchao 0.18.0 (torchao/quantization/quant_primitives.py), in its own words.

    Computed here, since the package is large and its import warns; findings/torchao_int2... runs it.
    """
    low, high = blocks.amin(1).clamp(max=0), blocks.amax(1).clamp(min=0)
    if scheme.symmetric:  # codes -2^(bits-1) to 2^(bits-1) - 1: half of all steps to each side
        return torch.maximum(-low, high) / ((2**scheme.bits - 1) / 2), torch.zeros(len(blocks))
    scales = (high - low) / (2**scheme.bits - 1)
    return scales, (0 - (low / scales).round()).clamp(0, 2**scheme.bits - 1)


@pytest.mark.parametrize("scheme", [s for s in SCHEMES if not s.symmetric], ids=str)
def test_asymmetric_rounding_is_torchaos_with_scales_in_float16(scheme):
    weight = normal(6, 32)
    codes, scales, zeros = quantize_weight(weight, scheme)
    theirs, their_zeros = torchao_parameters(scheme.blocks(weight), scheme)
    assert torch.equal(theirs.half(), scales.flatten())
    near_tie = ((-scheme.blocks(weight).amin(1) / theirs) % 1 - 0.5).abs() < 0.08  # float16 may tip it
    assert torch.equal(zeros.flatten()[~near_tie].float(), their_zeros[~near_tie])
    steps = scheme.blocks(weight) / scales.float().flatten()[:, None]
    expected = (steps.round() + zeros.flatten()[:, None]).clamp(0, scheme.high)
    assert torch.equal(scheme.blocks(codes).float(), expected)
    steps = scheme.blocks(weight) / theirs[:, None]
    apart = scheme.blocks(codes).float() - (steps.round() + their_zeros[:, None]).clamp(0, scheme.high)
    assert (apart.abs()[~near_tie] <= 1).all()  # by one where a weight lies between two codes
    assert (apart[~near_tie] != 0).sum() <= 0.004 * 2**scheme.bits * weight.numel()


@pytest.mark.parametrize("scheme", [s for s in SCHEMES if s.symmetric], ids=str)
def test_a_symmetric_range_ends_at_a_code_where_torchaos_ends_half_a_step_behind_it(scheme):
    """Theirs has one code more, below, and shorter steps: of int4 7.5 to a side, ours 7, of int2 1.5 and 1.

    So the largest weight keeps its size here and loses 1/15 (int4) or 1/3 (int2) there, and a bell-shaped
    weight of 2 or 3 bits has the smaller squared error there, as it has with a clipped range.
    """
    weight = normal(48, 32)
    _, scales, _ = quantize_weight(weight, scheme)
    theirs, _ = torchao_parameters(scheme.blocks(weight), scheme)
    ratio = theirs / scales.float().flatten()
    assert torch.allclose(ratio, torch.full_like(ratio, scheme.high / (scheme.high + 0.5)), rtol=1e-3)
    blocks, steps = scheme.blocks(weight), theirs[:, None]
    there = (blocks / steps).round().clamp(-scheme.high - 1, scheme.high) * steps
    extreme = blocks.gather(1, blocks.argmax(1, keepdim=True))[blocks.amax(1) == blocks.abs().amax(1)]
    kept = there.gather(1, blocks.argmax(1, keepdim=True))[blocks.amax(1) == blocks.abs().amax(1)]
    assert torch.allclose(kept / extreme, torch.full_like(kept, scheme.high / (scheme.high + 0.5)), rtol=1e-5)
    errors = [(x - blocks).square().sum() for x in (scheme.blocks(restored(weight, scheme)), there)]
    clipped = (restored(weight, scheme, clip=True) - weight).square().sum()
    assert clipped <= errors[0]
    if scheme.bits < 4:
        assert errors[1] < errors[0]


def test_a_clipped_range_is_the_best_of_all_shares():
    weight = normal(6, 32)
    for scheme in SCHEMES:
        best = scheme.blocks((restored(weight, scheme, clip=True) - weight).square()).sum(1)
        for share in torch.linspace(0.4, 1.0, 25):
            shares = torch.full(scheme.scale_shape(weight.shape), share)
            other = scheme.blocks((restored(weight, scheme, clip=shares) - weight).square()).sum(1)
            assert (best <= other * (1 + 1e-5)).all()
    weight[0, 0] = 1.0  # one outlier takes all the range, and every other weight becomes 0
    assert (restored(weight, Scheme(2, "row"))[0, 1:] == 0).all()


def test_more_bits_and_smaller_groups_lose_less():
    weight = normal(64, 64)
    for symmetric, (coarse, fine) in itertools.product(
        (True, False),
        [((2, 16), (3, 16)), ((3, 16), (4, 16)), ((4, "tensor"), (4, "row")), ((4, "row"), (4, 16))],
    ):
        errors = [(restored(weight, Scheme(*s, symmetric)) - weight).norm() for s in (coarse, fine)]
        assert errors[1] < errors[0]


def test_quantizing_twice_changes_nothing_more():
    for scheme in SCHEMES:
        if scheme.symmetric:
            once = restored(normal(6, 32), scheme)
            assert torch.allclose(restored(once, scheme), once, rtol=2e-3)


def test_tiny_and_huge_weights():
    assert torch.equal(restored(torch.full((2, 4), 1e-12), Scheme(8, "row")), torch.zeros(2, 4))
    tiny = torch.tensor([[1e-5, -2e-5, 3e-5, 4e-5]])  # a scale of 5 times the smallest in float16
    assert torch.allclose(restored(tiny, Scheme(8, "row")), tiny, rtol=0.1)
    with pytest.raises(ValueError, match=r"weights up to 1e\+07 need scales that float16 cannot hold"):
        fit_scales(torch.full((2, 4), 1e7), Scheme(4, "row"))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_weights_must_be_finite(bad):
    model = small_model()
    model.blocks[1].mlp.down.weight.data[0, 0] = bad
    with pytest.raises(ValueError, match="a weight is not finite"):
        quantize_model(model, Scheme(4, 8))


@pytest.mark.parametrize("shape", [(8,), (2, 3, 4), (0, 8)])
def test_only_matrices_are_quantized(shape):
    with pytest.raises(ValueError, match="only matrices"):
        quantize_weight(torch.ones(shape), Scheme(4, "row"))


# ---- models ------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False])
def test_a_packed_model_is_the_model_with_restored_weights(tied):
    model, scheme, table = small_model(tied_embeddings=tied, bias=True), Scheme(3, 8), Scheme(8, "row")
    ids = torch.arange(20)[None]
    before = model(ids)
    for embedding in (None, table):
        packed = quantize_model(model, scheme, embedding=embedding)
        assert torch.equal(model(ids), before)
        expected = GPT(model.config).eval()
        expected.load_state_dict(model.state_dict())
        for name, layer in expected.named_modules():
            if isinstance(layer, nn.Linear) and name.startswith("blocks."):
                layer.weight.data = restored(layer.weight, scheme)
        if embedding:
            for layer in (expected.token_embedding, expected.unembedding)[: 1 if tied else 2]:
                layer.weight.data = restored(layer.weight, table)
        assert torch.equal(packed(ids), expected(ids))
        assert are_tied(packed) == tied
        kinds = {name: type(m) for name, m in packed.named_modules() if name.endswith("embedding")}
        wanted = (PackedEmbedding, PackedLinear) if embedding else (nn.Embedding, nn.Linear)
        assert kinds == dict(zip(("token_embedding", "unembedding"), wanted, strict=True))
        assert not any(p.requires_grad for p in packed.parameters())


def test_what_is_packed_already_adapted_or_foreign_is_refused():
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=20, n_embd=16, n_layer=1, n_head=2, n_positions=8))
    for model, message in (
        (quantize_model(small_model(), Scheme(4, 8)), "blocks.0.attention.qkv is quantized already"),
        (quantize_linears(small_model(d_model=64)), "is quantized already: start from the model of floats"),
        (add_lora(small_model(), 2), "has an adapter: merge_lora"),
        (gpt2, "GPT2LMHeadModel is no GPT of llmcourse, and its layers may be of another kind .Conv1D"),
        (nn.Linear(8, 8), "Linear is no GPT"),
    ):
        with pytest.raises(ValueError, match=message):
            quantize_model(model, Scheme(4, 8))
