"""Measure how the loss falls with size and tokens, and where the best rate lies: data/scaling.

    python tools/measure_scaling.py rates       # loss against rate at three widths, in muP and in the usual way
    python tools/measure_scaling.py longer      # the same at the base, for the longest runs
    python tools/measure_scaling.py sizes       # five sizes at three numbers of tokens
    python tools/measure_scaling.py predict     # what the law says of the size that was held back
    python tools/measure_scaling.py held_back   # ... which is trained only now
    python tools/measure_scaling.py summary

Resumable; one thread.
"""

import argparse
import csv
import time
from collections import defaultdict
from pathlib import Path
from statistics import mean

import numpy as np
import torch

from llmcourse.support.files import atomic_write
from llmcourse.tune.scaling import predict_loss
from llmcourse.tune.width_runs import BASE, BATCH, CONTEXT, hidden_parameters, load_text, train_width

FOLDER = Path(__file__).resolve().parents[1] / "data" / "scaling"
COLUMNS = ("part", "width", "parameters", "steps", "tokens", "log2_rate", "mup", "seed", "bits", "seconds")
WIDTHS, HELD_BACK, STEPS, SEEDS = (32, 48, 64, 96, 128), 192, (150, 300, 600), range(6)
RATES, RATE_WIDTHS, RATE_STEPS, RATE_SEEDS = range(-9, -3), (32, 128, 256), 100, (0, 1)
HELD_BACK_SEEDS, RESAMPLES, LONGER_RATES = range(3), 1000, (-6, -7, -8, -5)
LOG2_RATE = -6  # of the base, for all sizes: the best of `rates` in muP


def read(name: str) -> list[dict]:
    """Return the rows of a table, none where there is no file yet."""
    path = FOLDER / f"{name}.csv"
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write(name: str, rows: list[dict]) -> None:
    """Write a table whole."""
    with (
        atomic_write(FOLDER / f"{name}.csv") as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


class Runs:
    """The rows of runs.csv; a run that is there is not made again."""

    def __init__(self):
        self.rows, self.text = read("runs"), load_text()

    def make(self, part: str, width: int, steps: int, log2_rate: float, mup: bool, seed: int) -> None:
        """Train one model, unless that is done, and write the table."""
        key = (part, width, hidden_parameters(width), steps, steps * BATCH * CONTEXT, log2_rate)
        key = tuple(map(str, (*key, int(mup), seed)))
        if any(tuple(row.values())[:8] == key for row in self.rows):
            return
        began = time.process_time()
        bits = train_width(self.text, width, steps, 2.0**log2_rate, seed, mup)
        seconds = time.process_time() - began
        self.rows.append(dict(zip(COLUMNS, (*key, f"{bits:.4f}", f"{seconds:.1f}"), strict=True)))
        write("runs", self.rows)
        print(*self.rows[-1].values(), flush=True)


def measure(part: str) -> None:
    """Make the runs of one part."""
    torch.set_num_threads(1)
    runs = Runs()
    if part == "rates":
        for seed, width in ((seed, width) for seed in RATE_SEEDS for width in RATE_WIDTHS):
            for log2_rate in RATES:
                for mup in (True, False) if width != RATE_WIDTHS[0] else (True,):
                    runs.make(part, width, RATE_STEPS, log2_rate, mup, seed)
        return
    if part == "longer":
        for log2_rate in LONGER_RATES:
            runs.make("rates", BASE, STEPS[-1], log2_rate, True, SEEDS[0])
        return
    for seed in SEEDS if part == "sizes" else HELD_BACK_SEEDS:
        for width in WIDTHS if part == "sizes" else (HELD_BACK,):
            for steps in STEPS:
                runs.make(part, width, steps, LOG2_RATE, True, seed)


def predict() -> None:
    """Write what the law of the sizes says of the size that was held back, before it is trained."""
    if any(row["part"] == "held_back" for row in read("runs")):
        raise SystemExit("the held-back size was trained already: a prediction comes first")
    rows = [row for row in read("runs") if row["part"] == "sizes"]
    runs = [np.array([float(row[name]) for row in rows]) for name in ("parameters", "tokens", "bits")]
    found = []
    for steps in STEPS:
        size, tokens = hidden_parameters(HELD_BACK), steps * BATCH * CONTEXT
        told = predict_loss(*runs, size, tokens, runs=len(HELD_BACK_SEEDS), n_resamples=RESAMPLES)
        numbers = {name: f"{getattr(told, name):.4f}" for name in ("loss", "low", "high")}
        law = {name: f"{value:.6g}" for name, value in vars(told.law).items()}
        found.append(dict(width=HELD_BACK, parameters=size, steps=steps, tokens=tokens) | numbers | law)
        print(found[-1])
    write("prediction", found)


def seeds_by_cell(rows: list[dict], part: str, *names: str) -> dict[tuple, list[float]]:
    """Return the bits per byte of all seeds for each value of the named columns."""
    cells = defaultdict(list)
    for row in rows:
        if row["part"] == part:
            cells[tuple(float(row[name]) for name in names)].append(float(row["bits"]))
    return cells


def summary() -> None:
    """Print the prediction beside what came out, and the best rate of each width."""
    rows = read("runs")
    held_back = seeds_by_cell(rows, "held_back", "steps")
    print(
        "| steps | predicted | 95 % interval | measured (seeds) | inside |", "|---|---|---|---|---|", sep="\n"
    )
    for row in read("prediction"):
        bits = held_back.get((float(row["steps"]),), [])
        measured = mean(bits) if bits else float("nan")
        inside = "yes" if float(row["low"]) <= measured <= float(row["high"]) else "no"
        each = ", ".join(f"{value:.4f}" for value in bits)
        shown = f"{row['low']} to {row['high']} | {measured:.4f} ({each}) | {inside}"
        print(f"| {row['steps']} | {row['loss']} | {shown} |")
    rates = seeds_by_cell(
        [r for r in rows if r["steps"] == str(RATE_STEPS)], "rates", "width", "mup", "log2_rate"
    )
    print(
        "\n| width | | " + " | ".join(f"2^{rate}" for rate in RATES) + " | best |", "|" + "---|" * 9, sep="\n"
    )
    for width, mup in ((width, mup) for width in sorted(RATE_WIDTHS) for mup in (0, 1)):
        means = [mean(rates.get((width, mup, rate), [float("nan")])) for rate in RATES]
        best = RATES[int(np.nanargmin(means))] if np.isfinite(means).any() else "-"
        name = "muP" if mup else "usual"
        print(f"| {width} | {name} | " + " | ".join(f"{value:.3f}" for value in means) + f" | 2^{best} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = {"predict": predict, "summary": summary}
    parser.add_argument("part", choices=("rates", "longer", "sizes", "predict", "held_back", "summary"))
    part = parser.parse_args().part
    parts.get(part, lambda: measure(part))()
