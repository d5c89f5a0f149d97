"""Diversity against counting by hand, limits, and BLEU of each text."""

import random

import numpy as np
import pytest
import sacrebleu
import torch

from llmcourse.evaluate.diversity import distinct_n, repetition, self_bleu

SPEECHES = [
    "My lord, the king is come to speak with you.",
    "The king is dead, my lord, and we must go.",
    "I will not speak with you to-night, good sir.",
    "O heavens, what a night is this!",
]


def some_rows(n_rows=6, length=30, kinds=8, seed=0):
    return np.random.default_rng(seed).integers(kinds, size=(n_rows, length)).tolist()


def count(row, n):
    """Different n-grams of a row, and all of them, as texts with a mark between."""
    grams = [">".join(map(str, row[i : i + n])) for i in range(len(row)) if i + n <= len(row)]
    return len(dict.fromkeys(grams)), len(grams)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
@pytest.mark.parametrize("kinds", [1, 3, 50])
def test_counts_are_those_by_hand(n, kinds):
    rows = some_rows(kinds=kinds)
    one_each = [count(row, n) for row in rows]
    assert repetition(rows, n) == pytest.approx(
        np.mean([1 - different / total for different, total in one_each])
    )
    together = set().union(*({tuple(row[i : i + n]) for i in range(len(row) - n + 1)} for row in rows))
    assert distinct_n(rows, n) == pytest.approx(len(together) / sum(total for _, total in one_each))
    assert distinct_n(rows[:1], n) == pytest.approx(1 - repetition(rows[:1], n))  # of one text they are one


def test_limits():
    assert distinct_n([range(10), range(10, 20)], 3) == 1.0
    assert repetition([range(10), range(10)], 3) == 0.0
    assert distinct_n([range(10), range(10)], 3) == 0.5  # no text repeats itself, both are the same
    assert repetition([[1] * 11], 2) == pytest.approx(0.9)


def test_what_a_gram_is_made_of_does_not_matter():
    rows = some_rows()
    words = [[f"w{i}" for i in row] for row in rows]
    for measure in (distinct_n, repetition):
        assert (
            measure(rows, 2)
            == measure(words, 2)
            == measure(torch.tensor(rows), 2)
            == measure(np.array(rows), 2)
        )


def test_self_bleu_is_the_mean_of_each_text_against_the_rest():
    expected = []
    for i, text in enumerate(SPEECHES):
        rest = SPEECHES[:i] + SPEECHES[i + 1 :]
        expected.append(sacrebleu.sentence_bleu(text, rest, use_effective_order=True).score)
    assert self_bleu(SPEECHES) == pytest.approx(np.mean(expected))
    shuffled = random.Random(0).sample(SPEECHES, len(SPEECHES))
    assert self_bleu(shuffled) == pytest.approx(self_bleu(SPEECHES))


def test_self_bleu_of_equal_and_of_unlike_texts():
    assert self_bleu([SPEECHES[0]] * 3) == pytest.approx(100)
    assert self_bleu(["a b c d e f g h", "i j k l m n o p"]) < 5
    assert self_bleu([*SPEECHES, SPEECHES[0]]) > self_bleu(SPEECHES)
    assert self_bleu(["今天天气很好我们去", "今天天气很好我们来"], "zh") > self_bleu(
        ["今天天气很好我们去", "你会写诗吗不会的"], "zh"
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: distinct_n([[1, 2]], 3), r"no row has 3 items"),
        (lambda: distinct_n([], 1), r"no row has 1 items"),
        (lambda: distinct_n([[1, 2]], 0), r"n=0 must be a whole number and at least 1"),
        (lambda: distinct_n(["to be"], 1), r"rows\[0\] is 'to be': give a row"),
        (lambda: repetition([[1, 2, 3], [1]], 2), r"rows of \[1, 3\] items: each needs 2 or more"),
        (lambda: self_bleu(["one"]), r"1 texts: each is compared with the others, so give at least 2"),
        (lambda: self_bleu("one text"), r"texts is 'one text': give a row"),
        (lambda: self_bleu(SPEECHES, "de"), r"language='de' is unknown"),
    ],
)
def test_what_has_no_diversity_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
