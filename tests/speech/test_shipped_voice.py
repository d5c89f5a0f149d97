"""What is shipped of chapter 6e is what the cards say: aligner, synthesizer, and what two judges wrote."""

import csv
import hashlib
import re
from statistics import mean

import pytest
import torch

from llmcourse.data.manifest import course_data
from llmcourse.pretrained import course_stages
from llmcourse.speech.distortion import mel_cepstral_distortion
from llmcourse.speech.durations import align_clips
from llmcourse.speech.features import log_mel, normalized
from llmcourse.speech.griffin_lim import mel_to_wave
from llmcourse.speech.saved import load_course_aligner, load_course_recognizer, load_course_synthesizer
from llmcourse.speech.voice import VOICE, lateness, load_voice, phonemes_of, sounds

CHECKPOINTS = course_data() / "checkpoints"
TABLE = course_data() / "synthesis" / "transcripts.csv"


@pytest.fixture(scope="module")
def speaker():
    return load_course_synthesizer()[0]


@pytest.fixture(scope="module")
def rows():
    return list(csv.DictReader(TABLE.read_text(encoding="utf-8").splitlines()))


@pytest.mark.parametrize("name", ["aligner", "synthesizer"])
def test_cards_name_the_weights(name):
    card = (CHECKPOINTS / name / "README.md").read_text(encoding="utf-8")
    weights = (CHECKPOINTS / name / "model.safetensors").read_bytes()
    assert f"{len(weights)} bytes, float16, sha256 {hashlib.sha256(weights).hexdigest()}" in card
    assert name not in course_stages()


def test_both_know_the_sounds_of_the_voice(speaker):
    aligner, features = load_course_aligner()
    assert aligner.config.labels == speaker.config.phonemes == sounds()
    assert features == VOICE


def test_the_aligner_cuts_as_its_card_says():
    aligner, _ = load_course_aligner()
    test = load_voice("test")
    cuts = align_clips(aligner, [u.features for u in test], [phonemes_of(u.text) for u in test])
    late = [ms for u, row in zip(test, cuts, strict=True) for ms in lateness(u, row)]
    card = (CHECKPOINTS / "aligner" / "README.md").read_text(encoding="utf-8")
    stated = re.search(r"on average ([+-]\d+) ms, and (\d+) ms in either", card)
    assert mean(late) == pytest.approx(float(stated[1]), abs=0.6)
    assert mean(map(abs, late)) == pytest.approx(float(stated[2]), abs=0.6)


def test_the_synthesizer_says_new_words_as_its_card_says(speaker):
    card = (CHECKPOINTS / "synthesizer" / "README.md").read_text(encoding="utf-8")
    stated = float(re.search(r"training did not have (\d\.\d\d) dB", card)[1])
    apart = [
        mel_cepstral_distortion(speaker.say(phonemes_of(u.text))[0], u.features)
        for u in load_voice("new_words")
    ]
    assert mean(apart) == pytest.approx(stated, abs=0.02)


def test_every_system_said_every_sentence(rows):
    wanted = {
        "test": [u.text for u in load_voice("test")],
        "new_words": [u.text for u in load_voice("new_words")],
    }
    found = {}
    for row in rows:
        found.setdefault((row["system"], row["set"]), []).append((int(row["number"]), row["said"]))
    assert {system for system, _ in found} == {"espeak", "griffin_lim", "units", "synthesizer", "equal"}
    for (_, name), part in found.items():
        assert part == list(enumerate(wanted[name]))


@pytest.mark.parametrize("number", [1, 61, 90])
def test_what_is_stored_is_what_is_said_and_heard(rows, speaker, number):
    recognizer, heard_as = load_course_recognizer()
    utterance = load_voice("test")[number]
    for system, mel in (
        ("griffin_lim", utterance.features),
        ("synthesizer", speaker.say(phonemes_of(utterance.text))[0]),
    ):
        wave = mel_to_wave(mel, VOICE)
        (row,) = [r for r in rows if (r["system"], r["set"], r["number"]) == (system, "test", str(number))]
        assert len(wave) / VOICE.rate == pytest.approx(float(row["seconds"]), abs=0.02)
        apart = mel_cepstral_distortion(log_mel(wave, VOICE), utterance.features)
        assert apart == pytest.approx(float(row["distortion_db"]), abs=0.05)
        assert recognizer.transcribe([normalized(log_mel(wave, heard_as))]) == [row["recognizer"]]


def test_a_sentence_is_longer_when_said_slower(speaker):
    text = phonemes_of("call anna on monday")
    lengths = [len(speaker.say(text, pace=pace)[0]) for pace in (0.5, 1.0, 2.0)]
    assert lengths[0] == pytest.approx(2 * lengths[1], rel=0.1)
    assert lengths[2] == pytest.approx(lengths[1] / 2, rel=0.1)
    assert torch.isfinite(speaker.say(text)[0]).all()
