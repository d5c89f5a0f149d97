"""How different are the texts that a model writes: from each other, and within themselves.

A text is a row of words or of token ids; for self-BLEU it is a string. None of these is a score of
quality: texts of random words have the best values of all.
"""

from collections.abc import Hashable, Sequence

from llmcourse.evaluate.metrics import LANGUAGES
from llmcourse.support.inputs import plain, text_list, whole


def distinct_n(rows: Sequence[Sequence[Hashable]], n: int) -> float:
    """Return the share of different n-grams among all n-grams of all rows: 1 if none comes twice.

    More and longer texts repeat more: compare equal numbers of equally long ones. (The paper divides
    by the number of tokens, which is little more than that of n-grams.) Raises ValueError where
    no row holds an n-gram.

    >>> distinct_n(["to be or not".split(), "to be or so".split()], n=2)
    0.6666666666666666

    Source: Li et al. 2016, arXiv:1510.03055, sec. 5.
    """
    grams = [gram for row in _ngrams(rows, n) for gram in row]
    if not grams:
        raise ValueError(f"no row has {n} items, so there is no n-gram: give longer rows or a smaller n")
    return len(set(grams)) / len(grams)


def repetition(rows: Sequence[Sequence[Hashable]], n: int) -> float:
    """Return the mean over rows of the share of n-grams that stood earlier in the same row (rep-n).

    It is 0 if no row repeats itself, whatever the other rows say. Raises ValueError for a row
    shorter than n.

    >>> repetition(["to be or to be".split(), "to be or so".split()], n=2)
    0.125

    Source: Welleck et al. 2020, arXiv:1908.04319, eq. 8 (seq-rep-n).
    """
    grams = _ngrams(rows, n)
    if not grams or not all(grams):
        lengths = sorted(len(row) for row in rows)
        raise ValueError(f"rows of {lengths[:3]} items: each needs {n} or more, and there must be one")
    return sum(1 - len(set(row)) / len(row) for row in grams) / len(grams)


def self_bleu(texts: Sequence[str], language: str = "en") -> float:
    """Return the mean BLEU of each text against all others, from 0 to 100: 100 if all are the same.

    High means that the texts share their phrases. It grows with the number of texts: compare equal
    numbers. BLEU of one text is sacrebleu's, of the n-gram orders that the text has, smoothed.
    Raises ValueError for fewer than two texts.

    >>> round(self_bleu(["to be or not to be", "to be or not to be", "it is the night"]), 1)
    66.7

    Source: Zhu et al. 2018, Texygen, arXiv:1802.01886, sec. 3.2.
    """
    from sacrebleu.metrics import BLEU

    texts = text_list(texts)
    if language not in LANGUAGES:
        raise ValueError(f"language={language!r} is unknown: choose one of {LANGUAGES}")
    if len(texts) < 2:
        raise ValueError(f"{len(texts)} texts: each is compared with the others, so give at least 2")
    bleu = BLEU(effective_order=True, tokenize="zh" if language == "zh" else "13a")
    others = (texts[:i] + texts[i + 1 :] for i in range(len(texts)))
    return sum(bleu.sentence_score(*pair).score for pair in zip(texts, others, strict=True)) / len(texts)


def _ngrams(rows, n: int) -> list[list[tuple]]:
    n, rows = whole(n, "n"), [plain(row, f"rows[{i}]") for i, row in enumerate(rows)]
    return [[tuple(row[i : i + n]) for i in range(len(row) - n + 1)] for row in rows]
