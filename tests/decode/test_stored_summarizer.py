"""The summarizer that ships: its card, its data, and that it still writes what was measured."""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from llmcourse.data import manifest
from llmcourse.data.manifest import course_data
from llmcourse.data.sources.docstrings import load_docstrings
from llmcourse.data.summary_text import source_text
from llmcourse.decode.summarizer import load_summarizer
from llmcourse.evaluate.rouge import NAMES, rouge_scores, source_share
from llmcourse.teach.chapters.ch06b_summarization.systems import load_some

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
import build_summarizer

FOLDER = course_data() / "checkpoints" / "summarization"


@pytest.fixture(scope="module")
def results():
    return json.loads((FOLDER / "results.json").read_bytes())


@pytest.fixture(scope="module")
def parts():
    return build_summarizer.load_parts()


def test_the_card_names_these_weights_and_they_are_small():
    weights = (FOLDER / "model.safetensors").read_bytes()
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert hashlib.sha256(weights).hexdigest() in card
    assert f"{load_summarizer().model.n_parameters():,} parameters" in card
    assert len(weights) < 10e6


def test_it_has_the_shape_that_the_tool_builds():
    config = load_summarizer().model.config
    assert {name: getattr(config, name) for name in build_summarizer.CONFIG} == build_summarizer.CONFIG
    assert config.copy


def test_the_tool_trains_on_no_stand_in(monkeypatch):
    for place in ("from_package", "from_cache", "from_registry", "from_hub"):
        monkeypatch.setattr(manifest, place, lambda *_: None)
    assert load_docstrings("textual", quiet=True)[0]  # the standard library stands in, without a word
    with pytest.raises(FileNotFoundError, match="docstrings-cinder"):
        build_summarizer.load_parts()


def test_it_was_trained_on_this_split_and_the_chapter_tests_on_the_same(parts, results):
    assert {part: results["n"][part] for part in parts} == {part: len(found) for part, found in parts.items()}
    assert load_some()[0]["test"] == parts["test"]
    assert not {d.package for d in parts["train"]} & {d.package for d in parts["test"]}


def test_it_writes_what_was_measured(parts, results):
    definitions = parts["test"][::5]
    written = load_summarizer().summarize(definitions, cut=True)
    scores = rouge_scores(written, [d.target for d in definitions])
    stored = np.loadtxt(FOLDER / "scores.csv", delimiter=",", skiprows=1)[::5, -1]
    assert scores["rougeL"].mean() == pytest.approx(
        stored.mean(), abs=0.01
    )  # another processor rounds otherwise
    assert np.mean(np.abs(scores["rougeL"] - stored) < 1e-3) > 0.9
    share = source_share(written, [source_text(d) for d in definitions]).mean()
    assert share == pytest.approx(results["test"]["model"]["share"], abs=0.05)


def test_the_stored_scores_have_the_means_that_the_results_state(results):
    names = (FOLDER / "scores.csv").read_text(encoding="utf-8").splitlines()[0].split(",")
    means = np.loadtxt(FOLDER / "scores.csv", delimiter=",", skiprows=1).mean(0)
    assert dict(zip(names, means, strict=True)) == pytest.approx(
        {name: row["rougeL"][0] for name, row in results["test"].items()}, abs=1e-4
    )


def test_each_seed_was_trained_with_and_without_the_pointer_on_the_same_test(parts):
    rows = json.loads((FOLDER / "ablation.json").read_bytes())
    assert [(row["seed"], row["copy"]) for row in rows] == [
        (seed, copy) for seed in build_summarizer.SEEDS for copy in (True, False)
    ]
    for row in rows:
        assert len(row["each"]) == row["n_test"] == len(parts["test"])
        assert np.mean(row["each"]) == pytest.approx(row["rougeL"], abs=1e-3)
        assert all(0 <= row[name] <= 1 for name in NAMES)
