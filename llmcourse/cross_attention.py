"""Cross-attention: a target looks at a source, such as a translation at the sentence that it translates.

Dimensions: B batch, N beams of one source, T target, S source, C width (d_model), H heads, D head width.
"""

from typing import NamedTuple

from torch import Tensor, nn

from llmcourse.attention import MultiHeadAttention, fused_attention, scaled_dot_product_attention


class Source(NamedTuple):
    """What one layer knows of the source: its keys and values, and where there is padding."""

    k: Tensor  # (B, n_kv_heads, S, D)
    v: Tensor  # (B, n_kv_heads, S, D)
    mask: Tensor | None = None  # (B, 1, 1, S), True where there is a token


class CrossAttention(MultiHeadAttention):
    """Attention whose queries come from the target, and whose keys and values come from the source.

    Nothing is hidden but padding, and nothing is rotated: a position of the target and one of the source
    have no distance. So the keys and values of a source are computed once, by `read`, however many
    tokens are written after it. Raises ValueError as MultiHeadAttention does.

    >>> import torch
    >>> layer, source = CrossAttention(d_model=8, n_heads=2), torch.zeros(1, 5, 8)
    >>> layer(torch.zeros(1, 3, 8), layer.read(source)).shape
    torch.Size([1, 3, 8])

    Source: arXiv:1706.03762, sec. 3.2.3; before it Bahdanau et al. 2014, arXiv:1409.0473, sec. 3.1.
    """

    def __init__(self, d_model: int, n_heads: int, n_kv_heads=None, bias: bool = False, **options):
        super().__init__(d_model, n_heads, n_kv_heads, bias, **options)
        del self.qkv  # one matrix for each side in its place
        self.q = nn.Linear(d_model, self.n_heads * self.d_head, bias=bias)
        self.kv = nn.Linear(d_model, 2 * self.n_kv_heads * self.d_head, bias=bias)

    def read(self, states: Tensor, mask: Tensor | None = None) -> Source:
        """Return keys and values of the source's states (B, S, C), which do not depend on the target."""
        heads = self.kv(states).unflatten(-1, (-1, self.d_head)).transpose(1, 2)  # (B, 2 n_kv_heads, S, D)
        k, v = heads.chunk(2, dim=1)
        return Source(self.k_norm(k), v, mask)

    def queries(self, x: Tensor) -> Tensor:
        """Return (B, H, T, D) from x (B, T, C)."""
        return self.q_norm(self.q(x).unflatten(-1, (-1, self.d_head)).transpose(1, 2))

    def forward(self, x: Tensor, source: Source) -> Tensor:
        """Return (B·N, T, C) from x (B·N, T, C), where N targets in a row look at the same source."""
        rows = x.reshape(len(source.k), -1, x.shape[-1])  # (B, N·T, C): N targets are more queries
        dropout = self.dropout if self.training else 0.0
        shared = self.n_heads > self.n_kv_heads
        y = fused_attention(self.queries(rows), *source, dropout, enable_gqa=shared)  # (B, H, N·T, D)
        return self.out(y.transpose(1, 2).flatten(2)).view_as(x)

    def weights(self, x: Tensor, source: Source) -> Tensor:
        """Return (B, H, T, S): how much of each position of the source each position of x (B, T, C) takes."""
        k, v = (part.repeat_interleave(self.n_heads // self.n_kv_heads, dim=1) for part in source[:2])
        return scaled_dot_product_attention(self.queries(x), k, v, source.mask, return_weights=True)[1]


def sources_of(rows: list[int], per_source: int) -> list[int]:
    """Return the sources of rows, in their order. Raises ValueError unless each has equally many, side by side.

    >>> sources_of([0, 0, 5, 4], per_source=2)
    [0, 2]
    """
    each = [row // per_source for row in rows]
    sources = list(dict.fromkeys(each))
    if each != [source for source in sources for _ in range(len(rows) // len(sources))]:
        raise ValueError(
            f"rows={rows} of {per_source} a source: keep equally many of each source, side by side"
        )
    return sources
