"""The systems and figures of chapter 6b: the same text for all, and pictures that show what they are given."""

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pytest

from llmcourse.data.sources.docstrings import Docstring
from llmcourse.data.summary_text import train_tokenizer
from llmcourse.evaluate.rouge import lcs_length
from llmcourse.teach.chapters.ch06b_summarization import figures, systems

DEFINITIONS = [
    Docstring(
        "Chart.draw_line", ("width",), "The line is thin. It has no end. It is red and long.", "Draw a line."
    ),
    Docstring("close", (), "Nothing is left open, and all is written.", "Close the file."),
]


@pytest.fixture(autouse=True)
def _closed():
    yield
    widths = [plt.figure(number).get_figwidth() for number in plt.get_fignums()]
    plt.close("all")
    assert max(widths, default=0) <= 6.8


def test_systems_without_training_read_the_same_text():
    found = systems.without_training(DEFINITIONS, lambda rows: np.eye(3)[: len(rows)] + 0.1)
    assert found["lead-1"] == ["The line is thin.", "Nothing is left open, and all is written."]
    assert found["name"] == ["draw line", "close"]
    assert found["first 8 words"][0] == "The line is thin. It has no end."
    assert found["TextRank"][0] in ("The line is thin.", "It has no end.", "It is red and long.")


def test_two_small_models_differ_only_by_the_pointer_and_start_alike():
    tokenizer = train_tokenizer(DEFINITIONS, 300)
    on, off = (
        systems.train_small(tokenizer, DEFINITIONS, copy, seed=1, steps=1)[0] for copy in (True, False)
    )
    assert on.model.pointer is not None
    assert off.model.pointer is None
    names = {name for name, _ in off.model.named_parameters()}
    assert {name for name, _ in on.model.named_parameters()} - names == {
        "pointer.query.weight", "pointer.key.weight", "pointer.gate.weight", "pointer.gate.bias",
    }  # fmt: skip


def test_lines_join_as_many_words_as_the_measure_counts():
    rng = np.random.default_rng(0)
    for _ in range(30):
        a, b = (list(rng.choice(list("abcd"), size=rng.integers(1, 8))) for _ in range(2))
        pairs = figures.matched(a, b)
        assert len(pairs) == lcs_length(a, b)
        assert all(a[i] == b[j] for i, j in pairs)
        assert all(x < y for one, two in pairwise(pairs) for x, y in zip(one, two, strict=True))
    axis = figures.common_words("Draw the red chart", "The chart is red")
    assert len(axis.texts) == 8 + 2 + 2  # words, arrows' annotations, and the names of the rows
    with pytest.raises(ValueError, match="of 1 to 11 words"):
        figures.common_words("a " * 12, "a")


def test_bars_and_points_are_what_they_are_given():
    axis = figures.two_ways({"draw": 0.5, "it": 0.5}, {"it": 1.0}, 0.25, {"it": 0.875, "draw": 0.125})
    assert "× p_gen = 0.25" in [text.get_text() for text in axis.texts]
    axes = figures.copying(["a", "$b", "c"], ["$b", "c"], np.eye(3)[1:], [0.25, 1.0])
    np.testing.assert_array_equal(axes[0].images[0].get_array(), np.eye(3)[1:])
    assert [bar.get_width() for bar in axes[1].patches] == [0.75, 0.0]
    axis = figures.intervals({"lead-1": (0.2, 0.1, 0.25), "model": (0.3, 0.29, 0.31)}, "ROUGE-L")
    assert [text.get_text() for text in axis.get_yticklabels()] == ["lead-1", "model"]
    axes = figures.votes(np.ones((2, 2)), [0.4, 0.6], ["1", "2"])
    assert [bar.get_width() for bar in axes[1].patches] == [0.4, 0.6]


def test_a_definition_is_found_by_its_name_and_another_stands_in():
    assert systems.named(DEFINITIONS, "close") is DEFINITIONS[1]
    assert systems.named(DEFINITIONS, "nowhere") is DEFINITIONS[0]
