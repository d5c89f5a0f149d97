"""Every exercise: its register entry, its place in the notebooks, and answers that learners give."""

import ast
import functools
import importlib
import inspect
import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from notebook_tools import ROOT

from llmcourse.teach.checks import verdict
from llmcourse.teach.exercises import all_exercises, get_solution
from llmcourse.teach.hints import hints_html, solution_source

CHAPTERS = Path(__file__).parent / "chapters"
EXERCISES = {exercise.name: exercise for exercise in all_exercises()}
SOLUTIONS = {name: get_solution(name) for name in EXERCISES}
NUMBERS = [name for name in EXERCISES if type(SOLUTIONS[name]) in (int, float)]
FUNCTIONS = [name for name, exercise in EXERCISES.items() if exercise.wants == "function"]
TASK = re.compile(r"\*\*Exercise ([\w-]+)\*\* \((\d+) minutes?, difficulty (\d+)\)")


@functools.cache
def cells(pattern, kind):
    """The sources of all cells of one kind in the notebooks that match a pattern."""
    return [
        "".join(cell["source"])
        for path in sorted((ROOT / "notebooks").glob(pattern))
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
        if cell["cell_type"] == kind
    ]


def notebook_of(name):
    """The file of the notebook in whose room the exercise is."""
    return f"{EXERCISES[name].check.__module__.split('.')[-2].removeprefix('ch')}.ipynb"


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
    assert hints_html(name).count("<summary>") == len(exercise.hints)


@pytest.mark.parametrize("name", EXERCISES)
def test_the_solution_is_correct_and_the_verdict_says_why(name):
    kind, sentence = verdict(name, SOLUTIONS[name])
    assert (kind, sentence[-1]) == ("correct", "."), sentence


@pytest.mark.parametrize("name", EXERCISES)
def test_the_hints_do_not_give_the_solution_away(name):
    exercise = EXERCISES[name]
    if exercise.wants == "function":
        _, *body = ast.parse(solution_source(name)).body[0].body  # without the docstring
        statements = [ast.unparse(statement) for statement in body]
        assert not all(any(statement in hint for hint in exercise.hints) for statement in statements)
    else:
        value = re.compile(rf"(?<![\w.]){re.escape(repr(SOLUTIONS[name]))}(?![\w]|\.\d)")
        assert not any(value.search(hint) for hint in exercise.hints)


@pytest.mark.parametrize("name", EXERCISES)
def test_the_notebook_of_the_chapter_checks_it_and_offers_hints(name):
    code = list(cells(notebook_of(name), "code"))
    asking = [source for source in code if name in calls("check", source)]
    assert len(asking) == 1, f"cells with check({name!r}, ...): {len(asking)}"
    assert sum(name in calls("hints", source) for source in code) == 1
    solution = SOLUTIONS[name]
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
    text = "\n".join(cells(notebook_of(name), "markdown"))
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


@pytest.mark.parametrize("name", EXERCISES)
def test_an_empty_answer_is_not_yet(name):
    for answer in (None, ...):
        kind, sentence = verdict(name, answer)
        assert kind == "not yet"
        assert f"hints({name!r})" in sentence


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_that_returns_nothing_is_not_yet(name):
    for answer in (writes_nothing, prints_instead, returns_dots):
        kind, sentence = verdict(name, answer)
        assert kind == "not yet"
        assert "end it with `return`" in sentence


def raises_index_error(*arguments):
    raise IndexError("index 4 is out of bounds")


def exits(*arguments):
    sys.exit(1)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_that_raises_is_told_so(name):
    said = verdict(name, raises_index_error)
    assert said == ("wrong", "your code raised IndexError: index 4 is out of bounds")
    kind, sentence = verdict(name, lambda: 1)
    assert kind == "wrong"
    assert "positional argument" in sentence
    assert "the check calls your function with those of the stub" in sentence
    kind, sentence = verdict(name, exits)
    assert (kind, "your code raised SystemExit" in sentence) == ("wrong", True)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_value_instead_of_a_function_is_told_so(name):
    for answer in (torch.ones(4), 3.5, "softmax", [1, 2]):
        kind, sentence = verdict(name, answer)
        assert kind == "wrong"
        assert "give the function itself" in sentence


ODD = [
    "text",
    "16",
    b"x",
    {},
    {1},
    [],
    [None],
    ["a"],
    [[1], [2, 3]],
    3.0,
    True,
    1j,
    (1, 2),
    object(),
    abs,
    10**5000,
]
ODD += [
    math.nan,
    math.inf,
    torch.zeros(0),
    torch.zeros(2, 0),
    np.zeros((1, 1)),
    np.array(["a"]),
    np.array([None]),
]
ODD += [torch.ones(3) * 1j, torch.ones(2, 3).max(-1), torch.ones(2, 3).sort(), (torch.ones(2), torch.ones(3))]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_that_returns_something_odd_is_wrong(name):
    for returned in ODD:
        kind, sentence = verdict(name, lambda *arguments, returned=returned: returned)
        assert kind == "wrong", returned
        assert "your code raised" not in sentence  # the code of the learner did not
        assert "cannot read" not in sentence, sentence  # and the check did not either


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_pair_that_max_returns_is_named(name):
    """torch's max with a dimension returns (values, indices), which looks like two tensors to be stacked."""
    kind, sentence = verdict(name, lambda *arguments: torch.ones(2, 3).max(-1))
    assert (kind, ".values or .indices" in sentence) == ("wrong", True), sentence


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_just_beside_is_wrong(name):
    right = SOLUTIONS[name]
    step = 1 if isinstance(right, int) else max(0.1, right * 0.005)
    for near in (
        right + step,
        right - step,
        -right,
        10 * right,
        right / 10,
        0,
        1e9,
        math.inf,
        math.nan,
        10**5000,
    ):
        kind, sentence = verdict(name, near)
        assert kind == "wrong", near
        assert "your code" not in sentence
        assert "cannot read" not in sentence


@pytest.mark.parametrize("name", NUMBERS)
def test_what_is_no_number_is_told_so(name):
    right = SOLUTIONS[name]
    several = [right], (right, right), {}, np.ones(2), torch.ones(2), torch.ones(2, 3).max(-1)
    for answer in (str(right), "", True, np.True_, torch.tensor(True), 1j, lambda: right, *several):
        kind, sentence = verdict(name, answer)
        assert kind == "wrong"
        assert "give a number, not" in sentence or "torch's max returns" in sentence


@pytest.mark.parametrize("name", [name for name in EXERCISES if name not in FUNCTIONS + NUMBERS])
def test_what_is_no_text_or_dictionary_is_told_so(name):
    for answer in ODD:
        kind, sentence = verdict(name, answer)
        assert (kind, "cannot read" in sentence) == ("wrong", False), sentence


# ---- every exercise has its tables ----------------------------------------------------------


def test_every_exercise_has_right_and_wrong_answers_in_the_table_of_its_room(monkeypatch):
    monkeypatch.syspath_prepend(CHAPTERS)
    for room in {exercise.check.__module__.split(".")[-2] for exercise in EXERCISES.values()}:
        table = importlib.import_module(f"test_{room}")
        mine = {name for name in EXERCISES if f".{room}." in EXERCISES[name].check.__module__}
        assert set(table.RIGHT) == set(table.WRONG) == mine, room
        assert [name for name in mine if len(table.RIGHT[name]) < (4 if name in FUNCTIONS else 2)] == []
        assert [name for name in mine if len(table.WRONG[name]) < 6] == []
