"""What chapter 8c shows of runs that nobody should wait for: tables of data/memorization and data/safety."""

import csv
from collections.abc import Iterable, Mapping
from statistics import mean

from llmcourse.data.manifest import course_data
from llmcourse.safety.filters import Share


def table(folder: str, name: str) -> list[dict[str, str]]:
    """Return the rows of data/`folder`/`name`.csv, every value as the text that is stored."""
    with (course_data() / folder / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def select(rows: Iterable[Mapping], **wanted) -> list[Mapping]:
    """Return the rows that have all these values; numbers are compared as texts.

    >>> select([{"arm": "plain", "seed": "1"}, {"arm": "before", "seed": "1"}], arm="plain", seed=1)
    [{'arm': 'plain', 'seed': '1'}]
    """
    return [row for row in rows if all(row[key] == str(value) for key, value in wanted.items())]


def exposure_curve(rows: Iterable[Mapping], run: str, start: str) -> dict[int, list[float]]:
    """Return {number of copies: [mean exposure of the canaries of each seed]} of one kind of run.

    >>> rows = [dict(run="plain", start="random", seed="0", times="4", exposure=e) for e in ("3.0", "5.0")]
    >>> exposure_curve(rows, "plain", "random")
    {4: [4.0]}
    """
    bits: dict[int, dict[str, list[float]]] = {}
    for row in select(rows, run=run, start=start):
        by_seed = bits.setdefault(int(row["times"]), {})
        by_seed.setdefault(row["seed"], []).append(float(row["exposure"]))
    return {times: [mean(values) for values in by_seed.values()] for times, by_seed in bits.items()}


def share(rows: Iterable[Mapping], hits: str, of: str = "n") -> Share:
    """Return the sum of the column `hits` in the sum of `of`, as a share with its interval.

    >>> str(share([{"out": "3", "n": "10"}, {"out": "4", "n": "10"}], "out"))
    '35% (18% to 57%)'
    """
    rows = list(rows)
    return Share(sum(int(row[hits]) for row in rows), sum(int(row[of]) for row in rows))


def interval(found: Share) -> tuple[float, float, float]:
    """Return (value, low, high) of a share, as the figures take it.

    >>> interval(Share(1, 2))[0]
    0.5
    """
    return (found.value, *found.interval)
