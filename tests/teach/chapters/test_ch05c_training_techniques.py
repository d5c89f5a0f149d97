"""Chapter 5c, training techniques: right answers in many forms, and what is said to the wrong ones."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from answers import assert_right, assert_wrong

from llmcourse.optim import orthogonalize

RIGHT, WRONG = {}, {}
NORM = torch.randn(6, 10, generator=torch.Generator().manual_seed(3)).norm()  # of the checker's matrix


def polynomial(x, steps=5, a=3.4445, b=-4.775, c=2.0315):
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


def by_svd(matrix):
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    s = s / s.norm()
    for _ in range(5):
        s = 3.4445 * s - 4.775 * s**3 + 2.0315 * s**5
    return u @ torch.diag(s) @ vh


def in_numpy(matrix):
    x = matrix.numpy().copy()
    x /= np.linalg.norm(x)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x - 4.775 * gram @ x + 2.0315 * gram @ gram @ x
    return x


def exact(matrix):
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    return u @ vh


RIGHT["05c-orthogonalize"] = [
    lambda m: polynomial(m / m.norm()),
    lambda m: polynomial(m / torch.linalg.matrix_norm(m)),
    by_svd,
    in_numpy,
    orthogonalize,
]
WRONG["05c-orthogonalize"] = {
    "spectral norm": (
        "largest singular value",
        lambda m: polynomial(m / torch.linalg.matrix_norm(m, 2)),
    ),
    "no norm": ("overflow for a large one", polynomial),
    "fixed norm": ("1,000 times larger", lambda m: polynomial(m / NORM)),
    "one step": ("applied 1 times", lambda m: polynomial(m / m.norm(), 1)),
    "ten steps": ("applied 10 times", lambda m: polynomial(m / m.norm(), 10)),
    "exact": ("U Vᵀ", exact),
    "norm only": ("five steps of the polynomial are missing", lambda m: m / m.norm()),
    "sign": ("and b is negative", lambda m: polynomial(m / m.norm(), b=4.775)),
    "other a": ("singular values are not those", lambda m: polynomial(m / m.norm(), a=3.0)),
    "in place": ("changes the matrix", lambda m: polynomial(m.div_(m.norm()))),
    "element-wise": ("singular vectors changed", lambda m: 3.4 * m / 9 - 4.7 * (m / 9) ** 3),
    "transposed": ("keeps its shape", lambda m: polynomial(m / m.norm()).T),
}


def by_slices(ids, tables):
    x = tables[0][ids].clone()
    for j in range(1, len(tables)):
        x[:, j:] += tables[j][ids[:, :-j]]
    return x


def by_loops(ids, tables):
    x = torch.zeros(*ids.shape, tables[0].shape[1])
    for b in range(ids.shape[0]):
        for t in range(ids.shape[1]):
            for j in range(min(t + 1, len(tables))):
                x[b, t] += tables[j][ids[b, t - j]]
    return x


def by_convolution(ids, tables):
    kernel = torch.stack([table.T for table in reversed(tables)], dim=-1)
    one_hot = F.one_hot(ids, len(tables[0])).float().mT
    return F.conv1d(F.pad(one_hot, (len(tables) - 1, 0)), kernel).mT


RIGHT["05c-shift"] = [by_slices, by_loops, by_convolution, lambda i, t: by_slices(i, t).numpy()]
WRONG["05c-shift"] = {
    "roll": ("its future", lambda i, t: sum(table[i.roll(j, dims=1)] for j, table in enumerate(t))),
    "ahead": ("answer itself", lambda i, t: by_slices(i.flip(1), t).flip(1)),
    "one table": ("All distances use table 0", lambda i, t: by_slices(i, t[:1] * len(t))),
    "usual": ("usual embedding alone", lambda i, t: t[0][i]),
    "padded with token 0": (
        "token 0, which is a real character",
        lambda i, t: sum(table[F.pad(i, (j, 0))[:, : i.shape[1]]] for j, table in enumerate(t)),
    ),
    "mean": ("Not yet", lambda i, t: by_slices(i, t) / 3),
    "writes into the table": ("changes the tables", lambda i, t: t[0].add_(1)[i]),
    "flat": ("should be (B, T, C)", lambda i, t: by_slices(i, t).flatten(0, 1)),
}

RIGHT["05c-sooner"] = [20, 20.0, torch.tensor(20.0), np.float64(20)]
WRONG["05c-sooner"] = {
    "whole runs": ("lengths of the whole runs", 25),
    "second point": ("second point", 15),
    "first point": ("first point", 30),
    "upside down": ("ours over theirs", 0.05),
    "subtracted": ("subtracted", 57),
    "losses": ("compared losses", 1),
    "other": ("Find the second", 8),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers(name):
    assert_right(name, RIGHT[name])


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers_hear_what_is_wrong(name):
    assert_wrong(name, WRONG[name])
