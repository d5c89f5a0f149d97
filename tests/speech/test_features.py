"""Features against those of transformers, whose own reference is librosa."""

import numpy as np
import pytest
import torch
from transformers import WhisperFeatureExtractor
from transformers.audio_utils import hertz_to_mel as their_mel
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function
from transformers.audio_utils import mel_to_hertz as their_hertz

from llmcourse.speech.features import (
    MelConfig,
    hertz_to_mel,
    log_mel,
    mel_filters,
    mel_to_hertz,
    normalized,
    power_spectrogram,
)

CONFIGS = [
    MelConfig(),
    MelConfig(n_mels=80),
    MelConfig(rate=8000, n_fft=256, hop=100, n_mels=24, low=80.0, high=3800.0),
    MelConfig(rate=22050, n_fft=1024, hop=256, n_mels=80, high=8000.0),
]


def wave(n=8000, seed=0):
    generator = torch.Generator().manual_seed(seed)
    tone = torch.sin(torch.arange(n) * 0.05)
    return 0.3 * tone + 0.1 * torch.randn(n, generator=generator)


def test_the_scale_is_slaneys_and_goes_back():
    hertz = np.linspace(0, 11000, 500)
    assert np.allclose(hertz_to_mel(hertz), their_mel(hertz, "slaney"))
    assert np.allclose(mel_to_hertz(hertz_to_mel(hertz)), hertz)
    assert np.allclose(mel_to_hertz(np.arange(50.0)), their_hertz(np.arange(50.0), "slaney"))


@pytest.mark.parametrize("config", CONFIGS)
def test_filters_are_those_of_the_library(config):
    F = config.n_fft // 2 + 1
    theirs = mel_filter_bank(F, config.n_mels, config.low, config.upper, config.rate, "slaney", "slaney")
    assert np.allclose(mel_filters(config).numpy(), theirs.T, atol=1e-7)


@pytest.mark.parametrize("config", CONFIGS)
def test_spectrogram_is_that_of_the_library(config):
    theirs = spectrogram(
        wave().numpy(), window_function(config.n_fft, "hann"), config.n_fft, config.hop, power=2.0
    )
    mine = power_spectrogram(wave(), config)
    assert mine.shape == (config.frames(8000), config.n_fft // 2 + 1)
    assert np.allclose(mine.numpy().T, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_whispers_features_are_ours_on_another_scale(seed):
    """Whisper takes base 10, cuts at 8 below the loudest, shifts and divides, and drops the last frame."""
    extractor = WhisperFeatureExtractor(feature_size=80, chunk_length=1)
    sound = wave(16000, seed)
    theirs = extractor(sound.numpy(), sampling_rate=16000, return_tensors="pt").input_features[0].T
    mine = log_mel(sound, MelConfig(n_mels=80))[:-1] / np.log(10)
    mine = (torch.maximum(mine, mine.max() - 8) + 4) / 4
    assert torch.allclose(mine, theirs, atol=2e-4)


def test_a_tone_is_loudest_in_its_band():
    config = MelConfig()
    for hertz in (200, 440, 1000, 3000, 6000):
        tone = torch.sin(2 * np.pi * hertz * torch.arange(16000) / 16000)
        band = int(log_mel(tone, config).mean(0).argmax())
        middle = mel_to_hertz(np.linspace(*hertz_to_mel([0, 8000]), config.n_mels + 2))[band + 1]
        assert abs(hertz_to_mel(middle) - hertz_to_mel(hertz)) <= 45 / 41 * 1.01


def test_twice_as_loud_adds_one_number_everywhere_and_is_taken_off():
    config = MelConfig()
    quiet, loud = log_mel(wave(), config), log_mel(2 * wave(), config)
    assert torch.allclose(loud - quiet, torch.full_like(quiet, np.log(4)), atol=1e-3)
    assert torch.allclose(normalized(loud), normalized(quiet), atol=1e-3)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: MelConfig(n_mels=0), ["n_mels=0", "at least 1"]),
        (lambda: MelConfig(high=9000.0), ["high is 9000.0", "8000"]),
        (lambda: MelConfig(low=5000.0, high=4000.0), ["low is 5000.0", "low < high"]),
        (lambda: MelConfig(floor=0.0), ["floor is 0.0", "1e-10"]),
        (lambda: mel_filters(MelConfig(n_mels=200)), ["of 200", "fewer bands"]),
        (lambda: log_mel(torch.zeros(2, 16000), MelConfig()), ["(2, 16000)", "stereo"]),
        (lambda: log_mel(torch.zeros(100), MelConfig()), ["(100,)", "200 samples", "12.5 ms"]),
        (lambda: log_mel(torch.full((900,), torch.nan), MelConfig()), ["NaN", "read it again"]),
    ],
)
def test_bad_input_is_named(build, words):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        build()
    assert all(word in str(error.value) for word in words), error.value
