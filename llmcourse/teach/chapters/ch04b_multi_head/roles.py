"""What a head of a trained model does, measured: the four roles of `04b_multi_head`.

Dimensions: B passages, T places; weights are (B, layers, heads, T, T), a query a row.
"""

import torch
from torch import Tensor


def earlier_same(ids: Tensor) -> Tensor:
    """Return (B, T, T) booleans: True at [b, i, j] where an earlier place j holds the token of i.

    >>> earlier_same(torch.tensor([[7, 3, 7]]))[0].int().tolist()
    [[0, 0, 0], [0, 0, 0], [1, 0, 0]]
    """
    return (ids[:, :, None] == ids[:, None, :]).tril(-1)


def after_earlier_same(ids: Tensor) -> Tensor:
    """Return (B, T, T) booleans: True at [b, i, j] where j follows an earlier place of the token of i.

    The place just before i is not counted: a head that always looks there would seem to ask for it.

    >>> after_earlier_same(torch.tensor([[7, 3, 5, 7]]))[0].int().tolist()[-1]
    [0, 1, 0, 0]
    """
    places = earlier_same(ids).roll(1, dims=2)  # one to the right: the follower
    places[:, :, 0] = False  # what was rolled around the edge
    return places.tril(-2)


def share_on(weights: Tensor, places: Tensor) -> Tensor:
    """Return the mean weight on `places` (B, T, T) for each layer and head, over queries that have one.

    >>> even = torch.full((1, 1, 1, 2, 2), 0.5)
    >>> share_on(even, torch.tensor([[[False, False], [True, False]]]))
    tensor([[0.5000]])
    """
    weight = (weights * places[:, None, None]).sum(-1)  # (B, layers, heads, T)
    return weight.permute(0, 3, 1, 2)[places.any(-1)].mean(0)


def n_effective(weights: Tensor) -> Tensor:
    """Return e to the power of the entropy of weights (..., S): over how many places they spread.

    >>> n_effective(torch.tensor([[0.25, 0.25, 0.25, 0.25], [1.0, 0.0, 0.0, 0.0]]))
    tensor([4., 1.])
    """
    return (-torch.xlogy(weights, weights).sum(-1)).exp()


def head_roles(weights: Tensor, ids: Tensor) -> dict[str, Tensor]:
    """Return how much each head (layers, heads) plays each role, from 0 to 1.

    `everywhere` is read in the second half of a passage, where there is much to spread over.

    >>> ids = torch.tensor([[7, 3, 7, 3]])
    >>> looks_back = torch.eye(4).roll(-1, dims=1).view(1, 1, 1, 4, 4)
    >>> round(head_roles(looks_back, ids)["previous"].item(), 2)
    1.0
    """
    T = ids.shape[1]
    visible = torch.arange(1, T + 1)  # place i sees i + 1 places
    return {
        "previous": weights.diagonal(-1, dim1=-2, dim2=-1).mean((0, 3)),
        "same": share_on(weights, earlier_same(ids)),
        "after same": share_on(weights, after_earlier_same(ids)),
        "everywhere": (n_effective(weights) / visible)[..., T // 2 :].mean((0, 3)),
    }


def even_share(places: Tensor) -> float:
    """Return the share of `places` (B, T, T) that a head gives which looks everywhere alike.

    >>> even_share(torch.tensor([[[False, False], [True, False]]]))
    0.5
    """
    visible = torch.arange(1, places.shape[1] + 1)
    return (places.sum(-1) / visible)[places.any(-1)].mean().item()
