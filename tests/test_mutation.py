"""The comparison of notebook outputs bites: a changed number is found."""

import copy
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import nbformat
import pytest
from nbval.plugin import IPyNbCell, nocolors
from notebook_tools import IGNORED, NOTEBOOKS, ROOT, compared, printed, read, tags

BY_NAME = pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])


def mutate(text: str) -> str:
    """Return `text` with its first digit, or else its last letter, changed."""
    digit = re.search(r"\d", text)
    if digit:
        other = "1" if digit.group() != "1" else "2"
        return text[: digit.start()] + other + text[digit.end() :]
    return text.rstrip()[:-1] + "#\n"


def mutate_outputs(cell) -> None:
    for output in cell.outputs:
        if output.get("name") == "stdout":
            output.text = mutate(output.text)
            return


def run_nbval(folder) -> subprocess.CompletedProcess:
    config = ["-c", str(ROOT / "tests" / "nbval.ini"), "--rootdir", str(folder)]
    command = [sys.executable, "-m", "pytest", *config, "--nbval", "--nbval-current-env", "-q", str(folder)]
    return subprocess.run(
        command, capture_output=True, encoding="utf-8", env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


@BY_NAME
def test_nbval_passes_as_stored_and_fails_on_one_changed_number(path, tmp_path):
    """Up to the first cell with a number, to be quick: once as it is, then with a changed number."""
    notebook = read(path)
    target = next(c for c in compared(notebook) if c.id != "set-up" and re.search(r"\d", printed(c)))
    notebook.cells = notebook.cells[: notebook.cells.index(target) + 1]
    for name in ("as_stored", "changed"):
        (tmp_path / name).mkdir()
        if name == "changed":
            mutate_outputs(notebook.cells[-1])
        nbformat.write(notebook, tmp_path / name / path.name)
    passed, failed = (run_nbval(tmp_path / name) for name in ("as_stored", "changed"))
    assert passed.returncode == 0, passed.stdout[-2000:]
    assert failed.returncode == 1, "a changed number was not noticed"
    assert "mismatch" in failed.stdout
    assert "1 failed" in failed.stdout


@BY_NAME
def test_a_change_in_any_compared_cell_would_be_noticed(path):
    """nbval's own comparison, on every compared cell: equal to itself, unequal when changed."""

    nbval_cell = SimpleNamespace(
        colors=nocolors, sanitize=str, comparison_traceback=[], format_output_compare=lambda *values: None
    )
    skip = ("metadata", "output_type", "name", "execution_count", "image/png")

    for stored in compared(read(path)):
        changed = copy.deepcopy(stored)
        mutate_outputs(changed)
        assert IGNORED not in tags(stored)
        assert IPyNbCell.compare_outputs(nbval_cell, stored.outputs, stored.outputs, skip)
        assert not IPyNbCell.compare_outputs(nbval_cell, changed.outputs, stored.outputs, skip), stored.id
