"""Schematic pictures: the primitives, and every picture of `teach/diagrams`, measured."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from diagram_tools import problems, text_at

from llmcourse.teach.diagrams import draw


@pytest.fixture(autouse=True)
def close():
    plt.switch_backend("Agg")
    yield
    plt.close("all")


# ---- the measure itself ----------------------------------------------------------------------


def test_the_measure_finds_a_text_that_leaves_the_page_its_box_or_lies_on_another():
    axis = draw.canvas(3, 1)
    draw.label(axis, 2.9, 0.9, "far too long")
    draw.box(axis, 0.5, 0.5, "wider than its box", width=0.3)
    draw.label(axis, 2, 0.3, "one")
    draw.label(axis, 2, 0.3, "two")
    found = problems(axis)
    assert "'far too long' leaves the page" in found
    assert "'wider than its box' does not fit in its box" in found
    assert "'one' lies on 'two'" in found


def test_the_measure_is_content_with_a_good_picture():
    axis = draw.canvas(3, 1)
    a, b = draw.box(axis, 0.6, 0.4, "a"), draw.box(axis, 2.4, 0.4, "b")
    draw.arrow(axis, a.right, b.left, "to")
    assert problems(axis) == []


# ---- primitives ------------------------------------------------------------------------------


def test_a_canvas_is_measured_in_inches_and_fits_the_page():
    axis = draw.canvas(5, 2)
    assert tuple(axis.figure.get_size_inches()) == (5, 2)
    origin, one = axis.transData.transform([(0, 0), (1, 1)])
    assert list(origin) == [0, 0]
    assert list(one) == [axis.figure.dpi] * 2
    with pytest.raises(ValueError, match=r"at most 6\.8"):
        draw.canvas(7.5)


def test_a_box_knows_the_middles_of_its_sides():
    box = draw.box(draw.canvas(), 2, 1, "x", width=1, height=0.5)
    assert (box.left, box.right, box.top, box.bottom) == ((1.5, 1), (2.5, 1), (2, 1.25), (2, 0.75))


def test_fills_differ_in_grey():
    greys = [
        0.299 * r + 0.587 * g + 0.114 * b
        for r, g, b in map(plt.matplotlib.colors.to_rgb, draw.FILLS.values())
    ]
    apart = [abs(a - b) for i, a in enumerate(greys) for b in greys[:i]]
    assert min(apart) > 0.04
    assert min(greys) > 0.7, "black text must stay readable"
    with pytest.raises(ValueError, match="choose one of query"):
        draw.box(draw.canvas(), 1, 1, fill="red")


@pytest.mark.parametrize("bend", [0, 0.3, -0.3])
def test_the_text_of_an_arrow_stands_at_its_middle(bend):
    axis = draw.canvas(4, 4)
    drawn = draw.arrow(axis, (1, 2), (3, 2), "to", bend=bend, offset=(0, 0))
    axis.figure.canvas.draw()
    line, *_ = drawn.arrow_patch.get_path().to_polygons(closed_only=False)  # the others are its head
    line = plt.matplotlib.path.Path(line).interpolated(20).vertices
    place = axis.transData.transform(text_at(axis, "to"))
    assert min(((line - place) ** 2).sum(1) ** 0.5) < 8, "pixels from the line"
    assert np.sign(text_at(axis, "to")[1] - 2) == -np.sign(bend)


def test_a_grid_puts_each_value_in_its_cell_and_names_at_its_edges():
    axis = draw.canvas(4, 3)
    cells = draw.grid(axis, 1, 2.5, [[11, None], [21, 22]], ["a", "b"], ["c", "d"], fills="key")
    assert text_at(axis, "21") == (cells[1, 0].x, cells[1, 0].y)
    assert cells[1, 1].y < cells[0, 1].y
    assert text_at(axis, "b")[0] < cells[1, 0].left[0]
    assert text_at(axis, "d")[1] > cells[0, 1].top[1]
    assert "None" not in [t.get_text() for t in axis.texts]
    assert problems(axis) == []
    with pytest.raises(ValueError, match="equal rows"):
        draw.grid(axis, 1, 1, [[1], [1, 2]])


def test_bars_are_as_long_as_their_values():
    axis = draw.canvas(4, 1)
    draw.bars(axis, 1, 0.7, {"a": 2.0, "b": 1.0, "c": 0.0}, length=1.5)
    assert [p.get_width() for p in axis.patches] == pytest.approx([1.5, 0.75, 0])
    assert {p.get_x() for p in axis.patches} == {1}
    assert problems(axis) == []
    with pytest.raises(ValueError, match="not negative"):
        draw.bars(axis, 1, 1, {"a": -1.0})
