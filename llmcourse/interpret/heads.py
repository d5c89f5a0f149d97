"""What a head looks at: the share of its attention that falls on places with a name.

A score says where a head looks, not what it carries from there, nor whether anything depends on it.

Dimensions: B batch, T queries (time), S keys, L layers, H heads.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from llmcourse.generate import prompt_batch
from llmcourse.model import GPT


def patterns(token_ids: Tensor) -> dict[str, Tensor]:
    """Return (B, T, T) masks of the rows token_ids (B, T): True where a head of that name looks.

    "previous token" is one position back; "same token" an earlier position with the token of this one;
    "induction" one behind such a position: what followed last time; "first" and "itself" are positions
    where heads rest that have nothing to do.

    >>> patterns(torch.tensor([[5, 6, 5]]))["induction"][0].int().tolist()
    [[0, 0, 0], [0, 0, 0], [0, 1, 0]]

    Source: Olsson et al. 2022, arXiv:2209.11895, app. (prefix matching, copying); Wang et al. 2022, arXiv:2211.00593.
    """
    B, T = token_ids.shape
    earlier = torch.ones(T, T, dtype=torch.bool, device=token_ids.device).tril(-1)  # (T, S): key before query
    same = (token_ids[:, :, None] == token_ids[:, None, :]) & earlier  # (B, T, S)
    itself = torch.eye(T, dtype=torch.bool, device=token_ids.device).expand(B, T, T)
    behind = F.pad(same, (1, 0))[:, :, :-1]  # one further on: the key behind an earlier twin
    first = torch.zeros_like(itself)
    first[:, 1:, 0] = True
    previous = F.pad(itself, (0, 1))[:, :, 1:]
    masks = {"previous token": previous, "induction": behind & earlier, "same token": same}
    return masks | {"first": first, "itself": itself}


@torch.no_grad()
def head_scores(model: GPT, token_ids) -> dict[str, Tensor]:
    """Return for each name of `patterns` a score (L, H): the mean share of attention that falls there.

    The mean is over those positions of the rows token_ids (B, T) at which there is such a place; NaN if there is
    none. Compare it with `uniform_scores`, what a head gets that looks everywhere alike.

    >>> from llmcourse.config import ModelConfig
    >>> model = GPT(ModelConfig(vocab_size=10, d_model=16, n_heads=2, n_layers=3))
    >>> head_scores(model, torch.tensor([[1, 2, 1, 2]]))["induction"].shape
    torch.Size([3, 2])
    """
    token_ids = prompt_batch(token_ids, model.config.vocab_size).to(model.token_embedding.weight.device)
    masks = patterns(token_ids)
    maps = torch.stack([_shares(weights, masks) for weights in model.attention_maps(token_ids)])  # (L, P, H)
    return dict(zip(masks, maps.unbind(1), strict=True))


def uniform_scores(token_ids) -> dict[str, float]:
    """Return for each name of `patterns` the score of a head that looks at all earlier positions alike.

    >>> uniform_scores(torch.tensor([[1, 1]]))["previous token"]
    0.5
    """
    token_ids = torch.atleast_2d(torch.as_tensor(token_ids))
    T = token_ids.shape[-1]
    weights = torch.ones(T, T).tril() / torch.arange(1, T + 1)[:, None]  # (T, T)
    masks = patterns(token_ids)
    shares = _shares(weights.expand(len(token_ids), 1, T, T), masks)[:, 0]
    return dict(zip(masks, shares.tolist(), strict=True))


def _shares(weights: Tensor, masks: dict[str, Tensor]) -> Tensor:
    """Return (P, H): of weights (B, H, T, T) the mean share on each mask (B, T, T), where it is not empty."""
    rows = []
    for mask in masks.values():
        on_it = (weights * mask[:, None]).sum(-1)  # (B, H, T)
        there = mask.any(-1)  # (B, T)
        rows.append((on_it * there[:, None]).sum((0, 2)) / there.sum())
    return torch.stack(rows)
