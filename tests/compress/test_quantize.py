"""Four-bit weights against the published table, direct search, and arithmetic."""

import copy
import itertools

import pytest
import torch
from torch import nn

from llmcourse.compress.quantize import (
    QuantizedLinear,
    dequantize,
    fp4_levels,
    nearest_level,
    nf4_levels,
    quantize,
    quantize_linears,
    uniform_levels,
)
from llmcourse.model import GPT, ModelConfig

PUBLISHED = [  # arXiv:2305.14314, appendix E
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0,
]  # fmt: skip
LEVELS = {"nf4": nf4_levels, "uniform": uniform_levels, "fp4": fp4_levels}


def normal(*shape, seed=0, std=0.02):
    return std * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_nf4_levels_are_those_of_the_paper():
    assert torch.allclose(nf4_levels(), torch.tensor(PUBLISHED), atol=1e-6)


@pytest.mark.parametrize("levels", LEVELS.values(), ids=LEVELS)
def test_levels_ascend_from_minus_one_to_one_and_hold_zero(levels):
    values = levels()
    assert len(values) in (15, 16)
    assert bool((values[1:] > values[:-1]).all())
    assert (values[0], values[-1]) == (-1.0, 1.0)
    assert 0.0 in values


@pytest.mark.parametrize("levels", LEVELS.values(), ids=LEVELS)
def test_the_nearest_level_is_the_nearest(levels):
    values = torch.rand(1000, generator=torch.Generator().manual_seed(0)) * 2 - 1
    distance = (values[:, None] - levels()).abs()
    chosen = distance.gather(1, nearest_level(values, levels())[:, None])[:, 0]
    assert torch.equal(chosen, distance.min(dim=1).values)


@pytest.mark.parametrize("block", [2, 64, 256])
@pytest.mark.parametrize("double", [False, True])
def test_quantizing_equals_the_definition_block_by_block(block, double):
    weight = normal(32, 64)
    restored = dequantize(quantize(weight, block=block, double=double))
    expected = torch.empty_like(weight).view(-1, block)
    for row, values in enumerate(weight.view(-1, block)):
        scale = values.abs().max()
        nearest = (values[:, None] / scale - nf4_levels()).abs().argmin(dim=1)
        expected[row] = scale * nf4_levels()[nearest]
    assert restored.shape == weight.shape
    tolerance = 3e-4 if double else 1e-7  # half a step of an 8-bit scale, at most
    assert torch.allclose(restored, expected.view_as(weight), atol=tolerance)


def test_the_largest_weight_of_a_block_zeros_and_levels_survive():
    weight = torch.zeros(3, 64)
    weight[0, :16], weight[1, 5] = 0.5 * nf4_levels(), -3.0
    assert torch.allclose(dequantize(quantize(weight)), weight, atol=1e-7)


def test_quantizing_twice_changes_nothing_more():
    once = dequantize(quantize(normal(16, 64)))
    assert torch.allclose(dequantize(quantize(once)), once, atol=1e-8)


def test_bits_for_one_weight_are_those_of_the_paper():
    weight = normal(256, 512)
    assert quantize(weight).bits_per_weight() == 4 + 32 / 64
    double = quantize(weight, double=True).bits_per_weight()
    assert double == 4 + 8 / 64 + 32 / (64 * 256)
    assert round(double, 3) == 4.127


def test_on_normal_weights_nf4_errs_least_and_uses_its_levels_evenly():
    weight = normal(512, 512)
    error = {
        n: (dequantize(quantize(weight, levels())) - weight).square().mean() for n, levels in LEVELS.items()
    }
    assert error["nf4"] < 0.9 * min(error["uniform"], error["fp4"])

    def entropy(levels):
        codes = quantize(weight, levels()).codes
        shares = torch.stack([codes // 16, codes % 16]).flatten().bincount() / weight.numel()
        return -torch.xlogy(shares, shares).sum()

    assert entropy(nf4_levels) > entropy(uniform_levels)


def test_double_quantization_costs_little_error():
    weight = normal(256, 256)
    plain, double = ((dequantize(quantize(weight, double=d)) - weight).norm() for d in (False, True))
    assert double < 1.01 * plain


@pytest.mark.parametrize("shape", [(8, 8), (3, 5), (0,)])
def test_blocks_must_divide_the_weights(shape):
    if torch.Size(shape).numel() == 64:
        assert quantize(torch.ones(shape)).scales.shape == (1,)
    else:
        with pytest.raises(ValueError, match="do not split into blocks of 64"):
            quantize(torch.ones(shape))
    with pytest.raises(ValueError, match="even block"):
        quantize(torch.ones(9, 3), block=3)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_must_be_finite(bad):
    weight = torch.ones(64)
    weight[3] = bad
    with pytest.raises(ValueError, match="not finite"):
        quantize(weight)


@pytest.mark.parametrize("bias", [False, True])
def test_a_quantized_layer_is_a_linear_layer_with_the_restored_weight(bias):
    linear = nn.Linear(64, 32, bias=bias)
    layer = QuantizedLinear(linear)
    x = normal(5, 64, std=1.0).requires_grad_()
    restored = dequantize(quantize(linear.weight, double=True))
    expected = nn.functional.linear(x, restored, linear.bias)
    assert torch.equal(layer(x), expected)
    assert list(layer.parameters()) == []
    layer(x).sum().backward()  # a gradient passes through, to adapters below
    assert torch.allclose(x.grad, restored.sum(0).expand_as(x), atol=1e-6)


def test_a_quantized_model_stores_its_blocks_in_four_bits():
    torch.manual_seed(0)
    model = GPT(ModelConfig(vocab_size=50, d_model=64, n_layers=2)).eval()
    small = quantize_linears(copy.deepcopy(model))
    ids = torch.arange(20)[None]
    restored = copy.deepcopy(model)
    for name, module in restored.named_modules():
        if isinstance(module, nn.Linear) and name.startswith("blocks"):
            module.weight.data = dequantize(quantize(module.weight, double=True))
    assert torch.allclose(small(ids), restored(ids), atol=1e-5)
    assert not any(p.requires_grad for p in small.parameters())
    left = [name for name, m in small.named_modules() if isinstance(m, nn.Linear)]
    assert left == ["unembedding"]


# ---- state ------------------------------------------------------------------------------------


def quantized_gpt(seed=0, **options):
    torch.manual_seed(seed)
    return quantize_linears(GPT(ModelConfig(vocab_size=50, d_model=64, n_layers=2)).eval(), **options)


KINDS = {
    "double": {},
    "one scale": dict(double=False),
    "long blocks": dict(block=1024),
    "int4": dict(levels=uniform_levels()),
}


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_the_state_holds_all_that_unpacks_the_weights(options):
    """arXiv:2305.14314, sec. 3: the mean too; bitsandbytes-foundation/bitsandbytes#1946."""
    one, two = quantized_gpt(0, **options), quantized_gpt(1, **options)
    ids = torch.arange(20)[None]
    wanted = one(ids)
    assert not torch.equal(two(ids), wanted)
    two.load_state_dict(one.state_dict())
    assert torch.equal(two(ids), wanted)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(("there", "here"), list(itertools.permutations(KINDS, 2)))
def test_a_state_of_another_kind_is_refused(there, here, strict):
    """torch's copy_ casts without a word, so bytes would become scales."""
    state = quantized_gpt(0, **KINDS[there]).state_dict()
    with pytest.raises(RuntimeError, match=r"quantized with other options|size mismatch"):
        quantized_gpt(1, **KINDS[here]).load_state_dict(state, strict=strict)


def test_a_state_without_the_mean_is_refused_by_name():
    """As double quantization was stored before; torch itself is silent with strict=False."""
    model = quantized_gpt()
    state = {name: part for name, part in model.state_dict().items() if not name.endswith("scale_mean")}
    for strict in (True, False):
        with pytest.raises(
            RuntimeError, match=r"blocks\.0\.attention\.qkv\.scale_mean is not there in the state"
        ):
            model.load_state_dict(state, strict=strict)
    rest = {name: part for name, part in state.items() if not name.startswith("blocks")}
    assert model.load_state_dict(rest, strict=False).unexpected_keys == []


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_change_of_precision_leaves_codes_and_scales_as_they_are(dtype):
    """As bitsandbytes' quant state: model.half() would round scales of scales to nothing."""
    model = quantized_gpt()
    before = {name: part.clone() for name, part in model.state_dict().items()}
    layer, ids = model.blocks[0].mlp.up, torch.arange(20)[None]
    weight = layer.weight
    narrowed = model.to(dtype)
    assert torch.equal(layer.weight, weight)
    assert narrowed(ids).dtype == dtype
    for name, part in narrowed.state_dict().items():
        if part.dtype != dtype:
            assert torch.equal(part, before[name]), name


def test_a_layer_has_levels_of_its_own():
    """Else a state loaded into one layer would change every other that was given the same levels."""
    levels = uniform_levels()
    one, two = (QuantizedLinear(nn.Linear(64, 2), levels=levels) for _ in range(2))
    weight = two.weight
    one.load_state_dict(one.state_dict() | {"levels": fp4_levels()})
    assert torch.equal(two.weight, weight)
    assert torch.equal(levels, uniform_levels())


def test_more_levels_than_four_bits_name_are_refused():
    for levels in (torch.linspace(-1, 1, 17), torch.tensor([0.0]), torch.tensor([1.0, -1.0])):
        with pytest.raises(ValueError, match="four bits name 2 to 16 levels, which must ascend"):
            quantize(torch.ones(64), levels)


def test_a_model_that_cannot_be_quantized_stays_as_it_was():
    model = GPT(ModelConfig(vocab_size=50, d_model=64, n_layers=2))
    model.blocks[1].mlp.down.weight.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        quantize_linears(model)
    assert not any(isinstance(module, QuantizedLinear) for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
