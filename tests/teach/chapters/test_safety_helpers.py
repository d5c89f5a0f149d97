"""Figures of chapter 8c: what is drawn stands where its numbers say, on a page that a notebook can hold."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from llmcourse.teach.chapters.ch08c_safety import figures


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def fits(figure):
    figure.canvas.draw()
    inside = figure.get_tightbbox(figure.canvas.get_renderer())
    return (
        figure.get_size_inches()[0] <= 7
        and inside.x0 >= -0.02
        and inside.x1 <= figure.get_size_inches()[0] + 0.02
    )


def bar_ends(axis):
    """(low, high) of each horizontal error bar, in the order in which they were drawn."""
    return [
        (segment[0][0], segment[1][0])
        for container in axis.containers
        for segment in container.lines[2][0].get_segments()
    ]


def test_shares_stand_beside_their_names():
    rows = {
        "one": {"recall": (0.5, 0.4, 0.7), "precision": (1.0, 0.8, 1.0)},
        "two": {"recall": (0, 0, 0.2), "precision": (0.1, 0, 0.3)},
    }
    axes = figures.shares(rows, grey=["two"])
    assert [axis.get_title() for axis in axes] == ["recall", "precision"]
    assert [text.get_text() for text in axes[0].get_yticklabels()] == ["one", "two"]
    np.testing.assert_allclose(bar_ends(axes[0]), [(0.4, 0.7), (0, 0.2)])
    assert fits(axes[0].figure)


def test_before_and_after_stand_in_their_row():
    rows = {"plain": [(0.9, 0.8, 1.0), (0.1, 0.0, 0.2)], "in two": [(0.8, 0.7, 0.9), (0.6, 0.5, 0.7)]}
    axis = figures.before_and_after(rows, ["before", "after"], "share", grey=["in two"])
    np.testing.assert_allclose(sorted(bar_ends(axis)), [(0.0, 0.2), (0.5, 0.7), (0.7, 0.9), (0.8, 1.0)])
    heights = [segment[0][1] for c in axis.containers for segment in c.lines[2][0].get_segments()]
    assert [round(height) for height in heights] == [0, 0, 1, 1]
    assert [text.get_text() for text in axis.figure.legends[0].get_texts()] == ["before", "after"]
    assert fits(axis.figure)


def test_exposure_goes_through_the_means():
    curves = {
        "as it is": {0: [1.0, 2.0], 1: [3.0, 5.0], 16: [13.0, 13.2]},
        "deduplicated": {1: [2.5, 3.5], 16: [3.0, 3.2]},
    }
    axis = figures.over_copies(curves, chance=1.44, most=13.29, label="exposure in bits")
    drawn = {line.get_label(): line.get_ydata() for line in axis.lines}
    np.testing.assert_allclose(drawn["as it is"], [1.5, 4.0, 13.1])
    np.testing.assert_allclose(drawn["deduplicated"], [3.0, 3.1])
    assert [text.get_text() for text in axis.get_xticklabels()] == ["0", "1", "16"]
    assert fits(axis.figure)


def test_count_and_share_show_the_same_points():
    points = {"small": [(10, 0.01, 0.2), (10, 0.01, 0.4), (100, 0.1, 1.0)], "large": [(10, 0.001, 0.3)]}
    axes = figures.count_and_share(points, "attacks that succeed")
    for axis, x in zip(axes, ([10, 100], [0.01, 0.1]), strict=True):
        line = axis.lines[0]
        np.testing.assert_allclose(line.get_xdata(), x)
        np.testing.assert_allclose(line.get_ydata(), [0.3, 1.0])
    assert fits(axes[0].figure)


def test_two_refusals_have_an_interval_in_both_directions():
    axis = figures.two_refusals({"before": {"seen": ((0.9, 0.8, 1.0), (0.1, 0.0, 0.3))}})
    (container,) = axis.containers
    across, up = (bar.get_segments()[0] for bar in container.lines[2])
    np.testing.assert_allclose(across, [(0.0, 0.9), (0.3, 0.9)])
    np.testing.assert_allclose(up, [(0.1, 0.8), (0.1, 1.0)])
    assert fits(axis.figure)


def test_an_end_that_rounding_puts_inside_is_drawn_as_none():
    whole = (1.0, 0.8, 1 - 1e-16)
    assert whole[2] < 1
    figures.shares({"all": {"recall": whole}})
    figures.two_refusals({"all": {"seen": (whole, whole)}})
