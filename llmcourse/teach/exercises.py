"""What an exercise is, and the register of all of them, filled by the rooms of the chapters.

A room is a package `chapters/ch04a_attention`, named after its notebook. Importing its `checks` registers
the exercises; its `solutions` is a module of its own, imported only when somebody asks for a solution.
"""

import importlib.util
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

ROOMS = "llmcourse.teach.chapters"
EXERCISES: dict[str, "Exercise"] = {}


class NotRight(Exception):  # noqa: N818 - not an error of the program: the answer is wrong
    """Raised by a check to say, in a sentence, what is wrong with an answer."""


class NoSolution(LookupError):  # noqa: N818 - nothing is wrong: not every copy has them
    """Raised where this copy of the course comes without the solution that was asked for."""


@dataclass(frozen=True)
class Exercise:
    """One exercise: `check(answer)` returns why it is right, or raises NotRight.

    `wants` says whether an answer is a function or a value. `difficulty` is 1 (apply), 2 (combine) or
    3 (think). `form` converts the answer, or what it returns if it is a function, before the check sees
    it (`teach.forms`). `keeps` names what a function must leave as it was, such as "the tables"; without
    it, a function may change what it is given.
    """

    name: str
    title: str
    minutes: int
    difficulty: int
    hints: tuple[str, ...]
    wants: Literal["function", "value"]
    check: Callable[[object], str]
    form: Callable | None = None
    keeps: str = ""


def exercise(
    name: str,
    title: str,
    minutes: int,
    difficulty: int,
    hints: tuple[str, ...],
    wants: Literal["function", "value"],
    form: Callable | None = None,
    keeps: str = "",
):
    """Register the decorated function as the check of the exercise `name`.

    Raises ValueError when the name is taken, and when `wants` is neither "function" nor "value".
    """
    if wants not in ("function", "value"):
        raise ValueError(f"exercise {name!r} wants {wants!r}: say 'function' or 'value'")

    def register(check):
        if name in EXERCISES:
            raise ValueError(f"two exercises are called {name!r}: give one another name")
        EXERCISES[name] = Exercise(name, title, minutes, difficulty, hints, wants, check, form, keeps)
        return check

    return register


def require(condition, message: str) -> None:
    """Raise NotRight with `message` unless `condition` holds."""
    if not bool(condition):
        raise NotRight(message)


def rooms(chapter: str = "") -> list[str]:
    """Return the names of the rooms of a chapter such as "04a", in order; without a chapter, of all."""
    places = importlib.import_module(ROOMS).__path__
    start = f"ch{chapter}_" if chapter else "ch"
    return sorted(m.name for m in pkgutil.iter_modules(places) if m.name.startswith(start))


def get_exercise(name: str) -> Exercise:
    """Return the exercise `name`; its chapter is the part before the dash. Raises KeyError."""
    if name not in EXERCISES:
        _fill_register(rooms(name.split("-")[0]))
    if name not in EXERCISES:
        raise KeyError(f"no exercise is called {name!r}; the rooms with exercises are {rooms()}")
    return EXERCISES[name]


def all_exercises() -> list[Exercise]:
    """Return every exercise of the course, by name."""
    _fill_register(rooms())
    return [EXERCISES[name] for name in sorted(EXERCISES)]


def _fill_register(names: list[str]) -> None:
    for room in names:
        if importlib.util.find_spec(f"{ROOMS}.{room}.checks"):  # a notebook need not have exercises
            importlib.import_module(f"{ROOMS}.{room}.checks")


def get_solution(name: str):
    """Return a right answer to the exercise `name`: a function or a value.

    Raises KeyError for an unknown name, and NoSolution where the room has no `solutions`.
    """
    room = get_exercise(name).check.__module__.rpartition(".")[0]
    try:
        return importlib.import_module(f"{room}.solutions").SOLUTIONS[name]
    except ModuleNotFoundError as error:
        if error.name != f"{room}.solutions":
            raise
        raise NoSolution(f"this copy of the course holds no solution of {name}") from error
