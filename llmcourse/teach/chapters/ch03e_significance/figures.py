"""The figures of chapter 3e, significance."""

from collections.abc import Mapping, Sequence

import numpy as np

from llmcourse.evaluate.significance import bootstrap_interval
from llmcourse.teach import plots


def bootstrap_histogram(means: Sequence[float], low: float, high: float) -> None:
    """Draw how often each mean came up among the resamples, with the ends of the interval as dashes."""
    axis = plots.new_figure(width=5.6, height=2.2)[1]
    counts, edges, bars = axis.hist(means, bins=50, color="0.85", edgecolor="0.6", linewidth=0.4)
    for bar, middle in zip(bars, (edges[:-1] + edges[1:]) / 2, strict=True):
        if low <= middle <= high:
            bar.set_facecolor(plots.COLORS[0])
    for end, side, shift in ((low, "right", -4), (high, "left", 4)):
        axis.axvline(end, color="black", linestyle="--", linewidth=1)
        place = dict(xytext=(shift, 0), textcoords="offset points", ha=side)
        axis.annotate(f"{end:.1%}", (end, counts.max()), fontsize=9, **place)
    axis.set(ylim=(0, 1.15 * counts.max()), xlabel="accuracy of a resample", ylabel="resamples")
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    plots.show()


def alone_and_paired(a: Sequence, b: Sequence, names: tuple[str, str]) -> None:
    """Draw the intervals of two models, each alone, and beside them that of their paired difference."""
    _, axes = plots.new_figure(2, width=6.2, height=1.4)
    rows = ({names[0]: a, names[1]: b}, {"difference": np.asarray(a) - np.asarray(b)})
    for axis, samples in zip(axes, rows, strict=True):
        for i, sample in enumerate(samples.values()):
            axis.plot(bootstrap_interval(sample), [i, i], color=plots.COLORS[0])
            axis.plot(np.mean(sample), i, "o", color=plots.COLORS[0])
        axis.set(yticks=range(len(samples)), yticklabels=list(samples), ylim=(len(samples) - 0.5, -0.5))
        axis.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.1f}")
    axes[0].set_xlabel("right, percent: each alone")
    axes[1].set_xlabel("points, on the same reviews")
    axes[1].axvline(0, color="black", linestyle="--")
    plots.show()


def power_curves(power: Mapping[int, Mapping[int, float]]) -> None:
    """Draw the power over the number of items, a line for each true difference in points."""
    axis = plots.new_figure(width=5.6, height=2.2)[1]
    curves = {f"better by {k}": (list(by_n), list(by_n.values())) for k, by_n in power.items()}
    plots.lines(curves, "number of items (paired)", "share with p < 0.05", axis=axis)
    sizes = list(next(iter(power.values())))
    axis.set_xscale("log", base=2)
    axis.set_xticks(sizes, sizes)
    axis.axhline(0.8, color="0.6", linewidth=0.8)
    axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    plots.show()


def halving_figure(trials: Sequence, winner) -> None:
    """Draw the loss of each configuration over the units that it was given; those trained longest in blue."""
    runs: dict[int, list] = {}
    for trial in trials:
        runs.setdefault(id(trial.config), []).append((trial.steps, -trial.score))
    axis = plots.new_figure(width=5.6, height=2.8)[1]
    for points in runs.values():
        color = plots.COLORS[0] if points[-1][0] == winner.steps else "0.6"
        axis.plot(*np.array(points).T, marker="o", markersize=3, linewidth=1, color=color)
    axis.set(xscale="log", xlabel="units of training (4 steps each)", ylabel="loss on the tuning text")
    axis.minorticks_off()
    axis.set_xticks([1, 3, 9, 27], [1, 3, 9, 27])
    plots.show()


def gains_by_pool(gains: Mapping[str, Sequence[float]]) -> None:
    """Draw what each search saves against random search: a mark for each pool, a bar for their mean."""
    axis = plots.new_figure(width=5.6, height=1.7)[1]
    for i, values in enumerate(gains.values()):
        axis.plot(values, [i] * len(values), "o", color=plots.COLORS[0], markersize=5, alpha=0.7)
        axis.plot([np.mean(values)] * 2, [i - 0.25, i + 0.25], color="black", linewidth=2)
    axis.axvline(0, color="black", linestyle="--", linewidth=1)
    axis.set(yticks=range(len(gains)), yticklabels=list(gains), ylim=(len(gains) - 0.5, -0.5))
    axis.set_xlabel("loss saved against random search (a mark for each pool, bars: their mean)")
    plots.show()
