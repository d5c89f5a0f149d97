"""Fast decoding: the forward pass of one position, without the overhead of calling modules.

In a small model, calling modules, splitting and copying tensors and allocating memory cost as much
as the matrix products (benchmarks/RESULTS.md: generation). Here the operations of `GPT.forward` are
collected once, on the same weights, and then run for each token. They are the same operations:
tests compare the logits, to the rounding of the last bits.

Dimensions: B batch, C width (d_model), H heads, S positions so far, D head width, V vocabulary.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmcourse import fast
from llmcourse.attention import KVCache, MultiHeadAttention
from llmcourse.mlp import ACTIVATIONS, MLP
from llmcourse.model import GPT, Block
from llmcourse.positions import apply_rotary

Function = Callable[[Tensor], Tensor]
PARTS = {GPT, Block, MultiHeadAttention, MLP, nn.Linear, nn.Embedding, nn.LayerNorm, nn.RMSNorm}
PARTS |= {nn.Identity, nn.Dropout, nn.ModuleList}


def is_supported(model: nn.Module) -> bool:
    """Return whether this module knows every part of `model`; hooks and adapters need the long way."""
    if not fast.enabled or type(model) is not GPT:
        return False
    return not torch.is_autocast_enabled(model.token_embedding.weight.device.type) and all(
        type(module) in PARTS and not module._forward_hooks and not module._forward_pre_hooks
        for module in model.modules()
    )


@torch.inference_mode()  # buffers made in this mode are not tracked: cheaper to slice and to fill
def build_decoder(model: GPT, caches: list[KVCache]) -> Function | None:
    """Return the function from new ids (B,) to logits (B, V); `caches` hold what came before.

    It raises ValueError when the context is full. Returns None for a model that is not supported.
    """
    if not is_supported(model):
        return None
    config, position = model.config, caches[0].length
    tokens, scale = model.token_embedding.weight, math.sqrt(config.d_model)
    table = model.position_embedding.weight if config.positions == "learned" else None
    table = model.position_table if config.positions == "sinusoidal" else table
    single_row = len(caches[0].k) == 1  # a batch of one runs as a vector, x (C,)
    blocks = [block_step(block, cache, single_row) for block, cache in zip(model.blocks, caches, strict=True)]
    final_norm, unembedding = norm_step(model.final_norm), linear_step(model.unembedding, single_row)

    @torch.inference_mode()
    def step(new: Tensor) -> Tensor:
        nonlocal position
        if position == config.context_length:
            raise ValueError(f"the context of {position} tokens is full: start again with fewer")
        x, rotary = F.embedding(new[0] if single_row else new, tokens), None  # (B, C), or (C,)
        if config.scaled_embeddings:
            x = x * scale
        if table is not None:
            x = x + table[position]
        if config.positions == "rotary":
            rotary = model.rotary_cos[position], model.rotary_sin[position]
        for block in blocks:
            x = block(x, position, rotary)
        position += 1
        logits = unembedding(final_norm(x))
        return logits[None] if single_row else logits

    return step


def block_step(block: Block, cache: KVCache, single_row: bool) -> Callable:
    """Return the block for one position: a function of x (B, C), its position, and (cos, sin)."""
    attention, mlp = attention_step(block.attention, cache, single_row), mlp_step(block.mlp, single_row)
    attention_norm, mlp_norm = norm_step(block.attention_norm), norm_step(block.mlp_norm)

    def before(x, position, rotary):
        x.add_(attention(attention_norm(x), position, rotary))
        return x.add_(mlp(mlp_norm(x)))

    def after(x, position, rotary):
        x = attention_norm(x.add_(attention(x, position, rotary)))
        return mlp_norm(x.add_(mlp(x)))

    return before if block.pre_norm else after


def attention_step(layer: MultiHeadAttention, cache: KVCache, single_row: bool) -> Callable:
    """Return attention for one position; it writes the new key and value behind those in `cache`."""
    B, n_kv_heads, context_length, D = cache.k.shape
    H, shared = layer.n_heads, layer.n_heads > n_kv_heads
    key_value_buffer = cache.k.new_empty(B, 2 * n_kv_heads, context_length, D)  # one copy stores both
    keys, values = key_value_buffer.split(n_kv_heads, dim=1)
    for mine, theirs in ((keys, cache.k), (values, cache.v)):
        mine[:, :, : cache.length] = theirs[:, :, : cache.length]
    row = key_value_buffer.new_empty(B, (H + 2 * n_kv_heads) * D)  # the projection always lands here
    row, shape = (row[0], (H * D,)) if single_row else (row, (B, H * D))
    heads = row.view(B, -1, 1, D)
    q, k, queries_and_keys = heads[:, :H], heads[:, H : H + n_kv_heads], heads[:, : H + n_kv_heads]
    new = heads[:, H:]  # of the new position
    qkv, out = linear_step(layer.qkv, single_row, row), linear_step(layer.out, single_row)
    normed = isinstance(layer.q_norm, nn.RMSNorm)
    q_norm, k_norm = norm_step(layer.q_norm), norm_step(layer.k_norm)

    def step(x: Tensor, position: int, rotary) -> Tensor:
        qkv(x)
        if normed:
            q.copy_(q_norm(q)), k.copy_(k_norm(k))
        if rotary is not None:
            queries_and_keys.copy_(apply_rotary(queries_and_keys, *rotary))
        key_value_buffer.narrow(2, position, 1).copy_(new)
        past = keys.narrow(2, 0, position + 1), values.narrow(2, 0, position + 1)
        return out(F.scaled_dot_product_attention(q, *past, enable_gqa=shared).reshape(shape))

    return step


def mlp_step(mlp: MLP, single_row: bool) -> Function:
    """Return the MLP for x (B, C)."""
    up, down = linear_step(mlp.up, single_row), linear_step(mlp.down, single_row)

    def swiglu(hidden: Tensor) -> Tensor:
        gate, hidden = hidden.chunk(2, dim=-1)
        return F.silu(gate) * hidden

    activation = swiglu if mlp.kind == "swiglu" else ACTIVATIONS[mlp.kind]
    return lambda x: down(activation(up(x)))


def norm_step(norm: nn.Module) -> Function:
    """Return the norm as a function."""
    if isinstance(norm, nn.Identity):
        return lambda x: x
    shape, weight, eps = norm.normalized_shape, norm.weight, norm.eps
    if isinstance(norm, nn.RMSNorm):
        return lambda x: torch.rms_norm(x, shape, weight, eps)
    bias = norm.bias
    return lambda x: torch.layer_norm(x, shape, weight, bias, eps)


def linear_step(layer: nn.Linear, single_row: bool, out: Tensor | None = None) -> Function:
    """Return x (B, in) -> (B, out), or (in,) -> (out,) for single_row, as a function that may write to `out`."""
    weight, bias = layer.weight.detach(), layer.bias
    turned = weight.t()
    if bias is None:
        return (
            (lambda x: torch.mv(weight, x, out=out)) if single_row else lambda x: torch.mm(x, turned, out=out)
        )
    bias = bias.detach()  # torch writes to `out` only where no gradient is wanted
    if single_row:
        return lambda x: torch.addmv(bias, weight, x, out=out)
    return lambda x: torch.addmm(bias, x, turned, out=out)
