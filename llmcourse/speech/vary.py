"""More clips than were recorded: the ones that are there, with noise, and with the voice of a longer or shorter throat.

Power adds up, so noise can be added to features: to what `log_mel` says of a clip, in microseconds, where
mixing waves would need their spectra again. It leaves out how sound and noise interfere within a frame.

Dimensions: T frames, M mel bands.
"""

from collections.abc import Mapping
from math import log

import numpy as np
import torch
from torch import Tensor

from llmcourse.speech.features import MelConfig, hertz_to_mel, mel_to_hertz, normalized
from llmcourse.support.inputs import number, whole


def band_widths(config: MelConfig) -> Tensor:
    """Return (M,) weights with which the power in the bands adds up to that of the sound (but for a constant).

    The bands are triangles of equal area, so wide ones stand for more than they hold: each counts by half
    the width of its base, which makes the triangles add up to 1 at every frequency between the outermost tops.

    >>> band_widths(MelConfig()).shape
    torch.Size([40])
    """
    edges = mel_to_hertz(np.linspace(*hertz_to_mel([config.low, config.upper]), config.n_mels + 2))
    return torch.tensor((edges[2:] - edges[:-2]) / 2, dtype=torch.float32)


def mix_features(clip: Tensor, noise: Tensor, snr: float, config: MelConfig) -> Tensor:
    """Return the features (T, M) of a clip with noise whose power lies `snr` decibels below the clip's.

    Both are log-mel features, not normalized; of the noise the first T frames are taken. Only what the bands
    hold counts: half of the power of pink noise lies below 66 Hz, where none listens, so it is 2 dB stronger
    here than `noise.mix` makes it at the same number. Raises ValueError
    for noise that is shorter than the clip, and for an SNR outside -100 to 100.

    >>> quiet = mix_features(torch.zeros(2, 40), torch.zeros(2, 40), 10.0, MelConfig())
    >>> round(quiet.exp().mean().item(), 3)  # a tenth is added
    1.1
    """
    snr = number(snr, "snr", -100, 100, "a number of decibels from -100 to 100, such as 10")
    if len(noise) < len(clip) or noise.shape[1:] != clip.shape[1:]:
        raise ValueError(
            f"the noise has the shape {tuple(noise.shape)} and the clip {tuple(clip.shape)}: "
            "give as many frames at least, of the same bands"
        )
    noise, widths = noise[: len(clip)], band_widths(config)
    powers = [(features.exp() @ widths).mean().log() for features in (clip, noise)]
    return torch.logaddexp(clip, noise + (powers[0] - powers[1] - snr * log(10) / 10))


def stretch_bands(clip: Tensor, factor: float) -> Tensor:
    """Return a clip (T, M) whose band m is what stood at m times `factor`: another voice says the same.

    Between two bands it is interpolated; beyond the last, the last is repeated. Raises ValueError for a
    factor outside 0.5 to 2, or a single band.

    >>> stretch_bands(torch.tensor([[0.0, 1.0, 2.0]]), 0.5).tolist()
    [[0.0, 0.5, 1.0]]

    Source: Jaitly and Hinton 2013, ICML workshop on deep learning for audio (vocal tract length perturbation).
    """
    factor, n = number(factor, "factor", 0.5, 2.0, "a number from 0.5 to 2"), clip.shape[1]
    if n < 2:
        raise ValueError(f"the clip has the shape {tuple(clip.shape)}: stretching needs two bands")
    places = (torch.arange(n) * factor).clamp(max=n - 1)
    left = places.long().clamp(max=n - 2)
    return torch.lerp(clip[:, left], clip[:, left + 1], places - left)


def stretch_time(clip: Tensor, factor: float) -> Tensor:
    """Return a clip (T, M) that takes `factor` times as long, interpolated between frames: slower where it is above 1.

    Raises ValueError for a factor outside 0.25 to 4.

    >>> stretch_time(torch.tensor([[0.0], [2.0]]), 1.5).tolist()
    [[0.0], [1.0], [2.0]]
    """
    factor = number(factor, "factor", 0.25, 4.0, "a number from 0.25 to 4")
    size = max(1, round(len(clip) * factor))
    stretched = torch.nn.functional.interpolate(clip.T[None], size=size, mode="linear", align_corners=True)
    return stretched[0].T


def add_quiet(clip: Tensor, before: int, after: int, config: MelConfig) -> Tensor:
    """Return a clip (T, M) with so many frames of silence (at the floor) before and after it.

    >>> add_quiet(torch.zeros(3, 40), 2, 1, MelConfig()).shape
    torch.Size([6, 40])
    """
    frames = [whole(n, name, least=0) for n, name in ((before, "before"), (after, "after"))]
    return torch.nn.functional.pad(clip, (0, 0, *frames), value=log(config.floor))


class Vary:
    """A change for `ClipBatches`: noise on most clips, bands stretched on all, then normalized.

    `noises` are features of each kind, longer than any clip. Of the clips, `share` get noise of a kind, a
    place and a level that are drawn: 0 to `quietest` dB, all equally often. Bands are stretched by up to
    `stretch` in either direction. Three more changes are off at first: `tempo` (fastest, slowest) makes clips
    so many times as long, `quiet` adds up to so many seconds of silence at either end, and of the bands the
    first `n_bands` are kept, as in a telephone.

    >>> change = Vary({"hum": torch.zeros(50, 40)}, MelConfig())
    >>> change(torch.randn(20, 40), torch.Generator().manual_seed(0)).shape
    torch.Size([20, 40])
    """

    def __init__(
        self,
        noises: Mapping[str, Tensor],
        config: MelConfig,
        share: float = 0.7,
        quietest: float = 30.0,
        stretch: float = 0.12,
        tempo: tuple[float, float] = (1.0, 1.0),
        quiet: float = 0.0,
        n_bands: int | None = None,
    ):
        self.noises, self.config = list(noises.values()), config
        self.share = number(share, "share", 0.0, 1.0, "a share from 0 to 1")
        self.quietest = number(quietest, "quietest", 0.0, 100.0, "a number of decibels from 0 to 100")
        self.stretch = number(stretch, "stretch", 0.0, 0.5, "a number from 0 to 0.5, such as 0.12")
        self.tempo = tuple(
            number(x, "tempo", 0.25, 4.0, "(fastest, slowest), such as (0.8, 1.5)") for x in tempo
        )
        self.quiet = number(quiet, "quiet", 0.0, 10.0, "a number of seconds from 0 to 10")
        self.n_bands = config.n_mels if n_bands is None else whole(n_bands, "n_bands", least=2)

    def __call__(self, clip: Tensor, generator: torch.Generator) -> Tensor:
        """Return the clip (T, M), varied and normalized."""
        noisy, kind, start, level, stretch, slow, before, after = torch.rand(8, generator=generator).tolist()
        if self.tempo != (1.0, 1.0):
            fastest, slowest = self.tempo
            clip = stretch_time(clip, fastest * (slowest / fastest) ** slow)
        if self.quiet:
            most = self.quiet * self.config.rate / self.config.hop
            clip = add_quiet(clip, int(before * (most + 1)), int(after * (most + 1)), self.config)
        if self.noises and noisy < self.share:
            noise = self.noises[int(kind * len(self.noises))]
            first = int(start * max(1, len(noise) - len(clip)))
            clip = mix_features(clip, noise[first:], level * self.quietest, self.config)
        return normalized(stretch_bands(clip, 1 + self.stretch * (2 * stretch - 1))[:, : self.n_bands])
