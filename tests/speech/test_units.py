"""Recorded words in a row: cut where the durations say, chosen by their neighbours."""

import pytest
import torch

from llmcourse.speech.units import Unit, concatenate, cut_units
from llmcourse.speech.voice import Utterance, lexicon, phonemes_of


def utterance(text):
    """A clip in which each phoneme lasts one frame, whose number is its only feature."""
    n = len(phonemes_of(text))
    return Utterance(text, torch.arange(n)[:, None].float(), (None,) * len(text.split()))


def test_parts_put_back_in_a_row_are_the_clip():
    said = utterance("call anna on monday")
    durations = [[1] * len(said.features)]
    units = cut_units([said], durations)
    assert [len(units[word][0].features) for word in said.text.split()] == [
        len(lexicon()[word]) + end for word, end in zip(said.text.split(), (1, 0, 0, 1), strict=True)
    ]
    assert torch.equal(concatenate(said.text, units), said.features)


def test_a_sentence_of_one_word_keeps_both_silences():
    said = utterance("seven")
    assert torch.equal(concatenate("seven", cut_units([said], [[1] * len(said.features)])), said.features)


def test_units_with_the_same_neighbours_are_preferred():
    def unit(number, before, after):
        return Unit(torch.tensor([[float(number)]]), before, after)

    units = {
        "two": [unit(0, "one", "six"), unit(1, None, None), unit(2, None, "six")],
        "six": [unit(3, "two", None), unit(4, "one", None), unit(5, "two", "two")],
    }
    assert concatenate("two six", units).flatten().tolist() == [2.0, 3.0]
    assert concatenate("two", units).flatten().tolist() == [1.0]
    assert concatenate("two six two six", units).flatten().tolist() == [2.0, 5.0, 0.0, 3.0]


def test_a_word_that_nobody_recorded_is_named():
    with pytest.raises(ValueError, match="nobody recorded 'kettle': there are 1 words"):
        concatenate("two kettle", {"two": []})
