"""Distortion in decibels: against a closed form, scipy's cosines, and all paths there are."""

import itertools
import math

import pytest
import torch
from scipy.fft import dct

from llmcourse.speech.distortion import mel_cepstra, mel_cepstral_distortion
from llmcourse.speech.dtw import dtw_distances, dtw_path


def test_cepstra_are_those_of_scipy():
    features = torch.randn(5, 80, generator=torch.Generator().manual_seed(0))
    expected = dct(features.numpy() / 2, type=2, axis=1) / 80  # scipy's has a factor of 2
    torch.testing.assert_close(
        mel_cepstra(features, 24), torch.tensor(expected[:, 1:25]), atol=1e-6, rtol=1e-5
    )


def test_all_coefficients_together_are_the_difference_of_the_bands_in_decibels():
    """Parseval: with all coefficients it is the root-mean-square over bands, loudness taken off."""
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(1, 40, generator=g), torch.randn(1, 40, generator=g)
    decibels = 10 / math.log(10) * (a - b)[0]
    expected = (decibels - decibels.mean()).square().mean().sqrt().item()
    assert mel_cepstral_distortion(a, b, n=39) == pytest.approx(expected, rel=1e-5)
    assert mel_cepstral_distortion(a, b, n=24) < expected


def test_loudness_and_tempo_do_not_count():
    a = torch.randn(9, 80, generator=torch.Generator().manual_seed(0)) * 3
    assert mel_cepstral_distortion(a, a.repeat_interleave(2, dim=0) + 5) == pytest.approx(0, abs=1e-3)
    assert mel_cepstral_distortion(a, a.flip(0)) > 1


def paths(t, s):
    if t == s == 0:
        return [[(0, 0)]]
    before = [(t - 1, s), (t, s - 1), (t - 1, s - 1)]
    return [[*path, (t, s)] for i, j in before if i >= 0 and j >= 0 for path in paths(i, j)]


def test_the_path_is_the_cheapest_of_all():
    g = torch.Generator().manual_seed(0)
    for T, S in itertools.product((1, 3, 5), (1, 2, 4)):
        a, b = torch.randn(T, 3, generator=g), torch.randn(S, 3, generator=g)
        cost = {p: (a[p[0]] - b[p[1]]).norm().item() for p in itertools.product(range(T), range(S))}
        path = dtw_path(a, b)
        best = min(sum(cost[p] for p in path) for path in paths(T - 1, S - 1))
        assert path in paths(T - 1, S - 1)
        assert sum(cost[p] for p in path) == pytest.approx(best, rel=1e-5)
        assert dtw_distances(a, [b])[0].item() * (T + S) == pytest.approx(best, rel=1e-5)


@pytest.mark.parametrize("n", [0, 80, 1.5])
def test_bad_numbers_of_coefficients_are_refused(n):
    with pytest.raises(ValueError, match="n="):
        mel_cepstra(torch.zeros(2, 80), n)
