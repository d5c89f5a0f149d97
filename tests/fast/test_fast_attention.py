"""Attention in bfloat16 on a CPU, with and without `llmcourse.fast`, against float32."""

import pytest
import torch
import torch.nn.functional as F

from llmcourse import fast
from llmcourse.attention import MultiHeadAttention, causal_mask
from llmcourse.fast.attention import MAX_MATERIALIZED_LENGTH, materialized_attention
from llmcourse.positions import rotary_angles

LONG = MAX_MATERIALIZED_LENGTH + 1


def gradients_of(layer, x, dtype, **options):
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        y = layer(x, **options)
    assert y.dtype == dtype
    layer.zero_grad()
    y.float().square().sum().backward()
    return torch.cat([y.detach().float().flatten(), *(p.grad.flatten() for p in layer.parameters())])


@pytest.mark.parametrize("switched_on", [True, False])
@pytest.mark.parametrize("n_kv_heads", [1, 4])
@pytest.mark.parametrize("T", [9, LONG])
@pytest.mark.parametrize("kind", ["causal", "bool", "float"])
def test_training_in_bfloat16_has_the_outputs_and_gradients_of_float32(kind, T, n_kv_heads, switched_on):
    torch.manual_seed(0)
    layer = MultiHeadAttention(d_model=32, n_heads=4, n_kv_heads=n_kv_heads)
    x, options = torch.randn(2, T, 32), dict(is_causal=kind == "causal", rotary=rotary_angles(T, 8))
    if kind != "causal":
        options["mask"] = causal_mask(T).tril() & ~causal_mask(T).tril(-4)  # a window of four
    if kind == "float":
        options["mask"] = torch.zeros(T, T).masked_fill(~options["mask"], -torch.inf)
    exact = gradients_of(layer, x, torch.float32, **options)
    if switched_on:
        rounded = gradients_of(layer, x, torch.bfloat16, **options)
    else:
        with fast.disabled():
            rounded = gradients_of(layer, x, torch.bfloat16, **options)
    assert 0 < (rounded - exact).norm() < 0.01 * exact.norm()  # bfloat16 keeps 8 bits


def test_the_gradients_of_the_whole_matrix_are_those_of_the_kernel():
    torch.manual_seed(0)
    heads = torch.randn(2, 7, 9, 4, dtype=torch.float64, requires_grad=True).transpose(1, 2)  # strided
    parts, dy = heads.split(3, dim=1), torch.randn(2, 3, 7, 4, dtype=torch.float64)
    found = materialized_attention(*parts)
    expected = F.scaled_dot_product_attention(*parts, is_causal=True)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    pairs = zip(*(torch.autograd.grad(y, parts, dy) for y in (found, expected)), strict=True)
    for mine, theirs in pairs:
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)


def test_without_gradients_or_in_float32_it_is_torch_s_kernel_to_the_bit():
    layer, x = MultiHeadAttention(d_model=32, n_heads=4), torch.randn(1, 9, 32)
    for dtype in (torch.float32, torch.bfloat16):
        with torch.no_grad(), torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            on = layer(x, is_causal=True)
            with fast.disabled():
                assert torch.equal(layer(x, is_causal=True), on)
