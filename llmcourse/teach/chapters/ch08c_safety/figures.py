"""Figures of chapter 8c: shares with intervals, exposure over copies, count and share of poison, two refusals."""

from collections.abc import Mapping, Sequence
from statistics import mean

import numpy as np
from matplotlib.axes import Axes

from llmcourse.teach import plots

MARKERS = "osD^vP"
Interval = tuple[float, float, float]  # value, low, high


def shares(rows: Mapping[str, Mapping[str, Interval]], grey: Sequence[str] = ()) -> np.ndarray:
    """Draw shares with their intervals, a row for each name and a panel for each measure.

    rows[name][measure] is (value, low, high). Names in `grey` stand on a grey band.
    """
    names, measures = list(rows), list(next(iter(rows.values())))
    _, axes = plots.new_figure(len(measures), width=6.8, height=0.9 + 0.28 * len(rows), sharey=True)
    for axis, measure in zip(np.atleast_1d(axes), measures, strict=True):
        for place, name in enumerate(names):
            _interval(axis, rows[name][measure], place, plots.COLORS[0], "o")
            if name in grey:
                axis.axhspan(place - 0.5, place + 0.5, color="0.93", zorder=0)
        axis.set(xlim=(-0.04, 1.04), xlabel="share", title="")
        axis.set_title(measure, fontsize=10)
    first = np.atleast_1d(axes)[0]
    first.set_yticks(range(len(names)), names, fontsize=8)
    first.set_ylim(len(names) - 0.5, -0.5)
    return axes


def before_and_after(
    rows: Mapping[str, Sequence[Interval]], names: Sequence[str], x_label: str, grey: Sequence[str] = ()
) -> Axes:
    """Draw shares before, after ... with their intervals beside each other: rows[family] has one for each name.

    Families in `grey` stand on a grey band.
    """
    _, axis = plots.new_figure(width=6.4, height=1.1 + 0.36 * len(rows))
    gap = 0.56 / max(1, len(names) - 1) if len(names) > 1 else 0.0
    for place, (family, values) in enumerate(rows.items()):
        for i, value in enumerate(values):
            at = place + (i - (len(names) - 1) / 2) * gap
            label = names[i] if place == 0 else None
            _interval(axis, value, at, plots.COLORS[i], MARKERS[i], label)
        if family in grey:
            axis.axhspan(place - 0.5, place + 0.5, color="0.93", zorder=0)
    axis.set_yticks(range(len(rows)), list(rows), fontsize=8)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set(xlim=(-0.03, 1.03), xlabel=x_label)
    axis.figure.legend(loc="outside upper center", ncols=len(names), frameon=False, fontsize=8)
    return axis


def _interval(axis: Axes, value: Interval, y: float, color, marker: str, label=None, **options) -> None:
    middle, low, high = value
    error = [[max(0.0, middle - low)], [max(0.0, high - middle)]]  # an end may lie a rounding inside
    axis.errorbar([middle], [y], xerr=error, fmt=marker, color=color, capsize=2, label=label, **options)


def over_copies(
    curves: Mapping[str, Mapping[int, Sequence[float]]], chance: float, most: float, label: str
) -> Axes:
    """Draw exposure over how often a canary was planted, a point for each seed and a line through the means.

    curves[name] maps a number of copies to the values of its seeds; 0 copies stand to the left of 1.
    Dotted: `chance`, what a canary that was never planted has on average, and `most`, that of rank 1.
    """
    _, axis = plots.new_figure(width=6.6, height=3.2)
    counts = sorted({count for curve in curves.values() for count in curve})
    place = {count: i for i, count in enumerate(counts)}
    looks = zip(plots.COLORS, plots.STYLES, MARKERS, strict=True)
    for i, ((name, curve), (color, style, marker)) in enumerate(zip(curves.items(), looks, strict=False)):
        shift = 0.06 * (i - (len(curves) - 1) / 2)
        x = [place[count] + shift for count in sorted(curve)]
        middles = [mean(curve[count]) for count in sorted(curve)]
        axis.plot(x, middles, color=color, linestyle=style, marker=marker, markersize=5, label=name)
        for at, count in zip(x, sorted(curve), strict=True):
            axis.plot([at] * len(curve[count]), curve[count], marker, color=color, alpha=0.35, markersize=3)
    for value, text in ((chance, "never planted, expected"), (most, "rank 1")):
        axis.axhline(value, color="0.4", linestyle=":", linewidth=1)
        place_of = dict(textcoords="offset points", xytext=(0, 3 if value == most else -10), ha="right")
        axis.annotate(text, (len(counts) - 1, value), fontsize=8, color="0.3", **place_of)
    axis.set_xticks(range(len(counts)), [str(count) for count in counts])
    axis.set(xlabel="copies of the canary in the training text", ylabel=label, ylim=(0, 1.1 * most))
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return axis


def count_and_share(points: Mapping[str, Sequence[tuple[int, float, float]]], y_label: str) -> np.ndarray:
    """Draw the same points over the number of poisoned texts and over their share, a curve for each name.

    points[name] are (count, share, value), several for a count where there are several seeds: the line
    goes through their means.
    """
    _, axes = plots.new_figure(2, width=6.8, height=3.2, sharey=True)
    looks = zip(plots.COLORS, plots.STYLES, MARKERS, strict=True)
    for (name, rows), (color, style, marker) in zip(points.items(), looks, strict=False):
        for axis, column in zip(axes, (0, 1), strict=True):
            xs = sorted({row[column] for row in rows})
            means = [mean(row[2] for row in rows if row[column] == x) for x in xs]
            axis.plot(xs, means, color=color, linestyle=style, label=name)
            axis.plot(
                [r[column] for r in rows], [r[2] for r in rows], marker, color=color, alpha=0.5, markersize=4
            )
    for axis, x_label in zip(axes, ("poisoned texts", "share of the texts that are poisoned"), strict=True):
        axis.set(xscale="log", xlabel=x_label, ylim=(-0.04, 1.04))
        axis.minorticks_off()
    counts = sorted({row[0] for rows in points.values() for row in rows})
    axes[0].set_xticks(counts, [str(count) for count in counts])
    axes[0].set_ylabel(y_label)
    axes[0].figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=8
    )
    return axes


def two_refusals(models: Mapping[str, Mapping[str, tuple[Interval, Interval]]]) -> Axes:
    """Draw attack success over over-refusal with both intervals: models[model][families] is that pair.

    A model is a colour and a marker, filled for the first kind of families and hollow for the next.
    The best place is the lower left corner.
    """
    _, axis = plots.new_figure(width=6.0, height=3.4)
    for (model, kinds), color, marker in zip(models.items(), plots.COLORS, MARKERS, strict=False):
        for (kind, (attacks, refused)), fill in zip(kinds.items(), (color, "white"), strict=False):
            across, up = ([[max(0.0, v - low)], [max(0.0, high - v)]] for v, low, high in (refused, attacks))
            error = dict(xerr=across, yerr=up, capsize=2, label=f"{model}, {kind}")
            axis.errorbar(
                [refused[0]], [attacks[0]], fmt=marker, color=color, mfc=fill, clip_on=False, **error
            )
    axis.set(xlabel="share of allowed requests that are refused", ylabel="share of attacks that succeed")
    axis.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return axis
