"""A pointer: a decoder that writes a word of its vocabulary, or copies one of the source.

A softmax over a vocabulary learns each word on its own: a name or number that it never wrote in training
it will hardly ever write. Copying is attention whose values are the tokens of the source themselves, and
what it learns is where to look; so it serves words that it has never seen.

Dimensions: B sources, N targets of each, T target, S source, C width (d_model), V vocabulary.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmcourse.cross_attention import Source
from llmcourse.encoder_decoder import EncoderDecoder, EncoderDecoderConfig, Memory
from llmcourse.runtime import evaluating
from llmcourse.support.outputs import wide


@dataclass(frozen=True)
class PointerConfig(EncoderDecoderConfig):
    """Shape and parts of a `PointerGenerator`. Raises ValueError on a bad value.

    >>> PointerConfig(vocab_size=10, copy=False).copy
    False
    """

    copy: bool = True  # False: no pointer, an EncoderDecoder with the same weights

    def __post_init__(self):
        super().__post_init__()
        if self.copy and self.source_vocab_size is not None:
            raise ValueError(
                f"source_vocab_size={self.source_vocab_size}: a token can be copied only where source and "
                "target have one vocabulary: leave it out, or set copy=False"
            )


class Copying(NamedTuple):
    """What a pointer does at each position of the target."""

    weights: Tensor  # (B, T, S), how much of each position of the source is copied, if it copies
    p_gen: Tensor  # (B, T), the probability that it writes a word of the vocabulary and does not copy


class Pointer(nn.Module):
    """Attention of one head that says where to copy from, and a gate that says whether to."""

    def __init__(self, d_model: int):
        super().__init__()
        self.query = nn.Linear(d_model, d_model, bias=False)
        self.key = nn.Linear(d_model, d_model, bias=False)
        self.gate = nn.Linear(d_model, 1)
        for layer in (self.query, self.key, self.gate):
            nn.init.normal_(layer.weight, std=0.02)
        nn.init.zeros_(self.gate.bias)

    def forward(self, states: Tensor, source: Source) -> tuple[Tensor, Tensor]:
        """Return weights (B, T, S) and the logit of p_gen (B, T, 1) of the decoder's states (B, T, C)."""
        scores = self.query(states) @ source.k.transpose(1, 2) / math.sqrt(states.shape[-1])  # (B, T, S)
        if source.mask is not None:
            scores = scores.masked_fill(~source.mask[:, 0], float("-inf"))
        return wide(scores).softmax(dim=-1), wide(self.gate(states))


def mix(logits: Tensor, gate: Tensor, weights: Tensor, source_ids: Tensor) -> Tensor:
    """Return log-probabilities (B, T, V) of writing each token, from the vocabulary or from the source:

        log(p_gen · softmax(logits) + (1 - p_gen) · Σ weights over the positions with that token)

    with logits (B, T, V), `gate` (B, T, 1), the logit of p_gen, weights (B, T, S) that sum to 1, and source
    ids (B, S). The sum is taken in logarithms, so that neither it nor its gradient overflows.

    >>> even, sure = torch.zeros(1, 1, 4), torch.tensor([[[0.0, 1.0]]])
    >>> mix(even, torch.zeros(1, 1, 1), sure, torch.tensor([[3, 1]])).exp().tolist()
    [[[0.125, 0.625, 0.125, 0.125]]]

    Source: See, Liu and Manning 2017, arXiv:1704.04368, eq. 9.
    """
    ids = source_ids[:, None].expand_as(weights)  # (B, T, S)
    copied = torch.zeros_like(logits).scatter_add(-1, ids, weights)  # (B, T, V)
    copied = copied.clamp(min=torch.finfo(copied.dtype).tiny).log()  # log 0 would have no gradient
    return torch.logaddexp(F.logsigmoid(gate) + logits.log_softmax(dim=-1), F.logsigmoid(-gate) + copied)


class PointerGenerator(EncoderDecoder):
    """An EncoderDecoder that can copy: source and target ids in, log-probabilities of the next target out.

    Log-probabilities are logits whose exponentials sum to 1, so whatever takes logits takes them: losses,
    sampling, beam search, constraints. With `copy=False` it is an EncoderDecoder, and puts out its logits.

    >>> model = PointerGenerator(PointerConfig(vocab_size=10, d_model=16, n_layers=1))
    >>> source, target = torch.tensor([[1, 2, 3]]), torch.tensor([[0, 4]])
    >>> [round(p, 4) for p in model(source, target).exp().sum(-1)[0].tolist()]
    [1.0, 1.0]
    >>> [part.shape for part in model.copying(source, target)]
    [torch.Size([1, 2, 3]), torch.Size([1, 2])]

    Source: See, Liu and Manning 2017, arXiv:1704.04368, sec. 2.2, with an attention of its own.
    """

    config_type = PointerConfig

    def __init__(self, config: PointerConfig):
        super().__init__(config)
        self.pointer = Pointer(config.d_model) if config.copy else None  # last: a seed draws all else alike

    def encode(self, source: Tensor, source_mask: Tensor | None = None) -> Memory:
        """Return what the decoder reads of source ids (B, S): one layer more, whose values are the ids."""
        memory = super().encode(source, source_mask)
        if self.pointer is None:
            return memory
        known = Source(self.pointer.key(memory.states), source, memory.layers[0].mask)
        return memory._replace(layers=[*memory.layers, known])

    def predict(self, states: Tensor, layers: list[Source]) -> Tensor:
        """Return log-probabilities (B·N, T, V) from the decoder's last states (B·N, T, C)."""
        logits = super().predict(states, layers)
        if self.pointer is None:
            return logits
        shape, known = logits.shape, layers[-1]
        rows = states.reshape(len(known.k), -1, states.shape[-1])  # (B, N·T, C): N targets are more queries
        weights, gate = self.pointer(rows, known)
        return mix(wide(logits).view(len(rows), -1, shape[-1]), gate, weights, known.v).view(shape)

    @torch.no_grad()
    def copying(self, source: Tensor, target_ids: Tensor, source_mask: Tensor | None = None) -> Copying:
        """Return where the model copies from, and p_gen, after each of the target ids (B, T).

        Raises ValueError for a model without a pointer.
        """
        if self.pointer is None:
            raise ValueError(
                "copy=False: this model has no pointer, cross_attention_maps shows where it looks"
            )
        with evaluating(self):
            memory = self.encode(source, source_mask)
            weights, gate = self.pointer(self.decoder_states(target_ids, memory), memory.layers[-1])
        return Copying(weights, gate[..., 0].sigmoid())
