"""N-gram language models: counts of what followed, the baseline that a neural one must beat.

Dimensions: N tokens of the text, V vocabulary.
"""

import math

import numpy as np

from llmcourse.support.inputs import id_row, whole

SMOOTHINGS = ("witten-bell", "kneser-ney")


class NGramModel:
    """Interpolated n-gram model, counted from one row of token ids.

    Each order mixes what followed the history h with the shorter history h' (h without its first
    token); P_0 is uniform, and an unseen history falls back to the shorter one. kinds(h) is the
    number of different tokens seen after h.

    - "witten-bell": P(w | h) = (count(h w) + kinds(h) · P(w | h')) / (count(h) + kinds(h))
    - "kneser-ney": P(w | h) = (max(count(h w) - d, 0) + d · kinds(h) · P(w | h')) / count(h), with
      d = n1 / (n1 + 2 n2) from how many n-grams were seen once and twice. Below the highest order,
      count(h w) is the number of different tokens seen before h w: "Francisco" is frequent, but
      only after "San".

    Raises ValueError for an empty text, an id outside the vocabulary (here and in each method), an
    unknown smoothing, or when V^order does not fit into 63 bits.

    >>> model = NGramModel([0, 1, 0, 1, 0], vocab_size=2, order=2)
    >>> model.next_probabilities([0]).round(3).tolist()
    [0.19, 0.81]

    Source: Chen & Goodman 1998, TR-10-98, sec. 2.6 and 2.7 (interpolated, one discount an order).
    """

    def __init__(self, token_ids, vocab_size: int, order: int, smoothing: str = "witten-bell"):
        if smoothing not in SMOOTHINGS:
            raise ValueError(f"smoothing={smoothing!r} is unknown: choose one of {SMOOTHINGS}")
        vocab_size, order = whole(vocab_size, "vocab_size"), whole(order, "order")
        if vocab_size**order >= 2**63:
            raise ValueError(
                f"order={order} with vocab_size={vocab_size}: vocab_size**order must be below 2**63; "
                "use a smaller order or vocabulary"
            )
        ids = id_row(token_ids, vocab_size, least=1)
        self.vocab_size, self.order, self.smoothing = vocab_size, order, smoothing
        self._grams, self._histories, self._discounts = [], [], []
        rows = np.sort(self._keys(ids, order))  # every n-gram of the text, equal ones side by side
        longer = rows[:0]  # the different (n + 1)-grams
        for n in range(order, 0, -1):
            counted = rows
            if smoothing == "kneser-ney" and len(longer):  # below the longest: how many kinds stand before
                counted = np.sort(longer % vocab_size**n)
            grams, _, counts = _runs(counted)
            histories, first, kinds = _runs(grams // vocab_size)
            totals = np.add.reduceat(counts, first) if len(counts) else counts
            once, twice = (counts == 1).sum(), (counts == 2).sum()
            self._discounts.insert(0, once / (once + 2 * twice) if once and twice else 0.5)
            self._grams.insert(0, (grams, counts))
            self._histories.insert(0, (histories, totals, kinds))
            longer = _runs(rows)[0]
            rows = self._shorter(rows, ids, n - 1)

    def _keys(self, ids: np.ndarray, n: int) -> np.ndarray:
        keys = np.zeros(max(0, len(ids) - n + 1), dtype=np.int64)
        for i in range(n):
            keys = keys * self.vocab_size + ids[i : i + len(keys)]
        return keys

    def _shorter(self, rows: np.ndarray, ids: np.ndarray, n: int) -> np.ndarray:
        """Return all n-grams in order from the (n + 1)-grams in order: their beginnings, and the text's end."""
        last = self._keys(ids[max(0, len(ids) - n) :], n)
        beginnings = rows // self.vocab_size
        return np.insert(beginnings, np.searchsorted(beginnings, last), last)

    def _interpolate(self, n: int, count, total, kind, shorter: np.ndarray) -> np.ndarray:
        if self.smoothing == "witten-bell":
            mixed = (count + kind * shorter) / np.maximum(total + kind, 1)
        else:
            d = self._discounts[n - 1]
            mixed = (np.maximum(count - d, 0) + d * kind * shorter) / np.maximum(total, 1)
        return np.where(total > 0, mixed, shorter)

    def log_probabilities(self, token_ids) -> np.ndarray:
        """Return (N,): the natural log of each token's probability given those before it."""
        ids = id_row(token_ids, self.vocab_size)
        p = np.full(len(ids), 1.0 / self.vocab_size)
        for n in range(1, self.order + 1):
            keys = self._keys(ids, n)
            (grams, counts), (histories, totals, kinds) = self._grams[n - 1], self._histories[n - 1]
            count = _look_up(grams, counts, keys)
            total, kind = _look_up(histories, np.stack([totals, kinds]), keys // self.vocab_size)
            p[n - 1 :] = self._interpolate(n, count, total, kind, p[n - 1 :])
        return np.log(p)

    def loss(self, token_ids) -> float:
        """Return the mean negative log-probability in nats per token: the loss of a language model.

        Raises ValueError for an empty text, which has no mean.
        """
        return -float(self.log_probabilities(id_row(token_ids, self.vocab_size, least=1)).mean())

    def next_probabilities(self, history) -> np.ndarray:
        """Return (V,): the probability of each next token after `history`; they sum to 1."""
        history = id_row(history, self.vocab_size, "history").tolist()
        p = np.full(self.vocab_size, 1.0 / self.vocab_size)
        for n in range(1, min(self.order, len(history) + 1) + 1):
            ids, counts = self._followers(history[len(history) - n + 1 :])
            count = np.zeros(self.vocab_size, dtype=np.int64)
            count[ids] = counts
            p = self._interpolate(n, count, count.sum(), len(ids), p)
        return p

    def _followers(self, history: list[int]) -> tuple[np.ndarray, np.ndarray]:
        key = 0
        for token in history:
            key = key * self.vocab_size + token
        grams, counts = self._grams[len(history)]  # what followed this history stands in one piece
        here = slice(*np.searchsorted(grams, (key * self.vocab_size, (key + 1) * self.vocab_size)))
        return grams[here] - key * self.vocab_size, counts[here]

    def followers(self, history) -> tuple[np.ndarray, np.ndarray]:
        """Return which tokens followed `history` in the text, (M,), and their counts, (M,).

        Of a history that was not seen, or is longer than order - 1 tokens, only the end counts, as
        much of it as was seen: at worst none of it, and then every token of the text is a follower.

        >>> NGramModel([0, 1, 0, 2, 0, 2], vocab_size=3, order=3).followers([1, 0])
        (array([2]), array([1]))
        >>> NGramModel([0, 1, 0, 2, 0, 2], vocab_size=3, order=3).followers([0, 0])
        (array([1, 2]), array([1, 2]))
        """
        history = id_row(history, self.vocab_size, "history").tolist()
        for n in range(min(self.order - 1, len(history)), 0, -1):
            ids, counts = self._followers(history[-n:])
            if len(ids):
                return ids, counts
        return self._followers([])

    def sample(self, history, n_tokens: int, seed: int = 0) -> list[int]:
        """Return `n_tokens` ids drawn one after another, each given those before it."""
        rng, ids = np.random.default_rng(seed), id_row(history, self.vocab_size, "history").tolist()
        start = len(ids)
        for _ in range(whole(n_tokens, "n_tokens", least=0)):
            p = self.next_probabilities(ids[-self.order :])
            ids.append(int(rng.choice(self.vocab_size, p=p / math.fsum(p))))
        return ids[start:]


def _runs(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the different numbers of an ascending row, where each begins, and how often it stands there."""
    first = np.flatnonzero(np.append(True, keys[1:] != keys[:-1])[: len(keys)])
    return keys[first], first, np.diff(np.append(first, len(keys)))


def _look_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the values (..., N) that stand at the ascending `keys` for those wanted, 0 for an unknown one."""
    if len(keys) == 0:
        return np.zeros((*values.shape[:-1], len(wanted)), dtype=np.int64)
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[..., at], 0)
