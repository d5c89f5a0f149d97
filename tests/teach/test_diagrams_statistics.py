"""The picture of the paired table: its texts fit, and its numbers are those given."""

import matplotlib.pyplot as plt
import pytest
from diagram_tools import problems, text_at

from llmcourse.teach.diagrams.statistics import paired_table


@pytest.fixture(autouse=True)
def close():
    plt.switch_backend("Agg")
    yield
    plt.close("all")


def test_each_count_stands_in_its_row_and_column():
    axis = paired_table("TF-IDF", "counts", both=1732, only_a=179, only_b=134, neither=506)
    assert problems(axis) == []
    (x, y), (right, _), (_, below) = (text_at(axis, text) for text in ("1,732", "179", "134"))
    assert text_at(axis, "506") == (right, below)
    assert right > x
    assert below < y
    assert any("2,551 items" in t.get_text() and "313" in t.get_text() for t in axis.texts)
