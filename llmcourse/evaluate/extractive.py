"""Summaries without training: sentences that stand in the text, chosen by place, by rank, or with the answer known.

Dimensions: N sentences, D width of a sentence's vector.
"""

from collections.abc import Callable

import numpy as np

from llmcourse.data.summary_text import sentences
from llmcourse.evaluate.rouge import rouge_l, words
from llmcourse.support.inputs import number, text_list, whole

Embed = Callable[[list[str]], np.ndarray]  # N sentences -> (N, D)


def lead(texts: list[str], n: int = 1) -> list[str]:
    """Return the first n sentences of each text: for news, a baseline that long was not beaten.

    >>> lead(["One is here. Two is there."])
    ['One is here.']
    """
    n = whole(n, "n")
    return [" ".join(sentences(text)[:n]) for text in text_list(texts)]


def first_words(texts: list[str], n: int) -> list[str]:
    """Return the first n words of each text: a copy that is as long as a summary may be.

    >>> first_words(["One is here. Two is there."], 2)
    ['One is']
    """
    n = whole(n, "n")
    return [" ".join(text.split()[:n]) for text in text_list(texts)]


def page_rank(weights, damping: float = 0.85, tolerance: float = 1e-10, most: int = 1000) -> np.ndarray:
    """Return (N,) how often a walk is at each node, by power iteration; the numbers sum to 1.

    `weights` (N, N), none negative, say how strongly row i points to column j. The walk follows a row's
    weights with probability `damping`, else it jumps anywhere, as it does from a row of zeros. Raises
    ValueError for what is no such table.

    >>> page_rank([[0, 1], [1, 0]]).tolist()
    [0.5, 0.5]

    Source: Brin & Page 1998; for sentences, Mihalcea & Tarau 2004, *TextRank*, sec. 2.2.
    """
    weights = np.array(weights, dtype=float)
    if (
        weights.ndim != 2
        or weights.shape[0] != weights.shape[1]
        or not len(weights)
        or not (weights >= 0).all()
    ):
        raise ValueError(
            f"weights of shape {weights.shape} are no (N, N) table of numbers from 0 up: give one"
        )
    damping = number(damping, "damping", 0, 1 - 1e-9, "a number in [0, 1), 0.85 is usual")
    N = len(weights)
    totals = weights.sum(axis=1, keepdims=True)
    steps = np.divide(weights, totals, out=np.full((N, N), 1 / N), where=totals > 0)  # rows sum to 1
    rank = np.full(N, 1 / N)
    for _ in range(most):
        new = damping * rank @ steps + (1 - damping) / N
        if np.abs(new - rank).sum() < tolerance:
            break
        rank = new
    return new


def textrank(texts: list[str], embed: Embed, damping: float = 0.85) -> list[str]:
    """Return the sentence of each text that the others point to most, the first among equals.

    Two sentences point to each other with the cosine of their vectors, where it is positive. `embed` gives
    the vectors (N, D) of all sentences of all texts together; of texts with one or two sentences, which are
    always equal, the first is taken without asking.

    >>> axes = {"a": [1, 0], "b": [0.7, 0.7], "c": [0, 1]}
    >>> textrank(["A a. B b. C c."], lambda rows: np.array([axes[row[0].lower()] for row in rows]))
    ['B b.']
    """
    rows = [sentences(text) for text in text_list(texts)]
    flat = [sentence for row in rows if len(row) > 2 for sentence in row]
    vectors = np.asarray(embed(flat)) if flat else np.zeros((0, 1))
    chosen, start = [], 0
    for row in rows:
        best = 0
        if len(row) > 2:
            part = vectors[start : start + len(row)]
            start += len(row)
            best = int(page_rank(votes(part), damping).round(9).argmax())
        chosen.append(row[best] if row else "")
    return chosen


def votes(vectors) -> np.ndarray:
    """Return (N, N), how strongly sentences point to each other: the positive cosines of vectors (N, D).

    None points to itself.

    >>> votes([[1, 0], [0.6, 0.8]]).round(1).tolist()
    [[0.0, 0.6], [0.6, 0.0]]
    """
    vectors = np.asarray(vectors, dtype=float)
    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return np.maximum(vectors @ vectors.T, 0) * (1 - np.eye(len(vectors)))


def best_sentence(texts: list[str], references: list[str]) -> list[str]:
    """Return the sentence of each text with the best ROUGE-L, for which the answer must be known.

    No choice of one sentence can do better: an upper bound, called oracle.

    >>> best_sentence(["One is here. Two is there."], ["It is there."])
    ['Two is there.']
    """
    chosen = []
    for text, reference in zip(text_list(texts), text_list(references, "references"), strict=True):
        rows = sentences(text) or [""]
        chosen.append(max(rows, key=lambda row: rouge_l(words(row), words(reference)).f1))
    return chosen
