"""Differences over seeds are those of scipy's paired t-test."""

import itertools

import pytest
from scipy import stats

from llmcourse.evaluate.seeds import paired, select, summary


def runs(*values):
    return [{"seed": float(seed), "kl": value} for seed, value in enumerate(values)]


def test_pairs_of_seeds_are_compared_as_scipy_does():
    one, other = [0.31, 0.28, 0.35, 0.30], [0.25, 0.27, 0.33, 0.22]
    found, wanted = paired(runs(*one), runs(*other), "kl"), stats.ttest_rel(one, other)
    assert found.p_value == pytest.approx(wanted.pvalue)
    low, high = wanted.confidence_interval(0.95)
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((low, high))


def test_a_run_without_a_seed_is_compared_with_each():
    alone = [{"seed": "", "kl": 0.2}]
    found, wanted = paired(runs(0.1, 0.15, 0.13), alone, "kl"), stats.ttest_1samp([0.1, 0.15, 0.13], 0.2)
    assert found.mean == pytest.approx(-0.2 + 0.38 / 3)
    assert found.p_value == pytest.approx(wanted.pvalue)


def test_seeds_that_only_one_has_do_not_count():
    assert paired(runs(0.1, 0.2, 0.9), runs(0.0, 0.1), "kl").n == 2
    with pytest.raises(ValueError, match="1 seeds in both"):
        paired(runs(0.1, 0.2), [*runs(0.3), {"seed": 7.0, "kl": 0}], "kl")


def test_a_summary_is_scipys_interval_of_the_mean():
    low, high = stats.t.interval(0.95, 2, loc=54, scale=4 / 3**0.5)
    assert summary([50.0, 54.0, 58.0]) == f"54 ± {(high - low) / 2:.0f}, 3 seeds"


def test_rows_are_chosen_by_all_values():
    rows = [{"a": a, "b": b} for a in (1, 2) for b in (1, 2)]
    assert select(rows, a=1, b=2) == [{"a": 1, "b": 2}]
    assert select(rows) == rows


def test_a_seed_that_comes_twice_and_what_is_not_finite_are_refused():
    runs = [{"seed": seed, "kl": float(seed)} for seed in range(3)]
    with pytest.raises(ValueError, match="6 rows have 3 seeds: select one run of each seed first"):
        paired(runs * 2, runs, "kl")
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="kl of seed 9 is"):
            paired([*runs, {"seed": 9, "kl": value}], runs, "kl")
        with pytest.raises(ValueError, match=r"values\[1\] is"):
            summary([1.0, value])
    with pytest.raises(ValueError, match="empty"):
        summary([])


@pytest.mark.parametrize("n", [2, 5])
def test_equal_gaps_are_no_more_certain_than_their_number_of_seeds_allows(n):
    """All ways to flip the signs of n equal gaps: two of 2^n have a mean as far from 0."""
    one, other = ([{"seed": s, "x": base + 0.1 * s} for s in range(n)] for base in (0.7, 0.2))
    flips = [abs(sum(signs)) / n for signs in itertools.product((1, -1), repeat=n)]
    assert paired(one, other, "x").p_value == pytest.approx(sum(f >= 1 for f in flips) / len(flips))
    assert paired(one, one, "x").p_value == 1
