"""The injections: their published size, near copies, the stand-in, and rows that are refused."""

import json
from collections import Counter

import pytest

from llmcourse.data import manifest
from llmcourse.data.sources import injections
from llmcourse.data.sources.injections import load_injections


def hide_packages(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("LLMCOURSE_CACHE", str(tmp_path))
    monkeypatch.setattr(manifest, "from_package", lambda spec: None)


def test_the_real_set_has_the_counted_size():
    """Its own README says 150 rows, 99 and 51: those of an earlier version."""
    found = load_injections(quiet=True)
    assert Counter(item.label for item in found) == {1: 118, 0: 63}
    assert len({item.category for item in found}) == 26
    assert {item.language for item in found} == {"en", "de", "fr", "es", "it"}


def test_near_copies_share_a_group_also_across_categories():
    found = load_injections(quiet=True)
    groups: dict[int, list] = {}
    for item in found:
        groups.setdefault(item.group, []).append(item)
    assert len(groups) < len(found)
    assert any(len({item.category for item in group}) > 1 for group in groups.values())
    assert all(len({item.label for item in group}) == 1 for group in groups.values())


def test_the_stand_in_has_both_labels_in_several_categories(monkeypatch, tmp_path):
    hide_packages(monkeypatch, tmp_path)
    found = load_injections(quiet=True)
    for label in (0, 1):
        assert len({item.category for item in found if item.label == label}) >= 5
    first = {label: {item.text.split()[2] for item in found if item.label == label} for label in (0, 1)}
    assert first[0] == first[1]  # the order alone tells nothing


def test_a_label_that_is_neither_is_refused_with_its_row(monkeypatch):
    rows = [{"text": "a b", "label": x, "category": "c", "lang": "en"} for x in ("benign", "odd")]
    content = "\n".join(map(json.dumps, rows)).encode()
    data = manifest.DataSet("injections", "cache", "", {"a": content})
    monkeypatch.setattr(injections, "fetch", lambda *a, **k: data)
    with pytest.raises(ValueError, match="row 2 has the label 'odd'"):
        load_injections()
