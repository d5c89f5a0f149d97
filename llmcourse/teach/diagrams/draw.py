"""The few primitives of all schematic pictures: a canvas, boxes, arrows, grids, bars, and labels.

Units are inches on the page, with the origin at the bottom left; x and y name the centre of what is drawn.
Fills differ in grey, and what a fill means is also written, so that a picture can be printed in black.
"""

from collections.abc import Sequence
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from llmcourse.teach.plots import COLORS, new_figure

SIZE = 9  # points, as the tick labels of a plot
SMALL = 8
MAX_WIDTH = 6.8  # inches: with the margin of a page, 700 pixels at the 100 dots per inch of a notebook
# Fills by meaning, light enough for black text; from dark to light in grey: value, key, query, soft, plain.
FILLS = {"query": "#d3e6f5", "key": "#f8caa8", "value": "#8fcdb4", "soft": "#f1f1f1", "plain": "#ffffff"}
INKS = {"query": COLORS[0], "key": COLORS[1], "value": COLORS[2], "soft": "0.5", "plain": "0.2"}


class Box(NamedTuple):
    """A rectangle on the canvas; its sides are points at which an arrow can start or end.

    >>> Box(x=2.0, y=1.0, width=1.0, height=0.5).right
    (2.5, 1.0)
    """

    x: float
    y: float
    width: float
    height: float

    @property
    def left(self) -> tuple[float, float]:
        """The middle of the left side."""
        return self.x - self.width / 2, self.y

    @property
    def right(self) -> tuple[float, float]:
        """The middle of the right side."""
        return self.x + self.width / 2, self.y

    @property
    def top(self) -> tuple[float, float]:
        """The middle of the upper side."""
        return self.x, self.y + self.height / 2

    @property
    def bottom(self) -> tuple[float, float]:
        """The middle of the lower side."""
        return self.x, self.y - self.height / 2


def canvas(width: float = 6.4, height: float = 2.4, title: str = "") -> Axes:
    """Return an empty axis of width x height inches, one unit an inch, without ticks or frame.

    >>> axis = canvas(4, 2)
    >>> axis.get_xlim()[1], axis.get_ylim()[1]
    (np.float64(4.0), np.float64(2.0))
    """
    if not 0 < width <= MAX_WIDTH or height <= 0:
        raise ValueError(
            f"a canvas of {width} x {height} inches: the width is at most {MAX_WIDTH:g}, as a page"
        )
    figure, axis = new_figure(width=width, height=height)
    figure.set_layout_engine("none")
    axis.set_position((0, 0, 1, 1))
    axis.set(xlim=(0, width), ylim=(0, height))
    axis.axis("off")
    if title:
        label(axis, width / 2, height - 0.15, title, size=SIZE + 1)
    return axis


def label(axis: Axes, x: float, y: float, text: str, size: float = SIZE, align: str = "center", **options):
    """Write `text` at (x, y): its centre, or its "left" or "right" end; return the Text.

    >>> label(canvas(2, 1), 1, 0.5, "hello").get_text()
    'hello'
    """
    return axis.text(x, y, text, fontsize=size, ha=align, va="center", **options)


def box(axis: Axes, x: float, y: float, text: str = "", width: float = 1.0, height: float = 0.4,
        fill: str = "plain", size: float = SIZE, dashed: bool = False) -> Box:  # fmt: skip
    """Draw a rectangle around (x, y) with `text` in it; `fill` is a name of FILLS.

    >>> axis = canvas(4, 1)
    >>> box(axis, 1, 0.5, "embedding", fill="query").right
    (1.5, 0.5)
    """
    if fill not in FILLS:
        raise ValueError(f"fill {fill!r}: choose one of {', '.join(FILLS)}")
    corner = (x - width / 2, y - height / 2)
    style = dict(facecolor=FILLS[fill], edgecolor=INKS[fill], linestyle="--" if dashed else "-")
    axis.add_patch(plt.Rectangle(corner, width, height, linewidth=1, **style))
    if text:
        label(axis, x, y, text, size)
    return Box(x, y, width, height)


def arrow(axis: Axes, start, end, text: str = "", bend: float = 0.0, weight: float = 1.0, color: str = "0.2",
          offset: tuple[float, float] = (0.0, 0.12), size: float = SMALL, dashed: bool = False):  # fmt: skip
    """Draw an arrow between two points, `weight` points thick; return its annotation.

    bend: 0 is straight; 0.3 is an arc to the right of its direction, -0.3 to the left.
    text: written `offset` inches from the middle of the arrow.

    >>> axis = canvas(4, 1)
    >>> a, b = box(axis, 1, 0.5, "x"), box(axis, 3, 0.5, "y")
    >>> _ = arrow(axis, a.right, b.left, "W")
    """
    line = dict(arrowstyle="-|>", color=color, linewidth=weight, shrinkA=1, shrinkB=1)
    line |= dict(connectionstyle=f"arc3,rad={bend}", linestyle="--" if dashed else "-")
    drawn = axis.annotate("", end, start, arrowprops=line)
    if text:
        (x0, y0), (x1, y1) = start, end
        middle = (x0 + x1 - bend * (y0 - y1)) / 2, (y0 + y1 - bend * (x1 - x0)) / 2
        label(axis, middle[0] + offset[0], middle[1] + offset[1], text, size)
    return drawn


def grid(axis: Axes, x: float, y: float, values, rows: Sequence[str] = (), columns: Sequence[str] = (),
         cell: tuple[float, float] = (0.45, 0.3), fills=None, format: str = "{}",
         size: float = SMALL) -> np.ndarray:  # fmt: skip
    """Draw a table of cells; (x, y) is its top left corner; return a Box for each cell, as an object array.

    values: a list of lists; None leaves a cell empty. rows, columns: labels to the left and on top.
    fills: a name of FILLS for all, or one for each cell; None is "plain".

    >>> axis = canvas(3, 2)
    >>> cells = grid(axis, 1, 1.5, [[1, 2], [3, None]], rows=["a", "b"], columns=["c", "d"])
    >>> cells.shape, cells[0, 1].x
    ((2, 2), 1.675)
    """
    n_rows, n_columns = len(values), len(values[0])
    if any(len(row) != n_columns for row in values):
        raise ValueError(f"rows of {sorted({len(row) for row in values})} values: a table needs equal rows")
    width, height = cell
    shades = np.broadcast_to(np.array("plain" if fills is None else fills, dtype=object), (n_rows, n_columns))
    boxes = np.empty((n_rows, n_columns), dtype=object)
    for i, j in np.ndindex(n_rows, n_columns):
        text = "" if values[i][j] is None else format.format(values[i][j])
        centre = (x + (j + 0.5) * width, y - (i + 0.5) * height)
        boxes[i, j] = box(axis, *centre, text, width, height, shades[i, j], size)
    for name, (first, *_) in zip(rows, boxes, strict=True) if len(rows) else ():
        label(axis, x - 0.07, first.y, name, size, align="right")
    for name, first in zip(columns, boxes[0], strict=True) if len(columns) else ():
        label(axis, first.x, y + 0.11, name, size)
    return boxes


def bars(axis: Axes, x: float, y: float, values: dict[str, float], length: float = 1.5, step: float = 0.26,
         fill: str = "query", format: str = "{:.2f}", size: float = SMALL) -> None:  # fmt: skip
    """Draw a horizontal bar for each name, the largest `length` inches long; (x, y) is where the first begins.

    >>> bars(canvas(4, 1), 1, 0.8, {"king": 0.85, "crown": 0.10})
    """
    if not values or max(values.values()) <= 0 or min(values.values()) < 0:
        raise ValueError(f"bars of {list(values.values())}: give lengths that are not negative, one above 0")
    unit = length / max(values.values())
    for i, (name, value) in enumerate(values.items()):
        row = y - i * step
        box(axis, x + value * unit / 2, row, width=value * unit, height=step * 0.65, fill=fill)
        label(axis, x - 0.07, row, name, size, align="right")
        label(axis, x + value * unit + 0.07, row, format.format(value), size, align="left")
