"""From a text to what a translator reads, and from what it writes back to a text.

Placeholders are single tokens; a word that begins with a capital for its place alone is read in small
letters; and the first word of a translation begins as that of its source does.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

from llmcourse.data.placeholders import FIRST, MOST, mask, unmask
from llmcourse.tokenizer import BPETokenizer

PAD, START, END = "<|pad|>", "<|start|>", "<|end|>"
SIGNS = [chr(FIRST + i) for i in range(MOST)]


class Prepared(NamedTuple):
    """A source as ids, and what is needed to write its translation: placeholders, and a capital."""

    ids: list[int]
    known: list[str]
    capital: bool


def language_token(language: str) -> str:
    """Return the token that asks for a language: it stands before the source.

    Source: Johnson et al. 2017, arXiv:1611.04558, sec. 3.
    """
    return f"<|{language}|>"


def train_tokenizer(texts: Iterable[str], vocab_size: int, languages: Iterable[str]) -> BPETokenizer:
    """Return a byte-level BPE of masked texts of all languages, with the tokens that a translator needs."""
    special = [PAD, START, END, *map(language_token, languages), *SIGNS]
    cut = re.compile("[\ue000-\uf8ff]")
    return BPETokenizer.train((cut.sub(" ", f" {text}") for text in texts), vocab_size, special)


def languages_of(tokenizer: BPETokenizer) -> list[str]:
    """Return the languages that a tokenizer has a token for."""
    names = [name[2:-2] for name in tokenizer.special_tokens if name.startswith("<|")]
    return [name for name in names if language_token(name) not in (PAD, START, END)]


def small(text: str) -> str:
    """Return a text with words like Open in small letters, and OK, JupyterLab and iPad as they are.

    >>> small("Open the JupyterLab URL in Chrome")
    'open the JupyterLab URL in chrome'
    """
    return re.sub(r"\b[A-Z][a-z]*\b", lambda match: match.group().lower(), text)


def encode_masked(tokenizer: BPETokenizer, text: str) -> list[int]:
    """Return the ids of a masked text, each sign as its token.

    A name such as "<|zh|>" that somebody typed is read as plain characters.
    """
    pieces, ids = re.split("([\ue000-\uf8ff])", f" {text}"), []
    for piece in pieces:
        ids += [tokenizer.special_tokens[piece]] if piece in SIGNS else tokenizer.encode(piece)
    return ids


def prepare(tokenizer: BPETokenizer, text: str, language: str) -> Prepared:
    """Return what the translator reads of a text, and what becomes of its answer.

    Raises ValueError for a language without a token, for an empty text, and as `mask` does.
    """
    token = language_token(language)
    if token not in tokenizer.special_tokens:
        raise ValueError(
            f"language={language!r} is not one that this model learnt: choose one of {languages_of(tokenizer)}"
        )
    text = " ".join(text.split())
    if not text:
        raise ValueError("the text is empty: give at least one word to translate")
    masked, known = mask(text)
    ids = encode_masked(tokenizer, small(masked))
    first = re.search(r"\w", masked)
    return Prepared([tokenizer.special_tokens[token], *ids], known, bool(first and first.group().isupper()))


def target_text(target: str, known: list[str]) -> str:
    """Return a masked translation, its first letter small where the second is: as `finish` wants it."""
    masked = mask(" ".join(target.split()), known)[0]
    return re.sub(
        r"\w\w?", lambda m: m.group() if m.group().isupper() else m.group().lower(), masked, count=1
    )


def finish(tokenizer: BPETokenizer, ids: list[int], prepared: Prepared) -> str:
    """Return the text of what the translator wrote, up to its end."""
    end = tokenizer.special_tokens[END]
    ids = ids[: ids.index(end)] if end in ids else ids
    text = tokenizer.decode(i for i in ids if i != tokenizer.special_tokens[PAD]).strip()
    if prepared.capital:
        text = re.sub(r"\w", lambda match: match.group().upper(), text, count=1)
    return unmask(text, prepared.known)


def encode_target(tokenizer: BPETokenizer, target: str, known: list[str]) -> list[int]:
    """Return the ids of a translation; `known` are the placeholders of its source."""
    return encode_masked(tokenizer, target_text(target, known))


def encode_pair(tokenizer: BPETokenizer, pair) -> tuple[list[int], list[int]]:
    """Return (source ids, target ids) of a `Pair`, to learn from."""
    source = prepare(tokenizer, pair.source, pair.language)
    return source.ids, encode_target(tokenizer, pair.target, source.known)


def texts_of(pairs) -> list[str]:
    """Return both sides of pairs as a tokenizer learns from them."""
    texts = []
    for pair in pairs:
        masked, known = mask(pair.source)
        texts += [small(masked), target_text(pair.target, known)]
    return texts
