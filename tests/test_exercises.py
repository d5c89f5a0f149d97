"""Every exercise: its register entry, its place in the notebooks, and answers that learners give."""

import ast
import inspect
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from llmcourse.teach.checks import verdict
from llmcourse.teach.exercises import all_exercises
from llmcourse.teach.hints import hints_html, solution_source

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
EXERCISES = {exercise.name: exercise for exercise in all_exercises()}
NUMBERS = [name for name, exercise in EXERCISES.items() if type(exercise.solution) in (int, float)]
FUNCTIONS = [name for name, exercise in EXERCISES.items() if callable(exercise.solution)]
TASK = re.compile(r"\*\*Exercise ([\w-]+)\*\* \((\d+) minutes?, difficulty (\d+)\)")


def cells(pattern, kind):
    """The sources of all cells of one kind in the notebooks that match a pattern."""
    for path in sorted(NOTEBOOKS.glob(pattern)):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == kind:
                yield "".join(cell["source"])


def calls(function, source):
    """The exercise names with which a cell calls check or hints."""
    return re.findall(rf"\b{function}\(\s*[\"']([^\"']+)[\"']", source)


# ---- every exercise of every chapter --------------------------------------------------------


@pytest.mark.parametrize("name", EXERCISES)
def test_an_exercise_is_complete(name):
    exercise = EXERCISES[name]
    assert exercise.title.strip()
    assert 1 <= exercise.minutes <= 20
    assert exercise.difficulty in (1, 2, 3)
    assert len(exercise.hints) >= 2
    assert all(hint.strip() for hint in exercise.hints)
    assert hints_html(name).count("<summary>") == len(exercise.hints) + 1


@pytest.mark.parametrize("name", EXERCISES)
def test_the_solution_is_correct_and_the_verdict_says_why(name):
    kind, sentence = verdict(name, EXERCISES[name].solution)
    assert (kind, sentence[-1]) == ("correct", "."), sentence


@pytest.mark.parametrize("name", EXERCISES)
def test_the_hints_do_not_give_the_solution_away(name):
    exercise = EXERCISES[name]
    if callable(exercise.solution):
        _, *body = ast.parse(solution_source(name)).body[0].body  # without the docstring
        statements = [ast.unparse(statement) for statement in body]
        assert not all(any(statement in hint for hint in exercise.hints) for statement in statements)
    else:
        value = re.compile(rf"(?<![\w.]){re.escape(repr(exercise.solution))}(?![\w]|\.\d)")
        assert not any(value.search(hint) for hint in exercise.hints)


@pytest.mark.parametrize("name", EXERCISES)
def test_the_notebook_of_the_chapter_checks_it_and_offers_hints(name):
    code = list(cells(f"{name.split('-')[0]}_*.ipynb", "code"))
    asking = [source for source in code if name in calls("check", source)]
    assert len(asking) == 1, f"cells with check({name!r}, ...): {len(asking)}"
    assert sum(name in calls("hints", source) for source in code) == 1
    solution = EXERCISES[name].solution
    stubs = [node for node in ast.parse(asking[0]).body if isinstance(node, ast.FunctionDef)]
    if callable(solution):
        (stub,) = stubs
        assert stub.name == solution.__name__
        required = [p.name for p in inspect.signature(solution).parameters.values()]
        assert [argument.arg for argument in stub.args.args] == required[: len(stub.args.args)]
    else:
        assert not stubs
        assert re.search(r"^answer = \.\.\.$", asking[0], re.MULTILINE)


@pytest.mark.parametrize("name", EXERCISES)
def test_the_task_text_agrees_with_the_register(name):
    text = "\n".join(cells(f"{name.split('-')[0]}_*.ipynb", "markdown"))
    found = [(minutes, difficulty) for task, minutes, difficulty in TASK.findall(text) if task == name]
    assert found == [(str(EXERCISES[name].minutes), str(EXERCISES[name].difficulty))]


def test_every_name_in_the_notebooks_exists():
    code = list(cells("*.ipynb", "code"))
    names = {name for source in code for function in ("check", "hints") for name in calls(function, source)}
    names |= {name for source in cells("*.ipynb", "markdown") for name, *_ in TASK.findall(source)}
    assert names - set(EXERCISES) == set()


# ---- any exercise: answers that are no answers ----------------------------------------------


def writes_nothing(*arguments): ...


def prints_instead(*arguments):
    print("the answer")


def returns_dots(*arguments):
    return ...


@pytest.mark.parametrize("answer", [None, ...])
@pytest.mark.parametrize("name", EXERCISES)
def test_an_empty_answer_is_not_yet(name, answer):
    kind, sentence = verdict(name, answer)
    assert kind == "not yet"
    assert f"hints({name!r})" in sentence


@pytest.mark.parametrize("answer", [writes_nothing, prints_instead, returns_dots])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_that_returns_nothing_is_not_yet(name, answer):
    kind, sentence = verdict(name, answer)
    assert kind == "not yet"
    assert "end it with `return`" in sentence


def raises_index_error(*arguments):
    raise IndexError("index 4 is out of bounds")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_that_raises_is_told_so(name):
    said = verdict(name, raises_index_error)
    assert said == ("wrong", "your code raised IndexError: index 4 is out of bounds")
    kind, sentence = verdict(name, lambda: 1)
    assert kind == "wrong"
    assert "positional argument" in sentence


@pytest.mark.parametrize("answer", [torch.ones(4), 3.5, "softmax", [1, 2]])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_value_instead_of_a_function_is_told_so(name, answer):
    kind, sentence = verdict(name, answer)
    assert kind == "wrong"
    assert "give the function itself" in sentence


@pytest.mark.parametrize(
    "returned", ["text", {}, [], 3.0, True, (1, 2), torch.zeros(0), np.zeros((1, 1)), object()]
)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_that_returns_something_odd_is_wrong(name, returned):
    kind, sentence = verdict(name, lambda *arguments: returned)
    assert kind == "wrong"
    assert "your code raised" not in sentence  # the code of the learner did not


@pytest.mark.parametrize("name", NUMBERS)
def test_the_right_number_may_have_any_type_of_number(name):
    right = EXERCISES[name].solution
    kinds = [float, np.float64, np.float32, np.array, torch.tensor, lambda x: torch.tensor([x])]
    if isinstance(right, int):
        kinds += [int, np.int64, np.int32]
    for kind in kinds:
        assert verdict(name, kind(right))[0] == "correct", kind


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_just_beside_is_wrong(name):
    right = EXERCISES[name].solution
    step = 1 if isinstance(right, int) else max(0.1, right * 0.005)
    for near in (right + step, right - step, -right, 10 * right, right / 10, 0, 1e9, math.inf, math.nan):
        kind, sentence = verdict(name, near)
        assert kind == "wrong", near
        assert "your code" not in sentence


@pytest.mark.parametrize("name", NUMBERS)
def test_what_is_no_number_is_told_so(name):
    right = EXERCISES[name].solution
    for answer in (
        str(right),
        "",
        True,
        np.True_,
        [right],
        (right, right),
        {},
        1j,
        np.ones(2),
        torch.ones(2),
        lambda: right,
    ):
        kind, sentence = verdict(name, answer)
        assert kind == "wrong"
        assert "give a number, not" in sentence
