"""Solutions of `03e_evaluation`: a right answer to each exercise."""

import numpy as np


def calibration_error(confidence, correct, n_bins):
    """Mean gap between confidence and accuracy over bins, weighted by the examples in each."""
    bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    error = 0.0
    for b in range(n_bins):
        inside = bins == b
        if inside.any():
            gap = abs(correct[inside].mean() - confidence[inside].mean())
            error += inside.mean() * gap
    return error


def word_error_rate(reference, hypothesis):
    """Fewest wrong, missing and extra words, divided by the number of words in the reference."""
    reference, hypothesis = reference.split(), hypothesis.split()
    row = list(range(len(hypothesis) + 1))
    for i, word in enumerate(reference, start=1):
        above, row = row, [i]
        for j, other in enumerate(hypothesis, start=1):
            row.append(min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (word != other)))
    return row[-1] / len(reference)


def choose(log_likelihoods, lengths):
    """Index of the option with the highest log-likelihood per token, for each item."""
    return (log_likelihoods / lengths).argmax(dim=-1)


SOLUTIONS = {
    "03e-ece": calibration_error,
    "03e-wer": word_error_rate,
    "03e-choice": choose,
}
