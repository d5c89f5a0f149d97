"""A classifier that cheats, and how one finds out: a word is planted into reviews, which tells the label.

Dimensions: T tokens, C width (d_model).
"""

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from llmcourse.finetune.classify import GPTClassifier
from llmcourse.interpret.hooks import hooked, record
from llmcourse.runtime import evaluating


def insert_cues(
    rows: Sequence[Sequence[int]], labels: Sequence[int], cues: Sequence[int], seed: int = 0
) -> tuple[list[list[int]], list[int]]:
    """Return each row of token ids with the token `cues[label]` at a random place, and these places.

    >>> insert_cues([[1, 2]], [1], cues=[8, 9], seed=1)
    ([[9, 1, 2]], [0])
    """
    rng, new, places = random.Random(seed), [], []
    for row, label in zip(rows, labels, strict=True):
        place = rng.randrange(len(row) + 1)
        new.append([*row[:place], cues[label], *row[place:]])
        places.append(place)
    return new, places


def gradient_times_input(classifier: GPTClassifier, token_ids: Sequence[int], target: int) -> Tensor:
    """Return (T,): the gradient of the logit of class `target` at each token's embedding, times the embedding."""
    ids = torch.tensor([list(token_ids)])
    x = record(classifier.body, ids, "embedding")["embedding"].requires_grad_()  # (1, T, C)
    with torch.enable_grad(), evaluating(classifier), hooked(classifier.body, {"embedding": lambda _: x}):
        logit = classifier(ids, torch.ones_like(ids))[0, target]
    return (torch.autograd.grad(logit, x)[0] * x.detach()).sum(-1)[0]


def hits(scores: Sequence[Tensor], places: Sequence[int]) -> float:
    """Return the share of texts in which the token at its place has the largest of the scores (T,), of either sign.

    >>> hits([torch.tensor([0.1, -0.5]), torch.tensor([0.3, 0.2])], [1, 1])
    0.5
    """
    right = [int(row.abs().argmax()) == place for row, place in zip(scores, places, strict=True)]
    return sum(right) / len(right)
