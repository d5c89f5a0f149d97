"""Solutions of `03e_significance`: a right answer to each exercise."""

import numpy as np


def interval(values, n_resamples):
    """Middle 95 % of the means of resamples drawn with replacement."""
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(values), size=(n_resamples, len(values)))
    low, high = np.quantile(values[drawn].mean(axis=1), [0.025, 0.975])
    return low, high


SOLUTIONS = {"03e-bootstrap": interval}
