"""Exercises of chapter 3e: right answers in several forms, and wrong ones that learners give."""

import difflib

import jiwer
import numpy as np
import pytest
import torch
from answers import assert_right, assert_wrong

from llmcourse.evaluate.metrics import expected_calibration_error
from llmcourse.teach.chapters.ch03e_evaluation.solutions import word_error_rate

RIGHT, WRONG = {}, {}


# ---- 03e-ece --------------------------------------------------------------------------------


def bins_of(confidence, n_bins, last=True):
    bins = (np.asarray(confidence) * n_bins).astype(int)
    return np.minimum(bins, n_bins - 1) if last else bins


def ece(combine, last=True, inside_of=bins_of):
    """A calibration error from the rows (share of examples, mean confidence, accuracy) of all bins."""

    def answer(confidence, correct, n_bins):
        bins = inside_of(confidence, n_bins, last)
        rows = []
        for b in range(n_bins):
            chosen = bins == b
            if chosen.any():
                rows.append((chosen.mean(), confidence[chosen].mean(), correct[chosen].mean()))
        return combine(np.array(rows).T)

    return answer


def ece_in_plain_python(confidence, correct, n_bins):
    bins = [[] for _ in range(n_bins)]
    for c, o in zip(confidence.tolist(), correct.tolist(), strict=True):
        bins[min(int(c * n_bins), n_bins - 1)].append((c, o))
    return sum(
        abs(sum(o for _, o in rows) - sum(c for c, _ in rows)) / len(confidence) for rows in bins if rows
    )


def ece_in_torch(confidence, correct, n_bins):
    confidence, correct = torch.tensor(confidence), torch.tensor(correct)
    bins = (confidence * n_bins).long().clamp(max=n_bins - 1)
    gaps = torch.zeros(n_bins, dtype=torch.float64).index_add(0, bins, correct - confidence)
    return gaps.abs().sum() / len(confidence)


def ece_with_empty_bins(confidence, correct, n_bins):
    bins, total = bins_of(confidence, n_bins), 0.0
    with np.errstate(all="ignore"):
        for b in range(n_bins):
            inside = (bins == b).astype(float)
            gap = abs((inside * correct).sum() / inside.sum() - (inside * confidence).sum() / inside.sum())
            total += inside.mean() * gap
    return total


RIGHT["03e-ece"] = [
    ece_in_plain_python,
    ece_in_torch,
    lambda confidence, correct, n_bins: expected_calibration_error(confidence, correct, n_bins),
    ece(lambda rows: rows[0] @ np.abs(rows[2] - rows[1])),
]
WRONG["03e-ece"] = {
    "mean over bins": ("not weighted", ece(lambda r: np.abs(r[2] - r[1]).mean())),
    "divided by n_bins": (
        "by the number of bins",
        lambda c, o, n: ece(lambda r: np.abs(r[2] - r[1]).sum())(c, o, n) / n,
    ),
    "sum": ("add the gaps up", ece(lambda r: np.abs(r[2] - r[1]).sum())),
    "signed": ("cancel", ece(lambda r: r[0] @ (r[2] - r[1]))),
    "signed the other way": ("cancel", ece(lambda r: r[0] @ (r[1] - r[2]))),
    "no bins at all": ("cancel", lambda c, o, n: abs(o.mean() - c.mean())),
    "the largest": ("LARGEST", ece(lambda r: np.abs(r[2] - r[1]).max())),
    "squared": ("square", ece(lambda r: r[0] @ (r[2] - r[1]) ** 2)),
    "each example": ("MEANS in each bin", lambda c, o, n: np.abs(o - c).mean()),
    "nan": ("one of the bins is empty", ece_with_empty_bins),
    "1.0 falls out": (
        "belong to the last bin",
        ece(lambda r: r[0] @ np.abs(r[2] - r[1]), last=False),
    ),
    "counts, not shares": (
        "divide by the number",
        lambda c, o, n: len(c) * expected_calibration_error(c, o, n),
    ),
    "percent": ("not in percent", lambda c, o, n: 100 * expected_calibration_error(c, o, n)),
    "bins of equal counts": (
        "equal widths",
        ece(
            lambda r: r[0] @ np.abs(r[2] - r[1]),
            inside_of=lambda c, n, last: np.argsort(np.argsort(c)) * n // len(c),
        ),
    ),
    "closed above": (
        "bin 2 begins at 0.5",
        ece(
            lambda r: r[0] @ np.abs(r[2] - r[1]),
            inside_of=lambda c, n, last: np.clip(np.ceil(c * n).astype(int) - 1, 0, n - 1),
        ),
    ),
    "rounded": ("rounded", lambda c, o, n: round(expected_calibration_error(c, o, n), 2)),
    "always five": ("not with 12", lambda c, o, n: expected_calibration_error(c, o, 10 if n == 10 else 5)),
    "constant": ("the same for every input", lambda c, o, n: 0.03),
}


def ece_by_middles(confidence, correct, n_bins):
    bins = bins_of(confidence, n_bins)
    return sum(
        (bins == b).mean() * abs(correct[bins == b].mean() - (b + 0.5) / n_bins) for b in set(bins.tolist())
    )


WRONG["03e-ece"]["middle of the bin"] = ("middle of each bin", ece_by_middles)


# ---- 03e-wer --------------------------------------------------------------------------------


def distance(a, b, replace=1, missing=1, extra=1):
    row = [j * extra for j in range(len(b) + 1)]
    for x in a:
        above, row = row, [row[0] + missing]
        for j, y in enumerate(b):
            row.append(min(above[j + 1] + missing, row[-1] + extra, above[j] + (replace if x != y else 0)))
    return row[-1]


def wer_recursive(reference, hypothesis):
    def errors(a, b):
        if not a or not b:
            return len(a) + len(b)
        if a[0] == b[0]:
            return errors(a[1:], b[1:])
        return 1 + min(errors(a[1:], b), errors(a, b[1:]), errors(a[1:], b[1:]))

    reference = reference.split()
    return errors(reference, hypothesis.split()) / len(reference)


def by_words(count):
    return lambda reference, hypothesis: count(reference.split(), hypothesis.split())


def place_by_place(a, b):
    return (sum(x != y for x, y in zip(a, b, strict=False)) + abs(len(a) - len(b))) / len(a)


def common_length(a, b):
    return sum(
        block.size for block in difflib.SequenceMatcher(None, a, b, autojunk=False).get_matching_blocks()
    )


RIGHT["03e-wer"] = [
    wer_recursive,
    lambda reference, hypothesis: jiwer.wer(reference, hypothesis),
    lambda reference, hypothesis: np.float64(word_error_rate(reference, hypothesis)),
    by_words(lambda a, b: torch.tensor(distance(a, b) / len(a))),
]
WRONG["03e-wer"] = {
    "number of errors": ("the NUMBER of errors", by_words(distance)),
    "replacing costs 2": (
        "a wrong word costs 1, not 2",
        by_words(lambda a, b: distance(a, b, replace=2) / len(a)),
    ),
    "characters": ("split the texts into words", lambda a, b: distance(a, b) / len(a)),
    "by the hypothesis": ("REFERENCE, not of the hypothesis", by_words(lambda a, b: distance(a, b) / len(b))),
    "swapped": (
        "REFERENCE, not of the hypothesis",
        lambda reference, hypothesis: word_error_rate(hypothesis, reference),
    ),
    "by the longer": (
        "not of the longer text",
        by_words(lambda a, b: distance(a, b) / max(len(a), len(b))),
    ),
    "place by place": ("one missing word shifts the rest", by_words(place_by_place)),
    "missing words are free": (
        "count missing words too",
        by_words(lambda a, b: distance(a, b, missing=0) / len(a)),
    ),
    "extra words are free": ("count them too", by_words(lambda a, b: distance(a, b, extra=0) / len(a))),
    "capped": ("Do not stop at 1", by_words(lambda a, b: min(1.0, distance(a, b) / len(a)))),
    "sets": ("different words", by_words(lambda a, b: len(set(a) - set(b)) / len(set(a)))),
    "accuracy": ("what is wrong, not what is right", by_words(lambda a, b: 1 - distance(a, b) / len(a))),
    "longest common": ("count extra words", by_words(lambda a, b: 1 - common_length(a, b) / len(a))),
    "constant": ("two equal texts have no errors", lambda a, b: 0.3),
}


# ---- 03e-choice -----------------------------------------------------------------------------


RIGHT["03e-choice"] = [
    lambda sums, lengths: (sums / lengths).max(dim=1).indices,
    lambda sums, lengths: np.argmax(sums.numpy() / lengths.numpy(), axis=-1),
    lambda sums, lengths: [
        max(range(len(row)), key=lambda k: row[k] / n[k])
        for row, n in zip(sums.tolist(), lengths.tolist(), strict=True)
    ],
    lambda sums, lengths: (sums / lengths).exp().argmax(1),
    lambda sums, lengths: (-sums / lengths).argmin(-1),
]
WRONG["03e-choice"] = {
    "sum": ("the lengths have no effect", lambda s, n: s.argmax(-1)),
    "smallest": ("the LARGEST is the best", lambda s, n: (s / n).argmin(-1)),
    "multiplied": ("punishes long options twice", lambda s, n: (s * n).argmax(-1)),
    "scores": ("return the index of the best", lambda s, n: s / n),
    "best scores": ("return their index", lambda s, n: (s / n).amax(-1)),
    "over items": ("The options are the last dimension", lambda s, n: (s / n).argmax(0)),
    "over everything": ("one index for each item", lambda s, n: (s / n).argmax()),
    "likelihood divided": ("divide its LOGARITHM", lambda s, n: (s.exp() / n).argmax(-1)),
    "longest": ("by the length alone", lambda s, n: n.argmax(-1)),
    "shortest": ("by the length alone", lambda s, n: n.argmin(-1)),
    "max without indices": (".values or .indices", lambda s, n: (s / n).max(-1)),
    "sorted": (".values or .indices", lambda s, n: (s / n).sort(descending=True)),
    "from 1": ("places count from 0", lambda s, n: (s / n).argmax(-1) + 1),
    "root of the length": ("root of the length", lambda s, n: (s / n.sqrt()).argmax(-1)),
    "always the first": ("of 40 items are chosen otherwise", lambda s, n: torch.zeros(len(s))),
    "by the mean length": ("the lengths have no effect", lambda s, n: (s / n.float().mean()).argmax(-1)),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers(name):
    assert_right(name, RIGHT[name])


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers_hear_what_is_wrong(name):
    assert_wrong(name, WRONG[name])
