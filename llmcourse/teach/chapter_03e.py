"""Exercises of chapter 3e: evaluation."""

import math

import numpy as np
import torch

from llmcourse.metrics import expected_calibration_error, wer
from llmcourse.teach.checks import number, tensor
from llmcourse.teach.exercises import exercise, require


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


@exercise(
    "03e-ece",
    "Measure how far confidence is from accuracy",
    minutes=8,
    difficulty=2,
    hints=(
        "(confidence * n_bins).astype(int) gives the bin of each example; np.minimum keeps 1.0 in the last.",
        "In a bin, compare the mean of `correct` with the mean of `confidence`: the absolute difference.",
        "Weight a bin by its share of all examples, and pass over empty bins.",
    ),
    solution=calibration_error,
)
def check_calibration_error(answer):
    """Compare with the package at random values, at an edge, and with empty bins; name the slips."""
    rng = np.random.default_rng(0)
    confidence = np.concatenate([rng.uniform(0.62, 1, 60), rng.uniform(0.05, 0.3, 15)])  # a bin is empty
    correct = (rng.random(75) < 0.5 + 0.45 * np.sin(25 * confidence)).astype(float)
    right = expected_calibration_error(confidence, correct, 5)
    value = number(answer(confidence.copy(), correct.copy(), 5))
    bins = np.minimum((confidence * 5).astype(int), 4)
    groups = [bins == b for b in range(5) if (bins == b).any()]
    gaps = [correct[g].mean() - confidence[g].mean() for g in groups]
    sizes = [g.mean() for g in groups]
    middles = [abs(correct[g].mean() - (bins[g][0] + 0.5) / 5) for g in groups]
    require(not math.isnan(value), "your result is nan: one of the bins is empty, pass over it")
    require(
        abs(abs(value) - abs(np.dot(sizes, gaps))) > 1e-6,
        "gaps of opposite sign cancel in yours: take the absolute gap of each BIN, not of all examples",
    )
    slips = {
        "the bins are not weighted: a bin counts by its share of the examples": np.mean(np.abs(gaps)),
        "you divide by the number of bins: weight each bin by its share of the examples": np.abs(gaps).sum()
        / 5,
        "you add the gaps up unweighted: a bin counts by its share of the examples": np.abs(gaps).sum(),
        "that is the LARGEST gap, the maximum calibration error": np.abs(gaps).max(),
        "you square the gaps: take their absolute values": np.dot(sizes, np.square(gaps)),
        "you take the middle of each bin: use the mean confidence of the examples in it": np.dot(
            sizes, middles
        ),
        "you compare example by example: compare the MEANS in each bin": np.abs(correct - confidence).mean(),
        "divide by the number of examples": right * 75,
    }
    for message, slip in slips.items():
        require(abs(value - slip) > 1e-6 or abs(slip - right) < 1e-9, message)
    require(abs(value - right) < 1e-6, f"for a random example you return {value:.4f}, expected {right:.4f}")
    edge = number(answer(np.array([1.0, 1.0, 0.55, 0.55]), np.array([0.0, 1.0, 1.0, 0.0]), 10))
    require(
        abs(edge - 0.275) < 1e-6,
        f"with confidences of exactly 1 you return {edge:.4f}, expected 0.2750: they belong to the last bin",
    )
    other = number(answer(confidence.copy(), correct.copy(), 12))
    require(
        abs(other - expected_calibration_error(confidence, correct, 12)) < 1e-6,
        "right with 5 bins, but not with 12",
    )
    return "it equals `llmcourse.metrics.expected_calibration_error`."


def word_error_rate(reference, hypothesis):
    """Fewest wrong, missing and extra words, divided by the number of words in the reference."""
    reference, hypothesis = reference.split(), hypothesis.split()
    row = list(range(len(hypothesis) + 1))
    for i, word in enumerate(reference, start=1):
        above, row = row, [i]
        for j, other in enumerate(hypothesis, start=1):
            row.append(min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (word != other)))
    return row[-1] / len(reference)


@exercise(
    "03e-wer",
    "Count the wrong words",
    minutes=10,
    difficulty=3,
    hints=(
        "Split both texts. The table has a row for each number of reference words, from 0, and a column "
        "for each number of hypothesis words. Its first row is 0, 1, 2, ... and so is its first column.",
        "A cell is the smallest of three: from above + 1 (missing), from the left + 1 (extra), from above "
        "left + 0 or 1 (the same word, or a wrong one).",
        "The last cell is the number of errors: divide it by the number of words of the REFERENCE.",
    ),
    solution=word_error_rate,
)
def check_word_error_rate(answer):
    """Compare with jiwer on pairs chosen so that each usual slip shows."""

    def give(reference, hypothesis):
        return number(answer(reference, hypothesis))

    perfect = give("to be or not", "to be or not")
    require(
        abs(perfect - 1) > 1e-6, "two equal texts give 1 in yours: count what is wrong, not what is right"
    )
    require(abs(perfect) < 1e-6, f"two equal texts have no errors; yours gives {perfect:.3f}")
    wrong = give("to be or not to", "to see or not to")  # one of five, of which one is repeated
    require(abs(wrong - 1) > 1e-6, "that is the NUMBER of errors: divide by the number of reference words")
    require(
        abs(wrong - 0.4) > 1e-6,
        "a wrong word costs 1, not 2: besides missing and extra, a word may be replaced",
    )
    require(
        abs(wrong - 0.25) > 1e-6, "you count different words, not all: 'to' stands twice in the reference"
    )
    require(abs(wrong - 2 / 15) > 1e-6, "you count characters: split the texts into words")
    require(abs(wrong - 0.2) < 1e-6, f"one wrong word of five is 0.2; yours gives {wrong:.3f}")
    missing = give("the queen gives a letter", "queen gives a letter")
    require(
        abs(missing - 0.25) > 1e-6,
        "one missing word of five: divide by the words of the REFERENCE, not of the hypothesis",
    )
    require(
        missing > 1e-6,
        "a word is missing in the hypothesis and yours finds no error: count missing words too",
    )
    require(
        abs(missing - 0.2) < 1e-6,
        f"one missing word shifts the rest; it is one error of five, 0.2, and yours gives {missing:.3f}. "
        "Comparing place by place is not enough: fill the table",
    )
    extra = give("a letter", "a a long letter of love")
    require(extra > 1e-6, "the hypothesis has extra words and yours finds no error: count them too")
    require(
        abs(extra - 1) > 1e-6, "more errors than reference words are possible: 2.0 here. Do not stop at 1"
    )
    require(abs(extra - 4 / 6) > 1e-6, "divide by the words of the REFERENCE, not of the longer text")
    require(abs(extra - 2) < 1e-6, f"four extra words for a reference of two: 2.0; yours gives {extra:.3f}")
    order = give("the page and the duke", "the duke and the page")
    require(order > 1e-6, "the order of the words counts: yours compares sets")
    for reference, hypothesis in (
        ("the page and the duke", "the duke and the page"),
        ("a b c d e f", "b a c e d g f"),
        ("who is there in the dark", "who there in a dark night"),
        ("speak", "do not speak to me"),
    ):
        value, right = give(reference, hypothesis), wer([hypothesis], [reference])
        require(
            abs(value - right) < 1e-6,
            f"for {reference!r} heard as {hypothesis!r} you return {value:.3f} and jiwer {right:.3f}",
        )
    return "it equals jiwer's word error rate, which fills the same table."


def choose(log_likelihoods, lengths):
    """Index of the option with the highest log-likelihood per token, for each item."""
    return (log_likelihoods / lengths).argmax(dim=-1)


@exercise(
    "03e-choice",
    "Choose by likelihood per token",
    minutes=5,
    difficulty=1,
    hints=(
        "Log-likelihoods are negative: the best is the one nearest to 0, the largest.",
        "Divide element by element, then argmax over the options, which are the last dimension.",
    ),
    solution=choose,
)
def check_choose(answer):
    """Compare on random items; tell the sum, the wrong sign and the wrong dimension apart."""
    generator = torch.Generator().manual_seed(3)
    lengths = torch.randint(2, 15, (40, 4), generator=generator)
    sums = -(lengths * (0.02 + torch.rand(40, 4, generator=generator) * 0.6)).float()
    value = tensor(answer(sums.clone(), lengths.clone()))
    each = sums / lengths
    require(
        not (value.shape == each.shape and torch.allclose(value, each)),
        "these are the scores of all options: return the index of the best, (N,)",
    )
    require(
        value.shape == (40,),
        f"return one index for each item, (40,); yours has the shape {tuple(value.shape)}. "
        "The options are the last dimension",
    )
    require(
        not torch.allclose(value, each.amax(-1)),
        "these are the scores of the best options: return their index, by argmax",
    )
    require(
        not torch.equal(value, each.argmin(-1).float()),
        "log-likelihoods are negative: the LARGEST is the best",
    )
    require(
        not torch.equal(value, (sums.exp() / lengths).argmax(-1).float()),
        "you divide the likelihood itself: divide its LOGARITHM, the sum over the tokens",
    )
    require(
        not torch.equal(value, sums.argmax(-1).float()),
        "the lengths have no effect: divide by them, option by option",
    )
    require(
        not torch.equal(value, (sums * lengths).argmax(-1).float()),
        "you multiply by the lengths: that punishes long options twice. Divide",
    )
    require(
        not torch.equal(value, lengths.argmax(-1).float())
        and not torch.equal(value, lengths.argmin(-1).float()),
        "you choose by the length alone: log-likelihood divided by length",
    )
    require(
        torch.equal(value, each.argmax(-1).float()),
        f"{int((value != each.argmax(-1)).sum())} of 40 items are chosen otherwise than by log-likelihood / length",
    )
    return "evaluation programs call it normalized accuracy (some divide by bytes instead of tokens)."


def interval(values, n_resamples):
    """Middle 95 % of the means of resamples drawn with replacement."""
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(values), size=(n_resamples, len(values)))
    low, high = np.quantile(values[drawn].mean(axis=1), [0.025, 0.975])
    return low, high


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
    solution=interval,
)
def check_interval(answer):
    """Compare the width with theory; the slips give widths of their own."""
    values = np.repeat([1.0, 0.0], [120, 280])
    width = 2 * 1.96 * values.std() / 400**0.5  # 0.0898
    pair = tensor(answer(values.copy(), 4000))
    require(pair.numel() != 4000, "these are the means of all resamples: return their two quantiles")
    require(pair.numel() == 2, f"return two numbers, (low, high); yours has {pair.numel()}")
    low, high = pair.flatten().tolist()
    require(math.isfinite(low) and math.isfinite(high), f"({low}, {high}) is no interval: it is not finite")
    require(low <= high, "low comes first: yours is upside down")
    require(
        high - low > 1e-9,
        "your interval has no width: draw WITH replacement, otherwise each resample is the same set",
    )
    require(high < 2, f"your interval ends at {high:.0f}: take the MEAN of each resample, not the sum")
    require(
        (low, high) != (0.0, 1.0), "these are quantiles of the values: take the MEAN of each resample first"
    )
    ratio = (high - low) / width
    require(
        abs((low + high) / 2 - 0.3) < 0.02 or ratio > 2,
        f"the middle of your interval is {(low + high) / 2:.3f}, and the mean of the values is 0.3",
    )
    require(
        not 0.78 < ratio < 0.9, "that is the middle 90 %: cut off 2.5 % on each side, so that 5 % are outside"
    )
    require(not 0.44 < ratio < 0.6, "that is one standard error to each side, about 68 %: take the quantiles")
    require(
        ratio < 1.13,
        f"your interval is {ratio:.1f} times too wide: a resample has as many items as there are values",
    )
    require(
        ratio > 0.9,
        f"your interval is too narrow by a factor of {ratio:.2f}: take the quantiles 0.025 and 0.975",
    )
    skewed = tensor(answer(np.array([0.0, 0.0, 0.0, 0.0, 0.0, 1.0]), 2000)).flatten()
    require(
        skewed[0] >= -1e-9,
        "for values that are never negative your interval goes below 0: that is a formula, "
        "mean and standard error; take the quantiles of the resampled means",
    )
    return "no formula was needed, and the same lines work for F1 or BLEU, for which there is none."
