"""Round to nearest: each weight becomes the whole number that is closest, times the scale of its group.

Dimensions: O outputs and I inputs of a weight (rows and columns), G weights that share a scale.
"""

import copy

import torch
from torch import Tensor, nn

from llmcourse.model import GPT
from llmcourse.packed import PackedEmbedding, PackedLinear, Scheme, StoredWeight, dequantize_weight
from llmcourse.packed_model import are_tied, tie
from llmcourse.weights import unwrap

SMALLEST = 2.0**-24  # above 0 in float16
SHARES = torch.linspace(1.0, 0.4, 25)  # of the range of a group, which `clip` tries


def fit_scales(weight: Tensor, scheme: Scheme, clip: bool | Tensor = False) -> tuple[Tensor, Tensor | None]:
    """Return (scales, zeros) with which the codes of `scheme` just reach each group's extreme weights.

    Scales are float16, as they are stored; zeros, the codes that stand for 0, are uint8, and None for
    a symmetric scheme. Both have the shape `scheme.scale_shape(weight.shape)`. The range of a group
    holds 0, so that 0 stays exactly 0. With `clip`, each group takes the share of its range that
    `best_shares` finds, or that is given: outliers are cut, and the rest is told apart better.

    Raises ValueError for a weight that is no matrix of the scheme, not finite, or too large.

    >>> scales, zeros = fit_scales(torch.tensor([[-1.0, 0.0, 2.0]]), Scheme(2, "row", symmetric=False))
    >>> scales.tolist(), zeros.tolist()
    ([1.0], [1])

    Source: Jacob et al. 2017, arXiv:1712.05877, sec. 3.1 and eq. 12.
    """
    blocks = scheme.blocks(weight.detach().float())
    if not torch.isfinite(blocks).all():
        raise ValueError("a weight is not finite: quantize a model that has been trained without NaN")
    share = best_shares(weight, scheme) if clip is True else 1.0 if clip is False else clip
    share, shape = torch.as_tensor(share).to(blocks).flatten(), scheme.scale_shape(weight.shape)
    low, high = share * blocks.amin(1).clamp(max=0), share * blocks.amax(1).clamp(min=0)
    span = torch.maximum(-low, high) if scheme.symmetric else high - low
    scales = (span / scheme.high).half().clamp_min(SMALLEST)
    if scales.isinf().any():
        raise ValueError(f"weights up to {span.max():.2g} need scales that float16 cannot hold: divide them")
    if scheme.symmetric:
        return scales.view(shape), None
    zeros = (-low / scales.float()).round().clamp(0, scheme.high).to(torch.uint8)
    return scales.view(shape), zeros.view(shape)


def best_shares(weight: Tensor, scheme: Scheme) -> Tensor:
    """Return for each group the share of its range, from 0.4 to 1, with the smallest squared error.

    The shape is `scheme.scale_shape(weight.shape)`. Raises ValueError as `fit_scales` does.

    Source: Choukroun et al. 2019, arXiv:1902.06822.
    """
    weight, errors = weight.detach().float(), []
    for share in SHARES:
        restored = dequantize_weight(*quantize_weight(weight, scheme, share), scheme)
        errors.append(scheme.blocks(restored - weight).square().sum(1))
    return SHARES.to(weight.device)[torch.stack(errors).argmin(0)].view(scheme.scale_shape(weight.shape))


def nearest(weight: Tensor, scales: Tensor, zeros: Tensor | None) -> Tensor:
    """Return the whole number nearest to each weight, as a float, whether or not the scheme has that code.

    `scales` and `zeros` have, or broadcast to, the shape of `weight`. Halves go to the even
    neighbour, as in torch.
    """
    codes = (weight / scales.float()).round()
    return codes if zeros is None else codes + zeros


def to_codes(weight: Tensor, scales: Tensor, zeros: Tensor | None, scheme: Scheme) -> Tensor:
    """Return the nearest code of each weight, int8, or uint8 for an asymmetric scheme."""
    codes = nearest(weight, scales, zeros).clamp(scheme.low, scheme.high)
    return codes.to(torch.int8 if scheme.symmetric else torch.uint8)


def quantize_weight(
    weight: Tensor, scheme: Scheme, clip: bool | Tensor = False
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return (codes, scales, zeros): the weight (O, I) rounded to nearest, with `fit_scales`.

    Raises ValueError as `fit_scales` does.

    >>> codes, scales, _ = quantize_weight(torch.tensor([[-0.7, 0.1, 0.26]]), Scheme(4, "row"))
    >>> codes.tolist()
    [[-7, 1, 3]]
    """
    scales, zeros = fit_scales(weight, scheme, clip)
    columns = [None if part is None else part.reshape(-1, 1) for part in (scales, zeros)]
    blocks = scheme.blocks(weight.detach().float())
    return to_codes(blocks, *columns, scheme).view(weight.shape), scales, zeros


def pack_linear(layer: nn.Linear, scheme: Scheme, clip: bool = False) -> PackedLinear:
    """Return the layer with its weight rounded to nearest. Raises ValueError as `fit_scales` does."""
    return PackedLinear.from_codes(*quantize_weight(layer.weight, scheme, clip), scheme, layer.bias)


def block_linears(model: nn.Module) -> dict[str, nn.Linear]:
    """Return the linear layers inside the blocks of a GPT by their names: what is packed.

    Raises ValueError for another model, and for one with adapters or quantized weights.
    """
    if not isinstance(model, GPT):
        raise ValueError(
            f"{type(model).__name__} is no GPT of llmcourse, and its layers may be of another kind (Conv1D in "
            "GPT-2 of transformers): from_transformers reads it first"
        )
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, StoredWeight):
            raise ValueError(f"{name} is quantized already: start from the model of floats")
        if name.endswith((".base", ".A")) or hasattr(module, "base"):
            raise ValueError(f"{name} has an adapter: merge_lora makes it part of the weights")
        if isinstance(module, nn.Linear | nn.Embedding) and hasattr(module, "scheme"):
            raise ValueError(f"{name} is prepared already: finish_qat packs what prepare_qat has prepared")
        if isinstance(module, nn.Linear) and name.startswith("blocks."):
            found[name] = module
    return found


def quantize_model(model: GPT, scheme: Scheme, *, embedding: Scheme | None = None, clip: bool = False) -> GPT:
    """Return a packed, frozen copy of `model`, its linear layers rounded to nearest by `scheme`.

    `embedding` is the scheme of the token embedding and the unembedding, which is the same table in
    a tied model; without it both stay floats, as norms, positions and biases do. `model` stays as
    it was. Raises ValueError as `block_linears` and `fit_scales` do.

    >>> from llmcourse.model import ModelConfig
    >>> model = GPT(ModelConfig(vocab_size=10, d_model=16, n_layers=1))
    >>> quantize_model(model, Scheme(4, 16)).blocks[0].mlp.up
    PackedLinear(16 to 96, int4 16 symmetric)
    """
    model = unwrap(model)
    block_linears(model)
    packed = copy.deepcopy(model)
    for name, layer in block_linears(packed).items():
        packed.set_submodule(name, pack_linear(layer, scheme, clip))
    if embedding is not None:
        pack_ends(packed, embedding, clip)
    return packed.requires_grad_(False).eval()


def pack_ends(model: GPT, scheme: Scheme, clip: bool = False) -> None:
    """Round the token embedding and the unembedding of `model` to nearest, in place; tied ones stay tied."""
    tied, table = are_tied(model), model.token_embedding.weight
    model.unembedding = pack_linear(model.unembedding, scheme, clip)
    model.token_embedding = PackedEmbedding.from_codes(*quantize_weight(table, scheme, clip), scheme, table)
    if tied:
        tie(model)
