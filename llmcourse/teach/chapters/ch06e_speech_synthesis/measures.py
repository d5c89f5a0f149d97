"""What chapter 6e measures: rounds of Griffin-Lim, sharpness, word errors with intervals; and sound for the page."""

from collections.abc import Sequence
from io import BytesIO

import numpy as np
import soundfile
import torch
from torch import Tensor

from llmcourse.evaluate.metrics import wer
from llmcourse.evaluate.significance import bootstrap_interval
from llmcourse.speech.features import MelConfig, power_spectrogram
from llmcourse.speech.griffin_lim import griffin_lim


def listen(wave, rate: int):
    """Return a player for a wave (N,) from -1 to 1, as MP3: an eighth of the bytes of a WAV file in the page."""
    from IPython.display import Audio

    buffer = BytesIO()
    soundfile.write(buffer, np.asarray(wave, dtype=np.float32), rate, format="MP3", compression_level=0.8)
    return Audio(buffer.getvalue())


def apart(wave: Tensor, strengths: Tensor, config: MelConfig) -> float:
    """Return how far the spectrogram of a wave is from the strengths (T, F) that it should have, as a share.

    >>> apart(torch.zeros(1600), torch.ones(11, 201), MelConfig())
    1.0
    """
    found = power_spectrogram(wave, config).sqrt()
    return ((found - strengths).norm() / strengths.norm()).item()


def by_rounds(
    strengths: Tensor, config: MelConfig, rounds: Sequence[int], momentum: float
) -> tuple[list, list]:
    """Return (rounds, how far the wave is from the strengths after so many)."""
    waves = [griffin_lim(strengths, config, n, momentum) for n in rounds]
    return list(rounds), [apart(wave, strengths, config) for wave in waves]


def sharpness(mels: Sequence[Tensor]) -> float:
    """Return by how much neighbouring bands differ on average, in nepers: ripples of the voice make it large.

    >>> sharpness([torch.tensor([[0.0, 1.0, 0.0]])])
    1.0
    """
    return torch.cat([mel.diff(dim=1).abs().flatten() for mel in mels]).mean().item()


def word_errors(written: Sequence[str], said: Sequence[str]) -> tuple[float, float, float]:
    """Return (word error rate, lower, upper end of its 95 % interval); the bootstrap draws whole sentences.

    >>> word_errors(["a b", "c d"], ["a b", "c d"])
    (0.0, 0.0, 0.0)
    """
    errors, sentences = _by_word(written, said)
    return wer(written, said), *bootstrap_interval(errors, groups=sentences)


def more_errors(
    written: Sequence[str], other: Sequence[str], said: Sequence[str]
) -> tuple[float, float, float]:
    """Return by how much the word error rate of `written` is above that of `other`, with a 95 % interval.

    Both are of the same sentences, so the bootstrap draws sentences with what each wrote of them.

    >>> more_errors(["a b", "c"], ["a b", "c"], ["a b", "c d"])
    (0.0, 0.0, 0.0)
    """
    (a, sentences), (b, _) = _by_word(written, said), _by_word(other, said)
    differences = [x - y for x, y in zip(a, b, strict=True)]
    return wer(written, said) - wer(other, said), *bootstrap_interval(differences, groups=sentences)


def _by_word(written: Sequence[str], said: Sequence[str]) -> tuple[list, list]:
    """Return each sentence's errors shared out over its words, and the number of the sentence of each word."""
    lengths = [len(text.split()) for text in said]
    errors = [wer([one], [other]) for one, other in zip(written, said, strict=True)]
    return [e for e, n in zip(errors, lengths, strict=True) for _ in range(n)], [
        i for i, n in enumerate(lengths) for _ in range(n)
    ]
