"""Attention for training in bfloat16 on a CPU, where torch's kernel is slow.

Dimensions: B batch, H heads, T time, D head width.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from llmcourse import fast

MAX_MATERIALIZED_LENGTH = 256  # rows up to here may hold all T x T weights until the backward pass


def fused_attention(q, k, v, mask=None, dropout=0.0, is_causal=False, **options) -> Tensor:
    """Return `F.scaled_dot_product_attention`, and where its kernel is slow, the same without it.

    That is in bfloat16 on a CPU, where there are gradients: short causal rows are computed with the
    whole attention matrix there, and longer ones by the kernel in float32.
    """
    slow = q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.requires_grad
    if not (slow and fast.enabled):
        return F.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal, **options)
    alike = q.shape == k.shape == v.shape and q.dtype == k.dtype == v.dtype
    short = q.shape[-2] <= MAX_MATERIALIZED_LENGTH
    if alike and short and is_causal and mask is None and dropout == 0.0:
        return materialized_attention(q, k, v)
    with torch.autocast("cpu", enabled=False):
        q, k, v = q.float(), k.float(), v.float()
        mask = mask.float() if mask is not None and mask.is_floating_point() else mask
        y = F.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal, **options)
    return y.to(torch.bfloat16)


def materialized_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return causal attention of q, k, v, each (B, H, T, D), by two batched products of matrices.

    >>> q = torch.randn(1, 2, 3, 4)
    >>> expected = F.scaled_dot_product_attention(q, q, q, is_causal=True)
    >>> torch.allclose(materialized_attention(q, q, q), expected, atol=1e-6)
    True
    """
    T, D = q.shape[-2:]
    q, k, v, shape = q.reshape(-1, T, D), k.reshape(-1, T, D), v.reshape(-1, T, D), q.shape  # (B·H, T, D)
    additive_mask = torch.full((T, T), float("-inf"), dtype=q.dtype, device=q.device).triu(1)
    w = torch.baddbmm(additive_mask, q, k.mT, alpha=1 / math.sqrt(D)).softmax(dim=-1)  # (B·H, T, T)
    return torch.bmm(w, v).view(shape)
