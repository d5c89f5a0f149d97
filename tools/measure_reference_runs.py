"""Measure what healthy runs do, and whether the band made from them holds healthy runs and no others.

    python tools/measure_reference_runs.py          about 20 minutes of CPU; goes on where it stopped

Writes data/reference_runs/clinic.csv (healthy runs, from which `curves.reference_bands` makes the
band), checks/clinic.csv (healthy runs of other seeds, and runs with each bug of chapter 5d) and
README.md, the card with what the checks showed.
"""

import argparse
import csv
import platform
import time
from pathlib import Path

import numpy as np
import torch

from llmcourse import curves
from llmcourse.runtime import atomic_write
from llmcourse.teach import clinic

FOLDER = Path(__file__).resolve().parents[1] / "data" / "reference_runs"
POINTS = curves.block_points(clinic.STEPS, block=10, eval_every=20)
COLUMNS = [f"{point.curve} {point.first}-{point.last}" for point in POINTS]
REFERENCE_SEEDS, HELD_OUT_SEEDS, BUG_SEEDS = range(100, 400), range(1000, 1160), range(2000, 2006)


def plan() -> dict[Path, list[tuple[str, int, int]]]:
    """Return for each file its runs: (bug, seed, threads); every other seed runs on two threads."""
    threads = {seed: 1 + seed % 2 for seed in (*REFERENCE_SEEDS, *HELD_OUT_SEEDS, *BUG_SEEDS)}
    healthy = [("", seed, threads[seed]) for seed in HELD_OUT_SEEDS]
    sick = [(bug, seed, threads[seed]) for bug in clinic.BUGS for seed in BUG_SEEDS]
    reference = [("", seed, threads[seed]) for seed in REFERENCE_SEEDS]
    return {FOLDER / "clinic.csv": reference, FOLDER / "checks" / "clinic.csv": healthy + sick}


def measure(bug: str, seed: int, threads: int) -> dict[str, str]:
    """Return the row of one run; cells of points that it did not reach are empty."""
    torch.set_num_threads(threads)
    began = time.process_time()
    run = clinic.sick_run(clinic.BUGS[bug], seed) if bug else clinic.healthy_run(seed)
    reached = [point for point in POINTS if point.last <= len(run.steps)]
    row = dict(bug=bug, seed=seed, threads=threads, cpu_seconds=f"{time.process_time() - began:.1f}")
    values = dict(zip(reached, curves.point_values(run.steps, reached), strict=True))
    cells = {name: f"{values[p]:.5g}" if p in values else "" for name, p in zip(COLUMNS, POINTS, strict=True)}
    return {name: str(cell) for name, cell in (row | cells).items()}


def measure_all(path: Path, runs: list[tuple[str, int, int]]) -> None:
    """Measure the runs that `path` lacks, and write it after each ten."""
    done = {}
    if path.exists():
        with path.open(encoding="utf-8", newline="") as file:
            done = {(row["bug"], int(row["seed"]), int(row["threads"])): row for row in csv.DictReader(file)}
    missing = [run for run in runs if run not in done]
    for i in range(0, len(missing), 10):
        done |= {run: measure(*run) for run in missing[i : i + 10]}
        rows = [done[run] for run in runs if run in done]
        with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        print(f"{path.name}: {len(rows)} of {len(runs)} runs", flush=True)


def check(bands: curves.Bands) -> tuple[str, str]:
    """Return what the band said of healthy runs of other seeds, and a table of what it said of bugs."""
    _, values, runs = curves.read_runs(FOLDER / "checks" / "clinic.csv")
    outside = (values < bands.low) | (values > bands.high)
    first = np.array([point.first for point in bands.points])
    healthy, lines = [], []
    for threads in ("1", "2"):
        here = [i for i, run in enumerate(runs) if run["bug"] == "" and run["threads"] == threads]
        healthy.append(f"{outside[here].any(1).sum()} of {len(here)} with torch's threads at {threads}")
    for bug in clinic.BUGS:
        here = [i for i, run in enumerate(runs) if run["bug"] == bug]
        since = [first[outside[i]].min() for i in here if outside[i].any()]
        share = outside[here].sum() / np.isfinite(values[here]).sum()
        when = f"{np.median(since):.0f}" if since else "-"
        lines.append(f"| {bug} | {len(since)} of {len(here)} | {when} | {share:.0%} |")
    return " and ".join(healthy), "\n".join(lines)


def card() -> str:
    """Return the text of README.md, with numbers from the files."""
    bands = curves.reference_bands("clinic")
    healthy, table = check(bands)
    _, _, rows = curves.read_runs(FOLDER / "clinic.csv")
    seconds = [float(row["cpu_seconds"]) for row in rows]
    widths = {
        curve: np.sqrt(bands.high / bands.low)[[p.curve == curve for p in bands.points]]
        for curve in curves.NAMES
    }
    spans = ", ".join(
        f"{name} {100 * (widths[curve].min() - 1):.1f}-{100 * (widths[curve].max() - 1):.1f} %"
        for curve, name in curves.NAMES.items()
    )
    return f"""# Reference runs

What healthy training runs look like, so that `llmcourse.curves.compare_run` can answer "is my curve normal?".

| File | Rows | What it holds |
|---|---|---|
| `clinic.csv` | {len(bands.runs)} | healthy runs of chapter 5d (`llmcourse.teach.clinic.healthy_run`): the band is made from these |
| `checks/clinic.csv` | {len(curves.read_runs(FOLDER / "checks" / "clinic.csv")[2])} | healthy runs of other seeds, and runs with each bug: the band is tested on these and has not seen them |

**A row** is one run of {bands.steps} steps. `loss 1-10` is the geometric mean of the training loss (nats per character) over steps 1 to 10, `grad_norm 1-10` that of the gradient norm before clipping, `validation_loss 20-20` the validation loss after step 20. A cell is empty where a run broke off before.

**How it was made**: `python tools/measure_reference_runs.py`, seeds {REFERENCE_SEEDS.start} to {REFERENCE_SEEDS.stop - 1}, even ones on 1 thread and odd ones on 2; {platform.machine()}, torch {torch.__version__}; {np.median(seconds):.1f} s of CPU a run (median). The same seed gives other digits on another processor or number of threads; the differences are of the size of those between seeds.

**The band** holds whole runs, not single points: at most {bands.false_alarms:.0%} of healthy runs are expected to leave it anywhere. Each run in turn is compared with all others in standard deviations of the logarithm, its farthest point counts, and the band is as wide as the distance that only the allowed share exceeds (conformal prediction). Each of the three curves gets a third of the false alarms. Above and below the middle the band reaches: {spans}.

## What the checks showed

Healthy runs of new seeds {HELD_OUT_SEEDS.start} to {HELD_OUT_SEEDS.stop - 1} outside the band: **{healthy}**.
A first band, of 120 runs, let 6 of the first 60 out: rare spikes set its edge, and 120 runs hold too few of them. So more were run, and 100 more held-out ones.

Runs with a bug, seeds {BUG_SEEDS.start} to {BUG_SEEDS.stop - 1}:

| bug | outside | since step (median) | points outside |
|---|---:|---:|---:|
{table}

**Limits.** The band is that of this recipe only: another model, text, batch, schedule or number of steps has another curve. "Inside" does not prove that a run is right. No GPU was measured.

Licence: made by this project, under the licence of the course.
"""


def main() -> None:
    """Measure what is missing, and write the card."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    for path, runs in plan().items():
        measure_all(path, runs)
    with atomic_write(FOLDER / "README.md") as temporary:
        temporary.write_text(card(), encoding="utf-8")


if __name__ == "__main__":
    main()
