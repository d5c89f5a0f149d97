"""Connectionist temporal classification (CTC): labels without times, learned from frames.

In each frame the model writes a label or a blank. Repeats are merged, then blanks are dropped: `a a - a b`
reads `a a b`. The probability of a text is that of all alignments that read so, added up.

Source: Graves et al. 2006, doi:10.1145/1143844.1143891.

Dimensions: T frames, K labels with the blank, L labels of a text, S = 2 L + 1 states of its alignment.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from llmcourse.support.inputs import id_row, whole

BLANK = 0
NEVER = float("-inf")
Labels = tuple[int, ...]


def collapse(frames: Sequence[int], blank: int = BLANK) -> list[int]:
    """Return what an alignment reads: repeats merged, then blanks dropped.

    >>> collapse([0, 3, 3, 0, 3, 5])
    [3, 3, 5]
    """
    return [label for i, label in enumerate(frames) if label != blank and (i == 0 or label != frames[i - 1])]


def frames_needed(labels: Sequence[int]) -> int:
    """Return how many frames a text needs at least: one a label, and a blank between two equal ones.

    >>> frames_needed([3, 3, 5])
    4
    """
    return len(labels) + sum(a == b for a, b in pairwise(labels))


def _states(log_probs: Tensor, labels, blank: int) -> tuple[Tensor, Tensor]:
    """Return the label (S,) of each state, blank, label, blank, ..., and where a blank may be skipped, (S,)."""
    if log_probs.dim() != 2 or not log_probs.is_floating_point():
        raise ValueError(f"log_probs has the shape {tuple(log_probs.shape)}: give one clip, (frames, labels)")
    K = log_probs.shape[1]
    labels = torch.from_numpy(id_row(labels, K, "labels", kind="labels"))
    if (labels == blank).any():
        raise ValueError(f"labels holds the blank, {blank}: it stands between labels, never in a text")
    states = torch.full((2 * len(labels) + 1,), blank)
    states[1::2] = labels
    may_skip = torch.zeros(len(states), dtype=torch.bool)
    may_skip[3::2] = labels[1:] != labels[:-1]
    return states.to(log_probs.device), may_skip.to(log_probs.device)


def _from_before(score: Tensor, may_skip: Tensor) -> Tensor:
    """Return the scores (3, S) of the states from which each may come: itself, the one before, the one before that."""
    never = score.new_full((2,), NEVER)
    one, two = torch.cat([never[:1], score[:-1]]), torch.cat([never, score])[: len(score)]
    return torch.stack([score, one, two.masked_fill(~may_skip, NEVER)])


def log_likelihood(log_probs: Tensor, labels: Sequence[int], blank: int = BLANK) -> Tensor:
    """Return the log-probability of a text: all alignments that read so, added up frame by frame.

    `log_probs` (T, K) are log-softmaxed outputs. A text that needs more frames than there are gets -inf
    (`frames_needed`). Differentiable; torch's `ctc_loss` is minus this. Raises ValueError for labels
    outside 0 to K - 1, and for the blank among them.

    >>> half = torch.tensor([[0.5, 0.5], [0.5, 0.5]]).log()  # blank and one label, two frames
    >>> round(log_likelihood(half, [1]).exp().item(), 2)
    0.75

    Source: eq. 6-8 of the paper, in logarithms.
    """
    states, may_skip = _states(log_probs, labels, blank)
    emitted = log_probs[:, states]  # (T, S)
    start = torch.arange(len(states), device=log_probs.device) < 2  # at the blank or the first label
    score = emitted[0].masked_fill(~start, NEVER)
    for frame in emitted[1:]:
        score = _logsumexp(_from_before(score, may_skip)) + frame
    return _logsumexp(score[-2:, None]).squeeze()


def _logsumexp(scores: Tensor) -> Tensor:
    """Return log of the sum of exp over the first dimension; -inf alone gives -inf, and a gradient of 0."""
    impossible = (scores == NEVER).all(dim=0)
    return scores.masked_fill(impossible, 0.0).logsumexp(dim=0).masked_fill(impossible, NEVER)


@torch.no_grad()
def align(log_probs: Tensor, labels: Sequence[int], blank: int = BLANK) -> list[int]:
    """Return the most probable alignment that reads `labels`: for each frame the place of its label, -1 for a blank.

    Raises ValueError where the frames are too few for the labels (forced alignment, Viterbi).

    >>> align(torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]]).log(), [1, 1])
    [0, -1, 1]
    """
    states, may_skip = _states(log_probs, labels, blank)
    T = len(log_probs)
    if frames_needed(labels) > T:
        raise ValueError(
            f"{len(labels)} labels need {frames_needed(labels)} frames and there are {T}: "
            "give a longer clip, or features with more frames a second"
        )
    emitted, came_from = log_probs[:, states], []
    score = emitted[0].clone()
    score[2:] = NEVER
    for frame in emitted[1:]:
        score, steps_back = _from_before(score, may_skip).max(dim=0)
        score = score + frame
        came_from.append(steps_back)
    state = len(states) - 1 - int(len(states) > 1 and score[-2] > score[-1])
    path = [state]
    for steps_back in reversed(came_from):
        state -= int(steps_back[state])
        path.append(state)
    return [state // 2 if state % 2 else -1 for state in reversed(path)]


def greedy_decode(log_probs: Tensor, blank: int = BLANK) -> list[int]:
    """Return what the most probable label of each frame (T, K) reads: quick, and not the most probable text.

    >>> greedy_decode(torch.tensor([[0.6, 0.4], [0.6, 0.4]]))  # though [1] has 0.64 and [] 0.36
    []
    """
    return collapse(log_probs.argmax(dim=-1).tolist(), blank)


def prefix_beam_search(
    log_probs: Tensor,
    n_beams: int = 8,
    blank: int = BLANK,
    prior: Callable[[Labels, int], float] | None = None,
    least: float = NEVER,
) -> list[tuple[list[int], float]]:
    """Return the `n_beams` most probable texts found, each with its log-probability, best first.

    A prefix gathers all alignments that read so, in two sums: those that end in a blank and those that end
    in its last label. `prior(prefix, label)` is a log-probability of the next label, such as a language
    model's, times its weight. A new label whose log-probability in a frame is below `least` is passed over
    there, which saves most of the work. With n_beams large enough and without `least` the result is exact.

    >>> [(labels, round(score, 2)) for labels, score in prefix_beam_search(torch.tensor([[0.6, 0.4]] * 2).log())]
    [([1], -0.45), ([], -1.02)]

    Source: Hannun et al. 2014, arXiv:1408.2873, algorithm 1.
    """
    n_beams = whole(n_beams, "n_beams")
    if log_probs.dim() != 2:
        raise ValueError(f"log_probs has the shape {tuple(log_probs.shape)}: give one clip, (frames, labels)")
    beams: dict[Labels, tuple[float, float]] = {(): (0.0, NEVER)}  # (ends in a blank, ends in its last label)
    for frame in log_probs.double().tolist():
        blanks, lasts = defaultdict(lambda: [NEVER]), defaultdict(lambda: [NEVER])
        likely = {label for label, log_prob in enumerate(frame) if log_prob >= least} - {blank}
        for prefix, (in_blank, in_last) in beams.items():
            both = _log_add(in_blank, in_last)
            blanks[prefix].append(both + frame[blank])
            for label in likely.union(prefix[-1:]):  # the last label may go on, however unlikely it is
                log_prob = frame[label]
                extended, earned = (*prefix, label), prior(prefix, label) if prior else 0.0
                if prefix and label == prefix[-1]:
                    lasts[prefix].append(in_last + log_prob)  # the same label goes on
                    lasts[extended].append(in_blank + log_prob + earned)  # a second one needs a blank between
                else:
                    lasts[extended].append(both + log_prob + earned)
        sums = {p: (_log_add(*blanks[p]), _log_add(*lasts[p])) for p in {**blanks, **lasts}}
        best = sorted(sums, key=lambda p: -_log_add(*sums[p]))[:n_beams]
        beams = {prefix: sums[prefix] for prefix in best if _log_add(*sums[prefix]) > NEVER}
    return [(list(prefix), _log_add(*sums)) for prefix, sums in beams.items()]


def _log_add(*logs: float) -> float:
    """Return log(exp(a) + exp(b) + ...)."""
    top = max(logs)
    if top == NEVER:
        return NEVER
    return top + math.log(sum(math.exp(log - top) for log in logs))
