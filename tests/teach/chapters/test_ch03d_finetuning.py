"""Answers that learners give to the exercises of chapter 3d, right and wrong."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from answers import assert_right, assert_wrong

from llmcourse.teach.exercises import get_exercise

RIGHT, WRONG = {}, {}


# 03d-mask


def by_positions(ids, assistant, end):
    mask = np.zeros(len(ids), dtype=bool)
    for start in [i for i, token in enumerate(ids) if token == assistant]:
        stop = next((j for j in range(start + 1, len(ids)) if ids[j] == end), len(ids) - 1)
        mask[start + 1 : stop + 1] = True
    return mask


def state(before=True, end_counts=True, one_turn=False, switch_off=True, any_end=False):
    """The solution with each part open to a slip."""

    def mask(ids, assistant, end):
        result, speaking, answers = [], False, 0
        for token in ids:
            if not before and token == assistant:
                speaking = True
            counts = speaking and (end_counts or token != end) and not (one_turn and answers)
            result.append(counts or (any_end and token == end))
            if token == assistant:
                speaking = True
            elif token == end and switch_off:
                answers += speaking
                speaking = False
        return result

    return mask


RIGHT["03d-mask"] = [
    by_positions,
    lambda *a: torch.tensor(by_positions(*a)),
    lambda *a: by_positions(*a).astype(int).tolist(),
    lambda *a: tuple(bool(x) for x in by_positions(*a)),
    state(),
]
WRONG["03d-mask"] = {
    "assistant token counts": ("<|assistant|> itself must not count", state(before=False)),
    "end does not count": ("end token of the answer must count", state(end_counts=False)),
    "first answer only": ("a chat may have several turns", state(one_turn=True)),
    "never switched off": ("switch off", state(switch_off=False)),
    "every end token": ("a turn of the user counts", state(any_end=True)),
    "inverted": ("inside out", lambda *a: ~by_positions(*a)),
    "nothing": ("nothing counts", lambda ids, a, e: [False] * len(ids)),
    "everything": ("everything counts", lambda ids, a, e: [True] * len(ids)),
    "shifted to targets": ("one True or False for each id", lambda *a: by_positions(*a)[1:]),
    "the ids": ("True or False", lambda ids, a, e: ids),
    "positions": ("one True or False", lambda *a: np.flatnonzero(by_positions(*a))),
    "cut answer forgotten": (
        "cut before its end token",
        lambda ids, a, e: by_positions(ids, a, e) if ids[-1] == e else [False] * len(ids),
    ),
}


# 03d-lora

RIGHT["03d-lora"] = [
    lambda x, W, A, B, alpha: x @ (W + alpha / len(A) * B @ A).T,
    lambda x, W, A, B, alpha: F.linear(x, W) + F.linear(F.linear(x, A), B) * alpha / B.shape[1],
    lambda x, W, A, B, alpha: (x @ W.T + (x @ A.T @ B.T).mul(alpha).div(A.size(0))).numpy(),
    lambda x, W, A, B, alpha: torch.einsum("...i,oi->...o", x, W + (alpha / A.shape[0]) * (B @ A)),
]
WRONG["03d-lora"] = {
    "frozen only": ("correction is missing", lambda x, W, A, B, alpha: x @ W.T),
    "correction only": ("frozen layer is missing", lambda x, W, A, B, alpha: alpha / 2 * x @ A.T @ B.T),
    "no factor": ("alpha / r is missing", lambda x, W, A, B, alpha: x @ W.T + x @ A.T @ B.T),
    "alpha only": ("do not divide by the rank", lambda x, W, A, B, alpha: x @ W.T + alpha * x @ A.T @ B.T),
    "upside down": ("alpha / r", lambda x, W, A, B, alpha: x @ W.T + len(A) / alpha * x @ A.T @ B.T),
    "all scaled": (
        "correction only, not",
        lambda x, W, A, B, alpha: alpha / len(A) * (x @ W.T + x @ A.T @ B.T),
    ),
    "columns of A": (
        "number of ROWS of A",
        lambda x, W, A, B, alpha: x @ W.T + alpha / A.shape[1] * x @ A.T @ B.T,
    ),
    "rows of B": (
        "number of columns of B",
        lambda x, W, A, B, alpha: x @ W.T + alpha / B.shape[0] * x @ A.T @ B.T,
    ),
    "root": ("not by its root", lambda x, W, A, B, alpha: x @ W.T + alpha / len(A) ** 0.5 * x @ A.T @ B.T),
    "minus": ("added, not taken away", lambda x, W, A, B, alpha: x @ W.T - alpha / len(A) * x @ A.T @ B.T),
    "rank fixed at 2": ("take r from A.shape[0]", lambda x, W, A, B, alpha: x @ (W + alpha / 2 * B @ A).T),
    "no transpose": ("your code raised RuntimeError", lambda x, W, A, B, alpha: x @ W + x @ A @ B),
    "the weight": (
        "(..., out), here (2, 3, 4); yours is (4, 6)",
        lambda x, W, A, B, alpha: W + alpha / len(A) * B @ A,
    ),
}


# 03d-parameters

RIGHT["03d-parameters"] = [8 * 15_104, 120_832.0]
WRONG["03d-parameters"] = {
    "whole matrix": ("stays frozen", 11_008 * 4_096),
    "B only": ("A is missing", 8 * 11_008),
    "A only": ("B is missing", 8 * 4_096),
    "rank 1": ("rank 1", 15_104),
    "multiplied": ("do not multiply", 8 * 11_008 * 4_096),
    "with the base": ("only what is trained", 8 * 15_104 + 11_008 * 4_096),
    "something": ("is not r x in", 1000),
}


# 03d-nf4


def nearest(values, levels):
    return levels[(values[:, None] - levels).abs().argmin(1)]


def one_by_one(block, levels):
    scale = max(abs(x) for x in block.tolist())
    return [scale * min(levels.tolist(), key=lambda level: abs(x / scale - level)) for x in block.tolist()]


RIGHT["03d-nf4"] = [
    one_by_one,
    lambda block, levels: np.array(one_by_one(block, levels)),
    lambda b, levels: (
        b.abs().max() * levels[torch.bucketize(b / b.abs().max(), (levels[1:] + levels[:-1]) / 2)]
    ),
    lambda b, levels: nearest(b, levels * b.abs().max()),
]
WRONG["03d-nf4"] = {
    "not rounded": ("nothing was rounded", lambda b, levels: b),
    "indices": ("indices of the levels", lambda b, L: (b[:, None] / b.abs().max() - L).abs().argmin(1)),
    "not scaled back": ("between -1 and 1", lambda b, levels: nearest(b / b.abs().max(), levels)),
    "floor": (
        "next level BELOW",
        lambda b, L: L[torch.searchsorted(L, b / b.abs().max(), right=True) - 1] * b.abs().max(),
    ),
    "signed scale": ("largest MAGNITUDE", lambda b, levels: nearest(b / b.max(), levels) * b.max()),
    "deviation": ("standard deviation", lambda b, levels: nearest(b / b.std(), levels) * b.std()),
    "no scale": ("without dividing by the scale", lambda b, levels: nearest(b, levels)),
    "no division": ("and multiply afterwards", lambda b, levels: nearest(b, levels) * b.abs().max()),
    "a table": ("one value for each weight", lambda b, levels: (b[:, None] - levels).abs()),
    "evenly spaced": (
        "not the nearest level",
        lambda b, levels: (b / b.abs().max() * 7).round() / 7 * b.abs().max(),
    ),
    "own levels": (
        "use what is given",
        lambda b, levels: one_by_one(b, get_exercise("03d-nf4").check.__globals__["nf4_levels"]()),
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers(name):
    assert_right(name, RIGHT[name])


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers_hear_what_is_wrong(name):
    assert_wrong(name, WRONG[name])
