"""Patterns made by rules: what is written for tokenizers cuts as Python's `regex` cuts here, or is refused."""

import random
import warnings

import pytest
import regex
from tokenizers import pre_tokenizers

from llmcourse.formats.onigmo import compile_for_tokenizers, is_portable, to_onigmo
from llmcourse.words import cut

ATOMS = [
    *([r"\p{L}", r"\p{N}", r"\P{L}", r"\p{^L}", r"\p{Lu}", r"\p{Han}", r"\s", r"\S", r"\w", r"\W", r"\d", r"\D", r"\n", r"\r", r"\t", r"\.", r"\-", r"\x41", r"\u0062", r"\A", r"\Z", r"^", r"$"]),
    *([r"[a-c]", r"[^a-c]", r"[\w-]", r"[^\W_]", r"[a\]]", r"[[a]", r"[a&&b]", r"[^\S\r\n]", r"[\w-.]", r"[.-\w]", r"[\s-.]", r"[!-\p{L}]", r"[+--]", r"[a||b]"]),
    *(["a", "b", "1", "'", ".", "中", "[一-龥]", "[-a]", "[a-]", "#", "~", "&", "-", "]", "}", "{", "[^]]", "[]a]", "[a^]"]),
    " ",
]  # fmt: skip
QUANTIFIERS = ["", "", "", "", "+", "*", "?", "++", "*+", "?+", "+?", "{2}", "{1,3}", "{1,}", "{,2}"]
QUANTIFIERS += ["{2}+", "{1,3}+", "{2}?", "{1,3}?"]
GROUPS = ["(?:", "(", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:"]
TEXTS = [
    "it's a b  1 12 1234 ab\n\nAbBa\r\n c² ½ aa\u200dbb &[a]^$ -+.-~~||{x} 中文 \n",
    "\n",
    "aaaa bbbb\n",
    " \t\x1b A~b]}# _x_ \n\n",
    "1²a b&b[\\]",
]


def make(rng: random.Random, depth: int = 0) -> str:
    branches = []
    for _ in range(rng.randint(1, 3)):
        parts = []
        for _ in range(rng.randint(1, 3)):
            nested = depth < 1 and rng.random() < 0.25
            atom = rng.choice(GROUPS) + make(rng, depth + 1) + ")" if nested else rng.choice(ATOMS)
            parts.append(atom + rng.choice(QUANTIFIERS))
        branches.append("".join(parts))
    return "|".join(branches)


def test_patterns_made_by_rules_cut_alike_or_are_refused():
    rng, alike, refused = random.Random(0), 0, 0
    warnings.simplefilter("ignore", FutureWarning)
    while alike < 600:
        pattern = make(rng)
        try:
            here = regex.compile(pattern)
        except regex.error:
            continue
        try:
            there = pre_tokenizers.Split(compile_for_tokenizers(pattern), "isolated")
        except ValueError:
            refused += 1
            continue
        for text in TEXTS:
            assert cut(here, text) == [piece for piece, _ in there.pre_tokenize_str(text)], pattern
        alike += 1
    assert refused < 4 * alike


@pytest.mark.parametrize(
    "pattern", ["a*", "^|a", "(?=a)b?|c", r"(?i:\p{Lu})", r"\bx", "(?<=a+)b", "(?i:ß)", "a|b)"]
)
def test_what_the_engines_read_differently_is_refused(pattern):
    with pytest.raises(ValueError, match="pattern"):
        to_onigmo(pattern)
    assert not is_portable(pattern)


def test_what_tokenizers_cannot_read_is_a_sentence():
    with pytest.raises(ValueError, match=r"tokenizers cannot read the pattern '\\\\A\+a'"):
        compile_for_tokenizers(r"\A+a")
