"""The learning-rate range test: one short run in which the rate rises at each step.

Dimensions: B batch (sequences), T time, C width.
"""

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from torch import nn

from llmcourse.training import train


@dataclass(frozen=True)
class Sweep:
    """One training run whose learning rate rises at each step: `losses` at `rates`, in nats per token."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]

    def smoothed(self, decades: float = 0.5) -> np.ndarray:
        """Return the losses, each a mean that forgets what is more than about `decades` back.

        The window is a stretch of rates, not of steps, so sweeps of different length compare.
        """
        per_decade = (len(self.rates) - 1) / math.log10(self.rates[-1] / self.rates[0])
        keep = 1 - 1 / max(1.0, decades / 2 * per_decade)
        mean, weight, means = 0.0, 0.0, []
        for loss in self.losses:
            mean, weight = keep * mean + (1 - keep) * loss, keep * weight + (1 - keep)
            means.append(mean / weight)
        return np.array(means)

    def lowest(self) -> float:
        """Return the rate at which the smoothed loss is lowest."""
        return self.rates[int(self.smoothed().argmin())]

    def steepest(self) -> float:
        """Return the rate before the lowest loss at which the smoothed loss falls fastest per decade."""
        smoothed = self.smoothed()
        end = max(2, int(smoothed.argmin()) + 1)
        slope = np.gradient(smoothed[:end], np.log10(self.rates[:end]))
        return self.rates[int(slope.argmin())]


def lr_range_test(
    model: nn.Module,
    batches: Iterable,
    *,
    low: float = 1e-5,
    high: float = 1.0,
    steps: int = 100,
    stop: float = 2.0,
    **options,
) -> Sweep:
    """Return the losses of a short run whose rate rises from `low` to `high`, by one factor a step.

    It trains a copy: `model` stays as it is. It ends early where the loss exceeds `stop` times the
    lowest so far, or is not finite. `options` go to `train`, as in the run that you plan. Raises
    ValueError unless 0 < low < high and steps >= 3.

    Source: Smith 2015, arXiv:1506.01186, sec. 3.3, whose rate rises by a constant amount; a
    constant factor, as here, is what libraries made of it.
    """
    if not 0 < low < high or steps < 3:
        raise ValueError(f"low={low}, high={high}, steps={steps}: give 0 < low < high and at least 3 steps")
    rates, losses = [], []
    growth = math.log(high / low) / (steps - 1)
    options = {"lr": low, "schedule": lambda step: math.exp(growth * step), "steps": steps, **options}
    try:
        for step in train(copy.deepcopy(model), batches, **options):
            rates.append(step.lr)
            losses.append(step.loss)
            if step.loss > stop * min(losses):
                break
    except FloatingPointError:  # the sweep has found where training breaks
        if len(losses) < 3:
            raise
    return Sweep(tuple(rates), tuple(losses))
