"""Griffin-Lim against librosa's waves (stored, see tools/make_griffin_lim_reference.py) and against what it promises."""

from pathlib import Path

import numpy as np
import pytest
import torch

from llmcourse.speech.features import MelConfig, log_mel, power_spectrogram
from llmcourse.speech.griffin_lim import griffin_lim, invert_mel, mel_to_wave
from llmcourse.speech.voice import VOICE, load_voice

CONFIG = MelConfig(rate=8000, n_fft=128, hop=32, n_mels=24)
REFERENCE = np.load(Path(__file__).parent / "librosa_griffin_lim.npz")


def chirp(n=4000):
    t = np.arange(n) / 8000
    return torch.tensor(0.4 * np.sin(2 * np.pi * (300 * t + 900 * t**2)), dtype=torch.float32)


def distance(wave, strengths, config=CONFIG):
    """Relative error of a wave's spectrogram (spectral convergence)."""
    found = power_spectrogram(wave, config).sqrt()
    return float((found - strengths).norm() / strengths.norm())


@pytest.mark.parametrize("momentum", [0.0, 0.99])
@pytest.mark.parametrize("rounds", [0, 1, 8])
def test_waves_are_librosas_from_the_same_start(momentum, rounds):
    strengths = torch.tensor(REFERENCE["strengths"]).T
    mine = griffin_lim(strengths, CONFIG, rounds, momentum)
    assert np.allclose(
        mine.numpy(), REFERENCE[f"wave_{momentum}_{rounds}"], atol=2e-3 * float(mine.abs().max())
    )


def test_true_phases_give_the_wave_back():
    wave = chirp()
    spectrum = torch.stft(wave, 128, 32, window=torch.hann_window(128), return_complex=True)
    again = griffin_lim(spectrum.abs().T, CONFIG, rounds=0, phases=spectrum.angle().T)
    assert torch.allclose(again, wave[: len(again)], atol=1e-5)
    going_on = griffin_lim(spectrum.abs().T, CONFIG, rounds=5, phases=spectrum.angle().T)
    assert torch.allclose(going_on, wave[: len(again)], atol=1e-4)  # a true wave is a fixed point


def test_each_round_comes_nearer_and_momentum_faster():
    strengths = power_spectrogram(chirp(), CONFIG).sqrt()
    plain = [
        distance(griffin_lim(strengths, CONFIG, rounds, momentum=0.0), strengths) for rounds in (1, 4, 16, 64)
    ]
    assert plain == sorted(plain, reverse=True)  # the method of 1984 never goes back
    assert distance(griffin_lim(strengths, CONFIG, 64), strengths) < plain[-1]


def test_mel_bands_come_back():
    wanted = log_mel(chirp(), CONFIG)
    wave = griffin_lim(invert_mel(wanted, CONFIG), CONFIG, 60)
    loud = wanted > wanted.max() - 6
    assert float((log_mel(wave, CONFIG) - wanted)[loud].abs().mean()) < 1.0  # within a factor of e


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: griffin_lim(torch.ones(20, 64), CONFIG), r"shape \(20, 64\).*65"),
        (lambda: griffin_lim(torch.ones(2, 65), CONFIG), "4 or more frames"),
        (lambda: griffin_lim(-torch.ones(20, 65), CONFIG), "not logarithms"),
        (lambda: griffin_lim(torch.ones(20, 65), CONFIG, rounds=-1), "rounds=-1"),
        (lambda: griffin_lim(torch.ones(20, 65), CONFIG, momentum=float("nan")), "momentum is nan"),
        (lambda: invert_mel(torch.zeros(20, 80), CONFIG), r"shape \(20, 80\).*24"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_the_mel_of_the_wave_is_the_mel_that_was_asked_for():
    asked = load_voice("test")[60].features
    wave = mel_to_wave(asked, VOICE)
    assert wave.abs().max() <= 1
    assert len(wave) == (len(asked) - 1) * VOICE.hop
    found = log_mel(wave, VOICE)
    loud = asked > asked.max() - 7  # what is 30 dB below the loudest is not heard beside it
    assert (found - asked)[loud].abs().mean() < 0.5
    assert mel_to_wave(asked + 10, VOICE).abs().max().item() == pytest.approx(1.0)
