"""Figures of chapter 9: losses over sizes, a prediction and what came, rates over widths, models over needs."""

from collections.abc import Callable, Iterable, Mapping
from statistics import mean

import numpy as np
from matplotlib.axes import Axes

from llmcourse.teach import plots
from llmcourse.teach.chapters.ch09_faq.stored import cells

MARKERS = "osD^vP"


def over_sizes(
    rows: Iterable[Mapping],
    law: Callable | None = None,
    held_back: Iterable[Mapping] = (),
    predictions: Mapping[float, object] | None = None,
) -> Axes:
    """Draw each run as a point, a colour for each number of tokens; a law as lines; held-back runs hollow.

    `predictions` maps tokens to a `Prediction`, drawn as an interval at the held-back size.
    """
    axis = plots.new_figure(height=3.3)[1]
    rows, held_back = list(rows), list(held_back)
    sizes = [row["parameters"] for row in [*rows, *held_back]]
    grid = np.geomspace(min(sizes) / 1.15, max(sizes) * 1.15, 60)
    for i, tokens in enumerate(sorted({row["tokens"] for row in rows})):
        color, marker, style = plots.COLORS[i], MARKERS[i], plots.STYLES[i]
        for part, fill in ((rows, color), (held_back, "none")):
            points = [(row["parameters"], row["bits"]) for row in part if row["tokens"] == tokens]
            name = f"{tokens:,.0f} tokens" if part is rows else None
            axis.plot(
                *zip(*points, strict=True), marker, color=color, mfc=fill, markersize=4, label=name
            ) if points else None
        if law is not None:
            axis.plot(grid, law(grid, tokens), style, color=color, linewidth=1)
        if predictions and tokens in predictions:
            found, at = predictions[tokens], max(sizes)
            axis.plot([at * 1.06] * 2, [found.low, found.high], color=color, linewidth=4, alpha=0.5)
    axis.set(xscale="log", xlabel="parameters in the blocks", ylabel="held-out bits per byte")
    axis.legend(frameon=False, fontsize=8)
    return axis


def rates(rows: Iterable[Mapping]) -> np.ndarray:
    """Draw the mean loss over the learning rate, a line for each width: the usual way on the left, muP on the right."""
    _, axes = plots.new_figure(2, width=6.8, height=2.9, sharey=True)
    rows = list(rows)
    base = min(row["width"] for row in rows)
    for axis, mup in zip(axes, (False, True), strict=True):
        chosen = [row for row in rows if row["mup"] is mup or row["width"] == base]
        found = {key: mean(values) for key, values in cells(chosen, "width", "log2_rate").items()}
        for i, width in enumerate(sorted({width for width, _ in found})):
            points = [(rate, bits) for (w, rate), bits in found.items() if w == width and np.isfinite(bits)]
            x, y = zip(*points, strict=True)
            axis.plot(
                x,
                y,
                plots.STYLES[i],
                color=plots.COLORS[i],
                marker=MARKERS[i],
                markersize=3,
                label=f"width {width:.0f}",
            )
            best = int(np.argmin(y))
            axis.plot(x[best], y[best], "o", color=plots.COLORS[i], mfc="none", markersize=9)
        axis.set(xlabel="log2 of the learning rate", title="muP" if mup else "the usual way")
    axes[0].set_ylabel("held-out bits per byte")
    axes[0].legend(frameon=False, fontsize=8)
    return axes


def memory(models: Mapping[str, Mapping[str, float]]) -> Axes:
    """Draw for each model its gigabytes, a mark for each precision, and for the cache of its longest text."""
    axis = plots.new_figure(height=0.9 + 0.24 * len(models))[1]
    kinds = list(next(iter(models.values())))
    for i, kind in enumerate(kinds):
        pairs = [(row[kind], y) for y, row in enumerate(models.values()) if row[kind]]
        x, y = zip(*pairs, strict=True)
        axis.plot(x, y, MARKERS[i], color=plots.COLORS[i], mfc="none", markersize=6, label=kind)
    axis.set_yticks(range(len(models)), list(models), fontsize=8)
    axis.invert_yaxis()
    axis.grid(axis="y", color="0.92")
    axis.set(xscale="log", xlabel="GB")
    axis.legend(frameon=False, fontsize=8, ncols=len(kinds), loc="lower center", bbox_to_anchor=(0.45, 1.0))
    return axis
