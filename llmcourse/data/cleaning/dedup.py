"""Find copies: exact ones by hash, near ones by MinHash and banded lookup.

Dimensions: N documents, K hash functions of a signature, R rows (hash functions) of a band.
"""

import hashlib
import unicodedata
import zlib
from collections.abc import Iterable, Iterator

import numpy as np
import regex

PRIME = (1 << 32) + 15  # the first prime above all shingle hashes, so that a * x + b fits in 64 bits


def words_of(text: str) -> list[str]:
    """Return the words of a text: runs of letters and digits with the marks and joiners in them.

    Marks are half of the vowels of Hindi or Thai, and `\\w` of Python's `re` ends a word at each.
    Source: Unicode Technical Standard 18, annex C.

    >>> words_of("दिन, दान!")
    ['दिन', 'दान']
    """
    return regex.findall(r"[\p{L}\p{N}_][\w\p{N}]*", text)


def normalize(text: str) -> str:
    """Return a text without what copies often change: case, punctuation, spaces, Unicode form.

    A text without a single word, such as a row of emoji, keeps its signs.

    >>> normalize("The  END!") == normalize("the end")
    True
    """
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).lower())
    return " ".join(words_of(text) or text.split())


def exact_duplicates(texts: Iterable[str]) -> list[int]:
    """Return the places of texts that, normalized, stood before: a hash of 8 bytes each in memory."""
    seen: set[bytes] = set()
    copies = []
    for place, text in enumerate(texts):
        key = hashlib.blake2b(normalize(text).encode("utf-8", "surrogatepass"), digest_size=8).digest()
        if key in seen:
            copies.append(place)
        seen.add(key)
    return copies


def shingles(text: str, n: int = 5) -> set[int]:
    """Return the hashes of all runs of `n` words; a shorter text counts as one run."""
    words = normalize(text).split()
    runs = (" ".join(words[i : i + n]) for i in range(max(1, len(words) - n + 1)))
    return {zlib.crc32(run.encode("utf-8", "surrogatepass")) for run in runs}


def jaccard(a: set, b: set) -> float:
    """Return the shared part of two sets: |a and b| / |a or b|; 1 for two empty sets.

    >>> jaccard({1, 2, 3}, {2, 3, 4})
    0.5
    """
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared) if a or b else 1.0


def minhash(shingle_set: set[int], n_hashes: int = 128, seed: int = 0) -> np.ndarray:
    """Return the signature of a set, (K,): under each of K random hash functions, the smallest value.

    Two signatures agree at one place with probability equal to the Jaccard similarity of the sets.
    Raises ValueError for an empty set. Source: Broder 1997, On the resemblance of documents.
    """
    if not shingle_set:
        raise ValueError("an empty set has no smallest value: give at least one shingle")
    rng = np.random.default_rng(seed)
    a, b = rng.integers(1, 1 << 32, size=(2, n_hashes, 1), dtype=np.uint64)
    values = np.fromiter(shingle_set, dtype=np.uint64)
    return ((a * values + b) % np.uint64(PRIME)).min(axis=1)


def candidate_probability(similarity, n_bands: int, rows: int):
    """Return the probability that two texts of this Jaccard similarity share at least one band."""
    return 1 - (1 - similarity**rows) ** n_bands


def candidate_pairs(signatures: np.ndarray, n_bands: int = 32) -> set[tuple[int, int]]:
    """Return the pairs (i < j) of rows of `signatures` (N, K) that agree in a whole band.

    K is cut into bands of K / n_bands hash functions: texts are looked up, never compared all
    with all. Raises ValueError when the bands do not divide K.
    """
    return {(min(pair), max(pair)) for pair in _neighbours(signatures, n_bands, len(signatures))}


def _neighbours(signatures: np.ndarray, n_bands: int, most: int) -> Iterator[tuple[int, int]]:
    """Yield pairs of rows that share a band, for each band; of a row, those with the `most` next in order.

    Sorted by their signatures from the band on, rows that share it stand side by side, and those
    that share what follows are next to each other.
    """
    N, K = signatures.shape
    if K % n_bands:
        raise ValueError(f"n_bands={n_bands} must divide the {K} hash functions of a signature")
    width = signatures.itemsize * K // n_bands
    for start in range(0, K, K // n_bands):
        keys = [row.tobytes() for row in np.roll(signatures, -start, axis=1)]
        order = sorted(range(N), key=keys.__getitem__)
        bands = [keys[i][:width] for i in order]
        for n, band in enumerate(bands):
            for later in range(n + 1, min(n + 1 + most, N)):
                if bands[later] != band:
                    break
                yield order[n], order[later]


def near_groups(
    texts: list[str], threshold: float = 0.7, n_hashes: int = 128, n_bands: int = 32, n: int = 5
) -> list[int]:
    """Return the group of each text: the place of the first text that it is a near copy of, or its own.

    A pair that shares a band is compared exactly, by the Jaccard similarity of its runs of `n`
    words; near copies of near copies form a group. Where many texts share a band, as pages made from
    one template do, each is compared with the 16 whose signatures are nearest in order, so time grows
    with the number of texts and not with its square. Raises ValueError for a threshold outside 0-1.

    >>> near_groups(["one two three", "four", "One, two, three!"])
    [0, 1, 0]

    Source: Lee et al. 2021, arXiv:2107.06499, section 4.2.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold={threshold} must be above 0 and at most 1")
    if not texts:
        return []
    places: dict[frozenset, int] = {}  # the first text with each set: equal sets need no look-up
    group = [places.setdefault(frozenset(shingles(text, n)), place) for place, text in enumerate(texts)]
    sets, place_of = list(places), list(places.values())
    signatures = np.stack([minhash(one, n_hashes) for one in sets])

    def first(place: int) -> int:
        while group[place] != place:
            group[place] = place = group[group[place]]
        return place

    for i, j in _neighbours(signatures, n_bands, most=16):
        low, high = sorted((first(place_of[i]), first(place_of[j])))
        if low != high and jaccard(sets[i], sets[j]) >= threshold:
            group[high] = low
    return [first(place) for place in range(len(texts))]


def near_duplicates(texts: list[str], *args, **options) -> list[int]:
    """Return the places of texts to drop, so that no two left are known to be near copies.

    Of each group of `near_groups`, which takes the same arguments, the first is kept.
    """
    groups = near_groups(texts, *args, **options)
    return [place for place, first in enumerate(groups) if first != place]
