"""Exercises of chapter 6c: what a decoder does with a distribution."""

import torch

import llmcourse.teach.chapters.ch06c_generation.step_checks  # noqa: F401 - registers two more
from llmcourse.teach.examine import examine
from llmcourse.teach.exercises import exercise
from llmcourse.teach.forms import number, tensor


def _nucleus(p, share, order, extra=0):
    """Keep as many tokens, in this order, as hold `share` of the probability, and `extra` more."""
    n = int((p[order].cumsum(-1) < share).sum()) + 1 + extra
    kept = torch.zeros_like(p)
    kept[order[:n]] = p[order[:n]]
    return kept / kept.sum()


@exercise(
    "06c-top-p",
    "Keep the smallest set that holds p",
    minutes=8,
    difficulty=2,
    hints=(
        "Sort the probabilities, the largest first, and add them up: sort(descending=True), cumsum(-1).",
        "A token stays if what stands above it, without itself, holds less than p: cumsum - probabilities < p.",
        "Put the kept ones back to their own places, new[order[kept]] = sorted[kept], and divide by their sum.",
    ),
    wants="function",
    form=tensor,
)
def check_top_p(answer):
    """The nucleus: the token that crosses p belongs to it, and the rest is divided by its sum."""
    cases = {
        "for [0.1, 0.5, 0.15, 0.25] and p = 0.6 you return {value}; it is {right}": (
            torch.tensor([0.1, 0.5, 0.15, 0.25]),
            0.6,
        ),
        "right for p = 0.6, but for p = 0.3, which the first token alone reaches, you return {value}; it is {right}": (
            torch.tensor([0.1, 0.5, 0.15, 0.25]),
            0.3,
        ),
        "right for four tokens, but for [0.05, 0.02, 0.4, 0.13, 0.07, 0.33] and p = 0.9 you return {value}; "
        "it is {right}": (torch.tensor([0.05, 0.02, 0.4, 0.13, 0.07, 0.33]), 0.9),
    }

    def descending(p):
        return p.argsort(descending=True)

    def unscaled(p, share):
        return torch.where(_nucleus(p, share, descending(p)) > 0, p, 0.0)

    def under(p, share):  # without the token that crosses p
        order = descending(p)
        kept = torch.zeros_like(p)
        kept[order] = p[order] * (p[order].cumsum(-1) <= share)
        return kept / kept.sum()

    slips = {
        "what is left must sum to 1 again: divide it by its sum": unscaled,
        "the token with which the sum reaches p belongs to the set; you leave it out": (
            under,
            lambda p, share: under(p, share).nan_to_num(0.0),
            lambda p, share: torch.where(under(p, share) > 0, p, 0.0),
        ),
        "you keep one token too many: stop with the token with which the sum reaches p": (
            lambda p, share: _nucleus(p, share, descending(p), extra=1)
        ),
        "the values are in sorted order: put each back to the place of its token": (
            lambda p, share: _nucleus(p, share, descending(p))[descending(p)],
            lambda p, share: unscaled(p, share)[descending(p)],
        ),
        "you add up from the least likely token: sort with descending=True": (
            lambda p, share: _nucleus(p, share, p.argsort())
        ),
        "you add up in the order of the tokens: sort them first, the likeliest first": (
            lambda p, share: _nucleus(p, share, torch.arange(len(p)))
        ),
        "you compare each single probability with p; compare the sum of those above it": (
            lambda p, share: torch.where(p >= share, p, 0.0),
        ),
        "nothing is dropped: return 0 for the tokens outside the set": lambda p, share: p,
    }
    examine(answer, lambda p, share: _nucleus(p, share, descending(p)), cases, slips, "(V,)")
    return "where the model is sure one token is left, where it is not, many."


def _grams(row, n):
    return [tuple(row[i : i + n]) for i in range(len(row) - n + 1)]


@exercise(
    "06c-distinct",
    "How much is said twice?",
    minutes=5,
    difficulty=1,
    hints=(
        "The n-grams of a row are row[i : i + n] for each i from 0 to len(row) - n.",
        "Collect those of all rows in one list, as tuples: a set of tuples holds each once.",
    ),
    wants="function",
    form=number,
)
def check_distinct(answer):
    """Different n-grams of all rows, by all n-grams of all rows."""
    first, second = [1, 2, 1, 2, 3], [1, 2, 4, 4, 1]
    cases = {
        "for the rows [1, 2, 1, 2, 3] and [1, 2, 4, 4, 1] and n = 2 you get {value}; it is {right}: six "
        "different pairs of eight": ([first, second], 2),
        "right for pairs, but for three rows and n = 3 you get {value}; it is {right}": (
            [[5, 5, 5, 5, 5, 5], [1, 2, 3, 1, 2, 3, 4], [5, 5, 5, 2]],
            3,
        ),
        "right for n = 2 and 3, but for single tokens, n = 1, you get {value}; it is {right}": (
            [[7, 7, 8], [8, 9], [7]],
            1,
        ),
    }

    def right(rows, n):
        grams = [gram for row in rows for gram in _grams(row, n)]
        return len(set(grams)) / len(grams)

    def joined(rows, n):
        grams = _grams([token for row in rows for token in row], n)
        return len(set(grams)) / len(grams)

    def different(rows, n):
        return len({gram for row in rows for gram in _grams(row, n)})

    slips = {
        "you join the rows, so some n-grams begin in one row and end in the next: take those of each row": joined,
        "that is the mean over the rows: an n-gram that stands in two rows counts once among the different ones": (
            lambda rows, n: sum(right([row], n) for row in rows) / len(rows)
        ),
        "you divide by the number of tokens: divide by the number of n-grams, n - 1 fewer in each row": (
            lambda rows, n: different(rows, n) / sum(map(len, rows))
        ),
        "that is the number of different n-grams: divide it by the number of all": different,
        "that is the share that is said again: the share of different ones is 1 minus it": (
            lambda rows, n: 1 - right(rows, n)
        ),
        "your n-grams do not overlap: one begins at every token": (
            lambda rows, n: (
                len({tuple(row[i : i + n]) for row in rows for i in range(0, len(row) - n + 1, n)})
                / sum(len(range(0, len(row) - n + 1, n)) for row in rows)
            )
        ),
        "you count different tokens: count different n-grams": (lambda rows, n: right(rows, 1)),
        "the last n-gram of each row is missing: it begins at len(row) - n": (
            lambda rows, n: (
                len({gram for row in rows for gram in _grams(row, n)[:-1]})
                / sum(len(_grams(row, n)[:-1]) for row in rows)
            )
        ),
        "you count n-grams that come exactly once; one that comes twice is one different n-gram": (
            lambda rows, n: (
                sum(
                    [g for row in rows for g in _grams(row, n)].count(gram) == 1
                    for gram in {g for row in rows for g in _grams(row, n)}
                )
                / sum(len(_grams(row, n)) for row in rows)
            )
        ),
    }
    examine(answer, right, cases, slips)
    return "1 means that nothing is said twice, in no text and in no two."
