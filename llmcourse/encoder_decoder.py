"""The encoder-decoder: a source is read once, in both directions, and a target is written that looks at it.

Dimensions: B batch, N targets of one source, T target, S source, C width (d_model), H heads, V vocabulary.
"""

import math
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from llmcourse.attention import KVCache
from llmcourse.config import ModelConfig
from llmcourse.cross_attention import CrossAttention, Source
from llmcourse.mlp import make_norm
from llmcourse.model import GPT, Block
from llmcourse.runtime import evaluating

SIZES = ("n_encoder_layers", "source_vocab_size", "source_context_length")


@dataclass(frozen=True)
class EncoderDecoderConfig(ModelConfig):
    """Shape and parts of an encoder-decoder: those of its decoder, and what is different in the encoder.

    Both stacks are equally wide and have the same kinds of parts. Positions may be of any kind; rotary
    ones turn queries and keys within the source and within the target, not between the two.
    Raises ValueError on a bad value.

    >>> EncoderDecoderConfig(vocab_size=10, n_layers=2).encoder.n_layers
    2
    """

    n_encoder_layers: int | None = None  # blocks of the encoder; None: n_layers
    source_vocab_size: int | None = None  # tokens of the source; None: those of the target, one embedding
    source_context_length: int | None = None  # S, the longest source; None: context_length
    unembedding_bias: bool = False  # a number added to the logit of each token (Marian)

    def __post_init__(self):
        super().__post_init__()
        for name in SIZES:
            value = getattr(self, name)
            if value is not None and not (value >= 1 and value % 1 == 0):
                raise ValueError(f"{name}={value}: must be at least 1, and a whole number")

    @property
    def encoder(self) -> ModelConfig:
        """The configuration of the encoder, which has no vocabulary of its own."""
        parts = {field.name: getattr(self, field.name) for field in fields(ModelConfig)}
        length = self.source_context_length or self.context_length
        different = dict(vocab_size=1, context_length=length, tied_embeddings=False)
        return ModelConfig(**parts | different | dict(n_layers=self.n_encoder_layers or self.n_layers))

    @classmethod
    def marian(cls, vocab_size: int, **changes) -> "EncoderDecoderConfig":
        """The parts of Marian as OPUS-MT trained it: those of 2017, with SiLU (Junczys-Dowmunt et al. 2018)."""
        parts = dict(mlp="silu", unembedding_bias=True)
        return replace(cls.transformer_2017(vocab_size), **parts | changes)


class Memory(NamedTuple):
    """What the decoder reads of B sources: it is made once, by `EncoderDecoder.encode`."""

    states: Tensor  # (B, S, C)
    layers: list[Source]  # for each block of the decoder, keys, values and mask


class EncoderBlock(Block):
    """A block whose attention looks both ways."""

    causal = False


class Encoder(GPT):
    """A GPT without its two ends, which looks both ways: embeddings (B, S, C) in, states (B, S, C) out."""

    block_type = EncoderBlock

    def make_parts(self, config: ModelConfig) -> None:
        """Make the positions, the blocks and the last norm."""
        super().make_parts(config)
        self.token_embedding, self.unembedding = nn.Identity(), nn.Identity()


class DecoderBlock(Block):
    """A block with three parts: attention to what is written, attention to the source, and the MLP."""

    def __init__(self, config: EncoderDecoderConfig):
        super().__init__(config)
        heads = dict(n_heads=config.n_heads, n_kv_heads=config.n_kv_heads, d_head=config.d_head)
        parts = dict(bias=config.bias, qk_norm=config.qk_norm, norm_eps=config.norm_eps)
        self.cross_attention_norm = make_norm(config)
        self.cross_attention = CrossAttention(config.d_model, **heads, **parts, dropout=config.dropout)

    def look_back(self, x: Tensor, rotary=None, cache: KVCache | None = None) -> Tensor:
        """Return x (B·N, T, C) after attention to what is written."""
        attend = partial(self.attention, is_causal=True, rotary=rotary, cache=cache)
        return self.add(attend, self.attention_norm, x)

    def forward(self, x: Tensor, source: Source, rotary=None, cache: KVCache | None = None) -> Tensor:
        """Map (B·N, T, C) to (B·N, T, C), with a source for every N rows."""
        x = self.look_back(x, rotary, cache)
        x = self.add(partial(self.cross_attention, source=source), self.cross_attention_norm, x)
        return self.add(self.mlp, self.mlp_norm, x)

    def cross_attention_weights(self, x: Tensor, source: Source, rotary=None) -> Tensor:
        """Return (B, H, T, S), the weights with which the source is mixed, from what comes in, x (B, T, C)."""
        x = self.look_back(x, rotary)
        return self.cross_attention.weights(self.cross_attention_norm(x) if self.pre_norm else x, source)


class EncoderDecoder(GPT):
    """A GPT that looks at a source in each block: source and target ids in, logits of the next target out.

    >>> model = EncoderDecoder(EncoderDecoderConfig(vocab_size=10, d_model=16, n_layers=1))
    >>> model(torch.tensor([[1, 2, 3]]), torch.tensor([[0, 4]])).shape
    torch.Size([1, 2, 10])

    Source: Vaswani et al. 2017, arXiv:1706.03762, fig. 1.
    """

    config_type, block_type = EncoderDecoderConfig, DecoderBlock

    def make_parts(self, config: EncoderDecoderConfig) -> None:
        """Make the layers of a GPT, then those that read the source."""
        super().make_parts(config)
        if config.unembedding_bias:
            self.unembedding = nn.Linear(config.d_model, config.vocab_size)
        self.source_embedding = None  # one table for both
        if config.source_vocab_size is not None:
            self.source_embedding = nn.Embedding(config.source_vocab_size, config.d_model)
        self.encoder = Encoder(config.encoder)

    def initialize(self) -> None:
        """Draw the weights as a GPT does, in both stacks."""
        super().initialize()
        self.encoder.initialize()
        for block in self.blocks:
            nn.init.normal_(block.cross_attention.out.weight, std=0.02 / math.sqrt(2 * len(self.blocks)))

    def embed_source(self, source: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return embeddings (B, S, C) of source ids (B, S), without positions, and the mask.

        A model whose source is no row of tokens, such as sound, has another one.
        """
        if source.dim() != 2 or source.is_floating_point() or source.shape[1] == 0:
            raise ValueError(
                f"the source is {tuple(source.shape)} in {source.dtype}: give token ids (B, S), at least one a row"
            )
        return (self.source_embedding or self.token_embedding)(source), mask

    def encode(self, source: Tensor, source_mask: Tensor | None = None) -> Memory:
        """Return what the decoder reads of source ids (B, S).

        `source_mask` (B, S) is True, or 1, where there is a token, and may only be left out without
        padding. Raises ValueError for a source that is longer than the context, and for a mask of another
        shape, of other numbers, or that leaves a row without a token.
        """
        x, mask = self.embed_source(source, source_mask)
        limit = self.encoder.config.context_length
        if x.shape[1] > limit:
            raise ValueError(
                f"a source of {x.shape[1]} positions does not fit into {limit}: cut or split it, or build the "
                "model with a longer source_context_length"
            )
        mask = None if mask is None else check_padding(mask, x.shape[:2])
        states = self.encoder(x, mask)  # (B, S, C)
        return Memory(states, [block.cross_attention.read(states, mask) for block in self.blocks])

    def decode(self, target_ids: Tensor, memory: Memory, caches: list[KVCache] | None = None) -> Tensor:
        """Return logits (B·N, T, V) after target ids (B·N, T): the first N rows belong to the first source.

        With `caches`, from `make_caches(B·N)`, the ids are those behind what the caches hold.
        """
        return self.predict(self.decoder_states(target_ids, memory, caches), memory.layers)

    def decoder_states(self, target_ids: Tensor, memory: Memory, caches=None) -> Tensor:
        """Return the states (B·N, T, C) that `predict` makes logits of; the arguments are those of `decode`."""
        B = len(memory.states)
        if target_ids.dim() != 2 or len(target_ids) % B:
            raise ValueError(
                f"the target is {tuple(target_ids.shape)} for {B} sources: give token ids of two dimensions, "
                "with equally many rows for each source"
            )
        x, rotary = self.embed(target_ids, caches[0].length if caches else 0)  # (B·N, T, C)
        for i, block in enumerate(self.blocks):
            x = block(x, memory.layers[i], rotary, caches[i] if caches else None)
        return self.final_norm(x)

    def predict(self, states: Tensor, layers: list[Source]) -> Tensor:
        """Return logits (B·N, T, V) from the states (B·N, T, C); a model that copies looks at the source too."""
        return self.unembedding(states)

    def forward(self, source: Tensor, target_ids: Tensor, source_mask: Tensor | None = None) -> Tensor:
        """Return logits (B, T, V) after each of the target ids (B, T), from source ids (B, S).

        Each logit depends on the whole source, and on the target up to its position.
        """
        if len(target_ids) != len(source):
            raise ValueError(f"{len(source)} sources but {len(target_ids)} targets: each needs one")
        return self.decode(target_ids, self.encode(source, source_mask))

    @torch.no_grad()
    def attention_maps(self, source: Tensor, target_ids: Tensor, source_mask=None) -> list[Tensor]:
        """Return one (B, H, T, T) for each layer: the weights with which the target looks at itself."""
        weights = lambda block, x, source, rotary: block.attention_weights(x, rotary)  # noqa: E731
        return self._maps(weights, source, target_ids, source_mask)

    @torch.no_grad()
    def cross_attention_maps(self, source: Tensor, target_ids: Tensor, source_mask=None) -> list[Tensor]:
        """Return one (B, H, T, S) for each layer: the weights with which the target looks at the source."""
        return self._maps(DecoderBlock.cross_attention_weights, source, target_ids, source_mask)

    def _maps(self, weights, source: Tensor, target_ids: Tensor, source_mask) -> list[Tensor]:
        maps = []
        with evaluating(self):
            memory = self.encode(source, source_mask)
            x, rotary = self.embed(target_ids)
            for block, known in zip(self.blocks, memory.layers, strict=False):  # a pointer has one more
                maps.append(weights(block, x, known, rotary))
                x = block(x, known, rotary)
        return maps


def check_padding(mask: Tensor, shape: tuple[int, int]) -> Tensor | None:
    """Return a padding mask (B, S) as attention wants it, (B, 1, 1, S) and boolean; None where all are tokens.

    Raises ValueError for another shape, other numbers than 0 and 1, and a row without a token.

    >>> check_padding(torch.tensor([[1, 1], [1, 0]]), (2, 2)).shape
    torch.Size([2, 1, 1, 2])
    """
    if tuple(mask.shape) != tuple(shape):
        raise ValueError(
            f"source_mask is {tuple(mask.shape)} and the source {tuple(shape)}: give one of its shape"
        )
    if mask.is_floating_point() or not ((mask == 0) | (mask == 1)).all():
        raise ValueError(
            f"source_mask in {mask.dtype} says something else than True and False (or 1 and 0): give True where "
            "there is a token, such as source_ids != pad_id"
        )
    mask = mask.bool()
    if not (filled := mask.any(dim=1)).all():
        row = int(filled.long().argmin())
        raise ValueError(
            f"row {row} of the source has no token: leave it out, or give it one, such as the end token"
        )
    return None if mask.all() else mask[:, None, None]
