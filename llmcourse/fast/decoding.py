"""Fast decoding: the forward pass of a few positions, without the overhead of calling modules.

In a small model, calling modules, splitting and copying tensors and allocating memory cost as much
as the matrix products (benchmarks/RESULTS.md: generation). Here the operations of `GPT.forward` are
collected once, on the same weights, and then run for each token. Some take another way to the same
numbers: tests compare the logits, to the rounding of the last bits; where weights are packed as int8,
to that of rows of int16 in machine code, and of bfloat16 in torch.

- What stands around a product of matrices is done on the way (`fast/products.py`).
- Results land in memory that is taken once, such as the row that holds q, k and v.
- Rotating a pair of numbers is one multiplication of complex numbers (arXiv:2104.09864, sec. 3.2.1).

No weight is copied: one that changes counts from the next token on. A decoder holds keys and values,
as large as `caches`, and a few rows of numbers.

Dimensions: B texts, T new positions of each (one of the two is 1), N = B·T rows, C width (d_model),
H heads, S positions so far, D head width, L layers, V vocabulary.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmcourse import fast
from llmcourse.attention import KVCache, MultiHeadAttention, causal_mask, padding_mask
from llmcourse.fast.products import (
    INT8,
    WIDE,
    Function,
    can_multiply,
    embedding_step,
    norm_step,
    normed_step,
    plain_weight,
    residual_step,
)
from llmcourse.mlp import ACTIVATIONS, MLP
from llmcourse.model import GPT, Block
from llmcourse.packed import Packed, PackedEmbedding, PackedLinear
from llmcourse.positions import apply_rotary

PARTS = {GPT, Block, MultiHeadAttention, MLP, nn.Linear, nn.Embedding, nn.LayerNorm, nn.RMSNorm}
PARTS |= {nn.Identity, nn.Dropout, nn.ModuleList, PackedLinear, PackedEmbedding}


def is_supported(model: nn.Module) -> bool:
    """Return whether this module knows every part of `model`; hooks and adapters need the long way."""
    if not fast.enabled or type(model) is not GPT:
        return False
    return not torch.is_autocast_enabled(plain_weight(model).device.type) and all(
        map(is_known, model.modules())
    )


def is_known(module: nn.Module) -> bool:
    """Return whether a part of a model is one of PARTS, packed as INT8 if packed, and without hooks."""
    known = type(module) in PARTS and not (isinstance(module, Packed) and module.scheme != INT8)
    return known and not module._forward_hooks and not module._forward_pre_hooks


def build_decoder(model: GPT, caches: list[KVCache], padding: Tensor | None = None) -> "Decoder | None":
    """Return a decoder whose texts begin with what `caches` hold, or None for a model that is not supported.

    `padding` (B,) says how many of the first positions of each text hold none of it.
    """
    if not is_supported(model):
        return None
    if compiled := fast.compiled_for(model, len(caches[0].k)):
        return compiled.CompiledDecoder(model, caches, padding)
    dtype = plain_weight(model).dtype
    served = all(can_multiply(module, dtype) for module in model.modules())
    return Decoder(model, caches, padding) if served else None


def begin_decoder(model: GPT, token_ids: Tensor, padding: Tensor | None = None):
    """Return (logits (B, V), decoder) after prompts (B, T), or None where the model should read them itself.

    So it should where numba is missing, and for long ones.
    """
    if is_supported(model) and (compiled := fast.compiled_for(model, token_ids.numel())):
        decoder = compiled.CompiledDecoder(model, model.make_caches(len(token_ids)), padding)
        return decoder.prefill(token_ids), decoder
    return None


class Decoder:
    """Reads tokens after those in `caches`: one for each of B texts, or several of a single text.

    Called with ids (B,) it returns the logits (B, V) after them, and goes on to the next position.
    `read` returns the logits after each of T tokens of one text, and may go back to an earlier
    position. Both raise ValueError when the context is full.

    >>> from llmcourse.model import ModelConfig
    >>> model = GPT(ModelConfig(vocab_size=10, d_model=16, n_layers=1))
    >>> decode, ids = Decoder(model, model.make_caches(1)), torch.tensor([3, 1, 4])
    >>> torch.allclose(decode.read(ids, start=0), model(ids[None])[0], atol=1e-6)
    True
    >>> decode(torch.tensor([5])).shape, decode.position
    (torch.Size([1, 10]), 4)
    """

    @torch.inference_mode()  # buffers made in this mode are not tracked: cheaper to slice and to fill
    def __init__(self, model: GPT, caches: list[KVCache], padding: Tensor | None = None):
        self.model, self.position, self.steps, self.padding = model, caches[0].length, {}, padding
        dtype, self.angles = plain_weight(model).dtype, ()
        if model.config.positions == "rotary":
            self.angles = (model.rotary_cos.to(dtype), model.rotary_sin.to(dtype))
            if dtype in WIDE:  # one table (context, D/2) of cos + i sin
                self.angles = (torch.complex(*self.angles),)
        self.key_values = stored(caches, as_pairs=len(self.angles) == 1)

    def __call__(self, new: Tensor) -> Tensor:
        """Return the logits (B, V) after one more token of each text, (B,)."""
        return self.step(new, 1, self.position)

    def read(self, ids: Tensor, start: int) -> Tensor:
        """Return the logits (T, V) after each of the ids (T,) of one text, at positions from `start` on.

        What was read at and after `start` before is forgotten.
        """
        return self.step(ids, len(ids), start)

    @torch.inference_mode()
    def step(self, ids: Tensor, T: int, start: int) -> Tensor:
        """Return the logits (N, V) after ids (N,)."""
        limit = self.model.config.context_length
        if start + T > limit:
            raise ValueError(f"the context of {limit} tokens is full: start again with fewer")
        if T not in self.steps:
            self.steps[T] = whole_step(self.model, self.key_values, T, self.angles, self.padding)
        self.position = start + T
        return self.steps[T](ids, start)


def stored(caches: list[KVCache], as_pairs: bool) -> Tensor:
    """Return all keys and values as (L, B, 2 n_kv_heads, context, D), so that one copy stores both.

    With `as_pairs`, entries i and i + D/2 of a key, which turn together, are neighbours: a dot product
    does not ask for the order.
    """
    B, n_kv_heads, context, D = caches[0].k.shape
    everything = caches[0].k.new_empty(len(caches), B, 2 * n_kv_heads, context, D)
    for both, cache in zip(everything, caches, strict=True):
        keys, values = cache.k[:, :, : cache.length], cache.v[:, :, : cache.length]
        keys = keys.unflatten(-1, (2, D // 2)).mT.flatten(-2) if as_pairs else keys
        both[:, :, : cache.length] = torch.cat([keys, values], dim=1)
    return everything


def whole_step(model: GPT, key_values: Tensor, T: int, angles: tuple, padding=None) -> Callable:
    """Return the forward pass for T positions: from ids (N,) and the first position to logits (N, V).

    With `padding` (B,), for T = 1, nobody looks at the first positions, and none is counted.
    """
    config, known, scale = model.config, plain_weight(model), math.sqrt(model.config.d_model)
    table = model.position_embedding.weight if config.positions == "learned" else None
    table = model.position_table if config.positions == "sinusoidal" else table
    _, B, twice, context, _ = key_values.shape
    all_keys, all_values = key_values.split(twice // 2, dim=2)
    single = B * T == 1  # one row runs as a vector, x (C,)
    blocks = [block_step(block, B, T) for block in model.blocks]
    embedding = embedding_step(model.token_embedding)
    unembedding = normed_step(model.final_norm, model.unembedding, single)
    mask = None
    if T > 1:  # (T, context): whatever came before, and of the T new positions those up to itself
        allowed = causal_mask(T, context, device=known.device)
    elif padding is not None:
        allowed = padding_mask(padding, 1, context)  # (B, 1, 1, context)
    if T > 1 or padding is not None:
        mask = torch.zeros_like(allowed, dtype=known.dtype).masked_fill_(~allowed, float("-inf"))

    def step(ids: Tensor, start: int) -> Tensor:
        x, end = embedding(ids[0] if single else ids), start + T  # (N, C), or (C,)
        if config.scaled_embeddings:
            x.mul_(scale)
        if padding is not None:
            places = start - padding  # (B,)
            turn, seen = [part[places][:, None, None] for part in angles], mask[..., :end]  # (B, 1, 1, D/2)
        else:
            places = slice(start, end) if T > 1 else start
            turn = [part[start:end] for part in angles]  # (T, D/2)
            seen = mask if mask is None else mask[:, context - end :]  # (T, S)
        if table is not None:
            x.add_(table[places])
        new = key_values.narrow(3, start, T).unbind()  # of each layer, (B, 2 n_kv_heads, T, D)
        keys, values = all_keys.narrow(3, 0, end).unbind(), all_values.narrow(3, 0, end).unbind()
        for block, *memory in zip(blocks, new, keys, values, strict=True):
            x = block(x, memory, turn, seen)
        logits = unembedding(x)
        return logits[None] if single else logits

    return step


def block_step(block: Block, B: int, T: int) -> Callable:
    """Return the block as a function of x (N, C) and what `attention_step` needs."""
    same = nn.Identity()
    first, second = (block.attention_norm, block.mlp_norm) if block.pre_norm else (same, same)
    row = block.attention_norm.weight.new_empty(B * T, block.attention.qkv.out_features)
    attention, mlp = (
        attention_step(first, block.attention, B, T, row),
        mlp_step(second, block.mlp, B * T == 1),
    )
    if block.pre_norm:
        return lambda x, *where: mlp(attention(x, *where))
    attention_norm, mlp_norm = norm_step(block.attention_norm), norm_step(block.mlp_norm)
    return lambda x, *where: mlp_norm(mlp(attention_norm(attention(x, *where))))


def attention_step(norm: nn.Module, layer: MultiHeadAttention, B: int, T: int, row: Tensor) -> Callable:
    """Return attention for T positions: it adds to x (N, C) what it makes of the norm of x.

    The function takes x, the places in the cache (of the new keys and values, (B, 2 n_kv_heads, T, D),
    and of all keys and all values, (B, n_kv_heads, S, D)), how to turn, and the mask (T, S) if T > 1.
    """
    H, n_kv_heads, D = layer.n_heads, layer.n_kv_heads, layer.d_head
    shared, single = n_kv_heads < H, B * T == 1
    heads = row.view(B, T, -1, D).transpose(1, 2)  # (B, H + 2 n_kv_heads, T, D)
    q, k, queries_and_keys = heads[:, :H], heads[:, H:-n_kv_heads], heads[:, :-n_kv_heads]
    new, (first, second) = heads[:, H:], queries_and_keys.chunk(2, dim=-1)
    if row.dtype in WIDE and D % 2 == 0:
        pairs = torch.view_as_complex(queries_and_keys.unflatten(-1, (D // 2, 2)))
        halves = torch.empty_like(pairs)  # (B, H + n_kv_heads, T, D/2)
    qkv = normed_step(norm, layer.qkv, single, row[0] if single else row)
    out, shape = residual_step(layer.out, single), (H * D,) if single else (B * T, H * D)
    normed, q_norm, k_norm = (
        isinstance(layer.q_norm, nn.RMSNorm),
        norm_step(layer.q_norm),
        norm_step(layer.k_norm),
    )

    def step(x: Tensor, memory: list[Tensor], turn: list[Tensor], mask: Tensor | None) -> Tensor:
        qkv(x)
        if normed:
            q.copy_(q_norm(q)), k.copy_(k_norm(k))
        if len(turn) == 1:
            torch.mul(torch.complex(first, second, out=halves), turn[0], out=pairs)
        elif turn:
            queries_and_keys.copy_(apply_rotary(queries_and_keys, *turn))
        place, keys, values = memory
        place.copy_(new)
        y = F.scaled_dot_product_attention(q, keys, values, mask, enable_gqa=shared)  # (B, H, T, D)
        return out(x, (y if T == 1 else y.transpose(1, 2)).reshape(shape))

    return step


def mlp_step(norm: nn.Module, mlp: MLP, single: bool) -> Function:
    """Return the MLP: it adds to x (N, C) what it makes of the norm of x."""
    up, down = normed_step(norm, mlp.up, single), residual_step(mlp.down, single)

    def swiglu(hidden: Tensor) -> Tensor:
        gate, hidden = hidden.chunk(2, dim=-1)
        return F.silu(gate).mul_(hidden)

    activation = swiglu if mlp.kind == "swiglu" else ACTIVATIONS[mlp.kind]
    return lambda x: down(x, activation(up(x)))
