"""Chapter 5b: right answers in many forms, and what is said to the wrong ones."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from answers import assert_right, assert_wrong

from llmcourse.monitor.tensorboard import smooth
from llmcourse.teach.chapters.ch05b_tensorboard.mystery_logs import MYSTERY_LOGS

RIGHT, WRONG = {}, {}


def length(x):
    return math.sqrt(sum(v * v for v in x.flatten().tolist()))


RIGHT["05b-ratio"] = [
    lambda before, after: (after - before).norm() / before.norm(),
    lambda before, after: length(before - after) / length(before),
    lambda before, after: np.linalg.norm((after - before).numpy()) / np.linalg.norm(before.numpy()),
    lambda before, after: ((after - before).pow(2).mean() / before.pow(2).mean()).sqrt().item(),
    lambda before, after: torch.linalg.vector_norm(after.sub_(before)) / torch.linalg.vector_norm(before),
]
WRONG["05b-ratio"] = {
    "only the update": ("length of the update alone", lambda a, b: (b - a).norm()),
    "after below": ("AFTER the step", lambda a, b: (b - a).norm() / b.norm()),
    "no root": ("the square of the ratio", lambda a, b: (b - a).pow(2).sum() / a.pow(2).sum()),
    "upside down": ("turn the fraction over", lambda a, b: a.norm() / (b - a).norm()),
    "lengths compared": ("compares the two lengths", lambda a, b: b.norm() / a.norm()),
    "lengths subtracted": ("difference of the lengths", lambda a, b: (b.norm() - a.norm()) / a.norm()),
    "number by number": ("mean of the ratios", lambda a, b: ((b - a) / a).abs().mean()),
    "absolute values": ("sums of absolute values", lambda a, b: (b - a).abs().sum() / a.abs().sum()),
    "means of absolute values": ("absolute values", lambda a, b: (b - a).abs().mean() / a.abs().mean()),
    "largest": ("largest entries", lambda a, b: (b - a).abs().max() / a.abs().max()),
    "matrix norm": ("singular value", lambda a, b: np.linalg.norm(b - a, 2) / np.linalg.norm(a, 2)),
    "no length at all": ("give a number", lambda a, b: (b - a) / a),
    "signed sum": ("for a random example", lambda a, b: (b - a).sum() / a.sum()),
}


def running(start=0.0, swap=False, correct=True, carry=False, first=1):
    """The running mean, with each part open to a slip."""

    def function(values, weight):
        mean, out = start, []
        keep = 1 - weight if swap else weight
        for count, value in enumerate(values, start=first):
            mean = keep * mean + (1 - keep) * value
            corrected = mean / (1 - keep**count) if correct else mean
            mean = corrected if carry else mean
            out.append(corrected)
        return out

    def from_first_value(values, weight):
        mean, out = values[0], []
        for value in values:
            mean = weight * mean + (1 - weight) * value
            out.append(mean)
        return out

    return from_first_value if start is None else function


def written_out(values, weight):
    rows = []
    for t in range(len(values)):
        weights = [weight ** (t - i) for i in range(t + 1)]
        rows.append(sum(w * v for w, v in zip(weights, values[: t + 1], strict=True)) / sum(weights))
    return rows


RIGHT["05b-smooth"] = [
    smooth,
    written_out,
    lambda values, weight: tuple(written_out(values, weight)),
    lambda values, weight: np.array(written_out(values, weight)),
    lambda values, weight: torch.tensor(written_out(values, weight)),
    lambda values, weight: [np.float32(x) for x in written_out(values, weight)],
    lambda values, weight: (x for x in written_out(values, weight)),
    lambda values, weight: dict(enumerate(written_out(values, weight))).values(),
]
WRONG["05b-smooth"] = {
    "not corrected": ("the correction is missing", running(correct=False)),
    "from the first value": ("you start at the first value", running(start=None)),
    "wrong way round": ("the wrong way round", running(swap=True)),
    "corrected mean carried on": ("keep the uncorrected one", running(carry=True)),
    "power too large": ("the power is one too large", running(first=2)),
    "no power": (
        "the power grows",
        lambda v, w: [x / (1 - w) for x in running(correct=False)(v, w)],
    ),
    "plain mean": ("the plain mean", lambda v, w: [sum(v[: i + 1]) / (i + 1) for i in range(len(v))]),
    "nothing done": ("the values themselves", lambda v, w: v),
    "last only": ("return a list", lambda v, w: running()(v, w)[-1]),
    "one too few": ("one number for each value", lambda v, w: running()(v, w)[1:]),
    "one too many": ("one number for each value", lambda v, w: [0.0, *running()(v, w)]),
    "joined": ("return a list of numbers", lambda v, w: ", ".join(map(str, running()(v, w)))),
    "rounded": ("rounded", lambda v, w: [round(x, 2) for x in running()(v, w)]),
    "fixed weight": ("with weight 0", lambda v, w: running()(v, 0.8)),
    "starts at zero": ("your code raised ZeroDivisionError", running(first=0)),
    "another window": ("value 2 should be", lambda v, w: [v[0], *running()(v[1:], w)]),
}


def by_index(curve, limit):
    steps, values = curve
    below = np.flatnonzero(np.array(values) < limit)
    return steps[below[0]] if len(below) else math.inf


def loop(compare=lambda value, limit: value < limit, never=math.inf, give=lambda i, step, value: step):
    """The search, with each part open to a slip."""

    def function(curve, limit):
        for i, (step, value) in enumerate(zip(*curve, strict=True)):
            if compare(value, limit):
                return give(i, step, value)
        return never

    return function


RIGHT["05b-first"] = [
    by_index,
    loop(),
    lambda curve, limit: min((s for s, v in zip(*curve, strict=True) if v < limit), default=math.inf),
    lambda curve, limit: torch.tensor(by_index(curve, limit)),
    lambda curve, limit: np.float64(by_index(curve, limit)),
]
WRONG["05b-first"] = {
    "place": ("the place in the list", loop(give=lambda i, step, value: i)),
    "value": ("that is the value", loop(give=lambda i, step, value: value)),
    "last": ("the FIRST", lambda c, limit: max(s for s, v in zip(*c, strict=True) if v < limit)),
    "of the lowest value": ("the FIRST", lambda c, limit: c[0][c[1].index(min(c[1]))]),
    "or equal": ("Compare with <", loop(compare=lambda value, limit: value <= limit)),
    "above": ("it is step 75; you return 25", loop(compare=lambda value, limit: value > limit)),
    "None when never": ("return math.inf", loop(never=None)),
    "-1 when never": ("return math.inf", loop(never=-1)),
    "the last step when never": ("return math.inf", loop(never=125)),
    "raises when never": ("return math.inf", lambda c, x: next(s for s, v in zip(*c, strict=True) if v < x)),
    "the step before": ("one too early", lambda c, x: c[0][c[0].index(by_index(c, x)) - 1]),
}

RIGHT["05b-disease"] = ["DCAB", "dcab", "D C A B", "D, C, A, B", " DCAB\n"]
WRONG["05b-disease"] = {
    "rate and start exchanged": ("Log C begins with a loss near 14", "CDAB"),
    "healthy for the rate": ("In log B both losses fall together", "BCAD"),
    "repeated for the rate": ("the validation loss rises", "ACDB"),
    "start and healthy exchanged": ("where the start is too large", "DBAC"),
    "repeated and healthy exchanged": ("where data is repeated", "DCBA"),
    "a letter twice": ("use each of A, B, C, D once", "DCAA"),
    "too short": ("use each of A, B, C, D once", "DCA"),
    "empty": ("use each of A, B, C, D once", ""),
    "a list": ("a text of four letters", ["D", "C", "A", "B"]),
    "a dict": ("a text of four letters", {"A": "repeated"}),
    "a number": ("a text of four letters", 4312),
    "a function": ("a text of four letters", lambda: "DCAB"),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers(name):
    assert_right(name, RIGHT[name])


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers_hear_what_is_wrong(name):
    assert_wrong(name, WRONG[name])


def test_the_mystery_logs_show_what_their_hints_say():
    def gap(log):
        return log["loss/validation"][-1] - log["loss/train"][-1]

    def unrest(log):  # how far the norm jumps from one point to the next, late in the run
        return max(abs(math.log(a / b)) for a, b in pairwise(log["gradient_norm"][11:]))

    logs = MYSTERY_LOGS
    assert list(logs) == ["A", "B", "C", "D"]
    assert {len(row) for log in logs.values() for row in log.values()} == {20}
    assert max(logs, key=lambda name: gap(logs[name])) == "A"
    assert max(logs, key=lambda name: logs[name]["loss/train"][0]) == "C"
    assert max(logs, key=lambda name: unrest(logs[name])) == "D"
    assert min(logs, key=lambda name: logs[name]["loss/validation"][-1]) == "B"
