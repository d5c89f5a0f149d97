"""What a recognizer sees: how much energy a sound has in each band, in each hundredth of a second.

The bands are those of Whisper (arXiv:2212.04356, sec. 2.2) and librosa: triangles that are equally wide on
the mel scale of Slaney's Auditory Toolbox (1998), each with the same area.

Dimensions: N samples, T frames, F frequencies (n_fft / 2 + 1), M mel bands.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from llmcourse.support.inputs import number, whole

KNEE, MELS_AT_KNEE = 1000.0, 15.0  # below, 200 / 3 Hz are one mel; above, 27 mels are a factor of 6.4


@dataclass(frozen=True)
class MelConfig:
    """How waves become features. Raises ValueError on a bad value.

    >>> MelConfig().frames(16000)
    101
    """

    rate: int = 16000  # samples a second
    n_fft: int = 400  # samples in one window: 25 ms
    hop: int = 160  # samples from one window to the next: 10 ms
    n_mels: int = 40  # M, bands
    low: float = 0.0  # Hz, lower end of the first band
    high: float | None = None  # Hz, upper end of the last; None: half the rate
    floor: float = 1e-10  # power below this counts as this: the logarithm of silence is finite

    def __post_init__(self):
        for name in ("rate", "n_fft", "hop", "n_mels"):
            whole(getattr(self, name), name)
        wanted = f"a number in Hz, low < high <= {self.rate / 2:g}, half the rate"
        number(self.low, "low", 0.0, self.upper - 1e-9, wanted)
        number(self.upper, "high", self.low, self.rate / 2, wanted)
        number(self.floor, "floor", 1e-30, 1.0, "a small number above 0, such as 1e-10")

    @property
    def upper(self) -> float:
        """Upper end of the last band, in Hz."""
        return self.rate / 2 if self.high is None else self.high

    def frames(self, n_samples: int) -> int:
        """Return how many frames a wave of so many samples has: one at 0, and one each hop."""
        return 1 + n_samples // self.hop


def hertz_to_mel(hertz):
    """Return Slaney's mel scale: straight up to 1000 Hz, logarithmic above.

    >>> hertz_to_mel([500.0, 1000.0, 6400.0]).tolist()
    [7.5, 15.0, 42.0]
    """
    hertz = np.asarray(hertz, dtype=np.float64)
    above = MELS_AT_KNEE + 27 * np.log(np.maximum(hertz, KNEE) / KNEE) / np.log(6.4)
    return np.where(hertz < KNEE, hertz * MELS_AT_KNEE / KNEE, above)


def mel_to_hertz(mels):
    """Return the frequencies in Hz of points on the mel scale.

    >>> mel_to_hertz([7.5, 15.0]).tolist()
    [500.0, 1000.0]
    """
    mels = np.asarray(mels, dtype=np.float64)
    above = KNEE * np.exp(np.log(6.4) * (np.maximum(mels, MELS_AT_KNEE) - MELS_AT_KNEE) / 27)
    return np.where(mels < MELS_AT_KNEE, mels * KNEE / MELS_AT_KNEE, above)


def mel_filters(config: MelConfig) -> Tensor:
    """Return the weights (M, F) with which the frequencies of a spectrum add up to bands.

    Raises ValueError where a band is so narrow that no frequency falls into it: it would always be silent.

    >>> mel_filters(MelConfig()).shape
    torch.Size([40, 201])
    """
    frequencies = np.linspace(0, config.rate / 2, config.n_fft // 2 + 1)  # (F,)
    edges = mel_to_hertz(np.linspace(*hertz_to_mel([config.low, config.upper]), config.n_mels + 2))
    left, middle, right = (edges[i : i + config.n_mels, None] for i in range(3))  # (M, 1) each
    rising, falling = (frequencies - left) / (middle - left), (right - frequencies) / (right - middle)
    filters = np.maximum(0, np.minimum(rising, falling)) * 2 / (right - left)  # (M, F), each of area 1
    empty = np.flatnonzero(filters.max(axis=1) == 0)
    if len(empty):
        raise ValueError(
            f"band {empty[0]} of {config.n_mels} holds no frequency of a window of {config.n_fft} samples: "
            "take fewer bands (n_mels), or a longer window (n_fft)"
        )
    return torch.tensor(filters, dtype=torch.float32)


def power_spectrogram(wave: Tensor, config: MelConfig) -> Tensor:
    """Return the power (T, F) of each frequency in windows around samples 0, hop, 2 hop, ...

    The window is Hann's; at both ends the wave (N,) is continued by its mirror image.
    Raises ValueError for a wave that is too short to be mirrored, or no row of numbers.
    """
    wave = torch.as_tensor(wave, dtype=torch.float32)
    if wave.dim() != 1 or len(wave) <= config.n_fft // 2:
        raise ValueError(
            f"the wave has the shape {tuple(wave.shape)}: give one row of more than {config.n_fft // 2} samples "
            f"({config.n_fft / 2 / config.rate * 1000:g} ms); a stereo wave is mixed to one row first"
        )
    if not wave.isfinite().all():
        raise ValueError("the wave holds NaN or infinity: read it again, or cut that part out")
    window = torch.hann_window(config.n_fft)
    spectrum = torch.stft(wave, config.n_fft, config.hop, window=window, return_complex=True)  # (F, T)
    return spectrum.abs().square().T


def log_mel(wave: Tensor, config: MelConfig) -> Tensor:
    """Return the natural logarithm (T, M) of the power in each mel band, of a wave (N,) of numbers from -1 to 1.

    >>> log_mel(torch.zeros(16000), MelConfig(n_mels=3))[0]
    tensor([-23.0259, -23.0259, -23.0259])

    Source: Davis and Mermelstein 1980, doi:10.1109/TASSP.1980.1163420, without its last step, the cosines.
    """
    power = power_spectrogram(wave, config) @ mel_filters(config).T
    return power.clamp(min=config.floor).log()


def normalized(features: Tensor) -> Tensor:
    """Return features (T, M) with mean 0 and deviation 1 in each band: a microphone's colour is taken off.

    >>> normalized(torch.tensor([[1.0, 5.0], [3.0, 5.0]])).tolist()
    [[-1.0, 0.0], [1.0, 0.0]]
    """
    centred = features - features.mean(dim=0)
    return centred / features.std(dim=0, correction=0).clamp(min=1e-3)
