"""Recordings of people, to try recognizers on: digits and words for a telephone, sentences of an audio book.

They come with apt, where there is apt, from two packages of Debian; the course ships none of them. What was
said is read from the names of the files, and from the transcripts beside them.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from llmcourse.data.manifest import fetch
from llmcourse.data.sources.spoken import DIGITS
from llmcourse.speech.waves import as_wave, read_wave
from llmcourse.support.inputs import number, whole

RATE = 16000
DAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
NUMBERS = {"10": "ten", "20": "twenty", "30": "thirty"}
SETS = ("digits", "words", "others", "sentences")


@dataclass(frozen=True)
class Recording:
    """What is said, by whom, and the samples (N,) at 16 kHz; `conversions` says what was changed for that."""

    text: str
    speaker: str
    samples: np.ndarray
    conversions: tuple[str, ...] = ()


def load_people(name: str, quiet: bool = True) -> list[Recording]:
    """Return recordings of people.

    - "digits": ten, of one speaker, recorded at 8 kHz for a telephone
    - "words": 17 other words of the shipped recognizer, of the same speaker
    - "others": two strings of digits by two other speakers
    - "sentences": five of an audio book, four of a card game

    Raises FileNotFoundError where the packages are not in the cache and apt does not bring them.
    """
    if name not in SETS:
        raise ValueError(f"there is no set {name!r}: take one of {', '.join(SETS)}")
    if name in ("digits", "words"):
        files = fetch("people-words", quiet=quiet).files
        texts = {path: _word(PurePosixPath(path).stem) for path in files}
        said = sorted((text, path) for path, text in texts.items() if (text in DIGITS) == (name == "digits"))
        return [_recording(text, "allison", files[path]) for text, path in said]
    files, found = fetch("people-sentences", quiet=quiet).files, []
    lines = [
        line
        for path, content in files.items()
        if "transcription" in path
        for line in content.decode().splitlines()
    ]
    said = {m[2]: m[1].split() for m in (re.match(r"<s>(.*)</s> \((.*)\)", line) for line in lines)}
    for path, content in sorted(files.items()):
        stem, speaker = PurePosixPath(path).stem, PurePosixPath(path).parent.name
        if path.endswith(".raw"):  # 16 bits at 16 kHz without a header
            found.append(
                (True, _recording("two nine three four zero", "tidigits", np.frombuffer(content, "<i2")))
            )
        elif path.endswith(".wav"):
            digits = set(said[stem]) <= set(DIGITS)
            found.append((digits, _recording(" ".join(said[stem]), speaker, content)))
    return [recording for digits, recording in found if digits == (name == "others")]


def _word(stem: str) -> str:
    """Return what a file of Asterisk says.

    >>> [_word(stem) for stem in ("7", "20", "day-3", "vm-and", "hours")]
    ['seven', 'twenty', 'wednesday', 'and', 'hours']
    """
    if stem.startswith("day-"):
        return DAYS[int(stem[4:])]
    return NUMBERS.get(stem) or (DIGITS[int(stem)] if stem.isdigit() else stem.removeprefix("vm-"))


def _recording(text: str, speaker: str, source) -> Recording:
    wave = read_wave(source, RATE) if isinstance(source, bytes) else as_wave(source, RATE, RATE)
    return Recording(text, speaker, wave.samples, wave.conversions)


def join_words(
    words: Sequence[Recording], n: int, seed: int = 0, least: int = 2, most: int = 7, gap: float = 0.2
) -> list[Recording]:
    """Return `n` strings of `least` to `most` of these words, each length equally frequent.

    Between two words there is silence of up to `gap` seconds beside the recordings' own. All are of the
    same few recordings: many strings make the error rate of these words exact, and say nothing of others.

    >>> word = Recording("one", "ann", np.ones(1600, dtype=np.float32))
    >>> [string.text for string in join_words([word], 2, seed=1)]
    ['one one one', 'one one one']
    """
    n, gap = whole(n, "n", least=0), number(gap, "gap", 0.0, 10.0, "a number of seconds from 0 to 10")
    least, most = whole(least, "least"), whole(most, "most")
    if not words or most < least:
        raise ValueError(f"{len(words)} words, least={least}, most={most}: give a word, and most >= least")
    rng, strings = random.Random(seed), []
    for _ in range(n):
        chosen, parts = [rng.choice(words) for _ in range(rng.randint(least, most))], []
        for word in chosen:
            parts += [word.samples, np.zeros(int(RATE * rng.uniform(0, gap)), dtype=np.float32)]
        text = " ".join(word.text for word in chosen)
        strings.append(Recording(text, chosen[0].speaker, np.concatenate(parts[:-1]), chosen[0].conversions))
    return strings
