"""Sound as numbers: waves read from files and arrays, brought to one channel and one rate; and written.

What is changed on the way is said (`Wave.conversions`): a recognizer that gets another rate than it was
trained with hears another voice, and says nothing of it.

Dimensions: N samples.
"""

import math
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import resample_poly

from llmcourse.support.files import atomic_write
from llmcourse.support.inputs import number, whole

QUIET = 1e-4  # -80 dB: the loudest sample of a clip in which nobody speaks
LOUDEST = 8.0  # a file that reaches more holds something else than samples from -1 to 1


@dataclass(frozen=True)
class Wave:
    """One channel of samples (N,), float32 from -1 to 1, and how they came to be so."""

    samples: np.ndarray
    rate: int  # samples a second
    conversions: tuple[str, ...] = ()  # what was changed, in words

    @property
    def seconds(self) -> float:
        """How long it sounds."""
        return len(self.samples) / self.rate


def read_wave(source, rate: int = 16000) -> Wave:
    """Read a sound file (WAV, FLAC, OGG, MP3): a path, or its bytes; mixed to one channel at `rate`.

    8, 16, 24 and 32 bits and floats are read; of a WAV file that is cut off, what is there. Raises FileNotFoundError, and ValueError for a file that is
    no sound, is cut off before its first sample, or is silent.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = soundfile.write(f"{folder}/a.wav", np.full((8000, 2), 0.5), 8000)
    ...     wave = read_wave(f"{folder}/a.wav")
    >>> len(wave.samples), wave.conversions
    (16000, ('2 channels mixed to one', '8000 Hz resampled to 16000 Hz'))
    """
    name = "the bytes" if isinstance(source, bytes) else str(source)
    if not isinstance(source, bytes) and not Path(source).is_file():
        raise FileNotFoundError(f"{name} is no file: give the path of a sound file, such as clip.wav")
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    try:
        with soundfile.SoundFile(BytesIO(data)) as file:
            samples, found, form = file.read(dtype="float32", always_2d=True), file.samplerate, file.subtype
    except soundfile.LibsndfileError as error:
        raise ValueError(
            f"{name} cannot be read as a sound ({error.error_string}): give WAV, FLAC, OGG or MP3; "
            "`ffmpeg -i FILE clip.wav` converts others"
        ) from None
    said = [f"{form} read as float32"] if form not in ("PCM_16", "FLOAT") else []
    peak = float(np.abs(samples).max(initial=0.0))
    if 1 < peak <= LOUDEST:  # MP3, OGG and floats may hold a little more than was recorded
        samples = samples / peak
        said.append(f"reached {peak:.3g}, divided by that")
    promised = 8 + int.from_bytes(data[4:8], "little") if data[:4] == b"RIFF" else 0
    if len(data) < promised < 2**32 - 1:  # written by a stream that did not know its length: not cut off
        said.append(f"cut off: its header promises {promised} bytes and {len(data)} are there")
    return as_wave(samples, found, rate, name, said)


def as_wave(samples, rate: int, wanted_rate: int = 16000, name: str = "the wave", said=()) -> Wave:
    """Return samples, (N,) or (N, channels), as a `Wave` of one channel at `wanted_rate`.

    Whole numbers of 8 or 16 bits are divided by their largest. Raises ValueError for an empty or silent
    wave, NaN, samples beyond -1 to 1, more than 8 channels, and a rate outside 1000 to 400000.

    >>> as_wave(np.array([0, 16384], dtype=np.int16), 16000).samples.tolist()
    [0.0, 0.5]
    """
    limits = (1000, 400_000, "a rate from 1000 to 400000 samples a second, such as 16000")
    rate, wanted_rate = int(number(rate, "rate", *limits)), int(number(wanted_rate, "rate", *limits))
    samples, conversions = np.asarray(samples), list(said)
    if samples.dtype in (np.int16, np.int32):
        conversions.append(f"{samples.dtype} divided by {-int(np.iinfo(samples.dtype).min)}")
        samples = samples / -float(np.iinfo(samples.dtype).min)
    elif samples.dtype == np.uint8:
        conversions.append("uint8: 128 taken off, divided by 128")
        samples = (samples.astype(np.float32) - 128) / 128
    if (
        samples.dtype.kind != "f"
        or samples.ndim not in (1, 2)
        or (samples.ndim == 2 and samples.shape[1] > 8)
    ):
        raise ValueError(
            f"{name} has the shape {samples.shape} in {samples.dtype}: give (samples,) or (samples, channels), "
            "as float, int16, int32 or uint8"
        )
    loudest = float(np.abs(samples).max(initial=0.0))
    if samples.ndim == 2:
        if samples.shape[1] > 1:
            conversions.append(f"{samples.shape[1]} channels mixed to one")
        samples = samples.mean(axis=1)
    if not np.isfinite(samples).all():
        raise ValueError(f"{name} holds NaN or infinity: record it again, or cut that part out")
    peak = float(np.abs(samples).max(initial=0.0))
    if peak > 1.0001:
        raise ValueError(f"{name} reaches {peak:.3g}: samples lie from -1 to 1; divide by the largest")
    if peak < QUIET and loudest >= QUIET:
        raise ValueError(
            f"{name} is silent once its channels are mixed: they cancel out; give one of them alone"
        )
    if peak < QUIET:
        raise ValueError(
            f"{name} is silent: its loudest of {len(samples)} samples is {peak:.2g}, under {QUIET}; "
            "check the microphone, or whether the file is whole"
        )
    if rate != wanted_rate:
        common = math.gcd(rate, wanted_rate)
        samples = resample_poly(samples, wanted_rate // common, rate // common)
        conversions.append(f"{rate} Hz resampled to {wanted_rate} Hz")
    return Wave(samples.astype(np.float32), wanted_rate, tuple(conversions))


def write_wave(path, samples, rate: int) -> None:
    """Write samples (N,), floats from -1 to 1, as 16 bits: FLAC where the name says .flac, else WAV.

    The file appears whole or not at all. Raises ValueError for samples beyond -1 to 1, which would be cut off.
    """
    samples, rate = np.asarray(samples, dtype=np.float32), whole(rate, "rate")
    if samples.ndim != 1 or not len(samples) or not np.isfinite(samples).all() or np.abs(samples).max() > 1:
        peak = np.abs(samples).max(initial=0.0)
        raise ValueError(
            f"samples have the shape {samples.shape} and reach {peak:.3g}: give one row from -1 to 1; "
            "divide by the largest"
        )
    kind, buffer = "FLAC" if str(path).endswith(".flac") else "WAV", BytesIO()
    soundfile.write(buffer, np.round(samples * 32767).astype(np.int16), rate, "PCM_16", format=kind)
    with atomic_write(path) as temporary:
        temporary.write_bytes(buffer.getvalue())
