"""The translator that ships: its card, its data, and that it still writes what was measured."""

import hashlib
import json

import pytest

from llmcourse.data.manifest import course_data
from llmcourse.data.parallel import split_pairs
from llmcourse.data.sources.catalogues import LANGUAGES, load_catalogues
from llmcourse.decode.translator import load_translator
from llmcourse.evaluate.translation import translation_scores

FOLDER = course_data() / "checkpoints" / "translation"


@pytest.fixture(scope="module")
def parts():
    return split_pairs([pair for language in LANGUAGES for pair in load_catalogues(language, quiet=True)[0]])


def test_the_card_names_these_weights_and_they_are_small():
    weights = (FOLDER / "model.safetensors").read_bytes()
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert hashlib.sha256(weights).hexdigest() in card
    assert f"{load_translator().model.n_parameters():,} parameters" in card
    assert len(weights) < 10e6


def test_it_was_trained_on_this_split(parts):
    results = json.loads((FOLDER / "results.json").read_bytes())
    assert results["n_train"] == len(parts["train"])
    for language in LANGUAGES:
        assert results["test"][language]["n"] == sum(pair.language == language for pair in parts["test"])


@pytest.mark.parametrize("language", LANGUAGES)
def test_it_writes_what_was_measured(parts, language):
    expected = json.loads((FOLDER / "results.json").read_bytes())["test"][language]["model"]
    pairs = [pair for pair in parts["test"] if pair.language == language]
    written = load_translator().translate([pair.source for pair in pairs], language)
    scores = translation_scores(written, [pair.target for pair in pairs], language)
    assert scores == pytest.approx(expected, abs=0.3)  # another processor rounds otherwise
