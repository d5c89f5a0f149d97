"""What the functions that measure accept: rows of numbers, classes, token ids and texts.

A score of broken input looks like any other score. So nothing is guessed here: NaN, infinity, what
is missing, and a text where a number belongs raise ValueError, which names the place.
"""

import numbers
import reprlib
from collections.abc import Iterable

import numpy as np

LARGEST = 1e300  # sums and differences of larger numbers may overflow
ROW = "one number for each item, finite and below 1e300"


def plain(values, name: str = "values") -> list:
    """Return a list, an array, a generator, or a tensor of any precision and device as Python's own objects.

    Raises ValueError for what is no row or has no order: a number, a single text, a set, a dictionary.

    >>> plain(np.array([1, 2])), plain(n > 1 for n in (1, 2))
    ([1, 2], [False, True])
    """
    if hasattr(values, "tolist"):  # numpy, torch, pandas; a masked item becomes None
        values = values.tolist()
    if not isinstance(values, Iterable) or isinstance(values, str | bytes | dict | set | frozenset):
        raise ValueError(
            f"{name} is {reprlib.repr(values)}: give a row, such as a list; a single text is [text]"
        )
    return [item.tolist() if hasattr(item, "tolist") else item for item in values]


def number(value, name: str, low: float = -LARGEST, high: float = LARGEST, wanted="a finite number") -> float:
    """Return `value` as a float. Raises ValueError for NaN, infinity, no number, and one outside low-high.

    >>> number(np.float32(0.5), "share", 0, 1)
    0.5
    """
    value = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(value, numbers.Real) or not low <= value <= high:  # NaN is in no range
        raise ValueError(f"{name} is {reprlib.repr(value)}: give {wanted}")
    return float(value)


def number_row(
    values, name: str = "values", low: float = -LARGEST, high: float = LARGEST, wanted=ROW
) -> np.ndarray:
    """Return a row of numbers, (N,) in float64. Raises ValueError as `plain` and `number` do, and if empty.

    >>> number_row([True, 0.5]).tolist()
    [1.0, 0.5]
    """
    row = plain(values, name)
    if not row:
        raise ValueError(f"{name} is empty: give one number for each item, at least one")
    return np.array([number(item, f"{name}[{i}]", low, high, wanted) for i, item in enumerate(row)])


def whole(value, name: str, least: int = 1) -> int:
    """Return `value` as an int. Raises ValueError for one below `least`, and for what is no whole number.

    >>> whole(3.0, "steps")
    3
    """
    value = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(value, numbers.Real) or not least <= value < 2**63 or value != int(value):
        raise ValueError(f"{name}={reprlib.repr(value)} must be a whole number and at least {least}")
    return int(value)


def class_row(values, name: str = "labels", missing: bool = False) -> list:
    """Return a row of classes: whole numbers, truth values or texts, and None if some may be `missing`.

    Raises ValueError, with the place, for another object, such as a probability or NaN.
    """
    row = plain(values, name)
    for i, item in enumerate(row):
        is_whole = isinstance(item, numbers.Real) and abs(item) <= LARGEST and item == int(item)
        if not (is_whole or isinstance(item, str) or (missing and item is None)):
            raise ValueError(f"{name}[{i}] is {reprlib.repr(item)}: give a class, a whole number or a text")
    return row


def id_row(ids, n: int, name: str = "token_ids", least: int = 0, kind: str = "ids") -> np.ndarray:
    """Return a row of whole numbers from 0 to `n` - 1, such as token ids: (N,) in int64.

    Raises ValueError for fewer than `least` of them, another number, and what is no whole number.
    """
    if hasattr(ids, "detach"):  # a tensor, wherever it lies
        ids = ids.detach().cpu()
    row = ids if hasattr(ids, "dtype") else plain(ids, name)
    try:
        ids = np.asarray(row)
    except ValueError:  # rows of unequal length
        ids = np.asarray(row, dtype=object)
    if ids.ndim != 1 or len(ids) < least:
        raise ValueError(
            f"{name} has the shape {ids.shape}, so it has {len(ids) if ids.ndim == 1 else 'no'} tokens: "
            f"give one row, of at least {least} whole numbers"
        )
    if ids.dtype.kind in "iub":
        inside = (ids >= 0) & (ids < n)
    else:
        inside = np.array([isinstance(item, int) and 0 <= item < n for item in row], dtype=bool)
    if not inside.all():
        i = int(inside.argmin())
        raise ValueError(
            f"{name}[{i}] is {reprlib.repr(plain([row[i]])[0])}: give {kind} from 0 to {n - 1}"
            + (". Is the text from another tokenizer?" if kind == "ids" else "")
        )
    return ids.astype(np.int64)


def text_list(texts, name: str = "texts") -> list[str]:
    """Return a list of texts. Raises ValueError for one text, whose letters would count as texts, and no text."""
    row = plain(texts, name)
    for i, text in enumerate(row):
        if not isinstance(text, str):
            raise ValueError(f"{name}[{i}] is {reprlib.repr(text)}: give a text")
    return row
