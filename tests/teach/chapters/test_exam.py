"""Chapter 3e's exam: the right line comes next, likelihoods are sums, and words are replaced at the rate asked."""

import random

import numpy as np
import pytest
import torch

from llmcourse.data.sources.plays import load_plays
from llmcourse.ngrams import NGramModel
from llmcourse.teach.chapters.ch03e_evaluation.exam import (
    next_line_items,
    ngram_choice,
    passages,
    reworded,
)


def test_the_answer_is_the_line_that_comes_next():
    text = load_plays(quiet=True)[0].text
    for passage, four, answer in next_line_items(text, 40, random.Random(0)):
        assert passage + four[answer] in text
        assert len(set(four)) == 4
        assert all(passage + line not in text for line in four if line != four[answer])


def test_a_choice_is_scored_by_the_sum_after_its_context():
    ids = torch.randint(7, (500,), generator=torch.Generator().manual_seed(0))
    model = NGramModel(ids, 7, 3, "kneser-ney")
    context, options = [1, 2, 3], [[4, 5], [6], [0, 0, 1]]
    scores = ngram_choice(model, [context], [options])
    for score, option in zip(scores[0], options, strict=True):
        by_hand = sum(
            model.log_probabilities([*context, *option[:i]])[-1].item() for i in range(1, len(option) + 1)
        )
        assert score.item() == pytest.approx(by_hand, rel=1e-6)


@pytest.mark.parametrize("share", [0.1, 0.33])
def test_words_are_replaced_at_the_rate_asked(share):
    text = " ".join(["word"] * 4000)
    changed = reworded(text, share, "other else more", random.Random(0)).split()
    assert np.mean([word != "word" for word in changed]) == pytest.approx(share, abs=0.03)
    assert passages([text], 100)[0] == " ".join(["word"] * 100)
