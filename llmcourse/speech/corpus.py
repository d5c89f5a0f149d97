"""The clips that the course ships: what eSpeak NG said in its many voices, as features, and some as sound.

Features are stored in steps of half a neper of power (2.2 dB), as whole numbers from the floor up: a
recognizer hears no difference, and they take a fifth of what the sound would.

Dimensions: T frames, M mel bands.
"""

import csv
import lzma
from dataclasses import dataclass
from functools import cache
from math import log
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from llmcourse.data.manifest import course_data
from llmcourse.speech.features import MelConfig

FEATURES = MelConfig(hop=320, floor=1e-6)  # 50 frames a second; a band below -60 dB is silent
STEP = 0.5  # of the natural logarithm of power
CONDITIONS = ("clean", "white", "pink", "babble")
SNR, BABBLERS = 10, 8  # decibels of the noisy test clips, and how many people speak in the babble
COLUMNS = ("set", "text", "voice", "family", "accent", "wpm", "frames")
SETS = ("train_digits", "train_phrases", "dev_digits", "dev_phrases", "test_digits", "test_phrases")
MORE = (
    "flite_digits",
)  # for training too, by another synthesizer, whose voices were made of recordings of people


@dataclass(frozen=True)
class Clip:
    """What is said, by whom, and how it looks to a recognizer: `features` (T, M), not normalized."""

    text: str
    voice: str
    family: str  # voices that sound alike have one family, and a family is in one set only
    accent: str
    wpm: int  # words a minute
    condition: str
    features: Tensor


def to_levels(features: Tensor, step: float = STEP, floor: float = FEATURES.floor) -> np.ndarray:
    """Return features (T, M), log-mel in nepers, as whole numbers of steps above the floor, uint8.

    >>> to_levels(torch.tensor([[log(FEATURES.floor), 0.0]])).tolist()
    [[0, 28]]
    """
    steps = (np.asarray(features, dtype=np.float64) - log(floor)) / step
    return np.clip(np.round(steps), 0, 255).astype(np.uint8)


def from_levels(levels: np.ndarray, step: float = STEP, floor: float = FEATURES.floor) -> Tensor:
    """Return the features (T, M), float32, of what `to_levels` made: at most step / 2 from what they were."""
    return torch.from_numpy(levels.astype(np.float32)) * step + log(floor)


def load_clips(name: str, condition: str = "clean") -> list[Clip]:
    """Return the clips of a set (`SETS`, `MORE`), clean or with noise at 10 dB (`CONDITIONS`; test_digits alone).

    >>> clips = load_clips("test_digits")
    >>> len(clips), clips[0].text, clips[0].features.shape[1]
    (600, 'zero one one five two four four', 40)
    """
    known = CONDITIONS if name == "test_digits" else CONDITIONS[:1]
    if name not in SETS + MORE or condition not in known:
        raise ValueError(
            f"there is no set {name!r} in the condition {condition!r}: take one of {', '.join(SETS + MORE)}, "
            f"clean; test_digits also with {', '.join(CONDITIONS[1:])} noise"
        )
    rows = [row for row in _table() if row["set"] == name]
    levels = read_levels("speech", name if condition == "clean" else f"{name}_{condition}", FEATURES.n_mels)
    parts = torch.split(from_levels(levels), [int(row["frames"]) for row in rows])
    return [
        Clip(row["text"], row["voice"], row["family"], row["accent"], int(row["wpm"]), condition, part)
        for row, part in zip(rows, parts, strict=True)
    ]


def load_noises(part: str = "train") -> dict[str, Tensor]:
    """Return a minute of each kind of noise as features (T, M); the babble is of voices of training, or for "test" of others.

    >>> {kind: len(noise) for kind, noise in load_noises().items()}
    {'white': 3001, 'pink': 3001, 'babble': 3001}
    """
    if part not in ("train", "test"):
        raise ValueError(f"part={part!r}: take 'train' or 'test'")
    kinds = CONDITIONS[1:]
    return dict(
        zip(
            kinds,
            from_levels(read_levels("speech", f"noise_{part}", FEATURES.n_mels)).chunk(len(kinds)),
            strict=True,
        )
    )


def clip_path(name: str = "test_digits", number: int = 0, condition: str = "clean") -> Path:
    """Return where the sound of a clip lies: the first 8 of test_digits, the first 4 of test_phrases.

    Of the noisy test_digits the first alone. Raises FileNotFoundError for others, which are kept as features only.
    """
    path = course_data() / "speech" / "clips" / f"{name}_{number}_{condition}.flac"
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in path.parent.glob("*.flac")))
        raise FileNotFoundError(f"there is no sound of {path.stem}; there are {there}")
    return path


@cache
def _table() -> list[dict[str, str]]:
    text = (course_data() / "speech" / "clips.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def read_levels(folder: str, file: str, n_mels: int) -> np.ndarray:
    """Return the levels (T, M), uint8, in data/FOLDER/FILE.xz: all clips of a set, one after another."""
    raw = lzma.decompress((course_data() / folder / f"{file}.xz").read_bytes())
    return np.frombuffer(raw, np.uint8).reshape(-1, n_mels)
