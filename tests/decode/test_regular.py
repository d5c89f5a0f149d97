"""The automaton of an expression accepts what Python's `re` does."""

import contextlib
import itertools
import random
import re

import numpy as np
import pytest
from random_languages import CHARACTERS, random_pattern, sample, spoiled

from llmcourse.decode import automaton, syntax
from llmcourse.decode.automaton import STUCK
from llmcourse.decode.regular import SUPPORTED, compile_regular, parse


def same_language(a, b) -> bool:
    a, b = a.minimal(), b.minimal()
    return np.array_equal(a.table, b.table) and np.array_equal(a.accepting, b.accepting)


@pytest.mark.parametrize("block", range(10))
def test_random_expressions_accept_what_re_accepts(block):
    for seed in range(30 * block, 30 * block + 30):
        rng = random.Random(seed)
        pattern = random_pattern(rng)
        oracle, own = re.compile(pattern, re.ASCII), compile_regular(pattern)
        inside = [sample(own, rng).decode() for _ in range(5)]
        others = ["".join(rng.choices(CHARACTERS, k=rng.randint(0, 4))) for _ in range(10)]
        for text in [*inside, *(spoiled(text, rng) for text in inside for _ in range(3)), *others]:
            assert own.accepts(text) == bool(oracle.fullmatch(text)), (seed, pattern, text)
        assert all(map(own.accepts, inside))
        assert same_language(own, own.minimal()), pattern


def test_small_expressions_accept_all_and_only_what_re_accepts():
    """Every pair of small parts, put together in several ways, on all texts of up to five letters."""
    parts = [
        "a",
        "b*",
        "a*",
        "(a?)",
        "(ab)*",
        "(a|b)*",
        "(a|)",
        "a{2}",
        "(a*b*)",
        "(a{0,2})*",
        "(b|a*)",
        "b+",
    ]
    texts = ["".join(letters) for n in range(6) for letters in itertools.product("ab", repeat=n)]
    for x, y in itertools.product(parts, repeat=2):
        for pattern in (
            f"{x}{y}",
            f"{x}|{y}",
            f"({x}{y})*",
            f"({x}|{y})+b",
            f"(?:{x}{y}){{0,2}}",
            f"a(?:{x})?{y}",
        ):
            oracle, own = re.compile(pattern), compile_regular(pattern)
            assert [t for t in texts if own.accepts(t)] == [t for t in texts if oracle.fullmatch(t)], pattern


@pytest.mark.parametrize(
    "pattern", [".", r"\D", r"\S", r"\W", "[^é-😀]", "[\x7f-\u0801]", "[\ud7ff-\ue000]", "[^a]"]
)
def test_every_character_is_its_bytes_and_no_other_bytes_are_one(pattern):
    oracle, own = re.compile(pattern, re.ASCII), compile_regular(pattern)
    points = [
        *range(0x900),
        *range(0x2000, 0x2030),
        *range(0xD000, 0xE100),
        0xFFFF,
        0x10000,
        0x1F600,
        0x10FFFF,
    ]
    for character in map(chr, points):
        whole = not "\ud800" <= character <= "\udfff"
        assert own.accepts(character) == (whole and bool(oracle.fullmatch(character)))
    for size in (1, 2):  # all bytes, all pairs of bytes
        for first in range(256):
            states = own.table[own.walk(0, bytes([first]))] if size == 2 else [own.walk(0, bytes([first]))]
            for last, state in enumerate(states):
                data = bytes([first, last][:size]) if size == 2 else bytes([first])
                try:
                    expected = bool(oracle.fullmatch(data.decode()))
                except UnicodeDecodeError:
                    expected = False
                assert (state != STUCK and bool(own.accepting[state])) == expected, data


def test_utf8_ranges_hold_each_character_once():
    rng = random.Random(0)
    borders = [0, 0x7F, 0x80, 0x7FF, 0x800, 0xD7FF, 0xE000, 0xFFFF, 0x10000, 0x10FFFF]
    for _ in range(400):
        low, high = sorted(
            rng.choice(borders) if rng.random() < 0.5 else rng.randrange(0x110000) for _ in "ab"
        )
        found = list(syntax.utf8_ranges(low, high))
        size = sum(int(np.prod([b - a + 1 for a, b in ranges])) for ranges in found)
        halves = max(0, min(high, 0xDFFF) - max(low, 0xD800) + 1)
        assert size == high - low + 1 - halves
        for ranges in found:
            for data in (bytes(a for a, _ in ranges), bytes(b for _, b in ranges)):
                assert low <= ord(data.decode()) <= high


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("(a|b)*", "(a*b*)*"),
        ("(ab)*a", "a(ba)*"),
        ("a{2,4}", "aa|aaa|aaaa"),
        ("(a*|b)", "b|a*"),
        ("((a*)*|b)*", "(a|b)*"),
        ("(a?){3}b", "a{0,3}b"),
        ("^a|b$", "a|b"),
        (r"[^\s\S]|a", "a"),
        (".|\n", r"[\s\S]"),
    ],
)
def test_equal_languages_have_one_minimal_automaton(left, right):
    assert same_language(compile_regular(left), compile_regular(right))
    assert not same_language(compile_regular(left), compile_regular(right + "c"))


def test_intersection_accepts_what_both_accept():
    rng = random.Random(1)
    for _ in range(60):
        a, b = random_pattern(rng, 2), random_pattern(rng, 2)
        left, right = compile_regular(a), compile_regular(b)
        both = None
        with contextlib.suppress(ValueError):  # nothing fits both
            both = left & right
        for text in [sample(x, rng) for x in (left, right) for _ in range(10)]:
            assert (both is not None and both.accepts(text)) == (left.accepts(text) and right.accepts(text))


def test_from_every_state_a_text_can_be_completed():
    """One byte after another, whatever is chosen: no way leads to where there is none."""
    for seed in range(60):
        own = compile_regular(random_pattern(random.Random(seed)))
        ends = own.accepting.copy()
        for _ in range(len(own)):
            ends |= np.append(ends, False)[own.table[:-1]].any(axis=1)
        assert ends.all()
        assert (own.table[-1] == STUCK).all()


@pytest.mark.parametrize(
    ("pattern", "place", "word"),
    [
        ("a(?=b)", 1, "lookaround"), ("(?P<n>a)", 0, "named groups"), ("(?i)a", 0, "flags"), (r"(a)\1", 3, "backreference"),
        ("a*?", 2, "lazy"), ("a++", 2, "quantifier of a quantifier"), ("a{2}{3}", 4, "quantifier of a quantifier"),
        (r"a\b", 1, r"escape \\b"), (r"\p{L}", 0, r"escape \\p"), ("(a", 0, "never closed"), ("[a", 0, "never closed"),
        ("a)", 1, "closes nothing"), ("*a", 0, "nothing before"), ("a|+", 2, "nothing before"), ("a{", 1, "begins a count"),
        ("a{,3}", 1, "begins a count"), ("a{3,2}", 1, "exclude"), ("a{1,100000}", 1, "at most 10,000"), ("[]", 0, "empty class"),
        ("[z-a]", 1, "later one"), (r"[\w-z]", 1, "later one"), ("a^b", 1, "anchor"), ("(a$)", 2, "anchor"), ("a$b", 1, "anchor"),
        ("(" * 60 + ")" * 60, 50, "50 deep"), ("a\\", 1, "escape"), (r"\x4", 0, "hexadecimal"), (r"\ud800", 0, "surrogate"),
        ("\ud800", 0, "surrogate"), ("{2}", 0, "nothing before"),
    ],
)  # fmt: skip
def test_what_is_not_read_is_named_with_its_place(pattern, place, word):
    with pytest.raises(ValueError, match=rf"at character {place}: .*{word}") as error:
        parse(pattern)
    assert SUPPORTED in str(error.value)


@pytest.mark.parametrize(
    "pattern", ["(a{1000}){1000}", "(){10000}" * 30, "((){10000}){10000}", "(a|b)*a(a|b){30}"]
)
def test_what_grows_too_large_is_refused(pattern, monkeypatch):
    monkeypatch.setattr(automaton.explore, "__defaults__", (500,))
    monkeypatch.setattr(syntax, "MAX_STATES", 5000)
    with pytest.raises(ValueError, match=r"make (the )?counts .*smaller"):
        compile_regular(pattern)


def test_what_no_text_fits_is_refused():
    with pytest.raises(ValueError, match="no text at all"):
        compile_regular(r"a[^\s\S]")
    with pytest.raises(ValueError, match="give a text"):
        parse(b"a")


def test_as_a_search_the_text_may_go_on_and_lines_are_those_of_javascript():
    found = syntax.compile_tree(parse(r"^a|b$", search=True, ecma=True))
    for text in ("a", "ac", "cb", "b", "c", "ca", "bc", "a\nc"):
        assert found.accepts(text) == bool(re.search("^a|b$", text))
    assert not syntax.compile_tree(parse(".", ecma=True)).accepts("\u2028")
    assert syntax.compile_tree(parse(r"\s", ecma=True)).accepts("\ufeff")
