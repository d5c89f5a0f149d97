"""Drafts: cheap guesses of the next tokens, for a model to check (decode/speculative.py).

A draft is a function from all token ids so far to a dictionary: which tokens may come next, and with
what weights. An empty dictionary proposes nothing. A bad draft costs time, never quality.

Dimensions: M candidates.
"""

import contextlib
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from llmcourse.ngrams import NGramModel

Draft = Callable[[list[int]], dict[int, float]]
CERTAIN = np.ones(1)  # the probability of a single candidate


def own_text(token_ids: list[int], n: int = 3) -> dict[int, float]:
    """Propose what followed the last `n` tokens where they stood in this text before: names, refrains.

    >>> own_text([5, 6, 7, 8, 5, 6, 7])
    {8: 1.0}

    Source: Saxena 2023, "Prompt lookup decoding".
    """
    last, at = token_ids[-n:], n - 2
    with contextlib.suppress(ValueError):  # the last token stands nowhere else
        while len(token_ids) > n:
            at = token_ids.index(last[-1], at + 1, len(token_ids) - 1)
            if token_ids[at + 1 - n : at + 1] == last:
                return {token_ids[at + 1]: 1.0}
    return {}


class Counted:
    """Proposes what followed the last tokens in the text that `ngrams` has counted, by how often it did.

    >>> draft = Counted(NGramModel([0, 1, 0, 2, 0, 2], vocab_size=3, order=2))
    >>> draft([2, 0])
    {1: 1, 2: 2}
    """

    def __init__(self, ngrams: NGramModel):
        self.ngrams, self.vocab_size, self.n = ngrams, ngrams.vocab_size, ngrams.order - 1
        self.known = {}  # what was asked for, so that each end of a text is looked up once

    def __call__(self, token_ids: list[int]) -> dict[int, float]:
        end = tuple(token_ids[max(0, len(token_ids) - self.n) :])
        if end not in self.known:
            ids, counts = self.ngrams.followers(end)
            self.known[end] = dict(zip(ids.tolist(), counts.tolist(), strict=True))
        return self.known[end]


class Guess(NamedTuple):
    """A token that a draft proposes, and all its candidates (M,) with their probabilities (M,)."""

    token: int
    ids: list[int]
    q: np.ndarray


def draw(weights: np.ndarray, rng: np.random.Generator) -> int:
    """Return an index of weights (M,), drawn in proportion to them.

    >>> draw(np.array([0.0, 2.0, 0.0]), np.random.default_rng(0))
    1
    """
    sums = np.cumsum(weights, dtype=np.float64)
    return min(int(np.searchsorted(sums, rng.random() * sums[-1], side="right")), len(sums) - 1)


def guess(candidates: dict[int, float], vocab_size: int, temperature: float, rng) -> Guess:
    """Return a token drawn by weight^(1 / temperature), or for temperature 0 the one of the largest weight.

    Raises ValueError for a token outside the vocabulary, and for weights that cannot be drawn by.

    >>> guess({4: 1.0, 7: 3.0}, vocab_size=10, temperature=0, rng=None).token
    7
    """
    if temperature < 1e-6:
        best = max(candidates, key=candidates.get)
        candidates = {best: candidates[best]}
    if any(token not in range(vocab_size) for token in candidates):
        token = next(token for token in candidates if token not in range(vocab_size))
        raise ValueError(
            f"the draft proposes token {token!r}, and the model has {vocab_size}, from 0 on: both must count "
            "in the same vocabulary"
        )
    ids = list(candidates)
    if len(ids) == 1 and 0 < candidates[ids[0]] < math.inf:
        return Guess(ids[0], ids, CERTAIN)
    weights = np.array(list(candidates.values()), dtype=np.float64)
    if not 0 <= weights.min() <= weights.max() < np.inf or weights.max() == 0:
        raise ValueError(
            f"the draft gives the weights {weights[:5]}: give numbers from 0 on, not all of them 0"
        )
    q = (weights / weights.max()) ** (1 / temperature)
    q /= q.sum()
    i = draw(q, rng)
    return Guess(ids[i], ids, q)


def propose(
    drafts: list[Draft], token_ids: list[int], n: int, vocab_size: int, temperature: float, rng
) -> list[Guess]:
    """Return at most `n` guesses after the tokens so far; each is made by the first draft that has candidates."""
    text, guesses = list(token_ids), []
    while len(guesses) < n:
        candidates = next(filter(None, (draft(text) for draft in drafts)), None)
        if candidates is None:
            break
        guesses.append(guess(candidates, vocab_size, temperature, rng))
        text.append(guesses[-1].token)
    return guesses
