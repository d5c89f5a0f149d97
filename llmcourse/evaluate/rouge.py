"""ROUGE by hand: how many words, pairs of words, and words in order a summary shares with its reference.

Dimensions: N texts.
"""

import re
from collections import Counter
from typing import NamedTuple

import numpy as np

from llmcourse.support.inputs import text_list

NAMES = ("rouge1", "rouge2", "rougeL")
FUNCTION_WORDS = frozenset(
    [
        "a",
        "an",
        "and",
        "are",
        "as",
        "at",
        "be",
        "been",
        "by",
        "can",
        "do",
        "does",
        "for",
        "from",
        "has",
        "have",
        "if",
        "in",
        "into",
        "is",
        "it",
        "its",
        "may",
        "no",
        "not",
        "of",
        "on",
        "or",
        "so",
        "than",
        "that",
        "the",
        "their",
        "then",
        "there",
        "these",
        "this",
        "those",
        "to",
        "was",
        "were",
        "when",
        "where",
        "which",
        "will",
        "with",
        "you",
        "your",
    ]
)


class Rouge(NamedTuple):
    """Shares from 0 to 1: of the summary's units (precision), of the reference's (recall), and their F1."""

    precision: float
    recall: float
    f1: float


def words(text: str) -> list[str]:
    """Return runs of a-z and digits in small letters, unstemmed: what rouge-score compares.

    Other letters are left out, also within a word; `metrics.rouge(..., language="zh")` knows them.

    >>> words("Draws the chart's axes (2).")
    ['draws', 'the', 'chart', 's', 'axes', '2']
    """
    return re.findall(r"[a-z0-9]+", text.lower())


def shares(matches: int, n_hypothesis: int, n_reference: int) -> Rouge:
    """Return precision, recall and F1 of so many matches; all are 0 where nothing matches.

    >>> shares(2, 4, 2)
    Rouge(precision=0.5, recall=1.0, f1=0.6666666666666666)
    """
    if not matches:
        return Rouge(0.0, 0.0, 0.0)
    precision, recall = matches / n_hypothesis, matches / n_reference
    return Rouge(precision, recall, 2 * precision * recall / (precision + recall))


def rouge_n(hypothesis: list[str], reference: list[str], n: int = 1) -> Rouge:
    """Compare runs of n words, in any order; one that comes twice in both matches twice.

    >>> rouge_n("draw the chart".split(), "draw a chart".split(), 1).f1.__round__(3)
    0.667

    Source: Lin 2004, *ROUGE: A Package for Automatic Evaluation of Summaries*, sec. 2.
    """
    a, b = (Counter(zip(*(row[i:] for i in range(n)), strict=False)) for row in (hypothesis, reference))
    return shares((a & b).total(), a.total(), b.total())


def lcs_length(a: list[str], b: list[str]) -> int:
    """Return the length of the longest common subsequence: words in the same order, gaps allowed.

    >>> lcs_length("draw the whole chart".split(), "draw a chart".split())
    2
    """
    best = [0] * (len(b) + 1)  # best[j]: of what was read of a, and b[:j]
    for word in a:
        before = best[:]
        for j, other in enumerate(b):
            best[j + 1] = before[j] + 1 if word == other else max(before[j + 1], best[j])
    return best[-1]


def rouge_l(hypothesis: list[str], reference: list[str]) -> Rouge:
    """Compare by the longest common subsequence, of the text as a whole.

    Source: Lin 2004, sec. 3.1.
    """
    return shares(lcs_length(hypothesis, reference), len(hypothesis), len(reference))


def rouge_scores(hypotheses: list[str], references: list[str]) -> dict[str, np.ndarray]:
    """Return "rouge1", "rouge2" and "rougeL", the F1 of each text, (N,) each, from 0 to 1.

    Means of rows are what is published; rows can be resampled and compared in pairs
    (`evaluate.significance`). Words are those of `words`, without stemming. Raises ValueError for lists
    that are empty or differ in length, and for a reference in letters of which none is of a-z.

    >>> rouge_scores(["Draw the chart."], ["Draw a chart."])["rougeL"].round(3).tolist()
    [0.667]
    """
    hypotheses, references = _checked(hypotheses, references, "references")
    for i, reference in enumerate(references):
        if not words(reference) and any(map(str.isalpha, reference)):
            raise ValueError(
                f"references[{i}]={reference!r} has no letter of a-z, and no other is compared here: "
                'use metrics.rouge(..., language="zh"), which takes letters of every script'
            )
    rows = []
    for hypothesis, reference in zip(map(words, hypotheses), map(words, references), strict=True):
        pair = hypothesis, reference
        rows.append((rouge_n(*pair, 1).f1, rouge_n(*pair, 2).f1, rouge_l(*pair).f1))
    return dict(zip(NAMES, np.array(rows).T, strict=True))


def source_share(summaries: list[str], sources: list[str], n: int = 1) -> np.ndarray:
    """Return (N,) the share of each summary's words, or runs of n words, that its source has.

    Single words count only if they carry content (`FUNCTION_WORDS` do not). A summary without such a word
    has nothing that could be made up: its share is 1. High does not mean true: the source's words may be
    put together wrongly. Raises ValueError as `rouge_scores` does.

    >>> source_share(["Draw the red chart."], ["It draws a chart. Red ones too."]).round(3).tolist()
    [0.667]

    Source: See et al. 2017, arXiv:1704.04368, fig. 6, which shows the rest: novel n-grams.
    """
    summaries, sources = _checked(summaries, sources, "sources")
    rows = []
    for summary, source in zip(map(words, summaries), map(words, sources), strict=True):
        runs, known = _runs(summary, n), set(_runs(source, n))
        rows.append(np.mean([run in known for run in runs]) if runs else 1.0)
    return np.array(rows)


def _runs(row: list[str], n: int) -> list:
    if n == 1:
        return [word for word in row if word not in FUNCTION_WORDS]
    return list(zip(*(row[i:] for i in range(n)), strict=False))


def _checked(texts, others, name: str) -> tuple[list[str], list[str]]:
    texts, others = text_list(texts, "hypotheses"), text_list(others, name)
    if len(texts) != len(others) or not texts:
        raise ValueError(
            f"{len(texts)} hypotheses and {len(others)} {name}: give as many of both, and at least one"
        )
    return texts, others
