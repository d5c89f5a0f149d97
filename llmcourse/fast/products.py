"""Products of a weight matrix and a few rows, with what stands around them done on the way.

BLAS computes β·z + α·W·h at once. So a residual sum or a bias (z) and the number that RMSNorm divides
by (α) need no operation of their own, and the result may land in memory that is there already.

Dimensions: N rows, C width.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

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


def linear_step(layer: nn.Linear, single: bool = False, out: Tensor | None = None) -> Function:
    """Return x (N, in) -> (N, out), or (in,) -> (out,) for `single`, as a function that may write to `out`."""
    weight, bias = layer.weight.detach(), layer.bias
    turned = weight.t()
    if bias is None:
        return (lambda x: torch.mv(weight, x, out=out)) if single else lambda x: torch.mm(x, turned, out=out)
    bias = bias.detach()  # torch writes to `out` only where no gradient is wanted
    if single:
        return lambda x: torch.addmv(bias, weight, x, out=out)
    return lambda x: torch.addmm(bias, x, turned, out=out)


def normed_step(norm: nn.Module, layer: nn.Linear, single: bool, out: Tensor | None = None) -> Function:
    """Return the layer after the norm, as a function of x (N, C).

    RMSNorm divides by one number a row, √(|x|²/C + ε): the product of a single row does that by alpha. Of
    several rows, √(|x|² + C·ε) is one operation, and alpha the √C that is missing then.
    """
    weight = layer.weight.detach()
    on_cpu = weight.device.type == "cpu"  # elsewhere one would have to wait for the number
    if not (isinstance(norm, nn.RMSNorm) and norm.eps and weight.dtype in WIDE and on_cpu):
        normed, linear = norm_step(norm), linear_step(layer, single, out)
        return lambda x: linear(normed(x))
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
    weight, bias = layer.weight.detach(), None if layer.bias is None else layer.bias.detach()
    turned = weight.t()
    if weight.dtype not in WIDE:  # narrow sums are rounded, so in the model's order
        linear = linear_step(layer, single)
        return lambda x, y: x.add_(linear(y))
    add = (lambda x: x) if bias is None else (lambda x: x.add_(bias))
    return (lambda x, y: add(x).addmv_(weight, y)) if single else lambda x, y: add(x).addmm_(y, turned)
