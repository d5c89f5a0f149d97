"""Exercise of chapter 8c: the gradient of DP-SGD, clipped for each example, with noise."""

import torch
from torch import Tensor

from llmcourse.teach.examine import examine
from llmcourse.teach.exercises import exercise
from llmcourse.teach.forms import tensor


def _clip(rows: Tensor, C: float, norm=lambda rows: rows.norm(dim=-1, keepdim=True)) -> Tensor:
    """Return rows with each scaled down to the norm C if it is longer."""
    return rows * (C / norm(rows).clamp_min(1e-12)).clamp(max=1)


@exercise(
    "08c-clip",
    "A gradient that no example dominates",
    minutes=10,
    difficulty=2,
    hints=(
        "gradients.norm(dim=1, keepdim=True) is the length of each row, (B, 1).",
        "A row longer than C is multiplied by C / length, any other by 1: clamp(max=1). Keep a row of zeros from "
        "dividing by 0.",
        "Add up the rows, add sigma * C * noise once, and divide by B.",
    ),
    wants="function",
    form=tensor,
)
def check_clip(answer):
    """Compare with Abadi et al. 2016, algorithm 1, for a given draw of the noise; each slip is another order."""

    def step(clipped=lambda g, C: _clip(g, C).sum(0), size=lambda sigma, C, B: sigma * C, divide=lambda B: B):
        return lambda g, C, sigma, noise: (clipped(g, C) + size(sigma, C, len(g)) * noise) / divide(len(g))

    def of(norm):
        return step(lambda g, C: _clip(g, C, norm).sum(0))

    def example(B, P, seed, size=1.0):
        generator = torch.Generator().manual_seed(seed)
        rows = size * torch.randn(B, P, generator=generator)
        return rows, torch.randn(P, generator=generator)

    plain = torch.tensor([[3.0, -4.0, 0.0], [0.5, 0.0, -1.0], [-1.0, 2.0, 6.0], [0.2, 0.1, 0.3]])
    (five, noise_5), (long, noise_long) = example(5, 7, 1, 0.8), example(6, 4, 2, 9.0)
    (short, noise_short), (one, noise_one) = example(3, 5, 3, 0.1), example(1, 6, 4)
    with_zeros = torch.cat([torch.zeros(2, 4), long[:2]])
    cases = {
        "for 4 examples, C = 2 and sigma = 0.5 you get {value}; it is {right}": (
            plain,
            2.0,
            0.5,
            torch.tensor([1.0, -0.4, 0.7]),
        ),
        "right for 4 examples, but not for 5 with C = 1.5 and sigma = 1.2": (five, 1.5, 1.2, noise_5),
        "right for two batches, but not where each gradient is longer than C = 3": (
            long,
            3.0,
            0.7,
            noise_long,
        ),
        "where no gradient is longer than C, they stay as they are": (short, 4.0, 0.25, noise_short),
        "right for batches, but not for one example": (one, 0.6, 2.0, noise_one),
        "a gradient of zeros must stay zeros: keep its length from dividing": (
            with_zeros,
            5.0,
            1.1,
            noise_long,
        ),
    }
    slips = {
        "you clip the SUM: one example can still turn it as it likes. Clip each row": (
            lambda g, C, sigma, noise: (_clip(g.sum(0), C) + sigma * C * noise) / len(g)
        ),
        "you clip the MEAN: one example can still turn it as it likes. Clip each row": (
            lambda g, C, sigma, noise: _clip(g.mean(0), C) + sigma * C * noise / len(g),
            lambda g, C, sigma, noise: _clip(g.mean(0), C) + sigma * C * noise,
        ),
        "you cut off each number at C: a gradient keeps its direction if the whole row is scaled": (
            step(lambda g, C: g.clamp(-C, C).sum(0))
        ),
        "a row shorter than C stays as it is: yours are all stretched to C": step(
            lambda g, C: (g * C / g.norm(dim=1, keepdim=True).clamp_min(1e-12)).sum(0)
        ),
        "rows that are SHORTER than C change in yours, and long ones stay: clamp(max=1), not min": step(
            lambda g, C: (g * (C / g.norm(dim=1, keepdim=True).clamp_min(1e-12)).clamp(min=1)).sum(0)
        ),
        "the rows are not clipped": step(lambda g, C: g.sum(0)),
        "there is no noise in yours: clipping alone gives no guarantee": step(size=lambda sigma, C, B: 0),
        "noise is measured in units of C: without it, a small C drowns in noise and a large one hides nobody": (
            step(size=lambda sigma, C, B: sigma)
        ),
        "`noise` has the standard deviation 1: multiply it by sigma * C": step(size=lambda sigma, C, B: C),
        "`noise` has the standard deviation 1: yours is added as it is": step(size=lambda sigma, C, B: 1),
        "sigma * C is a standard deviation, not a variance: no square, no root": (
            step(size=lambda sigma, C, B: (sigma * C) ** 2),
            step(size=lambda sigma, C, B: sigma**2 * C),
            step(size=lambda sigma, C, B: (sigma * C) ** 0.5),
        ),
        "noise is added ONCE, to the sum: in each row, or after the mean, it is B times too large": step(
            size=lambda sigma, C, B: B * sigma * C
        ),
        "the noise divided by B and once more by B hides too little: it belongs to the sum": step(
            size=lambda sigma, C, B: sigma * C / B
        ),
        "divide by B: asked is the mean": step(divide=lambda B: 1),
        "the length of a ROW, an example, is over dim 1: you take that of columns": of(
            lambda g: g.norm(dim=0, keepdim=True)
        ),
        "each row has a length of its own: you take that of the whole batch": of(lambda g: g.norm()),
        "the length is the root of the sum of squares, not the sum of magnitudes": of(
            lambda g: g.abs().sum(1, keepdim=True)
        ),
        "the length is the ROOT of the sum of squares": of(lambda g: g.square().sum(1, keepdim=True)),
        "the length is the root of the sum of squares, not the largest entry": of(
            lambda g: g.abs().amax(1, keepdim=True)
        ),
        "clip first, then add the noise: yours is clipped with the noise in it": (
            lambda g, C, sigma, noise: _clip(g + sigma * C * noise, C).mean(0),
            lambda g, C, sigma, noise: _clip(g.sum(0) + sigma * C * noise, C) / len(g),
        ),
        "`noise` may be subtracted as well, but here it is asked to be added": step(
            size=lambda sigma, C, B: -sigma * C
        ),
        "one gradient of the shape (P,) is asked for, not one for each example": (
            lambda g, C, sigma, noise: (_clip(g, C) + sigma * C * noise) / len(g)
        ),
    }
    examine(answer, step(), cases, slips, "(P,)", rtol=1e-4, atol=1e-5)
    return "whoever is in the batch moves the sum by at most C, and the noise is that large."
