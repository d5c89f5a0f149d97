"""Positions: without them attention sees a bag of tokens. Three ways to tell it the order.

Dimensions: B batch, T time, C width (d_model), D head width. Learned positions are one `nn.Embedding`
and live in `model.py`.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


def sinusoidal_positions(n_positions: int, d_model: int, base: float = 10000.0) -> Tensor:
    """Return the (T, C) table of sines (even columns) and cosines (odd columns).

    Column pair i turns with wavelength 2π·base^(2i/C), from 2π to base·2π positions.
    Raises ValueError if `d_model` is odd.

    >>> sinusoidal_positions(2, 4)[1].round(decimals=4).tolist()
    [0.8414999842643738, 0.5403000116348267, 0.009999999776482582, 1.0]

    Source: arXiv:1706.03762, sec. 3.5.
    """
    if d_model % 2:
        raise ValueError(f"d_model={d_model} is odd: sines and cosines come in pairs; use an even width")
    position = torch.arange(n_positions, dtype=torch.float64)[:, None]  # (T, 1)
    frequency = base ** (-torch.arange(0, d_model, 2, dtype=torch.float64) / d_model)  # (C/2,)
    angle = position * frequency  # (T, C/2)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2).float()


@dataclass(frozen=True)
class RotaryScaling:
    """How Llama 3 stretches rotary positions from `original_context` to a context `factor` times as long.

    A plane that turns less than `low_freq_factor` times within the original context, and so never
    showed all of its angles in training, turns `factor` times more slowly. One that turns at least
    `high_freq_factor` times keeps its speed: it tells neighbours apart. Between the two the speed
    is mixed. The defaults are those of Llama 3.1; Llama 3.2 has factor 32. Raises ValueError for
    numbers that mean nothing.

    Source: Meta's Llama 3.1 (`apply_scaling` in its model.py), "llama3" in transformers.
    """

    factor: float = 8.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: int = 8192

    def __post_init__(self):
        if not (self.factor >= 1 and self.original_context >= 1):
            raise ValueError(
                f"factor={self.factor}, original_context={self.original_context}: both must be at least 1"
            )
        if not 0 < self.low_freq_factor < self.high_freq_factor:
            raise ValueError(
                f"low_freq_factor={self.low_freq_factor} must be above 0 and below "
                f"high_freq_factor={self.high_freq_factor}"
            )

    def scale(self, frequency: Tensor) -> Tensor:
        """Return the new speed of each plane, in radians for each position, from the old one.

        >>> RotaryScaling(factor=8).scale(torch.tensor([1.0, 1e-4]))  # a fast plane and a slow one
        tensor([1.0000e+00, 1.2500e-05])
        """
        turns = self.original_context * frequency / (2 * math.pi)
        kept = (turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        kept = kept.clamp(0, 1)
        return kept * frequency + (1 - kept) * frequency / self.factor


def rotary_angles(
    n_positions: int,
    d_head: int,
    base: float = 10000.0,
    start: int = 0,
    scaling: RotaryScaling | None = None,
) -> tuple[Tensor, Tensor]:
    """Return (cos, sin), each (T, D/2): the rotation of each position in each plane.

    With `scaling`, slow planes turn more slowly. Raises ValueError if `d_head` is odd.

    >>> cos, sin = rotary_angles(3, 4)
    >>> cos.shape, cos[0].tolist()
    (torch.Size([3, 2]), [1.0, 1.0])

    Source: Su et al. 2021, arXiv:2104.09864, eq. 34.
    """
    if d_head % 2:
        raise ValueError(f"d_head={d_head} is odd: rotary turns pairs; use an even head width")
    position = torch.arange(start, start + n_positions, dtype=torch.float64)[:, None]
    frequency = base ** (-torch.arange(0, d_head, 2, dtype=torch.float64) / d_head)
    frequency = frequency if scaling is None else scaling.scale(frequency)
    angle = position * frequency
    return angle.cos().float(), angle.sin().float()


def apply_rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate x (..., T, D): entry i pairs with entry i + D/2 and turns by its position's angle.

    Dot products of rotated queries and keys then depend on the distance between them only.
    The pairing by halves is Llama's in transformers; pairing neighbours is the same up to a
    fixed reordering of the columns.

    >>> cos, sin = rotary_angles(1, 2)   # position 0 does not turn
    >>> apply_rotary(torch.tensor([[3.0, 4.0]]), cos, sin).tolist()
    [[3.0, 4.0]]

    Source: arXiv:2104.09864, eq. 13.
    """
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)  # as transformers does
    first, second = x.chunk(2, dim=-1)  # (..., T, D/2) each
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
