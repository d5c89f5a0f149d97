"""Exercises of chapter 3e, evaluation: measures."""

import math
from functools import partial

import numpy as np

import llmcourse.teach.chapters.ch03e_evaluation.choice_checks  # noqa: F401 - registers one more
from llmcourse.evaluate.metrics import expected_calibration_error, wer
from llmcourse.teach.examine import examine
from llmcourse.teach.exercises import exercise, require
from llmcourse.teach.forms import number


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
    wants="function",
    form=partial(number, finite=False),
)
def check_calibration_error(answer):
    """Compare with the package at random values, at an edge, and with empty bins; name the slips."""

    def error(confidence, correct, n_bins):
        value = answer(confidence, correct, n_bins)
        require(not math.isnan(value), "your result is nan: one of the bins is empty, pass over it")
        return value

    def from_bins(combine, index=lambda c, n: np.minimum((c * n).astype(int), n - 1)):
        """A measure from the shares, gaps (accuracy - confidence) and gaps to the middle of all bins with examples."""

        def function(confidence, correct, n_bins):
            bins = index(confidence, n_bins)
            inside = [bins == b for b in range(n_bins) if (bins == b).any()]
            gaps = [correct[i].mean() - confidence[i].mean() for i in inside]
            middles = [correct[i].mean() - (bins[i][0] + 0.5) / n_bins for i in inside]
            return combine(np.array([i.mean() for i in inside]), np.array(gaps), np.array(middles))

        return function

    def of_equal_counts(c, n):
        return np.argsort(np.argsort(c)) * n // len(c)

    rng = np.random.default_rng(0)
    confidence = np.concatenate([rng.uniform(0.62, 1, 60), rng.uniform(0.05, 0.3, 15)])  # a bin is empty
    correct = (rng.random(75) < 0.5 + 0.45 * np.sin(25 * confidence)).astype(float)
    at_one = np.array([1.0, 1.0, 0.55, 0.55]), np.array([0.0, 1.0, 1.0, 0.0])
    at_border = np.array([0.5, 0.6, 0.5, 0.4, 0.3]), np.array([1.0, 1.0, 1.0, 0.0, 0.0])
    cases = {
        "for a random example you return {value}, expected {right}": (confidence, correct, 5),
        "right with 5 bins, but not with 12": (confidence, correct, 12),
        "with confidences of exactly 1 you return {value}, expected {right}: they belong to the last bin": (
            *at_one,
            10,
        ),
        "with confidences of exactly 0.5 and 4 bins you return {value}, expected {right}: bin 2 begins at 0.5": (
            *at_border,
            4,
        ),
    }
    absolute = lambda share, gap, middle: share @ np.abs(gap)  # noqa: E731
    slips = {
        "gaps of opposite sign cancel in yours: take the absolute gap of each BIN, not of all examples": (
            from_bins(lambda share, gap, middle: share @ gap),
            from_bins(lambda share, gap, middle: -share @ gap),
            from_bins(lambda share, gap, middle: abs(share @ gap)),
        ),
        "the bins are not weighted: a bin counts by its share of the examples": (
            from_bins(lambda share, gap, middle: np.abs(gap).mean())
        ),
        "you divide by the number of bins: weight each bin by its share of the examples": (
            lambda c, o, n: from_bins(lambda share, gap, middle: np.abs(gap).sum() / n)(c, o, n)
        ),
        "you add the gaps up unweighted: a bin counts by its share of the examples": (
            from_bins(lambda share, gap, middle: np.abs(gap).sum())
        ),
        "that is the LARGEST gap, the maximum calibration error": from_bins(
            lambda share, gap, middle: np.abs(gap).max()
        ),
        "you square the gaps: take their absolute values": (
            from_bins(lambda share, gap, middle: share @ gap**2),
            from_bins(lambda share, gap, middle: (share @ gap**2) ** 0.5),
        ),
        "you take the middle of each bin: use the mean confidence of the examples in it": (
            from_bins(lambda share, gap, middle: share @ np.abs(middle))
        ),
        "you compare example by example: compare the MEANS in each bin": lambda c, o, n: np.abs(o - c).mean(),
        "divide by the number of examples": lambda c, o, n: len(c) * expected_calibration_error(c, o, n),
        "give it between 0 and 1, not in percent": lambda c, o, n: 100 * expected_calibration_error(c, o, n),
        "the bins have equal widths, not equal numbers of examples": from_bins(absolute, of_equal_counts),
    }
    examine(error, expected_calibration_error, cases, slips)
    return "it equals `llmcourse.evaluate.metrics.expected_calibration_error`."


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
    wants="function",
    form=number,
)
def check_word_error_rate(answer):
    """Compare with jiwer on pairs chosen so that each usual slip shows."""

    def errors(a, b, replace=1, missing=1, extra=1):
        row = [j * extra for j in range(len(b) + 1)]
        for x in a:
            above, row = row, [row[0] + missing]
            for j, y in enumerate(b):
                row.append(min(above[j + 1] + missing, row[j] + extra, above[j] + replace * (x != y)))
        return row[-1]

    def words(measure):
        return lambda reference, hypothesis: measure(reference.split(), hypothesis.split())

    def place_by_place(a, b):
        return (sum(x != y for x, y in zip(a, b, strict=False)) + abs(len(a) - len(b))) / len(a)

    cases = {
        "two equal texts have no errors; yours gives {value}": ("to be or not", "to be or not"),
        "one wrong word of five is 0.2; yours gives {value}": ("to be or not to", "to see or not to"),
        "one missing word shifts the rest; it is one error of five, 0.2, and yours gives {value}": (
            "the queen gives a letter",
            "queen gives a letter",
        ),
        "count extra words too: four of them for a reference of two are 2.0; yours gives {value}": (
            "a letter",
            "a a long letter of love",
        ),
        "the order of the words counts: 'the page and the duke' is not 'the duke and the page', and yours gives {value}": (
            "the page and the duke",
            "the duke and the page",
        ),
    }
    for pair in (
        ("a b c d e f", "b a c e d g f"),
        ("who is there in the dark", "who there in a dark night"),
        ("speak", "do not speak to me"),
    ):
        cases[f"for {pair[0]!r} heard as {pair[1]!r} you return {{value}} and jiwer {{right}}"] = pair
    slips = {
        "two equal texts give 1 in yours: count what is wrong, not what is right": words(
            lambda a, b: 1 - errors(a, b) / len(a)
        ),
        "that is the NUMBER of errors: divide by the number of reference words": words(errors),
        "a wrong word costs 1, not 2: besides missing and extra, a word may be replaced": (
            words(lambda a, b: errors(a, b, replace=2) / len(a))
        ),
        "you count different words, not all: a word may stand twice in the reference": (
            words(lambda a, b: len(set(a) - set(b)) / len(set(a))),
            words(lambda a, b: len(set(a) ^ set(b)) / len(set(a))),
            words(lambda a, b: len(set(a) - set(b)) / len(a)),
        ),
        "you count characters: split the texts into words": lambda a, b: errors(a, b) / len(a),
        "divide by the words of the REFERENCE, not of the hypothesis": words(
            lambda a, b: errors(a, b) / len(b)
        ),
        "a word is missing in the hypothesis and yours finds no error: count missing words too": (
            words(lambda a, b: errors(a, b, missing=0) / len(a))
        ),
        "the hypothesis has extra words and yours finds no error: count them too": (
            words(lambda a, b: errors(a, b, extra=0) / len(a))
        ),
        "one missing word shifts the rest, and then all others count as wrong: comparing place by place is not enough, "
        "fill the table": words(place_by_place),
        "more errors than reference words are possible: 2.0 for four extra words and two in the reference. Do not stop "
        "at 1": words(lambda a, b: min(1, errors(a, b) / len(a))),
        "divide by the words of the REFERENCE, not of the longer text": words(
            lambda a, b: errors(a, b) / max(len(a), len(b))
        ),
        "give a share, 0.2 for one error in five, not percent": words(
            lambda a, b: 100 * errors(a, b) / len(a)
        ),
    }
    examine(answer, lambda reference, hypothesis: wer([hypothesis], [reference]), cases, slips)
    return "it equals jiwer's word error rate, which fills the same table."
