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


def rms_by_rows(x, gain, eps=1e-5):
    result = torch.empty_like(x)
    for place in np.ndindex(*x.shape[:-1]):
        mean = sum(v * v for v in x[place].tolist()) / x.shape[-1]
        result[place] = gain * x[place] / math.sqrt(mean + eps)
    return result


RIGHT["03a-rmsnorm"] = [
    rms_by_rows,
    lambda x, gain: x * (rms(x) + 1e-6).rsqrt() * gain,
    lambda x, gain: x.div_((x.norm(dim=-1, keepdim=True) / x.shape[-1] ** 0.5) + 1e-5) * gain,
]
WRONG["03a-rmsnorm"] = {
    "mean subtracted": ("LayerNorm", lambda x, gain: F.layer_norm(x, x.shape[-1:], gain)),
    "no gain": ("gain is missing", lambda x, gain: x / (rms(x) + 1e-5).sqrt()),
    "sum": ("root of the SUM", lambda x, gain: x / (x.norm(dim=-1, keepdim=True) + 1e-5) * gain),
    "no root": ("the root is missing", lambda x, gain: x / (rms(x) + 1e-5) * gain),
    "no eps": ("add eps under the root", lambda x, gain: x / rms(x).sqrt() * gain),
    "first dimension": (
        "values differ",
        lambda x, gain: x / (x.pow(2).mean(0, keepdim=True) + 1e-5).sqrt() * gain,
    ),
    "over everything": ("values differ", lambda x, gain: x / (x.pow(2).mean() + 1e-5).sqrt() * gain),
    "without keepdim": ("your code raised RuntimeError", lambda x, gain: x / x.pow(2).mean(-1).sqrt() * gain),
    "rows in a list": ("return a tensor", lambda x, gain: list(rms_by_rows(x, gain))),
    "the root only": ("return a tensor of the shape", lambda x, gain: rms(x).sqrt()),
}

# 03a-swiglu

RIGHT["03a-swiglu"] = [2 * 3072 // 3, 2048.0]
WRONG["03a-swiglu"] = {
    "as before": ("half as many parameters again", 3072),
    "half": ("three matrices instead of two", 1536),
    "one third": ("is not 2 x 768 x 3072", 1024),
    "3/2": ("is not 2 x 768 x 3072", 4608),
}

# 03a-parameters


def gpt2_parameters(V, T, C, layers, biases=1, norms=1, last_norm=1, tied=1, positions=1):
    """The number of parameters, with each part open to a slip."""
    block = 12 * C * C + biases * 9 * C + norms * 4 * C
    return V * C * (2 - tied) + positions * T * C + layers * block + last_norm * 2 * C


def without(**parts):
    return lambda V, T, C, layers: gpt2_parameters(V, T, C, layers, **parts)


RIGHT["03a-parameters"] = [gpt2_parameters, lambda *sizes: np.int64(gpt2_parameters(*sizes))]
WRONG["03a-parameters"] = {
    "untied": ("count it once", without(tied=0)),
    "no positions": ("learned positions are missing", without(positions=0)),
    "no last norm": ("last norm", without(last_norm=0)),
    "no norms in blocks": ("two norms in each block", without(norms=0)),
    "no biases": ("biases of the linear layers", without(biases=0)),
    "matrices only": ("biases and norms are missing", without(biases=0, norms=0, last_norm=0)),
    "one layer": ("difference -", lambda V, T, C, layers: gpt2_parameters(V, T, C, 1)),
    "fixed": ("not for other sizes", lambda *sizes: 124_439_808),
    "text": ("return a number", lambda *sizes: "124M"),
}

# 03a-first-loss

RIGHT["03a-first-loss"] = [10.82, 10.8, np.log(50257), torch.tensor(50257.0).log()]
WRONG["03a-first-loss"] = {
    "bits": ("in bits", math.log2(50257)),
    "base 10": ("base 10", math.log10(50257)),
    "sign": ("MINUS", -math.log(50257)),
    "probability": ("is not ln 50257", 1 / 50257),
    "perplexity": ("is not ln 50257", 50257),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers(name):
    assert_right(name, RIGHT[name])


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers_hear_what_is_wrong(name):
    assert_wrong(name, WRONG[name])
