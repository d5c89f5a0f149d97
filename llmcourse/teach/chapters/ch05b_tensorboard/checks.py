"""Exercises of chapter 5b, TensorBoard: reading the curves."""

import math
from functools import partial

import numpy as np

import llmcourse.teach.chapters.ch05b_tensorboard.curve_checks  # noqa: F401 - registers two more
from llmcourse.teach.examine import examine
from llmcourse.teach.exercises import NotRight, exercise, require
from llmcourse.teach.forms import number, text


@exercise(
    "05b-first",
    "How soon is it good?",
    minutes=5,
    difficulty=1,
    hints=(
        "`curve` has two lists of one length: take them apart, and go through both at once with zip.",
        "Return as soon as a value is below the limit. Behind the loop nothing was found.",
    ),
    wants="function",
    form=partial(number, finite=False),
)
def check_first(answer):
    """Curves whose steps are no indices, with ties, noise, and nothing below."""
    curve = ([25, 50, 75, 100, 125], [6.0, 5.0, 4.0, 4.5, 3.0])

    def ask(curve, limit):
        if min(curve[1]) < limit:
            return answer(curve, limit)
        try:  # it may raise, or return nothing, which would read as "not yet"
            return answer(curve, limit)
        except Exception:
            raise NotRight(
                "when no value is below the limit, return math.inf: not None, -1 or an error"
            ) from None

    def search(
        take=lambda places: places[0],
        below=lambda value, limit: value < limit,
        give=lambda curve, i: curve[0][i],
    ):
        def function(curve, limit):
            places = [i for i, value in enumerate(curve[1]) if below(value, limit)]
            return give(curve, take(places)) if places else math.inf

        return function

    cases = {
        "with the limit 4.2 it is step 75; you return {value}": (curve, 4.2),
        "with the limit 4.0 it is step 125; you return {value}": (curve, 4.0),
        "already the first value is below 9: step 25; you return {value}": (curve, 9.0),
        "right for one curve, but for steps 3, 9, 11 and values 2.0, 0.5, 0.7 with limit 1 it is {right}, not {value}": (
            ([3, 9, 11], [2.0, 0.5, 0.7]),
            1.0,
        ),
        "when no value is below the limit, return math.inf: not None, -1 or an error": (curve, 1.0),
    }
    slips = {
        "that is the place in the list: return the STEP there": search(give=lambda curve, i: i),
        "that is the value: return the STEP at which it was reached": search(
            give=lambda curve, i: curve[1][i]
        ),
        "that is the last step below the limit: return the FIRST": search(lambda places: places[-1]),
        "that is the step of the lowest value: return the FIRST below the limit": (
            lambda curve, limit: curve[0][np.argmin(curve[1])],
            lambda curve, limit: curve[0][np.argmin(curve[1])] if min(curve[1]) < limit else math.inf,
        ),
        "BELOW the limit: a value that equals it does not count. Compare with <, not <=": (
            search(below=lambda value, limit: value <= limit)
        ),
        "you look for values ABOVE the limit: with the limit 4.2 it is step 75; you return 25": search(
            below=lambda value, limit: value > limit
        ),
        "that is one too early: return the step of the first value below the limit, not the one before": (
            search(give=lambda curve, i: curve[0][i - 1])
        ),
        "that is one too late: return the step of the first value below the limit, not the one after": (
            search(give=lambda curve, i: curve[0][min(i + 1, len(curve[0]) - 1)])
        ),
        "that is how many values are below the limit: return the first step": (
            lambda curve, limit: sum(value < limit for value in curve[1])
        ),
    }
    examine(ask, search(), cases, slips)
    return "a number of steps to a limit compares runs better than their last values do."


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
    wants="value",
    form=partial(text, what='a text of four letters, such as "ABCD"'),
)
def check_disease(answer):
    """A permutation of ABCD; say for the first wrong letter what its log shows."""
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
