"""Chapter 3e's exam of four lines, and the passages of a play that leak into a training text."""

import random
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from llmcourse.ngrams import NGramModel


def next_line_items(text: str, n: int, rng: random.Random) -> Iterator[tuple[str, list[str], int]]:
    """Yield n items (passage, four lines, which of them comes next), drawn from one play.

    A passage is 250 characters long; lines have 5 to 12 words, and the three wrong ones stand elsewhere
    in the same play. Raises ValueError where the play has fewer such lines.
    """
    ends = [i for i, character in enumerate(text) if character == "\n"]
    lines = [(start + 1, text[start + 1 : end + 1]) for start, end in pairwise(ends)]
    lines = [(at, line) for at, line in lines if 5 <= len(line.split()) <= 12 and "[" not in line]
    for at, line in rng.sample([pair for pair in lines if pair[0] > 400], n):
        four = [line, *rng.sample(sorted({other for _, other in lines} - {line}), 3)]
        rng.shuffle(four)
        yield text[at - 250 : at], four, four.index(line)


def ngram_choice(model: NGramModel, contexts: Sequence, options: Sequence) -> Tensor:
    """Return (N, K): the log-likelihood of each option after its context, in nats, under an n-gram model."""
    rows = [
        [model.log_probabilities([*context, *option])[len(context) :].sum() for option in row]
        for context, row in zip(contexts, options, strict=True)
    ]
    return torch.tensor(rows)


def shared_words(option: str, passage: str) -> float:
    """Return the share of the different words of `option` that stand in `passage`.

    >>> shared_words("To be, or to see?", "That is to be")
    0.5
    """
    words, there = (set(re.findall(r"\w+", text.lower())) for text in (option, passage))
    return len(words & there) / max(1, len(words))


def passages(texts: Sequence[str], n_words: int) -> list[str]:
    """Return pieces of `n_words` words each, which do not overlap, of all texts in their order.

    >>> passages(["a b c d e"], 2)
    ['a b', 'c d']
    """
    rows = [text.split(" ") for text in texts]
    return [" ".join(row[i : i + n_words]) for row in rows for i in range(0, len(row) - n_words, n_words)]


def reworded(text: str, share: float, source: str, rng: random.Random) -> str:
    """Return `text` with about `share` of its words replaced by random words of `source`.

    >>> reworded("to be or not", 0.0, "a b c", random.Random(0))
    'to be or not'
    """
    others = sorted(set(re.findall(r"\w+", source.lower())))

    def word(found: re.Match) -> str:
        return rng.choice(others) if rng.random() < share else found[0]

    return re.sub(r"\w+", word, text)
