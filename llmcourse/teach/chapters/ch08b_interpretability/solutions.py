"""Solutions of `08b_interpretability`: a right answer to each exercise."""

import torch


def without_head(heads, W, h):
    """Return the attention's output (B, T, C) without head h: heads (B, T, H, D), W (C, H·D)."""
    kept = heads.clone()
    kept[:, :, h] = 0
    return kept.flatten(2) @ W.T


def patching_effect(clean, corrupted, patched, right, wrong):
    """Return how much of the clean answer a patch brings back, from logits (B, V) and token ids (B,)."""
    rows = torch.arange(len(right))
    a, b, c = ((x[rows, right] - x[rows, wrong]).mean() for x in (clean, corrupted, patched))
    return ((c - b) / (a - b)).item()


def induction_score(weights, n):
    """Return (H,): the mean weight of the second copy on what followed in the first; weights (H, 2n, 2n)."""
    on_followers = weights.diagonal(1 - n, dim1=-2, dim2=-1)  # (H, n + 1): queries n - 1 to 2n - 1
    return on_followers[:, 1:].mean(-1)


def integrated_gradients(gradient, x, baseline, n_steps):
    """Return the share (N,) of each input in f(x) - f(baseline), by the midpoint rule."""
    shares = ((k + 0.5) / n_steps for k in range(n_steps))
    mean = sum(gradient(baseline + a * (x - baseline)) for a in shares) / n_steps
    return (x - baseline) * mean


SOLUTIONS = {
    "08b-ablate": without_head,
    "08b-effect": patching_effect,
    "08b-induction": induction_score,
    "08b-integrated": integrated_gradients,
}
