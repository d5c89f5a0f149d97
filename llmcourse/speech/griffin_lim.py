"""From a spectrogram back to a wave: the phases that are missing are searched for.

A spectrogram keeps how strong each frequency is and drops its phase. Griffin and Lim go back and forth: make
a wave of the strengths and some phases, look at that wave's spectrogram, keep its phases, put the wanted
strengths back.

Dimensions: N samples, T frames, F frequencies (n_fft / 2 + 1), M mel bands.
"""

import torch
from torch import Tensor

from llmcourse.speech.features import MelConfig, mel_filters
from llmcourse.support.inputs import number, whole


def invert_mel(log_mel: Tensor, config: MelConfig) -> Tensor:
    """Return strengths (T, F) whose mel bands are about those of `log_mel` (T, M), natural logarithms of power.

    M numbers cannot tell F: the pseudo-inverse takes the smallest answer, and what is below 0 is set to 0.
    """
    filters = mel_filters(config)  # (M, F)
    if log_mel.dim() != 2 or log_mel.shape[1] != config.n_mels:
        raise ValueError(f"log_mel has the shape {tuple(log_mel.shape)}: give (frames, {config.n_mels})")
    power = log_mel.exp() @ torch.linalg.pinv(filters).T
    return power.clamp(min=0.0).sqrt()


def griffin_lim(
    strengths: Tensor, config: MelConfig, rounds: int = 32, momentum: float = 0.99, phases=None
) -> Tensor:
    """Return a wave (N,) whose spectrogram has about these strengths (T, F), N = hop (T - 1).

    `phases` (T, F), angles in radians, is where the search starts; None starts at 0. `momentum` goes on a
    little in the direction of the last step (0 is the method of 1984). Raises ValueError for strengths
    of another width, below 0 or not finite, and for fewer frames than one window needs.

    >>> config = MelConfig()
    >>> griffin_lim(torch.ones(11, 201), config, rounds=1).shape
    torch.Size([1600])

    Source: Griffin and Lim 1984, doi:10.1109/TASSP.1984.1164317; momentum: Perraudin et al. 2013,
    doi:10.1109/WASPAA.2013.6701851, algorithm 1.
    """
    rounds, momentum = whole(rounds, "rounds", least=0), number(momentum, "momentum", 0.0, 10.0)
    F, least = config.n_fft // 2 + 1, config.n_fft // (2 * config.hop) + 2
    if strengths.dim() != 2 or strengths.shape[1] != F or len(strengths) < least:
        raise ValueError(
            f"strengths have the shape {tuple(strengths.shape)}: give ({least} or more frames, {F})"
        )
    if not (strengths.isfinite().all() and (strengths >= 0).all()):
        raise ValueError("strengths are not all finite and >= 0: give the roots of powers, not logarithms")
    window = torch.hann_window(config.n_fft)
    shape = dict(n_fft=config.n_fft, hop_length=config.hop, window=window)
    strengths = strengths.T  # (F, T)
    phases = torch.zeros_like(strengths) if phases is None else phases.T
    directions, before = torch.polar(torch.ones_like(strengths), phases), 0.0
    for _ in range(rounds):
        wave = torch.istft(strengths * directions, **shape)
        found = torch.stft(wave, **shape, return_complex=True)
        ahead = found - before * (momentum / (1 + momentum))
        directions, before = ahead / (ahead.abs() + 1e-16), found
    return torch.istft(strengths * directions, **shape)


def mel_to_wave(log_mel: Tensor, config: MelConfig, rounds: int = 32) -> Tensor:
    """Return a wave (N,) of about the log-mel (T, M), natural logarithms of power; softer where it would pass 1."""
    wave = griffin_lim(invert_mel(log_mel, config), config, rounds)
    return wave / max(1.0, wave.abs().max().item())
