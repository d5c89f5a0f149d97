"""Exercises of `03e_significance`: how sure a score is."""

import math

import numpy as np

from llmcourse.teach.exercises import exercise, require
from llmcourse.teach.forms import tensor


@exercise(
    "03e-bootstrap",
    "Let the data say how sure you are",
    minutes=6,
    difficulty=2,
    hints=(
        "rng.integers(len(values), size=len(values)) draws one resample: some indices twice, some never.",
        "Take the mean of values[indices]; repeat it n_resamples times.",
        "np.quantile(means, [0.025, 0.975]) gives both ends.",
    ),
    wants="function",
    form=tensor,
)
def check_interval(answer):
    """Compare the width with theory for two samples; the slips give widths of their own."""

    def bounds(values, n_resamples):
        pair = answer(values, n_resamples)
        require(
            pair.numel() != n_resamples, "these are the means of all resamples: return their two quantiles"
        )
        require(pair.numel() == 2, f"return two numbers, (low, high); yours has {pair.numel()}")
        low, high = pair.flatten().tolist()
        require(
            math.isfinite(low) and math.isfinite(high), f"({low}, {high}) is no interval: it is not finite"
        )
        require(low <= high, "low comes first: yours is upside down")
        return low, high

    samples = [  # many and few values, of different size and spread
        (np.repeat([1.0, 0.0], [60, 140]), 2000),
        (np.linspace(0.001, 0.009, 60), 1000),
    ]
    ratios, sizes = [], []
    for values, n_resamples in samples:
        (low, high), mean = bounds(values, n_resamples), values.mean()
        width = 2 * 1.96 * values.std() / len(values) ** 0.5
        require(
            high - low > 1e-3 * width,
            "your interval has no width: draw WITH replacement, otherwise each resample is the same set",
        )
        require(high < 2, f"your interval ends at {high:.0f}: take the MEAN of each resample, not the sum")
        ends = np.quantile(values, [0.025, 0.975])
        quantiles = "these are quantiles of the values: take the MEAN of each resample first"
        require(not np.allclose((low, high), ends, rtol=0.05, atol=1e-6), quantiles)
        middle = (
            f"the middle of your interval is {(low + high) / 2:.4f}, and the mean of the values is {mean:.4f}"
        )
        require(abs((low + high) / 2 - mean) < 0.25 * width or high - low > 2 * width, middle)
        ratios.append((high - low) / width)
        sizes.append((len(values) / n_resamples) ** 0.5)
    slips = {
        "that is the middle 90 %: cut off 2.5 % on each side, so that 5 % are outside": 0.84,
        "that is the middle 80 %: cut off 2.5 % on each side, so that 5 % are outside": 0.654,
        "that is the middle 99 %: cut off 2.5 % on each side, so that 5 % are outside": 1.314,
        "that is one standard error to each side, about 68 %: take the quantiles": 0.51,
        "your interval is too narrow, the middle 50 %: take the quantiles 0.025 and 0.975": 0.344,
        "you take the spread of the values: take the MEAN of each resample, and the quantiles of these means": np.sqrt(
            [len(values) for values, _ in samples]
        ),
        "each resample of yours has n_resamples items: it has as many items as there are values": np.array(
            sizes
        ),
    }
    rounded = all(math.isclose(end, round(end, 4), rel_tol=1e-6) for end in (low, high))
    require(not rounded, "your interval is rounded: return all digits of its ends")
    for sentence, ratio in slips.items():
        require(not np.allclose(np.array(ratios) / ratio, 1, atol=0.09), sentence)
    for ratio in ratios:
        wide = f"your interval is {ratio:.1f} times too wide: has a resample as many items as there are values, and do you"
        wide += " take the quantiles of the MEANS?"
        require(ratio < 1.13, wide)
        require(
            ratio > 0.88,
            f"your interval is too narrow, {ratio:.2f} times what it should be: are there as many items in a resample as "
            "values, and are the quantiles 0.025 and 0.975?",
        )
    low, _ = bounds(np.array([0.0, 0.0, 0.0, 0.0, 0.0, 1.0]), 2000)
    require(
        low >= -1e-9,
        "for values that are never negative your interval goes below 0: that is a formula, "
        "mean and standard error; take the quantiles of the resampled means",
    )
    return "no formula was needed, and the same lines work for F1 or BLEU, for which there is none."
