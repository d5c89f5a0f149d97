"""The dump and its markup, planted defects that count, and files that are not what they should be."""

import bz2
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import mwparserfromhell
import pytest

from llmcourse.data import manifest
from llmcourse.data.cleaning.dedup import jaccard, shingles
from llmcourse.data.cleaning.pii import find_pii
from llmcourse.data.cleaning.planted_defects import Document, edited, make_dirty
from llmcourse.data.cleaning.rules import language_of, quality_problems
from llmcourse.data.sources import web
from llmcourse.data.sources.web import (
    Page,
    decode_utf,
    extract_text,
    load_wikipedia,
    read_documents,
    sections,
    stand_in_dump,
)


@pytest.fixture(scope="module")
def documents():
    return make_dirty(load_wikipedia(quiet=True), seed=1)


def test_the_dump_has_its_pages_in_two_languages():
    assert Counter(page.language for page in load_wikipedia(quiet=True)) == {"en": 106, "bg": 3}


def test_the_stand_in_is_read_by_the_same_code(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("LLMCOURSE_CACHE", str(tmp_path))
    monkeypatch.setattr(manifest, "from_package", lambda spec: None)
    pages = load_wikipedia(quiet=True)
    assert Counter(page.language for page in pages) == {"en": 60, "bg": 1}
    text = extract_text(sections(pages[0])[-1])
    assert quality_problems(text) == []
    assert language_of(text) == "en"
    assert bz2.decompress(stand_in_dump()["generated/bgwiki.xml.bz2"])[:2] == b"\xff\xfe"
    assert len(make_dirty(pages)) > 1000


@pytest.mark.parametrize(
    ("markup", "expected"),
    [
        ("'''Bold''' and ''slanted''", "Bold and slanted"),
        ("a [[target|word]] and [[another]]", "a word and another"),
        ("a{{cite|{{nested}}}} b", "a b"),
        ("a<ref name=x>one</ref> b<ref name=x/> c", "a b c"),
        ("a\n{| class=x\n|-\n| cell\n|}\nb", "a\n\nb"),
        ("a [[File:x.jpg|thumb|a [[linked]] caption]] b", "a b"),
        ("a\n[[Category:Things]]\n[[fr:Chose]]", "a"),
        ("a <!-- hidden --> b", "a b"),
        ("== Title ==\ntext", "Title\ntext"),
        ("", ""),
    ],
)
def test_text_out_of_markup(markup, expected):
    assert extract_text(markup) == expected


@pytest.mark.parametrize(
    "attributes", ["", " name=x", ' name="a/b"', " name='a/b' group=n", ' name="a>b"', " name=a/b"]
)
@pytest.mark.parametrize("tag", ["ref", "Ref", "REF"])
def test_what_lies_between_references_is_never_lost(tag, attributes):
    """WikiExtractor#24, #386: with the references written out or not, the rest is the same text."""
    long, short = f"<{tag}{attributes}>a [[b]] c</{tag} >", f"<{tag}{attributes} />"
    for first in (long, short, short.replace(" />", "/>"), "<!-- <ref> -->"):
        for second in (long, short, ""):
            assert (
                extract_text(f"One{first} important text{second} end.\n\nTwo.")
                == "One important text end.\n\nTwo."
            )


@pytest.mark.parametrize(
    ("markup", "expected"),
    [
        ('a<ref name="x>one</ref> "b" <ref>two</ref> c', 'a "b" c'),
        ("a<ref name=O'Brien>one</ref> b's c", "a b's c"),
        ("a <references /> b <ref>x</ref> c", "a b c"),
        ("a\n<references>\n<ref name=x>one</ref>\n</references>\nb<ref>y</ref> c", "a\n\nb c"),
        ("a <!-- <ref> --> b <ref>x</ref> c", "a b c"),
        ("one <ref>y</ref> two\n{| never closed", "one two\n{| never closed"),
        ("one <ref name=x>two [[a|three]] <!-- four", "one <ref name=x>two three <!-- four"),
    ],
)
def test_references_as_people_write_them(markup, expected):
    assert extract_text(markup) == expected


def test_lines_of_windows_are_lines():
    markup = "lead\n\n== One ==\na\n\n\n\nb\n{| class=x\n| cell\n|}\n== Two ==  \nc\n"
    for end in ("\r\n", "\r"):
        page = Page("t", "en", markup.replace("\n", end))
        assert sections(page) == sections(Page("t", "en", markup)) != [markup.strip()]
        assert extract_text(page.markup) == extract_text(markup)


@pytest.mark.parametrize(
    "unit", ["<ref name=", '<ref "', "<ref '\"", "<!--", "{|\n", "<references>", "<ref>", "<ref/>"]
)
def test_markup_without_its_end_is_looked_for_once(unit, monkeypatch):
    """Counted: the searches for an opening or an end, and the characters that lie before what they find."""
    passed = [0, 0]

    class Counting:
        def __init__(self, pattern, which):
            self.pattern, self.which = pattern, which

        def search(self, text, start):
            found = self.pattern.search(text, start)
            passed[self.which] += (found.end() if found else len(text)) - start
            return found

    compiled = web.re.compile
    for which, n in enumerate((1000, 2000)):
        monkeypatch.setattr(web.re, "compile", lambda *a, which=which: Counting(compiled(*a), which))
        for opening, end_of in ((web.REFERENCE, web._end_of_reference), (web.TABLE, lambda _: r"^\|\}")):
            web._without((unit * n)[:n], Counting(opening, which), end_of)
    assert passed[1] <= 2 * passed[0] + 100


def test_sections_lose_nothing():
    page = Page("t", "en", "lead\n\n== One ==\na = b\n=== Two ===\nc\n== Three ==\n")
    assert sections(page) == ["lead", "== One ==\na = b", "=== Two ===\nc", "== Three =="]


def test_planted_defects_are_counted_and_are_what_they_say(documents):
    kinds = Counter(document.kind for document in documents)
    assert {kind: kinds[kind] for kind in ("copy", "near copy", "spam", "garbage", "insult")} == {
        "copy": 360, "near copy": 360, "spam": 120, "garbage": 80, "insult": 100,
    }  # fmt: skip
    assert len({document.source for document in documents}) == 31
    for document in documents:
        assert all(value in document.text for _, value in document.pii)
        assert all(line in document.text for line in document.lines)
        assert (document.source >= 0) >= (document.kind in ("copy", "near copy"))
    shares = [bool(document.pii) for document in documents if document.kind == "page"]
    assert 0.07 < sum(shares) / len(shares) < 0.13


def test_copies_are_alike_and_near_copies_nearly(documents):
    def bare(document):
        for line in document.lines:
            document = Document(document.text.replace(line, ""), document.kind, source=document.source)
        return " ".join(document.text.split())

    for source in range(5):
        group = [document for document in documents if document.source == source]
        exact = {bare(document) for document in group if document.kind == "copy"}
        assert len(exact) == 1
        near = [
            jaccard(shingles(exact.copy().pop()), shingles(bare(d))) for d in group if d.kind == "near copy"
        ]
        assert len(near) == 12
        assert all(0.3 < similarity < 1 for similarity in near)


def test_the_same_seed_gives_the_same_documents_and_another_others(documents):
    pages = load_wikipedia(quiet=True)
    assert make_dirty(pages, seed=1) == documents
    assert make_dirty(pages, seed=2) != documents


def test_the_same_documents_in_another_process():
    program = (
        "from llmcourse.data.sources.web import load_wikipedia; from llmcourse.data.cleaning.planted_defects import make_dirty\n"
        "import hashlib; print(hashlib.sha256(repr(make_dirty(load_wikipedia(True)[:40])).encode()).hexdigest())"
    )
    seen = {subprocess.check_output([sys.executable, "-c", program]) for _ in range(2)}
    assert len(seen) == 1


def test_the_share_of_edited_words():
    import random

    text = " ".join(f"word{chr(97 + i % 26)}" for i in range(5000)).replace("word", "w")
    changed = sum(
        a != b for a, b in zip(text.split(), edited(text, 0.2, random.Random(0)).split(), strict=True)
    )
    assert 0.16 < changed / 5000 < 0.21


def test_words_with_marks_are_edited_too():
    import random

    text = "दिन और रात किताब पानी हवा " * 50
    assert edited(text, 0.5, random.Random(0)).split() != text.split()


def test_nothing_to_copy_is_refused():
    with pytest.raises(ValueError, match="no section has 1,500 characters"):
        make_dirty([Page("a", "en", "short")])


def test_planted_personal_data_is_found(documents):
    planted = {(place, *item) for place, document in enumerate(documents) for item in document.pii}
    found = {
        (place, span.kind, document.text[span.start : span.end])
        for place, document in enumerate(documents)
        if document.pii
        for span in find_pii(document.text)
    }
    assert len(planted & found) / len(planted) > 0.95


@pytest.mark.parametrize(
    "unit", ["<a ", "<div a=b ", "<div a='", "<b <i>x</i> ", "\n{|", "\n{| ''x", "{{a ", "[[a "]
)
def test_what_has_no_end_stays_as_text_and_no_parser_looks_for_its_end(unit, monkeypatch):
    """mwparserfromhell looks for the end of each tag and table anew: four times as long for twice the length."""
    parse, given = mwparserfromhell.parse, []
    monkeypatch.setattr(mwparserfromhell, "parse", lambda markup: given.append(markup) or parse(markup))
    text = extract_text("before " + unit * 50 + "after")
    assert not re.search(r"<[^<>]*(<|$)|\n\{\||\{\{|\[\[", given[0])
    assert re.sub(r"\W", "", text) == re.sub(r"\W", "", re.sub("</?i>", "", f"before{unit * 50}after"))


# ---- a reader's own files -------------------------------------------------------------------


def test_paragraphs_and_json_lines_are_read_one_by_one(tmp_path):
    plain, lines = tmp_path / "a.txt", tmp_path / "b.jsonl"
    plain.write_bytes("\ufeffone\r\nline\r\n\r\n\r\n二\n".encode())
    lines.write_text('{"text": "a", "n": 1}\n{"text": "b"}\n', encoding="utf-8")
    assert list(read_documents(plain)) == ["one\nline", "二"]
    assert list(read_documents(lines)) == ["a", "b"]
    assert list(read_documents(str(lines))) == ["a", "b"]
    plain.write_bytes(b"one\rline\r\rtwo\r")
    assert list(read_documents(plain)) == ["one\nline", "two"]


def test_blank_lines_other_ends_and_marks_of_the_order_change_nothing(tmp_path):
    """wbolster/jsonlines#18, microsoft/graphrag#2424: blank lines anywhere; two files joined, each with a BOM."""
    row = b'{"text": "a\\u2028b"}'
    for name in ("a.jsonl", "a.JSONL", "a.ndjson"):
        for joint in (b"\n", b"\r", b"\r\n", b"\n\n", b"\n \t\r\n\n", b"\n\xef\xbb\xbf"):
            for start, end in ((b"", b""), (b"\n", b"\n\n"), (b"\xef\xbb\xbf", b"\r\n\r\n")):
                (tmp_path / name).write_bytes(start + row + joint + row + end)
                assert list(read_documents(tmp_path / name)) == ["a\u2028b"] * 2


def test_half_of_a_pair_is_the_replacement_character_and_a_pair_is_one(tmp_path):
    """As tiktoken since 0.3.3 (openai/tiktoken#82): every document that is read can be encoded."""
    path = tmp_path / "a.jsonl"
    for text in ("half \ud83d", "\udc4d half", "\udc4d\ud83d", "\ud83d\udc4d pair", "plain"):
        path.write_text(json.dumps({"text": text}) + "\n", encoding="utf-8")
        (found,) = read_documents(path)
        assert found == text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        assert found.encode("utf-8").decode("utf-8") == found
        assert ("\ufffd" in found) == ("half" in text or text[0] == "\udc4d")


def test_a_file_larger_than_the_memory_it_may_use_is_streamed(tmp_path):
    import tracemalloc

    path = tmp_path / "large.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for _ in range(300):
            file.write(json.dumps({"text": "x" * 100_000}) + "\n")
    tracemalloc.start()
    assert sum(len(text) for text in read_documents(path)) == 30_000_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000 < path.stat().st_size / 10


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "is empty: it must hold at least one document"),
        ("a.txt", "好\n".encode("gb18030"), r"line 1: byte 0xba is not UTF-8.*iconv"),
        ("a.txt", b"fine\n\xff\n", "line 2: byte 0xff is not UTF-8"),
        ("a.txt", "one\n\ntwo".encode("utf-16-le"), "line 1 holds the byte 0, as UTF-16 does"),
        ("a.jsonl", b'{"text": "a"}\n{"te', "line 2: expected JSON with the field 'text', found '{\"te'"),
        ("a.jsonl", b'{"body": "a"}\n', "line 1: expected JSON with the field 'text'"),
        ("a.jsonl", b"[1]\n", "line 1: expected JSON with the field 'text'"),
        ("a.jsonl", b'"text"\n', "line 1: expected JSON with the field 'text'"),
        (
            "a.jsonl",
            b'{"text": "a"}\n\n{"text": null}\n',
            "line 3: the field 'text' is null: it must be a text",
        ),
        ("a.jsonl", b'{"text": 1.5}\n', "line 1: the field 'text' is 1.5"),
        ("a.jsonl", b'{"text": ["a"]}\n', "line 1: the field 'text' is .*Leave the line out"),
        ("a.jsonl", b'{"text": {"a": true}}\n', "line 1: the field 'text' is"),
        ("a.jsonl", b"[" * 100_000, "line 1: expected JSON"),
        ("a.jsonl", b'{"text": "a", "n": ' + b"9" * 5000 + b"}", "line 1: expected JSON"),
        ("a.jsonl", b"\n \r\n", "is empty: it must hold at least one document"),
        ("a.txt", b"\xef\xbb\xbf\n\n", "is empty: it must hold at least one document"),
    ],
)
def test_bad_files_are_refused_with_line_and_remedy(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        list(read_documents(tmp_path / name))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*nowhere\.txt"):
        list(read_documents(Path(tmp_path) / "nowhere.txt"))


def test_bytes_that_fit_no_encoding_are_named():
    assert decode_utf("\ufeffа".encode()) == "а"
    with pytest.raises(ValueError, match="byte 3 of the text is 0xff, which is not UTF-8"):
        decode_utf(b"abc\xff")
