"""GPTQ: round one column of a weight after another, and let the columns to come make up for the error.

Dimensions: O outputs and I inputs of a weight (rows and columns), N tokens of calibration text, B rows
of them, T time, C width.
"""

import copy

import torch
from torch import Tensor, nn

from llmcourse.compress.rounding import block_linears, fit_scales, pack_ends, to_codes
from llmcourse.generate import prompt_batch
from llmcourse.model import GPT
from llmcourse.packed import PackedLinear, Scheme, dequantized
from llmcourse.support.inputs import number
from llmcourse.weights import unwrap

CHUNK = 32  # rows of calibration text at once


def inverse_root(hessian: Tensor, damping: float) -> Tensor:
    """Return the upper triangle U (I, I) in float64 with Uᵀ U = (H + damping · mean(diag H) · 1)⁻¹.

    Row i of U, divided by U_ii, says how the columns after i make up for an error in column i once
    those before it are fixed: eliminating a column from the inverse is a step of Cholesky's. Damping
    makes H invertible, and the corrections smaller: without it, they follow the calibration text into
    directions that hardly occur there. Raises ValueError for H that is not finite, or still not
    positive definite.

    Source: Frantar et al. 2022, arXiv:2210.17323, sec. 3.3, step 3.
    """
    damping = number(damping, "damping", 0, wanted="a number that is not negative, such as 0.01")
    if not torch.isfinite(hessian).all():
        raise ValueError("the hessian is not finite: calibrate a model that has been trained without NaN")
    hessian = hessian.double()
    if not hessian.any():  # the layer got zeros only: no column can make up for another
        return torch.eye(len(hessian)).to(hessian)
    hessian = hessian + damping * hessian.diagonal().mean() * torch.eye(len(hessian)).to(hessian)
    try:
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
        return torch.linalg.cholesky(inverse, upper=True)
    except torch.linalg.LinAlgError as error:
        raise ValueError(
            f"the hessian is not positive definite with damping={damping}: some inputs never occur, or always "
            "together; give more calibration text, or more damping, such as 0.01"
        ) from error


@torch.no_grad()
def gptq(
    weight: Tensor,
    hessian: Tensor,
    scheme: Scheme,
    damping: float = 0.01,
    *,
    clip: bool = False,
    by_activation: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return (codes, scales, zeros) of a weight (O, I) that keep the layer's outputs, not its weights.

    `hessian` (I, I) is the mean of x xᵀ over the layer's inputs x; its scale does not matter. From left
    to right, each column is rounded, and all columns behind it take over the part of the error that
    their inputs can make good. The scales of a group are fitted when its first column is due, with
    the corrections so far; `by_activation` begins with the columns of the largest inputs instead
    (act-order), and fits all scales before. `clip` is that of `fit_scales`. An input that never occurs
    has no covariance with others, so its column is rounded to nearest.

    It is greedy: each column is the best one for those before it. Raises ValueError for a hessian that
    does not fit the weight, and as `inverse_root` and `fit_scales` do.

    >>> H = torch.tensor([[1.0, 0.9], [0.9, 1.0]])  # two inputs that mostly agree
    >>> gptq(torch.tensor([[0.4, 0.4, 7.0]])[:, :2], H, Scheme(4, "tensor"))[0].tolist()
    [[7, 7]]

    Source: Frantar et al. 2022, arXiv:2210.17323, eq. 2-3 and alg. 1; greedy rounding of a lattice's
    nearest point (Babai), read backwards: Chen et al. 2025, arXiv:2507.18553.
    """
    scales, zeros = fit_scales(weight, scheme, clip)
    if hessian.shape != (weight.shape[1], weight.shape[1]):
        raise ValueError(
            f"a hessian of shape {tuple(hessian.shape)} for a weight with {weight.shape[1]} inputs: collect it "
            "from the inputs of this layer"
        )
    order = hessian.diagonal().argsort(descending=True, stable=True) if by_activation else None
    order = torch.arange(weight.shape[1], device=weight.device) if order is None else order
    upper = inverse_root(hessian[order][:, order], damping).to(weight.device)
    left = weight.detach().double()[:, order]  # what is left to be rounded, corrections included
    codes = torch.zeros(weight.shape, dtype=torch.int8 if zeros is None else torch.uint8).to(weight.device)
    for i, column in enumerate(order.tolist()):
        if isinstance(scheme.group, int) and not by_activation and i % scheme.group == 0:
            fitted = fit_scales(left[:, i : i + scheme.group], scheme, clip)
            for part, new in zip((scales, zeros), fitted, strict=True):
                if part is not None:
                    part[:, i // scheme.group] = new[:, 0]
        parts = [_of_column(part, column, scheme) for part in (scales, zeros)]
        codes[:, column] = to_codes(left[:, i], *parts, scheme)
        error = (left[:, i] - dequantized(codes[:, column], *parts)) / upper[i, i]  # (O,)
        left[:, i + 1 :] -= torch.outer(error, upper[i, i + 1 :])
    return codes, scales, zeros


def _of_column(part: Tensor | None, column: int, scheme: Scheme) -> Tensor | None:
    """Return the scales or zeros (O,) or () that a column uses."""
    return part[:, column // scheme.group] if part is not None and isinstance(scheme.group, int) else part


@torch.no_grad()
def collect_hessian(layer: nn.Module, run) -> Tensor:
    """Return the mean of x xᵀ, (I, I) in float64, over the inputs x that `layer` gets while `run()` works.

    Raises ValueError where it gets none.
    """
    total, count = 0.0, 0

    def add(_, inputs) -> None:
        nonlocal total, count
        x = inputs[0].flatten(0, -2).float()  # (tokens, I)
        total, count = total + (x.T @ x).double(), count + len(x)

    handle = layer.register_forward_pre_hook(add)
    try:
        run()
    finally:
        handle.remove()
    if not count:
        raise ValueError(f"run() gave no inputs to {layer}: let it run the model that holds this layer")
    return total / count


@torch.no_grad()
def quantize_gptq(
    model: GPT,
    rows: Tensor,
    scheme: Scheme,
    *,
    embedding: Scheme | None = None,
    damping: float = 0.01,
    **options,
) -> GPT:
    """Return a packed, frozen copy of `model`, its linear layers rounded by GPTQ with the text of `rows`.

    `rows` (B, T) are token ids of text as the model will read it. Layer after layer, in the order in
    which tokens pass them: each sees the inputs that the packed layers before it make. `embedding` is
    rounded to nearest, as in `quantize_model`. `options` are those of `gptq`. `model` stays as it was.

    Raises ValueError for another kind of model (as `quantize_model`), rows that are no token ids,
    and fewer tokens than a layer has inputs, which leave directions that no token says anything of.
    """
    model = unwrap(model)
    layers = block_linears(model)
    if type(model) is not GPT:
        raise ValueError(
            f"{type(model).__name__} has parts between its blocks: only a GPT is walked through here"
        )
    rows = torch.as_tensor(rows)
    if rows.dim() != 2 or rows.is_floating_point() or rows.dtype == torch.bool:
        raise ValueError(f"rows of shape {tuple(rows.shape)} in {rows.dtype}: give token ids (B, T)")
    widest = max(layer.in_features for layer in layers.values())
    if rows.numel() < widest:
        raise ValueError(
            f"rows of {tuple(rows.shape)} are {rows.numel()} tokens, fewer than the {widest} inputs of a layer: "
            f"give at least {widest}, better {16 * widest}"
        )
    rows = prompt_batch(rows, model.config.vocab_size)
    packed = copy.deepcopy(model).requires_grad_(False).eval()
    if embedding is not None:
        pack_ends(packed, embedding)
    x, rotary = packed.embed(rows.to(next(packed.parameters()).device))  # (B, T, C)
    for i, block in enumerate(packed.blocks):

        def run(block=block, x=x):
            return torch.cat([block(part, None, rotary) for part in x.split(CHUNK)])

        for name in (name for name in layers if name.startswith(f"blocks.{i}.")):
            layer = packed.get_submodule(name)
            parts = gptq(layer.weight, collect_hessian(layer, run), scheme, damping, **options)
            packed.set_submodule(name, PackedLinear.from_codes(*parts, scheme, layer.bias))
        x = run()
    return packed
