"""How far one sound is from another, in decibels: mel-cepstral distortion.

A mel-cepstrum is the shape of a spectrum as a sum of cosines: the first coefficients say how the vocal tract
is formed, the high ones, which are left out, mostly the pitch. Number 0 is how loud it is, and is left out too.

Dimensions: T frames of the one, S frames of the other, M mel bands, D coefficients.
"""

import math

import torch
from torch import Tensor

from llmcourse.speech.dtw import dtw_path
from llmcourse.support.inputs import whole

N_CEPSTRA = 24  # D


def mel_cepstra(features: Tensor, n: int = N_CEPSTRA) -> Tensor:
    """Return coefficients 1 to n, (T, n), of log-mel features (T, M), natural logarithms of power.

    The logarithm of the strength in band k is c0 + the sum of c_m cos(m (k + 1/2) π / M). Raises ValueError
    for n outside 1 to M - 1.

    >>> mel_cepstra(torch.tensor([[2.0, -2.0]]), n=1)[0].item()  # cos(π/4) and cos(3π/4)
    1.4142135381698608
    """
    M, n = features.shape[-1], whole(n, "n")
    if n >= M:
        raise ValueError(f"n={n}: of {M} bands there are coefficients 1 to {M - 1}")
    places = (torch.arange(M) + 0.5) * math.pi / M
    cosines = torch.cos(torch.arange(1, n + 1)[:, None] * places)  # (n, M)
    return features @ cosines.T / M  # (2 / M) times the half of the logarithm of power


def mel_cepstral_distortion(a: Tensor, b: Tensor, n: int = N_CEPSTRA) -> float:
    """Return the distance in dB of log-mel features a (T, M) and b (S, M): 10 / ln 10 · √(2 Σ (c - c')²).

    It is the mean over the frames that dynamic time warping lays on each other, so either may be slower.

    >>> round(mel_cepstral_distortion(torch.zeros(3, 80), torch.ones(4, 80)), 3)  # loudness does not count
    0.0

    Source: Kubichek 1993, doi:10.1109/PACRIM.1993.407206.
    """
    a, b = mel_cepstra(a, n), mel_cepstra(b, n)
    path = torch.tensor(dtw_path(a, b))
    squares = (a[path[:, 0]] - b[path[:, 1]]).square().sum(dim=1)
    return 10 / math.log(10) * (2 * squares).sqrt().mean().item()
