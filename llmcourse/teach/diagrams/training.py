"""Pictures of a model and its training: the stack, a block, shifted targets, a step downhill, packing, LoRA.

Each takes its numbers and words as arguments and returns the axis that it drew.
Dimensions: B batch, T time, C width (d_model), V vocabulary.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from llmcourse.teach.diagrams.draw import SMALL, arrow, box, canvas, grid, label
from llmcourse.teach.plots import COLORS, new_figure, printable


def transformer(n_blocks: int = 2) -> Axes:
    """Draw a decoder-only Transformer from ids to logits, with the shape between any two parts.

    >>> [text.get_text() for text in transformer(3).texts].count("block 3")
    1
    """
    if not 1 <= n_blocks <= 3:
        raise ValueError(f"n_blocks={n_blocks}: draw 1 to 3; more do not fit on a page")
    parts = ["embedding", *(f"block {i + 1}" for i in range(n_blocks)), "norm", "unembedding"]
    shapes = ["(B, T)", *["(B, T, C)"] * (n_blocks + 2), "(B, T, V)"]
    axis, width, y = canvas(6.8, 1.5), 0.8, 0.75
    gap = (5.9 - width * len(parts)) / len(shapes)
    before = 0.38, y
    label(axis, 0.2, y, "ids")
    for name, shape in zip([*parts, "logits"], shapes, strict=True):
        end = before[0] + gap, y
        arrow(axis, before, end, weight=2.5 if shape == "(B, T, C)" else 1.0)
        label(axis, before[0] + gap / 2, y + 0.42, shape, 7)
        if name == "logits":
            label(axis, end[0] + 0.05, y, name, align="left")
        else:
            fill = "key" if name.startswith("block") else "soft"
            before = box(axis, end[0] + width / 2, y, name, width, 0.5, fill, SMALL).right
    label(axis, 3.4, 0.2, "thick: the residual stream, of one shape from the first block to the last", SMALL)
    return axis


def block(pre_norm: bool = True) -> Axes:
    """Draw a block on the residual stream: pre-norm (GPT-2, Llama), or post-norm (2017).

    >>> [text.get_text() for text in block().texts].count("norm")
    2
    """
    axis = canvas(6.8, 2.0)
    stream, branch = 0.5, 1.35
    label(axis, 0.06, stream, "x", align="left")
    start, ends = 0.22, (3.45, 6.55)
    for name, end in zip(("attention", "MLP"), ends, strict=True):
        plus = end - (0.35 if pre_norm else 1.05)
        arrow(axis, (start, stream), (plus - 0.13, stream), weight=2.5)
        fork = start + 0.3
        reads = [("norm", 0.6), (name, 1.0)] if pre_norm else [(name, 1.0)]
        before, x = (fork, branch), fork + (0.25 if pre_norm else 0.45)
        axis.plot([fork, fork], [stream, branch], color="0.2", linewidth=1)
        for text, width in reads:
            part = box(axis, x + width / 2, branch, text, width, 0.45, "soft" if text == "norm" else "key")
            arrow(axis, before, part.left)
            before, x = part.right, x + width + 0.25
        axis.plot([before[0], plus], [branch, branch], color="0.2", linewidth=1)
        arrow(axis, (plus, branch), (plus, stream + 0.13))
        label(
            axis,
            plus,
            stream,
            "+",
            11,
            bbox=dict(boxstyle="circle,pad=0.15", facecolor="white", edgecolor="0.2"),
        )
        start = plus + 0.13
        if not pre_norm:
            norm = box(axis, plus + 0.62, stream, "norm", 0.6, 0.45, "soft")
            arrow(axis, (start, stream), norm.left, weight=2.5)
            start = norm.right[0]
    arrow(axis, (start, stream), (6.75, stream), weight=2.5)
    kind = "pre-norm: a norm before each part, none on the stream" if pre_norm else (
        "post-norm: the norms lie on the stream, which each of them rescales"
    )  # fmt: skip
    label(axis, 3.4, 1.82, kind, SMALL)
    return axis


def shifted_targets(tokens: Sequence[str]) -> Axes:
    """Draw a window of tokens as inputs over targets: the targets are the same tokens, one place on.

    >>> axis = shifted_targets(["to", " be", " or"])
    >>> [text.get_text() for text in axis.texts].count("␣be")
    2
    """
    n = len(tokens) - 1
    if not 1 <= n <= 9:
        raise ValueError(f"{len(tokens)} tokens: give 2 to 10, which fit on a page")
    names, width = [printable(token) for token in tokens], min(0.72, 5.3 / n)
    axis = canvas(max(3.4, 1.5 + n * width), 1.75)
    x, right = 0.85, 0.85 + n * width
    given = grid(axis, x, 1.4, [names[:-1]], ["inputs"], range_names(n), (width, 0.34), "query")
    wanted = grid(axis, x, 0.6, [names[1:]], ["targets"], (), (width, 0.34), "value")
    for i in range(n):
        arrow(axis, given[0, i].bottom, wanted[0, i].top, color="0.4")
        if i + 1 < n:
            low, high = given[0, i + 1].bottom, wanted[0, i].top
            axis.plot([low[0], high[0]], [low[1], high[1]], color="0.7", linewidth=1, linestyle=":")
    label(axis, max(1.7, (x + right) / 2), 0.12, "arrow: predict this · dotted: the same token", SMALL)
    return axis


def range_names(n: int) -> list[str]:
    """Return "1", "2", ... as labels of places."""
    return [str(i + 1) for i in range(n)]


def gradient_step(weights, losses, at: float, loss: float, gradient: float, lr: float, new_loss: float,
                  name: str = "one weight") -> Axes:  # fmt: skip
    """Draw the loss against one weight, the slope at `at`, and one step of -lr * gradient down the slope.

    weights, losses: the curve. loss, gradient: at `at`. new_loss: where the step arrives.

    >>> axis = gradient_step([0, 1, 2], [4, 1, 0], at=1, loss=1, gradient=-2, lr=0.2, new_loss=0.36)
    >>> axis.get_xlabel()
    'one weight'
    """
    axis = new_figure(height=3.0)[1]
    axis.plot(weights, losses, color="0.6")
    reach = np.ptp(weights) * np.array([-0.22, 0.22])
    axis.plot(
        at + reach, loss + gradient * reach, color=COLORS[1], linestyle="--", label=f"slope {gradient:.3g}"
    )
    after = at - lr * gradient
    axis.plot([at], [loss], "o", color=COLORS[0], label="before the step")
    axis.plot([after], [new_loss], "s", color=COLORS[2], label="after it")
    line = dict(arrowstyle="-|>", color=COLORS[0], linewidth=1.5)
    low = min(losses) - 0.12 * np.ptp(losses)
    axis.annotate("", (after, low), (at, low), arrowprops=line, annotation_clip=False)
    for x, y in ((at, loss), (after, new_loss)):
        axis.plot([x, x], [low, y], color="0.8", linewidth=1, linestyle=":")
    axis.set(xlabel=name, ylabel="loss", ylim=(min(losses) - 0.2 * np.ptp(losses), None))
    axis.legend(frameon=False)
    return axis


def packing(lengths: Sequence[int], context_length: int) -> Axes:
    """Draw documents of these lengths as rows: padded to the context, and packed without a gap.

    Numbers and shades name the documents; white is filled up. A document longer than the context is
    cut in the upper picture.

    >>> axis = packing([3, 6, 2], context_length=6)
    >>> [text.get_text() for text in axis.texts if "%" in text.get_text()]
    ['padded: 3 rows, 61 % of them text', 'packed: 2 rows, 92 % of them text']
    """
    if not lengths or min(lengths) < 1 or context_length < 1:
        raise ValueError(f"lengths={list(lengths)}, context_length={context_length}: all at least 1")
    T, shades = context_length, ("query", "key", "value", "soft")
    padded = [(i, 0, min(n, T)) for i, n in enumerate(lengths)]
    places = [i for i, n in enumerate(lengths) for _ in range(n)]
    packed_rows = [places[i : i + T] for i in range(0, len(places), T)]
    runs = []  # (row, document, start, length) of each piece
    for row, ids in enumerate(packed_rows):
        runs += [(row, i, ids.index(i), ids.count(i)) for i in dict.fromkeys(ids)]
    height, unit = 0.3, 2.9 / T
    axis = canvas(6.8, 0.75 + height * max(len(padded), len(packed_rows)))
    top = axis.get_ylim()[1] - 0.5
    pieces = [(row, i, start, n) for row, (i, start, n) in enumerate(padded)]
    for left, name, rows, drawn in (
        (0.3, "padded", len(padded), pieces),
        (3.7, "packed", len(packed_rows), runs),
    ):
        text = sum(n for *_, n in drawn) / (rows * T)
        label(axis, left + 1.45, top + 0.25, f"{name}: {rows} rows, {100 * text:.0f} % of them text", SMALL)
        for row in range(rows):
            box(axis, left + 1.45, top - (row + 0.5) * height, width=2.9, height=height)
        for row, i, start, n in drawn:
            x = left + (start + n / 2) * unit
            wide = n * unit > 0.16
            box(
                axis,
                x,
                top - (row + 0.5) * height,
                str(i + 1) if wide else "",
                n * unit,
                height,
                shades[i % 4],
                SMALL,
            )
    label(axis, 1.75, 0.12, f"rows of {T} tokens", SMALL)
    label(axis, 5.15, 0.12, "a number: a document", SMALL)
    return axis


def low_rank(d_in: int, d_out: int, rank: int) -> Axes:
    """Draw LoRA: a frozen matrix W beside the pair A and B that is trained, and how many numbers each holds.

    >>> [text.get_text() for text in low_rank(192, 192, 4).texts if "numbers" in text.get_text()]
    ['36,864 numbers, frozen', '768 + 768 numbers, trained']
    """
    if not 1 <= rank <= min(d_in, d_out):
        raise ValueError(f"rank={rank}: from 1 to {min(d_in, d_out)}, the smaller side of the matrix")
    axis = canvas(6.6, 2.9)
    tall, wide = np.array([d_out, d_in]) / max(d_in, d_out) * 1.1
    thin = max(0.24, rank / max(d_in, d_out) * 1.1)
    upper, lower = 2.1, 0.72
    middle = (upper + lower) / 2
    label(axis, 0.3, middle, "x")
    frozen = box(axis, 2.9, upper, "W", wide, tall, "soft", SMALL)
    label(axis, frozen.x, frozen.bottom[1] - 0.14, f"{d_out} x {d_in}", SMALL)
    first = box(axis, 2.3, lower, "A", wide, thin, "value", SMALL)
    second = box(axis, 3.6, lower, "B", thin, tall, "value", SMALL)
    label(axis, first.x, lower - 0.3, f"{rank} x {d_in}", SMALL)
    label(axis, second.right[0] + 0.08, lower - 0.3, f"{d_out} x {rank}", SMALL, align="left")
    label(axis, 5.35, upper + 0.35, f"{d_in * d_out:,} numbers, frozen", SMALL)
    label(axis, 5.35, lower - 0.3, f"{rank * d_in:,} + {rank * d_out:,} numbers, trained", SMALL)
    plus = (5.35, middle)
    for start, end in (((0.42, middle), frozen.left), ((0.42, middle), first.left), (first.right, second.left),
                       (frozen.right, (plus[0] - 0.1, middle + 0.1)), (second.right, (plus[0] - 0.1, middle - 0.1))):  # fmt: skip
        arrow(axis, start, end)
    label(axis, *plus, "+", 11, bbox=dict(boxstyle="circle,pad=0.15", facecolor="white", edgecolor="0.2"))
    arrow(axis, (plus[0] + 0.14, middle), (6.15, middle))
    label(axis, 6.3, middle, "y")
    return axis
