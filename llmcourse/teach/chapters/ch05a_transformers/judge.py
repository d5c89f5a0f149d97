"""The stored judgements of chapter 5a: what models say about every test review, without their texts.

`tools/measure_judge.py` fine-tunes MiniLM for 200 steps with three seeds, which takes minutes on a laptop.
"""

import csv
from collections.abc import Sequence

import numpy as np

from llmcourse.data.manifest import course_data

N_REVIEWS, STEPS, SEEDS = 3200, 200, (1234, 1, 2)


def stored_judgements(labels: Sequence[int]) -> dict[str, np.ndarray]:
    """Return {name of a model: p(fresh) of each test review (N,)} from data/judge/test.csv.

    Where `labels` are not those of the stored test reviews, in their order, as on the stand-in for a
    machine without the data, a sentence says so, and noisy labels stand in for the models.
    """
    with (course_data() / "judge" / "test.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names, labels = [name for name in rows[0] if name != "label"], np.array([int(x) for x in labels])
    if [int(row["label"]) for row in rows] != labels.tolist():
        print(
            f"These {len(labels)} labels are not those of the {len(rows)} stored test reviews: what follows "
            "shows noisy labels, no model. With the data of the package (make lab), take all of the test part."
        )
        noise = np.random.default_rng(0)
        return {name: (labels + noise.normal(0.0, 0.6, len(labels))).clip(0, 1) for name in names}
    return {name: np.array([float(row[name]) for row in rows]) for name in names}


def stored_losses() -> dict[int, list[float]]:
    """Return {seed: training loss of each step} from data/judge/losses.csv.

    >>> [len(losses) for losses in stored_losses().values()]
    [200, 200, 200]
    """
    losses: dict[int, list[float]] = {}
    with (course_data() / "judge" / "losses.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            losses.setdefault(int(row["seed"]), []).append(float(row["loss"]))
    return losses
