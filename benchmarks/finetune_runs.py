"""Fine-tune on the course's reviews with `llmcourse finetune` and with transformers' Trainer: data/finetune.

    python -m benchmarks.finetune_runs               # what is missing: both sides, three seeds, in turn
    python -m benchmarks.finetune_runs ours 0        # one run, in a process of its own
    python -m benchmarks.finetune_runs --threads 2   # by the clock, on a quiet machine
    python -m benchmarks.finetune_runs choose 0 --frozen-layers 3 --lr 3e-4   # a recipe, on the validation films

12,752 reviews, split by film as chapter 5a does: 8,878 to train on. Trainer fine-tunes all weights, with
the settings of chapter 5a (batches of 16, rate 10^-4) and as many epochs; both sides compute in bfloat16
where the processor has it. Each run is one row of data/finetune/runs.csv, each choice one of choice.csv;
a run that is there is not run again.
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
from llmcourse.data.sources.encoder import encoder_name
from llmcourse.data.sources.reviews import load_reviews
from llmcourse.finetune.table.columns import read_table
from llmcourse.finetune.table.command import finetune_table
from llmcourse.finetune.table.encoder import HiddenBatches, UpperLayers
from llmcourse.finetune.table.split import split_table
from llmcourse.finetune.table.train import Recipe, fine_tune, load_encoder, predict, token_rows
from llmcourse.runtime import fast_dtype
from llmcourse.support.files import atomic_write

ROOT = Path(__file__).resolve().parents[1]
RUNS, TABLE = ROOT / "data" / "finetune" / "runs.csv", ROOT / "runs" / "finetune" / "reviews.csv"
CHOICE = RUNS.with_name("choice.csv")
CHOSEN = ("frozen_layers", "lr", "epochs", "batch_size", "seed", "accuracy", "loss", "training_seconds")
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


def choose(recipe: Recipe) -> None:
    """Train by a recipe; append its accuracy and loss on the validation films, without a look at the test."""
    table = read_table(TABLE, group="movie")
    split = split_table(table)
    model, tokenizer = load_encoder(encoder_name(quiet=True), table.classes, recipe)
    rows = token_rows(tokenizer, table.texts, recipe.max_length)
    labels = torch.tensor([table.classes.index(name) for name in table.labels])
    began, upper = time.process_time(), UpperLayers(model, recipe.frozen_layers)
    train, validation = (
        HiddenBatches(upper, [rows[i] for i in part], labels[part], size, recipe.seed, fast_dtype())
        for part, size in ((split.train, recipe.batch_size), (split.validation, 64))
    )
    with tempfile.TemporaryDirectory() as folder:
        losses = [
            step.validation_loss
            for step in fine_tune(upper, train, validation, recipe, Path(folder), fast_dtype())
            if step.validation_loss is not None
        ]
    seconds = time.process_time() - began
    said = predict(upper.reassemble(), [rows[i] for i in split.validation]).argmax(1)
    accuracy = (said == labels[split.validation]).double().mean().item()
    cells = [recipe.frozen_layers, recipe.lr, recipe.epochs, recipe.batch_size, recipe.seed]
    append(CHOICE, CHOSEN, [*cells, f"{accuracy:.4f}", f"{losses[-1]:.4f}", f"{seconds:.0f}"])


def append(path: Path, names, cells) -> None:
    """Add a row to a table, and show it."""
    lines = path.read_text(encoding="utf-8") if path.exists() else ",".join(names) + "\n"
    with atomic_write(path) as temporary:
        temporary.write_text(lines + ",".join(map(str, cells)) + "\n", encoding="utf-8")
    print(dict(zip(names, cells, strict=True)), flush=True)


def run_one(side: str, seed: int, epochs: int, threads: int) -> None:
    """Run one side and append its row."""
    torch.set_num_threads(threads)
    clock = time.perf_counter()
    found = (ours if side == "ours" else theirs)(seed, epochs)
    found |= {"seconds": time.process_time(), "clock": time.perf_counter() - clock}
    found |= {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    cells = [side, seed, threads, epochs, f"{found['accuracy']:.4f}"]
    cells += [f"{found[name]:.0f}" for name in NAMES[5:]]
    append(RUNS, NAMES, cells)


def done() -> set[tuple[str, ...]]:
    """Return (side, seed, threads, epochs) of the runs that are stored."""
    if not RUNS.exists():
        return set()
    rows = csv.DictReader(RUNS.read_text(encoding="utf-8").splitlines())
    return {tuple(row[name] for name in NAMES[:4]) for row in rows}


def main() -> None:
    """Run what is asked for, or all that is missing, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("side", nargs="?", choices=["ours", "trainer", "choose"])
    parser.add_argument("seed", nargs="?", choices=SEEDS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--frozen-layers", type=int, default=Recipe.frozen_layers)
    parser.add_argument("--lr", type=float, default=Recipe.lr)
    options = parser.parse_args()
    if not TABLE.exists():
        write_reviews()
    if options.side == "choose":
        torch.set_num_threads(options.threads)
        how = dict(lr=options.lr, frozen_layers=options.frozen_layers, seed=int(options.seed or 0))
        choose(Recipe(options.epochs, **how))
        return
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
