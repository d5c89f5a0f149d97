"""Exercises of chapter 8b, continued: the score of an induction head, and integrated gradients."""

import torch
from torch import Tensor

from llmcourse.teach.examine import examine
from llmcourse.teach.exercises import exercise
from llmcourse.teach.forms import tensor


def _maps(seed: int, H: int, n: int) -> tuple:
    """Return causal attention maps (H, 2n, 2n), random but for a little more on some diagonals, and n."""
    generator = torch.Generator().manual_seed(seed)
    scores = 1.5 * torch.randn(H, 2 * n, 2 * n, generator=generator)
    hidden = torch.ones(2 * n, 2 * n).triu(1).bool()
    return scores.masked_fill(hidden, float("-inf")).softmax(-1), n


@exercise(
    "08b-induction",
    "Is it an induction head?",
    minutes=7,
    difficulty=2,
    hints=(
        "Query i of the second copy, i >= n, holds the token of place i - n; the token after that stands at i - n + 1.",
        "These places lie on one diagonal: weights.diagonal(1 - n, dim1=-2, dim2=-1).",
        "The first entry of that diagonal belongs to query n - 1, which is still the first copy: leave it out.",
    ),
    wants="function",
    form=tensor,
)
def check_induction(answer):
    """The mean weight of the second copy's queries on the token behind their earlier place."""
    cases = {
        "for 2 heads and a block of 4 tokens you get {value}; it is {right}": _maps(0, 2, 4),
        "right for a block of 4, but for 3 heads and a block of 7 you get {value}; it is {right}": _maps(
            1, 3, 7
        ),
        "right for blocks of 4 and 7, but for one head and a block of 10 you get {value}; it is {right}": _maps(
            2, 1, 10
        ),
    }

    def on(weights, n, offset):
        """Return the weights (H, n) of the second copy's queries at their place + offset."""
        queries = torch.arange(n, 2 * n)
        return weights[:, queries, queries + offset]

    def right(weights, n):
        return on(weights, n, 1 - n).mean(-1)

    def largest(weights, n):
        at = weights[:, n:].argmax(-1)  # (H, n)
        return (at == torch.arange(1, n + 1)).float().mean(-1)

    slips = {
        "you also count query n - 1, the last one of the first copy, which has seen nothing twice: start with query n": (
            lambda weights, n: weights.diagonal(1 - n, dim1=-2, dim2=-1).mean(-1)
        ),
        "that is the weight on the earlier place of the SAME token: an induction head looks at the one behind it, one "
        "place further": (lambda weights, n: on(weights, n, -n).mean(-1)),
        "that is the token BEFORE the earlier place: an induction head looks at the one behind it": (
            lambda weights, n: on(weights, n, -n - 1).mean(-1) if n > 1 else None,
            lambda weights, n: weights[:, range(n + 1, 2 * n), range(n - 1)].mean(-1),
        ),
        "that is the weight on the place just before, whatever stands there: a previous-token head": (
            lambda weights, n: on(weights, n, -1).mean(-1),
            lambda weights, n: weights.diagonal(-1, dim1=-2, dim2=-1).mean(-1),
        ),
        "take the mean over the n queries, not the sum": lambda weights, n: on(weights, n, 1 - n).sum(-1),
        "divide by the n queries of the second copy, not by all 2n": (
            lambda weights, n: on(weights, n, 1 - n).sum(-1) / (2 * n)
        ),
        "rows are queries and columns keys: above the diagonal a causal map holds only zeros": (
            lambda weights, n: weights.diagonal(n - 1, dim1=-2, dim2=-1).mean(-1)
        ),
        "you count queries that look there most: take the mean of the weight itself": largest,
        "that is the largest weight on these places: take their mean": (
            lambda weights, n: on(weights, n, 1 - n).max(-1).values
        ),
        "one number for each head: take the mean over the queries, not over the heads": (
            lambda weights, n: right(weights, n).mean().expand(len(weights))
        ),
    }
    examine(answer, right, cases, slips, "(H,)")
    return "and a head that looks everywhere alike gets about 1 / T."


def _product(z: Tensor) -> Tensor:
    """The gradient of z0² z1 + 3 z2."""
    a, b, c = z.unbind(-1)
    return torch.stack([2 * a * b, a * a, 0 * c + 3], dim=-1)


def _saturated(z: Tensor) -> Tensor:
    """The gradient of tanh(2 z0 + z1)."""
    slope = 1 - torch.tanh(2 * z[..., 0] + z[..., 1]) ** 2
    return torch.stack([2 * slope, slope], dim=-1)


def _powers(z: Tensor) -> Tensor:
    """The gradient of z0⁴ / 4 + z1 z2 z3."""
    a, b, c, d = z.unbind(-1)
    return torch.stack([a**3, c * d, b * d, b * c], dim=-1)


@exercise(
    "08b-integrated",
    "Share an output among its inputs",
    minutes=8,
    difficulty=2,
    hints=(
        "Point k of the path is baseline + a · (x - baseline) with a = (k + 0.5) / n_steps, k = 0 ... n_steps - 1.",
        "Add up gradient(point) over the points and divide by n_steps: the mean gradient on the way.",
        "Multiply by x - baseline, entry by entry.",
    ),
    wants="function",
    form=tensor,
)
def check_integrated(answer):
    """Integrated gradients by the midpoint rule, on functions whose gradient is known."""
    cases = {
        "for f = z0² z1 + 3 z2, x = [2, 1, -1], the baseline 0 and 4 steps you get {value}; it is {right}": (
            _product,
            torch.tensor([2.0, 1.0, -1.0]),
            torch.zeros(3),
            4,
        ),
        "right for a baseline of 0, but for f = tanh(2 z0 + z1), x = [3, -1], the baseline [0.5, 0.25] and 3 steps you "
        "get {value}; it is {right}": (
            _saturated,
            torch.tensor([3.0, -1.0]),
            torch.tensor([0.5, 0.25]),
            3,
        ),
        "right so far, but for f = z0⁴ / 4 + z1 z2 z3 and one step you get {value}; it is {right}": (
            _powers,
            torch.tensor([1.5, 2.0, -0.5, 1.0]),
            torch.tensor([0.5, -1.0, 0.25, 2.0]),
            1,
        ),
    }

    def along(shares):
        """Return integrated gradients with the mean over the shares of the way that `shares(n)` gives."""

        def function(gradient, x, baseline, n_steps):
            a = shares(n_steps)
            return gradient(baseline + a[:, None] * (x - baseline)).mean(0) * (x - baseline)

        return function

    def midpoints(n):
        return (torch.arange(n) + 0.5) / n

    right = along(midpoints)

    def trapezoid(gradient, x, baseline, n_steps):
        g = gradient(baseline + torch.linspace(0, 1, n_steps + 1)[:, None] * (x - baseline))
        return ((g[1:] + g[:-1]) / 2).mean(0) * (x - baseline)

    def unscaled(gradient, x, baseline, n_steps):
        return gradient(baseline + midpoints(n_steps)[:, None] * (x - baseline)).mean(0)

    slips = {
        "multiply the mean gradient by x - baseline, entry by entry": unscaled,
        "multiply by x - baseline, not by x: an input that stays at its baseline gets nothing": (
            lambda g, x, b, n: unscaled(g, x, b, n) * x
        ),
        "that is the gradient at x alone, times x - baseline: follow the way from the baseline, where the function "
        "may be less flat": (lambda g, x, b, n: g(x) * (x - b)),
        "that is gradient times input: use the mean gradient on the way, and x - baseline": (
            lambda g, x, b, n: g(x) * x
        ),
        "your points are the ends of the steps: take their middles, (k + 0.5) / n_steps": (
            along(lambda n: torch.arange(n) / n),
            along(lambda n: (torch.arange(n) + 1) / n),
        ),
        "that is the trapezoidal rule, as good as any: here take the middles of the steps, (k + 0.5) / n_steps": (
            trapezoid
        ),
        "your points are spread from one end to the other: take the middles of n_steps equal steps": (
            along(lambda n: torch.linspace(0, 1, n)),
            along(lambda n: torch.linspace(0, 1, n + 1)),
        ),
        "take the mean over the points, not the sum: divide by n_steps": (
            lambda g, x, b, n: right(g, x, b, n) * n
        ),
        "your way starts at 0: start at the baseline": (
            lambda g, x, b, n: g(midpoints(n)[:, None] * x).mean(0) * (x - b)
        ),
        "the sign of x - baseline is the other way round": (lambda g, x, b, n: -right(g, x, b, n)),
    }
    examine(answer, right, cases, slips, "(N,)")
    return "the shares sum to f(x) - f(baseline), the better the more steps there are."
