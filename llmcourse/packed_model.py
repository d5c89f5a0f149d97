"""A model whose layers are packed: which ones are, how to make room for them, and the way back to floats."""

import copy
from collections.abc import Mapping

import torch
from torch import nn

from llmcourse.packed import Packed, PackedEmbedding, PackedLinear, Scheme


def packed_schemes(model: nn.Module) -> dict[str, Scheme]:
    """Return the scheme of each packed layer of `model` by its name; {} for a model of floats."""
    return {name: module.scheme for name, module in model.named_modules() if isinstance(module, Packed)}


def make_room(model: nn.Module, schemes: Mapping[str, Scheme]) -> None:
    """Replace the named layers of `model`, in place, by packed ones that are still empty.

    Raises ValueError for a name that is no linear layer or embedding of the model.
    """
    layers, tied = dict(model.named_modules()), are_tied(model)
    for name, scheme in schemes.items():
        layer = layers.get(name)
        if isinstance(layer, nn.Linear):
            packed = PackedLinear(scheme, layer.weight.shape, bias=layer.bias is not None)
        elif isinstance(layer, nn.Embedding):
            packed = PackedEmbedding(scheme, layer.weight.shape)
        else:
            raise ValueError(f"{name!r} is no layer that can be packed: the model is of another kind")
        model.set_submodule(name, packed)
    if tied:
        tie(model)


def are_tied(model: nn.Module) -> bool:
    """Return whether the unembedding of `model` is its token embedding: the same weight, or the same codes."""
    one, other = model.token_embedding, model.unembedding
    if isinstance(one, Packed) and isinstance(other, Packed):
        return one.codes is other.codes
    if isinstance(one, Packed) or isinstance(other, Packed):
        return False
    return one.weight is other.weight


def tie(model: nn.Module) -> None:
    """Let the packed unembedding read what the packed token embedding reads; floats stay as they are."""
    if isinstance(model.token_embedding, Packed) and isinstance(model.unembedding, Packed):
        model.unembedding.share(model.token_embedding)


def unpack_model(model: nn.Module) -> nn.Module:
    """Return a copy of a packed model with the same numbers as float32 weights, for what needs them.

    All of it is float32 then, or float64 where norms and biases were.
    So converting, fine-tuning and the fast decoder can use them; it needs the memory that packing saved.
    """
    dtype = torch.promote_types(next(model.parameters()).dtype, torch.float32)
    unpacked, tied = copy.deepcopy(model).to(dtype), are_tied(model)
    for name, module in list(unpacked.named_modules()):
        if isinstance(module, PackedLinear):
            layer = nn.Linear(module.in_features, module.out_features, bias=module.bias is not None)
            layer.weight = nn.Parameter(module.weight.to(dtype))
            if module.bias is not None:
                layer.bias = nn.Parameter(module.bias)
            unpacked.set_submodule(name, layer)
        elif isinstance(module, PackedEmbedding):
            unpacked.set_submodule(name, nn.Embedding(*module.shape, _weight=module.weight))
    if tied:
        unpacked.unembedding.weight = unpacked.token_embedding.weight
    return unpacked.requires_grad_(True)
