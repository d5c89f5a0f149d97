"""Training, validation and test rows: what belongs together lies on one side.

The hash of a group's name, or of the text, decides. So no seed is needed, and a row stays on its side
when the table grows: a test set stays unseen from one version of a table to the next.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from llmcourse.finetune.table.columns import Table, same_text
from llmcourse.finetune.table.read import TableError, counted

VALIDATION, TEST = 0.1, 0.2  # the shares, about
FEW_UNITS = 10  # groups or texts in a test, below which an interval says little
MOST_SALTS = 200


@dataclass(frozen=True)
class Split:
    """Numbers of rows: `train`, `validation`, `test`, and `left_out` of the first two.

    Left out are rows, of groups of their own, whose text stands in the test too, or, of training rows,
    in the validation. `salt` is what was hashed before each name ("" where the first try did).
    """

    train: list[int]
    validation: list[int]
    test: list[int]
    left_out: list[int]
    salt: str


def place_of(key: str, salt: str = "") -> float:
    """Return the place of a name between 0 and 1: the first six bytes of its sha256.

    >>> round(place_of("Norbit"), 3)
    0.385
    """
    digest = hashlib.sha256((salt + key).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def units_of(table: Table) -> list[str]:
    """Return what stays together, for each row: its group, or what its text shares with its copies."""
    return table.groups or [same_text(text) for text in table.texts]


def split_table(table: Table) -> Split:
    """Return a split in which each class has rows on all three sides, and the test two groups or texts or more.

    Where the table has groups, all rows of a group are on one side, and rows of other sides that repeat
    a text of the test are left out. Else all rows of a text are. Raises TableError for a class that
    lies in fewer than three groups or texts, and where no split of this kind is found.

    >>> table = Table("t", list("abcdefgh") * 5, ["x", "y"] * 20, None, [0] * 40, ["x", "y"], {}, [])
    >>> split = split_table(table)
    >>> {table.texts[i] for i in split.test} & {table.texts[i] for i in split.train}
    set()
    """
    keys = units_of(table)
    kind = "groups" if table.groups else "texts"
    for name in table.classes:
        n = len({key for key, label in zip(keys, table.labels, strict=True) if label == name})
        if n < 3:
            raise TableError(
                f"{table.name}: the class {name!r} lies in {n} of the {kind} only; at least 3 are needed, for "
                "training, validation and test: add rows, or remove the class"
            )
    for salt in ("", *map(str, range(1, MOST_SALTS))):
        split = _split(table, keys, salt)
        if len({keys[i] for i in split.test}) > 1 and all(
            {table.labels[i] for i in part} == set(table.classes)
            for part in (split.train, split.validation, split.test)
        ):
            return split
    raise TableError(
        f"{table.name}: no split of {counted(len(set(keys)), kind[:-1])} was found in which each of the "
        f"{len(table.classes)} classes is on all three sides, and two {kind} or more in the test: add {kind} or "
        "rows of the rare classes, or join some classes"
    )


def _split(table: Table, keys: Sequence[str], salt: str) -> Split:
    sides = ([], [], [])
    for i, key in enumerate(keys):
        place = place_of(key, salt)
        sides[2 if place < TEST else 1 if place < TEST + VALIDATION else 0].append(i)
    train, validation, test = sides
    if not table.groups:
        return Split(train, validation, test, [], salt)
    texts = [same_text(text) for text in table.texts]
    tested = {texts[i] for i in test}
    checked = tested | {texts[i] for i in validation}
    kept = [i for i in train if texts[i] not in checked], [i for i in validation if texts[i] not in tested]
    left_out = sorted({*train, *validation} - {*kept[0], *kept[1]})
    return Split(*kept, test, left_out, salt)
