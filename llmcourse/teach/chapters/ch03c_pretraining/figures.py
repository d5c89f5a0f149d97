"""Figures of chapter 3c, and the longer runs that one of them shows."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from llmcourse.data.manifest import course_data
from llmcourse.teach import plots


@dataclass(frozen=True)
class LongerRun:
    """The notebook's run with more steps: validation losses on the way, and what it reached on all of the text."""

    seed: int
    steps: list[int]
    losses: list[float]
    bits_per_byte: float


def longer_runs() -> list[LongerRun]:
    """Return the runs that tools/measure_longer_run.py stored, one for each seed.

    >>> [run.steps[-1] for run in longer_runs()]
    [2000, 2000, 2000]
    """
    path = course_data() / "longer_run" / "runs.csv"
    with path.open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    runs = []
    for seed in dict.fromkeys(row["seed"] for row in table):
        rows = [row for row in table if row["seed"] == seed]
        steps, losses = [int(row["step"]) for row in rows], [float(row["validation_loss"]) for row in rows]
        runs.append(LongerRun(int(seed), steps, losses, float(rows[-1]["bits_per_byte"])))
    return runs


def loss_curves(scalars: Mapping, longer: Sequence[LongerRun], levels: Mapping[str, float]) -> Axes:
    """Draw training and validation loss of a run, those of the longer runs, and levels to compare with.

    scalars: what `read_scalars` returns, with "loss/train" and "loss/validation". levels: name -> loss.
    """
    axis = plots.new_figure(width=6.6, height=3.6)[1]
    axis.plot(*scalars["loss/train"], color="0.8", label="training, one batch")
    axis.plot(*scalars["loss/validation"], marker="o", color=plots.COLORS[0], label="validation")
    for run in longer:
        label = "validation, stored longer runs" if run is longer[0] else None
        axis.plot(run.steps, run.losses, color=plots.COLORS[1], linewidth=1, label=label)
    for (name, level), style in zip(levels.items(), (":", "-.", "--"), strict=False):
        axis.axhline(level, color="black", linestyle=style, linewidth=1, label=name)
    axis.set(xlabel="step", ylabel="loss (nats per token)", ylim=(3.7, 6.5))
    axis.set_title("A short run, longer ones, and counting")
    axis.legend(frameon=False, fontsize=8)
    return axis


def schedules(factors: Mapping, steps: int) -> Axes:
    """Draw learning-rate schedules, functions from the step to a factor, over `steps` steps."""
    curves = {name: (range(steps), [f(step) for step in range(steps)]) for name, f in factors.items()}
    return plots.lines(curves, "step", "share of the highest learning rate", "Three schedules")
