"""Exercises of chapter 8b: a head without which, an effect, a score of a head, and shares of an output."""

import torch
from torch import Tensor

from llmcourse.teach.examine import examine
from llmcourse.teach.exercises import exercise
from llmcourse.teach.forms import number, tensor


def _project(heads: Tensor, weight: Tensor) -> Tensor:
    return heads.flatten(2) @ weight.T  # (B, T, H, D), (C, H·D) -> (B, T, C)


def _without(heads: Tensor, weight: Tensor, place) -> Tensor:
    """Project the heads' outputs, of which `place` is set to 0 first."""
    heads = heads.clone()
    heads[place] = 0
    return _project(heads, weight)


def _heads_case(seed: int, sizes: tuple[int, int, int, int], head: int) -> tuple:
    B, T, H, D = sizes
    generator = torch.Generator().manual_seed(seed)
    heads = torch.randn(B, T, H, D, generator=generator)
    return heads, torch.randn(H * D, H * D, generator=generator), head


@exercise(
    "08b-ablate",
    "Take one head out",
    minutes=5,
    difficulty=1,
    hints=(
        "Work on a copy, heads.clone(), and set the slice [:, :, h] to 0: B and T stand before it, D behind it.",
        "Put the heads side by side again, flatten(2): (B, T, H, D) becomes (B, T, H·D).",
        "nn.Linear stores its weight as (out, in), so the projection is x @ W.T.",
    ),
    wants="function",
    form=tensor,
)
def check_ablate(answer):
    """The output projection of all heads but one."""
    cases = {
        "for 2 texts of 3 tokens, 2 heads of width 4, and h = 1 your result differs from the right one by up to "
        "{difference}": _heads_case(0, (2, 3, 2, 4), 1),
        "right for the last of 2 heads, but for h = 2 of 4 heads you get something else": _heads_case(
            1, (1, 5, 4, 3), 2
        ),
        "right for 2 and 4 heads, but for h = 0 of 3 heads you get something else": _heads_case(
            2, (3, 4, 3, 2), 0
        ),
    }

    def right(heads, weight, h):
        return _without(heads, weight, (slice(None), slice(None), h))

    def alone(heads, weight, h):
        return _project(heads, weight) - right(heads, weight, h)

    def output_zeroed(heads, weight, h):
        output, D = _project(heads, weight), heads.shape[-1]
        output[..., h * D : (h + 1) * D] = 0
        return output

    def every_column(heads, weight, h):
        x = heads.flatten(2).clone()
        x[..., h :: heads.shape[2]] = 0
        return x @ weight.T

    slips = {
        "that is what head h adds, and it alone: return what all the others add": alone,
        "nothing is taken out: that is the output with all heads": lambda heads, weight, h: _project(
            heads, weight
        ),
        "you took out another head: they are counted from 0": (
            lambda heads, weight, h: right(heads, weight, h - 1),
            lambda heads, weight, h: right(heads, weight, (h + 1) % heads.shape[2]),
        ),
        "you set columns of the RESULT to 0: the projection spreads each head over all of its columns, so the head "
        "must be set to 0 before it": output_zeroed,
        "you set every H-th column to 0: a head has D columns that stand next to each other": every_column,
        "W stands the wrong way round: nn.Linear stores (out, in), so multiply by W.T": (
            lambda heads, weight, h: right(heads, weight.T, h)
        ),
        "the heads that stay are as they were: do not scale them up, as dropout would": (
            lambda heads, weight, h: right(heads, weight, h) * heads.shape[2] / (heads.shape[2] - 1)
        ),
        "you set the first or the h-th number of every head to 0: head h is the slice [:, :, h]": (
            lambda heads, weight, h: _without(heads, weight, (..., h % heads.shape[-1])),
        ),
    }
    examine(answer, right, cases, slips, "(B, T, C)")
    return "and what head h adds is the difference: the heads' contributions are summed."


def _difference(logits: Tensor, right: Tensor, wrong: Tensor) -> Tensor:
    rows = torch.arange(len(logits))
    return logits[rows, right] - logits[rows, wrong]  # (B,)


def _effect_case(seed: int, B: int, V: int) -> tuple:
    generator = torch.Generator().manual_seed(seed)
    clean, corrupted, patched = (2 * torch.randn(B, V, generator=generator) for _ in range(3))
    right = torch.randint(V, (B,), generator=generator)
    wrong = (right + torch.randint(1, V, (B,), generator=generator)) % V
    rows = torch.arange(B)
    clean[rows, right] += 5
    corrupted[rows, wrong] += 4
    patched[rows, right] += 2
    return clean, corrupted, patched, right, wrong


@exercise(
    "08b-effect",
    "How much of the answer came back?",
    minutes=6,
    difficulty=2,
    hints=(
        "The logits of the right tokens are logits[torch.arange(len(logits)), right], one for each row.",
        "Take the mean of right less wrong over the rows, once for each of the three runs.",
        "0 is the corrupted run and 1 the clean one: (patched - corrupted) / (clean - corrupted).",
    ),
    wants="function",
    form=number,
)
def check_effect(answer):
    """The normalized effect of a patch on the mean difference of two logits."""
    cases = {
        "for 3 texts you get {value}; it is {right}": _effect_case(0, 3, 6),
        "right for 3 texts, but for 5 others you get {value}; it is {right}": _effect_case(1, 5, 11),
        "right for several texts, but for a single one you get {value}; it is {right}": _effect_case(2, 1, 8),
    }

    def means(clean, corrupted, patched, right, wrong):
        return [_difference(logits, right, wrong).mean() for logits in (clean, corrupted, patched)]

    def effect(*parts):
        clean, corrupted, patched = means(*parts)
        return ((patched - corrupted) / (clean - corrupted)).item()

    def of_rows(clean, corrupted, patched, right, wrong):
        a, b, c = (_difference(logits, right, wrong) for logits in (clean, corrupted, patched))
        return ((c - b) / (a - b)).mean().item()

    def right_alone(clean, corrupted, patched, right, wrong):
        a, b, c = (logits[torch.arange(len(right)), right].mean() for logits in (clean, corrupted, patched))
        return ((c - b) / (a - b)).item()

    def by_probability(clean, corrupted, patched, right, wrong):
        return effect(clean.softmax(-1), corrupted.softmax(-1), patched.softmax(-1), right, wrong)

    def first_row(*parts):
        return effect(*(part[:1] for part in parts))

    def share_right(clean, corrupted, patched, right, wrong):
        a, b, c = ((logits.argmax(-1) == right).float().mean() for logits in (clean, corrupted, patched))
        return ((c - b) / (a - b)).nan_to_num(0.0, 0.0, 0.0).item()

    slips = {
        "take the means first and divide once: a mean of ratios is ruled by the rows whose clean and corrupted runs "
        "hardly differ": of_rows,
        "your scale runs the other way: 0 is the corrupted run and 1 the clean one": (
            lambda *parts: 1 - effect(*parts)
        ),
        "divide by what there is to win, clean less corrupted": (
            lambda *parts: (means(*parts)[2] - means(*parts)[1]).item()
        ),
        "divide by clean less corrupted, not by clean alone": (
            lambda *parts: ((means(*parts)[2] - means(*parts)[1]) / means(*parts)[0]).item(),
        ),
        "subtract the corrupted run above and below: its difference is what 0 means": (
            lambda *parts: (means(*parts)[2] / means(*parts)[0]).item()
        ),
        "that is the logit of the right token alone: subtract the wrong one's, else a patch that raises both looks "
        "like a success": right_alone,
        "use the logits: probabilities are full at 1, and hide most of an effect": by_probability,
        "that is the first text alone: take the mean over all": first_row,
        "you count right answers: measure the difference of the two logits": share_right,
    }
    examine(answer, effect, cases, slips)
    return "1 brings the whole answer back, 0 nothing; it can also lie outside."


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
