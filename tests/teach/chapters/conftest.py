"""Here every check runs as in a student's copy: no solution can be imported."""

import sys

import pytest

from llmcourse.teach.exercises import ROOMS, rooms


@pytest.fixture(autouse=True)
def without_solutions(monkeypatch):
    """An import of any `solutions` fails during a test; a table of answers may have taken some before."""
    for room in rooms():
        monkeypatch.setitem(sys.modules, f"{ROOMS}.{room}.solutions", None)
