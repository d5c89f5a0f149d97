"""Exercises of chapter 5b, TensorBoard: what it computes."""

import numpy as np
import torch

from llmcourse.teach.examine import close, examine
from llmcourse.teach.exercises import exercise, require
from llmcourse.teach.forms import number, several


@exercise(
    "05b-ratio",
    "How far did a step move the weights?",
    minutes=4,
    difficulty=1,
    hints=(
        "The length of a tensor, whatever its shape, is the square root of the sum of its squares: `.norm()`.",
        "Two lengths: that of the difference, and that of the weights before the step.",
    ),
    wants="function",
    form=number,
)
def check_ratio(answer):
    """Compare with the definition in double precision; tell the usual slips apart."""
    generator = torch.Generator().manual_seed(0)

    def example(*shape):
        before = torch.randn(shape, generator=generator)
        return before, before + 0.3 * torch.randn(shape, generator=generator)

    matrix = example(4, 6)
    cases = {
        "for a random example you return {value}, and {right} is right": matrix,
        "right for a matrix, but not for the same numbers as one row": tuple(x.flatten() for x in matrix),
        "right for 24 numbers, but not for a tensor of three dimensions": example(2, 3, 7),
        "right before, but not for weights 1,000 times as small: {right}, and you return {value}": tuple(
            x / 1000 for x in example(3, 5)
        ),
    }

    def of_lengths(length):  # the ratio for another idea of length
        return lambda a, b: length(b - a) / length(a)

    slips = {
        "that is the length of the update alone: divide by the length of the weights before it": lambda a, b: (
            (b - a).norm()
        ),
        "you divide by the weights AFTER the step; the ratio is to those before": lambda a, b: (
            (b - a).norm() / b.norm()
        ),
        "that is the square of the ratio: a length is the ROOT of the sum of squares": of_lengths(
            lambda x: x.pow(2).sum()
        ),
        "that is the weights over the update: turn the fraction over": lambda a, b: a.norm() / (b - a).norm(),
        "that compares the two lengths; first subtract the weights, then take the length": (
            lambda a, b: b.norm() / a.norm()
        ),
        "that is the difference of the lengths: first subtract the weights, then take the length": (
            lambda a, b: (b.norm() - a.norm()) / a.norm(),
            lambda a, b: (b.norm() - a.norm()).abs() / a.norm(),
        ),
        "that is the mean of the ratios of single numbers, which a weight near 0 blows up: two lengths, then "
        "one fraction": (lambda a, b: ((b - a) / a).abs().mean(), lambda a, b: ((b - a) / a).mean()),
        "you take sums of absolute values; the length is the root of the sum of squares": of_lengths(
            lambda x: x.abs().sum()
        ),
        "you take the largest entries; the length is the root of the sum of squares": of_lengths(
            lambda x: x.abs().max()
        ),
        "you take standard deviations, which subtract the mean: the length is the root of the sum of squares": (
            of_lengths(lambda x: x.std()),
            of_lengths(lambda x: x.std(correction=0)),
        ),
        "that is the largest singular value (`ord=2` of a matrix); take the length over all entries": (
            of_lengths(lambda x: torch.linalg.norm(x, 2))
        ),
    }
    examine(
        answer,
        lambda a, b: ((b.double() - a.double()).norm() / a.double().norm()).item(),
        cases,
        slips,
        rtol=1e-4,
    )
    return "the same as `update_ratio/...` in the log: a bare length says little, a ratio can be compared."


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
    wants="function",
    form=several(number, what="numbers, one for each value"),
)
def check_smooth(answer):
    """Compare with the weighted mean written out; tell the usual slips apart."""

    def smoothed(values, weight):
        result = answer(values, weight)
        size = f"return one number for each value: {len(values)}, not {len(result)}"
        require(len(result) == len(values), size)
        return result

    def right(values, weight):
        means = (
            np.average(values[: t + 1], weights=weight ** np.arange(t, -1.0, -1)) for t in range(len(values))
        )
        return [float(mean) for mean in means]

    def running(start=lambda values: 0.0, keep=lambda mean, weight, count: mean, carry=False, swap=False):
        def function(values, weight):
            mean, out = start(values), []
            weight = 1 - weight if swap else weight
            for count, value in enumerate(values, start=1):
                mean = weight * mean + (1 - weight) * value
                out.append(keep(mean, weight, count))
                mean = out[-1] if carry else mean
            return out

        return function

    def corrected(mean, weight, count):
        return mean / (1 - weight**count)

    slips = {
        "the correction is missing: your first number is (1 - weight) of the first value, a fifth at 0.8": running(),
        "you start at the first value; TensorBoard starts at 0 and divides by 1 - weight**t": running(
            lambda values: values[0]
        ),
        "the weights are the wrong way round: `weight` belongs to the old mean, 1 - weight to the new value": (
            running(keep=corrected, swap=True),
            running(swap=True),
        ),
        "you go on with the corrected mean; keep the uncorrected one for the next round": running(
            keep=corrected, carry=True
        ),
        "you divide by 1 - weight at every step; the power grows: 1 - weight**t": (
            running(keep=lambda mean, weight, count: mean / (1 - weight))
        ),
        "the power is one too large: after the first value it is 1": (
            running(keep=lambda mean, weight, count: mean / (1 - weight ** (count + 1)))
        ),
        "that is the plain mean of all values so far; older values must count less": (
            lambda values, weight: list(np.cumsum(values) / np.arange(1, len(values) + 1))
        ),
        "these are the values themselves": lambda values, weight: values,
        "the order is reversed: begin with the first value": lambda values, weight: right(values, weight)[
            ::-1
        ],
        "you smooth from the end: a mean may only know the values so far": lambda values, weight: right(
            values[::-1], weight
        )[::-1],
    }
    values = [5.0, 3.0, 4.0, 1.0, 2.0, 6.0]
    cases = {
        "for 5 3 4 1 2 6 with weight 0.8 {right} is right, not {value}": (values, 0.8),
        "with weight 0 nothing is smoothed: the values come back": (values, 0.0),
        "right for weight 0.8, but a constant curve must stay constant at 0.95": ([2.5] * 4, 0.95),
        "right for weight 0.8, but for 1 0 0.5 with 0.6 you return {value}, and {right} is right": (
            [1.0, 0.0, 0.5],
            0.6,
        ),
    }

    def look(result, values, weight):
        pairs = zip(result, right(values, weight), strict=True)
        place, mine, wanted = next(
            (i, *pair) for i, pair in enumerate(pairs, start=1) if not close(*pair, 1e-4)
        )
        of = "" if weight == 0.8 else "right for weight 0.8, but not here: "
        return (
            f"{of}of {values} with weight {weight}, value {place} should be {wanted:.4f}; yours is {mine:.4f}"
        )

    examine(smoothed, right, cases, slips, look=look, rtol=1e-4)
    return "each number is a weighted mean from the first value on, as TensorBoard draws it."
