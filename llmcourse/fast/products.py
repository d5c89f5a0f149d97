"""Products of a weight matrix and a few rows, with what stands around them done on the way.

BLAS computes β·z + α·W·h at once. So a residual sum or a bias (z) and the number that RMSNorm divides
by (α) need no operation of their own, and the result may land in memory that is there already.

int8 weights meet rows of bfloat16, for which alone torch has a fast product: to 1 part in 250.

Dimensions: N rows, C width.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmcourse.packed import Packed, PackedLinear, Scheme

INT8 = Scheme(8, "row")  # of the packed weights that can be multiplied without unpacking them
WIDE = (torch.float32, torch.float64)
Function = Callable[[Tensor], Tensor]


def norm_step(norm: nn.Module) -> Function:
    """Return the norm as a function."""
    if isinstance(norm, nn.Identity):
        return lambda x: x
    shape, weight, eps = norm.normalized_shape, norm.weight, norm.eps
    if isinstance(norm, nn.RMSNorm):
        return lambda x: torch.rms_norm(x, shape, weight, eps)
    bias = norm.bias
    return lambda x: torch.layer_norm(x, shape, weight, bias, eps)


def plain_weight(model: nn.Module) -> Tensor:
    """Return a weight that is never packed, for the model's dtype and device."""
    return model.blocks[0].attention_norm.weight


def can_multiply(layer: nn.Module, dtype: torch.dtype) -> bool:
    """Return whether torch can multiply rows of `dtype` by a layer as it is; of other widths it would read beyond."""
    if not isinstance(layer, PackedLinear):
        return True
    codes = layer.codes
    lies_well = codes.is_contiguous() and codes.device.type == "cpu" and codes.data_ptr() % 16 == 0
    fits = layer.scheme == INT8 and layer.in_features % 16 == 0
    return fits and lies_well and dtype != torch.float64


def embedding_step(layer: nn.Module) -> Function:
    """Return ids (N,) -> rows (N, C), or () -> (C,), as a function."""
    if not isinstance(layer, Packed):
        return lambda ids: F.embedding(ids, layer.weight)
    codes, scales, dtype = layer.codes, layer.scales, layer.like.dtype
    return lambda ids: (F.embedding(ids, codes) * scales[ids, None].float()).to(dtype)


def int8_step(layer: PackedLinear, out: Tensor | None) -> Function:
    """Return what `linear_step` returns, for a layer that is packed as int8.

    Raises ValueError where `can_multiply` says no: torch would read beyond the row.
    """
    if not can_multiply(layer, torch.float32):
        raise ValueError(
            f"torch cannot multiply by {layer} as it is: {INT8} with a multiple of 16 inputs on a CPU would do; "
            "build_decoder chooses what can"
        )
    codes, scales, bias = layer.codes, layer.scales, layer.bias
    ones = torch.ones(len(codes), dtype=torch.bfloat16)  # bfloat16 would round the scales

    def step(x: Tensor) -> Tensor:
        rows = x.to(torch.bfloat16).view(-1, codes.shape[1])
        y = torch._weight_int8pack_mm(rows, codes, ones).view(*x.shape[:-1], -1)
        y = torch.mul(y, scales, out=out).to(x.dtype)  # the product of bfloat16 and float16 is float32
        return y if bias is None else y.add_(bias)

    return step


def linear_step(layer: nn.Linear, single: bool = False, out: Tensor | None = None) -> Function:
    """Return x (N, in) -> (N, out), or (in,) -> (out,) for `single`, as a function that may write to `out`."""
    if isinstance(layer, PackedLinear):
        return int8_step(layer, out)
    weight, bias = layer.weight.detach(), layer.bias
    turned = weight.t()
    if bias is None:
        return (lambda x: torch.mv(weight, x, out=out)) if single else lambda x: torch.mm(x, turned, out=out)
    bias = bias.detach()  # torch writes to `out` only where no gradient is wanted
    if single:
        return lambda x: torch.addmv(bias, weight, x, out=out)
    return lambda x: torch.addmm(bias, x, turned, out=out)


def scales_itself(layer: nn.Linear) -> bool:
    """Return whether a product may take its factor from the row: elsewhere one would have to wait for the number."""
    if isinstance(layer, PackedLinear):
        return False
    return layer.weight.dtype in WIDE and layer.weight.device.type == "cpu"


def normed_step(norm: nn.Module, layer: nn.Linear, single: bool, out: Tensor | None = None) -> Function:
    """Return the layer after the norm, as a function of x (N, C).

    RMSNorm divides by one number a row, √(|x|²/C + ε): the product of a single row does that by alpha. Of
    several rows, √(|x|² + C·ε) is one operation, and alpha the √C that is missing then.
    """
    if not (isinstance(norm, nn.RMSNorm) and norm.eps and scales_itself(layer)):
        normed, linear = norm_step(norm), linear_step(layer, single, out)
        return lambda x: linear(normed(x))
    weight = layer.weight.detach()
    gain, eps, turned = norm.weight.detach(), norm.eps, weight.t()
    C = len(gain)
    bias, beta = (gain[:1], 0) if layer.bias is None else (layer.bias.detach(), 1)  # 0: the bias is not read
    least = gain.new_tensor(math.sqrt(C * eps))

    def one_row(x: Tensor) -> Tensor:
        scale = (x.dot(x).item() / C + eps) ** -0.5
        return torch.addmv(bias, weight, x * gain, beta=beta, alpha=scale, out=out)

    def rows(x: Tensor) -> Tensor:
        length = torch.hypot(torch.linalg.vector_norm(x, dim=-1, keepdim=True), least)  # (N, 1)
        return torch.addmm(bias, (x * gain).div_(length), turned, beta=beta, alpha=math.sqrt(C), out=out)

    return one_row if single else rows


def residual_step(layer: nn.Linear, single: bool) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a function that adds the layer's output for y (N, in) to x (N, C), in place."""
    if isinstance(layer, PackedLinear) or layer.weight.dtype not in WIDE:
        linear = linear_step(layer, single)  # narrow sums are rounded, so in the model's order
        return lambda x, y: x.add_(linear(y))
    weight, bias = layer.weight.detach(), None if layer.bias is None else layer.bias.detach()
    turned = weight.t()
    add = (lambda x: x) if bias is None else (lambda x: x.add_(bias))
    return (lambda x, y: add(x).addmv_(weight, y)) if single else lambda x, y: add(x).addmm_(y, turned)
