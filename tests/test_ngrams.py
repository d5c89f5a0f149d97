"""The n-gram model against the same formula over plain dictionaries."""

import math
from collections import Counter

import numpy as np
import pytest

from llmcourse.ngrams import NGramModel

V = 7


def slow_probability(text: list[int], history: list[int], token: int, order: int) -> float:
    """Witten-Bell by recursion: P_n from P_{n-1}, counting in the text each time."""
    if order == 0:
        return 1 / V
    h = tuple(history[len(history) - order + 1 :]) if order > 1 else ()
    n = order
    grams = Counter(tuple(text[i : i + n]) for i in range(len(text) - n + 1))
    after = {gram[-1]: count for gram, count in grams.items() if gram[:-1] == h}
    shorter = slow_probability(text, history, token, order - 1)
    if not after:
        return shorter
    return (after.get(token, 0) + len(after) * shorter) / (sum(after.values()) + len(after))


@pytest.fixture(scope="module")
def text() -> list[int]:
    rng = np.random.default_rng(0)
    return rng.choice(6, size=120, p=[0.5, 0.2, 0.1, 0.1, 0.05, 0.05]).tolist()  # 6 never occurs


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_log_probabilities_follow_the_formula(text, order):
    model = NGramModel(text, V, order)
    other = np.random.default_rng(1).integers(0, V, size=40).tolist()
    for ids in (text[:40], other, [6], []):
        expected = [
            math.log(slow_probability(text, ids[:i], ids[i], min(order, i + 1))) for i in range(len(ids))
        ]
        np.testing.assert_allclose(model.log_probabilities(ids), expected, rtol=1e-12)
    assert model.loss(other) == pytest.approx(-np.mean(model.log_probabilities(other)))


@pytest.mark.parametrize("order", [1, 2, 3])
def test_next_probabilities_sum_to_one_and_agree_with_log_probabilities(text, order):
    model = NGramModel(text, V, order)
    for history in ([], [0], [3, 5], [0, 0, 0, 1], [6, 6, 6], [0, 6], [6, 0], text[-3:]):
        p = model.next_probabilities(history)
        assert p.shape == (V,)
        assert p.min() > 0
        assert p.sum() == pytest.approx(1, abs=1e-12)
        one_by_one = [model.log_probabilities([*history, token])[-1] for token in range(V)]
        np.testing.assert_allclose(np.log(p), one_by_one, rtol=1e-12)


def test_order_1_is_the_smoothed_frequency_of_each_token(text):
    counts = np.bincount(text, minlength=V)
    kinds = (counts > 0).sum()
    expected = (counts + kinds / V) / (len(text) + kinds)
    np.testing.assert_allclose(NGramModel(text, V, 1).next_probabilities([3]), expected)


def test_an_unseen_history_falls_back_to_the_shorter_one(text):
    one, two, three = (NGramModel(text, V, order) for order in (1, 2, 3))
    np.testing.assert_array_equal(two.next_probabilities([6]), one.next_probabilities([]))
    np.testing.assert_array_equal(three.next_probabilities([6, 0]), two.next_probabilities([0]))
    assert not np.allclose(three.next_probabilities([0, 0]), two.next_probabilities([0]))


def test_a_longer_history_is_the_same_as_its_end(text):
    model = NGramModel(text, V, 3)
    for start in range(20):
        history = text[start : start + 9]
        np.testing.assert_array_equal(
            model.next_probabilities(history), model.next_probabilities(history[-2:])
        )


def test_it_learns_what_bigrams_know_and_unigrams_cannot():
    text = [0, 1, 2] * 100
    assert NGramModel(text, 3, 1).loss(text) == pytest.approx(math.log(3), abs=1e-3)
    assert NGramModel(text, 3, 2).loss(text) < 0.1


def test_a_text_shorter_than_the_order_still_gives_probabilities():
    model = NGramModel([2], V, 3)
    np.testing.assert_allclose(model.next_probabilities([1, 1]), NGramModel([2], V, 1).next_probabilities([]))
    assert model.loss([2, 2]) < math.log(V)


def test_numpy_uint16_is_the_same_as_a_list(text):
    ids = np.array(text, dtype=np.uint16)
    p, q = NGramModel(ids, V, 3).log_probabilities(ids), NGramModel(text, V, 3).log_probabilities(text)
    np.testing.assert_array_equal(p, q)


def test_large_keys_do_not_overflow():
    vocab_size = 2**20  # keys of three tokens need 60 of the 63 bits
    text = [vocab_size - 1, vocab_size - 2, vocab_size - 1, vocab_size - 2, vocab_size - 1]
    p = np.exp(NGramModel(text, vocab_size, 3).log_probabilities(text))
    assert p[2] > 0.5  # (2 + 1 * P_2) / 3 or more, after the first two
    assert p[4] > 0.5


def test_samples_follow_the_probabilities(text):
    model = NGramModel(text, V, 2)
    drawn = [model.sample([0], 1, seed=seed)[0] for seed in range(3000)]
    frequency = np.bincount(drawn, minlength=V) / len(drawn)
    p = model.next_probabilities([0])
    assert np.abs(frequency - p).max() < 5 * math.sqrt(0.25 / len(drawn))
    ids = model.sample([0, 1], 50, seed=1)
    assert len(ids) == 50
    assert ids == model.sample([0, 1], 50, seed=1) != model.sample([0, 1], 50, seed=2)


@pytest.mark.parametrize(
    ("ids", "vocab_size", "order", "message"),
    [
        ([], 7, 2, "it has 0 tokens"),
        ([0, 7], 7, 2, "ids from 0 to 6"),
        ([0, -1], 7, 2, "ids from 0 to 6"),
        ([0, 1], 7, 0, "order=0"),
        ([0, 1], 2**21, 3, "below 2"),
    ],
)
def test_errors(ids, vocab_size, order, message):
    with pytest.raises(ValueError, match=message):
        NGramModel(ids, vocab_size, order)


def test_an_empty_text_has_no_loss_and_no_probabilities():
    model = NGramModel([0, 1, 0], 2, 2)
    assert model.log_probabilities([]).tolist() == []
    with pytest.raises(ValueError, match="it has 0 tokens"):
        model.loss([])


@pytest.mark.parametrize("bad", [-1, 2, 5])
def test_an_id_of_another_vocabulary_has_no_probability(bad):
    """Ids are digits of one number: 2 in a vocabulary of 2 is the pair (1, 0), and was counted as such."""
    model = NGramModel([0, 1, 0, 1, 1], 2, 3)
    for measure in (
        model.loss,
        model.log_probabilities,
        model.next_probabilities,
        lambda i: model.sample(i, 1),
    ):
        with pytest.raises(ValueError, match="give ids from 0 to 1"):
            measure([0, bad, 1])


# ---- Kneser-Ney -----------------------------------------------------------------------------


def discount(counts) -> float:
    once, twice = (sum(count == k for count in counts) for k in (1, 2))
    return once / (once + 2 * twice) if once and twice else 0.5


def kneser_ney_counts(text: list[int], n: int, top: bool) -> Counter:
    """How often an n-gram occurs; below the highest order, after how many different tokens."""
    grams = [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]
    if top:
        return Counter(grams)
    return Counter(gram[1:] for gram in {tuple(text[i : i + n + 1]) for i in range(len(text) - n)})


def slow_kneser_ney(text: list[int], history: list[int], token: int, n: int, order: int) -> float:
    """Interpolated Kneser-Ney by recursion over plain dictionaries."""
    if n == 0:
        return 1 / V
    h = tuple(history[len(history) - n + 1 :]) if n > 1 else ()
    counts = kneser_ney_counts(text, n, top=n == order)
    after = {gram[-1]: count for gram, count in counts.items() if gram[:-1] == h}
    shorter = slow_kneser_ney(text, history, token, n - 1, order)
    if not after:
        return shorter
    d = discount(counts.values())
    return (max(after.get(token, 0) - d, 0) + d * len(after) * shorter) / sum(after.values())


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_kneser_ney_follows_the_formula(text, order):
    model = NGramModel(text, V, order, "kneser-ney")
    other = np.random.default_rng(1).integers(0, V, size=25).tolist()
    for ids in (text[:25], other):
        expected = [
            math.log(slow_kneser_ney(text, ids[:i], ids[i], min(order, i + 1), order))
            for i in range(len(ids))
        ]
        np.testing.assert_allclose(model.log_probabilities(ids), expected, rtol=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_kneser_ney_sums_to_one(text, order):
    model = NGramModel(text, V, order, "kneser-ney")
    for history in ([], [0], [3, 5], [6, 6, 6], [6, 0], text[-3:]):
        p = model.next_probabilities(history)
        assert p.min() > 0
        assert p.sum() == pytest.approx(1, abs=1e-12)


def test_kneser_ney_prefers_what_follows_many_things():
    san, francisco, the, a, of, dog = range(6)
    text = [san, francisco] * 20 + [the, dog, a, dog, of, dog] * 3
    p = NGramModel(text, 6, 2, "kneser-ney").next_probabilities([])
    assert p[dog] > p[francisco]  # three kinds of token before it, against one
    p = NGramModel(text, 6, 1, "kneser-ney").next_probabilities([])
    assert p[dog] < p[francisco]  # as the only order, it counts occurrences


def test_an_unknown_smoothing_is_refused():
    with pytest.raises(ValueError, match=r"smoothing='good-turing' is unknown.*witten-bell.*kneser-ney"):
        NGramModel([0, 1], 2, 1, "good-turing")
