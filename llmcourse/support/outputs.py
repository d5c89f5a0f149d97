"""What a model puts out, made fit to choose from."""

import math

import torch
from torch import Tensor


def wide(logits: Tensor) -> Tensor:
    """Return logits in float32 where they are narrower: sums of their probabilities need the digits.

    >>> wide(torch.tensor([2.0]).bfloat16()).dtype, wide(torch.tensor([2.0]).double()).dtype
    (torch.float32, torch.float64)
    """
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def no_nan(outputs: Tensor) -> Tensor:
    """Return what a model puts out. Raises ValueError for NaN: argmax takes it for the largest value.

    >>> no_nan(torch.tensor([0.5, 2.0])).argmax().item()
    1
    """
    if outputs.numel() and math.isnan(outputs.amax().item()):  # the largest of NaN and numbers is NaN
        raise ValueError(
            "the model puts out NaN, so nothing can be chosen: its training diverged, or its input holds NaN; "
            "load a checkpoint from before"
        )
    return outputs
