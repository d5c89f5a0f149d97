"""Exercises of chapter 5b: TensorBoard."""

import math

import numpy as np
import torch

from llmcourse.teach.checks import number
from llmcourse.teach.exercises import exercise, require
from llmcourse.tensorboard_logs import update_ratio


@exercise(
    "05b-ratio",
    "How far did a step move the weights?",
    minutes=4,
    difficulty=1,
    hints=(
        "The length of a tensor, whatever its shape, is the square root of the sum of its squares: `.norm()`.",
        "Two lengths: that of the difference, and that of the weights before the step.",
    ),
    solution=update_ratio,
)
def check_ratio(answer):
    """Compare with the definition in double precision; tell the usual slips apart."""
    generator = torch.Generator().manual_seed(0)
    before = torch.randn(4, 6, generator=generator)
    after = before + 0.3 * torch.randn(4, 6, generator=generator)
    a, b = before.double(), after.double()
    change = b - a
    right = (change.norm() / a.norm()).item()
    value = number(answer(before.clone(), after.clone()))
    slips = {
        "that is the length of the update alone: divide by the length of the weights before it": change.norm(),
        "you divide by the weights AFTER the step; the ratio is to those before": change.norm() / b.norm(),
        "that is the square of the ratio: a length is the ROOT of the sum of squares": right**2,
        "that is the weights over the update: turn the fraction over": 1 / right,
        "that compares the two lengths; first subtract the weights, then take the length": b.norm()
        / a.norm(),
        "that is the difference of the lengths: first subtract the weights, then take the length": (
            (b.norm() - a.norm()) / a.norm()
        ),
        "that is the mean of the ratios of single numbers, which a weight near 0 blows up: two lengths, then "
        "one fraction": (change / a).abs().mean(),
        "you take sums of absolute values; the length is the root of the sum of squares": (
            change.abs().sum() / a.abs().sum()
        ),
        "you take the largest entries; the length is the root of the sum of squares": (
            change.abs().max() / a.abs().max()
        ),
        "that is the largest singular value (`ord=2` of a matrix); take the length over all entries": (
            torch.linalg.matrix_norm(change, 2) / torch.linalg.matrix_norm(a, 2)
        ),
    }
    for message, slip in slips.items():
        require(abs(value - float(slip)) > 1e-4, message)
    require(
        abs(value - right) < 1e-4, f"for a random example you return {value:.4f}, and {right:.4f} is right"
    )
    row = number(answer(before.flatten(), after.flatten()))
    require(abs(row - right) < 1e-4, "right for a matrix, but not for the same numbers as one row")
    return "the same as `update_ratio/...` in the log: a bare length says little, a ratio can be compared."


def smooth(values, weight):
    """Running mean with weight `weight` on the past, corrected for its start at zero."""
    mean, smoothed = 0.0, []
    for count, value in enumerate(values, start=1):
        mean = weight * mean + (1 - weight) * value
        smoothed.append(mean / (1 - weight**count))
    return smoothed


@exercise(
    "05b-smooth",
    "Smooth a curve as TensorBoard does",
    minutes=8,
    difficulty=2,
    hints=(
        "Start a mean at 0. For each value, the new mean is weight times the old one and (1 - weight) times "
        "the value.",
        "Do not store the mean itself but the mean divided by 1 - weight to the power of the number of values "
        "so far.",
        "Keep the uncorrected mean for the next round: correct only what you put into the list.",
    ),
    solution=smooth,
)
def check_smooth(answer):
    """Compare with the weighted mean written out; tell the usual slips apart."""
    values = [5.0, 3.0, 4.0, 1.0, 2.0, 6.0]

    def written_out(weight):
        return [
            float(np.average(values[: t + 1], weights=weight ** np.arange(t, -1.0, -1)))
            for t in range(len(values))
        ]

    def running(weight, start, keep=lambda mean, count: mean, carry=False):
        mean, out = start, []
        for count, value in enumerate(values, start=1):
            mean = weight * mean + (1 - weight) * value
            out.append(keep(mean, count))
            mean = out[-1] if carry else mean
        return out

    result = answer(list(values), 0.8)
    require(not isinstance(result, str | dict) and hasattr(result, "__len__"), "return a list of numbers")
    require(len(result) == len(values), f"return one number for each value: {len(values)}, not {len(result)}")
    got = [number(x) for x in result]

    def same(other):
        return np.allclose(got, other, atol=1e-6)

    right = written_out(0.8)
    slips = {
        "the correction is missing: your first number is a fifth of the first value": running(0.8, 0.0),
        "you start at the first value; TensorBoard starts at 0 and divides by 1 - weight**t": running(
            0.8, values[0]
        ),
        "the weights are the wrong way round: `weight` belongs to the old mean, 1 - weight to the new value": (
            written_out(0.2)
        ),
        "you go on with the corrected mean; keep the uncorrected one for the next round": running(
            0.8, 0.0, lambda mean, count: mean / (1 - 0.8**count), carry=True
        ),
        "you divide by 1 - weight at every step; the power grows: 1 - weight**t": running(
            0.8, 0.0, lambda mean, count: mean / (1 - 0.8)
        ),
        "the power is one too large: after the first value it is 1": running(
            0.8, 0.0, lambda mean, count: mean / (1 - 0.8 ** (count + 1))
        ),
        "that is the plain mean of all values so far; older values must count less": list(
            np.cumsum(values) / np.arange(1, 7)
        ),
        "these are the values themselves": values,
    }
    for message, slip in slips.items():
        require(not same(slip), message)
    for place, (mine, wanted) in enumerate(zip(got, right, strict=True), start=1):
        require(abs(mine - wanted) < 1e-5, f"value {place} should be {wanted:.4f}; yours is {mine:.4f}")
    plain = [number(x) for x in answer(list(values), 0.0)]
    require(np.allclose(plain, values), "with weight 0 nothing is smoothed: the values come back")
    flat = [number(x) for x in answer([2.5] * 4, 0.95)]
    require(np.allclose(flat, 2.5), "right for weight 0.8, but a constant curve must stay constant at 0.95")
    return "each number is a weighted mean from the first value on, as TensorBoard draws it."


def first_step_below(curve, limit):
    """First step of (steps, values) whose value is below the limit, or infinity."""
    for step, value in zip(*curve, strict=True):
        if value < limit:
            return step
    return math.inf


@exercise(
    "05b-first",
    "How soon is it good?",
    minutes=5,
    difficulty=1,
    hints=(
        "`curve` has two lists of one length: take them apart, and go through both at once with zip.",
        "Return as soon as a value is below the limit. Behind the loop nothing was found.",
    ),
    solution=first_step_below,
)
def check_first(answer):
    """Curves whose steps are no indices, with ties, noise, and nothing below."""
    curve = ([25, 50, 75, 100, 125], [6.0, 5.0, 4.0, 4.5, 3.0])

    def ask(limit, curve=curve):
        return number(answer((list(curve[0]), list(curve[1])), limit))

    value = ask(4.2)
    require(value != 2, "2 is the place in the list: return the STEP there, 75")
    require(value != 4.0, "that is the value: return the STEP at which it was reached")
    require(value != 125, "that is the last step below the limit, or the lowest value: return the FIRST")
    require(
        value != 100,
        "100 is after the first time below the limit, where the value was above it again: return the first",
    )
    require(value != 50, "at step 50 the value is still above the limit: one too early")
    require(value == 75, f"with the limit 4.2 it is step 75; you return {value}")
    require(ask(4.0) != 75, "BELOW the limit: at step 75 the value equals it. Compare with <, not <=")
    require(ask(4.0) == 125, f"with the limit 4.0 it is step 125; you return {ask(4.0)}")
    require(ask(9.0) == 25, f"already the first value is below 9: step 25; you return {ask(9.0)}")
    try:
        never = ask(1.0)
    except Exception:  # it may raise, or return nothing, which would read as "not yet"
        never = None
    require(never == math.inf, "when no value is below the limit, return math.inf: not None, -1 or an error")
    return "a number of steps to a limit compares runs better than their last values do."


def _log(training: str, validation: str, norm: str) -> dict[str, list[float]]:
    rows = {"loss/train": training, "loss/validation": validation, "gradient_norm": norm}
    numbers = {tag: [float(x) for x in row.split()] for tag, row in rows.items()}
    return {"step": list(range(10, 201, 10))} | numbers


# Recorded from 200 steps of the notebook's model, every 10 steps; the norm is the largest of the ten.
MYSTERY_LOGS = {
    "A": _log(
        "7.07 6.00 5.86 5.43 4.81 4.45 3.78 3.37 3.14 2.64 2.17 2.13 2.07 1.73 1.75 1.34 1.38 1.38 1.46 1.31",  # loss train
        "7.14 6.59 6.72 6.64 6.53 6.44 7.27 7.48 8.44 8.93 9.11 9.27 9.09 8.74 8.83 9.01 9.09 9.24 9.34 9.35",  # loss validation
        "1.12 1.39 5.87 5.13 2.32 1.40 1.39 1.00 1.33 1.42 1.48 1.43 1.30 1.58 1.60 1.38 1.40 1.27 1.23 1.28",  # gradient_norm
    ),
    "B": _log(
        "7.18 6.42 6.10 6.02 6.07 5.82 6.02 6.04 6.00 5.76 5.63 5.70 5.61 5.65 5.71 5.75 5.69 5.72 5.53 5.45",  # loss train
        "7.16 6.40 6.29 6.22 6.21 6.19 6.14 6.08 6.05 6.01 5.96 5.92 5.88 5.85 5.83 5.81 5.81 5.79 5.78 5.77",  # loss validation
        "1.23 1.12 0.88 0.76 0.64 1.25 0.62 1.30 0.83 0.93 0.67 0.79 0.87 0.69 1.01 0.73 0.80 0.89 0.69 0.66",  # gradient_norm
    ),
    "C": _log(
        "14.50 13.11 11.57 9.95 8.80 7.75 6.88 6.66 6.21 6.41 6.16 6.10 6.17 6.20 6.24 6.20 6.23 6.06 6.04 6.21",  # loss train
        "14.32 12.99 11.74 10.31 8.89 7.84 7.21 6.85 6.63 6.50 6.42 6.37 6.34 6.31 6.29 6.28 6.27 6.27 6.26 6.26",  # loss validation
        "8.77 7.91 7.65 5.43 3.64 2.23 1.18 0.78 0.61 0.59 0.54 0.49 0.58 0.45 0.47 0.50 0.48 0.43 0.46 0.42",  # gradient_norm
    ),
    "D": _log(
        "7.66 6.19 6.41 6.32 6.16 6.17 6.31 6.19 6.02 6.15 6.11 6.27 6.08 6.10 6.05 6.12 6.11 6.03 5.87 6.00",  # loss train
        "7.29 7.16 6.58 6.34 6.30 6.31 6.29 6.36 6.36 6.29 6.23 6.21 6.24 6.20 6.18 6.12 6.10 6.10 6.09 6.07",  # loss validation
        "4.08 1.02 4.20 2.18 1.23 2.80 1.65 3.73 1.49 3.16 0.91 8.87 1.66 1.29 3.96 0.48 2.09 7.03 4.61 2.00",  # gradient_norm
    ),
}
_MEANINGS = ("the learning rate is too high", "the start is too large", "data is repeated", "it is healthy")


@exercise(
    "05b-disease",
    "Which log is which?",
    minutes=6,
    difficulty=3,
    hints=(
        "One run has a training loss far below its validation loss. It knows its few lines by heart.",
        "ln 2048 is 7.6. One run starts at twice that: it is sure, and wrong.",
        "Two are left. In one of them the norm of the gradient jumps up and down to the very end.",
    ),
    solution="DCAB",
)
def check_disease(answer):
    """A permutation of ABCD; say for the first wrong letter what its log shows."""
    require(isinstance(answer, str), 'give a text of four letters, such as "ABCD"')
    letters = [x for x in answer.upper() if x.isalpha()]
    require(
        sorted(letters) == list("ABCD"), f'use each of A, B, C, D once, such as "ABCD"; you gave {answer!r}'
    )
    shown = {
        "A": "In log A the training loss falls to 1.3 while the validation loss rises to 9",
        "B": "In log B both losses fall together, and the norm of the gradient stays near 1",
        "C": "Log C begins with a loss near 14, twice ln 2048, and then falls smoothly",
        "D": "In log D the norm of the gradient jumps between 0.5 and 9 up to the end",
    }
    for letter, right, meaning in zip(letters, "DCAB", _MEANINGS, strict=True):
        require(letter == right, f"{shown[letter]}: would you see that where {meaning}?")
    return "spikes in the norm, a first loss above ln V, a gap between the losses, and none of these."
