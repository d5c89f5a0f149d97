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
from llmcourse.tune.scaling import fit_law, predict_loss
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
            for steps in sorted(STEPS, reverse=part == "held_back"):
                runs.make(part, width, steps, LOG2_RATE, True, seed)


def predict() -> None:
    """Write what both laws say of the size that was held back, before it is trained; earlier rows stay."""
    if any(row["part"] == "held_back" for row in read("runs")):
        raise SystemExit("the held-back size was trained already: a prediction comes first")
    rows, size = [row for row in read("runs") if row["part"] == "sizes"], hidden_parameters(HELD_BACK)
    n_seeds = len({row["seed"] for row in rows})
    sizes, tokens, bits = (
        np.array([float(row[c]) for row in rows]) for c in ("parameters", "tokens", "bits")
    )
    found, options = read("prediction"), dict(runs=len(HELD_BACK_SEEDS), n_resamples=RESAMPLES)
    for steps in STEPS:
        n_tokens = steps * BATCH * CONTEXT
        here = tokens == n_tokens
        laws = {
            "sizes": predict_loss(sizes[here], None, bits[here], size, **options),
            "sizes and tokens": predict_loss(sizes, tokens, bits, size, n_tokens, **options),
        }
        for name, told in laws.items():
            row = dict(
                law=name, seeds=n_seeds, width=HELD_BACK, parameters=size, steps=steps, tokens=n_tokens
            )
            row |= {key: f"{getattr(told, key):.4f}" for key in ("loss", "low", "high")}
            found.append(row | {key: f"{value:.6g}" for key, value in vars(told.law).items()})
            print(*found[-1].values())
    write("prediction", found)


def seeds_by_cell(rows: list[dict], part: str, *names: str) -> dict[tuple, list[float]]:
    """Return the bits per byte of all seeds for each value of the named columns."""
    cells = defaultdict(list)
    for row in rows:
        if row["part"] == part:
            cells[tuple(float(row[name]) for name in names)].append(float(row["bits"]))
    return cells


def misses(rows: list[dict]) -> list[str]:
    """Return how far the means of cells lie off both laws, in units of what seeds explain (chi-squared)."""
    cells = seeds_by_cell(rows, "sizes", "parameters", "tokens")
    sizes, tokens = np.array(list(cells)).T
    logs = [np.log(bits) for bits in cells.values()]
    means, n_seeds = np.array([log.mean() for log in logs]), len(logs[0])
    variance = np.mean([log.var(ddof=1) for log in logs]) / n_seeds

    def off(law, here):
        return (np.log(law(sizes[here], tokens[here])) - means[here]) ** 2 / variance

    whole = fit_law(sizes, tokens, np.exp(means))
    lines = [f"one seed: {np.sqrt(variance * n_seeds) * np.exp(means.mean()):.4f} bits per byte (deviation)"]
    lines.append(f"law of sizes and tokens: {off(whole, tokens > 0).sum():.1f} on {len(means) - 5}")
    for n in sorted(set(tokens)):
        here = tokens == n
        law = fit_law(sizes[here], None, np.exp(means[here]))
        lines.append(f"law of sizes, {n:.0f} tokens: {off(law, here).sum():.1f} on {here.sum() - 3}")
    return lines


def summary() -> None:
    """Print the prediction beside what came out, the misfit of both laws, and the best rate of each width."""
    rows = read("runs")
    print(*misses(rows), "", sep="\n")
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
        print(f"| {row['law']} | {row['seeds']} | {row['steps']} | {row['loss']} | {shown} |")
    rates = seeds_by_cell(
        [r for r in rows if r["steps"] == str(RATE_STEPS)], "rates", "width", "mup", "log2_rate"
    )
    print(
        "\n| width | | " + " | ".join(f"2^{rate}" for rate in RATES) + " | best |", "|" + "---|" * 9, sep="\n"
    )
    for width, mup in ((width, mup) for width in sorted(RATE_WIDTHS) for mup in (0, 1)):
        if (width, mup, RATES[0]) not in rates:  # the base, which is the same in both
            continue
        means = [mean(rates[width, mup, rate]) for rate in RATES]
        at = min(max(int(np.argmin(means)), 1), len(means) - 2)
        curve, slope, _ = np.polyfit(RATES[at - 1 : at + 2], means[at - 1 : at + 2], 2)
        best = f"{-slope / (2 * curve):.1f}"  # of the parabola through the lowest and its neighbours
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
