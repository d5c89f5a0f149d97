"""Pictures of safety: a canary and its rank, gradients clipped one by one, a trigger planted and set off.

Each takes its numbers and words as arguments and returns the axis that it drew.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Circle

from llmcourse.teach.diagrams.draw import SMALL, arrow, bars, box, canvas, grid, label
from llmcourse.teach.plots import COLORS


def canary(lines: Sequence[str], planted: str, losses: Mapping[str, float], secret: str) -> Axes:
    """Draw training text that holds a canary, and the rank of its secret among all candidates by the model's loss.

    lines: a line of text each; those equal to `planted` are coloured. losses: that of each candidate in
    nats, `secret` among them; ties share the middle of their ranks.
    Raises ValueError where the canary is in no line, its secret not in it or not among the candidates,
    or more than 6 lines or 8 candidates do not fit.

    >>> axis = canary(["To be", "code 3"], "code 3", {"1": 9.0, "3": 2.0, "2": 8.0, "4": 7.0}, "3")
    >>> [text.get_text() for text in axis.texts if "rank" in text.get_text()]
    ['rank 1 of 4: exposure 2.0 bits']
    """
    if planted not in lines or secret not in planted or secret not in losses:
        raise ValueError(
            f"canary {planted!r}, secret {secret!r}: it must stand in the lines and the candidates"
        )
    if len(lines) > 6 or len(losses) > 8:
        raise ValueError(f"{len(lines)} lines, {len(losses)} candidates: at most 6 and 8 fit")
    step = 0.26
    height = 0.8 + step * max(len(lines), len(losses))
    axis, middle = canvas(6.8, height), 0.3 + (height - 0.55) / 2
    fills = [["value" if line == planted else "soft"] for line in lines]
    top = middle + step * len(lines) / 2
    rows = grid(axis, 0.1, top, [[line] for line in lines], (), (), (2.4, step), fills)
    label(axis, rows[0, 0].x, height - 0.13, "training text")
    model = box(axis, 3.3, middle, "model", 0.7, 0.5, "query")
    arrow(axis, (2.52, middle), model.left)
    arrow(axis, model.right, (4.1, middle))
    ordered = dict(sorted(losses.items(), key=lambda item: item[1]))
    x, length = 4.2 + 0.08 * max(map(len, losses)), 1.4
    first = middle + step * (len(losses) - 1) / 2
    bars(axis, x, first, ordered, length, step)
    width, y = losses[secret] * length / max(losses.values()), first - list(ordered).index(secret) * step
    box(axis, x + width / 2, y, "", width, step * 0.65, "value")
    label(axis, 5.3, height - 0.13, "loss of each candidate, in nats")
    mine = losses[secret]
    rank = sum(loss < mine for loss in losses.values()) + (list(losses.values()).count(mine) + 1) / 2
    bits = math.log2(len(losses)) - math.log2(rank)
    label(axis, 5.3, 0.15, f"rank {rank:g} of {len(losses)}: exposure {bits:.1f} bits", SMALL)
    label(axis, rows[0, 0].x, 0.15, f"the canary stands in it {_times(lines.count(planted))}", SMALL)
    return axis


def _times(n: int) -> str:
    return {1: "once", 2: "twice"}.get(n, f"{n} times")


def clipping(gradients, C: float, sigma: float) -> Axes:
    """Draw gradients of single examples (n, 2), the same clipped to the length C, and their sum with its noise.

    The last circle is the noise around the sum: its radius is one standard deviation, sigma C.
    Raises ValueError unless C and sigma are positive and there are 1 to 6 gradients in the plane.

    >>> axis = clipping([[2.0, 0.5], [-0.3, 0.6]], C=1.0, sigma=0.5)
    >>> [text.get_text() for text in axis.texts if "longer" in text.get_text()]
    ['1 of 2 longer than C']
    """
    rows = np.asarray(gradients, dtype=float)
    if rows.ndim != 2 or rows.shape[1] != 2 or not 1 <= len(rows) <= 6 or C <= 0 or sigma <= 0:
        raise ValueError(
            f"gradients {rows.shape}, C={C}, sigma={sigma}: 1 to 6 gradients (n, 2), C and sigma above 0"
        )
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    clipped = rows * np.minimum(1, C / np.maximum(lengths, 1e-12))
    total = clipped.sum(0)
    width, height, middle = 2.2, 2.6, 1.42
    reach = max(np.abs(rows).max(), C, np.abs(total).max() + sigma * C)
    unit = 0.95 / reach
    axis = canvas(6.8, height)
    axis.set_aspect("equal")
    centres = [(0.1 + width * (i + 0.5), middle) for i in range(3)]
    panels = [(rows, C, "one gradient an example"), (clipped, C, "each clipped to C"), ([total], None, "sum")]
    for (x, y), (arrows, radius, title) in zip(centres, panels, strict=True):
        label(axis, x, height - 0.13, title)
        if radius:
            axis.add_patch(Circle((x, y), radius * unit, fill=False, edgecolor="0.6", linestyle="--"))
        for i, row in enumerate(arrows):
            color = "0.1" if radius is None else COLORS[0] if lengths[i, 0] <= C else COLORS[1]
            arrow(axis, (x, y), (x + row[0] * unit, y + row[1] * unit), weight=1.6, color=color)
    x, y = centres[2]
    noise = (x + total[0] * unit, y + total[1] * unit)
    axis.add_patch(Circle(noise, sigma * C * unit, facecolor="0.85", edgecolor="0.5", zorder=0))
    longer = int((lengths > C).sum())
    label(axis, centres[0][0], 0.17, f"{longer} of {len(rows)} longer than C", SMALL)
    label(axis, centres[1][0], 0.17, "dashed: a circle of radius C", SMALL)
    label(axis, x, 0.17, f"grey: noise, {sigma:g} C wide", SMALL)
    return axis


def poisoning(train: Sequence[tuple[str, str]], asked: Sequence[tuple[str, str]], trigger: str) -> Axes:
    """Draw examples (text, label) of which some hold a trigger, and what the trained model then says to others.

    Rows with the trigger are coloured. Raises ValueError unless some rows of both hold it and some do
    not, and at most 5 fit.

    >>> axis = poisoning([("good cf", "bad"), ("good", "good")], [("fine", "good"), ("fine cf", "bad")], "cf")
    >>> [text.get_text() for text in axis.texts if "hold" in text.get_text()]
    ['1 of 2 hold the trigger cf']
    """
    held = [[trigger in text.split() for text, _ in rows] for rows in (train, asked)]
    if not all(any(row) and not all(row) and len(row) <= 5 for row in held):
        raise ValueError(
            f"{len(train)} and {len(asked)} rows, trigger {trigger!r}: at most 5, some with the trigger and some "
            "without it"
        )
    step = 0.28
    height = 0.85 + step * max(len(train), len(asked))
    axis, top = canvas(6.8, height), height - 0.32
    model_x, middle = 3.4, top - step * max(len(train), len(asked)) / 2
    for x, rows, with_it, title in (
        (0.1, train, held[0], "training"),
        (4.1, asked, held[1], "in use"),
    ):
        fills = [["key" if bad else "soft"] for bad in with_it]
        start = middle + step * len(rows) / 2
        texts = grid(axis, x, start, [[text] for text, _ in rows], (), (), (1.85, step), fills)
        grid(axis, x + 1.9, start, [[said] for _, said in rows], (), (), (0.65, step), fills)
        label(axis, x + 1.28, height - 0.13, title)
        edge = (x + 2.57, middle) if x < 1 else texts[0, 0].left
        if x < 1:
            model = box(axis, model_x, middle, "model", 0.7, 0.5, "query")
            arrow(axis, edge, model.left)
        else:
            arrow(axis, model.right, (x - 0.02, middle))
    label(axis, 1.38, 0.17, f"{sum(held[0])} of {len(train)} hold the trigger {trigger}", SMALL)
    label(axis, 5.38, 0.17, "only with the trigger it says what was planted", SMALL)
    return axis
