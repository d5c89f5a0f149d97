"""Debian's descriptions as pairs of long and short: which entries count, and where apt is not."""

import pytest

from llmcourse.data.sources import descriptions
from llmcourse.data.sources.descriptions import load_descriptions, read_descriptions

ENTRY = """Package: {name}
Description-md5: 302b8ff813071cfed09d7b23ac4a0cb3
Description-en: {line}
{text}
"""
PROSE = " It draws charts of all kinds, on paper and\n on every screen that there is.\n"
LISTED = PROSE + " It can\n  * draw lines\n  * draw bars\n .\n This is said after the list.\n"


def entry(name="charts", line="tool to draw charts", text=PROSE):
    return ENTRY.format(name=name, line=line, text=text)


def test_a_description_ends_where_a_list_or_a_second_paragraph_begins():
    lists = entry() + entry("lists", text=LISTED) + entry("two", text=" And" + PROSE + " .\n More of it.\n")
    first, second, third = read_descriptions(lists)
    assert first.source == "It draws charts of all kinds, on paper and on every screen that there is."
    assert (first.name, first.target, first.parameters) == ("charts", "tool to draw charts", ())
    assert second.source == first.source + " It can"
    assert third.source == "And " + first.source


@pytest.mark.parametrize(
    "changes",
    [
        dict(line="charts"),
        dict(line="word " * 16),
        dict(text=" Too short.\n"),
        dict(line="un outil für Diagramme"),
    ],
    ids=str,
)
def test_what_is_no_pair_is_left_out(changes):
    assert list(read_descriptions(entry(**changes))) == []


def test_the_same_text_counts_once():
    assert [pair.name for pair in read_descriptions(entry() + entry("charts-doc"))] == ["charts"]


def test_a_long_text_is_cut_after_120_words():
    (pair,) = read_descriptions(entry(text=" word" * 300 + "\n"))
    assert len(pair.source.split()) == 120


def test_without_apt_it_is_said_what_to_do(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(FileNotFoundError, match="HF_HUB_OFFLINE forbids the network"):
        load_descriptions()
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(descriptions, "apt_descriptions", lambda: None)
    with pytest.raises(FileNotFoundError, match="Debian, Ubuntu or Colab"):
        load_descriptions()
    monkeypatch.setattr(descriptions, "apt_descriptions", entry)
    assert len(load_descriptions()) == 1
