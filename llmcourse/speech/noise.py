"""Noise of three kinds, and sounds mixed with it at a stated level.

White noise has the same power at each frequency, pink noise the same in each octave (as rain or wind), and
babble is many people who speak at once: the hardest, since it is made of what one listens for.

Dimensions: N samples.
"""

from collections.abc import Sequence

import numpy as np

from llmcourse.support.inputs import number, whole


def white_noise(n: int, seed: int = 0) -> np.ndarray:
    """Return (N,) independent normal samples in float32, with a root-mean-square of 1.

    >>> white_noise(3).dtype
    dtype('float32')
    """
    return _unit(np.random.default_rng(seed).standard_normal(whole(n, "n")))


def pink_noise(n: int, seed: int = 0) -> np.ndarray:
    """Return (N,) samples whose power falls as 1 / frequency, with a root-mean-square of 1."""
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(whole(n, "n")))
    steps = np.arange(len(spectrum))
    spectrum[1:] /= np.sqrt(steps[1:])
    spectrum[0] = 0.0  # no constant
    return _unit(np.fft.irfft(spectrum, n))


def babble_noise(n: int, voices: Sequence[np.ndarray], speakers: int = 8, seed: int = 0) -> np.ndarray:
    """Return (N,) samples of `speakers` recordings at once, equally loud, with a root-mean-square of 1.

    Each speaker goes through the recordings in an order of its own, from a place of its own. Raises
    ValueError without a recording.
    """
    rng, n = np.random.default_rng(seed), whole(n, "n")
    voices = [_unit(voice) for voice in voices if len(voice) and np.any(voice)]
    if not voices:
        raise ValueError("there is no recording to make babble of: give at least one wave that is not silent")
    total = np.zeros(n)
    for _ in range(whole(speakers, "speakers")):
        parts, length = [], 0
        while length < 2 * n:
            parts.append(voices[rng.integers(len(voices))])
            length += len(parts[-1])
        start = rng.integers(length - n + 1)
        total += np.concatenate(parts)[start : start + n]
    return _unit(total)


def mix(wave: np.ndarray, noise: np.ndarray, snr: float) -> np.ndarray:
    """Return wave + noise (N,), the noise scaled so that the wave's power over the whole clip is `snr` decibels above.

    20 dB is a quiet office, 0 dB as loud as the voice. Silence before and after counts as wave, so what
    stands around a word changes what a level means. Raises ValueError for noise that is too short or silent.

    >>> mixed = mix(np.ones(4), np.array([1.0, -1.0, 1.0, -1.0]), snr=20)
    >>> (mixed - 1).round(3).tolist()
    [0.1, -0.1, 0.1, -0.1]
    """
    wave, noise = np.asarray(wave), np.asarray(noise)
    snr = number(snr, "snr", -100, 100, "a number of decibels from -100 to 100, such as 10")
    if len(noise) < len(wave) or not np.any(noise[: len(wave)]):
        raise ValueError(
            f"the noise has {len(noise)} samples and the wave {len(wave)}: give as many, not silent"
        )
    noise = noise[: len(wave)]
    scale = np.sqrt(np.mean(np.square(wave)) / np.mean(np.square(noise))) * 10 ** (-snr / 20)
    return (wave + scale * noise).astype(np.result_type(wave.dtype, np.float32))


def _unit(samples: np.ndarray) -> np.ndarray:
    samples = np.asarray(samples, dtype=np.float64)
    return (samples / max(np.sqrt(np.mean(np.square(samples))), 1e-12)).astype(np.float32)
