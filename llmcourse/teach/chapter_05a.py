"""Exercises of chapter 5a: transformers, Trainer and fine-tuning."""

import torch
import torch.nn.functional as F

from llmcourse.teach.checks import number, tensor
from llmcourse.teach.exercises import exercise, require


def padding_share(batches):
    """The share of all positions that are padding, each batch padded to its own longest row."""
    positions = sum(len(batch) * max(batch) for batch in batches)
    return 1 - sum(sum(batch) for batch in batches) / positions


@exercise(
    "05a-padding",
    "Count the padding",
    minutes=6,
    difficulty=2,
    hints=(
        "A batch of n rows takes n times its longest row in positions, padding included.",
        "Add up the positions of all batches, and the real tokens of all batches; divide once, at the end.",
    ),
    solution=padding_share,
)
def check_padding(answer):
    """Compare on batches of different sizes; tell the usual slips apart."""
    batches = [[3, 9, 6], [2, 2], [10]]
    real, positions = 32, 41  # 27 + 4 + 10
    value = number(answer([list(batch) for batch in batches]))
    slips = {
        "that is the share of REAL tokens: padding is the rest": real / positions,
        "that is padding per real token: divide by ALL positions": (positions - real) / real,
        "that is the number of padded positions: divide it by all positions": positions - real,
        "you pad every row to the longest of all; each batch has its own longest row": 1 - real / 60,
        "that is the mean of the batches' shares: large batches must count for more": (9 / 27) / 3,
        "between 0 and 1, not in percent": 100 * (1 - real / positions),
    }
    for message, slip in slips.items():
        require(abs(value - slip) > 1e-6, message)
    require(
        abs(value - (1 - real / positions)) < 1e-6,
        f"for [[3, 9, 6], [2, 2], [10]] it is 9 of 41 positions, {9 / 41:.3f}; you return {value:.3f}",
    )
    value = number(answer([[5, 5, 5], [8, 8]]))
    require(abs(value) < 1e-6, f"rows of equal length need no padding; you return {value:.3f}")
    return "rows of equal length in one batch make it small, and padded positions cost as much as real ones."


@exercise(
    "05a-steps",
    "How many steps is an epoch?",
    minutes=3,
    difficulty=1,
    hints=(
        "An epoch reads every review once: 8,878 / 16 batches, the last one smaller.",
        "Round up, because the smaller batch is a step too; then times the epochs.",
    ),
    solution=1665,
)
def check_steps(answer):
    """3 epochs of 8,878 reviews in batches of 16."""
    require(answer != 1662, "the last batch of each epoch is smaller, and it is a step too: round up")
    require(answer != 555, "that is one epoch; you train for three")
    require(answer != 554, "that is one epoch, without its last batch")
    require(abs(answer - 1664.625) > 0.13, "a part of a step is no step: the last, smaller batch is one too")
    require(answer != 8878 * 3, "that is the number of reviews read; a step reads 16 of them")
    require(answer == 1665, f"{answer} is not 3 times the number of batches in 8,878 reviews")
    return "`max_steps` and `num_train_epochs` of TrainingArguments say the same thing in two ways."


def mean_pool(hidden, attention_mask):
    """The mean of hidden (B, T, C) over the positions where attention_mask (B, T) is 1."""
    mask = attention_mask[:, :, None].float()
    return (hidden * mask).sum(dim=1) / mask.sum(dim=1)


@exercise(
    "05a-pool",
    "One vector for each text",
    minutes=6,
    difficulty=2,
    hints=(
        "Give the mask a third dimension, attention_mask[:, :, None], and multiply: padding becomes zero.",
        "Sum over the positions (dim=1), then divide by the number of ONES in each row, not by T.",
    ),
    solution=mean_pool,
)
def check_pool(answer):
    """Compare with rows pooled one by one; padding must not matter."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(3, 5, 4, generator=generator) + 1
    lengths = [5, 2, 3]
    mask = (torch.arange(5) < torch.tensor(lengths)[:, None]).long()
    expected = torch.stack([row[:n].mean(dim=0) for row, n in zip(hidden, lengths, strict=True)])
    value = tensor(answer(hidden.clone(), mask.clone()))
    require(
        value.shape == (3, 4),
        f"return one vector for each text, the shape (3, 4) here; yours is {tuple(value.shape)}",
    )
    kept = hidden * mask[:, :, None]
    slips = {
        "that is the mean over all positions: the mask has no effect": hidden.mean(1),
        "you divide by T: divide by the number of real tokens in each row": kept.mean(1),
        "that is the sum over the real tokens: divide by how many they are": kept.sum(1),
        "you divide by the number of real tokens of the whole batch: each row has its own": kept.sum(1)
        / mask.sum(),
        "that is the first token's vector ([CLS]), not the mean": hidden[:, 0],
        "that is the largest entry, not the mean": kept.max(1).values,
    }
    for message, slip in slips.items():
        require(not torch.allclose(value, slip, atol=1e-5), message)
    require(
        torch.allclose(value, expected, atol=1e-5),
        "the values differ from the mean over each row's real tokens",
    )
    noisy = hidden + 100 * torch.randn(hidden.shape, generator=generator) * (1 - mask)[:, :, None]
    require(
        torch.allclose(tensor(answer(noisy, mask.clone())), expected, atol=1e-4),
        "other values at padded positions change your result: the mask must remove them",
    )
    return "`llmcourse.classify.mean_pool` does the same; sentence encoders are trained through it."


def worst(logits, labels, k):
    """The row indices of the k examples with the highest cross-entropy, worst first."""
    losses = F.cross_entropy(torch.as_tensor(logits).float(), torch.as_tensor(labels), reduction="none")
    return losses.argsort(descending=True)[:k]


@exercise(
    "05a-worst",
    "Find the worst mistakes",
    minutes=6,
    difficulty=2,
    hints=(
        "The loss of one example is minus the log-softmax at its label.",
        "F.cross_entropy has reduction='none': one loss for each example instead of the mean.",
        "argsort or topk gives the places, largest first.",
    ),
    solution=worst,
)
def check_worst(answer):
    """Compare with the order of the losses."""
    logits = torch.tensor([[3.0, -1.0], [0.2, 0.1], [-2.0, 4.0], [-5.0, 5.5], [0.0, 1.0], [2.0, -2.5]])
    labels = torch.tensor([1, 0, 0, 1, 1, 1])
    losses = F.cross_entropy(logits, labels, reduction="none")
    order = losses.argsort(descending=True)
    value = tensor(answer(logits.clone(), labels.clone(), 3)).flatten()
    require(len(value) == 3, f"asked for k=3, you return {len(value)} of them")
    found = value.tolist()
    require(
        not torch.allclose(value, losses[order[:3]], atol=1e-3),
        "these are the losses: return the row indices of the examples",
    )
    sure = logits.softmax(-1).max(-1).values
    reasons = {
        "these are the BEST three: the highest loss comes first, or you take the loss for the other class": (
            order.flip(0)[:3]
        ),
        "the right three in the wrong order: worst first": order[:3].flip(0),
        "these are the surest, right or wrong: the loss also needs the label": sure.argsort(descending=True)[
            :3
        ],
        "these are the least sure: a bad mistake is SURE and wrong": sure.argsort()[:3],
    }
    for message, slip in reasons.items():
        require(found != slip.tolist(), message)
    require(found == order[:3].tolist(), f"expected the examples {order[:3].tolist()}, you return {found}")
    (most,) = tensor(answer(logits.clone(), labels.clone(), 1)).flatten().tolist() or (-1,)
    require(most == order[0], "right for k=3, but not for k=1")
    return "reading them is the cheapest way to learn what a model, or a data set, gets wrong."
