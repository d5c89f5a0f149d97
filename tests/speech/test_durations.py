"""Durations from alignments: they add up, in order, and stand where the sounds stand."""

import pytest
import torch

from llmcourse.speech.durations import align_clips, durations_of
from llmcourse.speech.recognizer import Recognizer, RecognizerConfig
from llmcourse.teach.chapters.ch06e_speech_synthesis.solutions import durations_of_spikes as another


def test_they_add_up_and_each_spike_lies_in_its_own_stretch():
    g = torch.Generator().manual_seed(0)
    for _ in range(200):
        places = []
        for label in range(int(torch.randint(1, 6, (), generator=g))):
            blanks, spike = torch.randint(0, 4, (2,), generator=g).tolist()
            places += [-1] * blanks + [label] * (1 + spike)
        places += [-1] * int(torch.randint(0, 4, (), generator=g))
        durations = durations_of(places)
        assert sum(durations) == len(places)
        owner = [label for label, n in enumerate(durations) for _ in range(n)]
        assert all(place in (-1, label) for place, label in zip(places, owner, strict=True))
        assert durations == another(places)


def test_mirrored_in_time_they_are_mirrored_but_for_odd_gaps():
    places = [-1, 0, -1, -1, 1, 1, -1, -1, -1, -1, 2]
    mirrored = [-1 if p < 0 else 2 - p for p in reversed(places)]
    assert durations_of(mirrored) == durations_of(places)[::-1]


@pytest.mark.parametrize("bad", [[], [-1, -1], [1, 2], [0, 2], [0, 1, 0]])
def test_no_alignment_is_refused(bad):
    with pytest.raises(ValueError, match="with the labels 0, 1, 2"):
        durations_of(bad)


def test_an_aligner_must_keep_every_frame():
    dropping = Recognizer(RecognizerConfig(("a",), n_mels=4, strides=(2,), d_model=8, n_heads=2, n_layers=1))
    with pytest.raises(ValueError, match="strides of 1"):
        align_clips(dropping, [torch.zeros(9, 4)], [["a"]])


def test_durations_of_clips_are_those_of_their_frames():
    torch.manual_seed(0)
    model = Recognizer(RecognizerConfig(("a", "b"), n_mels=4, strides=(1,), d_model=8, n_heads=2, n_layers=1))
    clips = [torch.randn(n, 4) for n in (9, 5)]
    durations = align_clips(model, clips, [["a", "b", "b"], ["b"]])
    assert [(len(row), sum(row)) for row in durations] == [(3, 9), (1, 5)]
    with pytest.raises(ValueError, match="4 labels need 7 frames and there are 5"):
        align_clips(model, clips[1:], [["a"] * 4])
