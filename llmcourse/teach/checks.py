"""Check an answer, and say in one sentence what was found: offline and without raising."""

import inspect
import json
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from llmcourse.runtime import current_scale
from llmcourse.teach.errors import explain
from llmcourse.teach.exercises import Exercise, NotRight, get_exercise
from llmcourse.teach.forms import number as number  # also to be had from here
from llmcourse.teach.forms import tensor as tensor
from llmcourse.teach.progress import record


class _NotYet(Exception):  # noqa: N818 - a function that returns nothing is still to be written
    pass


class _Watched:
    """The learner's function: it gets copies, says _NotYet for nothing, and its results are converted."""

    def __init__(self, function, exercise: Exercise):
        self.function, self.form, self.keeps = function, exercise.form, exercise.keeps
        self.error: BaseException | None = None  # the last one that the learner's own code raised
        try:
            self.parameters = inspect.signature(function).parameters
        except (TypeError, ValueError):  # a function written in C
            self.parameters = {}

    def takes(self, name: str) -> bool:
        """Return whether an argument can be given by this name."""
        return name in self.parameters and self.parameters[name].kind is not inspect.Parameter.POSITIONAL_ONLY

    def __call__(self, *arguments, **options):
        given = _copy(arguments)
        kinds = [p.kind for p in self.parameters.values()]
        named = [name for name, p in self.parameters.items() if p.kind is p.KEYWORD_ONLY]
        place = len(kinds) - len(named) - kinds.count(inspect.Parameter.VAR_KEYWORD)
        rest = given[place:] if named and inspect.Parameter.VAR_POSITIONAL not in kinds else ()
        if 0 < len(rest) <= len(named):  # some of its parameters are taken by name only
            options = dict(zip(named, rest, strict=False)) | options
        else:
            place = len(given)
        try:
            result = self.function(*given[:place], **options)
        except (Exception, SystemExit) as error:
            self.error = error
            raise
        if result is None or result is ...:
            raise _NotYet
        if self.keeps and not _equal(given, arguments):
            raise NotRight(f"your function changes {self.keeps}: work on a clone, not on what it is given")
        if not self.form:
            return result.item() if isinstance(result, np.generic) else result
        try:
            return self.form(result)
        except NotRight:
            raise
        except Exception as error:  # an iterator runs the learner's code only now
            self.error = error
            raise


def _copy(value):
    """Return a copy of tensors and arrays, and of lists, tuples and dictionaries with what is in them."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, np.ndarray):
        return value.copy()
    if type(value) in (list, tuple):
        return type(value)(_copy(x) for x in value)
    return {key: _copy(x) for key, x in value.items()} if type(value) is dict else value


def _equal(value, other) -> bool:
    if isinstance(value, torch.Tensor):
        return torch.equal(value, other)
    if isinstance(value, np.ndarray):
        return np.array_equal(value, other)
    if type(value) in (list, tuple):
        return len(value) == len(other) and all(map(_equal, value, other))
    return value is other or value == other


@contextmanager
def _as_it_was() -> Iterator[None]:
    """Check under the usual settings, and leave random generators and settings as they were."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    try:
        torch.set_default_dtype(torch.float32)
        if device.type != "cpu":
            torch.set_default_device("cpu")
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        if device.type != "cpu":
            torch.set_default_device(device)
        torch.set_default_dtype(dtype)
        for restore, state in zip(
            (random.setstate, np.random.set_state, torch.set_rng_state), states, strict=True
        ):
            restore(state)


def verdict(name: str, answer) -> tuple[str, str]:
    """Return ("correct" | "wrong" | "not yet", a sentence) for an answer to the exercise `name`.

    Only an unknown name and an interruption raise; random generators and torch's settings stay as they are.
    """
    exercise = get_exercise(name)
    if answer is None or answer is ...:
        return "not yet", f"replace the `...` with your answer. `hints({name!r})` helps in steps."
    wants_function = exercise.wants == "function"
    watched = _Watched(answer, exercise) if wants_function and callable(answer) else None
    try:
        with _as_it_was():
            if not wants_function and exercise.form:
                answer = exercise.form(answer)
            return "correct", exercise.check(watched or answer)
    except _NotYet:
        return "not yet", (
            "your function returned nothing. Write its body and end it with `return`. "
            f"`hints({name!r})` helps in steps."
        )
    except NotRight as wrong:
        return "wrong", str(wrong)
    except (Exception, SystemExit) as error:  # do not bury the notebook
        if wants_function and not watched:
            return "wrong", "give the function itself, its name without brackets, not what it returns"
        if watched and error is watched.error:
            return "wrong", explain(error)
        return "wrong", f"the check cannot read this answer ({type(error).__name__}: {error})"


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
    """Print a measured value, whether it lies in its reference band, and the limits of the band.

    The value differs between processors and thread counts: where notebooks are compared, it is left out
    (tests/nbval_sanitize.cfg) as long as it lies inside; its name, the verdict and the limits are
    compared. Bands come from runs over seeds and thread counts (`tools/measure_bands.py`). The limits
    have `digits` decimals, the value one more inside and three more OUTSIDE.

    >>> band("validation loss", 1.871, 1.80, 1.95)
    validation loss: 1.871, inside 1.80 to 1.95
    >>> band("mean of the noise", 0.04, -0.03, 0.03)
    mean of the noise: 0.04000, OUTSIDE -0.03 to 0.03
    """
    if log := os.environ.get("LLMCOURSE_BAND_LOG"):  # set by tools/measure_bands.py
        with Path(log).open("a", encoding="utf-8") as file:
            file.write(json.dumps([what, float(value), low, high]) + "\n")
    limits = f"{low:.{digits}f} to {high:.{digits}f}"
    if current_scale() != "laptop":
        print(f"{what}: {value:.{digits + 1}f} (the band {limits} is for SCALE = 'laptop')")
    elif low <= value <= high:
        print(f"{what}: {value:.{digits + 1}f}, inside {limits}")
    else:
        print(f"{what}: {value:.{digits + 3}f}, OUTSIDE {limits}")
