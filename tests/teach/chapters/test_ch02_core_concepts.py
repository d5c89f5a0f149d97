"""Chapter 2: right answers written differently pass, and each usual slip gets its own sentence."""

import math
import statistics

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from answers import assert_right, assert_wrong, numbered
from scipy.stats import sem

from llmcourse.attention import causal_mask
from llmcourse.teach.chapters.ch02_core_concepts.solutions import prefix_mask

RIGHT, WRONG = {}, {}


# ---- 02-mask --------------------------------------------------------------------------------


def cell_by_cell(n_source, n_target):
    T = n_source + n_target
    return [[column < n_source or column <= row for column in range(T)] for row in range(T)]


def four_quarters(s, t):
    top = np.concatenate([np.ones((s, s)), np.zeros((s, t))], axis=1)
    bottom = np.concatenate([np.ones((t, s)), np.tril(np.ones((t, t)))], axis=1)
    return np.concatenate([top, bottom]).astype(bool)


def joined(s, t):
    return causal_mask(s + t) | (torch.arange(s + t) < s)


RIGHT["02-mask"] = [
    cell_by_cell,
    four_quarters,
    joined,
    lambda s, t: (
        torch.block_diag(torch.ones(s, s), torch.ones(t, t).tril()).int()
        | F.pad(torch.ones(t, s), (0, t, s, 0)).int()
    ),
    lambda s, t: np.tri(s + t, dtype=bool) | (np.arange(s + t) < s),
]


def changed(rows, columns, value):
    def answer(s, t):
        mask = prefix_mask(s, t)
        mask[rows(s), columns(s)] = value
        return mask

    return answer


SOURCE, TARGET = (lambda s: slice(0, s)), (lambda s: slice(s, None))


WRONG["02-mask"] = numbered(
    [
        (lambda s, t: causal_mask(s + t), "that is the decoder's mask"),
        (lambda s, t: torch.ones(s + t, s + t).bool(), "that is the encoder's mask"),
        (lambda s, t: prefix_mask(s, t).T, "yours is transposed"),
        (lambda s, t: ~prefix_mask(s, t), "your mask is inside out"),
        (lambda s, t: prefix_mask(t, s), "exchanged n_source and n_target"),
        (changed(SOURCE, TARGET, True), "a source position must not see the target"),
        (changed(TARGET, SOURCE, False), "a target position may look at the whole source"),
        (changed(TARGET, TARGET, False), "may look at itself"),
        (changed(TARGET, TARGET, True), "among the targets"),
        (
            lambda s, t: torch.zeros(s + t, s + t).masked_fill(~prefix_mask(s, t), -torch.inf),
            "not numbers to add",
        ),
        (lambda s, t: prefix_mask(s, t)[s:], "the shape is (5, 5)"),
    ]
)


# ---- 02-likelihood --------------------------------------------------------------------------


def with_a_loop(logits, ids, n):
    return sum(logits[t - 1].log_softmax(-1)[ids[t]] for t in range(n, len(ids))).item()


def with_cross_entropy(logits, ids, n):
    return -F.cross_entropy(logits[n - 1 : -1], ids[n:], reduction="sum")


def in_numpy(logits, ids, n):
    x = logits.double().numpy()
    p = np.exp(x) / np.exp(x).sum(-1, keepdims=True)
    return np.log([p[t - 1, ids[t]] for t in range(n, len(ids))]).sum()


RIGHT["02-likelihood"] = [
    with_a_loop,
    with_cross_entropy,
    in_numpy,
    lambda logits, ids, n: logits[n - 1 : -1].log_softmax(-1)[torch.arange(len(ids) - n), ids[n:]].sum(),
    lambda logits, ids, n: torch.einsum(
        "tv,tv->", logits[n - 1 : -1].log_softmax(-1), F.one_hot(ids[n:], logits.shape[1]).float()
    ),
]


def from_rows(first_row, first_token, last_row=None):
    """Sum of log-probabilities, reading tokens from n + first_token in rows from n + first_row."""

    def answer(logits, ids, n):
        table = logits.log_softmax(-1)[n + first_row : last_row]
        return table.gather(1, ids[n + first_token :, None]).sum()

    return answer


WRONG["02-likelihood"] = numbered(
    [
        (from_rows(0, 0), "from its own row"),
        (from_rows(0, 1, -1), "one token too late"),
        (from_rows(-2, -1, -1), "one token too early"),
        (lambda x, ids, n: with_a_loop(x, ids, 1), "leave the prompt's tokens out"),
        (lambda x, ids, n: with_a_loop(x, ids, n) / (len(ids) - n), "that is the mean"),
        (lambda x, ids, n: -with_a_loop(x, ids, n), "the sign is wrong"),
        (lambda x, ids, n: np.exp(with_a_loop(x, ids, n)), "that is the probability"),
        (lambda x, ids, n: sum(x[t - 1, ids[t]] for t in range(n, len(ids))), "these are logits"),
        (lambda x, ids, n: with_a_loop(x, ids, n) / np.log(2), "in bits"),
        (lambda x, ids, n: with_a_loop(x, ids, n) - 1, "for a random example"),
        (lambda x, ids, n: with_a_loop(x, ids, 4), "but not for one"),
        (lambda x, ids, n: x.log_softmax(-1)[n - 1 : -1], "give a number"),
    ]
)


# ---- 02-points ------------------------------------------------------------------------------


def with_scipy(a, b):
    d = np.array(a) - np.array(b)
    return d.mean(), sem(d)


def by_hand(a, b):
    d = [x - y for x, y in zip(a, b, strict=True)]
    mean = sum(d) / len(d)
    return [mean, (sum((x - mean) ** 2 for x in d) / (len(d) - 1) / len(d)) ** 0.5]


RIGHT["02-points"] = [
    with_scipy,
    by_hand,
    lambda a, b: torch.tensor([np.mean(minus(a, b)), sem(minus(a, b))]),
    lambda a, b: (
        statistics.mean(minus(a, b).tolist()),
        statistics.stdev(minus(a, b).tolist()) / math.sqrt(len(a)),
    ),
    lambda a, b: iter(with_scipy(a, b)),
]


def minus(a, b):
    return np.array(a) - np.array(b)


WRONG["02-points"] = numbered(
    [
        (lambda a, b: with_scipy(b, a), "the sign is wrong"),
        (lambda a, b: (minus(a, b).sum(), sem(minus(a, b))), "that is the sum"),
        (lambda a, b: (np.mean(a), 0.1), "the mean of a - b is"),
        (lambda a, b: (minus(a, b).mean(), minus(a, b).std(ddof=1)), "divide by the root of n"),
        (lambda a, b: (minus(a, b).mean(), minus(a, b).std(ddof=1) / len(a)), "divided by the ROOT of n"),
        (lambda a, b: (minus(a, b).mean(), minus(a, b).std() / len(a) ** 0.5), "ddof=1"),
        (lambda a, b: (minus(a, b).mean(), minus(a, b).std()), "not divided by the root"),
        (lambda a, b: (minus(a, b).mean(), np.hypot(sem(a), sem(b))), "take the differences first"),
        (lambda a, b: (minus(a, b).mean(), sem(minus(a, b)) ** 2), "that is the variance"),
        (lambda a, b: (minus(a, b).mean(), 0.5), "the standard error is"),
        (lambda a, b: minus(a, b).mean().item(), "return two numbers"),
        (lambda a, b: (1, 2, 3), "return two numbers, not 3"),
    ]
)


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers(name):
    assert_right(name, RIGHT[name])


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers_hear_what_is_wrong(name):
    assert_wrong(name, WRONG[name])
