"""Exercises of chapter 5b, TensorBoard: reading the curves."""

import math
from functools import partial

import numpy as np

from llmcourse.teach.examine import examine
from llmcourse.teach.exercises import NotRight, exercise, require
from llmcourse.teach.forms import number, text


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
