"""The figures of `04c_positions`."""

from matplotlib.axes import Axes
from torch import Tensor

from llmcourse.teach import plots


def loss_over_positions(losses: dict[str, Tensor], title: str, trained_up_to: int, block: int = 16) -> Axes:
    """Draw the loss at each position of a window, as means over blocks of positions.

    losses: for each name (n_positions,), a multiple of `block`.

    >>> import torch
    >>> axis = loss_over_positions({"a": torch.arange(64.0)}, "", trained_up_to=32)
    >>> [float(y) for y in axis.lines[0].get_ydata()]
    [7.5, 23.5, 39.5, 55.5]
    """
    curves = {
        name: (range(block // 2, len(loss), block), loss.view(-1, block).mean(-1))
        for name, loss in losses.items()
    }
    axis = plots.lines(curves, "position in the window", "loss (nats per token)", title, marker=".")
    axis.axvline(trained_up_to, color="0.5", linewidth=1)
    place = (trained_up_to + 2, axis.get_ylim()[1])
    axis.annotate("trained up to here", place, va="top", fontsize=8)
    return axis
