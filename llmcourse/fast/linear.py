"""A linear layer for a few rows as machine code, with weights of float or of int8 (`fast/int8.py`).

A product with a single row waits for the weights to arrive. A weight that has arrived serves four rows
here: four drafts or beams cost less than two tokens, one after the other.

Dimensions: N rows (1, or padded to 4, 8, ...), K inputs and M outputs of a product, V rows of a table.
"""

import numpy as np

from llmcourse.fast.int8 import add_int8_product, write_int8_row
from llmcourse.fast.machine import inner, matrix, vector


@inner
def add_four(out, o, a, b, c, d):
    """Add four numbers to out (M,), from o on."""
    out[o] += a
    out[o + 1] += b
    out[o + 2] += c
    out[o + 3] += d


@inner
def add_tiles(x, weight, o, out):
    """Add four columns of x times weight to out, from o on, four rows at once: 16 sums in registers."""
    none = x.dtype.type(0)
    for n in range(0, len(x), 4):
        a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = c0 = c1 = c2 = c3 = d0 = d1 = d2 = d3 = none
        for k in range(weight.shape[1]):
            p, q, r, s = weight[o, k], weight[o + 1, k], weight[o + 2, k], weight[o + 3, k]
            a, b, c, d = x[n, k], x[n + 1, k], x[n + 2, k], x[n + 3, k]
            a0, a1, a2, a3 = a0 + a * p, a1 + a * q, a2 + a * r, a3 + a * s
            b0, b1, b2, b3 = b0 + b * p, b1 + b * q, b2 + b * r, b3 + b * s
            c0, c1, c2, c3 = c0 + c * p, c1 + c * q, c2 + c * r, c3 + c * s
            d0, d1, d2, d3 = d0 + d * p, d1 + d * q, d2 + d * r, d3 + d * s
        add_four(out[n], o, a0, a1, a2, a3)
        add_four(out[n + 1], o, b0, b1, b2, b3)
        add_four(out[n + 2], o, c0, c1, c2, c3)
        add_four(out[n + 3], o, d0, d1, d2, d3)


@inner
def add_float_product(x, weight, out):
    """Add x (N, K) times the (M, K) numbers at the address `weight` to out (N, M)."""
    (N, K), M = x.shape, out.shape[1]
    weight, tiled = matrix(weight, M, K, x), M - M % 4
    for o in range(0, tiled, 4):
        if N > 1:
            add_tiles(x, weight, o, out)
            continue
        a = b = c = d = x.dtype.type(0)
        for k in range(K):
            y = x[0, k]
            a += weight[o, k] * y
            b += weight[o + 1, k] * y
            c += weight[o + 2, k] * y
            d += weight[o + 3, k] * y
        add_four(out[0], o, a, b, c, d)
    for n in range(N):
        for o in range(tiled, M):
            total = x.dtype.type(0)
            for k in range(K):
                total += weight[o, k] * x[n, k]
            out[n, o] += total


@inner
def add_product(x, layer, out):
    """Add what a linear layer makes of x (N, K) to out (N, M): its addresses are of weight, scales and bias.

    Without scales the weights are numbers of the dtype of x, else packed.
    """
    if layer[1]:
        add_int8_product(x, layer[0], layer[1], out)
    else:
        add_float_product(x, layer[0], out)
    bias = vector(layer[2], out.shape[1], x)
    for n in range(len(x)):
        for o in range(len(bias)):
            out[n, o] += bias[o]


@inner
def product(x, layer, M):
    """Return what `add_product` would add, (N, M)."""
    out = np.zeros((len(x), M), x.dtype)
    add_product(x, layer, out)
    return out


@inner
def write_row(table, row, V, out):
    """Write one row of a table of V rows to out (C,); its addresses are of numbers and scales, as of a layer."""
    if table[1]:
        write_int8_row(table[0], table[1], row, V, out)
    else:
        numbers = matrix(table[0], V, len(out), out)
        for i in range(len(out)):
            out[i] = numbers[row, i]
