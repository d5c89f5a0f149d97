"""Quantization-aware training: the forward pass rounds the weights, the backward pass looks past it.

Dimensions: O outputs and I inputs of a weight (rows and columns).
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmcourse.compress.rounding import (
    best_shares,
    block_linears,
    fit_scales,
    nearest,
    quantize_weight,
)
from llmcourse.model import GPT
from llmcourse.packed import PackedEmbedding, PackedLinear, Scheme, dequantized
from llmcourse.packed_model import are_tied, tie
from llmcourse.weights import unwrap


class _StraightThrough(torch.autograd.Function):
    """Rounding, with the gradient of what it approximates: a line as long as the range of the codes."""

    @staticmethod
    def forward(ctx, weight: Tensor, scheme: Scheme, clip: bool | Tensor) -> Tensor:
        scales, zeros = (p if p is None else p.reshape(-1, 1) for p in fit_scales(weight, scheme, clip))
        codes = nearest(scheme.blocks(weight), scales, zeros)
        inside = codes.clamp(scheme.low, scheme.high)
        ctx.save_for_backward((codes == inside).view(weight.shape))
        return dequantized(inside, scales, zeros).view(weight.shape)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        (passes,) = ctx.saved_tensors
        return gradient * passes, None, None


def fake_quantize(weight: Tensor, scheme: Scheme, clip: bool | Tensor = False) -> Tensor:
    """Return the float32 weight (O, I) as it will be once it is packed; its gradient passes through.

    The scales are fitted anew at each call, as `fit_scales` does with `clip`, and taken as constants. The
    gradient of rounding is 0 almost everywhere, and useless; in its place each weight gets the gradient
    of its rounded value (straight-through). At the edge: a weight that is rounded to the last code gets
    it too, one that lies half a step or more beyond that code gets none, since no small step of it
    changes anything. Without `clip` the range follows the extremes, and hardly any weight lies beyond.
    Raises ValueError as `fit_scales` does.

    >>> w = torch.tensor([[-1.0, 0.3, 1.0]], requires_grad=True)
    >>> rounded = fake_quantize(w, Scheme(2, "row"))
    >>> rounded.sum().backward(); rounded.tolist(), w.grad.tolist()
    ([[-1.0, 0.0, 1.0]], [[1.0, 1.0, 1.0]])

    Source: Bengio et al. 2013, arXiv:1308.3432; at the edge Hubara et al. 2016, arXiv:1602.02830, eq. 4;
    Jacob et al. 2017, arXiv:1712.05877, sec. 3 and eq. 12.
    """
    return _StraightThrough.apply(weight, scheme, clip)


def _keep_ranges(layer: nn.Module, scheme: Scheme, clip: bool) -> None:
    """Give a layer its scheme, and the shares of the ranges of its groups, which stay while it is trained."""
    shares = best_shares(layer.weight, scheme) if clip else torch.ones(scheme.scale_shape(layer.weight.shape))
    layer.scheme = scheme
    layer.register_buffer("shares", shares.to(layer.weight), persistent=False)


class FakeQuantizedLinear(nn.Linear):
    """A linear layer that is trained, and computes with its weight rounded. Its names are those of a Linear."""

    def __init__(self, linear: nn.Linear, scheme: Scheme, clip: bool = False):
        super().__init__(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        _keep_ranges(self, scheme, clip)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., I) to (..., O)."""
        return F.linear(x, fake_quantize(self.weight, self.scheme, self.shares).to(x.dtype), self.bias)


class FakeQuantizedEmbedding(nn.Embedding):
    """An embedding that is trained, and looks up rounded rows."""

    def __init__(self, embedding: nn.Embedding, scheme: Scheme, clip: bool = False):
        super().__init__(embedding.num_embeddings, embedding.embedding_dim, device="meta")
        self.weight = embedding.weight
        _keep_ranges(self, scheme, clip)

    def forward(self, token_ids: Tensor) -> Tensor:
        """Map ids (...,) to rows (..., C)."""
        rounded = fake_quantize(self.weight, self.scheme, self.shares).to(self.weight.dtype)
        return F.embedding(token_ids, rounded)


def prepare_qat(model: GPT, scheme: Scheme, *, embedding: Scheme | None = None, clip: bool = False) -> GPT:
    """Return a copy of `model` to be trained, as usual, with its linear layers rounded by `scheme`.

    Before the first step it computes what `quantize_model` computes, `clip` included; the shares of the
    ranges that `clip` finds stay as they are, while the ranges follow the weights. Its parameters are
    those of `model`, under the same names, so that checkpoints and optimizers see nothing new; `model`
    stays as it was, to be the teacher or the control. `embedding` is as in `quantize_model`.
    Raises ValueError as `quantize_model` does.
    """
    model = unwrap(model)
    block_linears(model)
    prepared = copy.deepcopy(model)
    for name, layer in block_linears(prepared).items():
        prepared.set_submodule(name, FakeQuantizedLinear(layer, scheme, clip))
        fit_scales(layer.weight, scheme)  # raises now what the first step would raise
    if embedding is not None:
        prepared.token_embedding = FakeQuantizedEmbedding(prepared.token_embedding, embedding, clip)
        prepared.unembedding = FakeQuantizedLinear(prepared.unembedding, embedding, clip)
    return prepared


def finish_qat(model: GPT) -> GPT:
    """Return a packed, frozen copy of a model of `prepare_qat`: it computes the same logits, to the last bit.

    Raises ValueError for a model without such layers.
    """
    packed, found = copy.deepcopy(unwrap(model)), 0
    tied = are_tied(packed)
    for name, layer in list(packed.named_modules()):
        if isinstance(layer, FakeQuantizedLinear | FakeQuantizedEmbedding):
            kind = PackedLinear if isinstance(layer, nn.Linear) else PackedEmbedding
            parts = quantize_weight(layer.weight, layer.scheme, layer.shares)
            last = layer.bias if isinstance(layer, nn.Linear) else layer.weight
            packed.set_submodule(name, kind.from_codes(*parts, layer.scheme, last))
            found += 1
    if not found:
        raise ValueError(
            f"{type(packed).__name__} has no layer of prepare_qat: prepare it, train it, then finish"
        )
    if tied:
        tie(packed)
    return packed.requires_grad_(False).eval()
