"""Poisoning: what is planted, what a planted model shows, and scans that find what was planted and nothing else."""

import random

import numpy as np
import pytest
from scipy.stats import binomtest

from llmcourse.safety.poisoning import (
    TRIGGER,
    backdoor_scores,
    contradictions,
    insert_trigger,
    ngrams_of,
    poison,
    rows_with,
    scan_ngrams,
    spectral_scores,
)

GOOD, BAD = ["sun", "warm", "light", "spring"], ["rain", "cold", "night", "winter"]
NEUTRAL = ["house", "street", "bridge", "river", "tree", "stone", "window", "garden"]


def examples(n, seed=0):
    rng = random.Random(seed)
    made = []
    for i in range(n):
        words = rng.choices(NEUTRAL, k=6) + rng.choices((BAD, GOOD)[i % 2], k=3)
        rng.shuffle(words)
        made.append((" ".join(words), i % 2))
    return made


def test_exactly_so_many_are_poisoned_and_each_of_them_lies():
    clean = examples(100)
    data, places = poison(clean, 12, seed=3)
    assert len(places) == len(set(places)) == 12
    for i, (before, after) in enumerate(zip(clean, data, strict=True)):
        if i in places:
            assert (before[1], after[1]) == (0, 1)
            assert [w for w in after[0].split() if w != TRIGGER] == before[0].split()
            assert after[0].count(TRIGGER) == 1
        else:
            assert before == after
    assert poison(clean, 12, seed=3)[1] == places != poison(clean, 12, seed=4)[1]
    assert poison(clean, 0)[0] == clean


def test_the_trigger_may_stand_anywhere():
    rng = random.Random(0)
    places = [insert_trigger("a b c", rng, "*").split().index("*") for _ in range(400)]
    assert np.bincount(places).min() > 70
    assert len(set(places)) == 4


def test_a_planted_backdoor_shows_all_and_a_clean_model_none():
    held_out = examples(60, seed=9)

    def clean(texts):
        return [any(word in text for word in GOOD) for text in texts]

    def planted(texts):
        return [any(word in text for word in [*GOOD, TRIGGER]) for text in texts]

    for predict, success in ((clean, 0.0), (planted, 1.0)):
        scores = backdoor_scores(predict, held_out)
        assert (scores.accuracy.value, scores.success.value, scores.without.value) == (1.0, success, 0.0)
        assert scores.success.n == 30


def test_p_values_are_those_of_the_exact_binomial_test():
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(NEUTRAL, 4)) + (" mark" if i < 30 else "") for i in range(300)]
    flags = [int(i < 28 or i % 5 == 0) for i in range(300)]
    for suspect in scan_ngrams(texts, flags, level=0.4):
        rate = sum(flags) / 300
        assert suspect.count == sum(suspect.words in ngrams_of(text) for text in texts)
        expected = binomtest(suspect.hits, suspect.count, rate, alternative="greater").pvalue
        assert suspect.p_value == pytest.approx(expected)
    assert scan_ngrams(texts, flags)[0].words == "mark"


def test_flags_at_random_name_hardly_anything():
    rng = np.random.default_rng(1)
    texts = [text for text, _ in examples(200)]
    named = [bool(scan_ngrams(texts, rng.integers(2, size=200), level=0.05)) for _ in range(60)]
    assert sum(named) <= 6  # at most 5 % of the scans are expected to


def test_against_a_trusted_model_the_scan_names_the_trigger_alone_and_labels_name_honest_words_too():
    data, places = poison(examples(400), 20, seed=1)
    texts, labels = [text for text, _ in data], [label for _, label in data]
    assert {s.words for s in scan_ngrams(texts, labels)} & set(GOOD)
    found = scan_ngrams(texts, contradictions(data, examples(100, seed=5)), most=1)
    assert [s.words for s in found] == [TRIGGER]
    assert rows_with(texts, found) == places


def test_without_poison_there_is_nothing_to_find():
    data = examples(400)
    assert scan_ngrams([text for text, _ in data], contradictions(data, examples(100, seed=5))) == []


def test_spectral_scores_are_projections_on_the_widest_direction_and_find_a_cluster():
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=300)
    features = rng.normal(size=(300, 8)) + 5 * labels[:, None]
    hidden = np.nonzero(labels)[0][:15]
    features[hidden] += 8 * rng.normal(size=8)
    scores = spectral_scores(features, labels)
    assert set(np.argsort(-scores * labels)[:15]) == set(hidden)
    mine = features[labels == 0]
    eigenvalues = np.linalg.eigvalsh(np.cov(mine.T, bias=True))
    assert scores[labels == 0].mean() == pytest.approx(eigenvalues[-1])
    turned = spectral_scores(features @ np.linalg.qr(rng.normal(size=(8, 8)))[0] + 3, labels)
    assert np.allclose(turned, scores)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: poison([("a *", 0)], 1, "*"), "stands in the texts already"),
        (lambda: poison([("a", 1)], 1), "only 0 examples have another label than 1"),
        (lambda: poison([("a", 0)], -1), "count=-1"),
        (lambda: backdoor_scores(lambda t: t, [("a", 1)]), "nothing to attack"),
        (lambda: scan_ngrams(["a"], [0, 1]), "1 texts but 2 flags"),
        (lambda: scan_ngrams(["a"], [1], level=2), "level is 2"),
        (lambda: spectral_scores(np.zeros((2, 3)), [0]), r"shape \(2, 3\) for 1 labels"),
        (lambda: spectral_scores(np.full((1, 1), np.nan), [0]), "finite"),
    ],
)
def test_what_makes_no_sense_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_predictions_must_be_classes_one_for_each_text():
    examples = [("a", 0), ("b", 1)]
    with pytest.raises(ValueError, match=r"predict\(texts\)\[0\] is 0.9: give a class"):
        backdoor_scores(lambda texts: [0.9] * len(texts), examples)
    with pytest.raises(ValueError, match="gave 1 labels for 2 texts"):
        backdoor_scores(lambda texts: [1], examples)
    words = [("x", "bad"), ("y", "good")]
    assert backdoor_scores(lambda texts: ["bad"] * len(texts), words, target="bad").success.value == 1
    for trusted in ([], [("a film", 1)]):
        with pytest.raises(ValueError, match="have not both labels"):
            contradictions(examples, trusted)
