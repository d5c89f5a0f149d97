"""The figures of `07_tools_and_resources`: readable, and as they are given."""

import matplotlib.pyplot as plt
import pytest
from diagram_tools import problems
from notebook_tools import ROOT, code_cells, read

from llmcourse.teach.chapters.ch07_tools_and_resources import figures
from llmcourse.teach.chapters.ch07_tools_and_resources.licences import LICENCES

NOTEBOOK = ROOT / "notebooks" / "07_tools_and_resources.ipynb"


@pytest.fixture(autouse=True)
def close():
    plt.switch_backend("Agg")
    yield
    plt.close("all")


def stages_of_the_notebook() -> dict:
    (cell,) = [cell for cell in code_cells(read(NOTEBOOK)) if cell.id == "project-figure"]
    names = {}
    exec(cell.source[cell.source.index("stages =") : cell.source.index("figures.")], {}, names)
    return names["stages"]


def test_each_stage_has_its_library_above_and_the_course_below():
    stages = stages_of_the_notebook()
    axis = figures.tools_of_a_project(stages)
    assert problems(axis) == []
    place = {}
    for text in axis.texts:
        place.setdefault(text.get_text(), []).append(text.get_position())
    for stage, (library, own) in stages.items():
        (x, y) = place[stage][0]
        assert [round(x - a, 6) for a, _ in place[library]].count(0) == 1
        assert any(abs(a - x) < 1e-6 and b < y for a, b in place[own])
        assert all(b > y for _, b in place[library])


def test_the_grid_says_of_each_licence_what_the_table_has():
    axis = figures.licence_grid(LICENCES)
    assert problems(axis) == []
    said = [text.get_text() for text in axis.texts]
    allowed = sum(licence.sell + licence.pass_on for licence in LICENCES)
    asked = sum(
        licence.keep_notice + licence.same_terms + licence.rules_of_use + licence.threshold
        for licence in LICENCES
    )
    assert said.count("yes") == allowed + asked
    assert said.count("no") == 2 * len(LICENCES) - allowed
    assert all(any(text.startswith(licence.name) for text in said) for licence in LICENCES)


def test_a_run_that_was_taken_up_again_is_drawn_as_it_is_given(monkeypatch):
    monkeypatch.setattr(figures.plots, "show", lambda: None)
    figures.restarted_run({"a": ([1, 2, 1, 2], [3.0, 2.0, 3.0, 2.0]), "b": ([1, 2], [3.0, 2.0])})
    left, right = plt.gcf().axes
    assert list(left.lines[0].get_xdata()) == [1, 2, 1, 2]
    assert right.get_title() == "b"
