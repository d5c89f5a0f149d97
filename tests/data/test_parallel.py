"""Pairs and placeholders: round trips, and a split that keeps near copies together."""

import itertools

import pytest

from llmcourse.data.cleaning.dedup import jaccard, shingles
from llmcourse.data.parallel import Pair, bare, split_pairs
from llmcourse.data.placeholders import mask, unmask

WORDS = "open close delete create server volume image network file folder type name group user key"
WORDS = WORDS.split(" ")


def corpus():
    texts = [" ".join(words) for words in itertools.permutations(WORDS, 2)]
    texts += [f"{a} the {b} of {{name}} with <b>{c}</b>" for a, b, c in itertools.permutations(WORDS[:9], 3)]
    return [Pair(text, text.upper(), language, "one") for text in texts for language in ("fr", "zh")]


@pytest.mark.parametrize(
    "text",
    [
        "Delete %(n)d of %(n)d files in %s?",
        "{0}, {name!r}, {{ page.title }}, {$ row.id $}",
        '<a href="%(url)s">link</a>&nbsp;<br/> %1$s %2 100%%',
        "see https://example.org/a_b(c).",
        "50% of it, a < b > c, x & y",
        "",
    ],
)
def test_masking_comes_back(text):
    masked, known = mask(text)
    assert unmask(masked, known) == text
    assert len(set(known)) == len(known)


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("Delete %(n)d of %s", ["%(n)d", "%s"]),
        ("100% sure", []),
        ("50%% off {x}", ["%%", "{x}"]),
        ("a <b>c</b> d", ["<b>", "</b>"]),
        ("%1 of %2", ["%1", "%2"]),
        ("x < 3 & y > 2", []),
    ],
)
def test_what_is_a_placeholder(text, known):
    assert mask(text)[1] == known


def test_a_translation_uses_the_signs_of_its_source():
    known = mask("{a} before {b}")[1]
    assert mask("{b} après {a}", known)[0] == "\ue001 après \ue000"
    assert mask("{c}", known)[1] == ["{a}", "{b}", "{c}"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("an icon \ue001", r"U\+E001 of Unicode's private area"),
        ("{a}" + "".join(f"{{{i}}}" for i in range(12)), "13 different"),
    ],
)
def test_what_cannot_be_masked_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        mask(text)


def test_no_near_copy_stands_on_another_side():
    parts = split_pairs(corpus(), validation=0.2, test=0.2)
    sources = {name: {pair.source for pair in part} for name, part in parts.items()}
    sets = {text: frozenset(shingles(bare(text), 1)) for part in sources.values() for text in part}
    for a, b in itertools.combinations(("train", "validation", "test"), 2):
        near = [(x, y) for x in sources[a] for y in sources[b] if jaccard(sets[x], sets[y]) >= 0.7]
        assert not near


def test_both_translations_of_a_text_stand_together_and_nothing_is_lost():
    pairs = corpus()
    parts = split_pairs(pairs, validation=0.2, test=0.2)
    assert sum(map(len, parts.values())) == len(pairs)
    for part in parts.values():
        assert {p.source for p in part if p.language == "fr"} == {
            p.source for p in part if p.language == "zh"
        }
    turned = split_pairs(pairs[::-1], validation=0.2, test=0.2)
    assert {name: set(part) for name, part in parts.items()} == {n: set(p) for n, p in turned.items()}


def test_a_held_out_program_stands_apart_without_what_others_say_too():
    new = [Pair("sign in with your key please", "a", "fr", "other"), Pair("close delete", "b", "fr", "other")]
    parts = split_pairs(corpus() + new, held_out="other")
    assert [pair.source for pair in parts["other"]] == ["sign in with your key please"]


@pytest.mark.parametrize("shares", [(0, 0.1), (0.5, 0.5), (-1, 0.1)])
def test_impossible_shares_are_refused(shares):
    with pytest.raises(ValueError, match="must be positive"):
        split_pairs(corpus(), *shares)


def test_too_few_pairs_are_refused():
    with pytest.raises(ValueError, match="too few to split"):
        split_pairs([], 0.1, 0.1)
