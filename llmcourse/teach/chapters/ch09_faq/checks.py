"""Exercises of chapter 9: a law with a floor, the factors of muP, texts that fit; a split by group is apart."""

import math

import numpy as np

from llmcourse.teach.chapters.ch09_faq import split_checks  # noqa: F401 - registers an exercise
from llmcourse.teach.examine import examine
from llmcourse.teach.exercises import exercise
from llmcourse.teach.forms import number, several

FLOOR = "the floor is subtracted first: no size gets below it, and what falls as a power law is the rest"


@exercise(
    "09-law",
    "Fit a power law above a floor",
    minutes=10,
    difficulty=2,
    hints=(
        "Subtract the floor: loss - floor = A / size ** a.",
        "Take logarithms: log(loss - floor) = log(A) - a * log(size), a straight line over log(size).",
        "np.polyfit(x, y, 1) returns the slope and the intercept. The slope is -a, the intercept log(A).",
    ),
    wants="function",
    form=several(number, 2),
)
def check_law(answer):
    """Compare with the least squares of the logarithms, on exact and on noisy points."""

    def line(
        above=lambda losses, floor: losses - floor,
        x=np.log,
        y=np.log,
        result=lambda slope, start: [math.exp(start), -slope],
    ):
        def function(sizes, losses, floor):
            xs, ys = x(np.array(sizes, float)), y(above(np.array(losses, float), floor))
            return [float(value) for value in result(*np.polyfit(xs, ys, 1))]

        return function

    def across(sizes, losses, floor):  # the size over the loss: another line through noisy points
        slope, start = np.polyfit(np.log(np.array(losses) - floor), np.log(np.array(sizes, float)), 1)
        return [math.exp(-start / slope), -1 / slope]

    def ends(sizes, losses, floor):
        (a, b), (p, q) = (sizes[0], sizes[-1]), (losses[0] - floor, losses[-1] - floor)
        alpha = math.log(p / q) / math.log(b / a)
        return [p * a**alpha, alpha]

    sizes = [1000.0, 4000.0, 16000.0, 64000.0]
    noisy = [3.1, 2.65, 2.42, 2.2, 2.19]
    cases = {
        "the points lie on 1.5 + 20 / size ** 0.4 exactly; you return {value}, not {right}": (
            sizes,
            [1.5 + 20 / size**0.4 for size in sizes],
            1.5,
        ),
        "right where points lie on a law, but not for noisy ones: {right}": (
            [2e4, 5e4, 1e5, 3e5, 1e6],
            noisy,
            1.9,
        ),
        "right for two examples, but not where the floor is 0: {right}": (sizes[:3], [8.0, 3.0, 2.0], 0.0),
        "right for three examples, but not for sizes in another order: {right}": (
            [9e5, 1e4, 7e4],
            [2.2, 3.4, 2.5],
            1.7,
        ),
    }
    slips = {
        FLOOR: line(above=lambda losses, floor: losses),
        "subtract the floor; you add it": line(above=lambda losses, floor: losses + floor),
        "a is by how much the line FALLS: minus its slope": line(
            result=lambda slope, start: [math.exp(start), slope]
        ),
        "first A, then a": line(result=lambda slope, start: [-slope, math.exp(start)]),
        "the intercept is log(A): take exp of it": line(result=lambda slope, start: [start, -slope]),
        "logarithms and exp need the same base: with np.log10, A is 10 ** intercept": line(
            np.subtract, np.log10, np.log10
        ),
        "logarithms and exp need the same base: with np.log2, A is 2 ** intercept": line(
            np.subtract, np.log2, np.log2
        ),
        "take the logarithm of the sizes too": line(x=lambda sizes: sizes),
        "take the logarithm of what is above the floor too": line(
            y=lambda above: above, result=lambda slope, start: [start, -slope]
        ),
        "the line goes over log(size): you fit the sizes over the losses": across,
        "all points count: you draw the line through the first and the last": ends,
    }
    examine(answer, line(), cases, slips, rtol=1e-3)
    return "a straight line, once the floor is gone. Where the floor comes from is the harder question."


@exercise(
    "09-mup",
    "Make a model wider without a new search",
    minutes=6,
    difficulty=2,
    hints=(
        "r = width / base: each output of a hidden matrix adds up r times as many terms.",
        "AdamW moves every weight by about the rate, all in the same direction: r times as many terms move "
        "the sum r times as far, so the rate becomes rate / r.",
        "At the start the terms are random, and their sum grows with the root of their number: the deviation "
        "becomes deviation / sqrt(r). After training they are not random: logits are divided by r.",
    ),
    wants="function",
    form=several(number, 3),
)
def check_mup(answer):
    """Compare with the three factors, for wider, narrower and equal models."""

    def factors(rate=-1.0, deviation=-0.5, logits=-1.0, ratio=lambda width, base: width / base):
        return lambda width, base: [ratio(width, base) ** power for power in (rate, deviation, logits)]

    cases = {
        "from width 64 to 256 you return {value}, not {right}": (256, 64),
        "right for 256 over 64, but not for 96 over 32": (96, 32),
        "right for wider models, but not for a narrower one, 32 over 128: {right}": (32, 128),
        "at the width of the base nothing changes: three times 1": (48, 48),
    }
    slips = {
        "the ratio is width / base: yours is turned round": factors(ratio=lambda width, base: base / width),
        "r is width / base: in yours the base does not appear": factors(ratio=lambda width, base: width),
        "the rate of a hidden matrix falls with r, not with its root: AdamW's steps add up, noise does not": factors(
            rate=-0.5
        ),
        "the deviation falls with the ROOT of r: random terms cancel each other in part": factors(
            deviation=-1
        ),
        "logits are divided by r, not by its root: what was learned does not cancel out": factors(
            logits=-0.5
        ),
        "the rate stays as it is in yours: a wider matrix moves its output further": factors(rate=0),
        "the deviation stays as it is in yours: more terms make a larger sum": factors(deviation=0),
        "the logits stay as they are in yours": factors(logits=0),
        "rate, deviation, logits: in this order": (
            factors(-0.5, -1, -1),
            factors(-1, -1, -0.5),
        ),
        "the three have not all the same factor": (factors(-0.5, -0.5, -0.5), factors(-0.25, -0.25, -0.25)),
        "that is the usual parametrization: the deviation alone knows the width": factors(0, -0.5, 0),
    }
    examine(answer, factors(), cases, slips)
    return "with these three, and scores divided by the head's width, the best rate of a small model holds."


@exercise(
    "09-texts",
    "How many texts at once?",
    minutes=6,
    difficulty=1,
    hints=(
        "What is left for the cache: memory minus weights.",
        "A text keeps 2 (key and value) x n_layers x n_kv_heads x d_head x tokens numbers, of 2 bytes each.",
        "Divide, and round down: half a text does not fit. Where not even the weights fit, the answer is 0.",
    ),
    wants="function",
    form=number,
)
def check_texts(answer):
    """Compare with the count, where it is exact, rounded, zero, or below zero."""

    def texts(
        left=lambda memory, weights: memory - weights,
        per_text=lambda L, H, D, T: 2 * L * H * D * T * 2,
        whole=math.floor,
        least=0,
    ):
        def function(memory, weights, n_layers, n_kv_heads, d_head, tokens):
            fit = left(memory, weights) / per_text(n_layers, n_kv_heads, d_head, tokens)
            return fit if whole is None else max(least, whole(fit))

        return function

    gb = 10**9
    cases = {
        "for 24 GB, weights of 16.38 GB, 36 layers, 8 heads of 128 and 4,096 tokens it is {right}; yours is {value}": (
            24 * gb,
            16_381_470_720,
            36,
            8,
            128,
            4096,
        ),
        "right for one model, but for 8 GB, 6 GB of weights, 36 layers, 2 heads of 128, 1,000 tokens it is {right}, "
        "not {value}": (8 * gb, 6 * gb, 36, 2, 128, 1000),
        "right for two models, but where exactly three texts fit, three is the answer, not {value}": (
            1000 + 3 * 2 * 4 * 2 * 8 * 10 * 2,
            1000,
            4,
            2,
            8,
            10,
        ),
        "where the weights alone do not fit, the answer is 0, not {value}": (
            4 * gb,
            6 * gb,
            36,
            2,
            128,
            1000,
        ),
        "right for four models, but not for (100000, 20000, 3, 5, 7, 11): {right}": (
            100_000,
            20_000,
            3,
            5,
            7,
            11,
        ),
    }
    slips = {
        "the weights are in the memory too: subtract them": texts(left=lambda memory, weights: memory),
        "a text keeps keys AND values, and a number of bfloat16 has two bytes: one of the two is missing": texts(
            per_text=lambda L, H, D, T: 2 * L * H * D * T
        ),
        "a number of bfloat16 has two bytes, not four": texts(
            per_text=lambda L, H, D, T: 2 * L * H * D * T * 4
        ),
        "those are bits: a number of bfloat16 has two bytes": texts(
            per_text=lambda L, H, D, T: 2 * L * H * D * T * 16
        ),
        "every layer keeps keys and values of its own": texts(per_text=lambda L, H, D, T: 2 * H * D * T * 2),
        "every token of a text is kept": texts(per_text=lambda L, H, D, T: 2 * L * H * D * 2),
        "the cache grows with the tokens, not with their square": texts(
            per_text=lambda L, H, D, T: 2 * L * H * D * T * T * 2
        ),
        "each head of keys has its own: n_kv_heads of them": texts(
            per_text=lambda L, H, D, T: 2 * L * D * T * 2
        ),
        "a key has d_head numbers": texts(per_text=lambda L, H, D, T: 2 * L * H * T * 2),
        "half a text does not fit: round down": (
            texts(whole=None),
            texts(whole=round),
            texts(whole=math.ceil),
        ),
        "below 0 texts makes no sense: where the weights do not fit, return 0": texts(least=-math.inf),
    }
    examine(answer, texts(), cases, slips, rtol=0, atol=1e-6)
    return "in practice a little less: the program needs memory for itself, and some for what it computes."
