"""Figures of chapter 3a."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from llmcourse.teach import plots


def depth(deviations: Mapping[str, Sequence[float]]) -> Axes:
    """Draw the standard deviation of the signal after each layer, for each version of a stack."""
    curves = {name: (range(1, len(values) + 1), values) for name, values in deviations.items()}
    n_layers = len(next(iter(deviations.values())))
    title = f"The signal on its way through {n_layers} untrained layers"
    axis = plots.lines(curves, "layer", "standard deviation", title)
    axis.set_yscale("log")
    return axis


def race(losses: Mapping[tuple[str, float], float], steps: int) -> Axes:
    """Draw a bar for each (architecture, learning rate): its validation loss."""
    values = {f"{name}, lr {lr:g}": loss for (name, lr), loss in losses.items()}
    label = f"validation loss after {steps} steps (nats per token, lower is better)"
    return plots.bars(values, label, "Three architectures, two learning rates each")
