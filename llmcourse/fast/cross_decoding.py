"""Fast decoding after a source: one position of each target, without the overhead of calling modules.

The operations of `EncoderDecoder.decode` are collected once, on the same weights, and then run for
each token; what they hold of a source is what `encode` made. Tests compare the logits, to the rounding
of the last bits.

Dimensions: B sources, N targets of each, R = B·N rows, C width (d_model), H query heads, G heads of keys
and values, T positions so far, S source, D head width, L layers, V vocabulary.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmcourse import fast
from llmcourse.attention import MultiHeadAttention
from llmcourse.cross_attention import CrossAttention, Source, sources_of
from llmcourse.encoder_decoder import DecoderBlock, Encoder, EncoderBlock, EncoderDecoder, Memory
from llmcourse.fast.products import linear_step, norm_step
from llmcourse.mlp import ACTIVATIONS, MLP
from llmcourse.pointer import Pointer, PointerGenerator
from llmcourse.positions import apply_rotary

PARTS = {
    EncoderDecoder,
    Encoder,
    DecoderBlock,
    EncoderBlock,
    MultiHeadAttention,
    CrossAttention,
    MLP,
    nn.Linear,
}
PARTS |= {nn.Embedding, nn.LayerNorm, nn.RMSNorm, nn.Identity, nn.Dropout, nn.ModuleList}
PARTS |= {PointerGenerator, Pointer}


def is_supported(model: nn.Module) -> bool:
    """Return whether this module knows every part of `model`; hooks and adapters need the long way."""
    if not fast.enabled or type(model) not in (EncoderDecoder, PointerGenerator):
        return False
    return not torch.is_autocast_enabled(model.token_embedding.weight.device.type) and all(
        type(module) in PARTS and not module._forward_hooks and not module._forward_pre_hooks
        for module in model.modules()
    )


def build_target_decoder(model: EncoderDecoder, memory: Memory) -> "TargetDecoder | None":
    """Return what writes after the sources of `memory`, or None for a model that is not supported."""
    if not is_supported(model):
        return None
    # the machine code has no pointer
    compiled = fast.compiled_for(model, len(memory.states)) if type(model) is EncoderDecoder else None
    return (compiled.CompiledTargetDecoder if compiled else TargetDecoder)(model, memory)


class TargetDecoder:
    """Writes N targets after each of B sources, N = 1 at first; called with ids (R,), it returns logits (R, V).

    >>> from llmcourse.encoder_decoder import EncoderDecoderConfig
    >>> model = EncoderDecoder(EncoderDecoderConfig(vocab_size=10, d_model=16, n_layers=1)).eval()
    >>> source = torch.tensor([[5, 6, 7]])
    >>> decode = TargetDecoder(model, model.encode(source))
    >>> torch.allclose(decode(torch.tensor([0])), model(source, torch.tensor([[0]]))[:, -1], atol=1e-6)
    True
    """

    @torch.inference_mode()  # buffers made in this mode are not tracked: cheaper to slice and to fill
    def __init__(self, model: EncoderDecoder, memory: Memory):
        config, states = model.config, memory.states
        self.model, self.position, self.n_sources = model, 0, len(states)
        plain, rest = memory.layers[: config.n_layers], memory.layers[config.n_layers :]
        self.sources = [*map(plain_source, plain), *rest]
        sizes = 2 * (config.n_kv_heads or config.n_heads), config.context_length, config.head_width
        self.key_values = states.new_empty(len(states), config.n_layers, *sizes)  # of what is written
        self.make_steps()

    @property
    def n_rows(self) -> int:
        """R, how many targets are written."""
        return len(self.key_values)

    def make_steps(self) -> None:
        """Collect the operations for this number of rows and these sources."""
        self.keys, self.values = self.key_values.chunk(2, dim=2)
        self.blocks = [
            block_step(block, source, self.n_rows)
            for block, source in zip(self.model.blocks, self.sources, strict=False)
        ]
        final_norm, unembedding = norm_step(self.model.final_norm), linear_step(self.model.unembedding)
        self.end = lambda x: unembedding(final_norm(x))
        if isinstance(self.model, PointerGenerator):
            self.end = lambda x: self.model.predict(final_norm(x)[:, None], self.sources)[:, 0]

    @torch.inference_mode()
    def __call__(self, new: Tensor) -> Tensor:
        """Return the logits (R, V) after one more token of each target. Raises ValueError if the context is full."""
        model, config, position = self.model, self.model.config, self.position
        if position == config.context_length:
            raise ValueError(f"the context of {position} tokens is full: start again with fewer")
        x, rotary = F.embedding(new, model.token_embedding.weight), None  # (R, C)
        if config.scaled_embeddings:
            x.mul_(math.sqrt(config.d_model))
        if config.positions == "learned":
            x.add_(model.position_embedding.weight[position])
        elif config.positions == "sinusoidal":
            x.add_(model.position_table[position])
        elif config.positions == "rotary":
            rotary = model.rotary_cos[position], model.rotary_sin[position]
        places = self.key_values.narrow(3, position, 1).unbind(1)  # for each layer, (R, 2 G, 1, D)
        keys = self.keys.narrow(3, 0, position + 1).unbind(1)  # (R, G, T, D)
        values = self.values.narrow(3, 0, position + 1).unbind(1)
        for block, *known in zip(self.blocks, places, keys, values, strict=True):
            x = block(x, known, rotary)
        self.position += 1
        return self.end(x)

    @torch.inference_mode()
    def reorder(self, rows: list[int]) -> None:
        """Go on with these rows, in this order; those of one source side by side, equally many of each."""
        if rows == list(range(self.n_rows)):
            return
        sources = sources_of(rows, self.n_rows // self.n_sources)
        index = torch.tensor(rows, device=self.key_values.device)
        known = self.key_values[..., : self.position, :].index_select(0, index)
        if len(rows) == self.n_rows and len(sources) == self.n_sources:
            self.key_values[..., : self.position, :] = known
            return
        self.key_values = self.key_values.new_empty(len(rows), *self.key_values.shape[1:])
        self.key_values[..., : self.position, :] = known
        if len(sources) < self.n_sources:
            index = torch.tensor(sources, device=index.device)
            pick = lambda part: None if part is None else part.index_select(0, index)  # noqa: E731
            self.sources = [Source(*map(pick, source)) for source in self.sources]
        self.n_sources = len(sources)
        self.make_steps()


def plain_source(source: Source) -> Source:
    """Return the source with its numbers side by side, and the mask as what is added to the scores."""
    mask = source.mask
    if mask is not None:
        mask = torch.zeros_like(mask, dtype=source.k.dtype).masked_fill_(~mask, float("-inf"))
    return Source(source.k.contiguous(), source.v.contiguous(), mask)


def block_step(block: DecoderBlock, source: Source, n_rows: int) -> Callable:
    """Return the block for one position: a function of x (R, C), what is known of the target, and (cos, sin)."""
    attention, mlp = attention_step(block.attention, n_rows), mlp_step(block.mlp)
    cross = cross_step(block.cross_attention, source, n_rows)
    norms = [norm_step(norm) for norm in (block.attention_norm, block.cross_attention_norm, block.mlp_norm)]
    attention_norm, cross_norm, mlp_norm = norms

    def before(x, known, rotary):
        x = attention(x, attention_norm(x), known, rotary)
        x = cross(x, cross_norm(x))
        return mlp(x, mlp_norm(x))

    def after(x, known, rotary):
        x = attention_norm(attention(x, x, known, rotary))
        x = cross_norm(cross(x, x))
        return mlp_norm(mlp(x, x))

    return before if block.pre_norm else after


def attention_step(layer: MultiHeadAttention, n_rows: int) -> Callable:
    """Return attention to what is written: a function that adds to x (R, C) what it makes of h (R, C).

    `known` are the place of the new key and value, (R, 2 G, 1, D), and all keys and all values.
    """
    H, G, D = layer.n_heads, layer.n_kv_heads, layer.d_head
    row = layer.qkv.weight.new_empty(n_rows, (H + 2 * G) * D)  # the projection always lands here
    heads = row.view(n_rows, -1, 1, D)
    q, k, queries_and_keys, new = heads[:, :H], heads[:, H : H + G], heads[:, : H + G], heads[:, H:]
    qkv, out = linear_step(layer.qkv, out=row), residual_step(layer.out)
    normed, q_norm, k_norm = (
        isinstance(layer.q_norm, nn.RMSNorm),
        norm_step(layer.q_norm),
        norm_step(layer.k_norm),
    )

    def step(x: Tensor, h: Tensor, known: list[Tensor], rotary) -> Tensor:
        place, keys, values = known
        qkv(h)
        if normed:
            q.copy_(q_norm(q)), k.copy_(k_norm(k))
        if rotary is not None:
            queries_and_keys.copy_(apply_rotary(queries_and_keys, *rotary))
        place.copy_(new)
        y = F.scaled_dot_product_attention(q, keys, values, enable_gqa=H > G)  # (R, H, 1, D)
        return out(x, y.view(n_rows, H * D))

    return step


def cross_step(layer: CrossAttention, source: Source, n_rows: int) -> Callable:
    """Return attention to the source: N targets of one source are N queries, and nothing is repeated."""
    H, G, D, B = layer.n_heads, layer.n_kv_heads, layer.d_head, len(source.k)
    row = layer.q.weight.new_empty(n_rows, H * D)
    heads = row.view(B, n_rows // B, H, D).transpose(1, 2)  # (B, H, N, D)
    q, out, q_norm = linear_step(layer.q, out=row), residual_step(layer.out), norm_step(layer.q_norm)

    def step(x: Tensor, h: Tensor) -> Tensor:
        q(h)
        y = F.scaled_dot_product_attention(q_norm(heads), *source, enable_gqa=H > G)  # (B, H, N, D)
        return out(x, y.transpose(1, 2).reshape(n_rows, H * D))

    return step


def mlp_step(mlp: MLP) -> Callable:
    """Return the MLP: a function that adds to x (R, C) what it makes of h (R, C)."""
    up, down = linear_step(mlp.up), residual_step(mlp.down)

    def swiglu(hidden: Tensor) -> Tensor:
        gate, hidden = hidden.chunk(2, dim=-1)
        return F.silu(gate).mul_(hidden)

    activation = swiglu if mlp.kind == "swiglu" else ACTIVATIONS[mlp.kind]
    return lambda x, h: down(x, activation(up(h)))


def residual_step(layer: nn.Linear) -> Callable:
    """Return a function that adds to x (R, out) what the layer makes of y (R, in), in one pass."""
    turned, bias = layer.weight.detach().t(), layer.bias
    if bias is None:
        return lambda x, y: x.addmm_(y, turned)
    bias = bias.detach()
    return lambda x, y: x.addmm_(y, turned).add_(bias)
