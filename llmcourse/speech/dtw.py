"""Dynamic time warping: how far one sound is from another when either may be spoken slower in places.

What recognizers were before they were trained: keep one example of each word, find the nearest.

Dimensions: T frames of the clip, S frames of a template, M features, N templates.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

FAR = float("inf")


def dtw_distances(clip: Tensor, templates: Sequence[Tensor]) -> Tensor:
    """Return (N,): the cost of the cheapest way to walk through the clip (T, M) and each template (S, M) together.

    A step goes on in the clip, in the template, or in both; it costs the Euclidean distance of the two
    frames it reaches. The sum is divided by T + S, so that long templates are not dearer. Raises
    ValueError for clips without a frame, and of another width.

    >>> a = torch.tensor([[0.0], [1.0], [2.0]])
    >>> dtw_distances(a, [a, a.repeat_interleave(2, dim=0), a + 1]).tolist()
    [0.0, 0.0, 0.3333333432674408]

    Source: Sakoe and Chiba 1978, doi:10.1109/TASSP.1978.1163055, without their limits on the slope.
    """
    for i, frames in enumerate([clip, *templates]):
        if frames.dim() != 2 or len(frames) == 0 or frames.shape[1] != clip.shape[-1]:
            name = f"template {i - 1}" if i else "the clip"
            raise ValueError(
                f"{name} has the shape {tuple(frames.shape)}: give (frames, {clip.shape[-1]}), not empty"
            )
    if not templates:
        raise ValueError("there is no template: give at least one example to compare with")
    T, lengths = len(clip), torch.tensor([len(template) for template in templates])
    padded = torch.nn.utils.rnn.pad_sequence(list(templates), batch_first=True)  # (N, S, M)
    total = _totals(torch.cdist(clip.expand(len(templates), -1, -1), padded))
    return total[torch.arange(len(templates)), T - 1, T + lengths - 2] / (T + lengths)


def _totals(costs: Tensor) -> Tensor:
    """Return (N, T, T + S - 1): the cheapest way to (t, s) at [t, t + s], of costs (N, T, S)."""
    N, T, S = costs.shape
    # Cell (t, s) needs its neighbours (t-1, s), (t, s-1) and (t-1, s-1): all cells with the same t + s at once.
    slanted = costs.new_full((N, T, T + S - 1), FAR)
    for t in range(T):
        slanted[:, t, t : t + S] = costs[:, t]
    total = torch.full_like(slanted, FAR)
    total[:, 0, 0] = slanted[:, 0, 0]
    above = costs.new_full((N, 1), FAR)
    for d in range(1, T + S - 1):
        before, two_before = (
            total[..., d - 1],
            total[..., d - 2] if d > 1 else torch.full_like(total[..., 0], FAR),
        )
        down, across = torch.cat([above, before[:, :-1]], 1), torch.cat([above, two_before[:, :-1]], 1)
        total[..., d] = slanted[..., d] + torch.minimum(before, torch.minimum(down, across))
    return total


def dtw_path(a: Tensor, b: Tensor) -> list[tuple[int, int]]:
    """Return which frames of a (T, M) and b (S, M) lie on each other, first to last, in the cheapest way.

    >>> dtw_path(torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [0.0], [1.0]]))
    [(0, 0), (0, 1), (1, 2)]
    """
    total = _totals(torch.cdist(a[None], b[None]))[0].tolist()
    t, s = len(a) - 1, len(b) - 1
    path = [(t, s)]
    while t or s:
        ways = [(t - 1, s - 1), (t - 1, s), (t, s - 1)]  # both at once, where that is no dearer
        t, s = min((way for way in ways if min(way) >= 0), key=lambda way: total[way[0]][sum(way)])
        path.append((t, s))
    return path[::-1]


def nearest_template(clip: Tensor, templates: Sequence[Tensor], labels: Sequence) -> object:
    """Return the label of the template that is nearest to the clip."""
    if len(labels) != len(templates):
        raise ValueError(f"{len(templates)} templates but {len(labels)} labels: each needs one")
    return labels[int(dtw_distances(clip, templates).argmin())]
