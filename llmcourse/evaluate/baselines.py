"""Translators without a neural network, to be beaten: copy, a dictionary counted from pairs, the nearest neighbour.

Each has `translate(texts) -> texts`. Texts are masked (`data.placeholders`): a placeholder is one sign.
"""

import re
from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np

from llmcourse.support.inputs import text_list, whole

WORD = re.compile(r"[\ue000-\uf8ff]|\w+(?:'\w+)?|[^\w\s]")  # a placeholder, a word, or a sign


class Copy:
    """Return each text as it is: what names, placeholders and signs alone are worth.

    >>> Copy().translate(["Open %s"])
    ['Open %s']
    """

    def translate(self, texts: list[str]) -> list[str]:
        """Return the texts."""
        return text_list(texts)


class WordDictionary:
    """Replace each word by the piece of translation that most often comes with it, and only with it.

    For a word w and a piece g of a target (a word; where `joined`, as in Chinese, a run of one to four
    characters), Dice's coefficient is 2 n(w, g) / (n(w) + n(g)), with n the number of pairs that hold
    them. The largest wins, the longer piece among equals; what was never seen is copied.

    >>> pairs = ["red wine", "red car", "car"], ["vin rouge", "voiture rouge", "voiture"]
    >>> WordDictionary(*pairs).translate(["red car!"])
    ['rouge voiture!']

    Raises ValueError without pairs, or for lists that differ in length. Source: Dice 1945; as a lexicon,
    Smadja, McKeown & Hatzivassiloglou 1996, Computational Linguistics 22.
    """

    def __init__(self, sources: list[str], targets: list[str], joined: bool = False, fewest: int = 1):
        sources, targets = _aligned(sources, targets)
        self.joined = joined
        of_word, of_piece, of_both = Counter(), Counter(), defaultdict(Counter)
        for source, target in zip(sources, targets, strict=True):
            words, pieces = set(_words(source)), self._pieces(target)
            of_word.update(words)
            of_piece.update(pieces)
            for word in words:
                of_both[word].update(pieces)
        self.table = {}
        for word, pieces in of_both.items():
            if of_word[word] >= fewest and word[0].isalnum() and pieces:
                self.table[word] = max(
                    pieces, key=lambda g: (2 * pieces[g] / (of_word[word] + of_piece[g]), len(g), g)
                )

    def _pieces(self, target: str) -> set[str]:
        if not self.joined:
            return {word for word in WORD.findall(target) if word[0].isalnum()}
        runs = re.findall(r"[\u4e00-\u9fff]+|[A-Za-z0-9]+", target)
        cuts = {run[i : i + n] for run in runs for n in range(1, 5) for i in range(len(run) - n + 1)}
        return {piece for piece in cuts if not piece.isascii()} | {run for run in runs if run.isascii()}

    def translate(self, texts: list[str]) -> list[str]:
        """Return the texts word by word, in the order of the source."""
        return [self._one(text) for text in text_list(texts)]

    def _one(self, text: str) -> str:
        between = "" if self.joined else " "
        out, end = "", 0
        for match in WORD.finditer(text):
            space = between if match.start() > end else ""
            out += space + self.table.get(match.group().lower(), match.group())
            end = match.end()
        return out


class NearestNeighbour:
    """Return the translation of the most similar known source: a translation memory.

    Texts are rows of TF-IDF weights of their words and pairs of neighbouring words; similarity is the
    cosine, from 0 to 1. A text that shares no word with any source gets the first one's translation.

    >>> memory = NearestNeighbour(["Open the file", "Close it"], ["Ouvrir le fichier", "Fermez-le"])
    >>> memory.translate(["Open a file"])
    ['Ouvrir le fichier']
    >>> memory.similarity(["Close it", "Delete"]).tolist()
    [1.0, 0.0]

    Raises ValueError without pairs, or for lists that differ in length.
    """

    def __init__(self, sources: list[str], targets: list[str]):
        from sklearn.feature_extraction.text import TfidfVectorizer

        sources, self.targets = _aligned(sources, targets)
        self.vectorizer = TfidfVectorizer(analyzer=_words_and_pairs, sublinear_tf=True)
        self.rows = self.vectorizer.fit_transform(sources)  # (N, words), each of length 1

    def _nearest(self, texts: list[str], block: int = 256) -> tuple[np.ndarray, np.ndarray]:
        texts = text_list(texts)
        if not texts:  # scikit-learn refuses an empty table
            return np.zeros(0, dtype=int), np.zeros(0)
        rows, places, cosines = self.vectorizer.transform(texts), [], []
        for start in range(0, rows.shape[0], whole(block, "block")):
            cosine = np.asarray((rows[start : start + block] @ self.rows.T).todense())
            places.append(cosine.argmax(1))
            cosines.append(cosine.max(1))
        return np.concatenate(places), np.concatenate(cosines).round(9)

    def translate(self, texts: list[str]) -> list[str]:
        """Return the translation of each text's nearest source, the first among equals."""
        return [self.targets[place] for place in self._nearest(texts)[0]]

    def similarity(self, texts: list[str]) -> np.ndarray:
        """Return (N,) the cosine with the nearest source."""
        return self._nearest(texts)[1]


class NeighbourOrDictionary:
    """Return the neighbour's translation where its source is similar enough, and the dictionary's elsewhere.

    `least` is the cosine from which on the neighbour is taken; 0 always takes it, more than 1 never.

    >>> pairs = ["Open the file", "Close it"], ["Ouvrir le fichier", "Fermez-le"]
    >>> both = NeighbourOrDictionary(NearestNeighbour(*pairs), WordDictionary(*pairs), least=0.6)
    >>> both.translate(["Open a file", "Move it"])
    ['Ouvrir le fichier', 'Move Fermez']
    """

    def __init__(self, memory: NearestNeighbour, dictionary: WordDictionary, least: float = 0.5):
        self.memory, self.dictionary, self.least = memory, dictionary, least

    def translate(self, texts: list[str]) -> list[str]:
        """Return a translation of each text, by one of the two."""
        near = self.memory.similarity(texts) >= self.least
        both = zip(self.memory.translate(texts), self.dictionary.translate(texts), strict=True)
        return [found if keep else looked_up for (found, looked_up), keep in zip(both, near, strict=True)]


def _words(text: str) -> list[str]:
    return [word.lower() for word in WORD.findall(text)]


def _words_and_pairs(text: str) -> list[str]:
    words = _words(text)
    return words + [f"{a} {b}" for a, b in pairwise(words)]


def _aligned(sources, targets) -> tuple[list[str], list[str]]:
    sources, targets = text_list(sources, "sources"), text_list(targets, "targets")
    if len(sources) != len(targets) or not sources:
        raise ValueError(
            f"{len(sources)} sources and {len(targets)} targets: give one target for each source, and at "
            "least one pair"
        )
    return sources, targets
