"""Is this difference real? Intervals by the bootstrap, a paired test, and how many items it needs.

Dimensions: N items, R resamples.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from llmcourse.support.inputs import number, number_row, plain, whole

MAX_CELLS = 2_000_000  # resamples are drawn in blocks of at most this many numbers


@dataclass(frozen=True)
class Comparison:
    """What `paired_comparison` found: mean(a) - mean(b), its interval, and the p-value."""

    difference: float
    low: float
    high: float
    p_value: float


def bootstrap_means(values, n_resamples: int = 2000, seed: int = 0, groups=None) -> np.ndarray:
    """Return (R,) means of resamples: N items drawn from the N values, with replacement.

    With `groups` (N,), whole groups are drawn: for items that belong together, such as reviews of
    one film. Raises ValueError for no values, NaN or infinity among them (its message names the
    place), and for groups that are missing or of another length.

    Source: Efron 1979; for groups, Miller 2024, arXiv:2411.00640.
    """
    values, n_resamples = number_row(values), whole(n_resamples, "n_resamples")
    sums, sizes = values, np.ones(len(values))
    if groups is not None:
        index = _group_numbers(groups, len(values))
        sums, sizes = np.bincount(index, weights=values), np.bincount(index).astype(float)
    rng, means, block = np.random.default_rng(seed), [], max(1, MAX_CELLS // len(sums))
    for start in range(0, n_resamples, block):
        drawn = rng.integers(len(sums), size=(min(block, n_resamples - start), len(sums)))
        means.append(sums[drawn].sum(1) / sizes[drawn].sum(1))
    return np.concatenate(means)


def bootstrap_interval(
    values, level: float = 0.95, n_resamples: int = 2000, seed: int = 0, groups=None
) -> tuple[float, float]:
    """Return (low, high): the middle `level` of the means of resamples, an interval for the mean.

    A single item, or a single group, says nothing about how far another would lie: (nan, nan).

    >>> low, high = bootstrap_interval([0, 1] * 200)
    >>> round(low, 2), round(high, 2)
    (0.45, 0.55)

    Raises ValueError as `bootstrap_means` does, and for a level outside (0, 1).
    """
    _check_share(level, "level")
    values, groups = number_row(values), None if groups is None else plain(groups, "groups")
    means = bootstrap_means(values, n_resamples, seed, groups)
    if len(values if groups is None else set(groups)) < 2:
        return math.nan, math.nan
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def wilson_interval(hits: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return (low, high), an interval for a share of which `hits` of `n` were seen.

    It lies within 0 to 1 and has a width where none or all were seen, which the bootstrap's has not.
    Raises ValueError for no items, more hits than items, and a level outside (0, 1).

    >>> [round(end, 3) for end in wilson_interval(0, 20)]
    [0.0, 0.161]

    Source: Wilson 1927, J. Am. Stat. Assoc. 22.
    """
    n, hits = whole(n, "n"), whole(hits, "hits", least=0)
    if hits > n:
        raise ValueError(f"hits={hits} of n={n}: there cannot be more hits than items")
    _check_share(level, "level")
    z = NormalDist().inv_cdf((1 + level) / 2)
    middle, half = hits + z**2 / 2, z * math.sqrt(hits * (n - hits) / n + z**2 / 4)
    return max(0.0, (middle - half) / (n + z**2)), min(1.0, (middle + half) / (n + z**2))


def sign_flip_p_value(differences, n_resamples: int = 10_000, seed: int = 0) -> float:
    """Return how often random signs give a mean at least as far from 0: the paired permutation test.

    If two models were equally good, each difference could as well have the other sign. Two-sided.
    The observed case counts too, so the smallest possible value is 1 / (R + 1). Raises ValueError
    for no differences, NaN and infinity: no resample is ever "as far" as NaN.

    Source: Fisher 1935; Phipson & Smyth 2010 for the +1.
    """
    differences, n_resamples = number_row(differences, "differences"), whole(n_resamples, "n_resamples")
    differences = differences[differences != 0]  # a zero has no sign to flip
    if not len(differences):
        return 1.0
    observed = abs(differences.sum()) * (1 - 1e-12)  # sums in another order differ in the last bit
    rng, extreme, block = np.random.default_rng(seed), 0, max(1, MAX_CELLS // len(differences))
    for start in range(0, n_resamples, block):
        shape = (min(block, n_resamples - start), len(differences))
        signs = rng.integers(2, size=shape, dtype=np.int8) * 2.0 - 1.0
        extreme += int((np.abs(signs @ differences) >= observed).sum())
    return (extreme + 1) / (n_resamples + 1)


def paired_comparison(a, b, level: float = 0.95, seed: int = 0, groups=None) -> Comparison:
    """Compare two models on the same items: interval of mean(a - b), and the sign-flip p-value.

    `a` and `b` (N,) are the scores of the same items in the same order: 0 or 1, or losses. With
    `groups`, both the interval and the test take whole groups.

    >>> paired_comparison([1] * 50, [1] * 30 + [0] * 20).difference
    0.4

    Raises ValueError when the rows differ in length or are empty, and for NaN or infinity in them.
    """
    a, b = number_row(a, "a"), number_row(b, "b")
    if a.shape != b.shape:
        raise ValueError(f"{a.shape} and {b.shape}: a paired comparison needs the same items in both")
    units = difference = a - b
    if groups is not None:
        groups = _group_numbers(groups, len(difference))
        units = np.bincount(groups, weights=difference)
    low, high = bootstrap_interval(difference, level, seed=seed, groups=groups)
    return Comparison(float(difference.mean()), low, high, sign_flip_p_value(units, seed=seed))


def items_needed(
    difference: float, disagreement: float, power: float = 0.8, level: float = 0.95, paired: bool = True
) -> int:
    """Return how many items show a true difference in accuracy with probability `power`.

    Paired: `disagreement` is the share of items on which exactly one of the two models is right.
    Unpaired (each model on items of its own): it is the sum of the two variances p (1 - p).
    Raises ValueError for a difference of 0, or one larger than the paired disagreement allows, and
    for shares that are none.

    >>> items_needed(0.02, disagreement=0.10), items_needed(0.02, disagreement=0.375, paired=False)
    (1960, 7359)

    Source: Connor 1987, Biometrics 43, eq. 1, without its correction for small N.
    """
    difference = abs(number(difference, "difference", -1, 1, "a difference of two shares, from -1 to 1"))
    disagreement = number(disagreement, "disagreement", 0, 1, "a number from 0 to 1")
    _check_share(level, "level")
    _check_share(power, "power")
    if difference == 0:
        raise ValueError("difference=0: no number of items shows a difference that is not there")
    if paired and difference > disagreement:
        raise ValueError(
            f"difference={difference} cannot exceed disagreement={disagreement}: it is the share of "
            "items that only one model solves, minus the share that only the other solves"
        )
    z_level, z_power = NormalDist().inv_cdf((1 + level) / 2), NormalDist().inv_cdf(power)
    under_truth = disagreement - difference**2 if paired else disagreement
    root = z_level * disagreement**0.5 + z_power * under_truth**0.5
    return max(1, math.ceil((max(0.0, root) / difference) ** 2))


def _check_share(value, name: str) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name}={value} must lie between 0 and 1, such as 0.95")


def _group_numbers(groups, n: int) -> np.ndarray:
    """Return (N,): a number for the group of each item, in the order of their names."""
    groups = plain(groups, "groups")
    if len(groups) != n:
        raise ValueError(f"{len(groups)} groups for {n} values: give one for each")
    for i, group in enumerate(groups):
        if group is None or group != group:  # NaN, which would be one group of all that are missing
            raise ValueError(f"groups[{i}] is {group}: name the group of each item")
    names = sorted(set(groups), key=lambda name: (type(name).__name__, name))
    places = {name: i for i, name in enumerate(names)}
    return np.array([places[group] for group in groups])
