"""Check an answer, and say in one sentence what was found: offline and without raising."""

import functools
import json
import os
import reprlib
from pathlib import Path

import numpy as np
import torch

from llmcourse.runtime import current_scale
from llmcourse.teach.exercises import NotRight, get_exercise
from llmcourse.teach.progress import record


class _NotYet(Exception):  # noqa: N818 - a function that returns nothing is still to be written
    pass


def _watched(function):
    """Return `function`, which then says _NotYet for None or `...`; numpy's numbers become Python's."""

    @functools.wraps(function)
    def call(*arguments, **options):
        result = function(*arguments, **options)
        if result is None or result is ...:
            raise _NotYet
        return result.item() if isinstance(result, np.generic) else result

    return call


def number(value) -> int | float:
    """Return `value` as a Python number; numpy scalars and tensors with one entry will do.

    Raises NotRight for anything else, such as a text or True.

    >>> number(np.int64(16)), number(torch.tensor([0.5]))
    (16, 0.5)
    """
    if callable(value):
        raise NotRight("give a number, not a function: call the function, and give what it returns")
    plain = value
    if isinstance(value, np.generic | np.ndarray | torch.Tensor) and np.prod(value.shape) == 1:
        plain = value.item()
    if isinstance(plain, bool) or not isinstance(plain, int | float):
        raise NotRight(f"give a number, not {reprlib.repr(value)}")
    return plain


def tensor(value) -> torch.Tensor:
    """Return `value` as a float32 tensor without a graph; numpy arrays and nested lists will do.

    Raises NotRight for anything else.

    >>> tensor([[1, 2], [3, 4]]).shape
    torch.Size([2, 2])
    """
    if isinstance(value, list | tuple) and any(isinstance(x, torch.Tensor) and x.numel() > 1 for x in value):
        raise NotRight("return one tensor, not several: torch.stack or torch.cat joins them")
    try:
        return torch.as_tensor(value).detach().float()
    except (TypeError, ValueError, RuntimeError):
        raise NotRight(f"return a tensor, not {reprlib.repr(value)}") from None


def verdict(name: str, answer) -> tuple[str, str]:
    """Return ("correct" | "wrong" | "not yet", a sentence) for an answer to the exercise `name`."""
    exercise = get_exercise(name)
    if answer is None or answer is ...:
        return "not yet", f"replace the `...` with your answer. `hints({name!r})` helps in steps."
    try:
        if type(exercise.solution) in (int, float):
            answer = number(answer)
        return "correct", exercise.check(_watched(answer) if callable(answer) else answer)
    except _NotYet:
        return "not yet", (
            "your function returned nothing. Write its body and end it with `return`. "
            f"`hints({name!r})` helps in steps."
        )
    except NotRight as wrong:
        return "wrong", str(wrong)
    except Exception as error:  # the learner's own code failed: say so, do not bury the notebook
        if callable(exercise.solution) and not callable(answer):
            return "wrong", "give the function itself, its name without brackets, not what it returns"
        return "wrong", f"your code raised {type(error).__name__}: {error}"


def check(name: str, answer) -> None:
    """Print the verdict on an answer, and remember a correct one in the progress file.

    `answer` is a function or a value; None or `...`, or a function that returns it, is "not yet".

    >>> check("04a-softmax", ...)
    04a-softmax: not yet - replace the `...` with your answer. `hints('04a-softmax')` helps in steps.
    """
    kind, sentence = verdict(name, answer)
    if kind == "correct":
        record(name)
    words = {"correct": "correct!", "wrong": "not right -", "not yet": "not yet -"}
    print(f"{name}: {words[kind]} {sentence}")


def band(what: str, value: float, low: float, high: float, digits: int = 2) -> None:
    """Print whether a measured value lies in its reference band, in a sentence that is stable.

    The exact value differs between processors and thread counts, so only the band is printed;
    bands come from runs over seeds and thread counts (`tools/measure_bands.py`). Outside the
    band the value is printed too, and the comparison of stored outputs fails.

    >>> band("validation loss", 1.871, 1.80, 1.95)
    validation loss: inside 1.80-1.95, as expected
    """
    if log := os.environ.get("LLMCOURSE_BAND_LOG"):  # set by tools/measure_bands.py
        with Path(log).open("a", encoding="utf-8") as file:
            file.write(json.dumps([what, value, low, high]) + "\n")
    if current_scale() != "laptop":
        print(f"{what}: {value:.{digits + 1}f} (the band {low}-{high} is for SCALE = 'laptop')")
        return
    limits = f"{low:.{digits}f}-{high:.{digits}f}"
    if low <= value <= high:
        print(f"{what}: inside {limits}, as expected")
    else:
        print(f"{what}: {value:.{digits + 3}f} is OUTSIDE the expected {limits}")
