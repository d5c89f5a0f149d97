"""The forms of a right answer: each function takes a result as it comes and returns it in one form."""

import contextlib
import decimal
import itertools
import numbers
import reprlib
from collections.abc import Callable, Iterable, Mapping, Set

import numpy as np
import torch

from llmcourse.teach.exercises import NotRight

MOST = 100_000  # entries that are taken from something that may have no end
VIEWS = type({}.keys()), type({}.items())  # sets by their type, but in order


class _Coarse(float):
    """A number that came in 16 bits, right to `precision` of its size."""

    precision = 0.0


def shown(value) -> str:
    """Return a value as a short text for a sentence; tensors and arrays by their shape.

    >>> shown(torch.zeros(2, 3)), shown([1, 2])
    ('a tensor of the shape (2, 3)', '[1, 2]')
    """
    if isinstance(value, torch.Tensor | np.ndarray) and value.ndim:
        return f"{'a tensor' if isinstance(value, torch.Tensor) else 'an array'} of the shape {tuple(value.shape)}"
    if callable(value):
        return "a function"
    try:
        return reprlib.repr(value)
    except Exception:  # a number of 5,000 digits, or an object that cannot show itself
        return f"a value of the type {type(value).__name__}"


def _refuse_pairs(value) -> None:
    """Raise NotRight for what torch's max, sort and others return when they are given a dimension."""
    if type(value).__module__ == "torch.return_types":
        names = " or ".join(f".{name}" for name in type(value).__match_args__)
        raise NotRight(f"torch's {type(value).__name__} returns several tensors: take one of them, {names}")


def number(value, finite: bool = True) -> int | float:
    """Return `value` as a Python number; numpy scalars and tensors with one entry will do.

    Raises NotRight for anything else, such as a text or True, and for nan and infinity unless
    `finite` is False.

    >>> number(np.int64(16)), number(torch.tensor([0.5]))
    (16, 0.5)
    """
    if callable(value):
        raise NotRight("give a number, not a function: call the function, and give what it returns")
    _refuse_pairs(value)
    plain = value
    if isinstance(value, np.generic | np.ndarray | torch.Tensor) and np.prod(value.shape) == 1:
        plain = value.item()
    if isinstance(plain, decimal.Decimal | numbers.Real) and not isinstance(plain, int | float):
        plain = float(plain)  # a fraction, or another library's number
    if isinstance(plain, bool) or not isinstance(plain, int | float):
        raise NotRight(f"give a number, not {shown(value)}")
    if isinstance(plain, int) and plain.bit_length() > 1000:
        raise NotRight("give a number of ordinary size: yours has more than 300 digits")
    if finite and plain != plain:
        raise NotRight(
            "the result is nan, not a number: it comes from 0/0, inf - inf, or a log or root below 0"
        )
    if finite and abs(plain) == float("inf"):
        raise NotRight(
            "the result is infinite: look for a division by 0, the log of 0, or exp of a large number"
        )
    if isinstance(plain, float) and (precision := _precision(value)):
        plain = _Coarse(plain)
        plain.precision = precision
    return plain


def _precision(value) -> float:
    """Return the relative step of a 16-bit format that the value has or had, and 0 for any other."""
    if known := getattr(value, "precision", 0.0):
        return known
    dtype = getattr(value, "dtype", None)
    if dtype in (torch.bfloat16, torch.float16):
        return torch.finfo(dtype).eps
    return 2.0**-10 if isinstance(value, np.generic | np.ndarray) and dtype == np.float16 else 0.0


def tensor(value) -> torch.Tensor:
    """Return `value` as a new float32 tensor without a graph; arrays, nested lists and iterators will do.

    Raises NotRight for anything else.

    >>> tensor([[1, 2], [3, 4]]).shape
    torch.Size([2, 2])
    """
    _refuse_pairs(value)
    precision = _precision(value)
    value = _listed(value, deep=True)
    if isinstance(value, Set):
        raise NotRight("return a tensor or a list, not a set, which has no order")
    if isinstance(value, list) and any(isinstance(x, torch.Tensor) for x in value):
        kinds = [getattr(x, "dtype", None) for x in value]
        if len(kinds) == 2 and kinds[1] == torch.long != kinds[0]:
            raise NotRight("return one tensor, not a pair of values and indices: take one of the two")
        raise NotRight("return one tensor, not several: torch.stack or torch.cat joins them")
    try:
        result = _as_tensor(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise NotRight(f"return a tensor, not {shown(value)}") from None
    if precision:
        result.precision = precision
    return result


def _as_tensor(value) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        if value.is_complex():
            raise NotRight("return real numbers, not complex ones")
        value = value.to_dense() if value.layout != torch.strided else value
        return value.detach().cpu().to(torch.float32, copy=True)
    array = np.asarray(value)
    if array.dtype.kind == "c":
        raise NotRight("return real numbers, not complex ones")
    if array.dtype.kind == "O" and not all(isinstance(x, decimal.Decimal | numbers.Real) for x in array.flat):
        raise TypeError(array.dtype)
    if array.dtype.kind not in "biufO":
        raise TypeError(array.dtype)
    with np.errstate(over="ignore"):  # what is too large for float32 is infinite
        return torch.tensor(array.astype(np.float64).astype(np.float32))


def _listed(value, deep: bool):
    """Return an ordered collection or iterator as a list, if `deep` also what is in it; else `value`."""
    if isinstance(value, str | bytes | Mapping) or (isinstance(value, Set) and not isinstance(value, VIEWS)):
        return value
    if hasattr(value, "__array__") or not isinstance(value, Iterable):
        return value
    value = list(itertools.islice(value, MOST))
    return [_entry(x) for x in value] if deep else value


def _entry(value):
    if isinstance(value, torch.Tensor):
        return value.item() if value.numel() == 1 else value
    return value.tolist() if isinstance(value, np.ndarray) else _listed(value, deep=True)


def items(value, length: int | None = None, what: str = "values", which: str = "") -> list:
    """Return an ordered collection as a list: a tuple, a tensor's or array's rows, an iterator, a view.

    Raises NotRight for a text, a dictionary, a set, a single thing, or another length than `length`;
    `what` and `which` say in the sentence what is wanted.

    >>> items(x for x in "ab"), items(torch.tensor([1, 2]), 2)
    (['a', 'b'], [tensor(1), tensor(2)])
    """
    wanted = f"return {'two' if length == 2 else length or 'a list of'} {what}"
    which = f": {which}" if which else ""
    _refuse_pairs(value)
    value = _listed(value, deep=False)
    if hasattr(value, "__array__") and not isinstance(value, np.generic | np.ndarray | torch.Tensor):
        with contextlib.suppress(Exception):  # it may be anything
            value = np.asarray(value)  # another library's column
    if isinstance(value, np.ndarray | torch.Tensor) and value.ndim:
        value = list(value)
    if not isinstance(value, list):
        raise NotRight(f"{wanted}, not {shown(value)}{which}")
    if length is not None and len(value) != length:
        raise NotRight(f"{wanted}, not {len(value)}{which}")
    return value


def several(form: Callable, length: int | None = None, what: str = "values", which: str = "") -> Callable:
    """Return a form: a list of `length` items that each have the form `form`.

    >>> several(number, 2)((np.float64(1.5), torch.tensor(2)))
    [1.5, 2]
    """
    return lambda value: [form(x) for x in items(value, length, what, which)]


def truth(value) -> bool:
    """Return True or False, also numpy's and torch's; raises NotRight for anything else, such as 1.

    >>> truth(torch.tensor(True))
    True
    """
    _refuse_pairs(value)
    if isinstance(value, np.generic | np.ndarray | torch.Tensor) and np.prod(value.shape) == 1:
        value = value.item()
    if not isinstance(value, bool):
        raise NotRight(f"return True or False, not {shown(value)}")
    return value


def text(value, what: str = "a text in quotation marks") -> str:
    """Return a text; raises NotRight, which asks for `what`, for anything else.

    >>> text(np.str_("to be"))
    'to be'
    """
    value = value.item() if isinstance(value, np.ndarray) and value.ndim == 0 else value
    if not isinstance(value, str):
        raise NotRight(f"give {what}, not {shown(value)}")
    return str(value)


def by_name(value, names: tuple[str, ...], example: str) -> dict:
    """Return a dictionary from names to values; pairs, or as many values as names in order, will do.

    Raises NotRight, which shows an `example` of a value, for anything else.

    >>> by_name(["x", "y"], ("A", "B"), "z"), by_name({" a": "x"}, ("A", "B"), "z")
    ({'A': 'x', 'B': 'y'}, {'A': 'x'})
    """
    if not isinstance(value, Mapping):
        words = isinstance(value, np.ndarray) and value.dtype.kind in "UO"
        value = value.tolist() if words else _listed(value, deep=False)
        is_list = isinstance(value, list)
        if is_list and value and all(isinstance(x, list | tuple) and len(x) == 2 for x in value):
            value = dict(value)
        elif is_list and len(value) == len(names):
            value = dict(zip(names, value, strict=True))
        else:
            such = f'{{"{names[0]}": "{example}", ...}}'
            raise NotRight(f"give a dictionary with the letters {', '.join(names)}, such as {such}")
    return {str(key).strip().upper(): x for key, x in value.items()}
