"""Train pools of tiny models to the end, so that chapter 3e can repeat searches: data/search/pools.csv.

    python tools/measure_search.py

Five pools of 40 random settings, each looked at after 1, 3, 9 and 27 units of 4 steps. One thread; about
100 seconds of processor time.
"""

import csv
import random
from pathlib import Path

import torch
from tqdm import tqdm

from llmcourse.support.files import atomic_write
from llmcourse.teach.chapters.ch03e_significance.tiny import RUNGS, draw_settings, train_units

PATH = Path(__file__).resolve().parents[1] / "data" / "search" / "pools.csv"
POOLS, SIZE = 5, 40
COLUMNS = ("pool", "configuration", "lr", "weight_decay", "d_model", "n_layers", "units", "loss")


def measure_pool(pool: int) -> list[tuple]:
    """Train the settings of one pool; return a row for each look at one of them."""
    rng, rows = random.Random(pool), []
    for configuration in range(SIZE):
        settings, state, done = draw_settings(rng), None, 0
        shown = [f"{value:.4g}" for value in settings.values()]
        for units in RUNGS:
            score, state = train_units(settings, state, units - done, seed=pool)
            done = units
            rows.append((pool, configuration, *shown, units, f"{-score:.4f}"))
    return rows


def write(rows: list) -> None:
    """Write the table."""
    PATH.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(PATH) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])


def main() -> None:
    """Train all pools, and write them."""
    torch.set_num_threads(1)
    write([row for pool in tqdm(range(POOLS)) for row in measure_pool(pool)])


if __name__ == "__main__":
    main()
