"""Pictures of attention: one query, the table of scores, four lookups, heads as cuts, what a cache saves.

Each takes its numbers and words as arguments and returns the axis that it drew.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Circle

from llmcourse.teach.diagrams.draw import INKS, SMALL, arrow, box, canvas, grid, label
from llmcourse.teach.plots import printable


def one_query(tokens: Sequence[str], query, keys, scores, weights, values, output, asking: int = -1) -> Axes:
    """Draw what attention does for one token: its query against all keys, scores, weights, values, their mean.

    query, output: one vector; keys, values: a vector for each token; scores, weights: a number for each.
    asking: the place of the token whose query it is.

    >>> axis = one_query(["I", "slept"], [2, 1], [[2, 0], [0, 0]], [2.8, 0], [0.94, 0.06], [[9], [5]], [8.8])
    >>> axis.texts[0].get_text()
    'query'
    """
    counts = [len(part) for part in (tokens, keys, scores, weights, values)]
    if len(set(counts)) > 1:
        raise ValueError(
            f"tokens, keys, scores, weights, values: {counts} of them; give one of each for a token"
        )
    gap = 0.52
    axis = canvas(6.8, 1.0 + gap * len(tokens))
    top = axis.get_ylim()[1]
    rows = [top - 0.75 - i * gap for i in range(len(tokens))]
    middle = (rows[0] + rows[-1]) / 2
    columns = {0.6: "query", 2.15: "keys", 3.0: "scores", 3.95: "weights", 5.15: "values", 6.25: "output"}
    for x, text in columns.items():
        label(axis, x, top - 0.2, text, weight="bold")
    asks = box(axis, 0.6, middle, vector(query), 0.8, fill="query")
    mean = box(axis, 6.25, middle, vector(output), 0.95, fill="value")
    for x in (0.6, 6.25):
        label(axis, x, middle + 0.33, printable(tokens[asking]), style="italic")
    for i, y in enumerate(rows):
        key = box(axis, 2.15, y, vector(keys[i]), 0.7, 0.32, fill="key")
        label(axis, 1.75, y, printable(tokens[i]), SMALL, align="right", style="italic")
        arrow(axis, asks.right, (1.32, y), color=INKS["query"])
        label(axis, 3.0, y, f"{scores[i]:.2f}", SMALL)
        arrow(axis, key.right, (2.8, y), color="0.6")
        label(axis, 3.72, y, f"{weights[i]:.2f}", SMALL, align="right")
        arrow(axis, (3.2, y), (3.42, y), color="0.6")
        box(axis, 3.78 + 0.4 * weights[i], y, width=0.8 * weights[i], height=0.2, fill="soft")
        value = box(axis, 5.15, y, vector(values[i]), 0.75, 0.32, fill="value")
        arrow(axis, value.right, mean.left, weight=0.5 + 4 * weights[i], color=INKS["value"])
    label(axis, 1.3, 0.17, "q · k / √d, each key", SMALL)
    label(axis, 3.55, 0.17, "softmax: positive, sum 1", SMALL)
    label(axis, 5.7, 0.17, "mean with these weights", SMALL)
    return axis


def masked_scores(tokens: Sequence[str], scores, weights) -> Axes:
    """Draw QKᵀ as a table, its future hidden by −∞, beside the weights after the softmax; rows are queries.

    scores, weights: (T, T), as numbers before the mask and after the softmax.

    >>> axis = masked_scores(["I", "slept"], [[1.0, 2.0], [3.0, 4.0]], [[1, 0], [0.3, 0.7]])
    >>> [text.get_text() for text in axis.texts].count("−∞")
    1
    """
    n, cell = len(tokens), (0.55, 0.36)
    side = n * cell[0]
    future = np.triu(np.ones((n, n), dtype=bool), 1)
    axis = canvas(min(6.8, 2 * side + 2.9), n * cell[1] + 1.05)
    top, right = axis.get_ylim()[1] - 0.6, side + 2.4
    names = [printable(token) for token in tokens]
    written = np.where(future, "−∞", np.vectorize("{:.2f}".format)(scores))
    grid(axis, 0.75, top, written, names, names, cell, np.where(future, "soft", "key"))
    shown = np.where(future, "0", np.vectorize("{:.2f}".format)(weights))
    grid(axis, right, top, shown, (), names, cell, np.where(future, "soft", "query"))
    label(axis, 0.75 + side / 2, top + 0.4, "scores QKᵀ / √d, future masked", weight="bold")
    label(axis, right + side / 2, top + 0.4, "weights", weight="bold")
    middle = top - n * cell[1] / 2
    arrow(axis, (0.85 + side, middle), (right - 0.1, middle), "softmax of each row", offset=(0, 0.13))
    label(axis, 0.75 + side / 2, 0.2, "a row asks (query), a column is asked (key)", SMALL)
    label(axis, right + side / 2, 0.2, "each row sums to 1", SMALL)
    return axis


def lookup_row(symbols: Sequence, position: int, back: Sequence[int] = (1, 2, 3)) -> Axes:
    """Draw a row of symbols and, from the one at `position`, an arrow to each place that it is asked about.

    back: how many places back each question goes; one more asks for the first symbol.

    >>> axis = lookup_row(list("ABCDEFGHIJ"), position=6)
    >>> [text.get_text() for text in axis.texts if "back" in text.get_text()]
    ['1 back: F', '2 back: E', '3 back: D']
    """
    places = [position - k for k in back] + [0]
    if position >= len(symbols) or min(places) < 0:
        raise ValueError(f"position {position} of {len(symbols)}, {max(back)} places back: outside the row")
    axis = canvas(6.4, 2.0)
    width = 5.6 / len(symbols)
    fills = [["value" if i in places else "query" if i == position else "plain" for i in range(len(symbols))]]
    (row,) = grid(axis, 0.4, 0.75, [symbols], (), (), (width, 0.4), fills, size=SMALL + 2)
    for i, cell in enumerate(row):
        label(axis, cell.x, 0.22, str(i), SMALL, color="0.4")
    names = [f"{k} back" for k in back] + ["first"]
    for i, (name, place) in enumerate(zip(names, places, strict=True)):
        start, end, over = row[position].top, row[place].top, 0.99 + 0.24 * i
        axis.plot([start[0], start[0], end[0]], [start[1], over, over], color=INKS["query"], linewidth=1)
        arrow(axis, (end[0], over), end, color=INKS["query"])
        label(axis, start[0] + 0.08, over, f"{name}: {symbols[place]}", SMALL, align="left")
    return axis


def head_cuts(n_tokens: int, d_model: int, n_heads: int) -> Axes:
    """Draw which head gets which number of x (T, C): the width cut, and the reshape that mixes tokens up.

    A number of a cell, and its fill, is the head. Right: `x.view(T, H, D)` with H and T exchanged; wrong:
    `x.view(H, T, D)`, which has the same shape.

    >>> axis = head_cuts(n_tokens=2, d_model=4, n_heads=2)
    >>> [text.get_text() for text in axis.texts][:4]
    ['0', '0', '1', '1']
    """
    if d_model % n_heads:
        raise ValueError(f"a width of {d_model} cannot be cut in {n_heads} heads: choose a divisor")
    axis = canvas(6.6, 1.0 + 0.32 * n_tokens)
    top = axis.get_ylim()[1] - 0.4
    place = np.arange(n_tokens * d_model).reshape(n_tokens, d_model)
    width = d_model // n_heads
    tokens = [f"token {t}" for t in range(n_tokens)]
    for x, owner, name, result in (
        (0.75, place % d_model // width, "right: the width is cut", "a head sees a part of every token"),
        (
            4.0,
            place // (n_tokens * width),
            "wrong: same shape, other numbers",
            "a head sees some tokens only",
        ),
    ):
        looks = np.array(["query", "key", "value", "soft"], dtype=object)[owner % 4]
        grid(axis, x, top, owner, tokens, (), (2.4 / d_model, 0.32), looks)
        label(axis, x + 1.2, top + 0.2, name, weight="bold")
        label(axis, x + 1.2, 0.25, result, SMALL)
    return axis


def cache_work(n_prompt: int, n_new: int) -> Axes:
    """Draw which positions each step of writing computes, without a cache and with one.

    A row is a step, a column a position; step s reads a text of n_prompt + s tokens.

    >>> axis = cache_work(n_prompt=3, n_new=4)
    >>> [text.get_text() for text in axis.texts][-2:]
    ['with a cache', '6 positions computed']
    """
    n = n_prompt + n_new - 1
    reads = np.array([[j < n_prompt + s for j in range(n)] for s in range(n_new)])
    fresh = np.array([[s == 0 or j == n_prompt + s - 1 for j in range(n)] for s in range(n_new)]) & reads
    axis = canvas(6.6, 0.95 + 0.26 * n_new)
    top, steps = axis.get_ylim()[1] - 0.4, [f"step {s + 1}" for s in range(n_new)]
    for x, computed, name in ((0.7, reads, "without a cache"), (4.0, fresh, "with a cache")):
        looks = np.where(computed, "key", np.where(reads, "soft", "plain"))
        grid(axis, x, top, [[None] * n] * n_new, steps, (), (2.4 / n, 0.26), looks)
        label(axis, x + 1.2, top + 0.2, name, weight="bold")
        label(axis, x + 1.2, 0.2, f"{computed.sum()} positions computed", SMALL)
    return axis


def vector(numbers) -> str:
    """Write a vector as in the text.

    >>> vector([2.0, 0.25])
    '(2, 0.25)'
    """
    return "(" + ", ".join(f"{float(x):.3g}" for x in numbers) + ")"


def rotary_turns(places: Sequence[tuple[int, int]], angle: float = 0.35, between: float = 0.6) -> Axes:
    """Draw a query and a key as hands of a clock, turned by their positions, for pairs (m, n) of positions.

    angle: radians that a hand turns for one position; between: the angle from key to query before turning.

    >>> axis = rotary_turns([(3, 1), (6, 4)])
    >>> [text.get_text() for text in axis.texts if "between" in text.get_text()]
    ['2 apart: 74° between them', '2 apart: 74° between them']
    """
    if not 1 <= len(places) <= 3:
        raise ValueError(f"{len(places)} pairs of positions: a page holds 1 to 3 clocks")
    axis, radius = canvas(2.2 * len(places) + 0.15, 2.6), 0.65
    for i, (m, n) in enumerate(places):
        centre = (1.175 + 2.2 * i, 1.3)
        axis.add_patch(Circle(centre, radius, facecolor="white", edgecolor="0.6"))
        for name, turned, ink in (("q", between + m * angle, "query"), ("k", n * angle, "key")):
            tip = centre[0] + radius * np.cos(turned), centre[1] + radius * np.sin(turned)
            arrow(axis, centre, tip, weight=2, color=INKS[ink])
            end = centre[0] + 0.82 * np.cos(turned), centre[1] + 0.82 * np.sin(turned)
            label(axis, *end, name, weight="bold", color=INKS[ink])
        label(axis, centre[0], 2.42, f"query at {m}, key at {n}", weight="bold")
        degrees = np.degrees(between + (m - n) * angle)
        label(axis, centre[0], 0.2, f"{m - n} apart: {degrees:.0f}° between them", SMALL)
    return axis
