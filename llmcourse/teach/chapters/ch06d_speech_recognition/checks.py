"""Exercises of chapter 6d: what an alignment reads, how alignments add up, and features without a microphone."""

import itertools

import torch

from llmcourse.teach.examine import examine
from llmcourse.teach.exercises import exercise
from llmcourse.teach.forms import number, several, tensor


def _merged(frames):
    return [x for i, x in enumerate(frames) if i == 0 or x != frames[i - 1]]


def _collapse(frames):
    return [x for x in _merged(frames) if x != 0]


@exercise(
    "06d-collapse",
    "What does this alignment read?",
    minutes=5,
    difficulty=1,
    hints=(
        "Go through the frames with the one before: a label counts if it differs from its neighbour on the left.",
        "Drop the zeros only afterwards: a blank between two equal labels keeps them apart.",
    ),
    wants="function",
    form=several(number),
)
def check_collapse(answer):
    """Repeats are merged first, blanks dropped afterwards."""
    cases = {
        "for [0, 3, 3, 0, 5, 5, 0] you return {value}; it reads {right}": ([0, 3, 3, 0, 5, 5, 0],),
        "right without repeated labels, but [4, 4, 0, 4, 2] reads {right}, and you return {value}": (
            [4, 4, 0, 4, 2],
        ),
        "right so far, but [0, 0, 7, 1, 7, 7, 0, 0, 7] reads {right}, and you return {value}": (
            [0, 0, 7, 1, 7, 7, 0, 0, 7],
        ),
        "nothing but blanks, [0, 0, 0], reads {right}; you return {value}": ([0, 0, 0],),
    }
    slips = {
        "you drop the blanks first, so equal labels that a blank kept apart are merged: merge first": (
            lambda frames: _merged([x for x in frames if x != 0])
        ),
        "the blanks, 0, are still there: drop them after merging": _merged,
        "repeats are still there: merge equal neighbours before the blanks are dropped": (
            lambda frames: [x for x in frames if x != 0]
        ),
        "each label is there once at most: only equal neighbours are merged, the same word may come again": (
            lambda frames: list(dict.fromkeys(x for x in frames if x != 0)),
            lambda frames: sorted({x for x in frames if x != 0}),
        ),
        "you compare with the frame to come, and lose the last one: compare with the one before": (
            lambda frames: [a for a, b in itertools.pairwise(frames) if a not in (b, 0)]
        ),
    }
    examine(answer, _collapse, cases, slips)
    return "four, four and two frames or forty: the text is the same."


def _step(alpha, states, p, skip=True, stay=True, one=True, ask=True, emit=True):
    new = torch.zeros_like(alpha)
    for s in range(len(states)):
        total = alpha[s] * stay
        if s >= 1 and one:
            total = total + alpha[s - 1]
        free = states[s] != 0 and states[s] != states[s - 2] if ask is True else ask(states, s)
        if s >= 2 and skip and free:
            total = total + alpha[s - 2]
        new[s] = total * (p[states[s]] if emit else 1)
    return new


@exercise(
    "06d-forward",
    "Add up all alignments, one frame further",
    minutes=12,
    difficulty=3,
    hints=(
        "Three ways lead to state s: staying in s, coming from s - 1, and, skipping a blank, from s - 2.",
        "The skip is allowed only if states[s] is no blank and differs from states[s - 2].",
        "Add the alphas of the ways, and multiply the sum by p[states[s]], what this frame says of the label.",
    ),
    wants="function",
    form=tensor,
)
def check_forward(answer):
    """Staying, stepping, and skipping a blank between two different labels; then this frame's probability."""
    p = torch.tensor([0.5, 0.3, 0.2])
    more = torch.tensor([0.1, 0.2, 0.3, 0.4])
    cases = {
        "for the text a b you return other values than the right ones: {value} instead of {right}": (
            torch.tensor([0.4, 0.3, 0.1, 0.2, 0.05]),
            torch.tensor([0, 1, 0, 2, 0]),
            p,
        ),
        "right for a b, but for a a, whose blank must not be skipped, you return {value}; right is {right}": (
            torch.tensor([0.4, 0.3, 0.1, 0.2, 0.05]),
            torch.tensor([0, 1, 0, 1, 0]),
            p,
        ),
        "right for two labels, but for three you return {value}; right is {right}": (
            torch.tensor([0.2, 0.1, 0.05, 0.3, 0.15, 0.02, 0.4]),
            torch.tensor([0, 3, 0, 3, 0, 1, 0]),
            more,
        ),
    }
    slips = {
        "you skip a blank between two equal labels: then they would be merged into one": (
            lambda a, s, p: _step(a, s, p, ask=lambda t, i: t[i] != 0)
        ),
        "you skip labels too: from a blank to the next blank, the label between would be left out": (
            lambda a, s, p: _step(a, s, p, ask=lambda t, i: True),
            lambda a, s, p: _step(a, s, p, ask=lambda t, i: t[i] == 0 or t[i] != t[i - 2]),
        ),
        "nobody skips a blank in yours: between different labels it may be left out": (
            lambda a, s, p: _step(a, s, p, skip=False)
        ),
        "staying in the same state is missing: a label may last for many frames": (
            lambda a, s, p: _step(a, s, p, stay=False)
        ),
        "coming from the state before is missing": lambda a, s, p: _step(a, s, p, one=False),
        "this frame's probability is missing: multiply by p[states[s]]": (
            lambda a, s, p: _step(a, s, p, emit=False)
        ),
        "you take the best way: add up all of them": lambda a, s, p: _best(a, s, p),
        "alpha[-1] and alpha[-2] are the last states in Python, and nothing comes before the first: count from 0": (
            lambda a, s, p: _around(a, s, p)
        ),
    }
    examine(answer, _step, cases, slips, "(S,)")
    return "three sums a state and frame, where the alignments are too many to list."


def _best(alpha, states, p):
    new = torch.zeros_like(alpha)
    for s in range(len(states)):
        ways = [alpha[s]] + ([alpha[s - 1]] if s >= 1 else [])
        if s >= 2 and states[s] != 0 and states[s] != states[s - 2]:
            ways.append(alpha[s - 2])
        new[s] = max(ways) * p[states[s]]
    return new


def _around(alpha, states, p):
    free = (states != 0) & (states != states.roll(2))
    return (alpha + alpha.roll(1) + alpha.roll(2) * free) * p[states]


@exercise(
    "06d-normalize",
    "Take the microphone off",
    minutes=5,
    difficulty=1,
    hints=(
        "Each band has a mean over the frames: features.mean(dim=0), of shape (M,).",
        "Subtract it, and divide by features.std(dim=0, correction=0): (T, M) and (M,) broadcast.",
    ),
    wants="function",
    form=tensor,
)
def check_normalize(answer):
    """Mean 0 and deviation 1 in each band, over the frames of one clip."""
    g = torch.Generator().manual_seed(0)
    cases = {
        "for [[1, 5], [3, 9], [5, 1]] you return {value}; it is {right}": (
            torch.tensor([[1.0, 5.0], [3.0, 9.0], [5.0, 1.0]]),
        ),
        "right for two bands, but for 6 frames of 4 bands you are off by {difference}": (
            torch.randn(6, 4, generator=g) * torch.tensor([1.0, 5.0, 0.1, 2.0]) - 7,
        ),
        "right so far, but for as many frames as bands you are off by {difference}": (
            torch.randn(4, 4, generator=g) * 3 + torch.tensor([0.0, 1.0, 2.0, 9.0]),
        ),
    }

    def right(x):
        return (x - x.mean(dim=0)) / x.std(dim=0, correction=0)

    slips = {
        "you take mean and deviation over everything: take those of each band, over the frames (dim=0)": (
            lambda x: (x - x.mean()) / x.std(correction=0),
            lambda x: (x - x.mean()) / x.std(),
        ),
        "you normalize each frame over its bands: that takes off what is said; normalize each band, dim=0": (
            lambda x: (x - x.mean(dim=1, keepdim=True)) / x.std(dim=1, keepdim=True, correction=0),
            lambda x: (x - x.mean(dim=1, keepdim=True)) / x.std(dim=1, keepdim=True),
        ),
        "the deviation divides by T - 1: here by T, so correction=0": lambda x: (x - x.mean(0)) / x.std(0),
        "the deviation of each band is not 1 yet: divide by it": lambda x: x - x.mean(0),
        "the mean of each band is not 0: subtract it first": (
            lambda x: x / x.std(0, correction=0),
            lambda x: x / x.std(0),
        ),
        "you divide by the variance: by its root": lambda x: (x - x.mean(0)) / x.var(0, correction=0),
        "that lies between 0 and 1: subtract the mean and divide by the deviation": (
            lambda x: (x - x.amin(0)) / (x.amax(0) - x.amin(0))
        ),
    }
    examine(answer, right, cases, slips, "(T, M)")
    return "a filter in front of the recognizer adds a constant to each band, and it is gone."
