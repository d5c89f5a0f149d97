"""Chapter 0: answers that learners give, right and wrong."""

import numpy as np
import pytest
from answers import assert_right, assert_wrong

RIGHT, WRONG = {}, {}


# 00-tokens, 00-mean

RIGHT["00-tokens"] = [" be", "be"]
WRONG["00-tokens"] = {
    "not text": ("in quotation marks", 0.9),
    "another token": ("is not the likeliest", " the"),
    "empty": ("is not the likeliest", ""),
    "two tokens": ("is not the likeliest", "to be"),
}
RIGHT["00-mean"] = [np.mean, lambda losses: sum(x / len(losses) for x in losses)]
WRONG["00-mean"] = {
    "sum": ("that is the sum", sum),
    "median": ("that is the median", lambda losses: sorted(losses)[len(losses) // 2]),
    "integer division": ("divide with /, not //", lambda losses: sum(losses) // len(losses)),
    "one too few": ("you return 4.5", lambda losses: sum(losses) / (len(losses) - 1)),
    "list divided": ("your code raised TypeError", lambda losses: losses / len(losses)),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers(name):
    assert_right(name, RIGHT[name])


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers_hear_what_is_wrong(name):
    assert_wrong(name, WRONG[name])
