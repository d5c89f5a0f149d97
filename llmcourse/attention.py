"""Attention: each position looks at others and takes a weighted mean of what they offer.

Dimensions: B batch, T queries (time), S keys (source), C width (d_model), H heads, D head width.
"""

import contextlib
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmcourse.positions import apply_rotary

fused_attention = F.scaled_dot_product_attention
with contextlib.suppress(ImportError):  # without fast/ it stays as it is
    from llmcourse.fast.attention import fused_attention  # the same, sooner in bfloat16 on a CPU


def causal_mask(n_queries: int, n_keys: int | None = None, device=None) -> Tensor:
    """Return a boolean (T, S) mask, True where a query may look: at itself and the past.

    With more keys than queries (a cache) the queries are the last ones.

    >>> causal_mask(2, 3).int().tolist()
    [[1, 1, 0], [1, 1, 1]]
    """
    n_keys = n_queries if n_keys is None else n_keys
    ones = torch.ones(n_queries, n_keys, dtype=torch.bool, device=device)
    return ones.tril(diagonal=n_keys - n_queries)


def document_mask(token_ids: Tensor, end_id: int) -> Tensor:
    """Return a boolean (B, 1, T, T) mask: causal, and never across a document's end token.

    `token_ids` is (B, T); the end token belongs to the document that it closes.

    >>> document_mask(torch.tensor([[5, 0, 7]]), end_id=0)[0, 0].int().tolist()
    [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    """
    is_end = (token_ids == end_id).long()
    document = is_end.cumsum(dim=-1) - is_end  # (B, T): how many documents ended before
    same = document[:, :, None] == document[:, None, :]  # (B, T, T)
    return (same & causal_mask(token_ids.shape[-1], device=token_ids.device))[:, None]


def padding_mask(n_padding: Tensor, n_queries: int, n_keys: int) -> Tensor:
    """Return a boolean (B, 1, T, S) mask: causal, and never at the first `n_padding` (B,) keys of a row.

    A query that is itself padding may look nowhere. With more keys than queries the queries are the last.

    >>> padding_mask(torch.tensor([1, 0]), 2, 3)[:, 0].int().tolist()
    [[[0, 1, 0], [0, 1, 1]], [[1, 1, 0], [1, 1, 1]]]
    """
    device = n_padding.device
    real = torch.arange(n_keys, device=device) >= n_padding[:, None]  # (B, S)
    return causal_mask(n_queries, n_keys, device) & real[:, None, None]


def check_mask(mask: Tensor | None, is_causal: bool) -> None:
    """Raise ValueError for two masks, and for one of whole numbers, as tokenizers give: it would be added."""
    if mask is not None and is_causal:
        raise ValueError("give either mask or is_causal=True; combine them as mask & causal_mask(T)")
    if mask is not None and not (mask.dtype == torch.bool or mask.is_floating_point()):
        raise ValueError(f"a mask of {mask.dtype} is neither boolean nor added to scores: give mask.bool()")


def masked_softmax(scores: Tensor) -> Tensor:
    """Return the softmax over the last dimension; a row of nothing but -inf becomes zeros, not 0/0.

    Such a query may look nowhere, as in padding on the left: it gets nothing, and its gradient is 0.

    >>> masked_softmax(torch.tensor([[0.0, 0.0], [0.0, -torch.inf], [-torch.inf, -torch.inf]])).tolist()
    [[0.5, 0.5], [1.0, 0.0], [0.0, 0.0]]
    """
    nowhere = scores.amax(dim=-1, keepdim=True) == float("-inf")
    return torch.where(nowhere, 0.0, scores).softmax(dim=-1) * ~nowhere


def scaled_dot_product_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    is_causal: bool = False,
    return_weights: bool = False,
):
    """Return softmax(q kᵀ / √D) v, shape (..., T, Dv); with `return_weights`, also the weights.

    `q` is (..., T, D), `k` (..., S, D), `v` (..., S, Dv); the weights are (..., T, S). `mask`
    broadcasts to (..., T, S): boolean (True = may look) or a float that is added to the scores. A
    query that may look nowhere gets zeros, as from torch's function.
    Raises ValueError if the head widths differ, if both masks are given, on a mask of whole numbers,
    or on a shape mismatch.

    >>> x = torch.eye(2)
    >>> scaled_dot_product_attention(x, x, x, is_causal=True)[0].tolist()
    [1.0, 0.0]

    Source: Vaswani et al. 2017, arXiv:1706.03762, eq. 1.
    """
    if q.shape[-1] != k.shape[-1]:
        raise ValueError(
            f"queries are {q.shape[-1]} wide and keys {k.shape[-1]}: a dot product needs equal "
            "widths; check the last dimension of q and k"
        )
    if k.shape[-2] != v.shape[-2]:
        raise ValueError(
            f"{k.shape[-2]} keys but {v.shape[-2]} values: each key needs one value; "
            "check the second-to-last dimension of k and v"
        )
    check_mask(mask, is_causal)
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # (..., T, S)
    if is_causal:
        mask = causal_mask(q.shape[-2], k.shape[-2], device=q.device)
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, float("-inf"))
    elif mask is not None:
        scores = scores + mask
    # (..., T, S): each row sums to 1
    weights = scores.softmax(dim=-1) if mask is None else masked_softmax(scores)
    output = weights @ v  # (..., T, Dv)
    return (output, weights) if return_weights else output


class KVCache:
    """Keys and values of the positions seen so far, for one layer; memory is taken once.

    `k` and `v` are (B, n_kv_heads, context_length, D); the first `length` positions are filled.
    """

    def __init__(self, batch_size, n_kv_heads, context_length, d_head, device=None, dtype=None):
        shape = (batch_size, n_kv_heads, context_length, d_head)
        self.k = torch.empty(shape, device=device, dtype=dtype)
        self.v = torch.empty(shape, device=device, dtype=dtype)
        self.length = 0

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store new positions, each (B, n_kv_heads, T, D); return all keys and values so far."""
        end = self.length + k.shape[-2]
        if end > self.k.shape[-2]:
            raise ValueError(
                f"the cache holds {self.k.shape[-2]} positions and {end} were asked for: "
                "make it longer, or drop the oldest positions and fill it again"
            )
        self.k[:, :, self.length : end] = k
        self.v[:, :, self.length : end] = v
        self.length = end
        return self.k[:, :, :end], self.v[:, :, :end]


class MultiHeadAttention(nn.Module):
    """H attentions side by side on slices of the width, then one projection that mixes them.

    With `n_kv_heads < n_heads` several query heads share one key and value head (grouped-query
    attention; 1 is multi-query attention). A head is `d_head` wide, by default d_model / n_heads.
    `qk_norm` divides each query and key by its root-mean-square before the dot product (with
    `norm_eps`; None is torch's own). Attention is computed by torch's fused kernel, equal to
    `scaled_dot_product_attention` above.

    Raises ValueError unless n_kv_heads divides n_heads, and n_heads d_model where no `d_head` is given.

    >>> MultiHeadAttention(d_model=8, n_heads=2)(torch.zeros(1, 5, 8)).shape
    torch.Size([1, 5, 8])

    Source: arXiv:1706.03762, sec. 3.2.2; grouped heads arXiv:2305.13245; QK-norm arXiv:2302.05442.
    """

    def __init__(
        self,
        d_model,
        n_heads,
        n_kv_heads=None,
        bias=False,
        qk_norm=False,
        dropout=0.0,
        d_head=None,
        norm_eps=None,
    ):
        super().__init__()
        n_kv_heads = n_heads if n_kv_heads is None else n_kv_heads
        if n_heads < 1 or (d_head is None and d_model % n_heads):
            raise ValueError(
                f"d_model={d_model} does not split into n_heads={n_heads} equal heads: "
                "choose a number of heads that divides the width, or give d_head"
            )
        if n_kv_heads < 1 or n_heads % n_kv_heads:
            raise ValueError(
                f"n_heads={n_heads} query heads cannot share n_kv_heads={n_kv_heads} key heads "
                "evenly: choose n_kv_heads that divides n_heads"
            )
        self.n_heads, self.n_kv_heads = n_heads, n_kv_heads
        self.d_head = d_model // n_heads if d_head is None else d_head
        self.dropout = dropout
        self.qkv = nn.Linear(d_model, (n_heads + 2 * n_kv_heads) * self.d_head, bias=bias)
        self.out = nn.Linear(n_heads * self.d_head, d_model, bias=bias)
        self.q_norm = nn.RMSNorm(self.d_head, norm_eps) if qk_norm else nn.Identity()
        self.k_norm = nn.RMSNorm(self.d_head, norm_eps) if qk_norm else nn.Identity()

    def split_heads(self, x: Tensor, rotary=None) -> tuple[Tensor, Tensor, Tensor]:
        """Project x (B, T, C) to q (B, H, T, D) and k, v (B, n_kv_heads, T, D); rotate q and k."""
        B, T, _ = x.shape
        sizes = [self.n_heads, self.n_kv_heads, self.n_kv_heads]
        heads = self.qkv(x).view(B, T, -1, self.d_head).transpose(1, 2)  # (B, H + 2 n_kv_heads, T, D)
        q, k, v = heads.split(sizes, dim=1)
        q, k = self.q_norm(q), self.k_norm(k)
        if rotary is not None:
            q, k = apply_rotary(q, *rotary), apply_rotary(k, *rotary)
        return q, k, v

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        is_causal: bool = False,
        rotary: tuple[Tensor, Tensor] | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """Return (B, T, C) from x (B, T, C).

        `rotary` is the pair (cos, sin) for these T positions; `mask` as in the function above.
        """
        check_mask(mask, is_causal)
        q, k, v = self.split_heads(x, rotary)
        if cache is not None:
            k, v = cache.append(k, v)  # (B, n_kv_heads, S, D)
            T, S = q.shape[-2], k.shape[-2]
            if is_causal and 1 < T < S:  # torch's is_causal aligns to the first key
                mask, is_causal = causal_mask(T, S, device=x.device), False
            is_causal = is_causal and T > 1  # one query, the last, may look at everything
        dropout = self.dropout if self.training else 0.0
        shared = self.n_heads > self.n_kv_heads
        y = fused_attention(q, k, v, mask, dropout, is_causal, enable_gqa=shared)  # (B, H, T, D)
        return self.out(y.transpose(1, 2).flatten(2))  # heads side by side again: (B, T, H·D) -> (B, T, C)

    def weights(self, x: Tensor, mask=None, is_causal: bool = False, rotary=None) -> Tensor:
        """Return (B, H, T, T): the weights that `forward` mixes values with, and never holds at once."""
        q, k, v = self.split_heads(x, rotary)
        k, v = (part.repeat_interleave(self.n_heads // self.n_kv_heads, dim=1) for part in (k, v))
        return scaled_dot_product_attention(q, k, v, mask, is_causal, return_weights=True)[1]
