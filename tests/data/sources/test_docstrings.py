"""Docstrings: read as Python itself reads them, cleaned with reasons, split by package without near copies."""

import decimal
import heapq
import inspect
import textwrap

import pytest

from llmcourse.data import manifest
from llmcourse.data.sources.docstrings import (
    BODY,
    SPLIT,
    SUMMARY,
    Docstring,
    clean,
    definitions,
    load_docstrings,
    plain_text,
    split_docstrings,
)
from llmcourse.data.summary_text import sentences


def hide_packages(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("LLMCOURSE_CACHE", str(tmp_path))
    monkeypatch.setattr(manifest, "from_package", lambda spec: None)


@pytest.mark.parametrize("module", [textwrap, heapq, inspect])
def test_names_parameters_and_texts_are_those_of_the_imported_module(module):
    found = 0
    for name, parameters, text in definitions(inspect.getsource(module).encode()):
        thing = module
        for part in name.split("."):
            thing = inspect.getattr_static(thing, part, None)
        thing = getattr(thing, "__wrapped__", getattr(thing, "__func__", thing))
        if not inspect.isfunction(thing) or thing.__code__.co_filename != module.__file__:
            continue
        found += 1
        assert text == inspect.getdoc(thing)
        named = [
            p.name
            for p in inspect.signature(thing).parameters.values()
            if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        ]
        assert [*parameters] == [p for p in named if p not in ("self", "cls")]
    assert found > 3


def test_what_cannot_be_parsed_yields_nothing_and_odd_strings_no_warning():
    assert list(definitions(b"def f(:\n  'x'")) == []
    assert list(definitions(b"\x00")) == []
    assert [
        name
        for name, *_ in definitions(rb'''def f():
        "A \d text."''')
    ] == ["f"]


def test_definitions_behind_a_condition_are_found():
    code = b"try:\n  import a\nexcept ImportError:\n  pass\nelse:\n  pass\nif 1:\n  def f(x, /, y, *a, z, **k):\n    'Doc.'"
    assert list(definitions(code)) == [("f", ("x", "y", "z"), "Doc.")]


@pytest.mark.parametrize(
    ("marked", "plain"),
    [
        (":class:`~a.b.Thing` and :py:meth:`run() <a.run>`", "Thing and run()"),
        ("``x`` of `y` and **bold**, *slanted*", "x of y and bold, slanted"),
        ("L{Thing} of C{x}", "Thing of x"),
        ("[text](https://a.b/c) here, and |Length|", "text here, and Length"),
        ("a * b and snake_case_name", "a * b and snake_case_name"),
        ("two\n  lines", "two lines"),
    ],
)
def test_markup_goes_and_words_stay(marked, plain):
    assert plain_text(marked) == plain
    assert plain_text(plain) == plain


def test_sentences_lose_no_word():
    text = "Read it (e.g. This one). Then stop! Is it so? Yes, i.e. No. 3 of 4"
    assert sentences(text) == [
        "Read it (e.g. This one).",
        "Then stop!",
        "Is it so?",
        "Yes, i.e. No.",
        "3 of 4",
    ]
    assert " ".join(sentences(text)) == text
    assert sentences(" \n ") == []


LONG = "The text below says more, in at least eight words."


@pytest.mark.parametrize(
    ("docstring", "reason"),
    [
        ("Draw the chart.", "nothing below"),
        (
            "Draw the chart.\n\nParameters\n----------\nx : int\n    A number of some kind that is used.",
            "nothing below",
        ),
        ("Draw the chart.\n\n:param x: " + LONG, "nothing below"),
        ("Draw the chart.\n\n>>> draw()", "nothing below"),
        ("Args:\n    x: " + LONG, "no prose"),
        ("Draw it.\n\n" + LONG, "first sentence short"),
        ("Draw " + "the chart " * 8 + ".\n\n" + LONG, "first sentence long"),
        ("Draw the chart.\n\nIn six words or so.", "text short"),
        ("Draw the Größe.\n\n" + LONG, "beyond ASCII"),
        ("Draw x[i] = {1, 2} / 3.\n\n" + LONG, "code or formulas"),
        ("TODO: draw the chart.\n\n" + LONG, "no description"),
        ("Draw the chart as:\n\n" + LONG, "no description"),
    ],
)
def test_what_is_left_out_says_why(docstring, reason):
    assert clean(docstring) == reason


def test_prose_ends_where_a_list_or_section_begins():
    for tail in (
        "Args:\n    x: y",
        "- one\n- two",
        "Notes\n-----\nmore",
        ".. note:: x",
        ":returns: x",
        "    code",
    ):
        assert clean(f"Draw the chart.\n\n{LONG}\n\n{tail}\n\nNever seen.") == ("Draw the chart.", LONG)
    assert clean(f"Draw the chart.\n{LONG}\n:param x: y") == ("Draw the chart.", LONG)
    assert clean(f"Draw\nthe chart. {LONG}") == ("Draw the chart.", LONG)
    assert clean("Draw the chart.\n\nIf it is\n:const:`None` then nothing is drawn at all.")[1].endswith(
        "drawn at all."
    )


def test_a_long_text_is_cut_and_a_sentence_alone_comes_when_asked_for():
    assert len(clean("Draw the chart.\n\n" + "word " * 500)[1].split()) == BODY[1]
    assert clean("Draw the chart.", alone=True) == ("Draw the chart.", "")


@pytest.fixture(scope="module")
def loaded():
    return {package: load_docstrings(package, quiet=True) for package in ("control", "docx", "praw", "skrub")}


def test_counts_add_up_and_pairs_keep_the_limits(loaded):
    for package, (pairs, counts) in loaded.items():
        assert counts["docstrings"] == sum(counts.values()) - counts["docstrings"]
        assert counts["pairs"] == len(pairs) > 100
        for pair in pairs:
            assert pair.package == package
            assert SUMMARY[0] <= len(pair.target.split()) <= SUMMARY[1]
            assert BODY[0] <= len(pair.source.split()) <= BODY[1]
        assert len({p.source for p in pairs}) == len({p.target for p in pairs}) == len(pairs)


def test_with_single_sentences_there_is_more_and_each_new_one_has_no_text(loaded):
    pairs, counts = load_docstrings("skrub", alone=True, quiet=True)
    assert counts["nothing below"] == 0
    alone = [pair for pair in pairs if not pair.source]
    assert len(pairs) > len(loaded["skrub"][0])
    assert len(alone) > 100


def test_the_split_is_by_package_and_near_copies_of_the_training_are_left_out(loaded):
    pairs = [pair for found, _ in loaded.values() for pair in found]
    copied = next(pair for pair in pairs if pair.package == "skrub" and len(pair.source.split()) > 20)
    copy = Docstring("f", (), copied.source + " Indeed.", "Another first sentence.", "docx")
    parts = split_docstrings([copy, *pairs])
    assert {part: {pair.package for pair in found} for part, found in parts.items()} == {
        "train": {"skrub"}, "validation": {"praw"}, "test": {"control", "docx"},
    }  # fmt: skip
    assert copy not in parts["test"]
    names = [name for part in SPLIT.values() for name in part]
    assert len(names) == len(set(names))


def test_without_the_packages_the_standard_library_stands_in(monkeypatch, tmp_path, capsys):
    hide_packages(monkeypatch, tmp_path)
    pairs, _ = load_docstrings("textual")
    assert "STAND-IN" in capsys.readouterr().out
    assert len(pairs) >= 5
    other, _ = load_docstrings("control", quiet=True)
    assert not {p.source for p in pairs} & {p.source for p in other}


def test_an_unknown_package_is_refused():
    with pytest.raises(ValueError, match="package='decimal' is none of the split: choose from"):
        load_docstrings(decimal.__name__)
