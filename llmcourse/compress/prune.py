"""Pruning: set the smallest weights to 0, and keep them there while the others learn.

A mask is True where a weight is kept. A weight is (out, in).
"""

import contextlib
from collections.abc import Iterator, Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from llmcourse.support.inputs import number
from llmcourse.weights import unwrap

Masks = Mapping[str, Tensor]  # of bool, by the names of the weights


def prunable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the weights of the linear layers inside the blocks of `model`, by their names.

    Not the output: where it is tied it is the embedding, and a mask on the one would cut the other.
    Raises ValueError for a model without blocks, or with none of floats in them.

    >>> from llmcourse.model import GPT, ModelConfig
    >>> len(prunable(GPT(ModelConfig(vocab_size=8, d_model=8, n_heads=2, n_layers=2))))
    8
    """
    blocks = getattr(unwrap(model), "blocks", nn.ModuleList())
    layers = {name: layer for name, layer in blocks.named_modules() if isinstance(layer, nn.Linear)}
    if not layers:
        raise ValueError(
            f"{type(model).__name__} has no linear layers of floats in `blocks`: prune a GPT, and before it is quantized"
        )
    return {f"blocks.{name}.weight": layer.weight for name, layer in layers.items()}


def magnitude_masks(model: nn.Module, share: float, scope: str = "layer") -> dict[str, Tensor]:
    """Return masks without the `share` of the weights that is smallest in magnitude.

    scope="layer" takes the share from each matrix, "global" from all together, so that a matrix of
    small weights loses more. The number of weights is rounded. Raises ValueError for a share outside
    [0, 1), another scope, and where `prunable` does.

    >>> from llmcourse.model import GPT, ModelConfig
    >>> masks = magnitude_masks(GPT(ModelConfig(vocab_size=8, d_model=8, n_heads=2, n_layers=1)), 0.25)
    >>> masks["blocks.0.attention.out.weight"].float().mean().item()
    0.75

    Source: Han et al. 2015, arXiv:1506.02626, sec. 3.
    """
    number(share, "share", 0, 1 - 1e-9, "the share of weights to remove, a number in [0, 1), such as 0.5")
    weights = {name: weight.detach().abs() for name, weight in prunable(model).items()}
    if scope == "layer":
        return {name: _without_smallest(sizes, share) for name, sizes in weights.items()}
    if scope != "global":
        raise ValueError(f"scope={scope!r} is unknown: choose 'layer' or 'global'")
    together = _without_smallest(torch.cat([sizes.flatten() for sizes in weights.values()]), share)
    parts = together.split([sizes.numel() for sizes in weights.values()])
    return {name: part.view_as(weights[name]) for name, part in zip(weights, parts, strict=True)}


def _without_smallest(sizes: Tensor, share: float) -> Tensor:
    mask = torch.ones_like(sizes, dtype=torch.bool)
    smallest = sizes.flatten().topk(round(share * sizes.numel()), largest=False).indices
    mask.view(-1)[smallest] = False
    return mask


def two_of_four_masks(model: nn.Module) -> dict[str, Tensor]:
    """Return masks that keep the two largest of every four neighbours in a row; of equals, the first.

    Some GPUs multiply in this pattern twice as fast; a CPU gains nothing from it. Raises ValueError
    where 4 does not divide the inputs of a layer, and where `prunable` does.

    Source: Mishra et al. 2021, arXiv:2104.08378, sec. 3 and 4.
    """
    masks = {}
    for name, weight in prunable(model).items():
        if weight.shape[1] % 4:
            raise ValueError(f"{name} has {weight.shape[1]} inputs: groups of four need a multiple of 4")
        fours = weight.detach().abs().view(-1, 4)
        kept = fours.argsort(dim=1, descending=True, stable=True)[:, :2]
        masks[name] = torch.zeros_like(fours, dtype=torch.bool).scatter_(1, kept, True).view_as(weight)
    return masks


@torch.no_grad()
def apply_masks(model: nn.Module, masks: Masks) -> None:
    """Set the weights that `masks` do not keep to 0, in place. Raises ValueError as `keep_masks` does."""
    for weight, mask in _pairs(model, masks):
        weight.masked_fill_(~mask, 0.0)


@contextlib.contextmanager
def keep_masks(model: nn.Module, masks: Masks) -> Iterator[nn.Module]:
    """Prune `model` in place, and keep it so while it is trained inside this `with`, and after.

    Pruned weights have no gradient, and after each step of any torch optimizer they are set to 0 again:
    Muon's steps and old momentum would move them. The weights stay ordinary parameters under their own
    names, so they are saved and resumed as always, and nothing is left to remove afterwards.

    Raises ValueError, and changes nothing, for masks of other names, shapes or kind than `prunable`.

    >>> from llmcourse.model import GPT, ModelConfig
    >>> model = GPT(ModelConfig(vocab_size=8, d_model=8, n_heads=2, n_layers=1))
    >>> with keep_masks(model, magnitude_masks(model, 0.5)):
    ...     pass  # for step in train(model, ...): ...
    >>> sparsity(model)
    0.5
    """
    pairs = _pairs(model, masks)
    apply_masks(model, masks)
    hooks = [weight.register_hook(partial(torch.mul, mask)) for weight, mask in pairs if weight.requires_grad]
    hooks.append(register_optimizer_step_post_hook(lambda *_: apply_masks(model, masks)))
    try:
        yield model
    finally:
        for hook in hooks:
            hook.remove()
        apply_masks(model, masks)


def _pairs(model: nn.Module, masks: Masks) -> list[tuple[nn.Parameter, Tensor]]:
    """Return (weight, mask) of all, or raise ValueError."""
    weights, pairs = prunable(model), []
    for name, mask in masks.items():
        if name not in weights:
            raise ValueError(
                f"{name} is no weight that can be pruned here: take masks from magnitude_masks(model, ...) or "
                f"two_of_four_masks(model); the first of {len(weights)} names is {next(iter(weights))}"
            )
        if mask.shape != weights[name].shape or mask.dtype != torch.bool:
            raise ValueError(
                f"the mask of {name} is {tuple(mask.shape)} in {mask.dtype}: it must be "
                f"{tuple(weights[name].shape)} in torch.bool, True where a weight is kept"
            )
        pairs.append((weights[name], mask.to(weights[name].device)))
    return pairs


def sparsity(model: nn.Module) -> float:
    """Return the share of zeros among the weights that can be pruned."""
    weights = prunable(model).values()
    return sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)
