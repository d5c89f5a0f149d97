"""Noise in features: the level is that of waves; voices that are stretched, slower, and wait before they speak."""

import numpy as np
import pytest
import torch

from llmcourse.speech.clips import ClipBatches
from llmcourse.speech.features import MelConfig, log_mel
from llmcourse.speech.noise import mix, pink_noise, white_noise
from llmcourse.speech.vary import Vary, add_quiet, band_widths, mix_features, stretch_bands, stretch_time

CONFIG = MelConfig(hop=320, floor=1e-6)


def tone(seconds=2.0, frequency=440.0):
    t = np.arange(int(16000 * seconds)) / 16000
    return (0.3 * np.sin(2 * np.pi * frequency * t)).astype(np.float32)


@pytest.mark.parametrize("wave", [white_noise(32000, 1) / 10, tone(), tone(frequency=3000.0)])
def test_bands_weighted_add_up_to_the_power_of_the_sound(wave):
    features = log_mel(torch.tensor(wave), CONFIG)
    ours = (features.exp() @ band_widths(CONFIG)).mean().item()
    window = torch.hann_window(CONFIG.n_fft)
    # Parseval: half of the spectrum holds half of the power, times the window's; one bin is 40 Hz wide
    power = np.mean(wave**2) * window.square().sum().item() * CONFIG.n_fft / 2
    assert ours / power == pytest.approx(1.0, rel=0.1)


@pytest.mark.parametrize("snr", [0.0, 10.0, 20.0])
@pytest.mark.parametrize(("make", "rumble"), [(white_noise, 0.0), (pink_noise, 0.41)])
def test_mixing_features_is_mixing_waves_but_for_interference_and_rumble(snr, make, rumble):
    """Half of the pink noise's power lies below 66 Hz, where no band listens: only waves count it."""
    wave, noise = tone(), make(32000, 3)
    below = np.abs(np.fft.rfft(noise)[: 66 * 2]) ** 2
    assert below.sum() / (np.abs(np.fft.rfft(noise)) ** 2).sum() == pytest.approx(rumble and 0.5, abs=0.1)
    of_waves = log_mel(torch.tensor(mix(wave, noise, snr)), CONFIG)
    of_features = mix_features(
        log_mel(torch.tensor(wave), CONFIG), log_mel(torch.tensor(noise), CONFIG), snr, CONFIG
    )
    difference = (of_waves - of_features)[2:-2]
    assert difference.mean() == pytest.approx(-rumble, abs=0.15)  # nepers
    assert difference.std() < 0.6


def test_loudness_of_noise_and_clip_say_nothing():
    g = torch.Generator().manual_seed(0)
    clip, noise = torch.randn(30, 40, generator=g), torch.randn(50, 40, generator=g)
    a = mix_features(clip, noise, 5.0, CONFIG)
    torch.testing.assert_close(mix_features(clip, noise + 7, 5.0, CONFIG), a)
    torch.testing.assert_close(mix_features(clip + 3, noise, 5.0, CONFIG), a + 3)


def test_stretching_moves_a_peak():
    bands = torch.arange(40.0)
    peak = -((bands - 20) ** 2)[None]
    for factor in (0.9, 1.0, 1.1):
        top = stretch_bands(peak, factor).argmax().item()
        assert top == round(20 / factor)
    torch.testing.assert_close(stretch_bands(peak, 1.0), peak)
    line = (2 * bands + 1)[None]  # what is straight stays straight
    torch.testing.assert_close(stretch_bands(line, 0.8), (2 * 0.8 * bands + 1)[None])


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.0, 1.7])
def test_slower_speech_passes_through_the_same_sounds(factor):
    line = torch.linspace(0, 1, 31)[:, None] * torch.tensor([1.0, -2.0]) + 3
    slow = stretch_time(line, factor)
    assert len(slow) == round(31 * factor)
    torch.testing.assert_close(slow, torch.linspace(0, 1, len(slow))[:, None] * torch.tensor([1.0, -2.0]) + 3)


def test_silence_is_what_log_mel_says_of_zeros():
    wave = np.concatenate([np.zeros(3200, np.float32), tone(0.5), np.zeros(3200, np.float32)])
    whole, inner = (log_mel(torch.tensor(x), CONFIG) for x in (wave, tone(0.5)))
    padded = add_quiet(inner, 10, 10, CONFIG)
    assert padded.shape == whole.shape
    torch.testing.assert_close(padded[:9], whole[:9])
    torch.testing.assert_close(padded[-9:], whole[-9:])
    torch.testing.assert_close(padded[12:-12], whole[12:-12], atol=1e-4, rtol=0)


def test_tempo_quiet_and_bands_leave_the_other_draws_as_they_are():
    clip = torch.randn(30, 40, generator=torch.Generator().manual_seed(1))
    noises = {"hum": torch.randn(200, 40, generator=torch.Generator().manual_seed(2))}
    for seed in range(5):
        plain, narrow, more = (
            Vary(noises, CONFIG, share=0.0, **options)(clip, torch.Generator().manual_seed(seed))
            for options in ({}, dict(n_bands=30), dict(tempo=(2.0, 2.0), quiet=0.1))
        )
        torch.testing.assert_close(narrow, plain[:, :30])
        assert 60 <= len(more) <= 70
        spoken = (more != more[0]).any(1) & (more != more[-1]).any(1)  # what is between the two silences
        assert 55 <= int(spoken.sum()) <= 60


def test_changes_depend_on_the_batch_alone_and_come_out_normalized():
    clips = [torch.randn(20 + i, 40, generator=torch.Generator().manual_seed(i)) for i in range(8)]
    change = Vary({"hum": torch.zeros(60, 40)}, CONFIG)
    a, b = (ClipBatches(clips, [[1]] * 8, 8, 0, change) for _ in range(2))
    first, second = next(a), next(a)
    torch.testing.assert_close(next(b)[0], first[0])
    b.load_state_dict(b.state_dict())
    torch.testing.assert_close(next(b)[0], second[0])
    assert not torch.equal(first[0], second[0])
    row = first[0][0, : first[1][0]]
    torch.testing.assert_close(row.mean(0), torch.zeros(40), atol=1e-5, rtol=0)


def test_share_of_noisy_clips():
    clip = torch.randn(30, 40, generator=torch.Generator().manual_seed(1))
    change = Vary({"loud": torch.randn(40, 40)}, CONFIG, share=0.25, quietest=0.0, stretch=0.0)
    plain = Vary({}, CONFIG, stretch=0.0)(clip, torch.Generator())
    g = torch.Generator().manual_seed(0)
    noisy = sum(not torch.allclose(change(clip, g), plain) for _ in range(400))
    assert 70 <= noisy <= 130


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda: mix_features(torch.zeros(9, 40), torch.zeros(8, 40), 10, CONFIG),
            r"noise has the shape \(8, 40\)",
        ),
        (lambda: mix_features(torch.zeros(9, 40), torch.zeros(9, 40), 1e9, CONFIG), "snr"),
        (lambda: stretch_bands(torch.zeros(9, 40), 3.0), "factor"),
        (lambda: stretch_bands(torch.zeros(9, 1), 1.0), "two bands"),
        (lambda: Vary({}, CONFIG, share=70), "share"),
        (lambda: Vary({}, CONFIG, tempo=(0.0, 1.0)), "tempo"),
        (lambda: Vary({}, CONFIG, quiet=-1), "quiet"),
        (lambda: Vary({}, CONFIG, n_bands=1), "n_bands"),
        (lambda: stretch_time(torch.zeros(9, 40), 5), "factor"),
        (lambda: add_quiet(torch.zeros(9, 40), -1, 0, CONFIG), "before"),
    ],
)
def test_bad_values_are_named(call, said):
    with pytest.raises(ValueError, match=said):
        call()
