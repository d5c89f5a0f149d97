"""Chapter 3b: right answers in several forms, and the wrong ones that learners give."""

import re
from itertools import pairwise

import pytest

from llmcourse.teach.checks import verdict


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


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("03b-jaccard", jaccard_with_zip),
        ("03b-jaccard", jaccard_of(lambda words, n: {" ".join(run) for run in all_runs(words, n)})),
        ("03b-bands", 0.61),
        ("03b-bands", 1 - (1 - 0.7**8) ** 16),
        ("03b-luhn", luhn_table),
        ("03b-luhn", luhn_with()),
    ],
)
def test_right_answers(name, answer):
    kind, sentence = verdict(name, answer)
    assert kind == "correct", sentence


@pytest.mark.parametrize(
    ("answer", "words"),
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
    ],
)
def test_wrong_jaccard(answer, words):
    kind, sentence = verdict("03b-jaccard", answer)
    assert kind == "wrong"
    assert words in sentence


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (0.7**8, "ONE band"),
        ((1 - 0.7**8) ** 16, "MISS"),
        (1 - (1 - 0.7**16) ** 8, "the power of the similarity is 8"),
        (16 * 0.7**8, "do not add up"),
        (61.3, "not a percentage"),
        (0.5, "is not the probability"),
    ],
)
def test_wrong_bands(answer, words):
    kind, sentence = verdict("03b-bands", answer)
    assert kind == "wrong"
    assert words in sentence


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (luhn_with(clean=lambda text: text), "keep the digits only"),
        (luhn_with(clean=lambda text: text.replace(" ", "")), "keep the digits only"),
        (luhn_with(start="left"), "from the LEFT"),
        (luhn_with(transform=lambda d: 2 * d), "subtract 9"),
        (luhn_with(transform=lambda d: d), "valid, and yours says no"),
        (lambda number: True, "is not valid, and yours says it is"),
        (lambda number: int(luhn_table(number)), "return True or False"),
    ],
)
def test_wrong_luhn(answer, words):
    kind, sentence = verdict("03b-luhn", answer)
    assert kind == "wrong"
    assert words in sentence, sentence
