"""Measure what four kinds of positions do, for chapter 4c: data/positions/runs.csv.

    python tools/measure_positions.py --seeds 1 2 3

Each model trains on windows of 64 tokens and is read on windows of 256; a rotary one also with larger
bases. A run that is stored is not repeated. One thread; about 10 seconds of processor time for a run.
"""

import argparse
import csv
from pathlib import Path

import torch

from llmcourse.pretrained import load_course_model
from llmcourse.support.files import atomic_write
from llmcourse.teach.chapters.ch04c_positions.runs import (
    KINDS,
    LONG,
    PART,
    load_ids,
    loss_by_position,
    train_with,
    with_base,
)

PATH = Path(__file__).resolve().parents[1] / "data" / "positions" / "runs.csv"
COLUMNS = ("positions", "base", "seed", "first", "loss")  # `first`: the first position of a part


def measure(kind: str, seed: int, train_ids, unseen, vocab_size: int) -> list[tuple]:
    """Train one model and return its rows: the mean loss of each part of a window, for each base."""
    model, rows = train_with(kind, train_ids, vocab_size, seed), []
    for base in (1e4, 1e5, 1e6) if kind == "rotary" else (1e4,):
        model = with_base(model, base) if kind == "rotary" else model
        parts = loss_by_position(model, unseen).view(-1, PART).mean(1)
        firsts = range(0, LONG, PART)
        rows += [
            (kind, f"{base:.0f}", str(seed), str(first), f"{loss:.4f}")
            for first, loss in zip(firsts, parts, strict=True)
        ]
    return rows


def main(seeds: list[int]) -> None:
    """Measure what is missing, and write the table after each run."""
    torch.set_num_threads(1)
    tokenizer = load_course_model("pretrained")[1]
    train_ids, unseen = load_ids(tokenizer)
    rows = []
    if PATH.exists():
        with PATH.open(encoding="utf-8", newline="") as file:
            rows = [tuple(row) for row in list(csv.reader(file))[1:]]
    for seed in seeds:
        for kind in KINDS:
            if not any(row[0] == kind and row[2] == str(seed) for row in rows):
                rows += measure(kind, seed, train_ids, unseen, tokenizer.vocab_size)
                print(kind, seed, flush=True)
                PATH.parent.mkdir(parents=True, exist_ok=True)
                with (
                    atomic_write(PATH) as temporary,
                    temporary.open("w", encoding="utf-8", newline="") as file,
                ):
                    csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    main(parser.parse_args().seeds)
