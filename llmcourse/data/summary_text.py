"""From a definition in code to what a summarizer reads, and from what it writes back to a sentence.

It reads the words of the name, those of the parameters, then the text; all words that begin with a capital
for their place alone are read in small letters.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Protocol

from llmcourse.data.translation_text import END, PAD, START, small
from llmcourse.tokenizer import BPETokenizer

ENDING = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]?[A-Z0-9])")
ABBREVIATION = re.compile(r"\b(?:e\.g|i\.e|cf|vs|etc|al|Fig|Eq|Sec|Dr|St|approx|resp|w\.r\.t)\.$")


class Definition(Protocol):
    """What is summarized: `data.sources.docstrings.Docstring`, or anything with these parts."""

    name: str
    parameters: Sequence[str]
    source: str


def sentences(text: str) -> list[str]:
    """Return the sentences of a text, white space evened; "e.g." and its like end none.

    >>> sentences("It reads a file, e.g. This. Then  it stops.")
    ['It reads a file, e.g. This.', 'Then it stops.']
    """
    found: list[str] = []
    for piece in ENDING.split(" ".join(text.split())):
        if found and ABBREVIATION.search(found[-1]):
            found[-1] += " " + piece
        elif piece:
            found.append(piece)
    return found


def name_words(name: str) -> str:
    """Return the words of a name in code, in small letters: what it says without any text.

    >>> name_words("HTTPServer.getDefault_port2")
    'http server get default port 2'
    """
    return " ".join(re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)).lower()


def source_text(definition: Definition) -> str:
    """Return what the summarizer reads: words of the name (parameters): text.

    >>> from llmcourse.data.sources.docstrings import Docstring
    >>> source_text(Docstring("Chart.drawLine", ("line_width",), "The line is Thin.", ""))
    'chart draw line (line width): the line is thin.'

    Raises ValueError where neither a name nor a text has a word.
    """
    name, parameters = name_words(definition.name), ", ".join(map(name_words, definition.parameters))
    text = small(" ".join(definition.source.split()))
    if not (name or text):
        raise ValueError(
            f"name={definition.name!r} with an empty text: give a name, or at least a word of text"
        )
    return f"{name} ({parameters}): {text}".strip()


def target_text(target: str) -> str:
    """Return a first sentence as it is learnt: one line, small letters, without its full stop.

    >>> target_text("Draw the Chart.")
    'draw the chart'
    """
    return small(" ".join(target.split())).rstrip(". ")


def finish(tokenizer: BPETokenizer, ids: Sequence[int]) -> str:
    """Return the sentence that ids spell up to the end token, with a capital and a full stop."""
    ids = list(ids)
    end = tokenizer.special_tokens[END]
    ids = ids[: ids.index(end)] if end in ids else ids
    text = tokenizer.decode(i for i in ids if i != tokenizer.special_tokens[PAD]).strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) or not text else ".")


def train_tokenizer(definitions: Iterable, vocab_size: int) -> BPETokenizer:
    """Return a byte-level BPE of what is read and written, with a pad, a start and an end token."""
    texts = (f" {text}" for d in definitions for text in (source_text(d), target_text(d.target)))
    return BPETokenizer.train(texts, vocab_size, [PAD, START, END])


def encode_pair(tokenizer: BPETokenizer, definition, most: int) -> tuple[list[int], list[int]]:
    """Return (source ids, target ids) to learn from; of a source, the first `most` ids."""
    source = tokenizer.encode(" " + source_text(definition))[:most]
    return source, tokenizer.encode(" " + target_text(definition.target))
