"""The forward pass of a few tokens as machine code: plain loops, which numba compiles for this processor.

In a small model the calls between the products take as long as the products. Here all layers are one
call. Sums are ordered otherwise than in the model. Weights are found by their addresses, and what a model
lacks has the address 0, so that one compilation serves all models of a dtype, packed or not. It takes
seconds, once (`fast/machine.py`).

Dimensions: N rows (tokens; 1, or padded to 4, 8, ...), C width, H query heads, G heads of keys and values,
D head width, F hidden width, L layers, B texts or sources, S positions of one, V vocabulary; K inputs and
M outputs of a product.
"""

import math

import numpy as np

from llmcourse.fast.linear import add_product, product, write_row
from llmcourse.fast.machine import erf, exp, inner, kept, tanh, vector

KINDS = ("relu", "relu_squared", "gelu", "gelu_tanh", "silu", "swiglu")
RELU, RELU_SQUARED, GELU, GELU_TANH = range(4)


@inner
def normalize(x, gain, bias, eps, centred, out):
    """Write the norm of each row of x (N, C) to out: LayerNorm if `centred`, else RMSNorm; without a gain, x."""
    C, none = x.shape[1], x.dtype.type(0)
    gain, bias = vector(gain, C, x), vector(bias, C, x)
    for n in range(len(x)):
        mean = square = none
        for i in range(C if centred else 0):
            mean += x[n, i]
        mean /= x.dtype.type(C)
        for i in range(C):
            square += (x[n, i] - mean) * (x[n, i] - mean)
        scale = x.dtype.type(1 / math.sqrt(square / C + eps))
        for i in range(C):
            out[n, i] = (x[n, i] - mean) * scale * gain[i] if len(gain) else x[n, i]
        for i in range(len(bias)):
            out[n, i] += bias[i]


@inner
def activated(x, kind, F):
    """Return the activation of x (N, F), or of x (N, 2F) the second half times SiLU of the first."""
    out = np.empty((len(x), F), x.dtype)
    one, half, root = x.dtype.type(1), x.dtype.type(0.5), x.dtype.type(math.sqrt(0.5))
    slope, cube = x.dtype.type(math.sqrt(2 / math.pi)), x.dtype.type(0.044715)
    for n in range(len(x)):
        for i in range(F):
            y = x[n, i]
            if kind in (RELU, RELU_SQUARED):
                y = y if y > 0 or math.isnan(y) else x.dtype.type(0)
                y = y if kind == RELU else y * y
            elif kind == GELU:
                y = half * y * (one + erf(y * root))
            elif kind == GELU_TANH:
                y = half * y * (one + tanh(slope * (y + cube * y * y * y)))
            else:
                y = y / (one + exp(-y))
            out[n, i] = y
        for i in range(x.shape[1] - F):
            out[n, i] *= x[n, F + i]
    return out


@inner
def attend(q, keys, values, hidden, out):
    """Write to out (H, D) what queries q (H, D) take of keys and values (G, D, S or more).

    `hidden` (S,) is added to the scores: 0, or -inf where nobody looks. Who looks nowhere gets zeros.
    """
    (H, D), S, none = q.shape, len(hidden), q.dtype.type(0)
    scale, weights = q.dtype.type(1 / math.sqrt(D)), np.empty(S, q.dtype)
    for h in range(H):
        g, top, total = h * len(keys) // H, q.dtype.type(-1e30), none
        for s in range(S):
            weights[s] = hidden[s]
        for d in range(D):
            a = q[h, d] * scale
            for s in range(S):
                weights[s] += a * keys[g, d, s]
        for s in range(S):
            top = max(top, weights[s])
        for s in range(S):
            weights[s] = exp(weights[s] - top)
            total += weights[s]
        for d in range(D):
            a = none
            for s in range(S):
                a += weights[s] * values[g, d, s]
            out[h, d] = a / total if total != 0 else none


@inner
def turn(heads, cos, sin):
    """Rotate heads (H, D) in place by the angles of one position, (D/2,) or nothing."""
    for h in range(len(heads)):
        for i in range(len(cos)):
            a, b = heads[h, i], heads[h, i + len(cos)]
            heads[h, i] = a * cos[i] - b * sin[i]
            heads[h, i + len(cos)] = b * cos[i] + a * sin[i]


@inner
def before(x, layer, style):
    """Return what a part reads of x (N, C): its norm where that stands before, else x itself."""
    pre, centred, eps = style
    h = np.empty_like(x)
    normalize(x, layer[0] if pre else 0, layer[1] if pre else 0, eps, centred, h)
    return h


@inner
def after(x, layer, style):
    """Change x (N, C) to its norm, where that stands behind the sum."""
    pre, centred, eps = style
    if not pre:
        normalize(x, layer[0], layer[1], eps, centred, x)


@inner
def add_attention(x, layer, style, H, head_eps, known, hidden, where, cos, sin):
    """Add attention to x (N, C); keys and values of the new rows join `known` (B, 2 G, D, S).

    `where` (4, N) says for each row its text, its slot in `known`, and its place, which turns it.
    """
    texts, slots, places, G, D = where[0], where[1], where[2], known.shape[1] // 2, known.shape[2]
    rows = product(before(x, layer, style), layer[2:5], (H + 2 * G) * D)
    for n in range(len(texts)):
        heads = rows[n].reshape(-1, D)  # (H + 2 G, D)
        normalize(heads[:H], layer[5], 0, head_eps, False, heads[:H])
        normalize(heads[H : H + G], layer[6], 0, head_eps, False, heads[H : H + G])
        turn(heads[: H + G], cos[places[n]], sin[places[n]])
        for g in range(2 * G):
            for d in range(D):
                known[texts[n], g, d, slots[n]] = heads[H + g, d]
    y = np.zeros((len(x), H * D), x.dtype)
    for n in range(len(texts)):
        b, q = texts[n], rows[n].reshape(-1, D)[:H]
        attend(q, known[b, :G], known[b, G:], hidden[b, : slots[n] + 1], y[n].reshape(-1, D))
    add_product(y, layer[7:], x)
    after(x, layer, style)


@inner
def add_cross_attention(x, layer, style, H, head_eps, known, hidden, texts):
    """Add attention to sources, `known` (B, 2 G, D, S), to x (N, C); row n looks at source texts[n]."""
    G, D = known.shape[1] // 2, known.shape[2]
    rows, y = product(before(x, layer, style), layer[2:5], H * D), np.zeros((len(x), H * D), x.dtype)
    for n in range(len(texts)):
        b, q = texts[n], rows[n].reshape(-1, D)
        normalize(q, layer[5], 0, head_eps, False, q)
        attend(q, known[b, :G], known[b, G:], hidden[b], y[n].reshape(-1, D))
    add_product(y, layer[6:], x)
    after(x, layer, style)


@inner
def add_mlp(x, layer, style, kind, F):
    """Add the MLP to x (N, C)."""
    rows = product(before(x, layer, style), layer[2:5], 2 * F if kind == len(KINDS) - 1 else F)
    add_product(activated(rows, kind, F), layer[5:], x)
    after(x, layer, style)


@inner
def embedded(ids, embedding, V, scale, table, places):
    """Return x (N, C) for ids below V, padded with zeros from two rows on; `table` (S, C) holds positions, or nothing.

    `embedding` are the addresses of the tokens' table and of its scales.
    """
    N = len(ids)
    x = np.zeros((1 if N == 1 else (N + 3) // 4 * 4, table.shape[1]), table.dtype)
    for n in range(N):
        if ids[n] < 0 or ids[n] >= V:
            raise IndexError("a token id is outside the vocabulary")
        write_row(embedding, ids[n], V, x[n])
        for i in range(x.shape[1]):
            x[n, i] *= x.dtype.type(scale)
            if len(table):
                x[n, i] += table[places[n], i]
    return x


@inner
def every(x, wanted, n_wanted, N):
    """Return rows wanted - 1, 2 wanted - 1, ... of x, `n_wanted` of them, padded with zeros to (N, C)."""
    rows = np.zeros((N, x.shape[1]), x.dtype)
    for n in range(n_wanted):
        for i in range(x.shape[1]):
            rows[n, i] = x[(n + 1) * wanted - 1, i]
    return rows


@kept
def read(
    ids, where, wanted, layers, ends, sizes, numbers, table, cos, sin, known, hidden, source, masked, out
):  # fmt: skip
    """Add to out (N, V) the logits after every `wanted`-th of ids; keys and values join `known`.

    `where` (4, ids) says for each its text, slot in `known`, place, which positions see, and source.
    `layers` (L, 27) and `ends` (7,) are addresses; `compiled.py` says in what order, and what the rest is.
    """
    H, F, kind = sizes[0], sizes[1], sizes[2]
    style, head_eps = (sizes[3] == 1, sizes[4] == 1, numbers[0]), numbers[1]
    x = embedded(ids, ends[5:], sizes[5], numbers[2], table, where[2])
    for i in range(len(layers)):
        add_attention(x, layers[i, :10], style, H, head_eps, known[i], hidden, where, cos, sin)
        if len(source):
            add_cross_attention(x, layers[i, 10:19], style, H, head_eps, source[i], masked, where[3])
        if i == len(layers) - 1 and wanted > 1:
            x = every(x, wanted, len(ids) // wanted, len(out))
        add_mlp(x, layers[i, 19:], style, kind, F)
    normalize(x, ends[0], ends[1], numbers[0], style[1], x)
    add_product(x, ends[2:5], out)
