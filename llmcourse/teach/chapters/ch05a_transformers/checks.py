"""Exercises of chapter 5a: transformers, Trainer and fine-tuning."""

import torch
import torch.nn.functional as F

from llmcourse.teach.examine import compare, examine
from llmcourse.teach.exercises import exercise, require
from llmcourse.teach.forms import number, tensor


@exercise(
    "05a-padding",
    "Count the padding",
    minutes=6,
    difficulty=2,
    hints=(
        "A batch of n rows takes n times its longest row in positions, padding included.",
        "Add up the positions of all batches, and the real tokens of all batches; divide once, at the end.",
    ),
    wants="function",
    form=number,
)
def check_padding(answer):
    """Compare on batches of different sizes; tell the usual slips apart."""

    def real(batches):
        return sum(map(sum, batches))

    def share(batches, rows=len, longest=max):
        return 1 - real(batches) / sum(rows(batch) * longest(batch) for batch in batches)

    slips = {
        "that is the share of REAL tokens: padding is the rest": lambda b: 1 - share(b),
        "that is padding per real token: divide by ALL positions": lambda b: share(b) / (1 - share(b)),
        "that is the number of padded positions: divide it by all positions": (
            lambda b: sum(len(x) * max(x) for x in b) - real(b)
        ),
        "you pad every row to the longest of all; each batch has its own longest row": (
            lambda b: share(b, longest=lambda batch: max(map(max, b)))
        ),
        "that is the mean of the batches' shares: large batches must count for more": (
            lambda b: sum(share([batch]) for batch in b) / len(b)
        ),
        "that is the mean of the rows' shares: a row of a wide batch has more positions": (
            lambda b: sum(1 - x / max(batch) for batch in b for x in batch) / sum(map(len, b))
        ),
        "between 0 and 1, not in percent": lambda b: 100 * share(b),
        "a batch has len(batch) rows, and the last may be smaller: do not count the same number of rows for each": (
            lambda b: share(b, rows=lambda batch: 16),
            lambda b: share(b, rows=lambda batch: 8),
            lambda b: share(b, rows=lambda batch: max(map(len, b))),
            lambda b: share(b, rows=lambda batch: len(b[0])),
        ),
        "that is one batch alone: add up all of them": (lambda b: share(b[:1]), lambda b: share(b[-1:])),
    }
    cases = {
        "for [[3, 9, 6], [2, 2], [10]] it is 9 of 41 positions, {right}; you return {value}": (
            [[3, 9, 6], [2, 2], [10]],
        ),
        "rows of equal length need no padding; you return {value}": ([[5, 5, 5], [8, 8]],),
        "for [[1, 7], [4, 2, 3, 4], [6, 5]] it is {right}; you return {value}": (
            [[1, 7], [4, 2, 3, 4], [6, 5]],
        ),
    }
    examine(answer, share, cases, slips)
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
    wants="value",
    form=number,
)
def check_steps(answer):
    """3 epochs of 8,878 reviews in batches of 16."""
    slips = {
        "the last batch of each epoch is smaller, and it is a step too: round up": 1662,
        "that is one epoch; you train for three": 555,
        "that is one epoch, without its last batch": (554, 554.875),
        "a part of a step is no step: the last, smaller batch is one too": 1664.625,
        "each epoch ends with a smaller batch of its own: round up in each epoch, not down at the end": 1664,
        "that is the number of reviews read; a step reads 16 of them": 8878 * 3,
        "that is the number of reviews: how many steps of 16 are they, in three epochs?": 8878,
        "divide by the batch, do not multiply by it": 8878 * 16 * 3,
    }
    compare(
        answer,
        1665,
        slips,
        "{value} is not 3 times the number of batches in 8,878 reviews",
        rtol=0,
        atol=0.01,
    )
    return "`max_steps` and `num_train_epochs` of TrainingArguments say the same thing in two ways."


@exercise(
    "05a-pool",
    "One vector for each text",
    minutes=6,
    difficulty=2,
    hints=(
        "Give the mask a third dimension, attention_mask[:, :, None], and multiply: padding becomes zero.",
        "Sum over the positions (dim=1), then divide by the number of ONES in each row, not by T.",
    ),
    wants="function",
    form=tensor,
)
def check_pool(answer):
    """Compare with rows pooled one by one; padding must not matter, wherever it stands."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(3, 5, 4, generator=generator) + 1
    mask = (torch.arange(5) < torch.tensor([5, 2, 3])[:, None]).long()
    noisy = hidden + 100 * torch.randn(hidden.shape, generator=generator) * (1 - mask)[:, :, None]
    middle = torch.tensor([[0, 1, 1, 0, 1, 0], [1, 0, 0, 0, 0, 1]])
    cases = {
        "the values differ from the mean over each row's real tokens": (hidden, mask),
        "other values at padded positions change your result: the mask must remove them": (noisy, mask),
        "right for padding on the right, but not for padding on the left: use the mask itself": (
            noisy.flip(1),
            mask.flip(1),
        ),
        "right for padding at the ends, but not for zeros in the middle of the mask": (
            torch.randn(2, 6, 3, generator=generator),
            middle,
        ),
    }

    def kept(hidden, mask):
        return hidden * mask[:, :, None]

    def right(hidden, mask):
        return kept(hidden, mask).sum(1) / mask.sum(1, keepdim=True)

    def cut(side):  # as if the real tokens stood together at one end
        return lambda hidden, mask: torch.stack(
            [
                (row[:n] if side == "left" else row[-n:]).mean(0)
                for row, n in zip(hidden, mask.sum(1), strict=True)
            ]
        )

    slips = {
        "that is the mean over all positions: the mask has no effect": lambda h, m: h.mean(1),
        "you divide by T: divide by the number of real tokens in each row": lambda h, m: kept(h, m).mean(1),
        "that is the sum over the real tokens: divide by how many they are": lambda h, m: kept(h, m).sum(1),
        "you divide by the number of real tokens of the whole batch: each row has its own": (
            lambda h, m: kept(h, m).sum(1) / m.sum()
        ),
        "you divide by the number of rows, B: divide by the number of real tokens in each": (
            lambda h, m: kept(h, m).sum(1) / len(h)
        ),
        "padding is not removed: multiply by the mask before you sum": lambda h, m: (
            h.sum(1) / m.sum(1, keepdim=True)
        ),
        "you take the FIRST n positions, with n ones in the mask: padding may stand on the left. Use the mask itself": (
            cut("left")
        ),
        "you take the LAST n positions, with n ones in the mask: padding may stand on the right. Use the mask itself": (
            cut("right")
        ),
        "these are the means over the PADDED positions: the mask is 1 at real tokens": lambda h, m: right(
            h, 1 - m
        ),
        "that is the first token's vector ([CLS]), not the mean": lambda h, m: h[:, 0],
        "that is the last token's vector, not the mean": lambda h, m: h[:, -1],
        "that is the largest entry, not the mean": (
            lambda h, m: kept(h, m).amax(1),
            lambda h, m: h.amax(1),
            lambda h, m: h.masked_fill(m[:, :, None] == 0, float("-inf")).amax(1),
        ),
        "you take the mean over the width (dim 2): the positions are dimension 1": lambda h, m: kept(
            h, m
        ).mean(2),
        "you take the mean over the texts (dim 0): the positions are dimension 1": lambda h, m: kept(
            h, m
        ).mean(0),
    }
    examine(answer, right, cases, slips, "(B, C), one vector for each text", rtol=1e-4, atol=1e-4)
    return "`llmcourse.finetune.classify.mean_pool` does the same; sentence encoders are trained through it."


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
    wants="function",
    form=tensor,
)
def check_worst(answer):
    """Compare with the order of the losses."""

    def found(logits, labels, k):
        rows = answer(logits, labels, k).flatten()
        require(len(rows) == k, f"asked for k={k}, you return {len(rows)} of them")
        return rows

    def losses(logits, labels):
        return F.cross_entropy(logits, labels, reduction="none")

    def worst_of(x, y, k):
        return losses(x, y).argsort(descending=True)[:k]

    def sure(x):
        return x.softmax(-1).amax(-1)

    logits = torch.tensor([[3.0, -1.0], [0.2, 0.1], [-2.0, 4.0], [-5.0, 5.5], [0.0, 1.0], [2.0, -2.5]])
    labels = torch.tensor([1, 0, 0, 1, 1, 1])
    generator = torch.Generator().manual_seed(1)
    cases = {
        "expected the examples {right}, you return {value}": (logits, labels, 3),
        "right for k=3, but not for k=1": (logits, labels, 1),
        "right for 6 examples, but of 11 others expected are {right}, and you return {value}": (
            3 * torch.randn(11, 2, generator=generator),
            torch.randint(2, (11,), generator=generator),
            4,
        ),
    }
    slips = {
        "these are the losses: return the row indices of the examples": lambda x, y, k: (
            losses(x, y).topk(k).values
        ),
        "these are the BEST, the lowest losses: the highest loss comes first, or you take the loss for the other class": (
            lambda x, y, k: losses(x, y).argsort()[:k],
            lambda x, y, k: worst_of(x, 1 - y, k),
        ),
        "the right ones in the wrong order: worst first": lambda x, y, k: worst_of(x, y, k).flip(0),
        "these are the surest, right or wrong: the loss also needs the label": (
            lambda x, y, k: sure(x).argsort(descending=True)[:k]
        ),
        "these are the least sure: a bad mistake is SURE and wrong": lambda x, y, k: sure(x).argsort()[:k],
        "places count from 0: yours are one too large": lambda x, y, k: worst_of(x, y, k) + 1,
        "these are the ranks of the first examples: argsort once gives the places": (
            lambda x, y, k: losses(x, y).argsort(descending=True).argsort()[:k]
        ),
        "these are the first examples, sorted or not: take the losses of all": lambda x, y, k: torch.arange(
            k
        ),
        "the worst one is missing: your list begins with the second": lambda x, y, k: worst_of(x, y, k + 1)[
            1:
        ],
    }
    examine(found, worst_of, cases, slips)
    return "reading them is the cheapest way to learn what a model, or a data set, gets wrong."
