"""Measure what healthy runs do, and whether the band made from them holds healthy runs and no others.

    python tools/measure_reference_runs.py                 about 20 minutes of CPU; goes on where it stopped
    python tools/measure_reference_runs.py --device cuda   the runs on a GPU, beside those that are there

Writes data/reference_runs/small_run.csv (healthy runs, from which `curves.reference_bands` makes the
band), checks/small_run.csv (healthy runs of other seeds, and runs with each planted bug) and
README.md, the card with what the checks showed.
"""

import argparse
import csv
import multiprocessing
import platform
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from llmcourse.monitor import planted_bugs, small_run
from llmcourse.monitor import reference_bands as curves
from llmcourse.support.files import atomic_write

FOLDER = Path(__file__).resolve().parents[1] / "data" / "reference_runs"
POINTS = curves.block_points(small_run.STEPS, block=10, eval_every=20)
COLUMNS = [f"{point.curve} {point.first}-{point.last}" for point in POINTS]
SEEDS = {  # device -> seeds of the reference, held out and healthy, with each bug
    "cpu": (range(100, 400), range(1000, 1160), range(2000, 2006)),
    "cuda": (range(400, 460), range(1160, 1220), range(2006, 2010)),
}

PLACES = {  # (device, threads) -> name
    ("cpu", "1"): "on a CPU with one thread",
    ("cpu", "2"): "on a CPU with two",
    ("cuda", "1"): "on a GPU",
}


class Planned(NamedTuple):
    """What decides a run."""

    bug: str
    seed: int
    device: str
    threads: int


def plan() -> dict[Path, list[Planned]]:
    """Return for each file its runs; on a CPU every other seed runs on two threads."""
    reference, checks = [], []
    for device, (seeds, held_out, with_bugs) in SEEDS.items():
        runs = [("", seed) for seed in held_out] + [
            (bug, seed) for bug in planted_bugs.BUGS for seed in with_bugs
        ]
        for group, part in ((reference, [("", seed) for seed in seeds]), (checks, runs)):
            group += [Planned(*run, device, 1 + run[1] % 2 if device == "cpu" else 1) for run in part]
    return {FOLDER / "small_run.csv": reference, FOLDER / "checks" / "small_run.csv": checks}


def measure(planned: Planned) -> dict[str, str]:
    """Return the row of one run; cells of points that it did not reach are empty."""
    torch.set_num_threads(planned.threads)
    began = time.process_time()
    bug, options = planted_bugs.BUGS.get(planned.bug), dict(device=planned.device)
    run = (
        small_run.sick_run(bug, planned.seed, **options)
        if bug
        else small_run.healthy_run(planned.seed, **options)
    )
    reached = [point for point in POINTS if point.last <= len(run.steps)]
    row = planned._asdict() | dict(cpu_seconds=f"{time.process_time() - began:.1f}")
    values = dict(zip(reached, curves.point_values(run.steps, reached), strict=True))
    cells = {name: f"{values[p]:.5g}" if p in values else "" for name, p in zip(COLUMNS, POINTS, strict=True)}
    return {name: str(cell) for name, cell in (row | cells).items()}


def measure_all(path: Path, runs: list[Planned], device: str, workers: int) -> None:
    """Measure the runs on `device` that `path` lacks, `workers` at a time; write it after each 30."""
    done = {}
    if path.exists():
        with path.open(encoding="utf-8", newline="") as file:
            done = {
                Planned(row["bug"], int(row["seed"]), row["device"], int(row["threads"])): row
                for row in csv.DictReader(file)
            }
    missing = [run for run in runs if run.device == device and run not in done]
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        for i, row in enumerate(pool.imap(measure, missing), start=1):
            done[missing[i - 1]] = row
            if i % 30 and i < len(missing):
                continue
            rows = [done[run] for run in runs if run in done]
            with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)
            print(f"{path.name}: {len(rows)} of {len(runs)} runs", flush=True)


def check(bands: curves.Bands) -> tuple[str, str]:
    """Return what the band said of healthy runs of other seeds, and a table of what it said of bugs."""
    _, values, runs = curves.read_runs(FOLDER / "checks" / "small_run.csv")
    outside = (values < bands.low) | (values > bands.high)
    first = np.array([point.first for point in bands.points])
    healthy, lines = [], []
    for place, name in PLACES.items():
        here = [
            i for i, run in enumerate(runs) if run["bug"] == "" and (run["device"], run["threads"]) == place
        ]
        healthy.append(f"{outside[here].any(1).sum()} of {len(here)} {name}")
    for bug in planted_bugs.BUGS:
        here = [i for i, run in enumerate(runs) if run["bug"] == bug]
        since = [first[outside[i]].min() for i in here if outside[i].any()]
        share = outside[here].sum() / np.isfinite(values[here]).sum()
        when = f"{np.median(since):.0f}" if since else "-"
        lines.append(f"| {bug} | {len(since)} of {len(here)} | {when} | {share:.0%} |")
    return ", ".join(healthy), "\n".join(lines)


def gpu_runs_outside_a_cpu_band() -> tuple[int, int]:
    """Return how many healthy runs on a GPU leave a band made on a CPU, and how many there are."""
    points, values, rows = curves.read_runs(FOLDER / "small_run.csv")
    _, others, checks = curves.read_runs(FOLDER / "checks" / "small_run.csv")
    on_cpu = np.array([row["device"] == "cpu" for row in rows])
    bands = curves.make_bands("cpu", points, values[on_cpu])
    more = others[[row["device"] == "cuda" and row["bug"] == "" for row in checks]]
    healthy = np.concatenate([values[~on_cpu], more])
    outside = (healthy < bands.low) | (healthy > bands.high)
    return int(outside.any(1).sum()), len(healthy)


def card() -> str:
    """Return the text of README.md, with numbers from the files."""
    bands = curves.reference_bands("small_run")
    healthy, table = check(bands)
    left, n_gpu = gpu_runs_outside_a_cpu_band()
    _, _, rows = curves.read_runs(FOLDER / "small_run.csv")
    seconds = [float(row["cpu_seconds"]) for row in rows if row["device"] == "cpu"]
    on_gpu = sum(row["device"] == "cuda" for row in rows)
    seeds = {
        device: [f"{part.start} to {part.stop - 1}" for part in parts] for device, parts in SEEDS.items()
    }
    widths = {
        curve: np.sqrt(bands.high / bands.low)[[p.curve == curve for p in bands.points]]
        for curve in curves.NAMES
    }
    spans = ", ".join(
        f"{name} {100 * (widths[curve].min() - 1):.1f}-{100 * (widths[curve].max() - 1):.1f} %"
        for curve, name in curves.NAMES.items()
    )
    return f"""# Reference runs

What healthy training runs look like, so that `llmcourse.monitor.reference_bands.compare_run` can answer "is my curve normal?".

| File | Rows | What it holds |
|---|---|---|
| `small_run.csv` | {len(bands.runs)} | healthy runs (`llmcourse.monitor.small_run.healthy_run`): the band is made from these |
| `checks/small_run.csv` | {len(curves.read_runs(FOLDER / "checks" / "small_run.csv")[2])} | healthy runs of other seeds, and runs with each bug: the band is tested on these and has not seen them |

**A row** is one run of {bands.steps} steps. `loss 1-10` is the geometric mean of the training loss (nats per character) over steps 1 to 10, `grad_norm 1-10` that of the gradient norm before clipping, `validation_loss 20-20` the validation loss after step 20. A cell is empty where a run broke off before.

**How it was made**: `python tools/measure_reference_runs.py`, seeds {seeds["cpu"][0]} on a CPU, even ones on 1 thread and odd ones on 2; {platform.machine()}, torch {torch.__version__}; {np.median(seconds):.1f} s of CPU a run (median). With `--device cuda`, {on_gpu} runs of seeds {seeds["cuda"][0]} on one NVIDIA H200, torch 2.11. The same seed gives other digits on another processor, number of threads or device; the differences are of the size of those between seeds.

**The band** holds whole runs, not single points: at most {bands.false_alarms:.0%} of healthy runs are expected to leave it anywhere. Each run in turn is compared with all others in standard deviations of the logarithm, its farthest point counts, and the band is as wide as the distance that only the allowed share exceeds (conformal prediction). Each of the three curves gets a third of the false alarms. Above and below the middle the band reaches: {spans}.

## What the checks showed

Healthy runs of new seeds ({seeds["cpu"][1]} on a CPU, {seeds["cuda"][1]} on a GPU) outside the band: **{healthy}**.
A band of the CPU's runs alone is left by {left} of all {n_gpu} healthy GPU runs: one band serves both. A first band, of 120 runs, let 6 of the first 60 out: rare spikes set its edge, and 120 runs hold too few of them. So more were run, and 100 more held-out ones.

Runs with a bug, seeds {seeds["cpu"][2]} on a CPU and {seeds["cuda"][2]} on a GPU:

| bug | outside | since step (median) | points outside |
|---|---:|---:|---:|
{table}

**Limits.** The band is that of this recipe only: another model, text, batch, schedule or number of steps has another curve. "Inside" does not prove that a run is right.

Licence: made by this project, under the licence of the course.
"""


def main() -> None:
    """Measure what is missing, and write the card."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=SEEDS, default="cpu")
    parser.add_argument("--workers", type=int, default=1, help="runs at the same time")
    options = parser.parse_args()
    for path, runs in plan().items():
        measure_all(path, runs, options.device, options.workers)
    with atomic_write(FOLDER / "README.md") as temporary:
        temporary.write_text(card(), encoding="utf-8")


if __name__ == "__main__":
    main()
