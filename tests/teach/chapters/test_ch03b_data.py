"""Chapter 3b: right answers in several forms, and the wrong ones that learners give."""

import math
import re
from itertools import pairwise

import numpy as np
import pytest
import torch
from answers import assert_right, assert_wrong, numbered

RIGHT, WRONG = {}, {}


def jaccard_with_zip(a, b, n):
    def runs(text):
        words = text.split()
        return set(zip(*(words[i:] for i in range(n)), strict=False)) or {tuple(words)}

    return len(runs(a).intersection(runs(b))) / len(runs(a).union(runs(b)))


def jaccard_of(runs, measure=lambda x, y: len(x & y) / len(x | y)):
    return lambda a, b, n: measure(runs(a.split(), n), runs(b.split(), n))


def all_runs(words, n):
    return {tuple(words[i : i + n]) for i in range(max(1, len(words) - n + 1))}


def luhn_table(number):
    table = [0, 2, 4, 6, 8, 1, 3, 5, 7, 9]
    digits = [int(d) for d in re.sub(r"\D", "", number)]
    return (sum(digits[-1::-2]) + sum(table[d] for d in digits[-2::-2])) % 10 == 0


def luhn_with(
    transform=lambda d: sum(divmod(2 * d, 10)), start="right", clean=lambda t: re.sub(r"\D", "", t)
):
    def answer(number):
        digits = [int(d) for d in clean(number)]
        if start == "right":
            digits = digits[::-1]
        places = range(0, len(digits), 2) if start == "left" else range(1, len(digits), 2)
        for place in places:
            digits[place] = transform(digits[place])
        return sum(digits) % 10 == 0

    return answer


RIGHT["03b-jaccard"] = [
    jaccard_with_zip,
    jaccard_of(lambda words, n: {" ".join(run) for run in all_runs(words, n)}),
    jaccard_of(all_runs, lambda x, y: len(x & y) / (len(x) + len(y) - len(x & y))),
    jaccard_of(all_runs, lambda x, y: torch.tensor([len(x & y) / len(x | y)])),
]
WRONG["03b-jaccard"] = numbered(
    [
        (lambda a, b, n: jaccard_of(lambda w, n: set(w))(a, b, n), "common WORDS"),
        (jaccard_of(all_runs, lambda x, y: len(x & y) / len(x)), "runs of one text"),
        (jaccard_of(all_runs, lambda x, y: len(x & y) / (len(x) + len(y))), "use the union, not the sum"),
        (jaccard_of(all_runs, lambda x, y: 2 * len(x & y) / (len(x) + len(y))), "Dice"),
        (
            jaccard_of(lambda w, n: {tuple(w[i : i + n]) for i in range(max(1, len(w) - n))}),
            "last run is missing",
        ),
        (jaccard_of(lambda w, n: {frozenset(run) for run in all_runs(w, n)}), "order of the words"),
        (jaccard_of(lambda w, n: {tuple(w[i : i + n]) for i in range(len(w) - n + 1)}), "fewer than n words"),
        (
            lambda a, b, n: (
                len([r for r in pairwise(a.split()) if r in set(pairwise(b.split()))])
                / len(all_runs(a.split(), n) | all_runs(b.split(), n))
            ),
            "counts once",
        ),
    ]
)
RIGHT["03b-bands"] = [0.61, 1 - (1 - 0.7**8) ** 16, np.float32(0.613), torch.tensor(0.6132)]
WRONG["03b-bands"] = numbered(
    [
        (0.7**8, "ONE band"),
        ((1 - 0.7**8) ** 16, "MISS"),
        (1 - (1 - 0.7**16) ** 8, "the power of the similarity is 8"),
        (16 * 0.7**8, "do not add up"),
        (61.3, "not a percentage"),
        (0.5, "is not the probability"),
    ]
)
RIGHT["03b-luhn"] = [
    luhn_table,
    luhn_with(),
    lambda number: np.bool_(luhn_table(number)),
    lambda number: torch.tensor(luhn_table(number)),
]
WRONG["03b-luhn"] = numbered(
    [
        (luhn_with(clean=lambda text: text), "keep the digits only"),
        (luhn_with(clean=lambda text: text.replace(" ", "")), "keep the digits only"),
        (luhn_with(start="left"), "from the LEFT"),
        (luhn_with(transform=lambda d: 2 * d), "subtract 9"),
        (luhn_with(transform=lambda d: d), "valid, and yours says no"),
        (lambda number: True, "is not valid, and yours says it is"),
        (lambda number: int(luhn_table(number)), "return True or False"),
    ]
)

# 03b-waste


def waste_by_loop(lengths, context_length):
    wasted = 0
    for length in lengths:
        if length < context_length:
            wasted += context_length - length
    return wasted / context_length / len(lengths)


RIGHT["03b-waste"] = [
    waste_by_loop,
    lambda lengths, n: 1 - np.minimum(lengths, n).mean() / n,
    lambda lengths, n: np.float32(waste_by_loop(lengths, n)),
    lambda lengths, n: (n - torch.tensor(lengths).clamp(max=n)).float().mean() / n,
]
WRONG["03b-waste"] = {
    "used": ("the waste is the rest", lambda lengths, n: 1 - waste_by_loop(lengths, n)),
    "number": ("number of wasted positions", lambda lengths, n: waste_by_loop(lengths, n) * n * len(lengths)),
    "percent": ("share between 0 and 1", lambda lengths, n: 100 * waste_by_loop(lengths, n)),
    "sum of shares": ("waste 50 of 200", lambda lengths, n: len(lengths) * waste_by_loop(lengths, n)),
    "integer division": ("waste 50 of 200", lambda lengths, n: 1 - sum(lengths) // (n * len(lengths))),
    "not cut": ("in one row", lambda lengths, n: 1 - sum(lengths) / (n * len(lengths))),
    "several rows": (
        "in one row",
        lambda lengths, n: 1 - sum(lengths) / n / sum(math.ceil(x / n) for x in lengths),
    ),
    "padded to the longest": (
        "every row has 100 positions",
        lambda lengths, n: waste_by_loop(lengths, min(n, max(lengths))),
    ),
    "for each document": ("give a number, not [", lambda lengths, n: [1 - x / n for x in lengths]),
    "lists divided": ("your code raised TypeError", lambda lengths, n: lengths / n),
    "text": (
        "give a number, not '25 %'",
        lambda lengths, n: f"{waste_by_loop(lengths, n):.0%}".replace("%", " %"),
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers(name):
    assert_right(name, RIGHT[name])


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers_hear_what_is_wrong(name):
    assert_wrong(name, WRONG[name])
