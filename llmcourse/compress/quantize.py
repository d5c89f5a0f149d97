"""Four bits a weight: NF4, blocks with one scale each, and scales that are quantized too.

Dimensions: N weights, K levels (16), G weights in a block.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmcourse.packed import StoredWeight

BLOCK, SCALE_BLOCK = 64, 256  # weights that share a scale; scales that share a scale


def nf4_levels() -> Tensor:
    """Return the 16 levels of NormalFloat, from -1 to 1, 0 among them.

    They are quantiles of the normal distribution: 8 on the negative side and 9 on the positive
    one, which share the 0; divided by the largest. Rounded weights, if they are normal, then use
    all levels about equally often.

    >>> nf4_levels()[[0, 7, 15]].tolist()
    [-1.0, 0.0, 1.0]

    Source: Dettmers et al. 2023, arXiv:2305.14314, sec. 3, eq. 4 and appendix E.
    """
    outermost = 1 - (1 / 32 + 1 / 30) / 2  # the mean of the two sides' outer half steps
    normal = torch.distributions.Normal(0.0, 1.0)
    negative = normal.icdf(torch.linspace(1 - outermost, 0.5, 8, dtype=torch.float64))
    positive = normal.icdf(torch.linspace(0.5, outermost, 9, dtype=torch.float64))
    return (torch.cat([negative, positive[1:]]) / positive[-1]).float()


def uniform_levels() -> Tensor:
    """Return 15 evenly spaced levels from -1 to 1: symmetric 4-bit integers, -7 to 7."""
    return torch.arange(-7, 8) / 7


def fp4_levels() -> Tensor:
    """Return the 15 values of a 4-bit float with 2 exponent bits and 1 mantissa bit, over 6."""
    positive = torch.tensor([0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
    return torch.cat([-positive.flip(0), torch.zeros(1), positive]) / 6


def nearest_level(values: Tensor, levels: Tensor) -> Tensor:
    """Return for each value the index of its nearest level; `levels` ascend.

    >>> nearest_level(torch.tensor([-0.9, 0.1, 0.6]), torch.tensor([-1.0, 0.0, 1.0])).tolist()
    [0, 1, 2]
    """
    middles = (levels[1:] + levels[:-1]) / 2
    return torch.bucketize(values, middles.to(values.device))


@dataclass(frozen=True)
class Quantized:
    """A tensor in 4 bits: two codes a byte, a scale for each block of G weights, and the levels.

    With double quantization `scales` are bytes, and `scale_scales` and `scale_mean` undo that: all
    are needed to get the weights back.
    """

    codes: Tensor  # uint8 (N / 2,)
    scales: Tensor  # float32 or int8 (N / G,)
    levels: Tensor  # float32 (K,)
    shape: torch.Size
    block: int
    scale_scales: Tensor | None = None  # float32 (N / (G · 256),)
    scale_mean: Tensor | None = None  # float32 ()

    def block_scales(self) -> Tensor:
        """Return the scale of each block as float32."""
        if self.scale_scales is None:
            return self.scales
        steps = self.scale_scales.repeat_interleave(SCALE_BLOCK)[: len(self.scales)]
        return self.scales * steps + self.scale_mean

    def bits_per_weight(self) -> float:
        """Return all that is stored, in bits, per weight (levels and the one mean not counted)."""
        parts = [self.codes, self.scales, *([] if self.scale_scales is None else [self.scale_scales])]
        return 8 * sum(part.numel() * part.element_size() for part in parts) / self.shape.numel()


def quantize(
    weight: Tensor, levels: Tensor | None = None, block: int = BLOCK, double: bool = False
) -> Quantized:
    """Return `weight` in 4 bits: each block divided by its largest magnitude, then rounded to a level.

    `levels` are NF4 unless given. `double` stores the scales in 8 bits too, 256 at a time, after
    their mean has been subtracted. Raises ValueError when blocks do not divide the weights evenly,
    a weight is not finite, or there are more levels than four bits can name.

    Source: Dettmers et al. 2023, arXiv:2305.14314, sec. 2 (blocks) and 3 (NF4, double).
    """
    if weight.numel() == 0 or weight.numel() % block or block % 2:
        raise ValueError(
            f"{weight.numel()} weights do not split into blocks of {block}: choose an even block that "
            "divides them"
        )
    if not torch.isfinite(weight).all():
        raise ValueError("a weight is not finite: quantize a model that has been trained without NaN")
    levels = nf4_levels() if levels is None else levels
    if not 2 <= len(levels) <= 16 or (levels.diff() <= 0).any():
        raise ValueError(f"levels={levels.tolist()}: four bits name 2 to 16 levels, which must ascend")
    blocks = weight.detach().float().reshape(-1, block)  # (N / G, G)
    scales = blocks.abs().amax(dim=1)
    scale_scales, mean, stored = None, None, scales
    if double:
        mean = scales.mean()
        padded = F.pad(scales - mean, (0, -len(scales) % SCALE_BLOCK)).view(-1, SCALE_BLOCK)
        scale_scales = (padded.abs().amax(dim=1) / 127).clamp_min(1e-12)
        stored = (padded / scale_scales[:, None]).round().to(torch.int8).flatten()[: len(scales)]
    normed = blocks / scales.clamp_min(1e-12)[:, None]  # -1 to 1
    codes = nearest_level(normed, levels).to(torch.uint8).flatten()
    packed = codes[0::2] * 16 + codes[1::2]
    return Quantized(
        packed, stored, levels.to(weight.device, copy=True), weight.shape, block, scale_scales, mean
    )


def dequantize(quantized: Quantized) -> Tensor:
    """Return the float32 tensor that the codes stand for."""
    q = quantized
    codes = torch.stack([q.codes // 16, q.codes % 16], dim=1).long()  # (N / 2, 2)
    blocks = q.levels[codes].view(-1, q.block) * q.block_scales()[:, None]
    return blocks.view(q.shape)


class QuantizedLinear(StoredWeight):
    """A frozen linear layer whose weight is stored in 4 bits and unpacked for each use.

    All that unpacks it is in the state dict, and stays in float32 when the model is narrowed with
    `half()` or `bfloat16()`. Raises ValueError where `quantize` does.

    >>> sorted(QuantizedLinear(nn.Linear(64, 2, bias=False)).state_dict())
    ['codes', 'levels', 'scale_mean', 'scale_scales', 'scales']
    """

    PARTS = ("codes", "scales", "levels", "scale_scales", "scale_mean")  # of `Quantized`

    def __init__(self, linear: nn.Linear, double: bool = True, **options):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        q = quantize(linear.weight, double=double, **options)
        for name in self.PARTS:  # buffers follow model.to(device)
            self.register_buffer(name, getattr(q, name))
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().clone())

    @property
    def weight(self) -> Tensor:
        """The unpacked weight, (out, in) in float32; it is made anew at each call."""
        block = 2 * len(self.codes) // len(self.scales)
        shape = torch.Size((self.out_features, self.in_features))
        return dequantize(Quantized(shape=shape, block=block, **{n: getattr(self, n) for n in self.PARTS}))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        return F.linear(x, self.weight.to(x.dtype), self.bias)


def quantize_linears(model: nn.Module, **options) -> nn.Module:
    """Replace every Linear inside the blocks of `model` by its 4-bit version, in place; freeze the rest.

    The embedding, the norms and the output stay as they are, as in QLoRA. Raises ValueError where
    `quantize` does; then the model stays as it was.
    """
    found = [
        (parent, name, QuantizedLinear(child, **options))
        for block in model.blocks
        for parent in list(block.modules())
        for name, child in parent.named_children()
        if isinstance(child, nn.Linear)
    ]
    model.requires_grad_(False)
    for parent, name, quantized in found:
        setattr(parent, name, quantized)
    return model
