"""The translator that ships: its card, its data, and that it still writes what was measured."""

import hashlib
import json
import sys
from inspect import signature
from pathlib import Path

import pytest

from llmcourse.data import manifest
from llmcourse.data.manifest import course_data
from llmcourse.data.parallel import split_pairs
from llmcourse.data.sources.catalogues import LANGUAGES, load_catalogues
from llmcourse.decode.translator import THRESHOLD, WithFallback, load_translator
from llmcourse.evaluate.baselines import NeighbourOrDictionary
from llmcourse.evaluate.translation import translation_scores

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
import build_translation

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


def test_it_has_the_shape_that_the_tool_builds():
    config = load_translator().model.config
    assert {name: getattr(config, name) for name in build_translation.CONFIG} == build_translation.CONFIG


def test_the_tool_trains_on_no_stand_in(monkeypatch):
    for place in ("from_package", "from_cache", "from_registry", "from_hub"):
        monkeypatch.setattr(manifest, place, lambda *_: None)
    assert load_catalogues("fr", quiet=True)[0]  # names from CLDR stand in, without a word
    with pytest.raises(FileNotFoundError, match="catalogues-jupyterlab-fr"):
        build_translation.load_parts()


def test_joined_rows_are_two_short_pairs_of_one_language():
    rows = [([1, 5, 6], [7]), ([2, 8], [9, 9]), ([1, 4], [3]), ([2, *[5] * 40], [1])]
    made = build_translation.joined_rows(rows, 20, seed=0)
    pairs = [(a, b) for a in rows[:3] for b in rows[:3] if a[0][0] == b[0][0]]
    possible = [(a[0] + b[0][1:], a[1] + b[1]) for a, b in pairs]
    assert len(made) == 20
    assert all(row in possible for row in made)


def test_it_was_trained_on_this_split(parts):
    results = json.loads((FOLDER / "results.json").read_bytes())
    assert results["n_train"] == len(parts["train"])
    for language in LANGUAGES:
        assert results["test"][language]["n"] == sum(pair.language == language for pair in parts["test"])


@pytest.mark.parametrize("language", LANGUAGES)
def test_it_writes_what_was_measured(parts, language):
    expected = json.loads((FOLDER / "results.json").read_bytes())["test"][language]
    pairs = [pair for pair in parts["test"] if pair.language == language]
    texts, references = [pair.source for pair in pairs], [pair.target for pair in pairs]
    translator = load_translator()
    written = translator.translate(texts, language)
    scores = translation_scores(written, references, language)
    assert scores == pytest.approx(expected["model"], abs=0.3)  # another processor rounds otherwise
    known = [pair for pair in parts["train"] if pair.language == language]
    fallback = {language: build_translation.systems_of(known, language)["either"]}
    chosen, _ = WithFallback(translator, fallback).choose(texts, written, language)
    assert translation_scores(chosen, references, language) == pytest.approx(expected["fallback"], abs=0.3)


def test_both_limits_are_those_that_the_validation_set_chose():
    results = json.loads((FOLDER / "results.json").read_bytes())
    assert build_translation.best_fallback(results["validation"]) == (THRESHOLD, 0.5)
    assert signature(NeighbourOrDictionary).parameters["least"].default == 0.5


def test_it_leads_every_baseline_with_its_fallback():
    results = json.loads((FOLDER / "results.json").read_bytes())
    for key, (gain, p) in results["paired"].items():
        if " test fallback " in key or " near fallback " in key:
            assert (gain > 0, p < 0.01) == (True, True), key
