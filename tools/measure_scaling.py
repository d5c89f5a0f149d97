"""Measure how the loss falls with size and tokens, and where the best rate lies: data/scaling.

    python tools/measure_scaling.py rates       # loss against rate at four widths, in muP and in the usual way
    python tools/measure_scaling.py sizes       # five sizes at three numbers of tokens
    python tools/measure_scaling.py predict     # what the law says of the size that was held back
    python tools/measure_scaling.py held_back   # ... which is trained only now

Resumable; one thread.
"""

import argparse
import csv
import time
from pathlib import Path

import torch

from llmcourse.support.files import atomic_write
from llmcourse.tune.width_runs import BATCH, CONTEXT, hidden_parameters, load_text, train_width

FOLDER = Path(__file__).resolve().parents[1] / "data" / "scaling"
COLUMNS = ("part", "width", "parameters", "steps", "tokens", "log2_rate", "mup", "seed", "bits", "seconds")
WIDTHS, HELD_BACK, STEPS, SEEDS = (32, 48, 64, 96, 128), 192, (150, 300, 600), (0, 1, 2)
RATES, RATE_WIDTHS, RATE_STEPS = range(-8, -2), (32, 128, 64, 256), 150
LOG2_RATE = -7  # of the base, for all sizes: the best of `rates` in muP


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
        for seed, width in ((seed, width) for seed in SEEDS for width in RATE_WIDTHS):
            for log2_rate in RATES:
                for mup in (True, False) if width != RATE_WIDTHS[0] else (True,):
                    runs.make(part, width, RATE_STEPS, log2_rate, mup, seed)
        return
    for seed in SEEDS:
        for width in WIDTHS if part == "sizes" else (HELD_BACK,):
            for steps in STEPS:
                runs.make(part, width, steps, LOG2_RATE, True, seed)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=("rates", "sizes", "held_back"))
    measure(parser.parse_args().part)
