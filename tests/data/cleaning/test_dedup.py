"""Copies: exact ones against a set, MinHash against exact Jaccard and its closed forms."""

import itertools
import math
import random
import unicodedata

import numpy as np
import pytest

from llmcourse.data.cleaning import dedup
from llmcourse.data.cleaning.dedup import (
    PRIME,
    candidate_pairs,
    candidate_probability,
    exact_duplicates,
    jaccard,
    minhash,
    near_duplicates,
    normalize,
    shingles,
    words_of,
)

WORDS = [f"w{i}" for i in range(5000)]


def overlapping(similarity: float, size: int, rng: random.Random) -> tuple[set[int], set[int]]:
    """Two random sets of hashes with a Jaccard similarity near the one asked for."""
    shared = round(2 * size * similarity / (1 + similarity))
    numbers = rng.sample(range(1 << 32), 2 * size - shared)
    return set(numbers[:size]), set(numbers[size - shared :])


def text(n: int, seed: int) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=n))


@pytest.mark.parametrize(
    ("a", "b"), [("The  END!", "the end"), ("ﬁne", "fine"), ("a\n\nb", "A, b."), ("你好。", "你好")]
)
def test_normalized_texts_are_exact_copies(a, b):
    assert normalize(a) == normalize(b)
    assert exact_duplicates([a, "between", b]) == [2]


@pytest.mark.parametrize("first", [0x590, 0x610, 0x900, 0xB80, 0xE00, 0xF00, 0x1000, 0x1780])
def test_words_that_differ_in_a_mark_are_no_copies(first):
    """Hebrew, Arabic, Devanagari, Tamil, Thai, Tibetan, Burmese, Khmer: UTS 18, annex C, counts marks to words."""
    block = [chr(code) for code in range(first, first + 128)]
    marks = [
        c for c in block if unicodedata.category(c) in ("Mn", "Mc") and unicodedata.normalize("NFKC", c) == c
    ]
    letter = next(c for c in block if unicodedata.category(c) == "Lo")
    words = [letter + mark + letter for mark in marks] + [letter * 2]
    assert len(words) > 10
    assert exact_duplicates(words) == []
    assert exact_duplicates(words + [f"« {word}! »" for word in words]) == list(
        range(len(words), 2 * len(words))
    )
    assert [words_of(word) for word in words] == [[word] for word in words]
    assert near_duplicates(words) == []


def test_words_are_those_of_python_where_there_are_no_marks():
    import re

    rng = random.Random(0)
    alphabet = "aZß9_²é京かкλ א\t\n.,;-!?'()[]{}@#$%€☃"
    for _ in range(200):
        some = "".join(rng.choices(alphabet, k=40))
        assert words_of(some) == re.findall(r"\w+", some)


def test_signs_alone_are_told_apart_and_everything_is_normal_once():
    assert exact_duplicates(["👍", "👎", "!", "", " ", "👍\n", "half \ud83d"]) == [4, 5]
    for code in [*range(0x80, 0x3000), *range(0xFB00, 0x10000)]:
        once = normalize(f"a{chr(code)}B")
        assert normalize(once) == once


def test_exact_duplicates_are_those_of_a_set():
    texts = [letter * (i % 3 + 1) for i, letter in enumerate(random.Random(0).choices("abcdefgh", k=200))]
    seen = set()
    expected = [i for i, t in enumerate(texts) if t in seen or seen.add(t)]
    assert exact_duplicates(texts) == expected


def test_jaccard_by_definition():
    rng = random.Random(0)
    for _ in range(50):
        a, b = (set(rng.choices(range(20), k=rng.randint(0, 15))) for _ in range(2))
        union = sum(x in a or x in b for x in range(20))
        expected = sum(x in a and x in b for x in range(20)) / union if union else 1.0
        assert jaccard(a, b) == jaccard(b, a) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("n_words", "n", "expected"), [(5, 5, 1), (6, 5, 2), (3, 5, 1), (0, 5, 1), (9, 1, 9)]
)
def test_the_number_of_shingles(n_words, n, expected):
    assert len(shingles(" ".join(WORDS[:n_words]), n)) == expected


@pytest.mark.parametrize("similarity", [0.05, 0.2, 0.5, 0.8, 0.95])
def test_minhash_estimates_jaccard_without_bias_and_with_the_known_spread(similarity):
    rng, K = random.Random(1), 256
    errors = []
    for _ in range(60):
        a, b = overlapping(similarity, 300, rng)
        exact = jaccard(a, b)
        errors.append((minhash(a, K) == minhash(b, K)).mean() - exact)
    spread = math.sqrt(similarity * (1 - similarity) / K)
    assert abs(np.mean(errors)) < 4 * spread / math.sqrt(60)
    assert 0.6 * spread < np.std(errors) < 1.5 * spread


def test_minhash_equals_the_smallest_value_under_python_integers():
    a, b = np.random.default_rng(3).integers(1, 1 << 32, size=(2, 8, 1), dtype=np.uint64)
    some = set(random.Random(0).sample(range(1 << 32), 40)) | {0, (1 << 32) - 1}
    expected = [
        min((int(x) * s + int(y)) % PRIME for s in some) for x, y in zip(a[:, 0], b[:, 0], strict=True)
    ]
    assert minhash(some, 8, seed=3).tolist() == expected


def test_the_modulus_is_a_prime_above_every_shingle_hash():
    assert PRIME > (1 << 32) - 1
    assert all(PRIME % divisor for divisor in range(2, math.isqrt(PRIME) + 1))
    assert ((1 << 32) - 1) ** 2 + (1 << 32) - 1 < 1 << 64  # a * x + b fits


def test_a_signature_does_not_depend_on_the_order_and_needs_something():
    some = list(range(0, 10_000, 7))
    assert (minhash(set(some)) == minhash({*reversed(some)})).all()
    with pytest.raises(ValueError, match="an empty set has no smallest value"):
        minhash(set())


def test_candidate_pairs_are_those_that_share_a_band():
    signatures = np.random.default_rng(0).integers(0, 3, size=(40, 12), dtype=np.uint64)
    expected = {
        (i, j)
        for i, j in itertools.combinations(range(40), 2)
        if any((signatures[i, k : k + 3] == signatures[j, k : k + 3]).all() for k in range(0, 12, 3))
    }
    assert candidate_pairs(signatures, n_bands=4) == expected
    with pytest.raises(ValueError, match="n_bands=5 must divide the 12 hash functions"):
        candidate_pairs(signatures, n_bands=5)


@pytest.mark.parametrize(("similarity", "n_bands", "rows"), [(0.3, 16, 4), (0.6, 16, 4), (0.7, 8, 8)])
def test_the_probability_of_a_shared_band(similarity, n_bands, rows):
    rng = np.random.default_rng(0)
    equal = rng.random((4000, n_bands, rows)) < similarity
    measured = equal.all(axis=2).any(axis=1).mean()
    assert candidate_probability(similarity, n_bands, rows) == pytest.approx(measured, abs=0.03)


def test_near_duplicates_are_those_of_all_pairs_compared():
    rng = random.Random(2)
    texts = []
    for seed in range(40):
        words = text(120, seed).split()
        for _ in range(rng.randint(1, 4)):
            texts.append(" ".join(w if rng.random() > 0.02 else "other" for w in words))
    rng.shuffle(texts)
    sets = [shingles(t) for t in texts]
    group = list(range(len(texts)))
    for i, j in itertools.combinations(range(len(texts)), 2):  # single linkage, slowly
        if jaccard(sets[i], sets[j]) >= 0.7:
            low, high = sorted((group[i], group[j]))
            group = [low if g == high else g for g in group]
    expected = [i for i in range(len(texts)) if group[i] != i]
    assert near_duplicates(texts, threshold=0.7) == expected
    assert 20 < len(expected) < len(texts) - 40


def test_near_duplicates_edges():
    assert near_duplicates([]) == []
    assert near_duplicates(["", "", "a b"]) == [1]
    assert near_duplicates([text(50, 1), text(50, 2)]) == []
    for threshold in (0, 1.5):
        with pytest.raises(ValueError, match=f"threshold={threshold} must be above 0"):
            near_duplicates(["a"], threshold)


def test_the_same_pairs_as_datasketch_up_to_the_chance_of_both():
    from datasketch import MinHash

    rng = random.Random(5)
    for similarity in (0.2, 0.6, 0.9):
        a, b = overlapping(similarity, 200, rng)
        theirs = [MinHash(num_perm=512, seed=1) for _ in range(2)]
        for sketch, some in zip(theirs, (a, b), strict=True):
            sketch.update_batch([str(x).encode() for x in some])
        ours = (minhash(a, 512) == minhash(b, 512)).mean()
        assert ours == pytest.approx(theirs[0].jaccard(theirs[1]), abs=5 * math.sqrt(0.25 / 256))


def stubs(n: int, common: int, own: int) -> list[str]:
    """Pages made from one template, each with some words of its own; every tenth is a near copy of another."""
    rng = random.Random(0)
    template, pages = text(common, 0), []
    for i in range(n):
        page = f"{template} {text(own, i + 1)}"
        pages.append(f"{rng.choice(pages).rsplit(' ', 1)[0]} x{i}" if i % 10 == 9 else page)
    return pages


@pytest.mark.parametrize(("common", "own"), [(20, 5), (40, 4), (12, 4)])  # below, above and far below 0.7
def test_comparisons_of_stub_pages_grow_with_their_number(common, own, monkeypatch):
    counted = [0, 0]
    for which, n in enumerate((300, 600)):

        def counting(a, b, which=which):
            counted[which] += 1
            return jaccard(a, b)

        monkeypatch.setattr(dedup, "jaccard", counting)
        found = near_duplicates(stubs(n, common, own))
        assert len(found) == (n - 1 if own == 4 and common == 40 else n // 10)
    assert counted[1] < 2.4 * counted[0]
    near_duplicates(["This page is a stub."] * 600)
    assert counted[1] < 2.4 * counted[0]  # equal texts are not compared at all
