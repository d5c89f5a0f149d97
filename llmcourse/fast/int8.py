"""Products with int8 weights: sums of int8 times int16, 16 at once in a register, and exact.

An int8 weight is a quarter of a float32 to wait for. The rows that meet it are rounded to int16 first:
that is a hundred times finer than the weights are, and processors multiply pairs of int16 and add the
two in one instruction. numba's loops find it for a quarter of a register, so the vectors are spelled
out here, in LLVM's terms, for which every processor has some instructions.

Dimensions: N rows, K inputs and M outputs of a product.
"""

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

from llmcourse.fast.machine import inner, pointer

LANES = 16  # int32 sums in a register of 512 bits, each of two products at a time
INT8, INT16, INT32 = (ir.IntType(bits) for bits in (8, 16, 32))
AHEAD = 2048  # bytes between the weights that are multiplied and those that are asked for
LEAST = np.float32(1e-30)  # rows of smaller numbers count as zeros


class Sums(types.Type):
    """numba's type of LANES numbers of int32."""


@register_model(Sums)
class SumsModel(models.PrimitiveModel):
    """They are one vector of LLVM."""

    def __init__(self, manager, kind):
        super().__init__(manager, kind, ir.VectorType(INT32, LANES))


sums = Sums("Sums")


@intrinsic
def nothing(context):
    """Return sums of nothing."""
    return sums(), lambda *_: ir.Constant(ir.VectorType(INT32, LANES), None)


def vector_at(context, builder, kind, array, index, number, length):
    """Return a pointer to the vector of `length` numbers in an array (of numba's `kind`), from `index` on."""
    place = builder.gep(context.make_array(kind)(context, builder, array).data, [index])
    return builder.bitcast(place, ir.VectorType(number, length).as_pointer())


def picked(builder, a, b, places):
    """Return the numbers at `places` of two vectors side by side."""
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(INT32, len(places)), list(places)))


def pair_sums(builder, a, b):
    """Return a[0] + a[1], a[2] + a[3], ... and then those of b, as one vector."""
    both = range(2 * a.type.count)
    return builder.add(picked(builder, a, b, both[::2]), picked(builder, a, b, both[1::2]))


@intrinsic
def plus_products(context, before, codes, x, k):
    """Return sums with the products of int8 codes[k : k + 32] and int16 x[k : k + 32] added, two to each."""

    def build(context, builder, signature, arguments):
        before, codes, x, k = arguments
        kinds, wide = signature.args, ir.VectorType(INT32, 2 * LANES)
        places = (
            vector_at(context, builder, kinds[1], codes, k, INT8, 2 * LANES),
            vector_at(context, builder, kinds[2], x, k, INT16, 2 * LANES),
        )
        ahead = builder.add(k, ir.Constant(k.type, AHEAD))
        fetch(builder, vector_at(context, builder, kinds[1], codes, ahead, INT8, 1))
        products = builder.mul(*(builder.sext(builder.load(place, align=1), wide) for place in places))
        even, odd = (picked(builder, products, products, range(i, 2 * LANES, 2)) for i in (0, 1))
        return builder.add(before, builder.add(even, odd))

    return sums(before, codes, x, k), build


def fetch(builder, place):
    """Ask for the memory at a place, which will be read soon; a place where there is none does no harm."""
    byte = INT8.as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [byte, INT32, INT32, INT32])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
    builder.call(
        function, [builder.bitcast(place, byte), INT32(0), INT32(3), INT32(1)]
    )  # to read, near, data


@intrinsic
def write_totals(context, out, o, a, b, c, d):
    """Write the totals of four sums to the int32 out[o : o + 4]."""

    def build(context, builder, signature, arguments):
        out, o, *each = arguments
        place = vector_at(context, builder, signature.args[0], out, o, INT32, 4)
        for n in (LANES // 2, LANES // 4):  # each vector's second half to its first
            each = [builder.add(*(picked(builder, v, v, range(i, i + n)) for i in (0, n))) for v in each]
        ab, cd = pair_sums(builder, *each[:2]), pair_sums(builder, *each[2:])
        builder.store(pair_sums(builder, ab, cd), place, align=4)
        return context.get_dummy_value()

    return types.void(out, o, a, b, c, d), build


@inner
def int8_matrix(address, rows, columns):
    """Return the (rows, columns) numbers of int8 at an address."""
    return carray(pointer(address), (rows, columns), np.int8)


@inner
def half_vector(address, n):
    """Return the bits of the (n,) float16 at an address; numba has no float16 on this side."""
    return carray(pointer(address), (n,), np.uint16)


@inner
def float_of_bits(bits):
    """Return the float32 with the bits of an int32."""
    return np.int32(bits).view(np.float32)


@inner
def float_of_half(bits):
    """Return the float32 of a float16 from its 16 bits: they move to their places, and the exponent grows by 112."""
    moved = float_of_bits((bits & 0x7FFF) << 13 | (bits & 0x8000) << 16)
    return moved * np.float32(2.0**112) if bits & 0x7C00 != 0x7C00 else np.float32(np.nan)


@inner
def rounded(x, steps):
    """Return x (N, K) as int16, `steps` for the largest number of a row, and what a step is worth, (N,).

    That is 0 for a row of zeros, and NaN for one that is not finite.
    """
    q, worth = np.zeros(x.shape, np.int16), np.zeros(len(x), np.float32)
    for n in range(len(x)):
        bits = np.int32(0)
        for k in range(x.shape[1]):  # without the sign, the bits of floats have the order of the floats
            bits = max(bits, np.int32(np.float32(x[n, k]).view(np.int32) & np.int32(0x7FFFFFFF)))
        top = float_of_bits(bits)
        if not top < np.inf:
            worth[n] = np.nan
        elif top > LEAST:
            worth[n], scale = top / steps, steps / top
            for k in range(x.shape[1]):
                q[n, k] = np.int16(np.rint(np.float32(x[n, k]) * scale))
    return q, worth


@inner
def write_products(q, worth, codes, o, found):
    """Write q (N, K) times four rows of codes (M, K), from o on, to found (N, M + 3)."""
    K, last = q.shape[1], len(codes) - 1
    whole = K - K % (2 * LANES)
    rows = codes[o], codes[min(o + 1, last)], codes[min(o + 2, last)], codes[min(o + 3, last)]
    for n in range(len(q)):
        if worth[n] != 0:
            a = b = c = d = nothing()
            for k in range(0, whole, 2 * LANES):
                a, b = plus_products(a, rows[0], q[n], k), plus_products(b, rows[1], q[n], k)
                c, d = plus_products(c, rows[2], q[n], k), plus_products(d, rows[3], q[n], k)
            write_totals(found[n], o, a, b, c, d)
            for k in range(whole, K):
                for i in range(4):
                    found[n, o + i] += np.int32(rows[i][k]) * np.int32(q[n, k])


@inner
def add_int8_product(x, codes, scales, out):
    """Add x (N, K) times packed weights to out (N, M): at addresses, int8 codes (M, K) and float16 scales (M,)."""
    (N, K), M = x.shape, out.shape[1]
    codes, scales = int8_matrix(codes, M, K), half_vector(scales, M)
    steps = np.float32(min(2**15 - 1, (2**31 - 1) // (128 * K)))  # so a sum fits into int32
    (q, worth), found = rounded(x, steps), np.zeros((N, M + 3), np.int32)
    for o in range(0, M, 4):
        write_products(q, worth, codes, o, found)
    for n in range(N):
        for o in range(M):
            out[n, o] += np.float32(found[n, o]) * float_of_half(scales[o]) * worth[n]


@inner
def write_int8_row(codes, scales, row, V, out):
    """Write one of V rows to out (C,), from codes and scales as in `add_int8_product`."""
    codes, scale = int8_matrix(codes, V, len(out)), float_of_half(half_vector(scales, V)[row])
    for i in range(len(out)):
        out[i] = np.float32(codes[row, i]) * scale
