"""What chapter 8d reads of the stored runs, and what it measures of answers."""

import csv
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from llmcourse.data.manifest import course_data
from llmcourse.finetune.preference import RewardModel
from llmcourse.finetune.rollouts import answer_lengths, join, sample_answers
from llmcourse.finetune.tasks import Task
from llmcourse.finetune.verifiable import CHARACTERS
from llmcourse.model import GPT
from llmcourse.runtime import evaluating

TEXTS = ("experiment", "method", "right")


def stored(name: str) -> list[dict]:
    """Return the rows of data/alignment/`name`.csv, numbers as floats, but for the columns of TEXTS."""
    with (course_data() / "alignment" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [{key: text if key in TEXTS else float(text) for key, text in row.items()} for row in rows]


def curve(rows: Iterable[Mapping], column: str) -> tuple[np.ndarray, np.ndarray]:
    """Return (steps (S,), values (seeds, S)) of a column of the runs in `rows`, which have equal steps.

    >>> rows = [{"seed": s, "step": step, "kl": s * step} for s in (1, 2) for step in (10, 20)]
    >>> [part.tolist() for part in curve(rows, "kl")]
    [[10, 20], [[10, 20], [20, 40]]]
    """
    by_seed: dict = {}
    for row in rows:
        by_seed.setdefault(row["seed"], []).append((row["step"], row[column]))
    steps = [[step for step, _ in found] for found in by_seed.values()]
    if any(other != steps[0] for other in steps):
        raise ValueError(f"runs of {column!r} with other steps: select those of one method")
    return np.array(steps[0]), np.array([[value for _, value in found] for found in by_seed.values()])


@torch.no_grad()
def rated_answers(
    model: GPT, judge: RewardModel, tasks: Sequence[Task], n: int, seed: int
) -> tuple[Tensor, Tensor, list[str]]:
    """Return (rewards (P, n), right (P, n), texts) of n answers of `model` to each task, as `judge` rates them."""
    prompts = [CHARACTERS.encode(task.prompt) for task in tasks]
    generator = torch.Generator().manual_seed(seed)
    written = sample_answers(model, prompts, n, 8, CHARACTERS.end_id, 1.0, generator)
    lengths = answer_lengths(written, CHARACTERS.end_id)
    token_ids, mask = join([prompt for prompt in prompts for _ in range(n)], written, lengths)
    with evaluating(judge):
        parts = [judge(*part) for part in zip(token_ids.split(2048), mask.split(2048), strict=True)]
    texts = [CHARACTERS.decode(row[:k].tolist()) for row, k in zip(written, lengths, strict=True)]
    right = torch.tensor([float(text == tasks[i // n].answer) for i, text in enumerate(texts)])
    return torch.cat(parts).view(-1, n), right.view(-1, n), texts


def best_of(rewards: Tensor, right: Tensor, n: int) -> tuple[float, float, float]:
    """Return what taking the highest rated of n answers gives: its reward, how often it is right, and
    how often one of the n was.

    >>> best_of(torch.tensor([[1.0, 3.0, 2.0]]), torch.tensor([[1.0, 0.0, 0.0]]), 2)
    (3.0, 0.0, 1.0)
    """
    top, place = rewards[:, :n].max(1)
    chosen = right.gather(1, place[:, None])
    return top.mean().item(), chosen.mean().item(), right[:, :n].amax(1).mean().item()
