"""Compare an answer with what is right, and name the slip that explains all that it returned.

One value may have several causes: 4 d_model parameters too few are two norms or four biases. So a
slip is a function, like the answer, and it is named only if it agrees with the answer in every case.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from llmcourse.teach.exercises import NotRight

ROUNDED = "that is rounded; return all digits"


def close(value, other, rtol: float = 1e-5, atol: float = 1e-6) -> bool:
    """Return whether two numbers, texts, tensors, or lists of them are equal, to the precision of `value`.

    >>> close(0.3333333, 1 / 3), close(torch.zeros(2), torch.zeros(3)), close([1, 2], [1, 3])
    (True, False, False)
    """
    if isinstance(value, list | tuple) and isinstance(other, list | tuple):
        pairs = zip(value, other, strict=False)
        return len(value) == len(other) and all(close(a, b, rtol, atol) for a, b in pairs)
    if not isinstance(value, Tensor | float | int) or isinstance(value, bool) or other is None:
        return type(value) is type(other) and value == other
    rtol = max(rtol, getattr(value, "precision", 0.0))
    a, b = (torch.as_tensor(x).detach().double() for x in (value, other))
    return a.shape == b.shape and torch.allclose(a, b, rtol=rtol, atol=atol, equal_nan=True)


def compare(value, right, slips: Mapping[str, object], otherwise: str, rtol=1e-5, atol=1e-6) -> None:
    """Raise NotRight unless `value` is close to `right`: with the sentence of the slip that it is, or `otherwise`.

    `slips` maps a sentence to the wrong value, or to a tuple of several.
    """
    if close(value, right, rtol, atol):
        return
    for sentence, wrong in slips.items():
        if any(close(value, w, rtol, atol) for w in (wrong if isinstance(wrong, tuple) else (wrong,))):
            raise NotRight(sentence)
    raise NotRight(_filled(otherwise, value, right))


def examine(
    answer: Callable,
    right: Callable,
    cases: Mapping[str, tuple],
    slips: Mapping[str, Callable | tuple[Callable, ...]] | None = None,
    shape: str = "",
    look: Callable | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-6,
) -> None:
    """Raise NotRight unless `answer` agrees with `right` in all cases.

    `cases` maps a sentence to arguments. It is what the learner reads if this case is the first
    that differs and nothing explains it; {value}, {right} and {difference} are filled in.
    `slips` maps a sentence to one or more wrong functions of the same arguments; it is read if one of
    them agrees with the answer in all cases. `shape` says what the shape should be, such as "(B, T, C)".
    `look(value, *arguments)` returns what is seen in a wrong value that no slip explains, or None.
    """

    def named(seen):
        """Return the sentences of all slips that agree with what was seen."""
        return [
            sentence
            for sentence, wrong in (slips or {}).items()
            if any(
                all(close(value, _tried(function, case), rtol, atol) for case, value in seen)
                for function in (wrong if isinstance(wrong, tuple) else (wrong,))
            )
        ]

    for sentence, arguments in cases.items():
        value, wanted = answer(*arguments), right(*arguments)
        if close(value, wanted, rtol, atol):
            continue
        other_shape = _shape(value, wanted, shape)
        rest = [(c, _tried(answer, c)) for c in cases.values() if c is not arguments]
        seen = [(arguments, value)] + [pair for pair in rest if pair[1] is not None]
        if (len(seen) > 1 or not rest) and (said := named(seen)):
            raise NotRight(f"{said[0]} ({other_shape})" if other_shape else said[0])
        remark = _remark(seen, right)
        if said := other_shape or (look and remark != ROUNDED and look(value, *arguments)):
            raise NotRight(said)
        # A slip that explains the first, plain case alone is a guess; the others have a point of their own.
        plain = arguments is next(iter(cases.values())) and not remark
        if plain and len(said := named(seen[:1])) == 1:
            raise NotRight(f"perhaps {said[0][0].lower()}{said[0][1:]}")
        said = _filled(sentence, value, wanted)
        raise NotRight(f"{said.rstrip('.')}: {remark}" if remark else said)


def _tried(function: Callable, arguments: tuple):
    """Return the result, or None if there is none: what happens in the first wrong case is told first."""
    try:
        return function(*arguments)
    except Exception:
        return None


def _shape(value, wanted, meaning: str) -> str | None:
    if not isinstance(value, Tensor) or value.shape == wanted.shape:
        return None
    expected = f"{meaning}, here {tuple(wanted.shape)}" if meaning else tuple(wanted.shape)
    return f"the shape should be {expected}; yours is {tuple(value.shape)}"


def _remark(seen: list, right: Callable) -> str | None:
    """Return what can be seen without knowing the exercise: nan, rounding, a sign, a shift, one factor."""
    try:
        pairs = [[torch.as_tensor(x).double() for x in (value, right(*case))] for case, value in seen]
    except (TypeError, ValueError, RuntimeError):  # texts, or lists of tensors
        return None
    value, wanted = pairs[0]
    if not value.isfinite().all() and wanted.isfinite().all():
        what = "nan" if value.isnan().any() else "infinite values"
        return f"your result holds {what}; look for 0/0, inf - inf, the log of 0, or exp of a large number"
    if any(v.shape != r.shape for v, r in pairs):
        return None
    alike = [all(close(x, pairs[0][i]) for x in column) for i, column in enumerate(zip(*pairs, strict=True))]
    if alike == [True, False]:
        return "you return the same for every input; use what the function is given"
    near = (value - wanted).abs().max() <= 0.1 * wanted.abs().max()
    if near and any(all(close(v, r.round(decimals=d)) for v, r in pairs) for d in range(1, 6)):
        return ROUNDED
    if all(close(v, -r) for v, r in pairs):
        return "the sign is wrong"
    for d in range(wanted.ndim):
        for step in (1, -1):
            if all(r.ndim > d and close(v, r.roll(step, d)) for v, r in pairs):
                return f"the right values stand one place too far along dimension {d}"
    factors = torch.cat([(v / r).flatten()[r.flatten() != 0] for v, r in pairs])
    if len(factors) > 1 and factors.isfinite().all() and factors.any():
        factor = factors[0].item()
        if all(close(v, factor * r, 1e-4) for v, r in pairs):  # where 0 is right as well
            return f"yours is {factor:.4g} times what is right, in every example"
    return None


def _filled(sentence: str, value, wanted) -> str:
    digits = next((d for d in range(4, 16) if _text(value, d) != _text(wanted, d)), 16)
    parts = {"{value}": _text(value, digits), "{right}": _text(wanted, digits)}
    if "{difference}" in sentence:
        parts["{difference}"] = _text(value - wanted, digits)
    for name, text in parts.items():
        sentence = sentence.replace(name, text)
    return sentence


def _text(value, digits: int) -> str:
    """Return numbers with `digits` digits, whole ones in full; short tensors as lists."""
    if isinstance(value, Tensor):
        value = value.tolist() if value.numel() <= 8 else f"a tensor of the shape {tuple(value.shape)}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_text(x, digits) for x in value[:8])}{', ...' if len(value) > 8 else ''}]"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if not abs(value) < 1e15:  # nan and infinity too
        return f"{value:.{digits}g}"
    if value == int(value):
        return f"{int(value):,}" if abs(value) >= 10_000 else str(int(value))
    return f"{value:,.{max(digits, len(str(int(abs(value)))) + 1)}g}"


class Calls(TorchFunctionMode):
    """Records which of torch's functions are called, under whichever name they were imported.

    >>> with Calls() as calls:
    ...     _ = torch.zeros(2, 3).softmax(-1)
    >>> [result.shape for _, result in calls.to(Tensor.softmax)]
    [torch.Size([2, 3])]
    """

    def __init__(self):
        super().__init__()
        self.seen: list = []  # (function, arguments, result)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.seen.append((func, args, result))
        return result

    def to(self, *functions) -> list:
        """Return (arguments, result) of each call to one of the functions."""
        return [(args, result) for func, args, result in self.seen if func in functions]
