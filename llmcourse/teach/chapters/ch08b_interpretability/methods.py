"""Ways to name the heads of a planted circuit, and how their scores are counted: chapter 8b.

Dimensions: B texts, T time, L layers, H heads.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from llmcourse.interpret.circuits import compare_circuits
from llmcourse.interpret.planted import Planted

FAITHFUL = 0.95  # the share of the metric that a circuit must keep
NAMES = {  # of the methods in data/circuits/found.csv
    "restore": "patching",
    "mean": "mean ablation",
    "zero": "zero ablation",
    "attention": "attention maps",
    "direct effect": "direct effect",
    "random heads": "random heads",
}


@dataclass
class Score:
    """What a method got over `circuits` models: heads right, missed and false; `faithful` counts circuits."""

    circuits: int = 0
    right: int = 0
    missed: int = 0
    false: int = 0
    faithful: int = 0

    def add(self, counts: dict[str, int], faithful: float) -> None:
        """Add one circuit: the `counts` of `compare_circuits`, and the share of the metric that the heads keep."""
        self.circuits += 1
        self.right += counts["right"]
        self.missed += counts["missed"]
        self.false += counts["false"]
        self.faithful += faithful >= FAITHFUL

    def __str__(self) -> str:
        heads = f"right {self.right:2}, missed {self.missed:2}, false {self.false:2}"
        return f"{heads}; faithful {self.faithful:2} of {self.circuits} circuits"


def sharpest_maps(planted: Planted, token_ids, n: int) -> set[tuple[int, int]]:
    """Return the `n` heads (layer, head) whose last query, where the answer is written, looks hardest at one place.

    >>> from llmcourse.interpret.planted import plant
    >>> planted = plant("previous token")
    >>> len(sharpest_maps(planted, planted.texts(4).clean, n=2))
    2
    """
    maps = torch.stack(planted.model.attention_maps(token_ids))  # (L, B, H, T, T)
    sharpness = maps[..., -1, :].max(-1).values.mean(1)  # (L, H)
    return {divmod(i, sharpness.shape[1]) for i in sharpness.flatten().topk(n).indices.tolist()}


def total(rows: Iterable[dict], by: str = "method") -> dict[str, Score]:
    """Return the `Score` of each value of the column `by`, over all rows.

    >>> total([{"method": "corrupt", "right": "2", "missed": "0", "false": "1", "faithful": "0.99"}])["corrupt"]
    Score(circuits=1, right=2, missed=0, false=1, faithful=1)
    """
    scores: dict[str, Score] = {}
    for row in rows:
        counts = {name: int(row[name]) for name in ("right", "missed", "false")}
        scores.setdefault(row[by], Score()).add(counts, float(row["faithful"]))
    return scores


def score(planted: Iterable[tuple[Planted, set, float]]) -> Score:
    """Return the score of what a method found: (planted model, heads, faithfulness) for each model."""
    found = Score()
    for model, heads, faithful in planted:
        found.add(compare_circuits(heads, model.heads), faithful)
    return found
