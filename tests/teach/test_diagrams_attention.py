"""The pictures of attention and the map: the right texts at the right places, and the numbers they stand for."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from diagram_tools import problems, text_at
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from llmcourse.teach.diagrams.attention import (
    cache_work,
    head_cuts,
    lookup_row,
    masked_scores,
    one_query,
    rotary_turns,
)
from llmcourse.teach.diagrams.course import course_map
from llmcourse.teach.diagrams.draw import FILLS

SLEPT = dict(
    tokens=["king", "crown", "slept"],
    query=[2, 1],
    keys=[[2, 0], [0, 1], [0, 0]],
    scores=[2.83, 0.71, 0.0],
    weights=[0.85, 0.10, 0.05],
    values=[[10, 0], [0, 10], [5, 5]],
    output=[8.73, 1.27],
)


@pytest.fixture(autouse=True)
def close():
    plt.switch_backend("Agg")
    yield
    plt.close("all")


def words(axis) -> list[str]:
    return [text.get_text() for text in axis.texts]


def filled(axis, fill) -> list[tuple[float, float]]:
    """Return the centres of the boxes with this fill, from top left, row by row."""
    found = [p for p in axis.patches if isinstance(p, Rectangle) and to_hex(p.get_facecolor()) == FILLS[fill]]
    centres = [(p.get_x() + p.get_width() / 2, p.get_y() + p.get_height() / 2) for p in found]
    return sorted(centres, key=lambda c: (-round(c[1], 3), c[0]))


# ---- one query -------------------------------------------------------------------------------


def test_one_query_puts_each_key_score_weight_and_value_in_the_row_of_its_token():
    axis = one_query(**SLEPT)
    assert problems(axis) == []
    for row in (
        ("king", "(2, 0)", "2.83", "0.85", "(10, 0)"),
        ("crown", "(0, 1)", "0.71", "0.10", "(0, 10)"),
    ):
        places = [text_at(axis, text) for text in row]
        assert len({y for _, y in places}) == 1, row
        assert [x for x, _ in places] == sorted(x for x, _ in places), "from left to right"
    assert text_at(axis, "(2, 1)")[0] < text_at(axis, "(2, 0)")[0]
    assert text_at(axis, "(8.73, 1.27)")[0] > text_at(axis, "(10, 0)")[0]
    assert words(axis).count("slept") == 3, "who asks, its own key, its output"


def test_one_query_thickens_the_arrow_of_the_largest_weight():
    axis = one_query(**SLEPT)
    to_output = [t for t in axis.texts if getattr(t, "arrow_patch", None) and t.xy[0] > 5.5]
    thick = [t.arrow_patch.get_linewidth() for t in sorted(to_output, key=lambda t: -t.xyann[1])]
    assert thick == sorted(thick, reverse=True)
    assert len(thick) == 3


@pytest.mark.parametrize("n", [1, 2, 6])
def test_one_query_with_other_numbers_of_tokens(n):
    names = ["to", " be", ",", " or", " not", " $5"][:n]
    axis = one_query(names, [1], [[1]] * n, [0.5] * n, [1 / n] * n, [[1]] * n, [1])
    assert problems(axis) == []
    with pytest.raises(ValueError, match=r"one of each"):
        one_query(names, [1], [[1]] * (n + 1), [0.5] * n, [1 / n] * n, [[1]] * n, [1])


# ---- scores and mask -------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 4])
def test_the_mask_is_drawn_where_torch_masks(n):
    scores = torch.arange(n * n).view(n, n) / 7
    weights = scores.masked_fill(torch.ones(n, n).triu(1).bool(), -torch.inf).softmax(-1)
    axis = masked_scores(["The", " king", " slept", "."][:n], scores, weights)
    assert problems(axis) == []
    assert words(axis).count("−∞") == n * (n - 1) // 2
    cells = sorted(filled(axis, "key") + [t.get_position() for t in axis.texts if t.get_text() == "−∞"])
    xs, ys = sorted({round(x, 3) for x, _ in cells}), sorted({round(y, 3) for _, y in cells}, reverse=True)
    for x, y in (t.get_position() for t in axis.texts if t.get_text() == "−∞"):
        assert xs.index(round(x, 3)) > ys.index(round(y, 3)), "column after row: the future"
    shown = [float(t) for t in words(axis) if t.replace(".", "").isdigit()]
    assert sum(shown) == pytest.approx(n + scores.tril().sum().item(), abs=0.01 * n * n)


# ---- four lookups ----------------------------------------------------------------------------


def test_four_arrows_end_at_the_symbols_that_are_asked_for():
    symbols = list("KDAFCBHEGJ")
    axis = lookup_row(symbols, position=6)
    assert problems(axis) == []
    assert {"1 back: B", "2 back: C", "3 back: F", "first: K"} <= set(words(axis))
    ends = sorted(t.xy[0] for t in axis.texts if getattr(t, "arrow_patch", None))
    assert ends == pytest.approx(sorted(text_at(axis, symbols[i])[0] for i in (5, 4, 3, 0)))
    for position in (2, 10):
        with pytest.raises(ValueError, match="outside the row"):
            lookup_row(symbols, position)


# ---- heads -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_tokens", "d_model", "n_heads"), [(4, 6, 2), (4, 8, 4), (3, 6, 3)])
def test_the_cuts_are_those_of_torch(n_tokens, d_model, n_heads):
    axis = head_cuts(n_tokens, d_model, n_heads)
    assert problems(axis) == []
    numbers = [t for t in axis.texts if t.get_text().isdigit()]
    half = n_tokens * d_model
    width = d_model // n_heads
    x = torch.arange(half).view(n_tokens, d_model)
    right = x.view(n_tokens, n_heads, width).transpose(0, 1)
    wrong = x.view(n_heads, n_tokens, width)
    for drawn, heads in ((numbers[:half], right), (numbers[half:], wrong)):
        for place, text in enumerate(drawn):
            assert place in heads[int(text.get_text())]
    with pytest.raises(ValueError, match="divisor"):
        head_cuts(2, 7, 2)


# ---- cache -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_prompt", "n_new"), [(4, 6), (1, 1), (2, 8)])
def test_the_work_is_what_the_loop_computes(n_prompt, n_new):
    axis = cache_work(n_prompt, n_new)
    assert problems(axis) == []
    naive = sum(n_prompt + step for step in range(n_new))
    cached = n_prompt + n_new - 1
    first, second = (t for t in words(axis) if t.endswith("computed"))
    assert (first, second) == (f"{naive} positions computed", f"{cached} positions computed")
    assert len(filled(axis, "key")) == naive + cached


# ---- rotary ----------------------------------------------------------------------------------


def test_hands_turn_by_their_positions_and_keep_their_angle_at_one_distance():
    places, angle, between = [(3, 1), (6, 4), (2, 2)], 0.3, 0.5
    axis = rotary_turns(places, angle, between)
    assert problems(axis) == []
    hands = [t for t in axis.texts if getattr(t, "arrow_patch", None)]
    turned = [np.arctan2(t.xy[1] - t.xyann[1], t.xy[0] - t.xyann[0]) for t in hands]
    for (m, n), q, k in zip(places, turned[::2], turned[1::2], strict=True):
        assert np.isclose(q, between + m * angle)
        assert np.isclose(k, n * angle)
    assert np.isclose(turned[0] - turned[1], turned[2] - turned[3]), "two apart in both"
    with pytest.raises(ValueError, match="1 to 3"):
        rotary_turns([(1, 0)] * 4)


# ---- the map ---------------------------------------------------------------------------------


def test_the_map_reads_from_left_to_right_and_from_top_to_bottom():
    parts = {
        "A look": ["00 start", "01 background"],
        "Inside": ["04a attention", "04b heads", "04c positions"],
    }
    axis = course_map(parts)
    assert problems(axis) == []
    numbers = [t for t in words(axis) if t[:1] == "0"]
    assert numbers == ["00", "01", "04a", "04b", "04c"]
    places = [text_at(axis, n) for n in numbers]
    assert places == sorted(places, key=lambda p: (-p[1], p[0]))
    arrows = [t for t in axis.texts if getattr(t, "arrow_patch", None)]
    assert len(arrows) == len(numbers) - 1, "one path"
    assert np.isclose(text_at(axis, "Inside")[1], text_at(axis, "04a")[1], atol=0.4)
