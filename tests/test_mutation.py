"""The comparison of notebook outputs bites: a changed number is found.

All but one: the value of a band line that is inside its band, which differs between machines. There the
name, the verdict and the limits are changed instead.
"""

import copy
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import nbformat
import pytest
from nbval.plugin import IPyNbCell, get_sanitize_patterns, nocolors
from notebook_tools import BAND_LINE, IGNORED, NOTEBOOKS, ROOT, code_cells, compared, printed, read, tags

BY_NAME = pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
SANITIZER = dict(get_sanitize_patterns((ROOT / "tests" / "nbval_sanitize.cfg").read_text(encoding="utf-8")))
SKIP = ("metadata", "output_type", "name", "execution_count", "image/png")


def changed_at(text: str, place: int) -> str:
    """Return `text` with another character at `place`: a digit for a digit."""
    other = ("2" if text[place] == "1" else "1") if text[place].isdigit() else "#"
    return text[:place] + other + text[place + 1 :]


def mutate(text: str) -> str:
    """Return `text` with its first digit, or else its last letter, changed; not in the value of a band."""
    kept = {place for line in BAND_LINE.finditer(text) for place in range(*line.span("value"))}
    places = (digit.start() for digit in re.finditer(r"\d", text) if digit.start() not in kept)
    return changed_at(text, next(places, len(text.rstrip()) - 1))


def mutate_bands(text: str) -> Iterator[tuple[str, str]]:
    """Yield what is changed and `text` with it, for each part of each band line but its value."""
    for line in BAND_LINE.finditer(text):
        for part in ("name", "low", "high"):
            yield f"{part} of {line.group()}", changed_at(text, line.end(part) - 1)
        other = "OUTSIDE" if line["verdict"] == "inside" else "inside"
        begin, end = line.span("verdict")
        yield f"verdict of {line.group()}", text[:begin] + other + text[end:]


def are_equal(outputs, other) -> bool:
    """Return what nbval's own comparison says of two lists of outputs, with the project's sanitizer."""
    cell = SimpleNamespace(
        colors=nocolors, comparison_traceback=[], format_output_compare=lambda *values: None
    )
    cell.parent = SimpleNamespace(sanitize_patterns=SANITIZER)
    cell.sanitize = lambda text: IPyNbCell.sanitize(cell, text)
    return IPyNbCell.compare_outputs(cell, outputs, other, SKIP)


def stream(text: str) -> list:
    """Return the outputs of a cell that prints `text`."""
    return [nbformat.v4.new_output("stream", name="stdout", text=text)]


def mutate_outputs(cell) -> None:
    for output in cell.outputs:
        if output.get("name") == "stdout":
            output.text = mutate(output.text)
            return


def run_nbval(folder) -> subprocess.CompletedProcess:
    config = ["-c", str(ROOT / "tests" / "nbval.ini"), "--rootdir", str(folder)]
    command = [sys.executable, "-m", "pytest", *config, "--nbval", "--nbval-current-env", "-q", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", env=environment)


@BY_NAME
def test_nbval_fails_on_one_changed_number_and_on_nothing_else(path, tmp_path):
    """Up to the first cell with a number, to be quick. That the stored ones pass is seen when all notebooks run."""
    notebook = read(path)
    target = next(c for c in compared(notebook) if c.id != "set-up" and re.search(r"\d", printed(c)))
    notebook.cells = notebook.cells[: notebook.cells.index(target) + 1]
    mutate_outputs(target)
    nbformat.write(notebook, tmp_path / path.name)
    done = run_nbval(tmp_path)
    assert done.returncode == 1, "a changed number was not noticed"
    assert re.search(rf"^1 failed, {len(code_cells(notebook)) - 1} passed", done.stdout, re.M), done.stdout[
        -2000:
    ]
    assert "mismatch 'stdout'" in done.stdout


@BY_NAME
def test_a_change_in_any_compared_cell_would_be_noticed(path):
    """nbval's own comparison, on every compared cell: equal to itself, unequal when changed."""
    for stored in compared(read(path)):
        changed = copy.deepcopy(stored)
        mutate_outputs(changed)
        assert IGNORED not in tags(stored)
        assert are_equal(stored.outputs, stored.outputs)
        assert not are_equal(changed.outputs, stored.outputs), stored.id
        for what, text in mutate_bands(printed(stored)):
            assert not are_equal(stream(text), stream(printed(stored))), (stored.id, what)


@BY_NAME
def test_of_a_band_line_only_the_value_may_change_and_it_lies_inside(path):
    for cell in code_cells(read(path)):
        text = printed(cell)
        assert "OUTSIDE" not in text, cell.id
        assert "VALUE, inside" not in text, f"{cell.id} waits to be run: this is what nbval puts for a value"
        for line in BAND_LINE.finditer(text):
            assert float(line["low"]) <= float(line["value"]) <= float(line["high"]), line.group()
            begin, end = line.span("value")
            assert are_equal(stream(text[:begin] + line["low"] + text[end:]), stream(text)), line.group()


@pytest.mark.parametrize(
    "text",
    [
        "loss: 4.0712\n",
        "loss: 4.07120, OUTSIDE 4.00 to 4.05\n",
        "steps: 12 of 40, inside the band\n",
        "4.071, inside 4.00 to 4.14\n",  # no name
        "loss: 4.071, inside 4.00 to 4.14, then 3.2\n",
    ],
)
def test_the_sanitizer_hides_nothing_else(text):
    for digit in re.finditer(r"\d", text):
        assert not are_equal(stream(changed_at(text, digit.start())), stream(text))


def test_nbval_sees_verdict_and_limits_of_a_band_and_not_its_value(tmp_path):
    """What is stored, against `band` itself, run by nbval with the project's settings."""
    cells = {
        "loss: 1.801, inside 1.80 to 1.95": ".",  # another value inside
        "loss: 1.87100, OUTSIDE 1.80 to 1.95": "F",
        "loss: 1.871, inside 1.80 to 1.85": "F",
        "loss: 1.871, inside 1.20 to 1.95": "F",
        "gain: 1.871, inside 1.80 to 1.95": "F",
    }
    source = "from llmcourse.teach.checks import band\n\nband('loss', 1.871, 1.80, 1.95)"
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [
        nbformat.v4.new_code_cell(source, outputs=stream(text + "\n"), execution_count=1) for text in cells
    ]
    nbformat.write(notebook, tmp_path / "bands.ipynb")
    done = run_nbval(tmp_path)
    assert re.search(r"^[.FE]+", done.stdout).group() == "".join(cells.values()), done.stdout[-2000:]
