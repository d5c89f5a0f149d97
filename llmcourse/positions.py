"""Positions: without them attention sees a bag of tokens. Three ways to tell it the order, and a
shift, which hands each position what those before it hold.

Dimensions: B batch, T time, C width (d_model), D head width. Learned positions are one `nn.Embedding`
and live in `model.py`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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


def rotary_angles(
    n_positions: int, d_head: int, base: float = 10000.0, start: int = 0
) -> tuple[Tensor, Tensor]:
    """Return (cos, sin), each (T, D/2): the rotation of each position in each plane.

    Raises ValueError if `d_head` is odd.

    >>> cos, sin = rotary_angles(3, 4)
    >>> cos.shape, cos[0].tolist()
    (torch.Size([3, 2]), [1.0, 1.0])

    Source: Su et al. 2021, arXiv:2104.09864, eq. 34.
    """
    if d_head % 2:
        raise ValueError(f"d_head={d_head} is odd: rotary turns pairs; use an even head width")
    position = torch.arange(start, start + n_positions, dtype=torch.float64)[:, None]
    frequency = base ** (-torch.arange(0, d_head, 2, dtype=torch.float64) / d_head)
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


def shift(x: Tensor, n: int, memory: dict | None = None, name: str = "") -> Tensor:
    """Return x (B, T, C) moved n positions later; before the first position stand zeros.

    `memory` keeps the last n positions under `name`, so that the next call goes on after them.

    >>> shift(torch.tensor([[[1.0], [2.0], [3.0]]]), 1).flatten().tolist()
    [0.0, 1.0, 2.0]
    """
    if memory is None:
        n = min(n, x.shape[1])
        return F.pad(x, (0, 0, n, -n))  # a negative pad cuts off
    before = memory.get(name)
    longer = F.pad(x, (0, 0, n, 0)) if before is None else torch.cat([before, x], dim=1)
    memory[name] = longer[:, -n:]
    return longer[:, : x.shape[1]]


class TokenShift(nn.Module):
    """x_t + w · x_(t-1): what the position before had, weighted by one number a channel, 0 at first."""

    def __init__(self, d_model: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(d_model))

    def forward(self, x: Tensor, memory: dict | None = None, name: str = "") -> Tensor:
        """Map (B, T, C) to (B, T, C); `memory` keeps the last position under `name`."""
        return torch.addcmul(x, self.weight, shift(x, 1, memory, name))
