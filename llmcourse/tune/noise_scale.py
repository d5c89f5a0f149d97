"""The gradient noise scale: from which batch size on a larger batch brings little."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from llmcourse.losses import Loss, mean_loss, next_token_loss


@dataclass(frozen=True)
class NoiseScale:
    """Squared length of the true gradient and total variance of one example's gradient, estimated.

    Both are unbiased, so `gradient_square` can come out negative where the gradient is small.
    """

    gradient_square: float
    noise_trace: float

    @property
    def scale(self) -> float:
        """tr(Σ) / |G|²: the batch size at which noise and gradient are equally long.

        Infinity where the estimated gradient is not positive. A ratio is not unbiased: average
        the two numbers over many batches first, then divide.
        """
        return self.noise_trace / self.gradient_square if self.gradient_square > 0 else math.inf


def noise_scale(small_square: float, large_square: float, small: int, large: int) -> NoiseScale:
    """Return the NoiseScale from mean squared lengths of gradients of batches of two sizes.

    A gradient over B examples has the expected square |G|² + tr(Σ)/B: two sizes, two unknowns.
    Raises ValueError unless 1 <= small < large.

    >>> round(noise_scale(small_square=4 + 12 / 2, large_square=4 + 12 / 6, small=2, large=6).scale, 6)
    3.0

    Source: McCandlish et al. 2018, arXiv:1812.06162, eq. 2.9 and app. A.1.
    """
    if not 1 <= small < large:
        raise ValueError(f"small={small} and large={large}: give 1 <= small < large")
    gradient_square = (large * large_square - small * small_square) / (large - small)
    noise_trace = (small_square - large_square) / (1 / small - 1 / large)
    return NoiseScale(gradient_square, noise_trace)


def measure_noise_scale(
    model: nn.Module, batch: Sequence[Tensor], small: int = 8, loss: Loss = next_token_loss
) -> NoiseScale:
    """Return the NoiseScale of `model` on one large batch, cut into parts of `small` examples.

    `batch` is of tensors (B, ...), such as (inputs, targets), with an example in each row; `loss` is
    that of `train`, and counts equally much in each part. The large gradient is the mean of the small
    ones, so one pass gives both. The model's own gradients are left alone. Raises ValueError unless B
    is at least 2 parts, and whole parts.
    """
    n_rows = len(batch[0])
    if n_rows % small or n_rows < 2 * small:
        raise ValueError(
            f"{n_rows} examples are not 2 or more parts of {small}: choose `small` as a divisor, "
            "at most half of the batch"
        )
    parameters = [p for p in model.parameters() if p.requires_grad]
    total, squares, count = 0.0, 0.0, n_rows // small
    for part in zip(*(rows.split(small) for rows in batch), strict=True):
        parts = torch.autograd.grad(mean_loss(model, part, loss), parameters)
        gradient = torch.cat([part.flatten() for part in parts]).cpu().double()
        squares += gradient.square().sum().item() / count
        total = total + gradient / count
    return noise_scale(squares, total.square().sum().item(), small, n_rows)
