"""What an exercise is, and the register of all of them, filled by the modules `chapter_*`."""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass

EXERCISES: dict[str, "Exercise"] = {}


class NotRight(Exception):  # noqa: N818 - not an error of the program: the answer is wrong
    """Raised by a check to say, in a sentence, what is wrong with an answer."""


@dataclass(frozen=True)
class Exercise:
    """One exercise: `check(answer)` returns why it is right, or raises NotRight.

    `solution` is a right answer (a function or a value) that the learner can open.
    `difficulty` is 1 (apply), 2 (combine) or 3 (think). `form` converts the answer, or what it returns
    if it is a function, before the check sees it (`teach.forms`). `keeps` names what a function must
    leave as it was, such as "the tables"; without it, a function may change what it is given.
    """

    name: str
    title: str
    minutes: int
    difficulty: int
    hints: tuple[str, ...]
    solution: object
    check: Callable[[object], str]
    form: Callable | None = None
    keeps: str = ""


def exercise(
    name: str,
    title: str,
    minutes: int,
    difficulty: int,
    hints: tuple[str, ...],
    solution,
    form: Callable | None = None,
    keeps: str = "",
):
    """Register the decorated function as the check of the exercise `name`."""

    def register(check):
        if name in EXERCISES:
            raise ValueError(f"two exercises are called {name!r}: give one another name")
        EXERCISES[name] = Exercise(name, title, minutes, difficulty, hints, solution, check, form, keeps)
        return check

    return register


def require(condition, message: str) -> None:
    """Raise NotRight with `message` unless `condition` holds."""
    if not bool(condition):
        raise NotRight(message)


def get_exercise(name: str) -> Exercise:
    """Return the exercise `name`; its chapter is the part before the dash. Raises KeyError.

    Exercises of chapter 05c live in `chapter_05c` or in several modules `chapter_05c_*`, and others alike.
    """
    chapter = f"chapter_{name.split('-')[0]}"
    for module in chapter_modules():
        if name not in EXERCISES and (module == chapter or module.startswith(chapter + "_")):
            importlib.import_module(f"llmcourse.teach.{module}")
    if name not in EXERCISES:
        raise KeyError(f"no exercise is called {name!r}; chapters with exercises: {chapter_modules()}")
    return EXERCISES[name]


def chapter_modules() -> list[str]:
    """Return the names of the modules that hold exercises."""
    import llmcourse.teach as package

    return sorted(m.name for m in pkgutil.iter_modules(package.__path__) if m.name.startswith("chapter_"))


def all_exercises() -> list[Exercise]:
    """Return every exercise of the course, by name."""
    for module in chapter_modules():
        importlib.import_module(f"llmcourse.teach.{module}")
    return [EXERCISES[name] for name in sorted(EXERCISES)]
