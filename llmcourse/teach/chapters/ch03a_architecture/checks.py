"""Exercises of chapter 3a: the architecture."""

import math

import torch
import torch.nn.functional as F

from llmcourse.teach.examine import close, compare, examine
from llmcourse.teach.exercises import exercise, require
from llmcourse.teach.forms import number, tensor


@exercise(
    "03a-rmsnorm",
    "Write RMSNorm",
    minutes=6,
    difficulty=1,
    hints=(
        "Root-mean-square, read backwards: square, mean over the last dimension, root.",
        "keepdim=True keeps a dimension of 1, so that the division broadcasts.",
        "eps is added inside the root, so that a vector of zeros does not divide by zero.",
    ),
    wants="function",
    form=tensor,
)
def check_rmsnorm(answer):
    """Compare with torch.nn.functional.rms_norm; eps shows at a short vector, or where it is given."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 8, generator=generator) * 4 + 1
    gain = torch.linspace(0.5, 2.0, 8)
    cases = {
        "the values differ from torch's rms_norm": (x, gain),
        "right for x of the shape (2, 3, 8), but not for (5, 6)": (
            x.flatten()[:30].view(5, 6),
            gain[:6] - 1.2,
        ),
    }

    def over(scale):  # the norm that divides by this
        return lambda x, gain: x / scale(x) * gain

    slips = {
        "you subtract the mean: that is LayerNorm; RMSNorm does not": (
            lambda x, gain: F.layer_norm(x, x.shape[-1:], gain),
            lambda x, gain: (x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True) * gain,
        ),
        "the gain is missing: multiply by it at the end": lambda x, gain: F.rms_norm(x, x.shape[-1:]),
        "you divide by the gain: multiply by it": lambda x, gain: F.rms_norm(x, x.shape[-1:]) / gain,
        "the gain is added: multiply by it": lambda x, gain: F.rms_norm(x, x.shape[-1:]) + gain,
        "you divide by the length, the root of the SUM: take the mean": over(
            lambda x: x.norm(dim=-1, keepdim=True)
        ),
        "the root is missing": over(lambda x: x.pow(2).mean(-1, keepdim=True)),
        "you divide by the standard deviation, which subtracts the mean: take the mean of the SQUARES, and its root": (
            over(lambda x: x.std(-1, keepdim=True)),
            over(lambda x: x.std(-1, keepdim=True, correction=0)),
        ),
        "one root for everything: each vector, the LAST dimension, has its own": over(
            lambda x: x.pow(2).mean() ** 0.5
        ),
        "you take the mean over the first dimension (dim 0): each vector is a row of the LAST one": (
            over(lambda x: x.pow(2).mean(0, keepdim=True).sqrt())
        ),
        "you take the mean over dimension 1: each vector is a row of the LAST one": (
            over(lambda x: x.pow(2).mean(1, keepdim=True).sqrt())
        ),
        "the square is missing: square before you take the mean": (
            over(lambda x: x.mean(-1, keepdim=True)),
            over(lambda x: x.abs().mean(-1, keepdim=True)),
            over(lambda x: x.mean(-1, keepdim=True).abs()),
            over(lambda x: x.mean(-1, keepdim=True).abs().sqrt()),
            over(lambda x: x.abs().mean(-1, keepdim=True).sqrt()),
        ),
    }

    def right(x, gain):
        return F.rms_norm(x, x.shape[-1:], gain, 1e-5)

    examine(answer, right, cases, slips, "that of x", rtol=1e-4, atol=1e-5)
    zeros = answer(torch.zeros(1, 8), gain)
    require(zeros.isfinite().all(), "a vector of zeros gives nan: add eps under the root")
    outside = "eps is added under the root, to the mean of the squares; yours is added to the root"
    unlike = "for short vectors the values differ: eps, 1e-5, is added under the root, to the mean of squares"
    short, rms = x[0] / 5000, x[0].pow(2).mean(-1, keepdim=True).sqrt() / 5000
    own = (1e-5, 1e-6, 1e-7, torch.finfo(torch.float32).eps, 1e-8, 1e-12)  # whatever the learner chose
    value = answer(short, gain)
    if not any(close(value, F.rms_norm(short, (8,), gain, eps), 1e-3) for eps in own):
        require(not any(close(value, short / (rms + eps) * gain, 1e-3) for eps in own), outside)
        require(False, unlike)
    if answer.takes("eps"):
        given = answer(x, gain, eps=3.0)
        require(not close(given, right(x, gain), 1e-3), "use the eps that is given, not a number of your own")
        require(close(given, F.rms_norm(x, (8,), gain, 3.0), 1e-4), unlike.replace("1e-5", "the one given"))
    return "it equals torch.nn.functional.rms_norm, for a vector of zeros too."


@exercise(
    "03a-swiglu",
    "How wide must SwiGLU be?",
    minutes=5,
    difficulty=2,
    hints=(
        "The usual MLP has two matrices of 768 x 3072; SwiGLU has three of 768 x d_ff.",
        "Set 3 · d_ff = 2 · 3072.",
    ),
    wants="value",
    form=number,
)
def check_swiglu(answer):
    """8/3 of 768."""
    slips = {
        "with 3072 the three matrices hold half as many parameters again": 3072,
        "halving is too much: there are three matrices instead of two, not four": 1536,
        "the fraction is upside down: with 4608, 3 x 768 x d_ff is not 2 x 768 x 3072 but more": 4608,
        "a third is too little: 3 x 768 x 1024 is not 2 x 768 x 3072 but half of it": 1024,
        "that is two thirds of d_model: take two thirds of the hidden width, 3072": 512,
        "that is 8/3 of the hidden width: it should be 8/3 of d_model, 768": 8192,
        "that is the number of parameters: give the hidden width, d_ff": 2 * 768 * 3072,
    }
    compare(answer, 2048, slips, "with {value}, 3 x 768 x d_ff is not 2 x 768 x 3072", 0, 1e-3)
    return "two thirds of 4·d_model, as Llama's paper says in section 2.2."


@exercise(
    "03a-parameters",
    "Count GPT-2",
    minutes=10,
    difficulty=3,
    hints=(
        "Embeddings: vocab_size x d_model and context_length x d_model. The output uses the first one again.",
        "A block: attention 4 C² + 4 C; MLP 8 C² + 5 C; two norms with a gain and a bias, 4 C.",
        "After the last block there is one more norm, 2 C.",
    ),
    wants="function",
    form=number,
)
def check_parameters(answer):
    """The smallest GPT-2 has 124,439,808; other sizes tell the slips apart."""

    def count(missing=0, tokens=1, positions=1, d_ff=4):
        """The count, with `missing(C)` too few in each block."""

        def parameters(V, T, C, layers):
            block = 4 * C * C + 2 * d_ff * C * C + 4 * C + d_ff * C + C + 4 * C
            missed = missing(C) if missing else 0
            return tokens * V * C + positions * T * C + layers * (block - missed) + 2 * C

        return parameters

    right = count()
    slips = {
        "the output projection is tied to the token embedding: count it once": count(tokens=2),
        "the learned positions are missing: context_length x d_model": count(positions=0),
        "the token embedding is missing: vocab_size x d_model": count(tokens=0),
        "the last norm, after the blocks, is missing": lambda V, T, C, n: right(V, T, C, n) - 2 * C,
        "the last norm, after the blocks, has a bias too": lambda V, T, C, n: right(V, T, C, n) - C,
        "4·d_model are missing in each block: the two norms in each block have so many (a gain and a bias each), so "
        "have the biases of attention's four matrices, and the biases of the MLP's first layer": count(
            lambda C: 4 * C
        ),
        "the biases of the linear layers are missing: 9 C in each block": count(lambda C: 9 * C),
        "the biases of the MLP are missing: 4 C and C in each block": count(lambda C: 5 * C),
        "the biases of attention's queries, keys and values, or the bias of one layer and a norm, are missing: 3 C "
        "in each block": count(lambda C: 3 * C),
        "C is missing in each block: the last bias of the MLP, or that of attention's output": count(
            lambda C: C
        ),
        "2·d_model are missing in each block: there are two norms, each with a gain and a bias": count(
            lambda C: 2 * C
        ),
        "the norms have biases too, not gains only": lambda V, T, C, n: right(V, T, C, n) - (2 * n + 1) * C,
        "the norms are missing: two in each block, one after the last": (
            lambda V, T, C, n: right(V, T, C, n) - (4 * n + 2) * C
        ),
        "biases and norms are missing": lambda V, T, C, n: right(V, T, C, n) - n * 13 * C - 2 * C,
        "all biases are missing, those of the norms too": lambda V, T, C, n: (
            right(V, T, C, n) - n * 11 * C - C
        ),
        "3·d_model are too many in each block: the MLP's second layer has C biases, not 4 C": count(
            lambda C: -3 * C
        ),
        "attention's output projection is missing: four matrices of C x C": (
            count(lambda C: C * C + C),
            count(lambda C: C * C),
        ),
        "the MLP has two matrices, up and down": (count(lambda C: 4 * C * C), count(lambda C: 4 * C * C + C)),
        "the hidden width is 4·d_model": (count(d_ff=1), count(d_ff=2), count(d_ff=3)),
        "that is a single block: there are n_layers": lambda V, T, C, n: right(V, T, C, 1),
        "one block is missing": lambda V, T, C, n: right(V, T, C, n - 1),
        "that is one block too many": lambda V, T, C, n: right(V, T, C, n + 1),
        "the blocks alone: the embeddings are missing": lambda V, T, C, n: right(V, T, C, n) - (V + T) * C,
        "vocab_size and context_length count for the embeddings: times d_model": (
            lambda V, T, C, n: right(V, T, C, n) - (V + T) * C + V + T
        ),
    }
    cases = {
        "for the smallest GPT-2 you get {value}; it has {right} (difference {difference})": (
            50257,
            1024,
            768,
            12,
        ),
        "right for GPT-2, but not for other sizes: with d_model = 8 you get {value}, not {right}": (
            100,
            16,
            8,
            2,
        ),
        "right for two sizes, but not for n_layers = 3: you get {value}, not {right}": (37, 5, 20, 3),
    }
    examine(answer, right, cases, slips, rtol=0, atol=1e-3)
    return "124,439,808: the number that OpenAI's smallest GPT-2 has."


@exercise(
    "03a-first-loss",
    "What should the first loss be?",
    minutes=3,
    difficulty=1,
    hints=(
        "An untrained model gives every token about the same probability, 1/V.",
        "The loss is -ln p, with the natural logarithm: math.log(50257).",
    ),
    wants="value",
    form=number,
)
def check_first_loss(answer):
    """ln V."""
    slips = {
        "that is in bits; the loss uses the natural logarithm": math.log2(50257),
        "that is the logarithm to base 10; use the natural one": math.log10(50257),
        "the loss is MINUS the log of the probability, so it is positive": (
            -math.log(50257),
            -math.log2(50257),
            -math.log10(50257),
        ),
        "that is the probability of a token; it is not ln 50257, its cost in nats": (1 / 50257, 0),
    }
    compare(answer, math.log(50257), slips, "{value} is not ln 50257", rtol=0, atol=0.05)
    return "a first loss far above ln V means a bad start; far below, a leak."
