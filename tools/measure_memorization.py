"""Measure what a small model gives away of secrets in its training text, for chapter 8c.

    python tools/measure_memorization.py --seeds 0 1 2
    python tools/measure_memorization.py --summary

Canaries are planted 0 to 16 times between 400 speeches; then models train on them in several ways. Writes
data/memorization/exposures.csv (one row a canary) and runs.csv (one row a run). A run that is stored is
not repeated. One thread; about 3 minutes of processor time a seed.
"""

import argparse
import csv
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from llmcourse.evaluate.significance import bootstrap_interval
from llmcourse.model import GPT
from llmcourse.safety.accountant import noise_for
from llmcourse.safety.canary_run import (
    canary_rows,
    held_out_bits,
    load_speeches,
    small_model,
    small_tokenizer,
    train_on_rows,
)
from llmcourse.safety.memorization import canary_exposures, chance_exposure, extract, make_canaries
from llmcourse.support.files import atomic_write

FOLDER = Path(__file__).resolve().parents[1] / "data" / "memorization"
RUNS, EXPOSURES = FOLDER / "runs.csv", FOLDER / "exposures.csv"
RUN_COLUMNS = ("run", "start", "seed", "rows", "noise", "epsilon", "held_out", "seconds")
EXPOSURE_COLUMNS = ("run", "start", "seed", "times", "exposure", "written")
TIMES = [0] * 6 + [n for n in (1, 2, 4, 8, 16) for _ in range(4)]  # of each canary; 0 is a control
STEPS, BATCH, CLIP, PUBLIC_STEPS = 150, 32, 0.5, 500
CONDITIONS = (  # run, start, learning rate, what else
    ("plain", "random", 1e-2, {}),
    ("deduplicated", "random", 1e-2, dict(deduplicate=True)),
    ("longer", "random", 1e-2, dict(steps=2 * STEPS)),
    ("plain", "public", 3e-3, {}),
    ("epsilon 8", "public", 1e-3, dict(clip=CLIP, target=8.0)),
    ("epsilon 8", "random", 3e-3, dict(clip=CLIP, target=8.0)),
    ("clipped", "random", 1e-2, dict(clip=CLIP)),
    ("epsilon 2", "public", 1e-3, dict(clip=CLIP, target=2.0)),
)


def read_table(path: Path) -> list[list[str]]:
    """Return the rows of a CSV without its head; [] where there is none."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))[1:]


def write_table(path: Path, columns: tuple, rows: list) -> None:
    """Write a CSV whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([columns, *rows])


def public_model(texts: list[str], folder: Path) -> GPT:
    """Return a model trained on speeches without a secret, from a file if it is there."""
    model, path = small_model(0), folder / f"public-{PUBLIC_STEPS}.pt"
    if path.exists():
        model.load_state_dict(torch.load(path, weights_only=True))
        return model
    train_on_rows(model, canary_rows(texts, [], seed=0), steps=PUBLIC_STEPS, seed=0)
    torch.save(model.state_dict(), path)
    return model


def measure(run: str, start: str, lr: float, options: dict, seed: int, speeches, folder: Path) -> tuple:
    """Train one model; return its row of runs, and its rows of exposures."""
    canaries, options = make_canaries(TIMES, seed), dict(options)
    rows = canary_rows(speeches.private, canaries, seed, options.pop("deduplicate", False))
    model = small_model(seed) if start == "random" else public_model(speeches.public, folder)
    target, steps, n = options.pop("target", None), options.pop("steps", STEPS), len(rows[0])
    noise = noise_for(target, BATCH / n, steps, 1 / n) if target else 0.0
    began = time.process_time()
    spent = train_on_rows(
        model, rows, steps=steps, seed=seed, lr=lr, batch_size=BATCH, noise_multiplier=noise, **options
    )
    seconds = time.process_time() - began
    told = f"{n}", f"{noise:.3f}", f"{spent:.3f}", f"{held_out_bits(model, speeches.held_out):.4f}"
    tokenizer = small_tokenizer()
    exposures = canary_exposures(model, tokenizer, canaries)
    written = [int(extract(model, tokenizer, canary) == canary.secret) for canary in canaries]
    each = [
        [run, start, str(seed), str(n), f"{bits:.3f}", str(found)]
        for n, bits, found in zip(TIMES, exposures, written, strict=True)
    ]
    return [run, start, str(seed), *told, f"{seconds:.0f}"], each


def main(seeds: list[int], folder: Path) -> None:
    """Measure what is missing."""
    torch.set_num_threads(1)
    speeches, runs, exposures = load_speeches(), read_table(RUNS), read_table(EXPOSURES)
    if not any(row[1] == "public, untouched" for row in runs):
        model = public_model(speeches.public, folder)
        bits = f"{held_out_bits(model, speeches.held_out):.4f}"
        runs.append(["none", "public, untouched", "0", "0", "0.000", "0.000", bits, "0"])
    for run, start, lr, options in CONDITIONS:
        for seed in seeds:
            if any(row[:3] == [run, start, str(seed)] for row in runs):
                continue
            row, each = measure(run, start, lr, options, seed, speeches, folder)
            runs.append(row)
            exposures += each
            write_table(EXPOSURES, EXPOSURE_COLUMNS, exposures)
            write_table(RUNS, RUN_COLUMNS, runs)
            print(*row, flush=True)


def cells(exposures: list[list[str]], run: str, start: str) -> Iterator[str]:
    """Yield for each number of times the mean exposure with its interval, and how many secrets were written."""
    for times in dict.fromkeys(TIMES):
        rows = [row for row in exposures if row[:2] == [run, start] and row[3] == str(times)]
        bits = np.array([float(row[4]) for row in rows])
        low, high = bootstrap_interval(bits)
        yield f"{bits.mean():.1f} ({low:.1f} to {high:.1f}), {sum(row[5] == '1' for row in rows)}/{len(rows)}"


def summary() -> list[str]:
    """Return the tables as lines."""
    runs, exposures = read_table(RUNS), read_table(EXPOSURES)
    lines = ["| run | start | " + " | ".join(f"{n} times" for n in dict.fromkeys(TIMES)) + " | held out |"]
    lines.append("|" + "---|" * (lines[0].count("|") - 1))
    for run, start, *_ in CONDITIONS:
        bits = [float(row[6]) for row in runs if row[:2] == [run, start]]
        if bits:
            told = f"{np.mean(bits):.3f} ({min(bits):.3f} to {max(bits):.3f})"
            lines.append(f"| {run} | {start} | " + " | ".join(cells(exposures, run, start)) + f" | {told} |")
    return [*lines, "", f"chance: {chance_exposure(10_000):.3f} bits; all of them: {np.log2(10_000):.3f}"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, help="keeps the public model from one call to the next")
    parser.add_argument("--summary", action="store_true", help="print the tables from what is stored")
    options = parser.parse_args()
    if options.summary:
        print(*summary(), sep="\n")
    else:
        with TemporaryDirectory() as temporary:
            main(options.seeds, options.folder or Path(temporary))
