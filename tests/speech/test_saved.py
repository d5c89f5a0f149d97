"""A recognizer comes back from its folder as it was; and the one that is shipped."""

import csv
import re

import pytest
import torch

from llmcourse.data.manifest import course_data
from llmcourse.evaluate.metrics import wer
from llmcourse.pretrained import course_stages
from llmcourse.speech.corpus import FEATURES, load_clips
from llmcourse.speech.features import MelConfig, log_mel, normalized
from llmcourse.speech.recognizer import Recognizer, RecognizerConfig
from llmcourse.speech.saved import (
    SHAPE,
    WEIGHTS,
    load_course_recognizer,
    load_recognizer,
    load_synthesizer,
    save_recognizer,
    save_synthesizer,
)
from llmcourse.speech.synthesizer import Synthesizer, SynthesizerConfig

CARD = course_data() / "checkpoints" / "recognizer" / "README.md"


def small():
    torch.manual_seed(0)
    return Recognizer(RecognizerConfig(("yes", "no"), d_model=16, n_layers=1, strides=(1, 2)))


def test_it_comes_back_as_it_was(tmp_path):
    model, config = small(), MelConfig(hop=320, high=4000.0)
    save_recognizer(tmp_path, model, config, dtype=torch.float32)
    back, features = load_recognizer(tmp_path)
    assert features == config
    assert back.config == model.config
    clip = torch.randn(30, 40)
    torch.testing.assert_close(back.log_probabilities([clip])[0], model.log_probabilities([clip])[0])


def test_damaged_folders_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=WEIGHTS):
        load_recognizer(tmp_path)
    save_recognizer(tmp_path, small(), MelConfig())
    good = (tmp_path / WEIGHTS).read_bytes()
    (tmp_path / WEIGHTS).write_bytes(good[:200])
    with pytest.raises(ValueError, match="cut short"):
        load_recognizer(tmp_path)
    (tmp_path / WEIGHTS).write_bytes(good)
    (tmp_path / SHAPE).write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match="no file of save_recognizer"):
        load_recognizer(tmp_path)


def test_a_synthesizer_comes_back_as_it_was(tmp_path):
    torch.manual_seed(0)
    shape = dict(n_mels=8, d_model=16, n_heads=2, n_text_layers=1, n_frame_layers=1)
    model = Synthesizer(SynthesizerConfig(("_", "ˈæ"), **shape))
    model.set_scale([torch.randn(9, 8) * 4 - 3])
    save_synthesizer(tmp_path, model, MelConfig(n_mels=8, hop=200), dtype=torch.float32)
    back, features = load_synthesizer(tmp_path)
    assert (features, back.config) == (MelConfig(n_mels=8, hop=200), model.config)
    torch.testing.assert_close(back.say(["_", "ˈæ"])[0], model.say(["_", "ˈæ"])[0])
    with pytest.raises(
        FileNotFoundError, match=r"no recognizer\.json: it is not a folder of save_recognizer"
    ):
        load_recognizer(tmp_path)


def test_unknown_words_are_named():
    assert small().labels_of("no yes no") == [2, 1, 2]
    with pytest.raises(ValueError, match="'maybe'; it knows 2 words"):
        small().labels_of("no maybe")


@pytest.fixture(scope="module")
def shipped():
    return load_course_recognizer()


def stored():
    with open(CARD.with_name("transcripts.csv"), encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_shipped_is_no_stage_of_the_language_model(shipped):
    assert "recognizer" not in course_stages()
    assert shipped[1] == FEATURES


def test_shipped_writes_what_is_stored(shipped):
    model, _ = shipped
    clips = load_clips("test_digits", "babble")[:40]
    written = model.transcribe([normalized(clip.features) for clip in clips])
    rows = [row for row in stored() if row["condition"] == "babble"][:40]
    assert [row["said"] for row in rows] == [clip.text for clip in clips]
    assert wer(written, [row["written"] for row in rows]) < 0.01  # another processor may tip one


def test_shipped_hears_features_and_their_sound_alike(shipped):
    from llmcourse.speech.corpus import clip_path
    from llmcourse.speech.waves import read_wave

    model, features = shipped
    clips = load_clips("test_digits")[:8]
    waves = [read_wave(clip_path("test_digits", i), features.rate).samples for i in range(8)]
    heard = model.transcribe([normalized(log_mel(torch.tensor(wave), features)) for wave in waves])
    stored_features = model.transcribe([normalized(clip.features) for clip in clips])
    assert wer(heard, stored_features) < 0.1


def test_card_states_the_error_of_the_transcripts():
    rows, card = stored(), CARD.read_text(encoding="utf-8")
    for kind, pattern in {
        "clean": r"digits ([\d.]+)%; at 10 dB",
        "white": r"white noise ([\d.]+)%",
        "pink": r"pink ([\d.]+)%",
        "babble": r"babble ([\d.]+)%",
        "test_phrases": r"sentences ([\d.]+)% \|\n\| model",
    }.items():
        part = [row for row in rows if row["condition"] == kind]
        measured = wer([row["written"] for row in part], [row["said"] for row in part])
        assert float(re.search(pattern, card)[1]) == pytest.approx(100 * measured, abs=0.006), kind
