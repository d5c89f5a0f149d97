"""What was measured on recordings of people: the cards say what the tables hold, and the recognizer is the one that was measured."""

import csv
import hashlib
import re

import pytest

from llmcourse.data.manifest import course_data, from_cache
from llmcourse.data.sources.spoken import DIGITS
from llmcourse.evaluate.metrics import wer
from llmcourse.pretrained import course_stages
from llmcourse.speech.corpus import FEATURES, load_clips
from llmcourse.speech.features import log_mel
from llmcourse.speech.people import load_people
from llmcourse.speech.recognizer import listen
from llmcourse.speech.saved import load_course_recognizer

FOLDER, CHECKPOINT = course_data() / "people", course_data() / "checkpoints" / "recognizer_people"


def table(name: str) -> list[dict[str, str]]:
    with open(FOLDER / name, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def model():
    return load_course_recognizer("recognizer_people")[0]


def test_card_states_the_errors_of_the_transcripts():
    rows, card = table("transcripts.csv"), (FOLDER / "README.md").read_text(encoding="utf-8")
    for name in {row["set"] for row in rows}:
        part = [row for row in rows if row["set"] == name]
        (line,) = re.findall(rf"^\| {name} \| (.*) \|$", card, re.M)
        words = sum(len(row["said"].split()) for row in part)
        sizes, *cells = line.split(" | ")
        assert sizes == f"{len(part)}, {words}"
        for system, cell in zip(("shipped", "people", "whisper"), cells, strict=True):
            if cell == "-":
                assert not any(row[system] for row in part)
                continue
            rate, low, high = map(float, re.findall(r"([\d.]+)%", cell))
            measured = 100 * wer([row[system] for row in part], [row["said"] for row in part])
            assert rate == pytest.approx(measured, abs=0.06)
            assert low <= rate <= high


def test_every_way_was_tried_with_every_seed():
    rows = [row for row in table("remedies.csv") if not row["what"].startswith("shipped")]
    seeds = {}
    for row in rows:
        seeds.setdefault(row["what"], []).append(row["seed"])
    longer = {what for what in seeds if what.endswith("steps")}
    assert (len(seeds), len(longer)) == (9, 2)
    assert all(found == (["1234"] if what in longer else ["1234", "1"]) for what, found in seeds.items())


def test_the_longest_row_is_the_recognizer_that_is_shipped(model):
    (row,) = [
        row for row in table("remedies.csv") if row["what"] == "four voices made of recordings, 1,200 steps"
    ]
    strings = [r for r in table("transcripts.csv") if r["set"] == "strings"]
    written = wer([r["people"] for r in strings], [r["said"] for r in strings])
    assert float(row["strings"]) == pytest.approx(written, abs=5e-5)


def test_the_card_is_of_this_recognizer(model):
    card, weights = (CHECKPOINT / "README.md").read_text(encoding="utf-8"), CHECKPOINT / "model.safetensors"
    assert hashlib.sha256(weights.read_bytes()).hexdigest() in card
    assert model.config.labels == DIGITS
    assert "recognizer_people" not in course_stages()
    clips = load_clips("test_digits")
    found = wer(listen(model, [clip.features for clip in clips]), [clip.text for clip in clips])
    assert float(re.search(r"clean: ([\d.]+)%", card)[1]) == pytest.approx(100 * found, abs=0.1)


@pytest.mark.skipif(from_cache("people-words") is None, reason="the recordings come with apt, when asked")
def test_it_writes_of_the_recordings_what_is_stored(model):
    rows = {row["said"]: row["people"] for row in table("transcripts.csv") if row["set"] == "digits"}
    digits = load_people("digits")
    written = listen(model, [log_mel(recording.samples, FEATURES) for recording in digits])
    assert {r.text: text for r, text in zip(digits, written, strict=True)} == rows
