"""Exercises of `03e_significance`: right answers in several forms, and wrong ones that learners give."""

import random
import statistics

import numpy as np
import pytest
import torch
from answers import assert_right, assert_wrong

RIGHT, WRONG = {}, {}


def means_of(values, n_resamples, size=None, replace=True):
    rng = np.random.default_rng(4)
    size = len(values) if size is None else size
    return np.array([rng.choice(values, size, replace=replace).mean() for _ in range(n_resamples)])


def interval_in_plain_python(values, n_resamples):
    values = values.tolist()
    drawn = random.Random(1)
    means = sorted(statistics.fmean(drawn.choices(values, k=len(values))) for _ in range(n_resamples))
    return [means[int(0.025 * n_resamples)], means[int(0.975 * n_resamples)]]


def interval_in_torch(values, n_resamples):
    drawn = torch.randint(len(values), (n_resamples, len(values)), generator=torch.Generator().manual_seed(0))
    means = torch.tensor(values)[drawn].mean(1)
    return torch.quantile(means, torch.tensor([0.025, 0.975], dtype=means.dtype))


def by_formula(values, n_resamples):
    error = 1.96 * values.std() / len(values) ** 0.5
    return values.mean() - error, values.mean() + error


RIGHT["03e-bootstrap"] = [
    interval_in_plain_python,
    interval_in_torch,
    lambda values, n: np.percentile(means_of(values, n), [2.5, 97.5]),
    lambda values, n: tuple(np.quantile(means_of(values, n), [0.025, 0.975]).tolist()),
]
WRONG["03e-bootstrap"] = {
    "without replacement": (
        "draw WITH replacement",
        lambda values, n: np.quantile(means_of(values, n, replace=False), [0.025, 0.975]),
    ),
    "middle 90": ("the middle 90 %", lambda values, n: np.quantile(means_of(values, n), [0.05, 0.95])),
    "standard error": (
        "one standard error to each side",
        lambda values, n: (
            values.mean() - means_of(values, n).std(),
            values.mean() + means_of(values, n).std(),
        ),
    ),
    "middle half": ("too narrow", lambda values, n: np.quantile(means_of(values, n), [0.25, 0.75])),
    "n_resamples items": (
        "has n_resamples items",
        lambda values, n: np.quantile(means_of(values, n, size=n), [0.025, 0.975]),
    ),
    "middle 80": ("the middle 80 %", lambda values, n: np.quantile(means_of(values, n), [0.1, 0.9])),
    "middle 99": ("the middle 99 %", lambda values, n: np.quantile(means_of(values, n), [0.005, 0.995])),
    "rounded": ("rounded", lambda values, n: np.quantile(means_of(values, n), [0.025, 0.975]).round(3)),
    "small resamples": (
        "as many items as there are values",
        lambda values, n: np.quantile(means_of(values, n, size=40), [0.025, 0.975]),
    ),
    "quantiles of the values": (
        "take the MEAN of each resample",
        lambda values, n: np.quantile(values, [0.025, 0.975]),
    ),
    "spread of the values": (
        "the spread of the values",
        lambda values, n: (values.mean() - 1.96 * values.std(), values.mean() + 1.96 * values.std()),
    ),
    "all means": ("return their two quantiles", means_of),
    "upside down": ("low comes first", lambda values, n: np.quantile(means_of(values, n), [0.975, 0.025])),
    "one number": ("return two numbers", lambda values, n: values.mean()),
    "sums": (
        "not the sum",
        lambda values, n: np.quantile(len(values) * means_of(values, n), [0.025, 0.975]),
    ),
    "not finite": ("not finite", lambda values, n: (float("nan"), float("nan"))),
    "a formula": ("that is a formula", by_formula),
    "errors instead of hits": (
        "the middle of your interval",
        lambda values, n: np.quantile(means_of(1 - values, n), [0.025, 0.975]),
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers(name):
    assert_right(name, RIGHT[name])


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers_hear_what_is_wrong(name):
    assert_wrong(name, WRONG[name])
