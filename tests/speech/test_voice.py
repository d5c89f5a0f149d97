"""The voice that is shipped: whole, as its card says, and split so that tests are fair."""

import hashlib
import re

import pytest
import torch

from llmcourse.data.manifest import course_data
from llmcourse.data.sources.spoken import NEW_WORDS, vocabulary
from llmcourse.speech.corpus import from_levels, to_levels
from llmcourse.speech.features import log_mel
from llmcourse.speech.voice import (
    SETS,
    SILENCE,
    STEP,
    VOICE,
    lateness,
    lexicon,
    load_voice,
    phonemes_of,
    sounds,
    voice_path,
    word_starts,
)
from llmcourse.speech.waves import read_wave

FOLDER = course_data() / "voice"
SOUNDS = sorted(path.stem for path in (FOLDER / "clips").glob("*.flac"))
NEW = {word for words in NEW_WORDS.values() for word in words}


@pytest.fixture(scope="module")
def said():
    return {name: load_voice(name) for name in SETS}


def test_files_are_those_of_the_card():
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    listed = {name: digest for digest, name in re.findall(r"^([0-9a-f]{64})  (\S+)$", card, re.M)}
    found = {p.relative_to(FOLDER).as_posix(): p for p in FOLDER.rglob("*.*") if p.name != "README.md"}
    assert listed.keys() == found.keys()
    for name, path in found.items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == listed[name], name


def test_sets_have_the_sizes_of_the_card_and_share_no_text(said):
    assert {name: len(part) for name, part in said.items()} == dict(train=844, dev=60, test=120, new_words=40)
    texts = [u.text for part in said.values() for u in part]
    assert len(set(texts)) == len(texts)


def test_new_words_are_in_their_set_alone_and_their_sounds_in_training(said):
    spoken = {name: {w for u in part for w in u.text.split()} for name, part in said.items()}
    assert spoken["train"] == set(vocabulary())
    assert not NEW & (spoken["train"] | spoken["dev"] | spoken["test"])
    assert all(NEW & set(u.text.split()) for u in said["new_words"])
    assert len(NEW & spoken["new_words"]) == 21
    heard = {p for word in spoken["train"] for p in lexicon()[word]}
    assert set(sounds()) == heard | {SILENCE}


@pytest.mark.parametrize("name", SOUNDS)
def test_what_is_stored_is_what_is_heard(said, name):
    part, number = name.rsplit("_", 1)
    wave = read_wave(voice_path(part, int(number)))
    assert (wave.rate, wave.conversions) == (VOICE.rate, ())
    features = log_mel(torch.tensor(wave.samples), VOICE)
    stored = said[part][int(number)].features
    assert features.shape == stored.shape
    loud = stored > stored.min() + 3  # near the floor 16 bits of the file count
    assert (features - stored)[loud].abs().max() <= STEP / 2 + 0.02


def test_levels_of_another_step_come_back():
    features = torch.linspace(-13.8, 5, 800).view(-1, 80)
    back = from_levels(to_levels(features, STEP, VOICE.floor), STEP, VOICE.floor)
    assert (back - features).abs().max() <= STEP / 2 + 1e-5


def test_words_begin_in_order_within_the_clip(said):
    for part in said.values():
        for u in part:
            starts = [s for s in u.word_starts if s is not None]
            assert len(u.word_starts) == len(u.text.split())
            assert starts == sorted(starts)
            assert starts[-1] < len(u.features) * VOICE.hop / VOICE.rate


def test_word_starts_add_up_durations():
    assert word_starts("call anna", [80, 1, 1, 1, 1, 1, 1, 1]) == pytest.approx([1.0, 1.0375])
    utterance = load_voice("test")[60]
    exact = [None if s is None else round(s * 80) for s in utterance.word_starts]
    assert exact[0] == 0
    rows = [len(lexicon()[word]) for word in utterance.text.split()]
    durations, place = [0], 0.0
    for word, n in enumerate(rows):  # a duration that puts each word where the speaker has it
        following = [s for s in utterance.word_starts[word + 1 :] if s is not None]
        end = following[0] if following else place + n / 80
        durations += (
            [(end - place) * 80] + [0] * (n - 1) if utterance.word_starts[word] is not None else [0] * n
        )
        place = end if utterance.word_starts[word] is not None else place
    assert lateness(utterance, [*durations, 1]) == pytest.approx(
        [0.0] * len([s for s in exact[1:] if s is not None]), abs=1e-6
    )


@pytest.mark.parametrize(
    ("text", "said_so"),
    [
        ("", "'' holds no word"),
        (" . ", "holds no word"),
        ("call 7", "'7' in '7' cannot be said: write it as words"),
        ("tea & milk", "'tea' is none of the 113 words"),
        ("call & anna", "'&' in '&' cannot be said"),
        ("call bob", "'bob' is none of the 113 words of the lexicon.*more={'hello'"),
    ],
)
def test_what_cannot_be_said_is_named(text, said_so):
    with pytest.raises(ValueError, match=said_so):
        phonemes_of(text)


def test_words_of_ones_own_are_said():
    assert phonemes_of("Hello, Anna!", {"hello": "h ə l ˈoʊ"})[:6] == ["_", "h", "ə", "l", "ˈoʊ", "ˈæ"]
    with pytest.raises(ValueError, match="more has no phonemes for 'bob'"):
        phonemes_of("call bob", {"bob": " "})


def test_missing_sets_and_sounds_are_named():
    with pytest.raises(ValueError, match="no set 'all'"):
        load_voice("all")
    with pytest.raises(FileNotFoundError, match="no sound of test_119; there are new_words_0"):
        voice_path("test", 119)
