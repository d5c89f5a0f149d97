"""Solutions of `09_faq`: a right answer to each exercise."""

import math

import numpy as np


def fit_power_law(sizes, losses, floor):
    """Return (A, a) of loss = floor + A / size ** a, by least squares of the logarithms."""
    slope, intercept = np.polyfit(np.log(sizes), np.log(np.array(losses) - floor), 1)
    return math.exp(intercept), -slope


def mup_factors(width, base):
    """Return what to multiply with: the rate and the deviation of hidden matrices, and the logits."""
    ratio = width / base
    return 1 / ratio, 1 / math.sqrt(ratio), 1 / ratio


def texts_that_fit(memory, weights, n_layers, n_kv_heads, d_head, tokens):
    """Return how many texts' caches fit into the memory beside the weights, all in bytes."""
    cache = 2 * n_layers * n_kv_heads * d_head * tokens * 2
    return max(0, (memory - weights) // cache)


def split_by_group(groups, share):
    """Return for each row whether it is in the test part: whole groups, until it has `share` of the rows."""
    test, rows = set(), 0
    for group in dict.fromkeys(groups):
        if rows >= share * len(groups):
            break
        test.add(group)
        rows += groups.count(group)
    return [group in test for group in groups]


SOLUTIONS = {
    "09-law": fit_power_law,
    "09-mup": mup_factors,
    "09-texts": texts_that_fit,
    "09-split": split_by_group,
}
