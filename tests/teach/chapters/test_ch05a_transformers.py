"""Chapter 5a: right answers written differently pass, and each usual slip gets its own sentence."""

import heapq

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from answers import assert_right, assert_wrong, numbered

from llmcourse.finetune.classify import mean_pool as package_mean_pool
from llmcourse.teach.checks import verdict

RIGHT, WRONG = {}, {}


# ---- 05a-padding ----------------------------------------------------------------------------


def by_counting(batches):
    padded = total = 0
    for batch in batches:
        for length in batch:
            padded += max(batch) - length
            total += max(batch)
    return padded / total


def with_numpy(batches):
    positions = np.concatenate([np.full(len(batch), max(batch)) for batch in batches])
    return 1 - np.concatenate(batches).sum() / positions.sum()


def as_tensor(batches):
    return torch.tensor([by_counting(batches)])


def total(batches):
    return sum(len(batch) * max(batch) for batch in batches)


def real(batches):
    return sum(map(sum, batches))


def longest(batches):
    return max(map(max, batches)) * sum(map(len, batches))


RIGHT["05a-padding"] = [
    by_counting,
    with_numpy,
    as_tensor,
    lambda batches: sum(max(b) - x for b in batches for x in b) / sum(max(b) for b in batches for _ in b),
]


WRONG["05a-padding"] = numbered(
    [
        (lambda b: real(b) / total(b), "share of REAL tokens"),
        (lambda b: (total(b) - real(b)) / real(b), "padding per real token"),
        (lambda b: total(b) - real(b), "the number of padded positions"),
        (lambda b: 1 - real(b) / longest(b), "each batch has its own longest row"),
        (lambda b: sum(by_counting([x]) for x in b) / len(b), "mean of the batches' shares"),
        (lambda b: 100 * by_counting(b), "not in percent"),
        (lambda b: 0.5, "it is 9 of 41 positions"),
        (lambda b: 9 / 41, "rows of equal length need no padding"),
        (lambda b: real(b) / len(b), "it is 9 of 41 positions"),
        (lambda b: [by_counting([x]) for x in b], "give a number"),
        (lambda b: 1 - real(b) / sum(16 * max(x) for x in b), "do not count the same number of rows"),
        (lambda b: round(by_counting(b), 2), "rounded"),
    ]
)


# ---- 05a-steps ------------------------------------------------------------------------------


WRONG["05a-steps"] = numbered(
    [
        (554 * 3, "it is a step too: round up"),
        (555, "that is one epoch; you train for three"),
        (554, "without its last batch"),
        (8878 * 3 / 16, "a part of a step is no step"),
        (8878 * 3, "the number of reviews read"),
        (1000, "1000 is not 3 times"),
        ("1665", "give a number"),
    ]
)


RIGHT["05a-steps"] = [1665, 1665.0, -(-8878 // 16) * 3, np.int64(1665), torch.tensor(1665)]


# ---- 05a-pool -------------------------------------------------------------------------------


def row_by_row(hidden, attention_mask):
    return torch.stack([row[keep.bool()].mean(0) for row, keep in zip(hidden, attention_mask, strict=True)])


def with_einsum(hidden, attention_mask):
    weights = attention_mask / attention_mask.sum(1, keepdim=True)
    return torch.einsum("btc,bt->bc", hidden, weights)


def with_nan(hidden, attention_mask):
    return hidden.masked_fill(~attention_mask.bool()[..., None], torch.nan).nanmean(dim=1)


def in_numpy(hidden, attention_mask):
    x, m = hidden.numpy(), attention_mask.numpy()[..., None]
    return (x * m).sum(1) / m.sum(1)


RIGHT["05a-pool"] = [row_by_row, with_einsum, with_nan, in_numpy, package_mean_pool]


def first_n(hidden, mask):
    return torch.stack([row[:n].mean(0) for row, n in zip(hidden, mask.sum(1), strict=True)])


def kept(hidden, mask):
    return hidden * mask[:, :, None]


WRONG["05a-pool"] = numbered(
    [
        (lambda h, m: h.mean(1), "the mask has no effect"),
        (lambda h, m: kept(h, m).mean(1), "you divide by T"),
        (lambda h, m: kept(h, m).sum(1), "sum over the real tokens"),
        (lambda h, m: kept(h, m).sum(1) / m.sum(), "the whole batch"),
        (lambda h, m: h[:, 0], "[CLS]"),
        (lambda h, m: kept(h, m).max(1).values, "largest entry"),
        (lambda h, m: h.mean(2), "here (3, 4); yours is (3, 5)"),
        (lambda h, m: first_n(h, m), "you take the FIRST n positions"),
        (lambda h, m: first_n(h.flip(1), m), "you take the LAST n positions"),
        (lambda h, m: kept(h, 1 - m).sum(1) / (1 - m).sum(1, keepdim=True), "PADDED positions"),
        (lambda h, m: row_by_row(h, m).round(decimals=2), "rounded"),
        (lambda h, m: (h * m[:, :, None]).sum(1) / m.sum(1), "keepdim=True"),
        (lambda h, m: kept(h, m).sum(1) / (m.sum(1, keepdim=True) + 1), "the values differ"),
        (lambda h, m: h * m, "your code raised RuntimeError"),
    ]
)


def test_pool_notices_padding_that_leaks_in():
    """Right for the example's mask, wrong as soon as other values stand at padded positions."""

    def leaking(hidden, mask):
        return row_by_row(hidden, mask) + (0.01 * hidden * (1 - mask)[..., None]).clamp(min=0.5).sum(1) - 2.5

    kind, sentence = verdict("05a-pool", leaking)
    assert kind == "wrong"
    assert "other values at padded positions" in sentence


# ---- 05a-worst ------------------------------------------------------------------------------


def with_topk(logits, labels, k):
    return F.cross_entropy(logits, labels, reduction="none").topk(k).indices


def as_list(logits, labels, k):
    p = logits.softmax(-1)[torch.arange(len(labels)), labels].tolist()
    return sorted(range(len(p)), key=p.__getitem__)[:k]


def with_arrays(logits, labels, k):
    x, y = logits.numpy(), labels.numpy()
    margin = x[np.arange(len(y)), y] - x[np.arange(len(y)), 1 - y]
    return np.argsort(margin)[:k]


RIGHT["05a-worst"] = [
    with_topk,
    as_list,
    with_arrays,
    lambda logits, labels, k: heapq.nlargest(
        k, range(len(labels)), key=losses(logits, labels).tolist().__getitem__
    ),
    lambda logits, labels, k: (i for i in with_topk(logits, labels, k).tolist()),
]


def losses(logits, labels):
    return F.cross_entropy(logits, labels, reduction="none")


WRONG["05a-worst"] = numbered(
    [
        (lambda x, y, k: losses(x, y).argsort()[:k], "these are the BEST"),
        (lambda x, y, k: with_topk(x, y, k).flip(0), "in the wrong order"),
        (lambda x, y, k: losses(x, y).topk(k).values, "these are the losses"),
        (lambda x, y, k: x.softmax(-1).max(-1).values.topk(k).indices, "the surest, right or wrong"),
        (lambda x, y, k: x.softmax(-1).max(-1).values.argsort()[:k], "the least sure"),
        (lambda x, y, k: losses(x, 1 - y).topk(k).indices, "or you take the loss for the other class"),
        (lambda x, y, k: losses(x, y).argsort(descending=True), "asked for k=3, you return 6"),
        (lambda x, y, k: losses(x, y).argmax(), "asked for k=3, you return 1"),
        (lambda x, y, k: [0, 1, 4], "expected the examples"),
        (lambda x, y, k: losses(x, y).topk(k), ".values or .indices"),
        (lambda x, y, k: losses(x, y).sort(descending=True), ".values or .indices"),
        (lambda x, y, k: losses(x, y).sort(descending=True)[1][:k] + 1, "places count from 0"),
        (lambda x, y, k: losses(x, y).sort(descending=True)[:k], "a pair of values and indices"),
        (lambda x, y, k: [2, 5, 0, 1][:k], "of 11 others"),
        (lambda x, y, k: [*with_topk(x, y, 3)][-k:], "but not for k=1"),
    ]
)


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers(name):
    assert_right(name, RIGHT[name])


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers_hear_what_is_wrong(name):
    assert_wrong(name, WRONG[name])
