"""The rooms: one for each notebook, and no solution within a student's reach unless it is asked for."""

import ast
import html
import inspect
import json
import re
import subprocess
import sys
import textwrap

import pytest
from notebook_tools import NOTEBOOKS, ROOT

from llmcourse.teach.exercises import ROOMS, all_exercises, get_solution, rooms
from llmcourse.teach.hints import hints, solution_html

EXERCISES = {exercise.name: exercise for exercise in all_exercises()}
SOLUTIONS = {name: get_solution(name) for name in EXERCISES}
FOLDER = ROOT / "llmcourse" / "teach" / "chapters"


WITH_EXERCISES = sorted({exercise.check.__module__.split(".")[-2] for exercise in EXERCISES.values()})


def test_each_notebook_has_a_room_of_its_name():
    assert rooms() == [f"ch{path.stem}" for path in NOTEBOOKS]
    assert rooms("05b") == ["ch05b_tensorboard"]
    assert rooms("0") == []


@pytest.mark.parametrize("room", WITH_EXERCISES)
def test_a_room_holds_the_exercises_of_its_chapter_and_a_solution_of_each(room):
    mine = [name for name, e in EXERCISES.items() if e.check.__module__.startswith(f"{ROOMS}.{room}.")]
    assert mine
    assert all(room.startswith(f"ch{name.split('-')[0]}_") for name in mine)
    solutions = sys.modules[f"{ROOMS}.{room}.solutions"].SOLUTIONS
    assert sorted(solutions) == sorted(mine)
    assert all(callable(solutions[name]) == (EXERCISES[name].wants == "function") for name in mine)


def imported(path) -> list[str]:
    """The names of modules that a file imports, and of what it takes from them."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "llmcourse").rglob("*.py")), ids=lambda path: path.stem)
def test_no_module_imports_a_solution(path):
    assert [name for name in imported(path) if "solutions" in name.split(".")] == []


def test_no_notebook_imports_a_solution():
    for path in NOTEBOOKS:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
        assert not re.search(r"\bsolutions\b|get_solution|solution\s*=\s*True", code), path.stem


STUDENT = """
import sys
from llmcourse.teach.exercises import ROOMS, all_exercises, rooms

exercises = all_exercises()
found = [name for name in sys.modules if "solution" in name and name.startswith(ROOMS)]
assert found == [], found
for room in rooms():  # from here on an import of one fails
    sys.modules[f"{ROOMS}.{room}.solutions"] = None

from llmcourse.teach.checks import verdict
from llmcourse.teach.hints import hints

for exercise in exercises:
    name = exercise.name
    stub = lambda *arguments: None
    kinds = [verdict(name, answer)[0] for answer in (None, ..., stub, object(), lambda *arguments: object())]
    wanted = ["not yet", "not yet", "not yet" if exercise.wants == "function" else "wrong", "wrong", "wrong"]
    assert kinds == wanted, (name, kinds)
    assert "Hint 1 of" in hints(name).data
    assert "holds no solution of " + name in hints(name, solution=True).data
print(len(exercises))
"""


def test_a_student_who_has_no_solutions_can_work():
    """All checks in a fresh process, in which no solution was ever imported or can be."""
    done = subprocess.run([sys.executable, "-c", STUDENT], cwd=ROOT, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(EXERCISES)


# ---- the library knows no chapter ----------------------------------------------------------

LIBRARY = [path for path in sorted((ROOT / "llmcourse").rglob("*.py")) if FOLDER not in path.parents]
CHAPTER = re.compile(
    r"\bchapters? ?\d|\bchapter_\d|(?<!:)\b0\d([a-f]\b|[a-f]?[_-][a-z])|\bch\d\d", re.IGNORECASE
)
EXAMPLES = {  # modules that explain the form of a name by an example: how many lines hold one
    "teach/checks.py": 2,  # the doctest of `check`
    "teach/exercises.py": 2,  # a room, and its chapter
    "teach/progress.py": 1,  # the doctest of the table
    "teach/diagrams/course.py": 2,  # the map's argument
}


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: path.stem)
def test_the_library_names_no_chapter(path):
    """In code, texts or comments: it serves any chapter, and would be wrong when one moves."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if CHAPTER.search(line)]
    assert len(lines) == EXAMPLES.get(path.relative_to(ROOT / "llmcourse").as_posix(), 0), lines


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: path.stem)
def test_the_library_imports_no_room(path):
    """Not by a text either, but for the one place that finds the rooms."""
    found = [name for name in imported(path) if "chapters" in name.split(".")]
    if path.relative_to(ROOT / "llmcourse").as_posix() != "teach/exercises.py":
        found += re.findall(r"teach[./]chapters", path.read_text(encoding="utf-8"))
    assert found == []


@pytest.mark.parametrize(
    "path", sorted(FOLDER.glob("*/*.py")), ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_a_room_imports_no_other_room(path):
    named = {part for name in imported(path) for part in name.split(".")} & set(rooms())
    assert named <= {path.parent.name}


def test_what_names_a_chapter_is_seen():
    for text in (
        "of chapter 5d",
        "Chapter 3",
        "03c",
        "see 04a-softmax",
        "05b_tensorboard",
        "chapter_03c",
        "ch02_x",
    ):
        assert CHAPTER.search(text), text
    for text in ("0.05 here", "04.07.2003", "0.1", "2005", "chapters", "std 0.02", "#0072B2", "0x0b"):
        assert not CHAPTER.search(text), text


# ---- stored outputs -------------------------------------------------------------------------


def plain(text: str) -> list[str]:
    """The lines of a text without markup, comments, spaces and the kind of quotes; empty ones left out."""
    text = html.unescape(re.sub(r"<[a-z/][^>]*>", "\n", text)).replace('"', "'")
    return [line for line in ("".join(re.sub(r"#.*", "", x).split()) for x in text.splitlines()) if line]


def telling(name: str) -> list[list[str]]:
    """What would give a solution away: its body by two lines each, or its only line."""
    solution = SOLUTIONS[name]
    if not callable(solution):
        return [plain(repr(solution))] if isinstance(solution, dict) else []
    source = textwrap.dedent(inspect.getsource(solution))
    function = ast.parse(source).body[0]
    first = function.body[1 if ast.get_docstring(function) else 0].lineno
    lines = plain("\n".join(source.splitlines()[first - 1 :]))
    return [lines] if len(lines) == 1 else [lines[i : i + 2] for i in range(len(lines) - 1)]


def gives_away(name: str, text: str) -> bool:
    """Whether two lines of a solution follow each other in a text, or its only line stands there."""
    lines = plain(text)
    runs = {tuple(lines[i : i + n]) for n in (1, 2) for i in range(len(lines))}
    return any(tuple(run) in runs for run in telling(name))


def stored(path) -> str:
    """All that the outputs of a notebook show as text."""
    texts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        for output in cell.get("outputs", []):
            texts.append("".join(output.get("text", "")) + "\n" + "\n".join(output.get("traceback", [])))
            texts += ["".join(x) for kind, x in output.get("data", {}).items() if kind.startswith("text/")]
    return "\n".join(texts)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_stored_output_holds_a_solution(path):
    text = stored(path)
    assert [name for name in EXERCISES if gives_away(name, text)] == []


@pytest.mark.parametrize("name", [name for name in EXERCISES if telling(name)])
def test_a_solution_in_an_output_would_be_seen(name):
    """Else the test above could not fail: shown by hints, or by a cell that prints its source."""
    assert gives_away(name, solution_html(name))
    assert gives_away(name, "Out\n" + hints(name, solution=True).data + "\nmore")
    assert not gives_away(name, hints(name).data)
