"""Ways to name the heads of a planted circuit, scored against the truth: chapter 8b's table.

Dimensions: B texts, T time, L layers, H heads.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from llmcourse.interpret.circuits import compare_circuits, faithfulness, find_circuit, logit_difference
from llmcourse.interpret.planted import Planted, plant

METHODS = ("patching", "mean ablation", "zero ablation", "sharpest maps")


@dataclass
class Score:
    """What a method got over many circuits: heads that were right, missed or false, and faithfulness of each circuit."""

    right: int = 0
    missed: int = 0
    false: int = 0
    whole: int = 0  # circuits with no head missed and none false
    faithful: list[float] = field(default_factory=list)


def sharpest_maps(planted: Planted, token_ids, n: int) -> set[tuple[int, int]]:
    """Return the `n` heads (layer, head) whose last query, where the answer is written, looks hardest at one place.

    >>> planted = plant("previous token")
    >>> len(sharpest_maps(planted, planted.texts(4).clean, n=2))
    2
    """
    maps = torch.stack(planted.model.attention_maps(token_ids))  # (L, B, H, T, T)
    sharpness = maps[..., -1, :].max(-1).values.mean(1)  # (L, H)
    return {divmod(i, sharpness.shape[1]) for i in sharpness.flatten().topk(n).indices.tolist()}


def name_heads(method: str, planted: Planted, texts) -> set[tuple[int, int]]:
    """Return the heads that `method`, one of METHODS, names; maps alone are told how many there are."""
    if method == "sharpest maps":
        return sharpest_maps(planted, texts.clean, len(planted.heads))
    kind = {"patching": "corrupt", "mean ablation": "mean", "zero ablation": "zero"}[method]
    metric = logit_difference(texts.answer, texts.other_answer)
    return find_circuit(planted.model, texts.clean, texts.corrupted, metric, kind=kind)


def score_methods(tasks: Sequence[str], seeds: Sequence[int], n_texts: int = 30, methods=METHODS) -> dict:
    """Return the `Score` of each method over the circuits of all tasks and seeds."""
    scores = {method: Score() for method in methods}
    for planted in (plant(task, seed) for task in tasks for seed in seeds):
        texts = planted.texts(n_texts)
        metric = logit_difference(texts.answer, texts.other_answer)
        for method, score in scores.items():
            found = name_heads(method, planted, texts)
            counts = compare_circuits(found, planted.heads)
            for name, count in counts.items():
                setattr(score, name, getattr(score, name) + count)
            score.whole += found == planted.heads
            score.faithful.append(faithfulness(planted.model, texts.clean, texts.corrupted, metric, found))
    return scores
