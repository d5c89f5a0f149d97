"""Fine-tune on the course's reviews with `llmcourse finetune` and with transformers' Trainer: data/finetune.

    python -m benchmarks.finetune_runs                   # what is missing: both sides, three seeds, in turn
    python -m benchmarks.finetune_runs ours 0              # one run, in a process of its own
    python -m benchmarks.finetune_runs --threads 2         # by the clock, on a quiet machine

12,752 reviews, split by film as chapter 5a does: 8,878 to train on. Trainer fine-tunes all weights, with
the settings of chapter 5a (batches of 16, rate 10^-4) and as many epochs; both sides compute in bfloat16
where the processor has it. Each run is one row of data/finetune/runs.csv; what is there is not run again.
"""

import argparse
import csv
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.finetune import trainer
from llmcourse.data.sources.reviews import load_reviews
from llmcourse.finetune.table.columns import read_table
from llmcourse.finetune.table.command import finetune_table
from llmcourse.finetune.table.split import split_table
from llmcourse.finetune.table.train import Recipe
from llmcourse.support.files import atomic_write

ROOT = Path(__file__).resolve().parents[1]
RUNS, TABLE = ROOT / "data" / "finetune" / "runs.csv", ROOT / "runs" / "finetune" / "reviews.csv"
SEEDS = ("0", "1", "2")
NAMES = ("side", "seed", "threads", "epochs", "accuracy", "training_seconds", "seconds", "clock", "peak_mb")


def write_reviews() -> Path:
    """Write the reviews as a CSV file, as a reader would have them, and return its path."""
    with atomic_write(TABLE) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label", "movie"])
        for review in load_reviews(quiet=True):
            writer.writerow([review.text, ("rotten", "fresh")[review.label], review.movie])
    return TABLE


def ours(seed: int, epochs: int) -> dict:
    """Return accuracy on the test films, and processor seconds of the whole command and of its training."""
    marks = []

    def say(line: str) -> None:
        print(line, flush=True)
        if line.startswith("step "):  # after each epoch
            marks.append(time.process_time())

    with tempfile.TemporaryDirectory() as folder:
        began, recipe = time.process_time(), Recipe(epochs, seed=seed)
        report = finetune_table(TABLE, Path(folder, "judge"), group="movie", recipe=recipe, say=say)
    return {"accuracy": report.accuracy, "training_seconds": marks[-1] - began}


def theirs(seed: int, epochs: int) -> dict:
    """Return what `ours` does, of Trainer."""
    from datasets import Dataset

    table = read_table(TABLE, group="movie")
    split = split_table(table)
    classes = [table.classes.index(label) for label in table.labels]
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        texts, labels = [table.texts[i] for i in split.train], [classes[i] for i in split.train]
        fit = trainer(texts, labels, seed, epochs, folder)
        fit.train()
        trained = time.process_time() - began
        truth = [classes[i] for i in split.test]
        encoded = fit.processing_class([table.texts[i] for i in split.test], truncation=True, max_length=128)
        found = fit.predict(Dataset.from_dict({**encoded, "labels": truth})).predictions
    return {"accuracy": float((found.argmax(1) == truth).mean()), "training_seconds": trained}


def run_one(side: str, seed: int, epochs: int, threads: int) -> None:
    """Run one side and append its row."""
    torch.set_num_threads(threads)
    clock = time.perf_counter()
    found = (ours if side == "ours" else theirs)(seed, epochs)
    found |= {"seconds": time.process_time(), "clock": time.perf_counter() - clock}
    found |= {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    cells = [side, seed, threads, epochs, f"{found['accuracy']:.4f}"]
    cells += [f"{found[name]:.0f}" for name in NAMES[5:]]
    lines = RUNS.read_text(encoding="utf-8") if RUNS.exists() else ",".join(NAMES) + "\n"
    with atomic_write(RUNS) as temporary:
        temporary.write_text(lines + ",".join(map(str, cells)) + "\n", encoding="utf-8")
    print(dict(zip(NAMES, cells, strict=True)), flush=True)


def done() -> set[tuple[str, ...]]:
    """Return (side, seed, threads, epochs) of the runs that are stored."""
    if not RUNS.exists():
        return set()
    rows = csv.DictReader(RUNS.read_text(encoding="utf-8").splitlines())
    return {tuple(row[name] for name in NAMES[:4]) for row in rows}


def main() -> None:
    """Run what is asked for, or all that is missing, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("side", nargs="?", choices=["ours", "trainer"])
    parser.add_argument("seed", nargs="?", choices=SEEDS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=2)
    options = parser.parse_args()
    if not TABLE.exists():
        write_reviews()
    if options.seed is not None:
        run_one(options.side, int(options.seed), options.epochs, options.threads)
        return
    sides = [options.side] if options.side else ["ours", "trainer"]
    for seed in SEEDS:
        for side in sides:
            if (side, seed, str(options.threads), str(options.epochs)) not in done():
                how = ["--threads", str(options.threads), "--epochs", str(options.epochs)]
                subprocess.run(
                    [sys.executable, "-m", "benchmarks.finetune_runs", side, seed, *how], cwd=ROOT, check=True
                )


if __name__ == "__main__":
    main()
