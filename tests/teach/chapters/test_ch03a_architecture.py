"""Chapter 3a: answers that learners give, right and wrong."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from answers import assert_right, assert_wrong

RIGHT, WRONG = {}, {}


# 03a-rmsnorm


def rms(x):
    return x.pow(2).mean(-1, keepdim=True)


def rms_in_numpy(x, gain, eps):
    return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + eps) * gain


def rms_by_rows(x, gain, eps=1e-5):
    result = torch.empty_like(x)
    for place in np.ndindex(*x.shape[:-1]):
        mean = sum(v * v for v in x[place].tolist()) / x.shape[-1]
        result[place] = gain * x[place] / math.sqrt(mean + eps)
    return result


RIGHT["03a-rmsnorm"] = [
    rms_by_rows,
    lambda x, gain: x * (rms(x) + 1e-6).rsqrt() * gain,
    lambda x, gain: x.div_((x.pow(2).mean(-1, keepdim=True) + 1e-8).sqrt_()) * gain,
    lambda x, gain, eps=1e-5: rms_in_numpy(x.numpy(), gain.numpy(), eps),
    lambda x, gain: F.rms_norm(x, x.shape[-1:], gain),
    lambda x, gain, *, eps=1e-5: torch.einsum("...c,c,...->...c", x, gain, (rms(x)[..., 0] + eps).rsqrt()),
]
WRONG["03a-rmsnorm"] = {
    "mean subtracted": ("LayerNorm", lambda x, gain: F.layer_norm(x, x.shape[-1:], gain)),
    "no gain": ("gain is missing", lambda x, gain: x / (rms(x) + 1e-5).sqrt()),
    "sum": ("root of the SUM", lambda x, gain: x / (x.norm(dim=-1, keepdim=True) + 1e-5) * gain),
    "no root": ("the root is missing", lambda x, gain: x / (rms(x) + 1e-5) * gain),
    "no eps": ("add eps under the root", lambda x, gain: x / rms(x).sqrt() * gain),
    "eps outside": ("under the root", lambda x, gain: x / (rms(x).sqrt() + 1e-5) * gain),
    "eps outside, another": ("under the root", lambda x, gain: x / (rms(x).sqrt() + 1e-6) * gain),
    "eps outside, given": ("under the root", lambda x, gain, eps=1e-5: x / (rms(x).sqrt() + eps) * gain),
    "large eps": ("for short vectors the values differ", lambda x, gain: x / (rms(x) + 1e-3).sqrt() * gain),
    "own eps": ("the eps that is given", lambda x, gain, eps=1e-5: x / (rms(x) + 1e-5).sqrt() * gain),
    "deviation": ("standard deviation", lambda x, gain: x / (x.std(-1, keepdim=True) + 1e-5) * gain),
    "no square": (
        "the square is missing",
        lambda x, gain: x / (x.abs().mean(-1, keepdim=True) + 1e-5) * gain,
    ),
    "gain divided": ("you divide by the gain", lambda x, gain: x * (rms(x) + 1e-5).rsqrt() / gain),
    "middle dimension": (
        "over dimension 1",
        lambda x, gain: x * (x.pow(2).mean(1, keepdim=True) + 1e-5).rsqrt() * gain,
    ),
    "one vector": ("not for (5, 6)", lambda x, gain: rms_by_rows(x, gain) if x.ndim == 3 else x * gain),
    "first dimension": (
        "(dim 0)",
        lambda x, gain: x / (x.pow(2).mean(0, keepdim=True) + 1e-5).sqrt() * gain,
    ),
    "over everything": (
        "one root for everything",
        lambda x, gain: x / (x.pow(2).mean() + 1e-5).sqrt() * gain,
    ),
    "without keepdim": ("your code raised RuntimeError", lambda x, gain: x / x.pow(2).mean(-1).sqrt() * gain),
    "rows in a list": ("torch.stack", lambda x, gain: list(rms_by_rows(x, gain))),
    "the root only": ("that of x, here (2, 3, 8); yours is (2, 3, 1)", lambda x, gain: rms(x).sqrt()),
}

# 03a-swiglu

RIGHT["03a-swiglu"] = [2 * 3072 // 3, 2048.0]
WRONG["03a-swiglu"] = {
    "as before": ("half as many parameters again", 3072),
    "half": ("three matrices instead of two", 1536),
    "one third": ("is not 2 x 768 x 3072", 1024),
    "3/2": ("upside down: with 4608", 4608),
    "of d_model": ("two thirds of d_model", 512),
    "of the hidden width": ("8/3 of the hidden width", 8192),
    "near": ("with 2049, 3 x 768", 2049),
}

# 03a-parameters


def gpt2_parameters(V, T, C, layers, biases=1, norms=1, last_norm=1, tied=1, positions=1):
    """The number of parameters, with each part open to a slip."""
    block = 12 * C * C + biases * 9 * C + norms * 4 * C
    return V * C * (2 - tied) + positions * T * C + layers * block + last_norm * 2 * C


def without(**parts):
    return lambda V, T, C, layers: gpt2_parameters(V, T, C, layers, **parts)


def plus(block, after=lambda C: 0):
    return lambda V, T, C, layers: gpt2_parameters(V, T, C, layers) + layers * block(C) + after(C)


RIGHT["03a-parameters"] = [
    gpt2_parameters,
    lambda *sizes: np.int64(gpt2_parameters(*sizes)),
    lambda V, T, C, n: (
        (V + T + 2) * C
        + n * sum(a * b + b for a, b in [(C, 3 * C), (C, C), (C, 4 * C), (4 * C, C)])
        + 4 * n * C
    ),
    lambda vocab_size, context_length, d_model, n_layers: torch.tensor(
        gpt2_parameters(vocab_size, context_length, d_model, n_layers)
    ),
]
WRONG["03a-parameters"] = {
    "untied": ("count it once", without(tied=0)),
    "no positions": ("learned positions are missing", without(positions=0)),
    "no last norm": ("last norm", without(last_norm=0)),
    "no norms in blocks": ("two norms in each block", without(norms=0)),
    "no biases": ("biases of the linear layers", without(biases=0)),
    "matrices only": ("biases and norms are missing", without(biases=0, norms=0, last_norm=0)),
    "no biases of attention": ("attention's four matrices", plus(lambda C: -4 * C)),
    "no biases of the MLP": ("biases of the MLP are missing", plus(lambda C: -5 * C)),
    "one norm": ("two norms, each with a gain and a bias", plus(lambda C: -2 * C)),
    "gains only": ("biases too, not gains only", plus(lambda C: -2 * C, after=lambda C: -C)),
    "biases of 4 C twice": ("3·d_model are too many", plus(lambda C: 3 * C)),
    "three matrices": ("output projection", plus(lambda C: -C * C - C)),
    "no norm at all": ("the norms are missing: two", without(norms=0, last_norm=0)),
    "off by one": ("(difference 1)", lambda *sizes: gpt2_parameters(*sizes) + 1),
    "1 %": ("1.01 times", lambda *sizes: 1.01 * gpt2_parameters(*sizes)),
    "one layer": ("a single block", lambda V, T, C, layers: gpt2_parameters(V, T, C, 1)),
    "fixed": ("not for other sizes", lambda *sizes: 124_439_808),
    "text": ("give a number", lambda *sizes: "124M"),
}

# 03a-first-loss

RIGHT["03a-first-loss"] = [10.82, 10.8, np.log(50257), torch.tensor(50257.0).log()]
WRONG["03a-first-loss"] = {
    "bits": ("in bits", math.log2(50257)),
    "base 10": ("base 10", math.log10(50257)),
    "sign": ("MINUS", -math.log(50257)),
    "probability": ("is not ln 50257", 1 / 50257),
    "perplexity": ("is not ln 50257", 50257),
    "bits and sign": ("MINUS", -math.log2(50257)),
    "rounded": ("11 is not", 11),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers(name):
    assert_right(name, RIGHT[name])


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers_hear_what_is_wrong(name):
    assert_wrong(name, WRONG[name])
