"""What the loops of `fast/kernels.py` ask of numba: how they are compiled, numbers at an address, exp and others.

The compiled code is kept beside `kernels.py`, or in numba's cache for users, and made anew when that file
changes; after a change here, or in `linear.py` and `int8.py`, touch it.
"""

import math

import numpy as np
from numba import carray, njit, types
from numba.extending import intrinsic, overload

SUMS = {"reassoc", "contract", "nsz", "arcp"}  # of LLVM's flags: sums in any order, but NaN stays NaN
options = dict(fastmath=SUMS, error_model="numpy")
inner = njit(**options, no_cpython_wrapper=True)


def kept(function):
    """Compile a function, and keep the code for other processes if there is a folder to write to."""
    try:
        return njit(**options, cache=True)(function)
    except RuntimeError:
        return njit(**options)(function)


@intrinsic
def pointer(context, address):
    """Return an address as a pointer."""

    def build(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(types.voidptr))

    return types.voidptr(address), build


@inner
def matrix(address, rows, columns, like):
    """Return the (rows, columns) numbers at an address, of the dtype of `like`."""
    return carray(pointer(address), (rows, columns), like.dtype)


@inner
def vector(address, n, like):
    """Return the (n,) numbers at an address, of the dtype of `like`, or an empty array for address 0."""
    return carray(pointer(address), (n if address else 0,), like.dtype)


@inner
def exp_float32(x):
    """Return exp(x) as 2^n · exp(r), |r| <= ln(2) / 2, where 2^n is written into the exponent's bits; to 5e-7 of it."""
    f = np.float32
    x = min(max(x, f(-87)), f(88))
    n = f(math.floor(x * f(1.4426950408889634) + f(0.5)))
    r = x - n * f(0.693359375) + n * f(2.12194440e-4)
    y = f(1 / 720)
    for i in (120, 24, 6, 2, 1, 1):
        y = y * r + f(1) / f(i)
    return y * np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)


@inner
def erf_float32(x):
    """Return erf(x) as 1 - polynomial(t) · exp(-x²), t = 1 / (1 + 0.33 |x|); to 5e-7.

    Source: Abramowitz and Stegun 1964, Handbook of Mathematical Functions, 7.1.26.
    """
    f = np.float32
    t = f(1) / (f(1) + f(0.3275911) * abs(x))
    y = f(1.061405429)
    for a in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        y = y * t + f(a)
    y = f(1) - y * t * exp_float32(-x * x)
    return -y if x < f(0) else y


@inner
def tanh_float32(x):
    """Return tanh(x) as 1 - 2 / (exp(2x) + 1); to 2e-7."""
    f = np.float32
    return f(1) - f(2) / (exp_float32(x + x) + f(1))


def exp(x):
    """Return exp(x); that of float32 is one that a loop computes for 16 numbers at once, as erf and tanh are."""
    return math.exp(x)


def erf(x):
    """Return erf(x)."""
    return math.erf(x)


def tanh(x):
    """Return tanh(x)."""
    return math.tanh(x)


@overload(exp)
def _(x):
    return (lambda x: exp_float32(x)) if x == types.float32 else (lambda x: math.exp(x))


@overload(erf)
def _(x):
    return (lambda x: erf_float32(x)) if x == types.float32 else (lambda x: math.erf(x))


@overload(tanh)
def _(x):
    return (lambda x: tanh_float32(x)) if x == types.float32 else (lambda x: math.tanh(x))
