"""The clips that are shipped: whole, of one kind with their sound, and split so that tests are fair."""

import hashlib
import re
from collections import defaultdict

import numpy as np
import pytest
import torch

from llmcourse.data.manifest import course_data
from llmcourse.data.sources.spoken import DIGITS, vocabulary
from llmcourse.speech.corpus import (
    CONDITIONS,
    FEATURES,
    SETS,
    STEP,
    clip_path,
    from_levels,
    load_clips,
    load_noises,
    to_levels,
)
from llmcourse.speech.features import log_mel
from llmcourse.speech.vary import mix_features
from llmcourse.speech.waves import read_wave

FOLDER = course_data() / "speech"
SOUNDS = sorted(path.stem for path in (FOLDER / "clips").glob("*.flac"))


@pytest.fixture(scope="module")
def clips():
    return {name: load_clips(name) for name in SETS}


def test_files_are_those_of_the_card():
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    listed = dict(
        re.findall(r"^([0-9a-f]{64})  (\S+)$", card, re.M)[i][::-1] for i in range(card.count("  "))
    )
    found = {p.relative_to(FOLDER).as_posix(): p for p in FOLDER.rglob("*.*") if p.name != "README.md"}
    assert listed.keys() == found.keys()
    for name, path in found.items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == listed[name], name


def test_sets_have_the_sizes_of_the_card(clips):
    assert [len(clips[name]) for name in SETS] == [2000, 2000, 300, 200, 600, 400]
    voices = {
        part: {c.voice for name in SETS if name.startswith(part) for c in clips[name]}
        for part in ("train", "dev", "test")
    }
    assert {part: len(found) for part, found in voices.items()} == {"train": 75, "dev": 11, "test": 18}


def test_families_and_sentences_are_in_one_set_only(clips):
    families, sentences = defaultdict(set), defaultdict(set)
    for name, content in clips.items():
        part, kind = name.split("_")
        for clip in content:
            families[clip.family].add(part)
            if kind == "phrases":
                sentences[clip.text].add(part)
    assert all(len(parts) == 1 for parts in families.values())
    assert all(len(parts) == 1 for parts in sentences.values())
    assert {"en-us", "en"} <= {clip.accent for clip in clips["test_digits"]}


def test_texts_are_of_the_vocabulary(clips):
    words = {word for content in clips.values() for clip in content for word in clip.text.split()}
    assert words == set(vocabulary())
    assert {w for c in clips["test_digits"] for w in c.text.split()} == set(DIGITS)


@pytest.mark.parametrize("stem", SOUNDS)
def test_sound_has_the_features_that_are_stored(stem):
    name, number, condition = stem.rsplit("_", 2)
    clip = load_clips(name, condition)[int(number)]
    wave = read_wave(clip_path(name, int(number), condition), FEATURES.rate)
    heard = log_mel(torch.tensor(wave.samples), FEATURES)
    assert heard.shape == clip.features.shape
    assert (heard - clip.features).abs().max() <= STEP / 2 + 1e-3


def test_noisy_clips_are_the_clean_ones_at_10_db(clips):
    """Adding the power of noise to the clean features gives nearly what mixing the waves gave."""
    noises = load_noises("test")
    for kind in CONDITIONS[1:]:
        noisy = load_clips("test_digits", kind)
        assert [c.text for c in noisy] == [c.text for c in clips["test_digits"]]
        assert {c.condition for c in noisy} == {kind}
        gaps = [
            (mix_features(a.features, noises[kind], 10.0, FEATURES) - b.features).mean().item()
            for a, b in zip(clips["test_digits"], noisy, strict=True)
        ]
        assert abs(np.median(gaps)) < (0.5 if kind == "pink" else 0.25), (
            kind
        )  # nepers; see mix_features on pink


def test_levels_lose_at_most_half_a_step():
    features = torch.rand(50, 40, generator=torch.Generator().manual_seed(0)) * 20 - 13
    assert (from_levels(to_levels(features)) - features).abs().max() <= STEP / 2 + 1e-5
    assert to_levels(torch.tensor([[-99.0, 1e6]])).tolist() == [[0, 255]]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: load_clips("digits"), "take one of train_digits"),
        (lambda: load_clips("dev_digits", "white"), "test_digits also with white"),
        (lambda: load_noises("dev"), "'train' or 'test'"),
    ],
)
def test_unknown_names_are_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call()


def test_sounds_that_are_not_kept_are_named():
    with pytest.raises(FileNotFoundError, match="no sound of test_digits_99_clean; there are test_digits_0"):
        clip_path("test_digits", 99)


def test_what_flite_says_is_for_training_and_in_the_same_form():
    clips = load_clips("flite_digits")
    assert len(clips) == 800
    assert {clip.voice for clip in clips} == {"kal16", "awb", "rms", "slt"}
    assert not {clip.family for clip in clips} & {c.family for name in SETS for c in load_clips(name)}
    assert {word for clip in clips for word in clip.text.split()} == set(DIGITS)
    frames = torch.cat([clip.features for clip in clips])
    assert frames.min() == torch.tensor(FEATURES.floor).log()
    seconds = len(frames) / 50 / sum(len(clip.text.split()) for clip in clips)
    assert 0.4 < seconds < 0.8  # a word, with its pauses
