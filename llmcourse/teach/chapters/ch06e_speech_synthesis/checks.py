"""Exercises of chapter 6e: durations from spikes, phonemes as long as they last, phases, distortion."""

import math
from itertools import pairwise

import torch

from llmcourse.speech.durations import durations_of
from llmcourse.teach.examine import examine
from llmcourse.teach.exercises import exercise
from llmcourse.teach.forms import number, several, tensor


def _cut(places, where):
    """Durations with the cut between two spikes at `where(last frame of one, first of the next)`."""
    n = max(places) + 1
    first = [list(places).index(i) for i in range(n)]
    last = [len(places) - 1 - list(places)[::-1].index(i) for i in range(n)]
    cuts = [0, *(where(last[i], first[i + 1]) for i in range(n - 1)), len(places)]
    return [b - a for a, b in pairwise(cuts)]


def _at_spikes(places):
    first = [list(places).index(i) for i in range(max(places) + 1)]
    return [b - a for a, b in zip(first, [*first[1:], len(places)], strict=True)]


def _trimmed(places):
    right, n = durations_of(places), len(places)
    lead = next(i for i, place in enumerate(places) if place >= 0)
    tail = next(i for i, place in enumerate(reversed(places)) if place >= 0)
    middle = right[1:-1] if len(right) > 1 else []
    ends = [right[0] - lead, *middle, right[-1] - tail] if len(right) > 1 else [n - lead - tail]
    return ends


@exercise(
    "06e-durations",
    "How long does each label last?",
    minutes=8,
    difficulty=2,
    hints=(
        "Note for each label its first and its last frame: a spike may be longer than one frame.",
        "Between the last frame of a label and the first of the next lie b blanks; the first label gets b / 2 of "
        "them, rounded up.",
        "What comes before the first spike belongs to the first label, what comes after the last to the last.",
    ),
    wants="function",
    form=several(number),
)
def check_durations(answer):
    """The blanks between two spikes are shared out, and the durations add up to the frames."""
    cases = {
        "for [-1, 0, 0, -1, -1, 1] you return {value}; right is {right}": ([-1, 0, 0, -1, -1, 1],),
        "right for two blanks between spikes, but of three, in [0, -1, -1, -1, 1, 2], the first label gets two: "
        "{right}, and you return {value}": ([0, -1, -1, -1, 1, 2],),
        "right so far, but for [-1, -1, 0, -1, 1, 1, -1, -1, -1, 2, -1] you return {value}; right is {right}": (
            [-1, -1, 0, -1, 1, 1, -1, -1, -1, 2, -1],
        ),
        "one label has all the frames: for [-1, -1, 0, -1] you return {value}; right is {right}": (
            [-1, -1, 0, -1],
        ),
    }
    slips = {
        "you count the frames of the spikes alone: the blanks belong to somebody too": (
            lambda places: [list(places).count(i) for i in range(max(places) + 1)]
        ),
        "your labels last from spike to spike, and the blanks all go to the one before: share them out": (
            lambda places: [
                p + q for p, q in zip(_at_spikes(places), [list(places).index(0)] + [0] * 99, strict=False)
            ],
            _at_spikes,
            lambda places: _cut(places, lambda a, b: b),
        ),
        "the blanks all go to the label after them: share them out": lambda places: _cut(
            places, lambda a, b: a + 1
        ),
        "of an odd number of blanks the label before gets the larger half": (
            lambda places: _cut(places, lambda a, b: (a + 1 + b) // 2)
        ),
        "the frames before the first spike and after the last are missing: they go to the outermost labels": _trimmed,
    }
    examine(answer, durations_of, cases, slips)
    return "spikes say when, and halves of the gaps say how long: the sum is the length of the clip."


@exercise(
    "06e-expand",
    "Say each phoneme as long as it lasts",
    minutes=4,
    difficulty=1,
    hints=(
        "The first row comes durations[0] times, then the second durations[1] times, and so on.",
        "torch.repeat_interleave(states, durations, dim=0) does that; a list of rows and torch.stack, too.",
    ),
    wants="function",
    form=tensor,
)
def check_expand(answer):
    """Row after row, each as often as its duration says."""
    g = torch.Generator().manual_seed(0)
    cases = {
        "for [[1, 2], [3, 4]] and durations [2, 1] you return {value}; right is {right}": (
            torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
            torch.tensor([2, 1]),
        ),
        "right for two phonemes, but for four of them, lasting 3, 1, 2 and 4, you are off by {difference}": (
            torch.randn(4, 3, generator=g),
            torch.tensor([3, 1, 2, 4]),
        ),
        "right so far, but where all last 2 frames you are off by {difference}": (
            torch.randn(3, 2, generator=g),
            torch.tensor([2, 2, 2]),
        ),
    }

    def right(states, durations):
        return states.repeat_interleave(durations, dim=0)

    slips = {
        "you repeat the whole row of phonemes: each phoneme lasts, then comes the next": (
            lambda s, d: s.repeat(int(d.max()), 1),
            lambda s, d: s.repeat(int(d.sum()), 1),
            lambda s, d: s.repeat(int(d.sum()), 1)[: int(d.sum())],
        ),
        "all last equally long in yours: take the duration of each": (
            lambda s, d: s.repeat_interleave(int(d[0]), dim=0),
            lambda s, d: s.repeat_interleave(int(d.max()), dim=0),
        ),
        "you multiply by the duration: a phoneme is not louder, it is there more often": lambda s, d: (
            s * d[:, None]
        ),
        "you repeat the columns: time is dimension 0": lambda s, d: s.repeat_interleave(int(d[0]), dim=1),
        "the order is turned round": (
            lambda s, d: s.repeat_interleave(d, dim=0).flip(0),
            lambda s, d: s.flip(0).repeat_interleave(d, dim=0),
        ),
    }
    examine(answer, right, cases, slips, "(T, C), T the sum of the durations")
    return "the clip's length is now the sum of the durations: nothing has to guess when to stop."


@exercise(
    "06e-phases",
    "Keep the phases, put the strengths back",
    minutes=8,
    difficulty=2,
    hints=(
        "The strength of real + i · imaginary is the root of real² + imaginary².",
        "Divide both parts by that strength, and multiply them by the wanted one: the angle stays.",
        "Return torch.stack([new_real, new_imaginary]), of shape (2, T, F).",
    ),
    wants="function",
    form=tensor,
)
def check_phases(answer):
    """The wanted strengths, with the angles of the spectrum that was found."""
    g = torch.Generator().manual_seed(1)
    cases = {
        "for strength 2 and the number 3 + 4i you return {value}; right is {right}": (
            torch.tensor([[2.0]]),
            torch.tensor([[3.0]]),
            torch.tensor([[4.0]]),
        ),
        "right for one number, but for 3 frames of 4 frequencies you are off by {difference}": (
            torch.rand(3, 4, generator=g) + 0.1,
            torch.randn(3, 4, generator=g),
            torch.randn(3, 4, generator=g),
        ),
        "right so far, but where a strength of 0 is wanted you are off by {difference}": (
            torch.tensor([[0.0, 1.0]]),
            torch.tensor([[-1.0, -5.0]]),
            torch.tensor([[2.0, -1.0]]),
        ),
    }

    def right(s, re, im):
        return torch.stack([re, im]) * (s / torch.hypot(re, im))

    slips = {
        "the strengths are those that were found: put the wanted ones back": lambda s, re, im: torch.stack(
            [re, im]
        ),
        "you multiply by the wanted strength without dividing by the found one": (
            lambda s, re, im: torch.stack([re, im]) * s
        ),
        "the phases are lost: keep the angle of real + i · imaginary": (
            lambda s, re, im: torch.stack([s, torch.zeros_like(s)]),
        ),
        "real and imaginary part are exchanged": lambda s, re, im: right(s, im, re),
        "you divide by the power, the sum of squares: take its root": (
            lambda s, re, im: torch.stack([re, im]) * s / (re**2 + im**2)
        ),
        "the angle of a number with a negative real part is another: use atan2(imaginary, real), or divide": (
            lambda s, re, im: torch.stack(
                [s * torch.cos(torch.atan(im / re)), s * torch.sin(torch.atan(im / re))]
            )
        ),
        "the imaginary part has the wrong sign": lambda s, re, im: right(s, re, -im),
        "you divide by all strengths together: each number has its own": (
            lambda s, re, im: torch.stack([re, im]) * s / torch.stack([re, im]).norm()
        ),
    }
    examine(answer, right, cases, slips, "(2, T, F)")
    return "one half of a round; the other is to make a wave of it and look at its spectrogram."


@exercise(
    "06e-distortion",
    "How many decibels apart?",
    minutes=6,
    difficulty=2,
    hints=(
        "In each frame, add up the squares of the differences of the coefficients: (T,).",
        "Take the root of twice that sum, times 10 / ln 10.",
        "The mean over the frames comes last.",
    ),
    wants="function",
    form=number,
)
def check_distortion(answer):
    """10 / ln 10 times the root of twice the sum of squares, frame by frame; then the mean."""
    g = torch.Generator().manual_seed(2)
    cases = {
        "for one frame with differences 0.3 and 0.4 you return {value}; right is {right}": (
            torch.tensor([[1.0, 1.0]]),
            torch.tensor([[0.7, 1.4]]),
        ),
        "right for one frame, but for two, of which one is right, you return {value}; right is {right}": (
            torch.tensor([[1.0, 2.0, 0.0], [0.5, 0.5, 0.5]]),
            torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.0, 0.0]]),
        ),
        "right so far, but for 5 frames of 24 coefficients you return {value}; right is {right}": (
            torch.randn(5, 24, generator=g),
            torch.randn(5, 24, generator=g),
        ),
    }
    scale = 10 / math.log(10)

    def squares(a, b):
        return (a - b).square().sum(dim=1)

    def right(a, b):
        return (scale * (2 * squares(a, b)).sqrt()).mean().item()

    slips = {
        "you take the root of the mean of squares: each frame has its own root, and the mean comes last": (
            lambda a, b: (scale * (2 * squares(a, b).mean()).sqrt()).item()
        ),
        "the 2 under the root is missing": lambda a, b: (scale * squares(a, b).sqrt()).mean().item(),
        "the 2 stands under the root": lambda a, b: (2 * scale * squares(a, b).sqrt()).mean().item(),
        "10 / ln 10 is missing: it makes decibels of nepers": lambda a, b: (
            (2 * squares(a, b)).sqrt().mean().item()
        ),
        "the logarithm of 10 is the natural one, 2.303: math.log(10)": (
            lambda a, b: (10 * (2 * squares(a, b)).sqrt()).mean().item()
        ),
        "you add up the frames: take their mean": lambda a, b: (
            (scale * (2 * squares(a, b)).sqrt()).sum().item()
        ),
        "the root is missing": lambda a, b: (scale * 2 * squares(a, b)).mean().item(),
        "you take the mean over the coefficients: their squares are added up": (
            lambda a, b: (scale * (2 * (a - b).square().mean(dim=1)).sqrt()).mean().item()
        ),
        "you add up differences without squares": (
            lambda a, b: (scale * (2 * (a - b).abs().sum(dim=1)).sqrt()).mean().item()
        ),
        "that is the root of everything at once: each frame has its own": (
            lambda a, b: (scale * (2 * (a - b).square().sum()).sqrt()).item()
        ),
    }
    examine(answer, right, cases, slips)
    return "0 dB is the same sound; two recordings of one person differ by a few."
