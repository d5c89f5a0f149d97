"""What chapter 8b reads of runs that nobody should wait for, and how it counts names.

Dimensions: N tokens, C width, U units.
"""

import csv
from collections.abc import Mapping, Sequence

from torch import Tensor

from llmcourse.data.manifest import course_data
from llmcourse.interpret.dictionary import SparseAutoencoder
from llmcourse.interpret.naming import (
    Named,
    name_units,
    rule_table,
    strongly_active,
    structure_rules,
    token_rules,
)


def table(folder: str, name: str) -> list[dict[str, str]]:
    """Return the rows of data/`folder`/`name`.csv; the folder's card says which script made it."""
    path = course_data() / folder / f"{name}.csv"
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def column(rows: Sequence[Mapping[str, str]], name: str, **where: str) -> list[float]:
    """Return the numbers of a column, of those rows whose other columns have the values `where`.

    >>> column([{"seed": "1", "loss": "2.5"}, {"seed": "2", "loss": "3"}], "loss", seed="2")
    [3.0]
    """
    return [float(row[name]) for row in rows if all(row[key] == value for key, value in where.items())]


def name_everything(
    coders: Mapping[str, SparseAutoencoder], states: Sequence[Tensor], pieces: Sequence[Sequence[str]]
) -> dict[str, list[Named]]:
    """Return the best rule of each unit of each coder: chosen on the first text, checked on the second.

    `states` are two tensors (N, C), `pieces` the texts of their tokens.
    """
    names = [*structure_rules(pieces[0]), *token_rules(pieces[0])]
    rules = [rule_table(text, names) for text in pieces]
    found = {}
    for name, coder in coders.items():
        codes = [coder.encode(x) for x in states]  # (N, U) each
        active = [strongly_active(x, codes[0]) for x in codes]
        found[name] = name_units(active[0], rules[0], active[1], rules[1], names)
    return found
