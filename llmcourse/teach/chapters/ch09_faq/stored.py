"""The stored runs of data/scaling, for chapter 9: losses by size, tokens, rate and seed."""

import csv
from collections.abc import Iterable, Mapping
from statistics import mean

from llmcourse.data.manifest import course_data

NUMBERS = ("width", "parameters", "steps", "tokens", "log2_rate", "seed", "bits", "seconds")


def runs(part: str) -> list[dict]:
    """Return the rows of one part of `data/scaling/runs.csv`, numbers as floats, `mup` as a truth value.

    Parts are "rates", "sizes" and "held_back". Raises ValueError for a part that has no rows.
    """
    with (course_data() / "scaling" / "runs.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["part"] == part]
    if not rows:
        raise ValueError(f"part={part!r}: data/scaling/runs.csv has no such rows")
    return [row | {name: float(row[name]) for name in NUMBERS} | {"mup": row["mup"] == "1"} for row in rows]


def predictions() -> list[dict]:
    """Return the rows of `data/scaling/prediction.csv`, written before the held-back size was trained."""
    with (course_data() / "scaling" / "prediction.csv").open(encoding="utf-8", newline="") as file:
        return [{k: v if k == "law" else float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def cells(rows: Iterable[Mapping], *keys: str) -> dict[tuple, list[float]]:
    """Return the bits per byte of the runs of each cell, by the values of `keys`, in order.

    >>> cells([{"width": 64.0, "bits": 3.0}, {"width": 32.0, "bits": 3.5}, {"width": 64.0, "bits": 3.2}], "width")
    {(32.0,): [3.5], (64.0,): [3.0, 3.2]}
    """
    found: dict[tuple, list[float]] = {}
    for row in rows:
        found.setdefault(tuple(row[key] for key in keys), []).append(row["bits"])
    return dict(sorted(found.items()))


def best_rates(rows: Iterable[Mapping], mup: bool) -> dict[float, float]:
    """Return for each width the log2 of the rate with the lowest mean loss over seeds.

    The base, at which both parametrizations are the same, has runs in muP only, and counts for both.
    """
    rows = list(rows)
    base = min(row["width"] for row in rows)
    chosen = [row for row in rows if row["mup"] is mup or row["width"] == base]
    best: dict[float, float] = {}
    means = {key: mean(values) for key, values in cells(chosen, "width", "log2_rate").items()}
    for width, rate in means:
        if width not in best or means[width, rate] < means[width, best[width]]:
            best[width] = rate
    return best
