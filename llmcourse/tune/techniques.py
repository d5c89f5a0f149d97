"""Techniques that were measured on small models: parts of a GPT that the plain one does not have.

A `TechniqueConfig` names them, a `TechniqueGPT` has them. Each layer, and the model, overrides what
changes, and leaves the rest to the class that it extends.

Dimensions: B batch, T time, S positions before or keys, C width (d_model), D head width, V vocabulary.
"""

from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmcourse.attention import KVCache, MultiHeadAttention
from llmcourse.config import ModelConfig
from llmcourse.model import GPT, Block


@dataclass(frozen=True)
class TechniqueConfig(ModelConfig):
    """A `ModelConfig` with techniques; by default it has none. Raises ValueError on a bad value.

    - `embedding_shift=n`: each position also gets the embeddings, from n tables of their own, of
      the n tokens before it (the window of Bengio et al. 2003, JMLR 3, eq. 3, kept additive).
    - `token_shift`: in each layer, what attention and MLP read is mixed with the position before,
      one learned weight a channel (RWKV, arXiv:2305.13048, sec. 3.1).
    - `value_embeddings`: each layer adds an embedding of the token to its values (value residual,
      arXiv:2410.17897, in the form of Jordan et al.'s modded-nanogpt).
    - `bigram_table`: a learned table of V x V logits, one row for each last token.
    - `logit_cap=c`: logits become c·tanh(logits/c) (Gemma 2, arXiv:2408.00118, sec. 2).
    - `zero_init`: the last matrix of each residual part starts at 0 (Fixup, arXiv:1901.09321).
    - `embedding_std`: the deviation of token embeddings at the start.

    >>> TechniqueConfig.of(ModelConfig(vocab_size=10)).token_shift
    False
    """

    embedding_shift: int = 0
    token_shift: bool = False
    value_embeddings: bool = False
    bigram_table: bool = False
    logit_cap: float | None = None
    zero_init: bool = False
    embedding_std: float = 0.02

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.embedding_shift < self.context_length:
            raise ValueError(
                f"embedding_shift={self.embedding_shift}: must be from 0 to context_length - 1 = "
                f"{self.context_length - 1}"
            )
        if self.logit_cap is not None and not self.logit_cap > 0:
            raise ValueError(f"logit_cap={self.logit_cap}: must be above 0, or None for no cap")

    @classmethod
    def of(cls, config: ModelConfig) -> "TechniqueConfig":
        """Return `config`, a plain one with every technique off."""
        if isinstance(config, cls):
            return config
        return cls(**{field.name: getattr(config, field.name) for field in fields(ModelConfig)})


TECHNIQUES = {field.name for field in fields(TechniqueConfig)} - {field.name for field in fields(ModelConfig)}


def make_config(vocab_size: int, **options) -> ModelConfig:
    """Return a `TechniqueConfig` if the options name a technique, else a plain `ModelConfig`.

    >>> type(make_config(10, n_layers=2)).__name__, type(make_config(10, logit_cap=15.0)).__name__
    ('ModelConfig', 'TechniqueConfig')
    """
    return (TechniqueConfig if TECHNIQUES & options.keys() else ModelConfig)(vocab_size, **options)


def make_model(config: ModelConfig) -> GPT:
    """Return the model of a configuration: a `TechniqueGPT` or a plain `GPT`."""
    return TechniqueGPT(config) if isinstance(config, TechniqueConfig) else GPT(config)


def shift(x: Tensor, n: int, mask: Tensor | None = None, last: int | None = None) -> Tensor:
    """Return x (B, T, C) moved n positions later; before the first position stand zeros.

    Zeros also stand where attention's `mask` hides the position n before, as in another document.
    With `last`, only that many positions come back, the last: x holds those before them too.

    >>> x = torch.tensor([[[1.0], [2.0], [3.0]]])
    >>> shift(x, 1).flatten().tolist()
    [0.0, 1.0, 2.0]
    >>> shift(x, 1, mask=torch.tensor([[1, 0, 0], [0, 1, 0], [0, 1, 1]]).bool()).flatten().tolist()
    [0.0, 0.0, 2.0]
    """
    T, before = last or x.shape[1], x.shape[1] - (last or x.shape[1])
    if n <= before:
        moved = x[:, before - n : before - n + T]  # (B, T, C)
    else:
        cut = min(n, x.shape[1])
        moved = F.pad(x, (0, 0, cut - before, -cut))  # a negative pad cuts off
    return moved if mask is None else moved.masked_fill(~sees_back(mask, n, T)[..., None], 0.0)


def sees_back(mask: Tensor, n: int, T: int) -> Tensor:
    """Return (B, T) or (T,): whether the mask lets each of the last T positions look at the one n before.

    `mask` is one of attention: boolean, or a float that is added to the scores. With one for each
    head, it is enough that one head may look.
    """
    visible = mask if mask.dtype == torch.bool else mask.exp() > 0
    visible = visible.any(dim=-3) if visible.dim() > 2 else visible  # (B, T, S)
    S = max(T, visible.shape[-1])
    visible = visible.expand(*visible.shape[:-2], T, S)
    return F.pad(visible, (n, 0)).diagonal(S - T, -2, -1)  # column s is the position s - n


class TokenShift(nn.Module):
    """x_t + w · x_(t-1): what the position before had, weighted by one number a channel, 0 at first."""

    def __init__(self, d_model: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(d_model))

    def forward(self, x: Tensor, before: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Map (B, T, C) to (B, T, C); `before` (B, 1, C) is the position before, `mask` as in `shift`."""
        longer = x if before is None else torch.cat([before, x], dim=1)
        return torch.addcmul(x, self.weight, shift(longer, 1, mask, last=x.shape[1]))


class TechniqueCache(KVCache):
    """A KVCache that also remembers what the next tokens look back at."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.token_ids: Tensor | None = None  # (B, up to embedding_shift), in the first layer
        self.inputs: list[Tensor | None] = [None, None]  # of attention and of the MLP, (B, 1, C) each


class Context(NamedTuple):
    """What `TechniqueGPT.embed` hands to its blocks, and they to attention, where a GPT has (cos, sin)."""

    rotary: tuple[Tensor, Tensor] | None = None
    token_ids: Tensor | None = None  # (B, T)
    values: Tensor | None = None  # (B, T, n_kv_heads·D)


class TechniqueAttention(MultiHeadAttention):
    """Attention that can add an embedding of the token to its values."""

    def split_heads(self, x: Tensor, context: Context = Context()):  # noqa: B008 - it cannot change
        """Return q, k, v as `MultiHeadAttention` does, with the values of the context added to v."""
        q, k, v = super().split_heads(x, context.rotary)
        if context.values is not None:
            v = v + context.values.unflatten(-1, (self.n_kv_heads, self.d_head)).transpose(1, 2)
        return q, k, v


class TechniqueBlock(Block):
    """A block with shifts before attention and MLP, and embeddings for attention's values."""

    attention_type = TechniqueAttention

    def __init__(self, config: TechniqueConfig):
        super().__init__(config)
        self.shifts = self.value_embedding = None
        if config.token_shift:
            self.shifts = nn.ModuleList(TokenShift(config.d_model) for _ in range(2))
        if config.value_embeddings:
            width = self.attention.n_kv_heads * self.attention.d_head
            self.value_embedding = nn.Embedding(config.vocab_size, width)

    def mixed(self, part: int, h: Tensor, mask=None, cache: TechniqueCache | None = None) -> Tensor:
        """Return what attention (part 0) or the MLP (part 1) reads: h (B, T, C), shifts mixed in."""
        if self.shifts is None:
            return h
        before = None
        if cache is not None:
            before, cache.inputs[part] = cache.inputs[part], h[:, -1:]
        return self.shifts[part](h, before, mask)

    def forward(self, x, mask=None, rotary=None, cache=None):
        """Map (B, T, C) to (B, T, C); `rotary` is the `Context` of these tokens."""
        context = rotary or Context()
        if self.value_embedding is not None:
            context = context._replace(values=self.value_embedding(context.token_ids))
        options = dict(mask=mask, is_causal=mask is None, rotary=context, cache=cache)
        x = self.add(
            lambda h: self.attention(self.mixed(0, h, mask, cache), **options), self.attention_norm, x
        )
        return self.add(lambda h: self.mlp(self.mixed(1, h, mask, cache)), self.mlp_norm, x)

    def attention_weights(self, x, rotary=None, mask=None):
        """Return the weights (B, H, T, T) with which attention mixes, from what comes in, x (B, T, C)."""
        h = self.mixed(0, self.attention_norm(x) if self.pre_norm else x, mask)
        return self.attention.weights(h, mask, mask is None, rotary or Context())


class TechniqueGPT(GPT):
    """A GPT with the techniques of its `TechniqueConfig`; without one, it is the plain GPT.

    >>> model = TechniqueGPT(TechniqueConfig(vocab_size=10, d_model=16, n_layers=1, embedding_shift=3))
    >>> len(model.shifted_embeddings), model(torch.tensor([[1, 2, 3]])).shape
    (3, torch.Size([1, 3, 10]))
    """

    config_type, block_type, cache_type = TechniqueConfig, TechniqueBlock, TechniqueCache

    def make_parts(self, config: TechniqueConfig) -> None:
        """Make the layers, and the bigram table last."""
        super().make_parts(config)
        if config.bigram_table:
            self.bigram_logits = nn.Embedding(config.vocab_size, config.vocab_size)

    def make_positions(self, config: TechniqueConfig) -> None:
        """Make the tables of the tokens before, then those of positions."""
        tables = (nn.Embedding(config.vocab_size, config.d_model) for _ in range(config.embedding_shift))
        self.shifted_embeddings = nn.ModuleList(tables)
        super().make_positions(config)

    @torch.no_grad()
    def initialize(self) -> None:
        """Draw the weights as a GPT does, then widen embeddings and set to 0 what the configuration says."""
        super().initialize()
        for table in (self.token_embedding, *self.shifted_embeddings):
            table.weight.mul_(self.config.embedding_std / 0.02)
        if self.config.zero_init:
            for block in self.blocks:
                nn.init.zeros_(block.attention.out.weight)
                nn.init.zeros_(block.mlp.down.weight)

    def embed(self, token_ids: Tensor, start: int | Tensor = 0, seen: Tensor | None = None, mask=None):
        """Return x (B, T, C), and the `Context` that blocks want in the place of (cos, sin).

        `seen` (B, S + T) are the tokens behind those before them; shifts do not cross what `mask` hides.
        """
        x, seen = self.token_embedding(token_ids), token_ids if seen is None else seen
        for n, table in enumerate(self.shifted_embeddings, start=1):
            x = x + shift(table(seen), n, mask, last=token_ids.shape[1])
        x, rotary = self.add_positions(x, start)
        return x, Context(rotary, token_ids)

    def forward(self, token_ids: Tensor, mask: Tensor | None = None, caches=None, start=None) -> Tensor:
        """Return logits (B, T, V) for token_ids (B, T); `mask`, `caches` and `start` as in a GPT."""
        if start is None:
            start = caches[0].length if caches else 0
        seen = token_ids
        if caches and caches[0].token_ids is not None:
            seen = torch.cat([caches[0].token_ids, token_ids], dim=1)  # (B, S + T)
        x, context = self.embed(token_ids, start, seen, mask)
        for i, block in enumerate(self.blocks):
            x = block(x, mask, context, caches[i] if caches else None)
        if caches:
            caches[0].token_ids = seen[:, max(0, seen.shape[1] - self.config.embedding_shift) :]
        logits = self.unembedding(self.final_norm(x))
        if self.config.bigram_table:
            logits = logits + self.bigram_logits(token_ids)
        if self.config.logit_cap is not None:
            logits = self.config.logit_cap * torch.tanh(logits / self.config.logit_cap)
        return logits
