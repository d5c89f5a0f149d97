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

from llmcourse.attention import KVCache, MultiHeadAttention
from llmcourse.model import GPT, MLP, Block, ModelConfig
from llmcourse.positions import apply_rotary
from llmcourse.runtime import evaluating

Function = Callable[[Tensor], Tensor]
PARTS = {GPT, Block, MultiHeadAttention, MLP, nn.Linear, nn.Embedding, nn.LayerNorm, nn.RMSNorm}
PARTS |= {nn.Identity, nn.Dropout, nn.ModuleList}
# fmt: off
FIELDS = {  # of ModelConfig that are covered here; another one must have its default
    "vocab_size", "context_length", "d_model", "n_heads", "n_kv_heads", "d_head", "n_layers", "d_ff",
    "norm", "norm_position", "norm_eps", "positions", "rotary_base", "rotary_scaling", "mlp", "bias",
    "qk_norm", "tied_embeddings", "scaled_embeddings", "dropout", "zero_init", "embedding_std",
}
# fmt: on


@torch.no_grad()
def start_decoding(model: nn.Module, token_ids: Tensor) -> tuple[Tensor, Function]:
    """Read a prompt (B, T); return the logits (B, V) after it, and a function for what follows.

    The function maps the next ids (B,) to the logits (B, V) after them, until the context is
    full: then it raises ValueError. No gradient is kept, and there is no dropout.

    >>> model = GPT(ModelConfig(vocab_size=10, d_model=16, n_layers=1)).eval()
    >>> logits, step = start_decoding(model, torch.tensor([[1, 2, 3]]))
    >>> torch.allclose(step(torch.tensor([4])), model(torch.tensor([[1, 2, 3, 4]]))[:, -1])
    True
    """
    caches = model.make_caches(len(token_ids))

    @torch.no_grad()
    def read(ids: Tensor) -> Tensor:
        with evaluating(model):
            return model(ids, caches=caches)[:, -1]

    logits = read(token_ids)
    return logits, line_up(model, caches) if can_line_up(model) else lambda new: read(new[:, None])


def can_line_up(model: nn.Module) -> bool:
    """Return whether this module knows every part of `model`; hooks and adapters need the long way."""
    if type(model) is not GPT or torch.is_autocast_enabled(model.token_embedding.weight.device.type):
        return False
    known = all(
        getattr(model.config, name) == field.default
        for name, field in ModelConfig.__dataclass_fields__.items()
        if name not in FIELDS
    )
    return known and all(
        type(module) in PARTS and not module._forward_hooks and not module._forward_pre_hooks
        for module in model.modules()
    )


@torch.inference_mode()  # buffers made in this mode are not tracked: cheaper to slice and to fill
def line_up(model: GPT, caches: list[KVCache]) -> Function:
    """Return the function from new ids (B,) to logits (B, V); `caches` hold what came before."""
    config, position = model.config, caches[0].length
    tokens, scale = model.token_embedding.weight, math.sqrt(config.d_model)
    table = model.position_embedding.weight if config.positions == "learned" else None
    table = model.position_table if config.positions == "sinusoidal" else table
    one = len(caches[0].k) == 1  # a batch of one runs as a vector, x (C,)
    blocks = [block_step(block, cache, one) for block, cache in zip(model.blocks, caches, strict=True)]
    final_norm, unembedding = norm_step(model.final_norm), linear_step(model.unembedding, one)

    @torch.inference_mode()
    def step(new: Tensor) -> Tensor:
        nonlocal position
        if position == config.context_length:
            raise ValueError(f"the context of {position} tokens is full: start again with fewer")
        x, rotary = F.embedding(new[0] if one else new, tokens), None  # (B, C), or (C,) for one
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
        return logits[None] if one else logits

    return step


def block_step(block: Block, cache: KVCache, one: bool) -> Callable:
    """Return the block for one position: a function of x (B, C), its position, and (cos, sin)."""
    attention, mlp = attention_step(block.attention, cache, one), mlp_step(block.mlp, one)
    attention_norm, mlp_norm = norm_step(block.attention_norm), norm_step(block.mlp_norm)

    def before(x, position, rotary):
        x.add_(attention(attention_norm(x), position, rotary))
        return x.add_(mlp(mlp_norm(x)))

    def after(x, position, rotary):
        x = attention_norm(x.add_(attention(x, position, rotary)))
        return mlp_norm(x.add_(mlp(x)))

    return before if block.pre_norm else after


def attention_step(layer: MultiHeadAttention, cache: KVCache, one: bool) -> Callable:
    """Return attention for one position; it writes the new key and value behind those in `cache`."""
    B, n_kv_heads, context_length, D = cache.k.shape
    H, shared = layer.n_heads, layer.n_heads > n_kv_heads
    kept = cache.k.new_empty(B, 2 * n_kv_heads, context_length, D)  # one copy stores key and value
    keys, values = kept.split(n_kv_heads, dim=1)
    for mine, theirs in ((keys, cache.k), (values, cache.v)):
        mine[:, :, : cache.length] = theirs[:, :, : cache.length]
    row = kept.new_empty(B, (H + 2 * n_kv_heads) * D)  # the projection always lands here
    row, shape = (row[0], (H * D,)) if one else (row, (B, H * D))
    heads = row.view(B, -1, 1, D)
    q, k, turning = heads[:, :H], heads[:, H : H + n_kv_heads], heads[:, : H + n_kv_heads]
    new = heads[:, H:]  # key and value, to be kept
    qkv, out = linear_step(layer.qkv, one, row), linear_step(layer.out, one)
    normed = isinstance(layer.q_norm, nn.RMSNorm)
    q_norm, k_norm = norm_step(layer.q_norm), norm_step(layer.k_norm)

    def step(x: Tensor, position: int, rotary) -> Tensor:
        qkv(x)
        if normed:
            q.copy_(q_norm(q)), k.copy_(k_norm(k))
        if rotary is not None:
            turning.copy_(apply_rotary(turning, *rotary))
        kept.narrow(2, position, 1).copy_(new)
        past = keys.narrow(2, 0, position + 1), values.narrow(2, 0, position + 1)
        return out(F.scaled_dot_product_attention(q, *past, enable_gqa=shared).reshape(shape))

    return step


def mlp_step(mlp: MLP, one: bool) -> Function:
    """Return the MLP for x (B, C)."""
    up, down, kind = linear_step(mlp.up, one), linear_step(mlp.down, one), mlp.kind

    def swiglu(hidden: Tensor) -> Tensor:
        gate, hidden = hidden.chunk(2, dim=-1)
        return F.silu(gate) * hidden

    activation = {
        "relu": F.relu,
        "relu_squared": lambda hidden: F.relu(hidden).square(),
        "gelu": F.gelu,
        "gelu_tanh": lambda hidden: F.gelu(hidden, approximate="tanh"),
        "swiglu": swiglu,
    }[kind]
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


def linear_step(layer: nn.Linear, one: bool, out: Tensor | None = None) -> Function:
    """Return x (B, in) -> (B, out), or (in,) -> (out,) for one, as a function that may write to `out`."""
    weight, bias = layer.weight.detach(), layer.bias
    turned = weight.t()
    if bias is None:
        return (lambda x: torch.mv(weight, x, out=out)) if one else lambda x: torch.mm(x, turned, out=out)
    bias = bias.detach()  # torch writes to `out` only where no gradient is wanted
    if one:
        return lambda x: torch.addmv(bias, weight, x, out=out)
    return lambda x: torch.addmm(bias, x, turned, out=out)
