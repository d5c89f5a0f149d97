"""Chapter 4c: answers that learners give, right and wrong."""

import math

import numpy as np
import pytest
import torch
from answers import assert_right, assert_wrong

RIGHT, WRONG = {}, {}


# 04c-table


def table_from(n, d, exponent=lambda column: column // 2 * 2, pos=0, functions=(math.sin, math.cos)):
    """The table entry by entry, with each part open to a slip."""
    return [
        [functions[column % 2]((row + pos) / 10000 ** (exponent(column) / d)) for column in range(d)]
        for row in range(n)
    ]


def table_by_tensors(n, d):
    table = torch.empty(n, d, dtype=torch.float64)
    angles = torch.outer(torch.arange(n), torch.exp(-math.log(10000) * torch.arange(0, d, 2) / d))
    table[:, 0::2], table[:, 1::2] = angles.sin(), angles.cos()
    return table


def table_without_brackets(n, d):
    i = torch.arange(d // 2)
    angles = torch.arange(n)[:, None] / (10000**2 * i / d)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


def table_of_halves(n, d):
    table = table_by_tensors(n, d)
    return torch.cat([table[:, 0::2], table[:, 1::2]], dim=1)


def table_of_integers(n, d):
    return torch.tensor(table_from(n, d)).int()


def sines_forgotten(n, d):
    table = table_by_tensors(n, d)
    table[:, 1::2] = 0
    return table


RIGHT["04c-table"] = [
    table_from,
    table_by_tensors,
    lambda n, d: np.array(table_from(n, d)),
    lambda n, d: (
        torch.arange(n)[:, None] / 10000 ** (torch.arange(d) // 2 * 2 / d) + torch.arange(d) % 2 * math.pi / 2
    ).sin(),
]
WRONG["04c-table"] = {
    "halves": ("alternates", table_of_halves),
    "swapped functions": ("swapped", lambda n, d: table_from(n, d, functions=(math.cos, math.sin))),
    "from position 1": ("positions count from 0", lambda n, d: table_from(n, d, pos=1)),
    "doubled": ("so it is column / d", lambda n, d: table_from(n, d, lambda column: column // 2 * 4)),
    "i / d": ("should be 2i / d_model", lambda n, d: table_from(n, d, lambda column: column // 2)),
    "exponent by column": ("SAME angle", lambda n, d: table_from(n, d, lambda column: column)),
    "multiplied": ("divide", lambda n, d: table_from(n, d, lambda column: -(column // 2 * 2))),
    "cosines forgotten": ("SAME angle", sines_forgotten),
    "no brackets": ("brackets", table_without_brackets),
    "no brackets, loops": (
        "your code raised ZeroDivisionError",
        lambda n, d: [[1 / (10000**2 * i / d) for i in range(d)]],
    ),
    "swapped arguments": ("yours is (8, 10)", lambda n, d: table_from(d, n)),
    "transposed": ("yours is (8, 10)", lambda n, d: table_by_tensors(n, d).T),
    "one row": ("yours is (8,)", lambda n, d: table_from(n, d)[3]),
    "angles only": ("some entries differ", lambda n, d: table_from(n, d, functions=(float, float))),
    "integers": ("some entries differ", table_of_integers),
    "rows in a list": ("torch.stack", lambda n, d: list(table_by_tensors(n, d))),
    "half as wide": ("yours is (10, 4)", lambda n, d: table_by_tensors(n, d)[:, ::2]),
}

# 04c-wavelength

RIGHT["04c-wavelength"] = [628, 628.32, 2 * np.pi * 100, torch.tensor(200 * math.pi)]
WRONG["04c-wavelength"] = {
    "divisor": ("a full wave is 2π", 100),
    "half a wave": ("half a wave", 100 * math.pi),
    "exponent 1/4": ("2i / d_model", 20 * math.pi),
    "longest": ("longest wave", 62832),
    "shortest": ("shortest wave", 6.28),
    "frequency": ("is not 2π times", 0.01),
    "near": ("is not 2π times", 626),
    "text": ("give a number", "200π"),
}

# 04c-shift


def blocks(k, d, block, frequency=lambda i, d: 10000 ** (-2 * i / d)):
    """A block-diagonal matrix, from c and s of each pair."""
    angles = [k * frequency(i, d) for i in range(d // 2)]
    return torch.block_diag(
        *[torch.tensor(block(math.cos(a), math.sin(a)), dtype=torch.float64) for a in angles]
    )


def turn(c, s):
    return [[c, s], [-s, c]]


def shift_by_numpy(k, d):
    angles = k / 10000 ** (np.arange(0, d, 2) / d)
    matrix = np.diag(np.repeat(np.cos(angles), 2))
    even = np.arange(0, d, 2)
    matrix[even, even + 1] = np.sin(angles)
    matrix[even + 1, even] = -np.sin(angles)
    return matrix


def shift_of_halves(k, d):
    order = [*range(0, d, 2), *range(1, d, 2)]
    return blocks(k, d, turn)[order][:, order]


RIGHT["04c-shift"] = [
    shift_by_numpy,
    lambda k, d: blocks(k, d, turn),
    lambda k, d: blocks(k, d, turn).tolist(),
    lambda k, d: torch.matrix_exp(
        torch.log(torch.tensor(1.0))
        + k * blocks(1, d, lambda c, s: [[0, math.atan2(s, c)], [-math.atan2(s, c), 0]])
    ),
]
WRONG["04c-shift"] = {
    "back": ("swap the signs", lambda k, d: blocks(k, d, lambda c, s: [[c, -s], [s, c]])),
    "transposed": ("swap the signs", lambda k, d: blocks(k, d, turn).T),
    "minus k": ("BACK", lambda k, d: blocks(-k, d, turn)),
    "halves": ("alternates", shift_of_halves),
    "one frequency": ("own frequency", lambda k, d: blocks(k, d, turn, lambda i, d: 1)),
    "doubled exponent": (
        "own frequency",
        lambda k, d: blocks(k, d, turn, lambda i, d: 10000 ** (-4 * i / d)),
    ),
    "no minus": ("M PE(pos) is not PE(pos + k)", lambda k, d: blocks(k, d, lambda c, s: [[c, s], [s, c]])),
    "reflection": ("must be the identity", lambda k, d: blocks(k, d, lambda c, s: [[s, c], [c, -s]])),
    "zeros": ("must be the identity", lambda k, d: torch.zeros(d, d)),
    "identity": ("for k = 1", lambda k, d: torch.eye(d)),
    "rows moved": ("for k = 1", lambda k, d: torch.eye(d).roll(k, 0)),
    "always one step": ("must be the identity", lambda k, d: blocks(1, d, turn)),
    "one pair": ("yours is (2, 2)", lambda k, d: turn(math.cos(k), math.sin(k))),
    "a vector": ("yours is (16,)", lambda k, d: table_from(k + 1, d)[k]),
    "swapped": ("your code raised", lambda k, d: blocks(d, k, turn) @ torch.ones(d, d)),
    "blocks in a list": ("torch.stack", lambda k, d: [torch.eye(2) for _ in range(d // 2)]),
}

# 04c-rotate


def rotate_by_loop(x, angles):
    rows = []
    for (a, b), angle in zip(x.tolist(), angles.tolist(), strict=True):
        rows.append([a * math.cos(angle) - b * math.sin(angle), b * math.cos(angle) + a * math.sin(angle)])
    return rows


def rotate_in_place_wrong(x, angles):
    c, s = angles.cos(), angles.sin()
    x[:, 0] = x[:, 0] * c - x[:, 1] * s
    x[:, 1] = x[:, 1] * c + x[:, 0] * s
    return x


def rotate_in_place_right(x, angles):
    c, s, old = angles.cos(), angles.sin(), x[:, 0].clone()
    x[:, 0] = old * c - x[:, 1] * s
    x[:, 1] = x[:, 1] * c + old * s
    return x


def turned(x, c, s, sign=1, dim=-1):
    return torch.stack([x[:, 0] * c - sign * x[:, 1] * s, x[:, 1] * c + sign * x[:, 0] * s], dim=dim)


RIGHT["04c-rotate"] = [
    rotate_by_loop,
    rotate_in_place_right,
    lambda x, angles: np.array(rotate_by_loop(x, angles)),
    lambda x, angles: torch.view_as_real(
        torch.view_as_complex(x) * torch.polar(torch.ones_like(angles), angles)
    ),
    lambda x, angles: turned(x.double(), angles.double().cos(), angles.double().sin()),
]
WRONG["04c-rotate"] = {
    "clockwise": ("clockwise", lambda x, a: turned(x, a.cos(), a.sin(), sign=-1)),
    "already changed entry": ("old first entry", rotate_in_place_wrong),
    "no minus": (
        "keep the length",
        lambda x, a: torch.stack(
            [x[:, 0] * a.cos() + x[:, 1] * a.sin(), x[:, 1] * a.cos() + x[:, 0] * a.sin()], -1
        ),
    ),
    "sine and cosine swapped": ("sine and cosine in place", lambda x, a: turned(x, a.sin(), a.cos())),
    "degrees": ("in radians", lambda x, a: turned(x, a.deg2rad().cos(), a.deg2rad().sin())),
    "one angle for all": (
        "the angles are not",
        lambda x, a: turned(x, a[0].cos(), a[0].sin()) if len(a) > 1 else turned(x, a.cos(), a.sin()),
    ),
    "unchanged": ("the angles are not", lambda x, a: x),
    "transposed": ("here (1, 2); yours is (2, 1)", lambda x, a: turned(x, a.cos(), a.sin(), dim=0)),
    "joined": ("yours is (2,)", lambda x, a: turned(x, a.cos(), a.sin()).flatten()),
    "two columns": ("torch.stack", lambda x, a: tuple(turned(x, a.cos(), a.sin(), dim=0).expand(2, 5))),
    "first row only": ("here (6, 2); yours is (1, 2)", lambda x, a: turned(x, a.cos(), a.sin())[:1]),
    "columns mixed with angles": ("must keep the length", lambda x, a: x * a.cos()),
    "swapped": ("your code raised", lambda x, a: turned(a, x.cos(), x.sin())),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers(name):
    assert_right(name, RIGHT[name])


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers_hear_what_is_wrong(name):
    assert_wrong(name, WRONG[name])
