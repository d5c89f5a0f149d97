"""Figures of chapter 8d: runs over seeds, the clipped objective, pairs, and the best of n answers."""

from collections.abc import Mapping, Sequence

import numpy as np

from llmcourse.teach import plots

NAMES = {
    "reward": "reward that is trained on",
    "exact": "share right, sampled in training",
    "greedy": "share right, greedy",
    "sampled": "share right, sampled",
    "kl": "KL from the start, nats",
    "length": "tokens of an answer",
}


def runs(curves: Mapping[str, Mapping[str, tuple]], columns: Sequence[str]) -> np.ndarray:
    """Draw a panel for each column, a line for each method: the mean over seeds, and in grey the range.

    curves[method][column] is (steps (S,), values (seeds, S)), as `measures.curve` returns it.
    """
    _, axes = plots.new_figure(len(columns), width=6.8, height=3.0)
    looks = list(zip(plots.COLORS, plots.STYLES, strict=True))
    for axis, column in zip(np.atleast_1d(axes), columns, strict=True):
        for (method, found), (color, style) in zip(curves.items(), looks, strict=False):
            steps, values = found[column]
            axis.fill_between(steps, values.min(0), values.max(0), color="0.88", linewidth=0)
            axis.plot(steps, values.mean(0), color=color, linestyle=style, label=method)
        axis.set(xlabel="step", ylim=(0, None if column in ("kl", "length") else 1.02))
        axis.set_title(NAMES[column], fontsize=9)
    first = np.atleast_1d(axes)[0]
    handles = first.get_legend_handles_labels()
    first.figure.legend(*handles, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return axes


def clipped(ratios: np.ndarray, gains: Mapping[str, np.ndarray], clip: float) -> np.ndarray:
    """Draw the objective, which is made large, over the ratio of probabilities, a panel for each advantage."""
    _, axes = plots.new_figure(len(gains), width=6.4, height=2.5)
    for axis, (name, values) in zip(axes, gains.items(), strict=True):
        sign = np.sign(values[-1])
        axis.plot(ratios, sign * ratios, color="0.6", linestyle="--", label="ratio times advantage")
        axis.plot(ratios, values, color=plots.COLORS[0], label="clipped")
        for edge in (1 - clip, 1 + clip):
            axis.axvline(edge, color="0.85", linewidth=1, zorder=0)
        axis.set(xlabel="probability now / when written", ylabel="objective of a token")
        axis.set_title(name, fontsize=10)
    axes[0].legend(frameon=False, fontsize=8)
    return axes


def pairs(histories: Mapping[str, Sequence[tuple[int, float, float, float]]]) -> np.ndarray:
    """Draw ln p of chosen and rejected answers, and the share of tasks that are right, over the steps.

    histories[run] are (step, ln p chosen, ln p rejected, share right).
    """
    _, axes = plots.new_figure(3, width=6.8, height=2.8)
    looks = zip(plots.COLORS, plots.STYLES, strict=True)
    for (name, rows), (color, style) in zip(histories.items(), looks, strict=False):
        steps, *columns = np.array(rows).T
        for axis, values in zip(axes, columns, strict=True):
            axis.plot(steps, values, color=color, linestyle=style, label=name)
    for axis, title in zip(axes, ("ln p, chosen", "ln p, rejected", "share right, greedy"), strict=True):
        axis.set(xlabel="step")
        axis.set_title(title, fontsize=10)
    axes[2].set_ylim(0, 1)
    handles = axes[0].get_legend_handles_labels()
    axes[0].figure.legend(*handles, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return axes


def best_of(rows: Sequence[tuple[int, float, float, float]]) -> np.ndarray:
    """Draw the reward of the highest rated of n answers, and how often it is right, and any of them is.

    Rows are (n, reward, share right, share with a right one).
    """
    n, reward, right, any_right = np.array(rows).T
    _, axes = plots.new_figure(2, width=6.4, height=2.6)
    axes[0].plot(n, reward, "o-", color=plots.COLORS[0])
    axes[1].plot(n, any_right, "o--", color=plots.COLORS[2], label="a right one is among them")
    axes[1].plot(n, right, "o-", color=plots.COLORS[1], label="the highest rated is right")
    for axis, label in zip(axes, ("reward of the highest rated", "share of tasks"), strict=True):
        axis.set(xscale="log", xlabel="answers to choose from", ylabel=label)
        axis.set_xticks(n, [f"{x:.0f}" for x in n])
        axis.minorticks_off()
    axes[1].legend(frameon=False, fontsize=8)
    axes[1].set_ylim(-0.03, 1.1)
    return axes
