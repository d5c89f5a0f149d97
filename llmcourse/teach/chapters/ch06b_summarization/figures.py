"""The figures of `06b_summarization`."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from llmcourse.evaluate.rouge import words
from llmcourse.teach import plots
from llmcourse.teach.diagrams.draw import SMALL, arrow, bars, box, canvas, label


def matched(a: Sequence[str], b: Sequence[str]) -> list[tuple[int, int]]:
    """Return the places (i, j) of one longest common subsequence of two lists of words.

    >>> matched("draw the chart".split(), "draw a red chart".split())
    [(0, 0), (2, 3)]
    """
    best = np.zeros((len(a) + 1, len(b) + 1), int)  # best[i, j]: of what follows a[:i] and b[:j]
    for i in reversed(range(len(a))):
        for j in reversed(range(len(b))):
            best[i, j] = best[i + 1, j + 1] + 1 if a[i] == b[j] else max(best[i + 1, j], best[i, j + 1])
    i = j = 0
    pairs = []
    while i < len(a) and j < len(b):
        if a[i] == b[j]:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif best[i + 1, j] >= best[i, j + 1]:
            i += 1
        else:
            j += 1
    return pairs


def common_words(summary: str, reference: str) -> Axes:
    """Draw two texts, word by word, with a line between words that ROUGE-L counts; grey is shared, but out of order.

    >>> axis = common_words("Draw the chart.", "Draw a red chart.")
    >>> axis.texts[0].get_text()
    'draw'
    """
    rows = words(summary), words(reference)
    if not all(rows) or max(map(len, rows)) > 11:
        raise ValueError(f"texts of {[len(row) for row in rows]} words: give two, of 1 to 11 words each")
    axis = canvas(6.8, 1.7)
    left, right = 0.9, 6.75
    pairs = matched(*rows)
    places = []
    for row, y, side in zip(rows, (1.35, 0.35), (0, 1), strict=True):
        width = (right - left) / max(map(len, rows))
        found = {pair[side] for pair in pairs}
        shared = set(rows[1 - side])
        places.append([])
        for i, word in enumerate(row):
            fill = "query" if i in found else "soft" if word in shared else "plain"
            places[side].append(box(axis, left + (i + 0.5) * width, y, word, width - 0.06, 0.3, fill, SMALL))
    for i, j in pairs:
        arrow(axis, places[0][i].bottom, places[1][j].top, weight=1.5)
    label(axis, 0.42, 1.35, "summary", SMALL)
    label(axis, 0.42, 0.35, "reference", SMALL)
    return axis


def votes(weights, ranks, names: Sequence[str]) -> list[Axes]:
    """Draw how strongly sentences point to each other (N, N), and what follows: the rank of each (N,).

    >>> axes = votes([[0, 1], [1, 0]], [0.5, 0.5], ["1", "2"])
    >>> axes[1].get_xlabel()
    'rank'
    """
    _, axes = plots.new_figure(2, width=6.8, height=2.9)
    labels = dict(x_label="sentence j", y_label="sentence i", axis=axes[0], cmap="Greys", vmin=0)
    plots.heatmap(weights, names, names, "i points to j: cosine", **labels)
    plots.bars(dict(zip(names, map(float, ranks), strict=True)), "rank", "PageRank", axes[1], "{:.3f}")
    axes[1].set_xlim(0, 1.25 * max(ranks))
    return list(axes)


def two_ways(
    vocabulary: dict[str, float], copied: dict[str, float], p_gen: float, mixed: dict[str, float]
) -> Axes:
    """Draw a distribution over the vocabulary, one over the source, and their mixture.

    >>> axis = two_ways({"draw": 0.9, "kelvin": 0.1}, {"kelvin": 1.0}, 0.5, {"draw": 0.45, "kelvin": 0.55})
    >>> axis.texts[0].get_text()
    'vocabulary'
    """
    rows = max(map(len, (vocabulary, copied, mixed)))
    height = 0.8 + 0.26 * rows
    axis = canvas(6.8, height)
    titles = "vocabulary", "positions of the source", "word that is written"
    for values, title, x, fill in zip(
        (vocabulary, copied, mixed), titles, (0.8, 3.1, 5.5), ("query", "key", "value"), strict=True
    ):
        label(axis, x + 0.25, height - 0.2, title)
        bars(axis, x, height - 0.5, values, 0.75, fill=fill)
    label(axis, 1.1, 0.15, f"× p_gen = {p_gen:.2f}")
    label(axis, 3.4, 0.15, f"× 1 - p_gen = {1 - p_gen:.2f}")
    label(axis, 5.75, 0.15, "sum")
    return axis


def copying(source: Sequence[str], written: Sequence[str], weights, p_gen) -> list[Axes]:
    """Draw where each written token would be copied from (T, S), and the probability that it is copied (T,).

    >>> axes = copying(["a", " b"], [" b"], [[0.1, 0.9]], [0.2])
    >>> axes[1].get_xlabel()
    'copied, 1 - p_gen'
    """
    _, axes = plots.new_figure(
        2, width=6.8, height=1.1 + 0.22 * len(written), width_ratios=[5, 1], sharey=True
    )
    axes[0].imshow(np.asarray(weights), vmin=0, vmax=1, cmap="Greys", aspect="auto", interpolation="nearest")
    axes[0].set_xticks(range(len(source)), map(plots.printable, source), rotation=90, fontsize=7)
    axes[0].set_yticks(range(len(written)), map(plots.printable, written), fontsize=8)
    axes[0].set(xlabel="token of the source", ylabel="token that is written")
    axes[1].barh(range(len(written)), 1 - np.asarray(p_gen), color=plots.COLORS[1])
    axes[1].set(xlabel="copied, 1 - p_gen", xlim=(0, 1))
    return list(axes)


def intervals(table: dict[str, tuple[float, float, float]], x_label: str) -> Axes:
    """Draw a point with its interval (mean, low, high) for each name, the first on top.

    >>> intervals({"lead-1": (0.2, 0.19, 0.21)}, "ROUGE-L").get_xlabel()
    'ROUGE-L'
    """
    axis = plots.new_figure(width=6.4, height=0.8 + 0.32 * len(table))[1]
    for place, (mean, low, high) in enumerate(table.values()):
        axis.errorbar(
            mean, place, xerr=[[mean - low], [high - mean]], fmt="o", color=plots.COLORS[0], capsize=4
        )
        axis.annotate(
            f"{mean:.3f}", (mean, place), (0, 6), textcoords="offset points", ha="center", fontsize=8
        )
    axis.set_yticks(range(len(table)), list(table))
    axis.set_ylim(len(table) - 0.5, -0.7)
    axis.set_xlim(left=0)
    axis.set_xlabel(x_label)
    return axis
