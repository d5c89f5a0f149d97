"""Chapter 1: right answers written differently pass, and each usual slip gets its own sentence."""

import math
from collections import Counter
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import scipy.stats
import torch
from answers import assert_right, assert_wrong, numbered

from llmcourse.ngrams import NGramModel
from llmcourse.teach.chapters.ch01_background.entropy import entropy_bounds
from llmcourse.teach.checks import verdict


def pairs(text):
    return list(pairwise(text))


RIGHT, WRONG = {}, {}


# ---- 01-add-one -----------------------------------------------------------------------------


def with_counters(text, previous, token, vocab_size):
    counts = Counter(pairs(text))
    return (counts[previous, token] + 1) / (
        sum(c for (a, _), c in counts.items() if a == previous) + vocab_size
    )


def with_loop_and_tensor(text, previous, token, vocab_size):
    both = after = 0
    for i in range(len(text) - 1):
        if text[i] == previous:
            after += 1
            both += text[i + 1] == token
    return torch.tensor([(both + 1) / (after + vocab_size)], dtype=torch.float64)


def without_the_last(text, previous, token, vocab_size):
    return np.float64(pairs(text).count((previous, token)) + 1) / (text[:-1].count(previous) + vocab_size)


RIGHT["01-add-one"] = [
    with_counters,
    with_loop_and_tensor,
    without_the_last,
    lambda text, previous, token, vocab_size: Fraction(
        pairs(text).count((previous, token)) + 1, text[:-1].count(previous) + vocab_size
    ),
]


WRONG["01-add-one"] = numbered(
    [
        (lambda t, p, w, V: pairs(t).count((p, w)) / t[:-1].count(p), "nothing is added"),
        (lambda t, p, w, V: (pairs(t).count((p, w)) + 1) / t[:-1].count(p), "added to the pair only"),
        (lambda t, p, w, V: (pairs(t).count((p, w)) + 1) / (t[:-1].count(p) + 1), "grows by 1 instead"),
        (lambda t, p, w, V: (pairs(t).count((p, w)) + 1) / (t.count(p) + V), "last token of the text"),
        (lambda t, p, w, V: (pairs(t).count((w, p)) + 1) / (t[:-1].count(p) + V), "the other way round"),
        (
            lambda t, p, w, V: (pairs(t).count((w, p)) + 1) / (t[:-1].count(w) + V),
            "exchanged previous and token",
        ),
        (lambda t, p, w, V: (pairs(t).count((p, w)) + 1) / (len(t) - 1 + V), "share of ALL pairs"),
        (lambda t, p, w, V: (pairs(t).count((p, w)) + 1) / (len(t) - 1 + V**2), "probability of the pair"),
        (lambda t, p, w, V: pairs(t).count((p, w)) / (len(t) - 1), "and nothing is added"),
        (
            lambda t, p, w, V: (pairs(t).count((p, w)) + 1) / (t[:-1].count(p) + len(set(t))),
            "given vocab_size",
        ),
        (lambda t, p, w, V: (pairs(t).count((p, w)) + 1) / (t[1:].count(w) + V), "what is given is"),
        (lambda t, p, w, V: 4 / 11, "never seen gets 1/11"),
        (lambda t, p, w, V: "4/11", "give a number"),
    ]
)


def test_add_one_that_knows_only_seen_histories():
    def answer(text, previous, token, vocab_size):
        after = text[:-1].count(previous)
        return (pairs(text).count((previous, token)) + 1) / (after + vocab_size) if after else 0.0

    assert "all 7 are alike" in verdict("01-add-one", answer)[1]


def test_add_one_that_wants_numbers():
    def answer(text, previous, token, vocab_size):
        table = np.ones((vocab_size, vocab_size))
        for a, b in pairs(text):
            table[a, b] += 1
        return table[previous, token] / table[previous].sum()

    kind, sentence = verdict("01-add-one", answer)
    assert (kind, "IndexError" in sentence) == ("wrong", True)


# ---- 01-bits --------------------------------------------------------------------------------


def with_numpy(probabilities, text):
    return -np.log2(probabilities).sum() / len(text.encode("utf-8"))


def with_torch(probabilities, text):
    return -torch.tensor(probabilities).log().sum() / math.log(2) / len(bytes(text, "utf-8"))


def with_product(probabilities, text):
    return -math.log2(math.prod(probabilities)) / len(text.encode())


RIGHT["01-bits"] = [
    with_numpy,
    with_torch,
    with_product,
    lambda probabilities, text: (
        np.log2(1 / np.array(probabilities)).sum() / sum(len(c.encode()) for c in text)
    ),
]


WRONG["01-bits"] = numbered(
    [
        (lambda p, t: np.log2(p).sum() / len(t.encode()), "sign is wrong"),
        (lambda p, t: -np.log(p).sum() / len(t.encode()), "nats per byte"),
        (lambda p, t: -np.log10(p).sum() / len(t.encode()), "base 10"),
        (lambda p, t: -np.log2(p).mean(), "bits per TOKEN"),
        (lambda p, t: -np.log2(p).sum(), "that is the sum"),
        (lambda p, t: np.log2(p).sum(), "minus the sum"),
        (lambda p, t: -np.log2(p).mean() / len(t.encode()), "SUM over tokens"),
        (lambda p, t: -np.log2(np.mean(p)) * len(p) / len(t.encode()), "logarithm of the mean"),
        (lambda p, t: -np.log2(p).sum() / len(t), "2 characters but 6 bytes"),
        (lambda p, t: 0.0, "8 bits for the 8 bytes"),
    ]
)


# ---- 01-bound -------------------------------------------------------------------------------


def bound_with_numpy(ranks):
    q = np.unique(ranks, return_counts=True)[1] / len(ranks)
    return -(q * np.log2(q)).sum()


def bound_with_torch(ranks):
    q = torch.bincount(torch.tensor(ranks)) / len(ranks)
    return -torch.xlogy(q, q).sum() / math.log(2)


def bound_over_symbols(ranks):
    return sum(-math.log2(ranks.count(r) / len(ranks)) for r in ranks) / len(ranks)


RIGHT["01-bound"] = [
    bound_with_numpy,
    bound_with_torch,
    bound_over_symbols,
    lambda ranks: float(scipy.stats.entropy(list(Counter(ranks).values()), base=2)),
]


def shares(ranks):
    return np.unique(ranks, return_counts=True)[1] / len(ranks)


WRONG["01-bound"] = numbered(
    [
        (lambda r: (shares(r) * np.log2(shares(r))).sum(), "sign is wrong"),
        (lambda r: -(shares(r) * np.log(shares(r))).sum(), "in nats"),
        (lambda r: np.log2(r).mean(), "mean of log2 of the guesses"),
        (lambda r: np.log2(np.mean(r)), "log2 of the mean number"),
        (lambda r: np.mean(r), "the mean number of guesses"),
        (
            lambda r: sum(-(r.count(x) / len(r)) * math.log2(r.count(x) / len(r)) for x in r),
            "DIFFERENT numbers",
        ),
        (lambda r: -np.log2(shares(r)).sum(), "weighted by its q"),
        (lambda r: entropy_bounds(r)[0], "LOWER bound"),
        (lambda r: -sum(c * math.log2(c) for c in Counter(r).values()), "left the counts"),
        (lambda r: math.log2(len(set(r))), "how many different numbers"),
        (lambda r: 1.0, "give 1.75 bits"),
        (lambda r: 1.75, "needs 0 bits"),
    ]
)


# ---- 01-compute -----------------------------------------------------------------------------


RIGHT["01-compute"] = [2.43, 2.4306, 2.4, 6 * 7e9 * 2e12 / 4e17 / 86400, np.float32(2.43), torch.tensor(2.43)]
WRONG["01-compute"] = numbered(
    [
        (210000, "in seconds"),
        (58.3, "in hours"),
        (0.405, "not 1"),
        (0.81, "forward pass alone"),
        (2430.6, "for one GPU"),
        (7, "7 days is not 6ND"),
        (0, "0 days is not 6ND"),
        ("2.43", "give a number"),
    ]
)


def test_witten_bell_by_hand_in_the_notebook_is_the_package():
    words = "the cat sat . the dog sat . the cat ran .".split()  # noqa: SIM905 - as in the notebook
    ids = {word: i for i, word in enumerate(sorted(set(words)))}
    model = NGramModel([ids[w] for w in words], len(ids), order=2)
    p_ran = (1 + 6 / 6) / (12 + 6)
    assert len(ids) == 6
    assert model.next_probabilities([ids["dog"]])[ids["ran"]] == pytest.approx((0 + 1 * p_ran) / (1 + 1))


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers(name):
    assert_right(name, RIGHT[name])


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers_hear_what_is_wrong(name):
    assert_wrong(name, WRONG[name])
