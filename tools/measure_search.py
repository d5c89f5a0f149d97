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


def main() -> None:
    """Train, and write a row for each look."""
    torch.set_num_threads(1)
    rows = []
    for pool in tqdm(range(POOLS)):
        rng = random.Random(pool)
        for configuration in range(SIZE):
            settings, state, done = draw_settings(rng), None, 0
            for units in RUNGS:
                score, state = train_units(settings, state, units - done, seed=pool)
                done = units
                shown = [f"{value:.4g}" for value in settings.values()]
                rows.append((pool, configuration, *shown, units, f"{-score:.4f}"))
    PATH.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(PATH) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([COLUMNS, *rows])


if __name__ == "__main__":
    main()
