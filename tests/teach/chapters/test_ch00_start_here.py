"""Chapter 0: answers that learners give, right and wrong."""

import functools
import statistics
from fractions import Fraction

import numpy as np
import pytest
import torch
from answers import assert_right, assert_wrong

RIGHT, WRONG = {}, {}


# 00-tokens, 00-mean

RIGHT["00-tokens"] = [" be", "be"]
WRONG["00-tokens"] = {
    "not text": ("in quotation marks", 0.9),
    "another token": ("is not the likeliest", " the"),
    "empty": ("is not the likeliest", ""),
    "two tokens": ("is not the likeliest", "to be"),
    "bytes": ("in quotation marks", b" be"),
    "a list": ("in quotation marks", [" be"]),
    "another case": ("is not the likeliest", "BE"),
}
RIGHT["00-mean"] = [
    np.mean,
    statistics.mean,
    lambda losses: sum(x / len(losses) for x in losses),
    lambda losses: torch.tensor(losses).float().mean(),
    lambda losses: Fraction(sum(map(Fraction, losses)), len(losses)),
    functools.reduce(lambda f, g: lambda x: g(f(x)), [np.array, np.mean, float]),
]
WRONG["00-mean"] = {
    "sum": ("that is the sum", sum),
    "median": ("that is the median", lambda losses: sorted(losses)[len(losses) // 2]),
    "integer division": ("divide with /, not //", lambda losses: sum(losses) // len(losses)),
    "one too few": ("you return 4.5", lambda losses: sum(losses) / (len(losses) - 1)),
    "fixed": ("the same for every input", lambda losses: 3.0),
    "rounded": ("that is rounded", lambda losses: round(sum(losses) / len(losses), 1)),
    "middle of the ends": ("the smallest and the largest", lambda x: (min(x) + max(x)) / 2),
    "returns in the loop": ("within the loop", lambda losses: losses[-1]),
    "sign": ("the sign is wrong", lambda losses: -sum(losses) / len(losses)),
    "upper median": ("that is the median", lambda losses: statistics.median_high(losses)),
    "list divided": ("your code raised TypeError", lambda losses: losses / len(losses)),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers(name):
    assert_right(name, RIGHT[name])


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers_hear_what_is_wrong(name):
    assert_wrong(name, WRONG[name])
