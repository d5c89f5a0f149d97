"""Stored runs of several seeds: which method is better than another, by more than seeds differ.

A run is a row, such as one of a CSV: a mapping with its "seed", what was done, and what was measured.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import mean, stdev
from typing import NamedTuple

from scipy.stats import t as student_t

from llmcourse.support.inputs import number, number_row


class Difference(NamedTuple):
    """What one method has more than another, seed by seed: the mean, ± half a 95 % interval, and a p-value."""

    mean: float
    half: float
    p_value: float
    n: int

    def __str__(self) -> str:
        """
        >>> print(Difference(-0.0123, 0.004, 0.0005, 5))
        -0.012 ± 0.004, p < 0.001, 5 seeds
        """
        p = "p < 0.001" if self.p_value < 0.001 else f"p = {self.p_value:.3f}"
        return f"{self.mean:+.3f} ± {self.half:.3f}, {p}, {self.n} seeds"


def select(rows: Iterable[Mapping], **wanted) -> list[Mapping]:
    """Return the rows that have all these values.

    >>> select([{"method": "gptq", "seed": 0.0}, {"method": "qat", "seed": 0.0}], method="qat")
    [{'method': 'qat', 'seed': 0.0}]
    """
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def paired(one: Iterable[Mapping], other: Iterable[Mapping], column: str) -> Difference:
    """Return by how much `one` exceeds `other` in a column, over the seeds that both have.

    The interval and the two-sided p-value are Student's, for pairs of runs with the same seed; a single
    run without a seed, such as rounding, is paired with each of the other's. Where all gaps are the same,
    Student's knows no spread: p is then that of flipping the signs of gaps, 2 / 2^n. Raises ValueError for fewer
    than two pairs, a seed that comes twice in one of them, and a number that is not finite.

    >>> a, b = ([{"seed": s, "kl": k} for s, k in enumerate(ks)] for ks in ((0.1, 0.2, 0.3), (0.1, 0.1, 0.1)))
    >>> print(paired(a, b, "kl"))
    +0.100 ± 0.248, p = 0.225, 3 seeds
    """
    scores = [_by_seed(list(rows), column) for rows in (one, other)]
    if len(scores[1]) == 1 < len(scores[0]):
        scores[1] = dict.fromkeys(scores[0], *scores[1].values())
    gaps = [scores[0][seed] - scores[1][seed] for seed in scores[0].keys() & scores[1].keys()]
    if len(gaps) < 2:
        raise ValueError(f"{len(gaps)} seeds in both: at least two are needed to say how far seeds differ")
    gap, error, n = mean(gaps), stdev(gaps) / math.sqrt(len(gaps)), len(gaps)
    half = float(student_t.ppf(0.975, n - 1)) * error
    if error > 1e-12 * abs(gap):
        p = 2 * float(student_t.sf(abs(gap) / error, n - 1))
    else:  # no spread, but for rounding
        p = 2.0 / 2**n if gap else 1.0
    return Difference(gap, half, p, n)


def _by_seed(rows: list[Mapping], column: str) -> dict:
    """Return seed -> value. Two runs of a seed are two kinds of runs: one of them would be lost unseen."""
    scores = {row["seed"]: number(row[column], f"{column} of seed {row['seed']}") for row in rows}
    if len(scores) < len(rows):
        raise ValueError(f"{len(rows)} rows have {len(scores)} seeds: select one run of each seed first")
    return scores


def summary(values: Sequence[float], unit: str = "") -> str:
    """Return the mean of the values of several seeds and half of Student's 95 % interval, as a text.

    >>> summary([50.0, 54.0, 58.0], " %"), summary([61.3])
    ('54 % ± 10 %, 3 seeds', '61')
    """
    values = number_row(values).tolist()
    if len(values) == 1:
        return f"{values[0]:.0f}{unit}"
    half = float(student_t.ppf(0.975, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
    return f"{mean(values):.0f}{unit} ± {half:.0f}{unit}, {len(values)} seeds"
