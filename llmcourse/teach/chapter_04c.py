"""Exercises of chapter 4c: positions."""

import math

import torch

from llmcourse.positions import rotary_angles, sinusoidal_positions
from llmcourse.teach.checks import tensor
from llmcourse.teach.exercises import exercise, require


def position_table(n_positions, d_model):
    """The (T, C) table: sin(pos / 10000^(2i/C)) in column 2i, the cosine in column 2i + 1."""
    table = torch.zeros(n_positions, d_model)
    for pos in range(n_positions):
        for i in range(d_model // 2):
            angle = pos / 10000 ** (2 * i / d_model)
            table[pos, 2 * i], table[pos, 2 * i + 1] = math.sin(angle), math.cos(angle)
    return table


@exercise(
    "04c-table",
    "Write the table of sines",
    minutes=8,
    difficulty=1,
    hints=(
        "i runs over PAIRS, from 0 to d_model / 2 - 1; the exponent is 2i / d_model.",
        "Column 2i holds the sine, column 2i + 1 the cosine of the same angle.",
        "Two loops are fine: one over positions, one over pairs.",
    ),
    solution=position_table,
)
def check_table(answer):
    """Compare with the package; name the usual slips."""
    table = tensor(answer(10, 8))
    expected = sinusoidal_positions(10, 8)
    sines, cosines = expected[:, 0::2], expected[:, 1::2]
    require(table.shape == (10, 8), f"the table should be (10, 8); yours is {tuple(table.shape)}")
    require(
        torch.isfinite(table).all(),
        "some entries are nan or infinite: a ** 2 * i means (a ** 2) * i, so put the exponent in brackets",
    )
    halves = torch.cat([sines, cosines], dim=-1)
    require(
        not torch.allclose(table, halves, atol=1e-5),
        "you put all sines first and then all cosines; the formula alternates them",
    )
    swapped = table[0, 0::2].allclose(torch.ones(4)) and table[0, 1::2].allclose(torch.zeros(4))
    require(not swapped, "position 0 has sines 0 and cosines 1: are sine and cosine swapped?")
    require(
        not torch.allclose(table[:9], expected[1:], atol=1e-5),
        "your first row is position 1: positions count from 0",
    )
    position, column = torch.arange(10.0)[:, None], torch.arange(0, 8, 2)
    doubled = (position / 10000 ** (2 * column / 8)).sin()
    require(
        not torch.allclose(table[:, 0::2], doubled, atol=1e-5),
        "your columns 0, 2, 4 use the exponent 2 * column / d: i counts pairs, so it is column / d",
    )
    halved = (position / 10000 ** (column / 2 / 8)).sin()
    require(
        not torch.allclose(table[:, 0::2], halved, atol=1e-5),
        "your exponent is i / d_model: it should be 2i / d_model",
    )
    times = (position * 10000 ** (column / 8)).sin()
    require(
        not torch.allclose(table[:, 0::2], times, atol=1e-3),
        "you multiply the position by 10000^(2i/d): divide",
    )
    only_sines = table[:, 0::2].allclose(sines, atol=1e-5) and not table[:, 1::2].allclose(cosines, atol=1e-5)
    require(
        not only_sines,
        "the sines are right, the cosines are not: column 2i + 1 uses the SAME angle as column 2i",
    )
    require(
        torch.allclose(table, expected, atol=1e-5), "some entries differ: check the exponent 2i / d_model"
    )
    return "it is the table of the article, and of Vaswani et al., section 3.5."


@exercise(
    "04c-wavelength",
    "How long is a wave?",
    minutes=4,
    difficulty=2,
    hints=(
        "A sine repeats when its angle has grown by 2π.",
        "In the middle of 512 columns, 2i / d_model is 1/2, and 10000 to the power 1/2 is 100.",
    ),
    solution=round(2 * math.pi * 100, 1),
)
def check_wavelength(answer):
    """2 pi 100."""
    require(abs(answer - 100) > 1, "100 divides the position; a full wave is 2π of that")
    require(abs(answer - 100 * math.pi) > 1, "that is half a wave: the sine is 0 again, but goes down")
    require(abs(answer - 2 * math.pi * 10) > 0.5, "the exponent is 2i / d_model = 1/2, not i / d_model")
    require(
        abs(answer - 2 * math.pi * 10000) > 100,
        "that is about the longest wave, at the last pair, not the middle",
    )
    require(abs(answer - 2 * math.pi) > 0.1, "that is the shortest wave, at the first pair")
    require(abs(answer - 2 * math.pi * 100) < 1, f"{answer} is not 2π times the root of 10000")
    return "waves from 6 to 61,000 positions: a clock with many hands."


def shift_matrix(k, d_model):
    """The (C, C) matrix M with PE(pos + k) = M PE(pos) for every pos: a rotation in each pair."""
    matrix = torch.zeros(d_model, d_model)
    for i in range(d_model // 2):
        angle = k / 10000 ** (2 * i / d_model)
        c, s = math.cos(angle), math.sin(angle)
        matrix[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = torch.tensor([[c, s], [-s, c]])
    return matrix


@exercise(
    "04c-shift",
    "Move by k positions with one matrix",
    minutes=12,
    difficulty=3,
    hints=(
        "sin(a + b) = sin a cos b + cos a sin b, and cos(a + b) = cos a cos b - sin a sin b.",
        "In each pair (sin, cos), that is a 2 x 2 matrix which depends on k only.",
        "With ω the speed of the pair, c = cos(kω) and s = sin(kω), the block is [[c, s], [-s, c]].",
    ),
    solution=shift_matrix,
)
def check_shift(answer):
    """M must shift every position, for several k."""
    table = sinusoidal_positions(60, 16)
    halves = [*range(0, 16, 2), *range(1, 16, 2)]
    for k in (0, 1, 7):
        matrix = tensor(answer(k, 16))
        require(matrix.shape == (16, 16), f"the matrix should be (16, 16); yours is {tuple(matrix.shape)}")
        here, there = table[: 60 - k], table[k:]
        moved = here @ matrix.T
        if k:
            back = torch.allclose(there @ matrix.T, here, atol=1e-3)
            require(not back, f"your matrix moves {k} positions BACK: swap the signs of the two sines")
            split = torch.allclose(here[:, halves] @ matrix.T, there[:, halves], atol=1e-3)
            require(
                not split, "your matrix is for a table of all sines, then all cosines; ours alternates them"
            )
            first = torch.allclose(moved[:, :2], there[:, :2], atol=1e-3)
            later = torch.allclose(moved[:, 2:], there[:, 2:], atol=1e-3)
            require(
                later or not first,
                "the first pair is right, the others are not: each pair has its own frequency",
            )
        require(
            torch.allclose(moved, there, atol=1e-3),
            f"for k = {k}, M PE(pos) is not PE(pos + k); the error is up to {(moved - there).abs().max():.3f}"
            + ("" if k else ". Moving by 0 changes nothing: M must be the identity"),
        )
    return "a shift is the same rotation everywhere: relative position is a linear function."


def rotate(x, angles):
    """Turn each row of x (T, 2) by its angle."""
    c, s = angles.cos(), angles.sin()
    return torch.stack([x[:, 0] * c - x[:, 1] * s, x[:, 1] * c + x[:, 0] * s], dim=-1)


@exercise(
    "04c-rotate",
    "Turn a vector",
    minutes=6,
    difficulty=2,
    hints=(
        "Turning (a, b) by the angle φ gives (a cos φ - b sin φ, b cos φ + a sin φ).",
        "Use the OLD a in the second entry, not the one you have just changed.",
    ),
    solution=rotate,
)
def check_rotate(answer):
    """Length, direction, and equality with the rotation matrix."""
    quarter = tensor(answer(torch.tensor([[1.0, 0.0]]), torch.tensor([math.pi / 2])))
    require(
        quarter.shape == (1, 2), f"the shape should stay (T, 2), here (1, 2); yours is {tuple(quarter.shape)}"
    )
    require(
        not torch.allclose(quarter, torch.tensor([[0.0, -1.0]]), atol=1e-5),
        "you turn clockwise: (1, 0) turned by 90 degrees is (0, 1)",
    )
    x = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    angles = torch.arange(6.0)
    turned = tensor(answer(x.clone(), angles.clone()))
    require(
        turned.shape == (6, 2), f"the shape should stay (T, 2), here (6, 2); yours is {tuple(turned.shape)}"
    )
    require(
        torch.allclose(turned.norm(dim=-1), x.norm(dim=-1), atol=1e-5),
        "turning must keep the length; yours changes it. Do you use the old first entry in both rows?",
    )
    cos, sin = (part[:, 0] for part in rotary_angles(6, 2))
    expected = torch.stack([x[:, 0] * cos - x[:, 1] * sin, x[:, 1] * cos + x[:, 0] * sin], dim=-1)
    require(
        torch.allclose(turned, expected, atol=1e-5),
        "lengths are right, the angles are not: are they in radians, and are sine and cosine in place?",
    )
    return "rotary positions do this to every pair of every query and key."
