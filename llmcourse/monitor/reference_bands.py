"""Is my curve normal: compare a training run with many healthy runs of the same recipe.

One step's loss is noisy, because each batch is easy or hard by luck. So steps are averaged in
blocks before anything is compared. A point is the mean of one block of one curve.

Dimensions: R healthy runs, P points of a run.
"""

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from llmcourse.data.manifest import course_data
from llmcourse.support.inputs import number, whole
from llmcourse.training import Step

NAMES = {"loss": "training loss", "grad_norm": "gradient norm", "validation_loss": "validation loss"}
FALSE_ALARMS = 0.05  # the share of healthy runs that may leave the band somewhere


class Point(NamedTuple):
    """What is compared: the mean of the field `curve` of `Step` over steps `first` to `last`."""

    curve: str
    first: int
    last: int


@dataclass(frozen=True)
class Bands:
    """What healthy runs do: `middle`, `low` and `high`, each (P,), at `points`; made from `runs` (R, P).

    Of new healthy runs, at most a share `false_alarms` is expected to leave the band anywhere.
    """

    name: str
    points: list[Point]
    runs: np.ndarray
    middle: np.ndarray
    low: np.ndarray
    high: np.ndarray
    false_alarms: float

    @property
    def steps(self) -> int:
        """The number of steps of a whole run."""
        return max(point.last for point in self.points)


@dataclass(frozen=True)
class BandComparison:
    """A run beside the band: the sentence `verdict`, and what `teach.plots.curve_figure` draws.

    `outside_since` is the first step of the first block that left the band, None if `inside`.
    `values` and `outside` are (P,), as the bands; a point that is not reached yet has nan and False.
    """

    verdict: str
    inside: bool
    outside_since: int | None
    bands: Bands
    values: np.ndarray
    outside: np.ndarray


def block_points(steps: int, block: int, eval_every: int) -> list[Point]:
    """Return the points at which runs of `steps` steps are compared.

    >>> block_points(4, block=2, eval_every=4)[:2]
    [Point(curve='loss', first=1, last=2), Point(curve='loss', first=3, last=4)]
    """
    steps, block = whole(steps, "steps"), whole(block, "block")
    eval_every = whole(eval_every, "eval_every")
    if steps % block or steps % eval_every:
        raise ValueError(f"block={block} and eval_every={eval_every} must both divide steps={steps}")
    blocks = [(first, first + block - 1) for first in range(1, steps, block)]
    points = [Point(curve, *ends) for curve in ("loss", "grad_norm") for ends in blocks]
    return points + [Point("validation_loss", i, i) for i in range(eval_every, steps + 1, eval_every)]


def point_values(steps: Sequence[Step], points: Sequence[Point]) -> np.ndarray:
    """Return (P,): the run's geometric mean at each point; nan or 0 where a value is.

    Raises ValueError where the run has no value, such as no validation loss at that step.
    """
    values = []
    for curve, first, last in points:
        if len(steps) < last:
            raise ValueError(f"the run has {len(steps)} steps and a point ends at step {last}: train as far")
        block = [getattr(step, curve) for step in steps[first - 1 : last]]
        if None in block:
            raise ValueError(
                f"this run has no {NAMES[curve]} at step {last}, and the reference has one: train "
                f"with evaluate=... and an eval_every that divides {last}"
            )
        values.append(_log(block).mean())
    return np.exp(values)


def _log(values) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(np.asarray(values, dtype=float))


def distances(run: np.ndarray, healthy: np.ndarray) -> np.ndarray:
    """Return (P,): by how many standard deviations `run` (P,) is off the mean of `healthy` (R, P).

    Both are logarithms. The deviation is that of a new run: the mean of R runs is uncertain too.
    """
    deviation = healthy.std(0, ddof=1) * math.sqrt(1 + 1 / len(healthy))
    return (run - healthy.mean(0)) / deviation


def tolerance_factor(healthy: np.ndarray, false_alarms: float = FALSE_ALARMS) -> float:
    """Return how many deviations wide the band must be to hold whole runs, not single points.

    Each of the R runs in turn is compared with all others, and only its farthest point counts.
    A new healthy run may come at any rank among these R distances, each as likely. So the band is
    as wide as the distance of rank (1 - false_alarms)(R + 1): that share of new runs is beyond it.
    Raises ValueError when there are too few runs for so rare an alarm, or when these all agree.

    Source: Vovk et al. 2005 (conformal prediction); Barber et al. 2021, arXiv:1905.02928.
    """
    false_alarms = number(false_alarms, "false_alarms", 1e-9, 1 - 1e-9, "a share, such as 0.05")
    n = len(healthy)
    rank = math.ceil((1 - false_alarms) * (n + 1) - 1e-9)
    if rank > n or n < 3:
        needed = max(3, math.ceil(1 / false_alarms - 1e-9) - 1)
        raise ValueError(
            f"{n} healthy runs are too few for false_alarms={false_alarms:.2g} of a curve: give {needed} or more, "
            "or accept more false alarms"
        )
    if not (np.isfinite(healthy).all() and (np.ptp(healthy, axis=0) > 0).all()):
        raise ValueError(
            "each point needs a finite logarithm in each run, and runs that differ: give other seeds"
        )
    farthest = [np.abs(distances(healthy[i], np.delete(healthy, i, axis=0))).max() for i in range(n)]
    return float(np.sort(farthest)[rank - 1])


def make_bands(name: str, points: list[Point], runs: np.ndarray, false_alarms: float = FALSE_ALARMS) -> Bands:
    """Return the bands of `runs` (R, P): the values of R healthy runs at `points`.

    Each curve gets an equal part of the false alarms, so that a quiet one, such as the validation
    loss, need not be as wide as the gradient norm with its rare spikes. Raises ValueError where a
    run has no value above 0, such as nan, since it would put every other run outside.
    """
    runs = np.asarray(runs, dtype=float)
    if runs.ndim != 2 or runs.shape[1] != len(points) or not len(points):
        raise ValueError(
            f"runs of shape {runs.shape} at {len(points)} points: give one column for each point"
        )
    bad = np.argwhere(~((runs > 0) & (runs < np.inf)))
    if len(bad):
        run, i = bad[0]
        raise ValueError(
            f"run {run} is {runs[run, i]} at {points[i]}: a healthy run is above 0 at every point"
        )
    logs = np.log(runs)
    middle = logs.mean(0)
    reach = logs.std(0, ddof=1) * math.sqrt(1 + 1 / len(runs))
    curves = [point.curve for point in points]
    for curve in set(curves):
        here = [i for i, other in enumerate(curves) if other == curve]
        reach[here] *= tolerance_factor(logs[:, here], false_alarms / len(set(curves)))
    low, high = np.exp(middle - reach), np.exp(middle + reach)
    return Bands(name, points, runs, np.exp(middle), low, high, false_alarms)


def reference_bands(name: str = "small_run", false_alarms: float = FALSE_ALARMS) -> Bands:
    """Return the bands of the healthy runs in data/reference_runs/`name`.csv.

    Raises FileNotFoundError, with the names that exist, for another name.
    """
    path = course_data() / "reference_runs" / f"{name}.csv"
    if not path.is_file():
        names = sorted(other.stem for other in path.parent.glob("*.csv"))
        raise FileNotFoundError(f"no reference runs are called {name!r}: choose one of {names}")
    points, runs, _ = read_runs(path)
    return make_bands(name, points, runs, false_alarms)


def read_runs(path: str | Path) -> tuple[list[Point], np.ndarray, list[dict[str, str]]]:
    """Return the points, the values (R, P) and the other columns of a file with one run a row.

    A column such as "loss 1-10" holds the geometric mean of ten losses; an empty cell, a point that
    the run did not reach, is nan. Raises ValueError for a file without runs.
    """
    with Path(path).open(encoding="utf-8-sig", newline="") as file:  # a spreadsheet may add a BOM
        rows = list(csv.DictReader(file))
    if not rows:
        raise ValueError(f"{path} holds no run: it needs a line of names, and a line for each run")
    names = [name for name in rows[0] if " " in name]
    points = [Point(curve, *map(int, ends.split("-"))) for curve, ends in map(str.split, names)]
    runs = np.array([[float(row.pop(name) or "nan") for name in names] for row in rows])
    return points, runs, rows


def compare_run(steps: Iterable[Step], reference: str | Bands = "small_run") -> BandComparison:
    """Say whether a run is inside the band of healthy runs, and since when it is not.

    `steps` are the records that `train` yields, from the first on; a run that is still going, or
    that broke off, is compared as far as it went. Too low is outside as well: a loss that is too
    good is a bug more often than luck. Raises ValueError for a run that is empty or too short, has
    more steps than the reference, does not begin at step 1, or lacks validation losses.
    """
    bands = reference if isinstance(reference, Bands) else reference_bands(reference)
    steps = list(steps)
    reached = np.array([point.last <= len(steps) for point in bands.points])
    if not reached.any() or len(steps) > bands.steps:
        raise ValueError(
            f"the run has {len(steps)} steps and the reference {bands.name!r} {bands.steps}, the first "
            f"block {bands.points[0].last}: give a run of the same recipe, at least one block of it"
        )
    if [step.step for step in steps] != list(range(1, len(steps) + 1)):
        raise ValueError(
            f"the steps are numbered {steps[0].step} to {steps[-1].step}, and {len(steps)} of them were "
            "given: keep them all, from step 1 on, as list(train(...)) does"
        )
    values = np.full(len(reached), np.nan)
    values[reached] = point_values(steps, [bands.points[i] for i in np.flatnonzero(reached)])
    outside = reached & ~((values >= bands.low) & (values <= bands.high))  # nan is outside
    verdict, since = _verdict(bands, values, reached, outside)
    return BandComparison(verdict, since is None, since, bands, values, outside)


def _verdict(bands: Bands, values, reached, outside) -> tuple[str, int | None]:
    last = max(point.last for point, there in zip(bands.points, reached, strict=True) if there)
    so_far = "" if last == bands.steps else f", as far as step {last} of {bands.steps}"
    if not outside.any():
        healthy = f"{len(bands.runs)} healthy runs"
        return f"inside the band of {healthy} at all {reached.sum()} points{so_far}", None
    since = min(bands.points[i].first for i in np.flatnonzero(outside))
    off = np.abs(_log(values / bands.middle)) / np.log(bands.high / bands.middle)  # 1 is the edge
    off = np.where(outside, np.nan_to_num(off, nan=np.inf), 0)
    i = max(range(len(off)), key=lambda i: off[i] if bands.points[i].first == since else -1)
    return (
        f"outside since step {since}: {NAMES[bands.points[i].curve]} {values[i]:.3g}, band {bands.low[i]:.3g}-"
        f"{bands.high[i]:.3g}; outside at {outside.sum() / reached.sum():.0%} of the points{so_far}"
    ), since
