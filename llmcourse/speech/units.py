"""Speech without training: recorded words, cut out and put in a row.

Of all recordings of a word the one is taken whose neighbours were the same, or at least the one before, so
that the join is one that was said. Synthesizers were built so for twenty years, on hours of recordings.

Source: Hunt and Black 1996, doi:10.1109/ICASSP.1996.541110, with the two costs in their simplest form.

Dimensions: T frames, M mel bands.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llmcourse.speech.voice import Utterance, lexicon


@dataclass(frozen=True)
class Unit:
    """One word as it was recorded, (T, M), between which words; None is the silence at an end."""

    features: Tensor
    before: str | None
    after: str | None


def cut_units(said: Iterable[Utterance], durations: Iterable[Sequence[int]]) -> dict[str, list[Unit]]:
    """Return for each word its recordings, cut by the durations, in frames, of all phonemes of each sentence.

    The silences at the ends stay with the outermost words.
    """
    units: dict[str, list[Unit]] = {}
    for utterance, row in zip(said, durations, strict=True):
        words = utterance.text.split()
        n_phonemes = [len(lexicon()[word]) for word in words]
        n_phonemes[0] += 1
        n_phonemes[-1] += 1
        frames = [sum(part) for part in torch.tensor(row).split(n_phonemes)]
        parts = utterance.features.split([int(n) for n in frames])
        for before, word, part, after in zip([None, *words], words, parts, [*words[1:], None], strict=False):
            units.setdefault(word, []).append(Unit(part, before, after))
    return units


def concatenate(text: str, units: dict[str, list[Unit]]) -> Tensor:
    """Return log-mel (T, M) of a text from recordings of its words. Raises ValueError for a word without one."""
    words = text.split()
    if missing := [word for word in words if word not in units]:
        raise ValueError(f"nobody recorded {missing[0]!r}: there are {len(units)} words; record it too")
    chosen = []
    for before, word, after in zip([None, *words], words, [*words[1:], None], strict=False):

        def fits(unit: Unit, before=before, after=after) -> int:
            ends = (unit.before is None) == (before is None), (unit.after is None) == (after is None)
            return 4 * sum(ends) + 2 * (unit.before == before) + (unit.after == after)

        chosen.append(max(units[word], key=fits).features)
    return torch.cat(chosen)
