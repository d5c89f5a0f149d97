"""Ablation: take a part of the model away while it runs, and measure what is missed.

Dimensions: B batch, T time, H heads, D head width, L layers.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from llmcourse.interpret.hooks import Edit, record
from llmcourse.model import GPT

MODES = ("zero", "mean")


def ablate_heads(
    heads: Iterable[tuple[int, int]], mode: str = "zero", means: Tensor | None = None
) -> dict[str, Edit]:
    """Return edits for `hooked` that take away what each of `heads`, pairs (layer, head), adds.

    "zero" puts zeros there. They may be far from anything that the model has met, so that it errs for
    another reason than the missing head; "mean" puts the mean output of `head_means` there, which
    says nothing of this text. Raises ValueError for an unknown mode, missing means, and a head that does
    not exist, the last one when the model runs.

    >>> from llmcourse.config import ModelConfig
    >>> from llmcourse.interpret.hooks import hooked
    >>> model = GPT(ModelConfig(vocab_size=10, d_model=16, n_heads=2, n_layers=1))
    >>> with hooked(model, ablate_heads([(0, 1)])):
    ...     record(model, [1, 2], "blocks.0.attention.heads")["blocks.0.attention.heads"][0, :, 1].abs().max()
    tensor(0.)

    Source: Michel et al. 2019, arXiv:1905.10650, eq. 2 (zero); Wang et al. 2022, arXiv:2211.00593, sec. 2.1 (mean).
    """
    if mode not in MODES:
        raise ValueError(f"mode={mode!r} is unknown: choose one of {MODES}")
    if (means is None) != (mode == "zero"):
        raise ValueError(
            f"mode={mode!r} with means={means if means is None else tuple(means.shape)}: "
            "give head_means(model, ids) for mode='mean', and none for 'zero'"
        )
    layers = by_layer(heads)
    if means is not None and (missing := [layer for layer in layers if layer >= len(means)]):
        raise ValueError(f"layer {missing[0]} has no means: they are of layers 0 to {len(means) - 1}")
    return {
        f"blocks.{layer}.attention.heads": replace_heads(some, None if means is None else means[layer])
        for layer, some in layers.items()
    }


def by_layer(heads: Iterable[tuple[int, int]]) -> dict[int, list[int]]:
    """Return the heads of each layer, from pairs (layer, head). Raises ValueError for what is no pair of numbers.

    >>> by_layer([(2, 1), (0, 3), (2, 0)])
    {0: [3], 2: [0, 1]}
    """
    layers: dict[int, list[int]] = {}
    for pair in heads:
        if not isinstance(pair, Sequence) or len(pair) != 2:
            raise ValueError(f"{pair!r} is no head: give pairs (layer, head)")
        for name, value in zip(("layer", "head"), pair, strict=True):
            if not 0 <= value == int(value):
                raise ValueError(f"{name} {value} does not exist: layers and heads are counted from 0")
        layers.setdefault(int(pair[0]), []).append(int(pair[1]))
    return {layer: sorted(layers[layer]) for layer in sorted(layers)}


def replace_heads(heads: list[int], values: Tensor | None = None) -> Callable[[Tensor], Tensor]:
    """Return the edit of a site (B, T, H, D) that puts `values` at `heads`: 0, or what broadcasts to the site.

    >>> replace_heads([1])(torch.ones(1, 1, 3, 2)).tolist()
    [[[[1.0, 1.0], [0.0, 0.0], [1.0, 1.0]]]]
    """

    def edit(x: Tensor) -> Tensor:
        if max(heads) >= x.shape[-2]:
            raise ValueError(f"head {max(heads)} does not exist: this layer has heads 0 to {x.shape[-2] - 1}")
        chosen = torch.zeros(x.shape[-2], 1, dtype=torch.bool, device=x.device)
        chosen[heads] = True
        if values is None:
            return x.masked_fill(chosen, 0.0)
        try:
            return torch.where(chosen, values.to(x), x)
        except RuntimeError as error:
            raise ValueError(
                f"values of {tuple(values.shape)} do not fit (B, T, H, D) = {tuple(x.shape)}: those of each position "
                "are for texts of the same length"
            ) from error

    return edit


def head_means(model: GPT, token_ids, each_position: bool = False) -> Tensor:
    """Return the mean output of each head (L, H, D) over all positions of token_ids (B, T).

    With `each_position`, (L, T, H, D): over the rows alone, for texts built alike, of the same length.
    Raises ValueError as `record`.
    """
    sites = [f"blocks.{layer}.attention.heads" for layer in range(len(model.blocks))]
    outputs = torch.stack(list(record(model, token_ids, sites).values()))  # (L, B, T, H, D)
    return outputs.mean(dim=1 if each_position else (1, 2))
