"""Make the voice of chapter 6e: one speaker of eSpeak NG says digits and sentences; features are stored.

    python tools/make_voice.py    # about half a minute of processor time; into data/voice

This speaker, unlike most, says a text in the same way at each call: a second run makes the same bytes.
"""

import csv
import hashlib
import lzma
import re
from pathlib import Path

import numpy as np
import torch
from make_speech import share
from scipy.signal import resample_poly

from llmcourse.data.sources.espeak import Espeak
from llmcourse.data.sources.spoken import (
    NEW_WORDS,
    digit_strings,
    phrases,
    phrases_with_new_words,
    vocabulary,
)
from llmcourse.speech.corpus import to_levels
from llmcourse.speech.features import log_mel
from llmcourse.speech.voice import STEP, VOICE
from llmcourse.speech.waves import write_wave

SPEAKER, WPM, LOUD = "en-us+klatt4", 140, 0.6
LISTEN = {"test": (*range(12), *range(60, 72)), "new_words": range(6)}  # stored as sound too
DATA = Path("data/voice")


def plan() -> dict[str, list[str]]:
    """Return for each set its texts: none is in two of them."""
    sentences, numbers = phrases(5000, seed=5), dict.fromkeys(digit_strings(400, seed=21))
    others = [
        t for t in dict.fromkeys(digit_strings(400, seed=22)) if len(t.split()) > 2 and t not in numbers
    ]
    return {
        "train": [*numbers, *[s for s in sentences if share(s) >= 50][:500]],
        "dev": [*others[60:90], *[s for s in sentences if 25 <= share(s) < 50][:30]],
        "test": [*others[:60], *[s for s in sentences if share(s) < 25][:60]],
        "new_words": phrases_with_new_words(40, seed=9),
    }


def say(espeak: Espeak, text: str) -> tuple[np.ndarray, list[str]]:
    """Return samples (N,) at 16 kHz, and at which millisecond each word begins, "-" where two are said as one."""
    samples = espeak.speak(text, SPEAKER, WPM).astype(np.float32) / 32768
    starts = {place: str(round(1000 * sample / espeak.rate)) for place, sample in espeak.word_starts.items()}
    places = [match.start() for match in re.finditer(r"\S+", text)]
    if not starts or starts.keys() - set(places):
        raise ValueError(f"the words of {text!r} begin at {starts}, which are not {places}")
    return LOUD * resample_poly(samples, 320, 441).astype(np.float32), [starts.get(p, "-") for p in places]


def write_table(name: str, rows: list) -> None:
    """Write rows as a table, the first of them its head."""
    with open(DATA / name, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def pronounce(espeak: Espeak) -> dict[str, str]:
    """Return how each word is said alone, with main stress only."""
    words = [*vocabulary(), *sorted(word for new in NEW_WORDS.values() for word in new)]
    said = {word: " ".join(espeak.phonemes(word, SPEAKER)).replace("ˌ", "") for word in words}
    sounds = {p for word in vocabulary() for p in said[word].split()}
    strange = {word: set(said[word].split()) - sounds for word in words[len(vocabulary()) :]}
    if any(strange.values()):
        raise ValueError(f"new words with sounds that no training has: {strange}")
    return said


def main() -> None:
    """Write data/voice, and its hashes for the card."""
    (DATA / "clips").mkdir(parents=True, exist_ok=True)
    espeak = Espeak()
    rows = [("set", "text", "frames", "word_starts_ms")]
    for name, texts in plan().items():
        levels = []
        for i, text in enumerate(texts):
            wave, starts = say(espeak, text)
            levels.append(to_levels(log_mel(torch.tensor(wave), VOICE), STEP, VOICE.floor))
            rows.append((name, text, len(levels[-1]), " ".join(starts)))
            if i in LISTEN.get(name, ()):
                write_wave(DATA / "clips" / f"{name}_{i}.flac", wave.clip(-1, 1), VOICE.rate)
        raw = np.concatenate(levels).tobytes()
        (DATA / f"{name}.xz").write_bytes(lzma.compress(raw, preset=9 | lzma.PRESET_EXTREME))
        print(name, len(texts), "clips", len(raw), "bytes")
    write_table("clips.csv", rows)
    write_table("lexicon.csv", [("word", "phonemes"), *pronounce(espeak).items()])
    for path in sorted(DATA.rglob("*.*")):
        print(
            f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(DATA)}", path.stat().st_size
        )


if __name__ == "__main__":
    main()
