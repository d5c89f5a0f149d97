"""Figures of chapter 8a: levels, damage three ways, the gradient of a step, seeds, soft targets, one chart."""

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from llmcourse.teach import plots

MARKERS = "osD^vPX*<>ph"


def levels(row: Tensor, by_scheme: Mapping[str, Tensor]) -> np.ndarray:
    """Draw how the weights of a row (N,) are spread, and in each panel the levels that a scheme offers."""
    _, axes = plots.new_figure(len(by_scheme), width=6.8, height=2.4, sharey=True)
    for axis, (name, values) in zip(axes, by_scheme.items(), strict=True):
        axis.hist(row.numpy(), bins=40, color="0.75")
        for value in values.tolist():
            axis.axvline(value, color=plots.COLORS[1], linewidth=0.8)
        axis.set(xlabel="weight")
        axis.locator_params(axis="x", nbins=4)
        axis.set_title(name, fontsize=10)
    axes[0].set_ylabel("weights of the row")
    return axes


def damage(rows: Mapping[str, Mapping[str, tuple[float, float]]]) -> np.ndarray:
    """Draw what each scheme costs, a panel for each measure: rows[scheme][measure] is (value, standard error).

    Bars are two standard errors. The axes are linear up to 0.01, then logarithmic.
    """
    names, measures = list(rows), list(next(iter(rows.values())))
    _, axes = plots.new_figure(len(measures), width=6.8, height=0.9 + 0.22 * len(rows), sharey=True)
    for axis, measure, color in zip(axes, measures, plots.COLORS, strict=False):
        values, errors = zip(*(row[measure] for row in rows.values()), strict=True)
        axis.axvline(0, color="0.6", linewidth=1)
        axis.errorbar(values, range(len(names)), xerr=2 * np.array(errors), fmt="o", color=color, capsize=2)
        axis.set_xscale("symlog", linthresh=0.01, linscale=0.6)
        axis.set_xticks([0, 0.01, 0.1, 1], ["0", "0.01", "0.1", "1"])
        axis.set(xlim=(-0.008, 3), xlabel="nats per token" if "KL" in measure else "change in bits per byte")
        axis.set_title(measure, fontsize=10)
    axes[0].set_yticks(range(len(names)), names, fontsize=8)
    axes[0].invert_yaxis()
    return axes


def straight_through(x: Tensor, rounded: Tensor, gradient: Tensor, low: float, high: float) -> np.ndarray:
    """Draw a rounded weight over the weight, and the gradient that is handed back: its own, and straight through."""
    _, axes = plots.new_figure(2, width=6.8, height=2.6)
    axes[0].plot(x, x.clamp(low, high), color="0.6", linestyle="--", label="as the backward pass sees it")
    axes[0].step(x, rounded, color=plots.COLORS[0], label="as the forward pass sees it")
    axes[0].set(xlabel="weight / scale + zero point", ylabel="code", ylim=(low - 0.2, high + 1.4))
    axes[1].plot(x, 0 * x, color=plots.COLORS[1], linestyle="--", label="slope of the steps")
    axes[1].step(x, gradient, color=plots.COLORS[0], label="straight through")
    axes[1].set(xlabel="weight / scale + zero point", ylabel="slope handed back", ylim=(-0.1, 1.6))
    for axis, title in zip(axes, ("forward", "backward"), strict=True):
        axis.set_title(title, fontsize=10)
        axis.legend(frameon=False, fontsize=8, loc="upper left")
    return axes


def seeds(rows: Mapping[str, Mapping[str, Sequence[float]]]) -> np.ndarray:
    """Draw a point for each seed of each method, and a line for its mean, in a panel for each measure.

    rows[method][measure] are the changes of its seeds; the first method, which has one, is a dotted line too.
    """
    names, measures = list(rows), list(next(iter(rows.values())))
    _, axes = plots.new_figure(len(measures), width=6.8, height=0.9 + 0.24 * len(rows), sharey=True)
    for axis, measure in zip(axes, measures, strict=True):
        for place, row in enumerate(rows.values()):
            values = np.asarray(row[measure])
            axis.plot(
                values, np.full(len(values), place), "o", color=plots.COLORS[0], alpha=0.6, markersize=4
            )
            axis.plot([values.mean()] * 2, [place - 0.3, place + 0.3], color="black", linewidth=1.5)
        axis.axvline(rows[names[0]][measure][0], color=plots.COLORS[1], linestyle=":", linewidth=1.5)
        axis.set(xlabel="nats per token" if "KL" in measure else "change in bits per byte")
        axis.set_xlim(left=0)
        axis.locator_params(axis="x", nbins=3)
        axis.set_title(measure, fontsize=10)
    axes[0].set_yticks(range(len(names)), names, fontsize=8)
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    return axes


def soft_targets(tokens: Sequence[str], by_temperature: Mapping[float, Sequence[float]]) -> np.ndarray:
    """Draw a teacher's probabilities of the same tokens at several temperatures, a panel for each."""
    _, axes = plots.new_figure(len(by_temperature), width=6.8, height=0.8 + 0.22 * len(tokens), sharey=True)
    for axis, (temperature, shares) in zip(axes, by_temperature.items(), strict=True):
        drawn = axis.barh(range(len(tokens)), shares, color=plots.COLORS[0])
        axis.bar_label(drawn, labels=[f"{share:.3f}" for share in shares], padding=2, fontsize=7)
        axis.set(xlabel="probability", xlim=(0, 1.35 * max(shares)))
        axis.set_title(f"temperature {temperature:g}", fontsize=10)
    axes[0].set_yticks(range(len(tokens)), [plots.printable(token) for token in tokens], fontsize=8)
    axes[0].invert_yaxis()
    return axes


def chart(points: Mapping[str, Sequence[tuple[float, float, float]]], budgets: Sequence[float]) -> np.ndarray:
    """Draw what all models cost over megabytes on disk, on held-out and on training text, a point each.

    points[method] are (bytes, change in bits per byte, held out and on training text). `budgets`, in bytes,
    are marked. The y axes are linear up to 0.01, then logarithmic.
    """
    _, axes = plots.new_figure(2, width=6.8, height=4.2)
    looks = zip(plots.COLORS * 2, MARKERS, strict=True)
    for (method, rows), (color, marker) in zip(points.items(), looks, strict=False):
        sizes, *losses = np.array(rows).T
        for axis, loss in zip(axes, losses, strict=True):
            axis.plot(sizes / 1e6, loss, marker, color=color, alpha=0.75, markersize=4.5, label=method)
    for axis, title in zip(axes, ("held-out text", "training text"), strict=True):
        axis.set(xscale="log", xlabel="file in MB")
        axis.set_yscale("symlog", linthresh=0.01, linscale=0.6)
        axis.set_yticks([0, 0.01, 0.1, 1], ["0", "0.01", "0.1", "1"])
        axis.set_ylim(-0.008, 2)
        axis.set_xticks([0.5, 1, 2, 4], ["0.5", "1", "2", "4"])
        axis.set_title(title, fontsize=10)
        axis.minorticks_off()
        for budget in budgets:
            axis.axvline(budget / 1e6, color="0.8", linewidth=1, zorder=0)
    axes[0].set_ylabel("change in bits per byte")
    figure = axes[0].figure
    names = axes[0].get_legend_handles_labels()
    figure.legend(*names, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return axes
