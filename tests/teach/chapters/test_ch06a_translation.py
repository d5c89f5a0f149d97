"""Answers that learners give to the exercises of chapter 6a, right and wrong."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from answers import assert_right, assert_wrong

from llmcourse.teach.chapters.ch06a_translation.checks import attend, choose, read_entry

RIGHT, WRONG = {}, {}


# 06a-cross


def in_numpy(q, k, v, mask):
    q, k, v, mask = (x.numpy() for x in (q, k, v, mask))
    scores = np.where(mask, q @ k.T / math.sqrt(k.shape[1]), -1e30)
    weights = np.exp(scores - scores.max(1, keepdims=True))
    return weights / weights.sum(1, keepdims=True) @ v


def by_loops(q, k, v, mask):
    rows = []
    for query in q:
        weights = torch.stack([torch.exp(query @ key / k.shape[1] ** 0.5) for key in k]) * mask
        rows.append((weights[:, None] * v).sum(0) / weights.sum())
    return torch.stack(rows)


RIGHT["06a-cross"] = [
    attend,
    in_numpy,
    by_loops,
    lambda q, k, v, mask: F.scaled_dot_product_attention(q[None], k[None], v[None], mask[None])[0],
    lambda q, k, v, mask: attend(q, k[mask], v[mask], mask[mask]),
]
WRONG["06a-cross"] = {
    "padding seen": ("padding is looked at", lambda q, k, v, m: attend(q, k, v, m, hide="no")),
    "inverted": ("inside out", lambda q, k, v, m: attend(q, k, v, ~m)),
    "hidden late": ("after the softmax", lambda q, k, v, m: attend(q, k, v, m, hide="after")),
    "no scale": ("scale is missing", lambda q, k, v, m: attend(q, k, v, m, scale=1.0)),
    "divided by D": ("not by D", lambda q, k, v, m: attend(q, k, v, m, scale=1 / k.shape[1])),
    "times root": ("not by √D", lambda q, k, v, m: attend(q, k, v, m, scale=k.shape[1] ** 0.5)),
    "root of S": ("not the number of tokens", lambda q, k, v, m: attend(q, k, v, m, scale=len(k) ** -0.5)),
    "other softmax": ("runs over the target", lambda q, k, v, m: attend(q, k, v, m, dim=0)),
    "keys": ("yours is of the keys", lambda q, k, v, m: attend(q, k, k, m)),
    "causal": (
        "no triangle",
        lambda q, k, v, m: (
            (q @ k.T * k.shape[1] ** -0.5)
            .masked_fill(~(torch.ones(len(q), len(k)).tril().bool() & m), -math.inf)
            .softmax(-1)
            @ v
        ),
    ),
    "weights": ("(T, D), a row for each target", lambda q, k, v, m: (q @ k.T).softmax(-1)),
}


# 06a-shift

RIGHT["06a-shift"] = [
    lambda ids, start_id, end_id: ([start_id, *ids], [*ids, end_id]),
    lambda ids, start_id, end_id: (torch.tensor([start_id, *ids]), np.array([*ids, end_id])),
    lambda ids, start_id, end_id: ([start_id] + list(ids), list(ids) + [end_id]),  # noqa: RUF005
    lambda ids, start_id, end_id: [(row := [start_id, *ids, end_id])[:-1], row[1:]],
]
WRONG["06a-shift"] = {
    "swapped": ("swapped", lambda i, s, e: ([*i, e], [s, *i])),
    "no start": ("lack the start token", lambda i, s, e: (i, [*i, e])),
    "no end": ("lack the end token", lambda i, s, e: ([s, *i], i)),
    "equal": ("both rows are equal", lambda i, s, e: ([s, *i, e], [s, *i, e])),
    "end read": ("after which nothing is to be said", lambda i, s, e: ([s, *i, e], [*i, e])),
    "start said": ("never to be said", lambda i, s, e: ([s, *i], [s, *i, e])),
    "exchanged": ("exchanged", lambda i, s, e: ([e, *i], [*i, s])),
    "fixed ids": ("use start_id and end_id", lambda i, s, e: ([1, *i], [*i, 2])),
    "one list": ("two lists", lambda i, s, e: [s, *i, e]),
}


# 06a-entry


def fuller(english, forms, form, fuzzy):
    if fuzzy:
        return ()
    numbers = range(1, len(english) + 1)
    places = [form(n) for n in numbers] if len(english) == 2 else [0]
    return tuple((text, forms[k]) for text, k in zip(english, places, strict=True) if forms[k] != "")


RIGHT["06a-entry"] = [
    read_entry,
    fuller,
    lambda *entry: [list(pair) for pair in fuller(*entry)],
    lambda english, forms, form, fuzzy: [
        (t, f) for t, f in zip(english, [forms[form(n) if len(english) > 1 else 0] for n in (1, 2)], strict=False) if f
    ] if not fuzzy else [],
]  # fmt: skip
WRONG["06a-entry"] = {
    "fuzzy kept": ("fuzzy entries come through", lambda *e: read_entry(*e, drop_fuzzy=False)),
    "empty kept": ("untranslated texts come through", lambda *e: read_entry(*e, drop_empty=False)),
    "all kept": ("leave both out", lambda *e: read_entry(*e, drop_fuzzy=False, drop_empty=False)),
    "own counting": ("you count the forms yourself", lambda *e: read_entry(*e, index=lambda i: i)),
    "first form": ("the form of n = 1", lambda *e: read_entry(*e, index=lambda i: 0)),
    "last form": ("not always the plural's", lambda *e: read_entry(*e, index=lambda i: -1 if i else 0)),
    "no plural": ("plural of the entry is missing", lambda *e: read_entry(*e)[:1]),
    "turned": ("English first", lambda *e: [pair[::-1] for pair in read_entry(*e)]),
    "from zero": ("form(0)", lambda en, fo, form, fz: read_entry(en, fo, lambda n: form(n - 1), fz)),
    "no pairs": ("a list of pairs", lambda en, fo, form, fz: fo),
    "dictionary": ("", lambda *e: dict(read_entry(*e))),
}


# 06a-length

RIGHT["06a-length"] = [
    choose,
    lambda logs, n, a: int(np.argmax(np.array(logs) / np.array(n) ** a)),
    lambda logs, n, a: (torch.tensor(logs) / torch.tensor(n) ** a).argmax(),
    lambda logs, n, a: sorted(range(len(n)), key=lambda i: -logs[i] / n[i] ** a)[0],
]
WRONG["06a-length"] = {
    "no length": ("the length does not count", lambda logs, n, a: choose(logs, n, 0)),
    "alpha ignored": ("alpha does not count", lambda logs, n, a: choose(logs, n, 1)),
    "smallest": ("you choose the smallest", lambda logs, n, a: choose([-x for x in logs], n, a)),
    "multiplied": ("you multiply by the length", lambda logs, n, a: choose(logs, n, -a)),
    "alpha times length": (
        "not multiplied by it",
        lambda logs, n, a: max(range(len(n)), key=lambda i: logs[i] / (a * n[i] or 1)),
    ),
    "the score": ("not its score", lambda logs, n, a: max(x / m**a for x, m in zip(logs, n, strict=True))),
    "longest": ("you choose the longest", lambda logs, n, a: n.index(max(n))),
    "shortest": ("you choose the shortest", lambda logs, n, a: n.index(min(n))),
    "from one": ("counted from 0", lambda logs, n, a: choose(logs, n, a) + 1),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers_are_accepted(name):
    assert_right(name, RIGHT[name])


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers_are_told_what_is_wrong(name):
    assert_wrong(name, WRONG[name])
