"""Exercises of chapter 3a: the architecture."""

import math

import torch

from llmcourse.teach.exercises import exercise, require


def rms_norm(x, gain, eps=1e-5):
    """Divide each vector by its root-mean-square, then multiply by the gain."""
    return x / (x.pow(2).mean(dim=-1, keepdim=True) + eps).sqrt() * gain


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
    solution=rms_norm,
)
def check_rmsnorm(answer):
    """Compare with torch.nn.functional.rms_norm."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 8, generator=generator) * 4 + 1
    gain = torch.linspace(0.5, 2.0, 8)
    expected = torch.nn.functional.rms_norm(x, (8,), gain, 1e-5)
    y = answer(x.clone(), gain)
    require(isinstance(y, torch.Tensor) and y.shape == x.shape, "return a tensor of the shape of x")
    centered = torch.nn.functional.layer_norm(x, (8,), gain, None, 1e-5)
    require(
        not torch.allclose(y, centered, atol=1e-3),
        "you subtract the mean: that is LayerNorm; RMSNorm does not",
    )
    require(
        not torch.allclose(y, expected / gain, atol=1e-4), "the gain is missing: multiply by it at the end"
    )
    summed = x / x.norm(dim=-1, keepdim=True) * gain
    require(
        not torch.allclose(y, summed, atol=1e-3),
        "you divide by the length, the root of the SUM: take the mean",
    )
    require(
        not torch.allclose(y, x / x.pow(2).mean(-1, keepdim=True) * gain, atol=1e-3), "the root is missing"
    )
    require(torch.allclose(y, expected, atol=1e-4), "the values differ from torch's rms_norm")
    require(
        torch.isfinite(answer(torch.zeros(1, 8), gain)).all(),
        "a vector of zeros gives nan: add eps under the root",
    )
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
    solution=2048,
)
def check_swiglu(answer):
    """8/3 of 768."""
    require(answer != 3072, "with 3072 the three matrices hold half as many parameters again")
    require(answer != 1536, "halving is too much: there are three matrices instead of two, not four")
    require(answer == 2048, f"with {answer}, 3 x 768 x d_ff is not 2 x 768 x 3072")
    return "two thirds of 4·d_model, as Llama's paper says in section 2.2."


def count_parameters(vocab_size, context_length, d_model, n_layers):
    """Parameters of GPT-2: biases everywhere, learned positions, tied embeddings, d_ff = 4 d_model."""
    attention = 4 * d_model * d_model + 4 * d_model
    mlp = 2 * d_model * 4 * d_model + 4 * d_model + d_model
    norms = 2 * 2 * d_model
    embeddings = vocab_size * d_model + context_length * d_model
    return embeddings + n_layers * (attention + mlp + norms) + 2 * d_model


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
    solution=count_parameters,
)
def check_parameters(answer):
    """The smallest GPT-2 has 124,439,808."""
    C, layers = 768, 12
    right = 124_439_808
    value = answer(50257, 1024, C, layers)
    require(isinstance(value, int | float), f"return a number, not {value!r}")
    slips = {
        right + 50257 * C: "the output projection is tied to the token embedding: count it once",
        right - 1024 * C: "the learned positions are missing: context_length x d_model",
        right - 2 * C: "the last norm, after the blocks, is missing",
        right - layers * 4 * C: "the two norms in each block are missing: a gain and a bias each",
        right - layers * 9 * C: "the biases of the linear layers are missing: 9 C in each block",
        right - layers * 13 * C - 2 * C: "biases and norms are missing",
    }
    require(value not in slips, slips.get(value, ""))
    require(
        value == right,
        f"for the smallest GPT-2 you get {value:,}; it has {right:,} (difference {value - right:,})",
    )
    require(
        answer(100, 16, 8, 2) == count_parameters(100, 16, 8, 2), "right for GPT-2, but not for other sizes"
    )
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
    solution=round(math.log(50257), 2),
)
def check_first_loss(answer):
    """ln V."""
    require(isinstance(answer, int | float), f"give a number, not {answer!r}")
    require(abs(answer - math.log2(50257)) > 0.05, "that is in bits; the loss uses the natural logarithm")
    require(abs(answer - math.log10(50257)) > 0.05, "that is the logarithm to base 10; use the natural one")
    require(answer > 0, "the loss is MINUS the log of the probability, so it is positive")
    require(abs(answer - math.log(50257)) < 0.05, f"{answer} is not ln 50257")
    return "a first loss far above ln V means a bad start; far below, a leak."
