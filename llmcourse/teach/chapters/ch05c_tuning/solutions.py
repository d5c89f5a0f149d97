"""Solutions of `05c_tuning`: a right answer to each exercise."""

import torch.nn.functional as F


def simple_noise_scale(small_square, large_square, small, large):
    """tr(Σ) / |G|² from the mean squared lengths of gradients of two batch sizes."""
    noise_trace = (small_square - large_square) / (1 / small - 1 / large)
    gradient_square = small_square - noise_trace / small
    return noise_trace / gradient_square


def accumulate(model, parts):
    """Leave the gradient of the mean loss over all counted targets in .grad; return that loss."""
    counted = sum((targets != -100).sum() for _, targets in parts)
    total = 0.0
    for inputs, targets in parts:
        logits = model(inputs).flatten(0, 1)
        loss = F.cross_entropy(logits, targets.flatten(), ignore_index=-100, reduction="sum") / counted
        loss.backward()
        total += loss.item()
    return total


def clip(gradients, max_norm):
    """Return the gradients, shortened together if their joint length is above max_norm."""
    length = sum(gradient.square().sum() for gradient in gradients) ** 0.5
    factor = min(1.0, max_norm / (float(length) + 1e-12))
    return [gradient * factor for gradient in gradients]


SOLUTIONS = {
    "05c-noise-scale": simple_noise_scale,
    "05c-accumulate": accumulate,
    "05c-clip": clip,
}
