"""Look into a GPT while it runs, and change what flows: torch's hooks on the modules that are there.

No module is wrapped or replaced and no weight is folded, so a run that is only looked at gives the same
numbers, to the last bit. The places ("sites"), in the order in which a token passes them:

| Site | Shape | What it is |
|---|---|---|
| `embedding` | (B, T, C) | the residual stream before the first block, positions added |
| `blocks.0.attention.q` | (B, T, H, D) | queries, before QK-norm and rotation |
| `blocks.0.attention.k`, `.v` | (B, T, G, D) | keys, before the same, and values |
| `blocks.0.attention.weights` | (B, H, T, S) | attention weights; read only |
| `blocks.0.attention.heads` | (B, T, H, D) | what each head read, before the output projection |
| `blocks.0.attention.out` | (B, T, C) | what attention adds to the stream |
| `blocks.0.mlp.hidden` | (B, T, F) | units of the MLP after the activation (SwiGLU: gate times unit) |
| `blocks.0.mlp.out` | (B, T, C) | what the MLP adds to the stream |
| `blocks.0.residual` | (B, T, C) | the residual stream after the block |
| `final_norm` | (B, T, C) | what the unembedding reads |

Dimensions: B batch, T time, S keys, C width (d_model), H heads, G heads of keys and values, D head width,
F hidden width of the MLP.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from llmcourse.attention import causal_mask, scaled_dot_product_attention
from llmcourse.finetune.lora import LoRALinear
from llmcourse.generate import prompt_batch
from llmcourse.model import GPT, Block
from llmcourse.positions import apply_rotary
from llmcourse.runtime import evaluating
from llmcourse.support.inputs import id_row

Edit = Callable[
    [Tensor], Tensor | None
]  # gets what is at a site; returns what shall be there, None: as it is

PARTS = ("attention.q", "attention.k", "attention.v", "attention.weights", "attention.heads")
PARTS += ("attention.out", "mlp.hidden", "mlp.out", "residual")


def site_names(model: GPT) -> list[str]:
    """Return the names of all sites of the model, in the order in which a token passes them.

    Raises ValueError for a model that is no GPT, and for one that `torch.compile` has compiled.

    >>> from llmcourse.config import ModelConfig
    >>> site_names(GPT(ModelConfig(vocab_size=10, d_model=16, n_layers=2)))[9:11]
    ['blocks.0.residual', 'blocks.1.attention.q']
    """
    if type(model) is not GPT:
        raise ValueError(
            f"a {type(model).__name__} is no GPT of llmcourse.model: sites are places in one. Give the GPT itself: "
            "a compiled model before torch.compile, a classifier's `body`; a model of transformers by from_transformers"
        )
    if any(part._compiled_call_impl is not None for part in model.modules()):
        raise ValueError("this model was compiled in place, past its hooks: load or copy it before compile()")
    blocks = (f"blocks.{layer}.{part}" for layer in range(len(model.blocks)) for part in PARTS)
    return ["embedding", *blocks, "final_norm"]


@torch.no_grad()
def record(
    model: GPT, token_ids, sites: str | Iterable[str], mask: Tensor | None = None
) -> dict[str, Tensor]:
    """Return what is at each of the `sites` while the model reads token_ids (B, T), without dropout.

    One row of ids is a batch of one. `mask` is that of `GPT.forward`. What comes back is a copy and has no
    gradient. Raises ValueError for an unknown site, for another model, for ids that are none, and for
    rows longer than the context.

    >>> from llmcourse.config import ModelConfig
    >>> model = GPT(ModelConfig(vocab_size=10, d_model=16, n_heads=2, n_layers=1))
    >>> found = record(model, [1, 2, 3], ["blocks.0.attention.heads", "final_norm"])
    >>> {site: tuple(tensor.shape) for site, tensor in found.items()}
    {'blocks.0.attention.heads': (1, 3, 2, 8), 'final_norm': (1, 3, 16)}
    """
    sites, found = [sites] if isinstance(sites, str) else list(sites), {}

    def keep(site: str, x: Tensor) -> None:
        found[site] = x.detach().clone()

    with hooked(model, {site: partial(keep, site) for site in sites}), evaluating(model):
        token_ids = prompt_batch(token_ids, model.config.vocab_size)
        model(token_ids.to(model.token_embedding.weight.device), mask)
    return {site: found[site] for site in sites}


@contextlib.contextmanager
def hooked(model: GPT, edits: Mapping[str, Edit]) -> Iterator[GPT]:
    """Within the block, the model goes on with what `edits[site]` returns for what is at the site.

    A function that returns None leaves the tensor as it is, and so can look at it. Gradients pass. Blocks
    may be nested: the inner one sees what the outer one made. Whatever runs the model runs it so: a loss,
    `generate` (which leaves the fast decoders out; begin to write within the block), training. At the end of
    the block, after an error as well, nothing is left. Raises ValueError as `record` does, and when a function returns something else
    than a tensor of that shape and dtype.

    >>> from llmcourse.config import ModelConfig
    >>> model, ids = GPT(ModelConfig(vocab_size=10, d_model=16, n_layers=1)), torch.tensor([[1, 2]])
    >>> with hooked(model, {"final_norm": torch.zeros_like}):
    ...     model(ids).abs().max().item()
    0.0
    >>> model(ids).abs().max().item() > 0
    True
    """
    known = site_names(model)
    if unknown := [site for site in edits if site not in known]:
        raise ValueError(
            f"site {unknown[0]!r} does not exist: this model has 'embedding', 'final_norm', and in 'blocks.0' to "
            f"'blocks.{len(model.blocks) - 1}' each {', '.join(PARTS)}"
        )
    with contextlib.ExitStack() as stack:
        for site, edit in edits.items():
            for handle in _attach(model, site, partial(_edited, site, edit)):
                stack.callback(handle.remove)
        yield model


def plain_layer(layer: nn.Module, like: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return weight and bias that a linear layer applies, an adapter included, in the dtype of `like`."""
    layer = layer.merged() if isinstance(layer, LoRALinear) else layer
    return layer.weight.to(like.dtype), layer.bias


def one_id_a_row(ids, name: str, n_rows: int, vocab_size: int) -> Tensor:
    """Return token ids (B,): one for each of the rows, or one for all. Raises ValueError for others."""
    row = id_row(torch.as_tensor(ids).reshape(-1), vocab_size, name, least=1)
    if len(row) not in (1, n_rows):
        raise ValueError(
            f"{name} has {len(row)} ids for {n_rows} rows: give one for each row, or one for all"
        )
    return torch.from_numpy(row).expand(n_rows)


def _edited(site: str, edit: Edit, x: Tensor) -> Tensor:
    new = edit(x)
    if new is None:
        return x
    if not isinstance(new, Tensor) or (new.shape, new.dtype) != (x.shape, x.dtype):
        found = f"{tuple(new.shape)} in {new.dtype}" if isinstance(new, Tensor) else type(new).__name__
        raise ValueError(f"the function for {site!r} got {tuple(x.shape)} in {x.dtype} and returned {found}")
    return new


def _attach(model: GPT, site: str, edit: Callable[[Tensor], Tensor]) -> list[RemovableHandle]:
    """Register the hooks of a site; `edit` always returns a tensor."""
    ends = {"embedding": model.dropout, "final_norm": model.final_norm}
    if site in ends:
        return [_on_output(ends[site], edit)]
    _, layer, part = site.split(".", 2)
    block: Block = model.blocks[int(layer)]
    H = block.attention.n_heads
    if part == "attention.heads":
        split = lambda x: edit(x.unflatten(-1, (H, -1))).flatten(-2)  # noqa: E731 - (B, T, H·D) and back
        return [_on_input(block.attention.out, split)]
    if part == "mlp.hidden":
        return [_on_input(block.mlp.down, edit)]
    if part == "attention.weights":
        return _on_weights(block.attention, site, edit)
    if part in ("attention.q", "attention.k", "attention.v"):
        return [_on_output(block.attention.qkv, partial(_edit_projection, block.attention, part[-1], edit))]
    return [_on_output({"attention.out": block.attention.out, "mlp.out": block.mlp}.get(part, block), edit)]


def _on_output(module, edit) -> RemovableHandle:
    return module.register_forward_hook(lambda module, inputs, output: edit(output))


def _on_input(module, edit) -> RemovableHandle:
    return module.register_forward_pre_hook(lambda module, inputs: (edit(inputs[0]), *inputs[1:]))


def _edit_projection(attention, which: str, edit, qkv: Tensor) -> Tensor:
    """Return the projection (B, T, (H + 2G)·D) with its queries, keys or values edited."""
    sizes = [attention.n_heads, attention.n_kv_heads, attention.n_kv_heads]
    parts = dict(zip("qkv", qkv.unflatten(-1, (-1, attention.d_head)).split(sizes, dim=2), strict=True))
    new = edit(parts[which])
    if new is parts[which]:
        return qkv
    return torch.cat(list((parts | {which: new}).values()), dim=2).flatten(-2)


def _on_weights(attention, site: str, look) -> list[RemovableHandle]:
    """Show `look` the weights, which kernels never hold: made again of the queries and keys of the same run."""
    seen = {}

    def show(module, inputs, options, output) -> None:
        q, k, rotary, cache = seen["q"], seen["k"], options["rotary"], options["cache"]
        if rotary is not None:
            q, k = apply_rotary(q, *rotary), apply_rotary(k, *rotary)
        if cache is not None:
            k = cache.k[:, :, : cache.length]  # (B, G, S, D), the new ones among them
        k = k.repeat_interleave(attention.n_heads // attention.n_kv_heads, dim=1)
        mask = options["mask"]
        if mask is None and options["is_causal"]:
            mask = causal_mask(q.shape[2], k.shape[2], q.device)
        weights = scaled_dot_product_attention(q, k, k, mask, return_weights=True)[1]
        if look(weights) is not weights:
            raise ValueError(f"{site!r} is read only: edit 'attention.q', '.k' or '.heads', or give a mask")

    return [
        attention.q_norm.register_forward_hook(lambda module, inputs, output: seen.update(q=output)),
        attention.k_norm.register_forward_hook(lambda module, inputs, output: seen.update(k=output)),
        attention.register_forward_hook(show, with_kwargs=True),
    ]
