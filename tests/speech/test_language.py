"""The prior of words: the n-gram model's numbers, and what they do to a search."""

import math

import pytest
import torch

from llmcourse.ngrams import NGramModel
from llmcourse.speech.ctc import prefix_beam_search
from llmcourse.speech.language import word_prior

TEXTS = [[1, 2, 3], [1, 2, 4], [2, 2, 3]]


@pytest.mark.parametrize("order", [2, 3])
def test_it_is_the_ngram_model_with_weight_and_bonus(order):
    border = [0] * (order - 1)
    rows = [label for row in TEXTS for label in (*border, *row)]
    counted = NGramModel(rows + border, 5, order)
    prior = word_prior(TEXTS, 5, order, weight=0.7, bonus=0.2)
    for prefix in ((), (1,), (1, 2), (4, 4, 2)):
        p = counted.next_probabilities([*border, *prefix][-(order - 1) :])
        for label in range(1, 5):
            assert math.isclose(prior(prefix, label), 0.7 * math.log(p[label]) + 0.2)


def test_it_decides_where_the_sound_does_not():
    frames = torch.tensor(
        [[0.1, 0.86, 0.02, 0.01, 0.01], [0.9, 0.02, 0.02, 0.02, 0.04], [0.1, 0.01, 0.3, 0.3, 0.29]]
    )
    log_probs = frames.log()
    texts = [[1, 2], [1, 2], [1, 2], [4, 3]]
    assert prefix_beam_search(log_probs, 8, prior=word_prior(texts, 5, 2))[0][0] == [1, 2]
    texts = [[1, 4], [1, 4], [1, 4], [2, 3]]
    assert prefix_beam_search(log_probs, 8, prior=word_prior(texts, 5, 2))[0][0] == [1, 4]


def test_without_a_bonus_texts_get_shorter():
    log_probs = torch.tensor([[0.45, 0.55, 0.0], [0.9, 0.05, 0.05]]).clamp(min=1e-6).log()
    longer, shorter = (
        prefix_beam_search(log_probs, 8, prior=word_prior([[1, 2], [2, 1]], 3, 2, bonus=bonus))[0][0]
        for bonus in (1.0, 0.0)
    )
    assert (longer, shorter) == ([1], [])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(texts=[]), "0 texts"),
        (dict(texts=[[0, 1]]), "labels from 1 to 4"),
        (dict(texts=[[1, 5]]), "labels from 1 to 4"),
        (dict(order=1), "order"),
        (dict(weight=-1), "weight"),
        (dict(bonus=float("nan")), "bonus"),
    ],
)
def test_bad_input_is_named(options, words):
    with pytest.raises(ValueError, match=words):
        word_prior(**(dict(texts=TEXTS, n_labels=5) | options))
