"""Figures of the course: one style, readable in grey and by colour-blind readers, at most 700 px wide."""

import itertools
import warnings

import matplotlib.pyplot as plt
import numpy as np

# Okabe & Ito's palette in an order whose grey values differ; a line style of its own for each.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00")
STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))


def new_figure(n_columns: int = 1, width: float = 6.4, height: float = 3.2, **options):
    """Return (figure, axes) in the style of the course."""
    figure, axes = plt.subplots(1, n_columns, figsize=(width, height), layout="constrained", **options)
    for axis in np.atleast_1d(axes):
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def show() -> None:
    """Put the figures drawn so far into the page and close them; return nothing that a cell would print.

    The last line of a cell that draws: what a plotting call returns would be printed with its address.

    >>> axis = lines({"loss": ([0, 1], [4.0, 3.5])}, "step", "loss")
    >>> show()
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="FigureCanvasAgg is non-interactive")
        plt.show()
    plt.close("all")


def lines(curves: dict, x_label: str, y_label: str, title: str = "", axis=None, **options):
    """Draw one line for each name in `curves`, which gives (x, y) pairs; return the axis."""
    axis = new_figure()[1] if axis is None else axis
    looks = itertools.cycle(zip(COLORS, STYLES, strict=True))
    for (name, (x, y)), (color, style) in zip(curves.items(), looks, strict=False):
        axis.plot(x, y, color=color, linestyle=style, label=name, **options)
    axis.set(xlabel=x_label, ylabel=y_label, title=title)
    if len(curves) > 1:
        axis.legend(frameon=False)
    return axis


def bars(values: dict[str, float], x_label: str, title: str = "", axis=None, format="{:.2f}"):
    """Draw one horizontal bar for each name, with its value written beside it; return the axis."""
    axis = new_figure(height=0.5 + 0.35 * len(values))[1] if axis is None else axis
    drawn = axis.barh(list(values), list(values.values()), color=COLORS[0])
    axis.bar_label(drawn, labels=[format.format(value) for value in values.values()], padding=3)
    axis.invert_yaxis()
    axis.set(xlabel=x_label, title=title)
    return axis


def heatmap(matrix, x_labels=None, y_labels=None, title="", x_label="", y_label="", axis=None, **options):
    """Draw a matrix as an image with a colour bar, labelled cell by cell where labels are given."""
    matrix = np.asarray(matrix)
    if axis is None:
        side = 3.6
        axis = new_figure(width=min(6.8, side * max(1.0, matrix.shape[1] / matrix.shape[0])), height=side)[1]
    image = axis.imshow(matrix, aspect="auto", **{"cmap": "cividis", "interpolation": "nearest", **options})
    axis.figure.colorbar(image, ax=axis)
    if x_labels is not None:
        slanted = dict(rotation=60, ha="right", rotation_mode="anchor")
        look = slanted if len(x_labels) <= 12 else dict(rotation=90)
        axis.set_xticks(range(len(x_labels)), [printable(t) for t in x_labels], **look)
    if y_labels is not None:
        axis.set_yticks(range(len(y_labels)), [printable(t) for t in y_labels])
    axis.set(title=title, xlabel=x_label, ylabel=y_label)
    return axis


def attention_figure(weights, tokens, titles, n_columns: int = 4, panel: float = 1.7):
    """Draw one small attention map for each (T, T) matrix of `weights`; queries are rows."""
    n_rows = -(-len(weights) // n_columns)
    show_names = len(tokens) <= 16
    size = (panel * n_columns, (panel + 0.25) * n_rows + (0.6 if show_names else 0))
    figure, axes = plt.subplots(n_rows, n_columns, figsize=size, layout="constrained", squeeze=False)
    names = [printable(token) for token in tokens]
    for axis, matrix, title in itertools.zip_longest(axes.flat, weights, titles):
        if matrix is None:
            axis.axis("off")
            continue
        axis.imshow(np.asarray(matrix), vmin=0, vmax=1, cmap="Greys", interpolation="nearest")
        axis.set_title(title, fontsize=8)
        axis.set_xticks([]), axis.set_yticks([])
    if show_names:
        for axis in axes[:, 0]:
            axis.set_yticks(range(len(names)), names, fontsize=6)
        for axis in axes[-1, :]:
            axis.set_xticks(range(len(names)), names, fontsize=6, rotation=90)
    return figure


def curve_figure(comparison, width: float = 6.8):
    """Draw a `curves.Comparison`: the run over the band of healthy runs, a panel a curve; return the axes.

    Crosses are points outside the band. A point stands at the middle of its block of steps.
    """
    from llmcourse.monitor.reference_bands import NAMES

    bands = comparison.bands
    _, axes = new_figure(len(NAMES), width=width, height=2.6)
    for axis, (curve, name) in zip(axes, NAMES.items(), strict=True):
        here = [i for i, point in enumerate(bands.points) if point.curve == curve]
        x = np.array([(bands.points[i].first + bands.points[i].last) / 2 for i in here])
        run, out = comparison.values[here], comparison.outside[here]
        axis.fill_between(x, bands.low[here], bands.high[here], color="0.85", label="healthy runs")
        axis.plot(x, bands.middle[here], color="0.5", linewidth=1)
        axis.plot(x, run, color=COLORS[0], marker=".", markersize=4, label="this run")
        if out.any():
            axis.plot(x[out], run[out], color=COLORS[1], marker="x", linestyle="none", label="outside")
        axis.set(xlabel="step", title=name, ylabel="norm" if curve == "grad_norm" else "nats")
    handles = {
        label: handle
        for axis in axes
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    axes[0].legend(handles.values(), handles.keys(), frameon=False, fontsize=8)
    return axes


def printable(token: str) -> str:
    """Return a token with its spaces and line breaks made visible; `$` cannot start mathematics.

    >>> printable(" to" + chr(10))
    '␣to↵'
    """
    return token.replace(" ", "␣").replace("\n", "↵").replace("$", r"\$")


def token_spans(tokens: list[str]):
    """Show a text with a box around each token, as HTML that needs no kernel."""
    import html

    from IPython.display import HTML

    style = "border:1px solid #777;border-radius:3px;padding:0 2px;margin:1px;color:#000;background:{}"
    shades = itertools.cycle(("#cfe8f7", "#fde5c8", "#d6f0e0"))
    spans = [
        f'<span style="{style.format(shade)}">{html.escape(printable(token))}</span>'
        for token, shade in zip(tokens, shades, strict=False)
    ]
    return HTML(f'<div style="line-height:2">{" ".join(spans)}</div>')
