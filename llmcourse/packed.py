"""Weights of 2, 3, 4 or 8 bits: how they are stored, and layers that unpack them for each use.

Dimensions: O outputs and I inputs of a weight (rows and columns), G weights that share a scale.
"""

from dataclasses import dataclass
from math import ceil

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BITS = (2, 3, 4, 8)


@dataclass(frozen=True)
class Scheme:
    """How a weight (O, I) becomes whole numbers: how many bits, who shares a scale, and which range.

    `group` neighbours in a row share a scale, or a whole "row", or the "tensor". Symmetric codes run
    from -(2^(bits-1) - 1) to its opposite; asymmetric ones from 0 to 2^bits - 1, and each group
    keeps the code that stands for 0. Raises ValueError for other values.

    >>> print(Scheme(3, "row")), Scheme(2, 64, symmetric=False).n_bytes((192, 192))
    int3 row symmetric
    (None, 10512)
    """

    bits: int
    group: int | str = 64
    symmetric: bool = True

    def __post_init__(self):
        if self.bits not in BITS:
            raise ValueError(f"bits={self.bits!r}: choose one of {BITS}")
        is_count = type(self.group) is int and self.group >= 1
        if not (is_count or self.group in ("row", "tensor")):
            raise ValueError(f'group={self.group!r}: give a number of weights such as 64, "row" or "tensor"')
        if type(self.symmetric) is not bool:
            raise ValueError(f"symmetric={self.symmetric!r}: give True or False")

    def __str__(self) -> str:
        return f"int{self.bits} {self.group} {'symmetric' if self.symmetric else 'asymmetric'}"

    @property
    def low(self) -> int:
        """The smallest code."""
        return -self.high if self.symmetric else 0

    @property
    def high(self) -> int:
        """The largest code."""
        return 2 ** (self.bits - 1) - 1 if self.symmetric else 2**self.bits - 1

    def scale_shape(self, shape: tuple[int, int]) -> tuple[int, ...]:
        """Return the shape of the scales of a weight: (O, I / G), (O,) for rows, () for a tensor.

        Raises ValueError unless the shape has two sizes above 0 and groups divide the second.
        """
        if len(shape) != 2 or 0 in shape:
            raise ValueError(f"a weight of shape {tuple(shape)}: only matrices (outputs, inputs) are packed")
        if isinstance(self.group, int) and shape[1] % self.group:
            raise ValueError(
                f"group={self.group} does not divide the {shape[1]} inputs of a weight of {tuple(shape)}: "
                'choose a group that does, or "row"'
            )
        if self.group == "tensor":
            return ()
        return (shape[0],) if self.group == "row" else (shape[0], shape[1] // self.group)

    def blocks(self, weight: Tensor) -> Tensor:
        """Return the weight (O, I) as (number of scales, G). Raises ValueError as `scale_shape` does."""
        return weight.reshape(torch.Size(self.scale_shape(weight.shape)).numel(), -1)

    def n_bytes(self, shape: tuple[int, int]) -> int:
        """Return the bytes of a packed weight: codes, scales of two bytes, and codes of 0 if asymmetric."""
        n_scales = torch.Size(self.scale_shape(shape)).numel()
        zeros = 0 if self.symmetric else ceil(n_scales * self.bits / 8)
        return shape[0] * ceil(shape[1] * self.bits / 8) + 2 * n_scales + zeros


def pack_bits(codes: Tensor, bits: int) -> Tensor:
    """Return codes from 0 to 2^bits - 1, (..., N), as bytes (..., ceil(N · bits / 8)): no bit is left between.

    The first code is in the lowest bits of the first byte. Raises ValueError for codes out of range.

    >>> pack_bits(torch.tensor([1, 2, 3, 0, 1]), bits=2).tolist()
    [57, 1]
    """
    if codes.is_floating_point() or codes.dim() == 0 or (codes < 0).any() or (codes >= 2**bits).any():
        raise ValueError(f"codes of {bits} bits must be rows of whole numbers from 0 to {2**bits - 1}")
    places = torch.arange(bits, device=codes.device)
    stream = ((codes[..., None] >> places) & 1).flatten(-2)  # (..., N · bits): zeros and ones
    stream = F.pad(stream, (0, -stream.shape[-1] % 8)).unflatten(-1, (-1, 8))
    return (stream << torch.arange(8, device=codes.device)).sum(-1).to(torch.uint8)


def unpack_bits(packed: Tensor, bits: int, n: int) -> Tensor:
    """Return the `n` codes (..., n) in each row of bytes that `pack_bits` made, in uint8.

    >>> unpack_bits(torch.tensor([57, 1], dtype=torch.uint8), bits=2, n=5).tolist()
    [1, 2, 3, 0, 1]
    """
    if 8 % bits:  # three bytes hold eight codes of three bits: one number of 24 bits
        packed = F.pad(packed, (0, -packed.shape[-1] % 3)).unflatten(-1, (-1, 3)).int()
        packed = packed[..., 0] | packed[..., 1] << 8 | packed[..., 2] << 16
    places = torch.arange(0, 24 if 8 % bits else 8, bits, device=packed.device, dtype=packed.dtype)
    codes = (packed[..., None] >> places) & (2**bits - 1)
    return codes.flatten(-2)[..., :n].to(torch.uint8)


def dequantized(codes: Tensor, scales: Tensor, zeros: Tensor | None) -> Tensor:
    """Return (codes - zeros) · scales in float32; `scales` and `zeros` broadcast to the shape of `codes`.

    Source: Jacob et al. 2017, arXiv:1712.05877, eq. 1.
    """
    return (codes.float() if zeros is None else codes.float() - zeros) * scales.float()


def dequantize_weight(codes: Tensor, scales: Tensor, zeros: Tensor | None, scheme: Scheme) -> Tensor:
    """Return the float32 weight (O, I) that codes (O, I) stand for, with `scheme.scale_shape((O, I))` scales."""
    columns = (part if part is None else part.reshape(-1, 1) for part in (scales, zeros))
    return dequantized(scheme.blocks(codes), *columns).view(codes.shape)


class StoredWeight(nn.Module):
    """A layer whose weight is made anew, for each use, from the buffers that PARTS names.

    They keep their dtype when the model is narrowed with `half()` or `bfloat16()`, and a state with
    parts of another kind is refused.
    """

    PARTS = ()  # "codes" among them

    def _apply(self, fn, recurse=True):
        """Take the parts along to another device, never to another dtype."""
        exact = {name: getattr(self, name) for name in self.PARTS}
        super()._apply(fn, recurse)
        for name, part in exact.items():
            if part is not None:
                setattr(self, name, part.to(getattr(self, name).device))
        return self

    def _load_from_state_dict(self, state, prefix, meta, strict, missing, unexpected, errors):
        """Refuse a state of other parts: torch would cast scales of 32 bits to the 8 bits of this layer."""
        for name in self.PARTS if f"{prefix}codes" in state else ():
            parts = state.get(prefix + name), getattr(self, name)
            there, here = ("not there" if part is None else str(part.dtype) for part in parts)
            if there != here:
                errors.append(
                    f"{prefix}{name} is {there} in the state and {here} in the model: quantized with other "
                    "options, or by a version that left it out; quantize the original weights again"
                )
        super()._load_from_state_dict(state, prefix, meta, strict, missing, unexpected, errors)


class Packed(StoredWeight):
    """A weight (O, I) of whole numbers in memory as in the file: what the two layers below share.

    `codes` are int8 or uint8 (O, I) for 8 bits, else bytes (O, ceil(I · bits / 8)) of `pack_bits`, to
    which symmetric codes go raised by 2^(bits-1); `scales` are float16; `zeros`, of asymmetric schemes
    only, are packed in one row.
    """

    PARTS = ("codes", "scales", "zeros")

    def __init__(self, scheme: Scheme, shape: tuple[int, int]):
        super().__init__()
        self.shared = ()  # the layer whose parts are read, in a tuple: it is no part of this one
        self.scheme, self.shape = scheme, tuple(shape)
        scales = torch.empty(scheme.scale_shape(shape), dtype=torch.float16)
        width, kind = ceil(shape[1] * scheme.bits / 8), torch.uint8
        if scheme.bits == 8 and scheme.symmetric:
            kind = torch.int8
        zeros = torch.empty(ceil(scales.numel() * scheme.bits / 8), dtype=torch.uint8)
        self.register_buffer("codes", torch.empty(shape[0], width, dtype=kind))
        self.register_buffer("scales", scales)
        self.register_buffer("zeros", None if scheme.symmetric else zeros)

    @classmethod
    def from_codes(cls, codes: Tensor, scales: Tensor, zeros: Tensor | None, scheme: Scheme, bias=None):
        """Return a layer with these whole numbers, as `compress.rounding.quantize_weight` returns them.

        Raises ValueError for parts that do not fit the scheme or one another.
        """
        layer = cls(scheme, codes.shape, **({} if bias is None else {"bias": True}))
        wanted, scales = layer.scales.shape, scales.to(torch.float16, copy=True)
        found = [tuple(part.shape) for part in (scales, zeros) if part is not None]
        if (
            found != [wanted] * (1 if scheme.symmetric else 2)
            or not (scales > 0).all()
            or scales.isinf().any()
        ):
            raise ValueError(
                f"{scheme} of {tuple(codes.shape)} needs scales{'' if scheme.symmetric else ' and zeros'} of "
                f"{tuple(wanted)}, positive and finite in float16, and not {found}: take what quantize_weight returns"
            )
        if codes.is_floating_point() or (codes < scheme.low).any() or (codes > scheme.high).any():
            raise ValueError(f"codes of {scheme} are whole numbers from {scheme.low} to {scheme.high}")
        layer.scales, layer.codes = scales, codes.to(layer.codes.dtype, copy=True)
        if scheme.bits < 8:
            layer.codes = pack_bits(codes.long() + layer.offset, scheme.bits)
        if zeros is not None:
            layer.zeros = pack_bits(zeros.flatten().long(), scheme.bits)
        if bias is not None:
            layer.bias = bias.detach().clone()
        return layer

    def share(self, other: "Packed") -> None:
        """Read what another layer reads, now and after both are moved to another device."""
        self.scheme, self.shared = other.scheme, (other,)
        for name in self.PARTS:
            setattr(self, name, getattr(other, name))

    def _apply(self, fn, recurse=True):
        """Take the parts along; those of another layer stay one, if that has moved to the same place."""
        super()._apply(fn, recurse)
        for other in self.shared:
            if other.codes.device == self.codes.device:
                self.share(other)
        return self

    @property
    def offset(self) -> int:
        """What is added to symmetric codes of fewer than 8 bits, so that none is negative."""
        return 2 ** (self.scheme.bits - 1) if self.scheme.symmetric and self.scheme.bits < 8 else 0

    @property
    def weight(self) -> Tensor:
        """The unpacked weight, (O, I) in float32; it is made anew at each call."""
        bits, codes, zeros = self.scheme.bits, self.codes, self.zeros
        if bits < 8:
            codes = unpack_bits(codes, bits, self.shape[1]).to(torch.int8) - self.offset
        if zeros is not None:
            zeros = unpack_bits(zeros, bits, self.scales.numel())
        return dequantize_weight(codes, self.scales, zeros, self.scheme)

    def extra_repr(self) -> str:
        return f"{self.shape[1]} to {self.shape[0]}, {self.scheme}"


class PackedLinear(Packed):
    """A frozen linear layer with a packed weight; its bias stays a float.

    >>> from llmcourse.compress.rounding import quantize_weight
    >>> scheme = Scheme(8, "row")
    >>> layer = PackedLinear.from_codes(*quantize_weight(torch.eye(2), scheme), scheme)
    >>> layer(torch.tensor([1.0, 2.0])).round(decimals=2).tolist(), layer.codes.dtype
    ([1.0, 2.0], torch.int8)
    """

    def __init__(self, scheme: Scheme, shape: tuple[int, int], bias: bool = False):
        super().__init__(scheme, shape)
        self.out_features, self.in_features = shape
        self.register_buffer("bias", torch.empty(shape[0]) if bias else None)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., I) to (..., O)."""
        return F.linear(x, self.weight.to(x.dtype), self.bias)


class PackedEmbedding(Packed):
    """A frozen embedding with a packed table (V, C), one row a token, in the precision of the model."""

    def __init__(self, scheme: Scheme, shape: tuple[int, int]):
        super().__init__(scheme, shape)
        self.register_buffer("like", torch.zeros(0), persistent=False)  # follows the model's dtype

    @classmethod
    def from_codes(cls, codes, scales, zeros, scheme, like: Tensor | None = None):
        """Return what `Packed.from_codes` does, in the precision of the table `like`."""
        layer = super().from_codes(codes, scales, zeros, scheme)
        layer.like = layer.like.to(torch.float32 if like is None else like.dtype)
        return layer

    @property
    def weight(self) -> Tensor:
        """The unpacked table (V, C)."""
        return super().weight.to(self.like.dtype)

    def forward(self, token_ids: Tensor) -> Tensor:
        """Map ids (...,) to rows (..., C)."""
        return F.embedding(token_ids, self.weight)
