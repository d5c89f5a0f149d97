"""Solutions of `03a_architecture`: a right answer to each exercise."""

import math


def rms_norm(x, gain, eps=1e-5):
    """Divide each vector by its root-mean-square, then multiply by the gain."""
    return x / (x.pow(2).mean(dim=-1, keepdim=True) + eps).sqrt() * gain


def count_parameters(vocab_size, context_length, d_model, n_layers):
    """Parameters of GPT-2: biases everywhere, learned positions, tied embeddings, d_ff = 4 d_model."""
    attention = 4 * d_model * d_model + 4 * d_model
    mlp = 2 * d_model * 4 * d_model + 4 * d_model + d_model
    norms = 2 * 2 * d_model
    embeddings = vocab_size * d_model + context_length * d_model
    return embeddings + n_layers * (attention + mlp + norms) + 2 * d_model


SOLUTIONS = {
    "03a-rmsnorm": rms_norm,
    "03a-swiglu": 2048,
    "03a-parameters": count_parameters,
    "03a-first-loss": round(math.log(50257), 2),
}
