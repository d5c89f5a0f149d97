"""Exercises of chapter 4c: positions."""

import math

import torch

from llmcourse.positions import sinusoidal_positions
from llmcourse.teach.examine import close, compare, examine
from llmcourse.teach.exercises import exercise, require
from llmcourse.teach.forms import number, tensor


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
    wants="function",
    form=tensor,
)
def check_table(answer):
    """Compare with the package; name the usual slips."""

    def table(exponent=lambda i: 2 * i, pos=0, even=torch.sin, odd=torch.cos, own=False, divide=True):
        """The table with one slip; `own` gives column 2i + 1 an angle of its own."""

        def function(n, d):
            column = torch.arange(d)
            power = 10000.0 ** (exponent(column if own else column // 2) / d)
            place = torch.arange(n)[:, None] + pos
            angles = place / power if divide else place * power
            return torch.where(column % 2 == 0, even(angles), odd(angles))

        return function

    def halves(n, d):
        return torch.cat([sinusoidal_positions(n, d)[:, 0::2], sinusoidal_positions(n, d)[:, 1::2]], dim=-1)

    slips = {
        "you put all sines first and then all cosines; the formula alternates them": halves,
        "position 0 has sines 0 and cosines 1: are sine and cosine swapped?": table(
            even=torch.cos, odd=torch.sin
        ),
        "your first row is position 1: positions count from 0": table(pos=1),
        "your columns 0, 2, 4 use the exponent 2 * column / d: i counts pairs, so it is column / d": (
            table(lambda i: 4 * i),
            table(lambda i: 2 * i, own=True),
        ),
        "your exponent is i / d_model: it should be 2i / d_model": table(lambda i: i),
        "the exponent is 2i / d_model: yours divides by d_model / 2 - 1, or by another number of pairs": (
            lambda n, d: table(lambda i: 2 * i * d / (d - 2))(n, d)
        ),
        "you multiply the position by 10000^(2i/d): divide": (table(divide=False), table(lambda i: -2 * i)),
        "the sines are right, the cosines are not: column 2i + 1 uses the SAME angle as column 2i": (
            table(lambda i: i, own=True),
            table(odd=torch.zeros_like),
            table(odd=torch.sin),
        ),
        "the cosines are right, the sines are not: column 2i holds the sine": (
            table(even=torch.zeros_like),
            table(even=torch.cos),
        ),
        "some entries differ, since these are the angles: take their sines and cosines": table(
            even=torch.clone, odd=torch.clone
        ),
        "rows are positions and columns are dimensions: yours is transposed": lambda n, d: (
            sinusoidal_positions(n, d).T
        ),
        "you have exchanged the two sizes: n_positions comes first": lambda n, d: sinusoidal_positions(d, n),
        "the cosines are missing: yours holds the sines alone": lambda n, d: sinusoidal_positions(n, d)[
            :, 0::2
        ],
        "the sine takes radians: do not convert to degrees": (
            table(even=lambda a: a.deg2rad().sin(), odd=lambda a: a.deg2rad().cos()),
            table(even=lambda a: a.rad2deg().sin(), odd=lambda a: a.rad2deg().cos()),
        ),
    }

    def look(values, n, d):
        if not values.isfinite().all():
            return "some entries are nan or infinite: a ** 2 * i means (a ** 2) * i, so put the exponent in brackets"
        return None

    cases = {
        "some entries differ: check the exponent 2i / d_model": (10, 8),
        "right for 10 positions and 8 columns, but not for 6 and 12": (6, 12),
    }
    told = "(n_positions, d_model)"
    examine(answer, sinusoidal_positions, cases, slips, told, look, rtol=1e-4, atol=1e-5)
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
    wants="value",
    form=number,
)
def check_wavelength(answer):
    """2 pi 100."""
    slips = {
        "100 divides the position; a full wave is 2π of that": 100,
        "that is half a wave: the sine is 0 again, but goes down": 100 * math.pi,
        "that is a quarter of a wave: the sine is at its top": 50 * math.pi,
        "the exponent is 2i / d_model = 1/2, not i / d_model": 20 * math.pi,
        "that is about the longest wave, at the last pair, not the middle": (
            20000 * math.pi,
            62832,
            2 * math.pi * 10000 ** (510 / 512),
        ),
        "that is the shortest wave, at the first pair": (2 * math.pi, 6.28, 6.3, 6),
        "that is how often it repeats in one position, and is not 2π times the root of 10000: turn it over": (
            1 / (200 * math.pi),
            1 / 100,
        ),
        "the sine takes radians: a full circle is 2π, not 360": 36000,
    }
    otherwise = "{value} is not 2π times the root of 10000"
    compare(answer, 200 * math.pi, slips, otherwise, rtol=1e-4, atol=0.5 if answer > 1 else 1e-3)
    return "waves from 6 to 61,000 positions: a clock with many hands."


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
    wants="function",
    form=tensor,
)
def check_shift(answer):
    """M must shift every position, for several k and widths."""
    for k, d in ((0, 16), (1, 16), (7, 16), (3, 6)):
        table = sinusoidal_positions(60, d)
        halves = [*range(0, d, 2), *range(1, d, 2)]
        matrix = answer(k, d)
        require(matrix.shape == (d, d), f"the matrix should be ({d}, {d}); yours is {tuple(matrix.shape)}")
        here, there = table[: 60 - k], table[k:]
        moved = here @ matrix.T
        if close(moved, there, atol=1e-4 + 4 * getattr(matrix, "precision", 0.0)):
            continue
        require(k, "Moving by 0 changes nothing: M must be the identity for k = 0")
        back = close(there @ matrix.T, here, atol=1e-4)
        require(not back, f"your matrix moves BACK, by {k}: swap the signs of the two sines")
        split = close(here[:, halves] @ matrix.T, there[:, halves], atol=1e-4)
        require(not split, "your matrix is for a table of all sines, then all cosines; ours alternates them")
        first = close(moved[:, :2], there[:, :2], atol=1e-4)
        require(not first, "the first pair is right, the others are not: each pair has its own frequency")
        off = (
            f"for k = {k}, M PE(pos) is not PE(pos + k); the error is up to {(moved - there).abs().max():.3f}"
        )
        require(False, off)
    return "a shift is the same rotation everywhere: relative position is a linear function."


@exercise(
    "04c-rotate",
    "Turn a vector",
    minutes=6,
    difficulty=2,
    hints=(
        "Turning (a, b) by the angle φ gives (a cos φ - b sin φ, b cos φ + a sin φ).",
        "Use the OLD a in the second entry, not the one you have just changed.",
    ),
    wants="function",
    form=tensor,
)
def check_rotate(answer):
    """Length, direction, and equality with the product of complex numbers."""
    generator = torch.Generator().manual_seed(0)
    cases = {
        "(1, 0) turned by 90 degrees is (0, 1), and yours is {value}": (
            torch.tensor([[1.0, 0.0]]),
            torch.tensor([math.pi / 2]),
        ),
        "the rows are not turned by their angles: are these in radians, and are sine and cosine in place?": (
            torch.randn(6, 2, generator=generator),
            torch.arange(6.0) + 0.3,
        ),
    }

    def turned(c=torch.cos, s=torch.sin, signs=(-1, 1), angle=lambda a: a):
        def function(x, angles):
            cos, sin = c(angle(angles)), s(angle(angles))
            first = x[:, 0] * cos + signs[0] * x[:, 1] * sin
            return torch.stack([first, x[:, 1] * cos + signs[1] * x[:, 0] * sin], dim=-1)

        return function

    def changed_first(x, angles):
        first = x[:, 0] * angles.cos() - x[:, 1] * angles.sin()
        return torch.stack([first, x[:, 1] * angles.cos() + first * angles.sin()], dim=-1)

    def first_last(x, angles):
        second = x[:, 1] * angles.cos() + x[:, 0] * angles.sin()
        return torch.stack([x[:, 0] * angles.cos() - second * angles.sin(), second], dim=-1)

    slips = {
        "you turn clockwise: (1, 0) turned by 90 degrees is (0, 1)": turned(signs=(1, -1)),
        "turning must keep the length; yours uses the changed first entry in the second row: keep the old first entry": (
            changed_first
        ),
        "turning must keep the length; yours uses the changed second entry in the first: keep the old one": first_last,
        "turning must keep the length: one of the two sines has a minus": (
            turned(signs=(1, 1)),
            turned(signs=(-1, -1)),
        ),
        "are sine and cosine in place? Yours are exchanged": turned(torch.sin, torch.cos),
        "the angles are in radians already: do not convert them": (
            turned(angle=torch.deg2rad),
            turned(angle=torch.rad2deg),
        ),
        "all rows turn by one angle in yours, and the angles are not all the same": (
            turned(angle=lambda a: a[:1]),
            turned(angle=lambda a: a.sum()),
            turned(angle=lambda a: a.mean()),
        ),
        "nothing is turned: the angles are not used": lambda x, a: x,
        "the two entries are rows in yours: stack them along the last dimension": lambda x, a: (
            turned()(x, a).T
        ),
    }

    def look(value, x, angles):
        if not close(value.norm(dim=-1), x.norm(dim=-1), 1e-3):
            return "turning must keep the length; yours changes it"
        return None

    def right(x, angles):
        return torch.view_as_real(torch.view_as_complex(x) * torch.polar(torch.ones_like(angles), angles))

    examine(answer, right, cases, slips, "(T, 2)", look, rtol=1e-4, atol=1e-5)
    return "rotary positions do this to every pair of every query and key."
