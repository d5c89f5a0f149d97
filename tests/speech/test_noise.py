"""Noise against its definition: spectrum, loudness, level."""

import numpy as np
import pytest

from llmcourse.speech.noise import babble_noise, mix, pink_noise, white_noise

N = 2**16


def octaves(samples):
    """Power in each octave of the spectrum."""
    power = np.abs(np.fft.rfft(samples)) ** 2
    return np.array([power[2**i : 2 ** (i + 1)].sum() for i in range(5, 14)])


def test_white_doubles_and_pink_stays_from_octave_to_octave():
    assert np.allclose(np.diff(np.log2(octaves(white_noise(N)))), 1, atol=0.5)
    assert abs(np.polyfit(range(9), np.log2(octaves(white_noise(N))), 1)[0] - 1) < 0.06
    assert abs(np.polyfit(range(9), np.log2(octaves(pink_noise(N))), 1)[0]) < 0.06


def test_all_kinds_are_equally_loud_and_depend_on_the_seed():
    voices = [np.sin(np.arange(3000) * f) for f in (0.1, 0.23, 0.37)]
    for make in (white_noise, pink_noise, lambda n, seed: babble_noise(n, voices, 4, seed)):
        one, again, other = make(5000, 1), make(5000, 1), make(5000, 2)
        assert np.sqrt(np.mean(one**2)) == pytest.approx(1.0, rel=1e-4)
        assert (one == again).all()
        assert not np.allclose(one, other)


@pytest.mark.parametrize("snr", [-5.0, 0.0, 10.0, 30.0])
def test_the_level_is_what_was_asked_for(snr):
    wave, noise = np.sin(np.arange(8000) * 0.05) * 0.3, 7 * pink_noise(9000)
    added = mix(wave, noise, snr) - wave
    assert 10 * np.log10(np.mean(wave**2) / np.mean(added**2)) == pytest.approx(snr, abs=1e-6)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: mix(np.ones(5), np.ones(4), 10), "4 samples and the wave 5"),
        (lambda: mix(np.ones(5), np.zeros(5), 10), "not silent"),
        (lambda: mix(np.ones(5), np.ones(5), float("nan")), "snr is nan"),
        (lambda: babble_noise(100, []), "no recording"),
        (lambda: babble_noise(100, [np.zeros(50)]), "not silent"),
        (lambda: white_noise(0), "n=0"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
