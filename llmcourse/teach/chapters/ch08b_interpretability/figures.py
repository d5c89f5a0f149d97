"""Figures of chapter 8b: the residual stream, two heads that copy, and what each method found."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from llmcourse.teach import plots
from llmcourse.teach.diagrams.draw import INKS, SMALL, arrow, box, canvas, label
from llmcourse.teach.plots import COLORS, printable


def residual_stream(sites: Mapping[str, str], n_layers: int = 2, n_heads: int = 3) -> Axes:
    """Draw the residual stream as a line, with heads and MLPs that read from it and write to it.

    sites: the names under which hooks find the places "embedding", "heads", "mlp", "residual" and "norm".

    >>> sites = dict(embedding="embedding", heads="blocks.{i}.heads", mlp="mlp", residual="x", norm="norm")
    >>> residual_stream(sites, 1, 2).texts[0].get_text()
    'token ids'
    """
    axis = canvas(6.8, 3.3)
    y, left, right = 1.55, 0.95, 5.75
    width = (right - left) / n_layers
    label(axis, 0.4, y + 0.55, "token ids", SMALL)
    start = box(axis, 0.4, y, "embed", 0.6, 0.4, "key")
    end = box(axis, 6.3, y, "unembed", 0.7, 0.4, "key")
    label(axis, 6.3, y + 0.55, "logits", SMALL)
    arrow(axis, start.right, end.left, weight=3.5, color="0.55")
    arrow(axis, (0.4, y + 0.45), start.top)
    arrow(axis, end.top, (6.3, y + 0.45))
    label(axis, 0.1, y - 0.42, sites["embedding"], SMALL, "left", family="monospace", color=INKS["query"])
    label(axis, 6.7, y - 0.42, sites["norm"], SMALL, "right", family="monospace", color=INKS["query"])
    for i in range(n_layers):
        x = left + i * width
        step = (0.5 * width - 0.1) / n_heads
        centres = [x + 0.12 + (h + 0.5) * step for h in range(n_heads)]
        for h, centre in enumerate(centres):
            head = box(axis, centre, 2.45, f"{i}.{h}", step - 0.12, 0.34, "query", SMALL)
            arrow(axis, (centre - 0.12, y + 0.04), (centre - 0.12, head.bottom[1]), color="0.4")
            arrow(axis, (centre + 0.12, head.bottom[1]), (centre + 0.12, y + 0.04), color=INKS["query"])
        name = sites["heads"].format(i=i)
        label(axis, x + 0.02, 2.86, name, SMALL, "left", family="monospace", color=INKS["query"])
        place = x + 0.78 * width
        mlp = box(axis, place, 0.68, f"MLP {i}", 0.62, 0.34, "value", SMALL)
        arrow(axis, (place - 0.12, y - 0.04), (place - 0.12, mlp.top[1]), color="0.4")
        arrow(axis, (place + 0.12, mlp.top[1]), (place + 0.12, y - 0.04), color=INKS["value"])
        label(axis, place, 0.36, sites["mlp"].format(i=i), SMALL, family="monospace", color=INKS["query"])
        after = x + width - 0.06
        axis.plot([after, after], [y - 0.13, y + 0.13], color=INKS["query"], linewidth=1.5)
        name = sites["residual"].format(i=i)
        label(axis, after + 0.05, y + 0.3, name, SMALL, "right", family="monospace", color=INKS["query"])
    label(axis, 0.72, 2.45, "heads", SMALL)
    label(axis, 3.4, 3.15, "heads read from other positions, and write to their own: what each adds is a sum")
    label(axis, 3.4, 0.1, "an MLP reads and writes at its own position alone", SMALL)
    return axis


def induction(tokens: Sequence[str], first: int, second: int, heads: Sequence[str]) -> Axes:
    """Draw how two heads copy: `tokens[first]` came before and stands again at `second`, the last place.

    heads: the names of the previous-token head and of the induction head.

    >>> induction(["Ham", "let", "and", "Ham"], 0, 3, ["0.1", "1.2"]).texts[0].get_text()
    'embedding'
    """
    n, width = len(tokens), 6.8
    axis = canvas(width, 3.5)
    gap = min(0.95, (width - 1.75) / n)
    xs = [1.6 + gap * i for i in range(n)]
    names, rows = [printable(t) for t in tokens], (0.5, 1.55, 2.75)
    for y, text in zip(
        rows, ("embedding", f"after head\n{heads[0]}", f"after head\n{heads[1]}"), strict=True
    ):
        label(axis, 0.08, y, text, SMALL, "left")
    for i, (x, name) in enumerate(zip(xs, names, strict=True)):
        marked = "key" if i in (first, second) else "value" if i == first + 1 else "plain"
        box(axis, x, rows[0], name, gap - 0.12, 0.32, marked)
        before = f"behind\n{names[i - 1]}" if i else ""
        box(axis, x, rows[1], before, gap - 0.12, 0.44, "soft" if i != first + 1 else "key", SMALL - 1)
        arrow(axis, (x, rows[0] + 0.18), (x, rows[1] - 0.24), color="0.75")
        if i:
            arrow(axis, (xs[i - 1] + 0.1, rows[0] + 0.18), (x - 0.1, rows[1] - 0.24), color=INKS["query"])
    end = box(axis, xs[second], rows[2], f"next:\n{names[first + 1]}", gap - 0.12, 0.44, "value", SMALL)
    arrow(axis, (xs[second], rows[1] + 0.24), end.bottom, color="0.75")
    source = (xs[first + 1], rows[1] + 0.24)
    arrow(axis, source, end.left, bend=-0.2, weight=2, color=INKS["value"])
    middle = (xs[first + 1] + xs[second]) / 2 - 0.35
    label(axis, middle, rows[2] + 0.12, f"value: it copies “{names[first + 1]}”", SMALL)
    label(axis, xs[second] + gap / 2, 3.25, f"query: who stands behind {names[second]}?", SMALL, "right")
    label(axis, xs[first + 1] - 0.12, 2.02, f"key: I stand behind {names[first]}", SMALL, "right")
    return axis


def sharpness_and_cost(sharpness: Tensor, cost: Tensor, margin: Tensor, named: Sequence[tuple]) -> Axes:
    """Draw each head (layers, heads): the mean of its largest weights, and the nats that are lost without it.

    margin: half the width of the interval of each cost; named: the heads (layer, head) to write beside their points.
    """
    axis = plots.new_figure(height=3.3)[1]
    looks = zip(sharpness, cost, margin, plots.COLORS, "os^D", strict=False)
    for layer, (x, y, half, color, mark) in enumerate(looks):
        axis.errorbar(x, y, half, color=color, marker=mark, linestyle="none", label=f"layer {layer}")
    for at in named:
        place = sharpness[at].item(), cost[at].item()
        axis.annotate(f"{at[0]}.{at[1]}", place, (7, 5), textcoords="offset points", weight="bold")
    axis.axhline(0, color="0.6", linewidth=0.8)
    axis.set(xlabel="sharpness: mean of the largest weight of a row", ylabel="nats lost without the head")
    axis.legend(frameon=False, loc="upper left")
    return axis


def lens_table(
    tokens: Sequence[str], words: Sequence[Sequence[str]], probability: Tensor, start: int = 0
) -> Axes:
    """Draw the likeliest next token of each layer (row) at each position (column) from `start`, shaded by its probability.

    words: for each of the L + 1 layers a token for each position; probability: (L + 1, T).
    """
    columns = range(start, len(tokens))
    names = ["embedding", *(f"after layer {i}" for i in range(len(words) - 1))]
    axis = plots.new_figure(width=6.8, height=0.75 + 0.4 * len(words))[1]
    shade = probability[:, start:].flip(0).numpy()
    axis.imshow(shade, vmin=0, vmax=1.6, cmap="Blues", aspect="auto")  # light enough for black text
    for row, layer in enumerate(reversed(words)):
        for column, place in enumerate(columns):
            axis.text(column, row, printable(layer[place]), ha="center", va="center", fontsize=7.5)
    axis.set_yticks(range(len(words)), reversed(names), fontsize=9)
    axis.set_xticks(range(len(columns)), [printable(tokens[i]) for i in columns], fontsize=9)
    axis.set(xlabel="token that was read; above it, what each layer would write next")
    axis.tick_params(length=0)
    axis.spines[["left", "bottom"]].set_visible(False)
    return axis


def probes(scores: Mapping[tuple[str, str], Sequence]) -> np.ndarray:
    """Draw accuracies by layer: a panel for each question, a line for each model on known and on new words.

    scores: the `ProbeScores` of each layer for (question, model).
    """
    questions = list(dict.fromkeys(question for question, _ in scores))
    _, axes = plots.new_figure(len(questions), width=6.8, height=3.3, sharey=True)
    for axis, question in zip(axes, questions, strict=True):
        curves = {}
        for model in [model for asked, model in scores if asked == question]:
            rows = scores[question, model]
            curves[f"{model}, known words"] = range(len(rows)), [row.known for row in rows]
            curves[f"{model}, new words"] = range(len(rows)), [row.new for row in rows]
        first = next(rows for (asked, _), rows in scores.items() if asked == question)
        curves["control task"] = range(len(first)), [row.control for row in first]
        plots.lines(curves, "", "", question, axis, marker=".", markersize=6)
        axis.title.set_fontsize(10)
        names = ["emb."] + [f"{i}" for i in range(len(rows) - 1)]
        axis.set_xticks(range(len(rows)), names)
        axis.set(xlabel="after layer")
        axis.get_legend().remove()
    axes[0].set(ylabel="accuracy of the probe", ylim=(0.4, 1.02))
    handles = axes[0].get_legend_handles_labels()
    axes[0].figure.legend(*handles, frameon=False, fontsize=8, ncols=3, loc="outside lower center")
    return axes


def head_grid(values: Tensor, title: str, axis: Axes | None = None) -> Axes:
    """Draw a number for each head (layers, heads), shaded by its size."""
    axis = plots.new_figure(width=4.6, height=0.9 + 0.5 * len(values))[1] if axis is None else axis
    axis.imshow(values.abs().numpy(), vmin=0, vmax=1.6, cmap="Blues", aspect="auto")
    for (layer, head), value in np.ndenumerate(values.numpy()):
        axis.text(head, layer, f"{value:.2f}", ha="center", va="center", fontsize=9)
    axis.set_xticks(range(values.shape[1]))
    axis.set_yticks(range(values.shape[0]))
    axis.set(xlabel="head", ylabel="layer", title=title)
    axis.tick_params(length=0)
    return axis


def method_scores(scores: Mapping[str, object]) -> Axes:
    """Draw for each method how many heads it named rightly, how many it missed, and how many were false alarms."""
    axis = plots.new_figure(height=0.9 + 0.45 * len(scores))[1]
    names = list(scores)
    right, missed, false = (
        [getattr(s, kind) for s in scores.values()] for kind in ("right", "missed", "false")
    )
    axis.barh(names, right, color=COLORS[0], label="right")
    axis.barh(names, missed, left=right, color="white", edgecolor=COLORS[0], label="missed")
    axis.barh(
        names, [-x for x in false], color=COLORS[1], hatch="//", edgecolor="white", label="false alarms"
    )
    axis.axvline(0, color="0.2", linewidth=0.8)
    axis.invert_yaxis()
    axis.xaxis.set_major_formatter(lambda x, _: f"{abs(x):.0f}")
    axis.set(xlabel="heads", title="Heads named, over all planted circuits")
    axis.legend(frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.28))
    return axis


def word_scores(tokens: Sequence[str], scores: Mapping[str, Tensor]) -> np.ndarray:
    """Draw a bar for each token (T,) of a text, a row of bars for each method; the largest, of either sign, is marked."""
    _, axes = plots.plt.subplots(
        len(scores), 1, figsize=(6.8, 0.9 + 0.95 * len(scores)), layout="constrained", sharex=True
    )
    for axis, (name, values) in zip(axes, scores.items(), strict=True):
        best = int(values.abs().argmax())
        shades = [COLORS[1] if i == best else "0.6" for i in range(len(values))]
        axis.bar(range(len(values)), values.tolist(), color=shades)
        axis.axhline(0, color="0.2", linewidth=0.8)
        axis.set_title(f"{name}: largest at {printable(tokens[best])}", fontsize=9, loc="left")
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_ylabel("logit", fontsize=8)
        axis.tick_params(labelsize=8)
    axes[-1].set_xticks(range(len(tokens)), [printable(t) for t in tokens], rotation=90, fontsize=8)
    return axes


def emergence(rows: Sequence[Mapping[str, str]]) -> np.ndarray:
    """Draw the rows of data/induction/runs.csv, a line for each seed: two losses, and the best induction score."""
    _, axes = plots.new_figure(3, width=6.8, height=2.9)
    columns = {
        "text_loss": ("Plays", "nats per character"),
        "second_time": ("Random, second time", "nats per character"),
        "induction_score": ("Heads", "best induction score"),
    }
    for axis, (column, (title, unit)) in zip(axes, columns.items(), strict=True):
        curves: dict[str, tuple[list[int], list[float]]] = {}
        for row in rows:
            if row["step"] != "0":  # before it has learned anything
                steps, values = curves.setdefault(f"seed {row['seed']}", ([], []))
                steps.append(int(row["step"])), values.append(float(row[column]))
        plots.lines(curves, "step", unit, title, axis)
        if axis is not axes[0] and len(curves) > 1:
            axis.get_legend().remove()
        axis.title.set_fontsize(10)
    axes[0].set(ylim=(2.1, 2.6))
    axes[1].set_ylim(bottom=0)
    axes[2].set(ylim=(0, 1))
    return axes


def named_units(
    active: Mapping[str, float], by_rule: Mapping[str, float], by_list: Mapping[str, float]
) -> Axes:
    """Draw for each kind of unit how many are active, and how many have a name: by one rule, by a list of tokens."""
    axis = plots.new_figure(height=1.2 + 0.45 * len(active))[1]
    y = np.arange(len(active))
    axis.barh(y, list(active.values()), 0.8, color="0.88", label="active on both texts")
    looks = (
        ("named by one rule", by_rule, COLORS[0], ""),
        ("by a list of five tokens", by_list, COLORS[1], "//"),
    )
    for i, (name, counts, color, hatch) in enumerate(looks):
        style = dict(color=color, hatch=hatch, edgecolor="white", label=name)
        drawn = axis.barh(y + 0.36 * (i - 0.5), [counts[kind] for kind in active], 0.34, **style)
        axis.bar_label(drawn, fmt="{:.0f}", padding=3, fontsize=8)
    axis.set_yticks(y, list(active))
    axis.invert_yaxis()
    axis.set(xlabel="units")
    axis.legend(frameon=False, ncols=3, fontsize=8, loc="lower center", bbox_to_anchor=(0.45, 1.0))
    return axis


def forming(history: Mapping[int, Mapping[str, float]]) -> np.ndarray:
    """Draw by steps what `history` holds: "induction" and "previous token" scores, and the loss "second time"."""
    _, axes = plots.new_figure(2, width=6.8, height=2.9)
    steps = list(history)
    pick = lambda name: (steps, [row[name] for row in history.values()])  # noqa: E731
    plots.lines({"second time": pick("second time")}, "step", "nats per symbol", "Second time", axes[0])
    scores = {name: pick(name) for name in ("previous token", "induction")}
    plots.lines(scores, "step", "best score of a head", "Heads", axes[1])
    axes[0].set_ylim(bottom=0)
    axes[1].set(ylim=(0, 1))
    return axes
