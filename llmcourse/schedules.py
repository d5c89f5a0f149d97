"""Learning-rate schedules: functions from the step (from 0) to a factor between 0 and 1."""

import math
from collections.abc import Callable

Schedule = Callable[[int], float]


def _check(total_steps: int, *phases: int) -> None:
    if not (total_steps >= 1 and all(steps >= 0 for steps in phases) and sum(phases) <= total_steps):
        raise ValueError(
            f"phases of {phases} steps do not fit into total_steps={total_steps}: "
            "each must be >= 0 and their sum at most the total"
        )


def constant(step: int) -> float:
    """Return 1 at every step."""
    return 1.0


def warmup_cosine(total_steps: int, warmup_steps: int = 0, final_factor: float = 0.0) -> Schedule:
    """Return a schedule: linear rise over `warmup_steps`, then half a cosine to `final_factor`.

    Raises ValueError if the warmup is longer than the whole.

    >>> schedule = warmup_cosine(total_steps=100, warmup_steps=10)
    >>> [round(schedule(step), 2) for step in (0, 9, 55, 100)]
    [0.1, 1.0, 0.5, 0.0]

    Source: Loshchilov & Hutter 2016, arXiv:1608.03983, eq. 5 (one period).
    """
    _check(total_steps, warmup_steps)

    def schedule(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
        return final_factor + (1 - final_factor) * 0.5 * (1 + math.cos(math.pi * progress))

    return schedule


def warmup_stable_decay(total_steps: int, warmup_steps: int, decay_steps: int) -> Schedule:
    """Return a schedule: linear rise, flat at 1, linear fall to 0 over the last `decay_steps`.

    The flat part can be prolonged without deciding the length of the run beforehand.
    Raises ValueError if the phases are longer than the whole.

    >>> schedule = warmup_stable_decay(total_steps=10, warmup_steps=2, decay_steps=4)
    >>> [schedule(step) for step in (0, 1, 5, 6, 8, 10)]
    [0.5, 1.0, 1.0, 1.0, 0.5, 0.0]

    Source: Hu et al. 2024, arXiv:2404.06395, sec. 4.
    """
    _check(total_steps, warmup_steps, decay_steps)

    def schedule(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        return min(1.0, max(0.0, (total_steps - step) / max(1, decay_steps)))

    return schedule


def warmup_linear(total_steps: int, warmup_steps: int = 0, final_factor: float = 0.0) -> Schedule:
    """Return a schedule: linear warmup over `warmup_steps`, then linear decay to `final_factor`.

    Raises ValueError if the warmup is longer than the whole.

    >>> schedule = warmup_linear(total_steps=10, warmup_steps=2)
    >>> [schedule(step) for step in (0, 1, 2, 6, 10)]
    [0.5, 1.0, 1.0, 0.5, 0.0]

    Source: Bergsma et al. 2025, arXiv:2502.15938 (linear decay to zero).
    """
    _check(total_steps, warmup_steps)

    def schedule(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
        return 1.0 - (1.0 - final_factor) * progress

    return schedule
