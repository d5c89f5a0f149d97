"""Figures of chapter 3a."""

import csv
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from llmcourse.data.manifest import course_data
from llmcourse.teach import plots


def depth(deviations: Mapping[str, Sequence[float]]) -> Axes:
    """Draw the standard deviation of the signal after each layer, for each version of a stack."""
    curves = {name: (range(1, len(values) + 1), values) for name, values in deviations.items()}
    n_layers = len(next(iter(deviations.values())))
    title = f"The signal on its way through {n_layers} untrained layers"
    axis = plots.lines(curves, "layer", "standard deviation", title)
    axis.set_yscale("log")
    return axis


def stored_race() -> dict[tuple[str, float], list[float]]:
    """Return {(architecture, learning rate): validation loss of each seed} from data/race/runs.csv.

    >>> {len(losses) for losses in stored_race().values()}
    {3}
    """
    losses: dict[tuple[str, float], list[float]] = {}
    with (course_data() / "race" / "runs.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            losses.setdefault((row["architecture"], float(row["rate"])), []).append(
                float(row["validation_loss"])
            )
    return losses


def race(
    stored: Mapping[tuple[str, float], Sequence[float]], here: Mapping[tuple[str, float], float], steps: int
) -> Axes:
    """Draw the validation losses of the stored runs, by (architecture, rate), and of those made here."""
    axis = plots.new_figure(height=2.8)[1]
    rows = list(stored)
    for place, losses in enumerate(stored.values()):
        label = f"stored, {len(losses)} seeds, 300 steps" if place == 0 else None
        axis.plot(losses, [place] * len(losses), "|", color="0.5", markersize=12, label=label)
    places = [rows.index(row) for row in here]
    label = f"made here, {steps} steps"
    axis.plot(list(here.values()), places, "o", color=plots.COLORS[0], label=label)
    axis.set_yticks(range(len(rows)), [f"{name}, rate {rate:g}" for name, rate in rows])
    axis.invert_yaxis()
    axis.set(xlabel="validation loss (nats per token, lower is better)")
    axis.set_title("Three architectures, two learning rates each")
    axis.legend(frameon=False, fontsize=8)
    return axis
