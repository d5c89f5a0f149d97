"""Figures of chapter 6c: distributions, where rules cut them, and what comes of it."""

import itertools

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from llmcourse.teach import plots

MARKS = ("o", "s", "^", "D", "v", "P")


def shares(distributions: dict[str, Tensor]) -> Axes:
    """Draw for each distribution (V,) how much of it the first so many tokens hold, the likeliest first."""
    curves = {}
    for name, probabilities in distributions.items():
        held = probabilities.sort(descending=True).values.cumsum(-1)
        curves[name] = range(1, len(held) + 1), held.tolist()
    axis = plots.lines(curves, "tokens, the likeliest first", "share of the probability")
    axis.set(xscale="log", ylim=(0, 1.03), title="How many tokens could come?")
    axis.axhline(0.9, color="0.6", linewidth=0.8)
    axis.text(1, 0.91, "90 %", fontsize=9, color="0.3")
    return axis


def temperatures(logits: Tensor, names: list[str], values: tuple[float, ...], n: int = 8) -> Axes:
    """Draw the probabilities of the `n` likeliest tokens and of all others, at each temperature."""
    order = logits.argsort(descending=True)
    axis = plots.new_figure(height=3.0)[1]
    x, width = np.arange(n + 1), 0.8 / len(values)
    for i, (value, color, hatch) in enumerate(zip(values, plots.COLORS, ("", "//", ".."), strict=False)):
        p = (logits / value).softmax(-1)[order]
        heights = [*p[:n].tolist(), p[n:].sum().item()]
        axis.bar(x + (i - (len(values) - 1) / 2) * width, heights, width, color=color, hatch=hatch,
                 edgecolor="white", label=f"temperature {value:g}")  # fmt: skip
    labels = [plots.printable(names[i]) for i in order[:n].tolist()]
    axis.set_xticks(x, [*labels, f"{len(logits) - n:,} others"], rotation=35, ha="right")
    axis.set(ylabel="probability")
    axis.legend(frameon=False)
    return axis


def cuts(distributions: dict[str, Tensor], kept: dict[str, dict[str, int]], n: int = 60) -> np.ndarray:
    """Draw the `n` largest probabilities of each distribution, and after how many tokens each rule cuts.

    `kept[rule][name]` is the number of tokens that a rule keeps of the distribution `name`.
    """
    _, axes = plots.new_figure(len(distributions), width=6.8, height=2.9)
    for axis, (name, probabilities) in zip(axes, distributions.items(), strict=True):
        axis.bar(range(1, n + 1), probabilities.sort(descending=True).values[:n].tolist(), 1.0, color="0.75")
        looks = zip(kept.items(), plots.COLORS, plots.STYLES, itertools.cycle((1.5, 4.0, 1.5)), strict=False)
        for (rule, numbers), color, style, width in looks:  # of two lines at one place both are seen
            axis.axvline(numbers[name] + 0.5, color=color, linestyle=style, linewidth=width,
                         label=f"{rule}: {numbers[name]}")  # fmt: skip
        axis.set(xlabel="tokens, the likeliest first", xlim=(0, n))
        axis.set_title(name, fontsize=10)
        axis.legend(frameon=False, title="tokens kept", fontsize=8, title_fontsize=8)
    axes[0].set_ylabel("probability")
    return axes


def chosen(curves: dict[str, Tensor], limit: float) -> Axes:
    """Draw the probability that the model gave to each token of a text, and a line at `limit`."""
    points = {name: (range(1, len(p) + 1), p.tolist()) for name, p in curves.items()}
    axis = plots.lines(
        points, "token of the continuation", "probability", marker=".", markersize=5, linewidth=1
    )
    axis.set(yscale="log", ylim=(None, 8))
    axis.axhline(limit, color="0.5", linewidth=0.8)
    axis.text(
        len(points[next(iter(points))][0]) + 1, limit, f"{limit:g}", fontsize=9, color="0.3", va="bottom"
    )
    axis.legend(frameon=False, ncols=2, loc="upper center")
    return axis


# where a label stands from its point: right and up in points of type, and which end of it
BESIDE = {"temperature": (-8, 3, "right"), "top-k": (-8, 3, "right"), "others": (8, -3, "left")}
BESIDE |= {"top-p": (8, -11, "left"), "min-p": (8, -6, "left")}
BESIDE |= {"T 0.85": (8, -2, "left"), "top-p 0.7": (-8, -7, "right"), "T 1.5, min-p 0.1": (-8, 3, "right")}


def plane(points: dict[str, tuple[float, float]], groups: dict[str, str], human: str) -> Axes:
    """Draw settings as points (diversity, nats); `groups` gives each a family, `human` is the plays' own."""
    axis = plots.new_figure(height=4.8)[1]
    families: dict[str, list[str]] = {}
    for name, group in groups.items():
        families.setdefault(group, []).append(name)
    for (group, names), color, mark in zip(families.items(), plots.COLORS, MARKS, strict=False):
        x, y = zip(*(points[name] for name in names), strict=True)
        line = ":" if group == "temperature" else "none"
        axis.plot(x, y, color=color, marker=mark, linestyle=line, linewidth=0.8, label=group)
        for name in names:
            right, up, side = BESIDE.get(name, BESIDE.get(group, (8, -3, "left")))
            axis.annotate(name, points[name], (right, up), textcoords="offset points", fontsize=9, ha=side)
    axis.plot(*points[human], "*", color="black", markersize=14, label=human, linestyle="none")
    axis.set(
        xlabel="share of different token pairs (distinct-2)", ylabel="surprise of the judge, nats per token"
    )
    axis.legend(frameon=False)
    return axis


def padded(rows: list[list[str]]) -> Axes:
    """Draw rows of tokens that end together, as a batch holds them: what is left of them is padding."""
    T = max(map(len, rows))
    axis = plots.new_figure(width=6.8, height=1.1 + 0.42 * len(rows))[1]
    axis.spines[:].set_visible(False)
    looks = {
        False: {"facecolor": "white", "edgecolor": "0.55", "hatch": "////", "label": "padding, masked"},
        True: {"facecolor": "#cfe8f7", "edgecolor": "white", "label": "token, with its position"},
    }
    boxes = {}
    for y, row in enumerate(rows):
        for x in range(T):
            position = x - (T - len(row))
            real = position >= 0
            box = plots.plt.Rectangle((x, -y), 1, 0.9, linewidth=1, **looks[real])
            boxes[real] = axis.add_patch(box)
            if real:
                token = plots.printable(row[position])
                axis.text(x + 0.5, 0.55 - y, token, ha="center", va="center", fontsize=7)
                axis.text(x + 0.5, 0.17 - y, str(position), ha="center", va="center", fontsize=7, color="0.3")
    axis.set(xlim=(0, T), ylim=(1 - len(rows), 1), xticks=[], yticks=[])
    axis.set_title("Unequal prompts in one batch")
    axis.legend(
        handles=[*boxes.values()], loc="upper center", bbox_to_anchor=(0.5, 0), ncols=2, frameon=False
    )
    return axis


def drafted(p, q, drawn, names: list[str], n: int = 10) -> Axes:
    """Draw the model's p, the draft's q and what was drawn, for the `n` likeliest tokens of p; (V,) each."""
    order = np.argsort(-p)[:n]
    axis = plots.new_figure(height=3.0)[1]
    x, rows = np.arange(n), {"model, p": p, "draft, q": q, "kept or replaced": drawn}
    for i, (name, row) in enumerate(rows.items()):
        axis.bar(x + 0.27 * (i - 1), row[order], 0.27, color=plots.COLORS[i], hatch=("", "//", "..")[i],
                 edgecolor="white", label=name)  # fmt: skip
    axis.set_xticks(x, [plots.printable(names[i]) for i in order], rotation=35, ha="right")
    axis.set(ylabel="probability")
    axis.legend(frameon=False)
    return axis


def speculation(curves: dict[str, dict[int, float]]) -> Axes:
    """Draw values by the number of drafted tokens."""
    points = {name: (list(values), list(values.values())) for name, values in curves.items()}
    axis = plots.lines(
        points, "tokens drafted for each pass", "relative to no draft = 1", marker="o", markersize=4
    )
    axis.axhline(1, color="0.6", linewidth=0.8)
    axis.set_ylim(0, 1.2 * axis.get_ylim()[1])  # room for the legend
    axis.legend(frameon=False, ncols=3, loc="upper center")
    return axis


def kept_by(rule, logits: Tensor) -> int:
    """Return how many tokens `rule`, a function of logits, leaves possible of logits (V,)."""
    return int(torch.isfinite(rule(logits)).sum())
