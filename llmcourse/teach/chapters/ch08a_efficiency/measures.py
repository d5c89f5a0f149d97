"""What chapter 8a reads from data/compression, and how it compares methods over seeds."""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import mean, stdev

from llmcourse.data.manifest import course_data

NUMBERS = ("seed", "steps", "bytes", "held_out", "training", "kl")


def stored(name: str) -> list[dict]:
    """Return the rows of data/compression/`name`.csv, numbers as numbers; an empty field is None."""
    with (course_data() / "compression" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row |= {key: float(row[key]) if row[key] else None for key in NUMBERS if key in row}
    return rows


def select(rows: Iterable[Mapping], **wanted) -> list[Mapping]:
    """Return the rows that have all these values.

    >>> select([{"method": "gptq", "seed": 0.0}, {"method": "qat", "seed": 0.0}], method="qat")
    [{'method': 'qat', 'seed': 0.0}]
    """
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]
