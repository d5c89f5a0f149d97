"""Bootstrap and paired tests against closed forms, scipy, and coverage by simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from llmcourse.evaluate.significance import (
    bootstrap_interval,
    bootstrap_means,
    items_needed,
    paired_comparison,
    sign_flip_p_value,
    wilson_interval,
)


@pytest.mark.parametrize("n", [100, 1000])
@pytest.mark.parametrize("p", [0.3, 0.9])
def test_the_interval_of_a_share_is_the_one_of_theory(n, p):
    values = np.arange(n) < p * n
    low, high = bootstrap_interval(values, n_resamples=8000)
    spread = math.sqrt(p * (1 - p) / n)
    assert bootstrap_means(values, 8000).std() == pytest.approx(spread, rel=0.04)
    assert (low, high) == (
        pytest.approx(p - 1.96 * spread, abs=0.015),
        pytest.approx(p + 1.96 * spread, abs=0.015),
    )


def test_the_interval_agrees_with_scipys_percentile_bootstrap():
    values = np.random.default_rng(0).exponential(size=200)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=9000, method="percentile", rng=1
    ).confidence_interval
    ours = bootstrap_interval(values, n_resamples=9000)
    assert ours == pytest.approx((theirs.low, theirs.high), rel=0.02)


@pytest.mark.parametrize(("hits", "n"), [(0, 5), (3, 7), (20, 20), (150, 400)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_wilsons_interval_is_scipys(hits, n, level):
    expected = stats.binomtest(hits, n).proportion_ci(level, method="wilson")
    assert wilson_interval(hits, n, level) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_a_share_that_cannot_be_is_refused():
    for hits, n, message in ((3, 2, "more hits than items"), (0, 0, "n=0"), (-1, 2, "hits=-1")):
        with pytest.raises(ValueError, match=message):
            wilson_interval(hits, n)


def test_a_wider_level_gives_a_wider_interval_and_the_seed_decides_all():
    values = np.random.default_rng(0).normal(size=80)
    narrow, wide = bootstrap_interval(values, 0.5), bootstrap_interval(values, 0.99)
    assert wide[0] < narrow[0] < values.mean() < narrow[1] < wide[1]
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values.tolist(), seed=3)
    assert bootstrap_interval(values, seed=3) != bootstrap_interval(values, seed=4)


def test_blocks_do_not_change_how_many_means_are_drawn(monkeypatch):
    monkeypatch.setattr("llmcourse.evaluate.significance.MAX_CELLS", 1000)
    means = bootstrap_means(np.arange(300), n_resamples=101)
    assert len(means) == 101
    assert means.std() == pytest.approx(np.arange(300).std() / 300**0.5, rel=0.25)
    p = sign_flip_p_value(np.ones(12), n_resamples=5000)  # 2 of 4096 sign patterns are as extreme
    assert p == pytest.approx(2 / 4096, abs=1e-3)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(300):
        low, high = bootstrap_interval(rng.random(150) < 0.7, n_resamples=400, seed=seed)
        covered += low <= 0.7 <= high
    assert 0.90 <= covered / 300 <= 0.98


def test_groups_widen_the_interval_as_theory_says():
    rng = np.random.default_rng(0)
    values = np.repeat(rng.random(100) < 0.5, 10)  # all ten of a group agree: 100 items, not 1,000
    groups = np.repeat([f"film {i}" for i in range(100)], 10)
    alone, grouped = bootstrap_means(values, 4000).std(), bootstrap_means(values, 4000, groups=groups).std()
    assert grouped / alone == pytest.approx(math.sqrt(10), rel=0.1)
    each_its_own = bootstrap_interval(values, groups=range(1000))
    assert each_its_own == pytest.approx(bootstrap_interval(values), abs=0.01)


def test_groups_of_unequal_size_give_means_over_items():
    means = bootstrap_means([1, 1, 1, 0], groups=["a", "a", "a", "b"], n_resamples=500)
    assert set(means) == {0.0, 0.75, 1.0}


@pytest.mark.parametrize(("only_a", "only_b"), [(30, 15), (8, 8), (50, 20), (3, 0)])
def test_on_right_and_wrong_the_test_is_mcnemars_exact_one(only_a, only_b):
    differences = np.array([1] * only_a + [-1] * only_b + [0] * 500)
    exact = stats.binomtest(only_a, only_a + only_b, 0.5).pvalue
    assert sign_flip_p_value(differences, n_resamples=40_000) == pytest.approx(exact, abs=0.01)


def test_on_losses_the_test_agrees_with_scipys_permutations():
    differences = np.random.default_rng(5).normal(0.15, 1, size=120)
    theirs = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=9999, rng=0, vectorized=True
    )
    assert sign_flip_p_value(differences) == pytest.approx(theirs.pvalue, abs=0.015)


def test_false_alarms_are_as_rare_as_promised():
    rng = np.random.default_rng(0)
    p_values = [sign_flip_p_value(rng.normal(size=40), n_resamples=300, seed=s) for s in range(400)]
    assert 0.02 <= np.mean(np.array(p_values) <= 0.05) <= 0.08


def test_no_difference_at_all_is_no_difference():
    found = paired_comparison([1, 0, 1], [1, 0, 1])
    assert (found.difference, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_the_paired_interval_is_narrower_where_models_agree():
    rng = np.random.default_rng(0)
    hard = rng.random(1000)
    a, b = (hard < 0.70).astype(int), (hard < 0.66).astype(int)
    found = paired_comparison(a, b)
    alone = [bootstrap_interval(x) for x in (a, b)]
    assert alone[0][0] < alone[1][1]  # the single intervals overlap
    assert found.low > 0
    assert found.p_value < 0.001
    swapped = paired_comparison(b, a)
    assert swapped.difference == -found.difference
    assert swapped.p_value == pytest.approx(found.p_value, abs=1e-3)


def test_groups_make_the_paired_test_careful():
    rng = np.random.default_rng(1)
    difference = np.repeat(rng.normal(0.3, 1, size=30), 20)
    groups = np.repeat(np.arange(30), 20)
    careless, careful = (
        paired_comparison(difference, 0 * difference),
        paired_comparison(difference, 0 * difference, groups=groups),
    )
    assert careless.p_value < 0.001
    units = stats.permutation_test(
        (difference[::20],), np.mean, permutation_type="samples", n_resamples=9999, rng=0, vectorized=True
    )
    assert careful.p_value == pytest.approx(units.pvalue, abs=0.02)
    assert careful.high - careful.low > 3 * (careless.high - careless.low)


@pytest.mark.parametrize(("difference", "disagreement"), [(0.02, 0.12), (0.05, 0.30), (-0.04, 0.10)])
def test_the_number_of_items_gives_the_promised_power(difference, disagreement):
    n = items_needed(difference, disagreement)
    rng = np.random.default_rng(0)
    share = [(disagreement + difference) / 2, (disagreement - difference) / 2, 1 - disagreement]
    only_a, only_b, _ = rng.multinomial(n, share, size=20_000).T
    z = (only_a - only_b) / np.sqrt(only_a + only_b)
    assert (np.abs(z) > 1.96).mean() == pytest.approx(0.8, abs=0.02)


def test_unpaired_items_give_the_promised_power():
    p, q = 0.76, 0.72
    n = items_needed(p - q, p * (1 - p) + q * (1 - q), paired=False)
    rng = np.random.default_rng(0)
    a, b = rng.binomial(n, p, size=20_000) / n, rng.binomial(n, q, size=20_000) / n
    z = (a - b) / np.sqrt((a * (1 - a) + b * (1 - b)) / n)
    assert (np.abs(z) > 1.96).mean() == pytest.approx(0.8, abs=0.02)


def test_more_power_and_smaller_differences_need_more_items():
    assert items_needed(0.02, 0.1) < items_needed(0.02, 0.1, power=0.9) < items_needed(0.02, 0.1, 0.9, 0.99)
    assert items_needed(0.01, 0.1) / items_needed(0.02, 0.1) == pytest.approx(4, rel=0.02)


def test_one_item_has_no_spread():
    """scipy.stats.bootstrap refuses a single observation; a mean of its own is no interval."""
    assert all(map(math.isnan, bootstrap_interval([1.0])))
    assert all(map(math.isnan, bootstrap_interval([1.0, 0.0], groups=["film", "film"])))
    found = paired_comparison([1.0], [0.0])
    assert (found.difference, found.p_value) == (1.0, 1.0)
    assert math.isnan(found.low)
    assert bootstrap_interval([1.0, 1.0]) == (1.0, 1.0)


def test_the_sign_test_has_no_unit_and_ignores_the_sign_of_zero():
    differences = np.random.default_rng(2).normal(0.3, 1, size=30)
    p = sign_flip_p_value(differences)
    assert sign_flip_p_value(differences * 1e250) == sign_flip_p_value(differences * 1e-250) == p
    assert sign_flip_p_value([*differences, 0.0, -0.0]) == p
    assert sign_flip_p_value([-0.0, 0.0]) == 1.0


def test_groups_may_be_any_names():
    values = [1, 1, 1, 0]
    wanted = bootstrap_interval(values, groups=["a", "a", "a", "b"])
    for groups in (
        (0, 0, 0, 1),
        np.array([3, 3, 3, 7]),
        iter("aaab"),
        [("a", 1)] * 3 + [("b", 0)],
        [1, 1, 1, "1"],
    ):
        assert bootstrap_interval(values, groups=groups) == wanted


@pytest.mark.parametrize("missing", [None, math.nan])
def test_items_without_a_group_are_not_one_group(missing):
    for call in (bootstrap_interval, lambda row, groups: paired_comparison(row, [0, 1], groups=groups)):
        with pytest.raises(ValueError, match=r"groups\[1\] is"):
            call([1.0, 2.0], groups=["a", missing])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap_interval([]), "give one number for each item"),
        (lambda: bootstrap_interval([[1.0]]), "give one number for each item"),
        (lambda: bootstrap_interval([1.0], level=95), "level=95 must lie between 0 and 1"),
        (lambda: bootstrap_interval([1.0, 2.0], groups=["a"]), "1 groups for 2 values"),
        (lambda: paired_comparison([1, 0], [1]), "needs the same items in both"),
        (lambda: items_needed(0, 0.1), "no number of items shows"),
        (lambda: items_needed(0.2, 0.1), "cannot exceed disagreement=0.1"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
