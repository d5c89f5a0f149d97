"""One voice that the course ships: how its words are pronounced, what it said, and when each word began.

Features are kept as in `corpus`, with 80 bands and in steps of a quarter of a neper (1.1 dB).

Dimensions: T frames, M mel bands.
"""

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor

from llmcourse.data.manifest import course_data
from llmcourse.speech.corpus import from_levels, read_levels
from llmcourse.speech.features import MelConfig

VOICE = MelConfig(n_fft=800, hop=200, n_mels=80, floor=1e-6)  # windows of 50 ms, 80 frames a second
STEP = 0.25  # of the natural logarithm of power
SILENCE = "_"  # a phoneme of its own: before the first word, and after the last
SETS = ("train", "dev", "test", "new_words")


@dataclass(frozen=True)
class Utterance:
    """What is said, how it looks, (T, M), and at which second each word begins, by the speaker's own clock."""

    text: str
    features: Tensor
    word_starts: tuple[float | None, ...]  # None for a word that is said as one with the word before


def load_voice(name: str) -> list[Utterance]:
    """Return the recordings of a set (`SETS`).

    >>> test = load_voice("test")
    >>> len(test), test[0].text, test[0].features.shape[1]
    (120, 'seven two one five one', 80)
    """
    if name not in SETS:
        raise ValueError(f"there is no set {name!r}: take one of {', '.join(SETS)}")
    rows = [row for row in _table("clips.csv") if row["set"] == name]
    frames = from_levels(read_levels("voice", name, VOICE.n_mels), STEP, VOICE.floor)
    parts = torch.split(frames, [int(row["frames"]) for row in rows])
    marks = [row["word_starts_ms"].split() for row in rows]
    starts = [tuple(None if ms == "-" else int(ms) / 1000 for ms in row) for row in marks]
    return [Utterance(row["text"], *rest) for row, *rest in zip(rows, parts, starts, strict=True)]


def voice_path(name: str = "test", number: int = 0) -> Path:
    """Return where the sound of a recording lies; some of each test are there.

    Raises FileNotFoundError for others, which are kept as features only.
    """
    path = course_data() / "voice" / "clips" / f"{name}_{number}.flac"
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in path.parent.glob("*.flac")))
        raise FileNotFoundError(f"there is no sound of {path.stem}; there are {there}")
    return path


@cache
def lexicon() -> dict[str, tuple[str, ...]]:
    """Return the phonemes of each word, in the International Phonetic Alphabet.

    >>> lexicon()["lamp"]
    ('l', 'ˈæ', 'm', 'p')
    """
    return {row["word"]: tuple(row["phonemes"].split()) for row in _table("lexicon.csv")}


def phonemes_of(text: str, more: Mapping[str, str] | None = None) -> list[str]:
    """Return the phonemes of a text, word by word, with a silence at both ends.

    `more` has words that the lexicon lacks, with their phonemes: {"hello": "h ə l ˈoʊ"}. Upper case and the
    marks , . ! ? are read over. Raises ValueError for a text without a word, a character that cannot be
    said, and a word that is in neither.

    >>> phonemes_of("Call Anna!")
    ['_', 'k', 'ˈɔː', 'l', 'ˈæ', 'n', 'ə', '_']
    """
    known = lexicon() | {word: tuple(said.split()) for word, said in (more or {}).items()}
    words = re.sub(r"[,.!?]", " ", text.lower()).split()
    if not words:
        raise ValueError(f"{text!r} holds no word: give a text such as 'call anna'")
    for word in words:
        if known.get(word):
            continue
        if word in known:
            raise ValueError(f"more has no phonemes for {word!r}: give them, such as 'h ə l ˈoʊ'")
        if strange := [character for character in word if not character.isalpha()]:
            raise ValueError(
                f"{strange[0]!r} in {word!r} cannot be said: write it as words, such as 'seven' for '7'"
            )
        raise ValueError(
            f"{word!r} is none of the {len(known)} words of the lexicon: take one of them, or give its "
            "phonemes, as in more={'hello': 'h ə l ˈoʊ'}"
        )
    return [SILENCE, *(phoneme for word in words for phoneme in known[word]), SILENCE]


def sounds() -> tuple[str, ...]:
    """Return all phonemes of the lexicon, the silence first: what a synthesizer of this voice must know.

    >>> len(sounds())
    55
    """
    return SILENCE, *sorted({phoneme for said in lexicon().values() for phoneme in said})


def word_starts(text: str, durations: Sequence[int]) -> list[float]:
    """Return at which second each word of a text begins, by the durations, in frames, of its phonemes.

    >>> word_starts("call anna", [8, 4, 8, 4, 8, 8, 8, 8])
    [0.1, 0.3]
    """
    ends, place, found = list(accumulate(durations)), 0, []
    for word in text.split():
        found.append(ends[place] * VOICE.hop / VOICE.rate)
        place += len(lexicon()[word])
    return found


def lateness(utterance: Utterance, durations: Sequence[int]) -> list[float]:
    """Return by how many milliseconds each word but the first begins later, by `durations`, than by the speaker's clock.

    Words that the speaker says as one with the word before are left out.
    """
    pairs = zip(word_starts(utterance.text, durations), utterance.word_starts, strict=True)
    return [1000 * (found - said) for found, said in list(pairs)[1:] if said is not None]


@cache
def _table(file: str) -> list[dict[str, str]]:
    text = (course_data() / "voice" / file).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))
