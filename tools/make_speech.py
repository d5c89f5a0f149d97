"""Make the clips of chapter 6d: eSpeak NG says digits and sentences in many voices; features are stored.

    python tools/make_speech.py speak    # some 4 minutes of processor time; into runs/speech
    python tools/make_speech.py pack     # some 2 minutes; into data/speech
    python tools/make_speech.py flite    # a minute; needs the program flite (Debian: apt install flite)

Voices that sound alike, or are called alike, form a family, and a family is in one set only: training,
development or test. eSpeak NG says a text a little differently at each call, so a second run gives other
bytes of the same kind. Flite's voices were made of recordings of people; it says the same each time.
"""

import argparse
import csv
import hashlib
import lzma
import pickle
import random
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch
from scipy.signal import resample_poly

from llmcourse.data.sources.espeak import Espeak
from llmcourse.data.sources.spoken import digit_strings, phrases
from llmcourse.speech.corpus import BABBLERS, COLUMNS, CONDITIONS, FEATURES, SNR, to_levels
from llmcourse.speech.dtw import dtw_distances
from llmcourse.speech.features import MelConfig, log_mel, normalized
from llmcourse.speech.noise import babble_noise, mix, pink_noise, white_noise
from llmcourse.speech.waves import read_wave, write_wave

ACCENTS = (
    "en",
    "en-us",
    "en-gb-x-rp",
    "en-gb-scotland",
    "en-029",
    "en-gb-x-gbclan",
    "en-gb-x-gbcwmd",
    "en-us-nyc",
)
NEAR = 0.62  # voices whose "seven nine two" are nearer than this are a family (a voice to itself: about 0.3)
FLITE = {"kal16": 105, "awb": 130, "rms": 100, "slt": 170}  # voices, and how high they speak, in Hz
LISTEN = {"test_digits": 8, "test_phrases": 4}  # clips that are stored as sound too
WORK, DATA = Path("runs/speech"), Path("data/speech")


def say(espeak: Espeak, text: str, voice: str, wpm: int, pitch: int, loud: float) -> np.ndarray:
    """Return samples (N,) in int16 at 16 kHz, whose loudest is `loud` of the largest."""
    wave = resample_poly(espeak.speak(text, voice, wpm, pitch).astype(np.float32) / 32768, 320, 441)
    return np.round(wave / max(1e-3, np.abs(wave).max()) * loud * 32767).astype(np.int16)


def as_float(wave: np.ndarray) -> np.ndarray:
    """Return int16 samples as floats, as a file of them is read."""
    return wave.astype(np.float32) / 32768


def families(espeak: Espeak) -> list[list[str]]:
    """Return the voices, joined where they sound alike or are called alike."""
    voices = espeak.variants
    waves = [as_float(say(espeak, "seven nine two", f"en+{voice}", 170, 50, 0.5)) for voice in voices]
    features = [normalized(log_mel(torch.tensor(wave), MelConfig())) for wave in waves]
    distances = torch.stack([dtw_distances(clip, features) for clip in features])
    head = {voice: voice for voice in voices}

    def first(voice: str) -> str:
        return voice if head[voice] == voice else first(head[voice])

    def stem(voice: str) -> str:
        return re.sub(r"\d+$", "", voice).lower()

    for i, a in enumerate(voices):
        for j, b in enumerate(voices[:i]):
            alike = stem(a) == stem(b) and len(stem(a)) > 2
            if alike or a.lower() + "f" == b or distances[i, j] < NEAR:
                head[first(a)] = first(b)
    found: dict[str, list[str]] = {}
    for voice in voices:
        found.setdefault(first(voice), []).append(voice)
    return sorted(found.values())


def share(text: str) -> int:
    """Return a number from 0 to 255 that depends on the text alone: which set a sentence belongs to."""
    return hashlib.sha256(text.encode()).digest()[0]


def plan(groups: list[list[str]]) -> dict[str, tuple[list[str], list[str]]]:
    """Return for each set its texts and its voices."""
    random.Random(7).shuffle(groups)
    small = [group for group in groups if len(group) <= 2]
    test, dev = ([v for group in part for v in group] for part in (small[:18], small[18:28]))
    train = [v for group in groups for v in group if v not in test and v not in dev]
    sentences = phrases(5000, seed=5)
    return {
        "train_digits": (digit_strings(2000, 1), train),
        "test_digits": (digit_strings(600, 2), test),
        "train_phrases": ([s for s in sentences if share(s) >= 50][:2000], train),
        "dev_digits": (digit_strings(300, 3), dev),
        "dev_phrases": ([s for s in sentences if 25 <= share(s) < 50][:200], dev),
        "test_phrases": ([s for s in sentences if share(s) < 25][:400], test),
    }


def speak() -> None:
    """Write runs/speech/clips.pkl: for each set a list of clips with text, voice, family, accent, wpm, wave."""
    espeak, clips = Espeak(), {}
    groups = families(espeak)
    family = {voice: group[0] for group in groups for voice in group}
    for name, (texts, voices) in plan(groups).items():
        rng, clips[name] = random.Random(name), []
        for text in texts:
            voice, accent = rng.choice(voices), rng.choice(ACCENTS)
            wpm, pitch = rng.randint(120, 220), rng.randint(25, 75)
            wave = say(espeak, text, f"{accent}+{voice}", wpm, pitch, rng.uniform(0.2, 0.9))
            clips[name].append(
                dict(text=text, voice=voice, family=family[voice], accent=accent, wpm=wpm, wave=wave)
            )
        print(name, len(clips[name]))
    WORK.mkdir(parents=True, exist_ok=True)
    (WORK / "clips.pkl").write_bytes(pickle.dumps(clips))


def noises(n: int, voices: list[np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """Return (n,) samples of each kind of noise."""
    return {
        "white": white_noise(n, seed),
        "pink": pink_noise(n, seed),
        "babble": babble_noise(n, voices, BABBLERS, seed),
    }


def with_noise(wave: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Return the int16 wave with noise, made quieter where it would be cut off."""
    mixed = mix(as_float(wave), noise, SNR)
    return np.round(mixed / max(1.0, np.abs(mixed).max() / 0.99) * 32767).astype(np.int16)


def features(wave: np.ndarray) -> np.ndarray:
    """Return the levels (T, M) that are stored of samples in int16 or float."""
    floats = as_float(wave) if wave.dtype == np.int16 else wave
    return to_levels(log_mel(torch.tensor(floats), FEATURES))


def store(name: str, parts: list[np.ndarray]) -> None:
    """Write levels, one clip after another, compressed."""
    raw = np.concatenate(parts).tobytes()
    (DATA / f"{name}.xz").write_bytes(lzma.compress(raw, preset=9 | lzma.PRESET_EXTREME))
    print(name, len(parts), "clips", len(raw), "bytes,", (DATA / f"{name}.xz").stat().st_size, "compressed")


def pack() -> None:
    """Write data/speech: features of all clips, a table of them, some as sound, and noises."""
    clips, rows = pickle.loads((WORK / "clips.pkl").read_bytes()), []
    (DATA / "clips").mkdir(parents=True, exist_ok=True)
    babble = {"train": "train_digits", "test": "dev_digits"}  # who is heard in the background
    people = {part: [as_float(c["wave"]) for c in clips[name][:200]] for part, name in babble.items()}
    for i, part in enumerate(people):
        found = noises(60 * FEATURES.rate, people[part], seed=1 + i)
        store(f"noise_{part}", [features(found[kind]) for kind in CONDITIONS[1:]])
    for name, content in clips.items():
        kept = {"clean": [clip["wave"] for clip in content]}
        if name == "test_digits":
            longest = max(len(wave) for wave in kept["clean"])
            for i, wave in enumerate(kept["clean"]):
                for kind, noise in noises(longest, people["test"], 1000 + i).items():
                    kept.setdefault(kind, []).append(with_noise(wave, noise))
        for kind, waves in kept.items():
            levels = [features(wave) for wave in waves]
            store(name if kind == "clean" else f"{name}_{kind}", levels)
            if kind == "clean":
                rows += [
                    [name, *(c[k] for k in COLUMNS[1:-1]), len(r)]
                    for c, r in zip(content, levels, strict=True)
                ]
            for i in range(LISTEN.get(name, 0) if kind == "clean" else 1):
                sound = waves[i].astype(np.float32) / 32767
                write_wave(DATA / "clips" / f"{name}_{i}_{kind}.flac", sound, FEATURES.rate)
    with open(DATA / "clips.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])
    for path in sorted(DATA.rglob("*.*")):
        print(hashlib.sha256(path.read_bytes()).hexdigest(), path.relative_to(DATA), path.stat().st_size)


def flite() -> None:
    """Add flite_digits to data/speech: 800 strings of digits in four voices, at many speeds and pitches."""
    if shutil.which("flite") is None:
        raise SystemExit("there is no program flite: on Debian and Ubuntu, `apt install flite`, then again")
    rng, rows, parts = random.Random(5), [], []
    with tempfile.TemporaryDirectory() as folder:
        for text in digit_strings(800, 9):
            voice, slow = rng.choice(list(FLITE)), rng.uniform(0.8, 1.6)
            pitch, gaps = FLITE[voice] * rng.uniform(0.8, 1.3), rng.choice((" ", " ", ", "))
            settings = ["--setf", f"duration_stretch={slow:.2f}", "--setf", f"int_f0_target_mean={pitch:.0f}"]
            command = ["flite", "-voice", voice, *settings, "-t", gaps.join(text.split()), "-o", "said.wav"]
            subprocess.run(command, cwd=folder, check=True)
            wave = read_wave(Path(folder) / "said.wav", FEATURES.rate).samples
            parts.append(features((wave / np.abs(wave).max() * rng.uniform(0.2, 0.9)).astype(np.float32)))
            rows.append(["flite_digits", text, voice, voice, "flite", round(170 / slow), len(parts[-1])])
    store("flite_digits", parts)
    lines = (DATA / "clips.csv").read_text(encoding="utf-8").splitlines()
    others = [line for line in csv.reader(lines) if line[0] != "flite_digits"]
    with open(DATA / "clips.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([*others, *rows])
    for name in ("clips.csv", "flite_digits.xz"):
        print(hashlib.sha256((DATA / name).read_bytes()).hexdigest(), name)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("stage", choices=("speak", "pack", "flite"))
    {"speak": speak, "pack": pack, "flite": flite}[parser.parse_args().stage]()
