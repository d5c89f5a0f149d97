"""Decoding with the machine code of `fast/kernels.py`: where the numbers of a model lie, and what it holds of texts.

It serves float32 and float64 models on a CPU that are small enough for one thread (`LARGEST`), and whose
parts `fast/decoding.py` or `fast/cross_decoding.py` knows; of float32 models also those that are packed as
int8. No weight is copied.

Dimensions: B texts or sources, T tokens of each, N rows, R targets, L layers, G heads of keys and values,
D head width, S positions, V vocabulary.
"""

import math

import numpy as np
import torch
from torch import Tensor, nn

from llmcourse.attention import KVCache
from llmcourse.cross_attention import sources_of
from llmcourse.encoder_decoder import EncoderDecoder, Memory
from llmcourse.fast import kernels
from llmcourse.fast.products import WIDE, plain_weight
from llmcourse.model import GPT
from llmcourse.packed import Packed, PackedLinear

LARGEST = 30_000_000  # parameters; beyond, torch's threads read the weights faster than one
MOST_ROWS = 32  # at once; with more, torch's products are faster


def packed_parts(model: GPT) -> list[Tensor]:
    """Return the codes and scales of all packed layers."""
    layers = [module for module in model.modules() if isinstance(module, Packed)]
    return [part for layer in layers for part in (layer.codes, layer.scales)]


def float_parts(model: GPT) -> list[Tensor]:
    """Return all other weights: parameters, and the biases of packed layers."""
    layers = [module for module in model.modules() if isinstance(module, PackedLinear)]
    return [*model.parameters(), *(layer.bias for layer in layers if layer.bias is not None)]


def serves(model: GPT, n_rows: int) -> bool:
    """Return whether this module should read `n_rows` tokens of the model at once."""
    packed, floats, dtype = packed_parts(model), float_parts(model), plain_weight(model).dtype
    fits = dtype == torch.float32 if packed else dtype in WIDE
    fits &= all(part.dtype == dtype for part in floats)
    fits &= all(part.device.type == "cpu" and part.is_contiguous() for part in packed + floats)
    return fits and n_rows <= MOST_ROWS and sum(part.numel() for part in packed + floats) <= LARGEST


def address(tensor: Tensor | None) -> int:
    """Return where the numbers of a tensor lie; 0 for None."""
    return 0 if tensor is None else tensor.data_ptr()


def of(*layers: nn.Module) -> list[int]:
    """Return the addresses of weight and bias of each norm, 0 for what it has not."""
    return [address(layer._parameters.get(name)) for layer in layers for name in ("weight", "bias")]


def linear(layer: nn.Module) -> list[int]:
    """Return the addresses of weight, scales and bias of a layer; packed weights alone have scales."""
    if isinstance(layer, Packed):
        return [address(part) for part in (layer.codes, layer.scales, getattr(layer, "bias", None))]
    weight, bias = of(layer)
    return [weight, 0, bias]


def addresses(block: nn.Module) -> list[int]:
    """Return the 27 addresses of a block: 10 of attention, 9 of attention to a source, 8 of the MLP; norms first."""
    layer, cross, mlp = block.attention, getattr(block, "cross_attention", None), block.mlp
    gains = of(layer.q_norm)[:1] + of(layer.k_norm)[:1]
    found = of(block.attention_norm) + linear(layer.qkv) + gains + linear(layer.out)
    if cross is None:
        found += [0] * 9
    else:
        found += of(block.cross_attention_norm) + linear(cross.q) + of(cross.q_norm)[:1] + linear(cross.out)
    return found + of(block.mlp_norm) + linear(mlp.up) + linear(mlp.down)


class Code:
    """The forward pass of a model for a few tokens, as a function of what it holds of the texts."""

    def __init__(self, model: GPT):
        config, block, embedding = model.config, model.blocks[0], model.token_embedding
        self.model, self.dtype = model, plain_weight(model).dtype
        self.n_outputs, least = model.unembedding.out_features, torch.finfo(self.dtype).eps
        self.held = [
            part.detach() for part in packed_parts(model) + float_parts(model)
        ]  # while their addresses are used
        epsilons = (getattr(norm, "eps", None) for norm in (block.mlp_norm, block.attention.q_norm))
        epsilons = [least if eps is None else eps for eps in epsilons]  # as torch does
        kind, C = kernels.KINDS.index(block.mlp.kind), config.d_model
        sizes = [config.n_heads, block.mlp.down.in_features, kind, block.pre_norm, config.norm == "layer"]
        sizes.append(config.vocab_size)
        table, angles = torch.empty(0, C), [torch.empty(config.context_length, 0)] * 2
        if config.positions == "learned":
            table = model.position_embedding.weight
        elif config.positions == "sinusoidal":
            table = model.position_table
        elif config.positions == "rotary":
            angles = model.rotary_cos, model.rotary_sin
        self.fixed = (
            np.array([addresses(block) for block in model.blocks]),
            np.array(of(model.final_norm) + linear(model.unembedding) + linear(embedding)[:2]),
            np.array(sizes, dtype=np.int64),
            np.array([*epsilons, math.sqrt(C) if config.scaled_embeddings else 1.0]),
            *arrays(*(part.to(self.dtype) for part in (table, *angles))),
        )

    def empty(self, *shape: int) -> Tensor:
        """Return a tensor for keys and values, in the model's dtype."""
        return torch.empty(shape, dtype=self.dtype)

    def __call__(self, ids: Tensor, where: np.ndarray, memory: tuple, wanted: int = 1) -> Tensor:
        """Return the logits (N, V) after ids (N,), or after every `wanted`-th of them.

        Each has in `where` (4, N) its text, slot in the memory of the text, place, which positions see, and source.
        `memory` are keys and values, (L, B, 2 G, D, S), and what is added to scores, (B, S): of texts, then of sources.
        """
        if where[1, -1] >= (limit := self.model.config.context_length):
            raise ValueError(f"the context of {limit} tokens is full: start again with fewer")
        N = len(where[0]) // wanted
        out = torch.zeros(N if N == 1 else -(-N // 4) * 4, self.n_outputs, dtype=self.dtype)
        kernels.read(np.ascontiguousarray(ids.numpy()), where, wanted, *self.fixed, *memory, out.numpy())
        return out[:N]


def arrays(*tensors: Tensor) -> tuple[np.ndarray, ...]:
    """Return each tensor as an array in the same memory."""
    return tuple(tensor.detach().numpy() for tensor in tensors)


class CompiledDecoder:
    """Reads tokens after those in `caches`, as `fast.decoding.Decoder` does, with the same methods.

    >>> from llmcourse.model import ModelConfig
    >>> model = GPT(ModelConfig(vocab_size=10, d_model=16, n_layers=1))
    >>> decode, ids = CompiledDecoder(model, model.make_caches(1)), torch.tensor([3, 1, 4])
    >>> torch.allclose(decode.read(ids, start=0), model(ids[None])[0], atol=1e-6)
    True
    """

    def __init__(self, model: GPT, caches: list[KVCache], padding: Tensor | None = None):
        self.code, self.position = Code(model), caches[0].length
        B, G, S, D = caches[0].k.shape
        known, hidden = self.code.empty(len(caches), B, 2 * G, D, S), self.code.empty(B, S).zero_()
        for each, cache in zip(known, caches if self.position else (), strict=False):
            each[..., : self.position] = torch.cat([cache.k, cache.v], dim=1)[:, :, : self.position].mT
        self.where, self.padding = np.tile(np.arange(B), (4, 1)), np.zeros(B, dtype=np.int64)
        if padding is not None:
            self.padding = padding.numpy()
            hidden[torch.arange(S) < padding[:, None]] = float("-inf")
        nothing = self.code.empty(0, 0, 0, 0, 0), self.code.empty(0, 0)
        self.memory = arrays(known, hidden, *nothing)

    def __call__(self, new: Tensor) -> Tensor:
        """Return the logits (B, V) after one more token of each text, (B,)."""
        self.where[1], self.where[2] = self.position, self.position - self.padding
        logits = self.code(new, self.where, self.memory)
        self.position += 1
        return logits

    def read(self, ids: Tensor, start: int) -> Tensor:
        """Return the logits (T, V) after each of the ids (T,) of one text, at positions from `start` on.

        What was read at and after `start` before is forgotten.
        """
        where = np.zeros((4, len(ids)), dtype=np.int64)
        where[1:3] = np.arange(start, start + len(ids))
        logits = self.code(ids, where, self.memory)
        self.position = start + len(ids)
        return logits

    def prefill(self, token_ids: Tensor) -> Tensor:
        """Read prompts (B, T), the first tokens of all; return the logits (B, V) after them."""
        B, T = token_ids.shape
        where = np.repeat(self.where, T, axis=1)
        where[1] = np.tile(np.arange(T), B)
        where[2] = np.maximum(where[1] - self.padding[where[0]], 0)  # padding stands nowhere
        logits = self.code(token_ids.flatten(), where, self.memory, wanted=T)
        self.position = T
        return logits


class CompiledTargetDecoder:
    """Writes N targets after each of B sources, as `fast.cross_decoding.TargetDecoder` does, with the same methods.

    >>> from llmcourse.encoder_decoder import EncoderDecoderConfig
    >>> model = EncoderDecoder(EncoderDecoderConfig(vocab_size=10, d_model=16, n_layers=1)).eval()
    >>> source = torch.tensor([[5, 6, 7]])
    >>> decode = CompiledTargetDecoder(model, model.encode(source))
    >>> torch.allclose(decode(torch.tensor([0])), model(source, torch.tensor([[0]]))[:, -1], atol=1e-6)
    True
    """

    def __init__(self, model: EncoderDecoder, memory: Memory):
        self.code, self.position, self.n_sources = Code(model), 0, len(memory.states)
        B, G, S, D = memory.layers[0].k.shape
        self.known = self.code.empty(len(model.blocks), B, 2 * G, D, model.config.context_length)
        layers = [torch.cat([layer.k, layer.v], dim=1).mT for layer in memory.layers]
        self.source, self.hidden = torch.stack(layers).contiguous(), self.code.empty(B, S).zero_()
        if (mask := memory.layers[0].mask) is not None:
            self.hidden.masked_fill_(~mask[:, 0, 0], float("-inf"))
        self.arrange()

    @property
    def n_rows(self) -> int:
        """R, how many targets are written."""
        return self.known.shape[1]

    def arrange(self) -> None:
        """Prepare what is the same for each token of this number of rows, and these sources."""
        seen = torch.zeros(self.n_rows, self.known.shape[-1], dtype=self.known.dtype)
        self.memory = arrays(self.known, seen, self.source, self.hidden)
        rows = np.arange(self.n_rows)
        self.where = np.stack([rows, rows, rows, rows // (self.n_rows // self.n_sources)])

    def __call__(self, new: Tensor) -> Tensor:
        """Return the logits (R, V) after one more token of each target. Raises ValueError if the context is full."""
        self.where[1:3] = self.position
        logits = self.code(new, self.where, self.memory)
        self.position += 1
        return logits

    @torch.no_grad()
    def reorder(self, rows: list[int]) -> None:
        """Go on with these rows, in this order; those of one source side by side, equally many of each."""
        if rows == list(range(self.n_rows)):
            return
        sources = sources_of(rows, self.n_rows // self.n_sources)
        known = self.known[..., : self.position]
        if len(rows) == self.n_rows:  # many rows go on as themselves
            changed = [i for i, row in enumerate(rows) if row != i]
            known[:, changed] = known[:, [rows[i] for i in changed]]
            return
        self.known = self.code.empty(len(self.known), len(rows), *self.known.shape[2:])
        self.known[..., : self.position] = known[:, rows]
        if len(sources) < self.n_sources:
            index = torch.tensor(sources)
            self.source, self.hidden = self.source.index_select(1, index), self.hidden.index_select(0, index)
        self.n_sources = len(sources)
        self.arrange()
