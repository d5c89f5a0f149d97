"""A small text of characters: one character is one token, as in nanoGPT's first recipe."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from llmcourse.data.sources.plays import load_plays

TINY_LENGTH = 1_115_394  # characters of Karpathy's tiny Shakespeare, so that recipes compare


@dataclass(frozen=True)
class Characters:
    """Three rows of token ids, and the alphabet that spells them: id i is `alphabet[i]`.

    `train` and `validation` are the first 90 % and the last 10 % of one text; `tuning` is other
    text, for choosing hyper-parameters, so that `validation` is looked at once, at the end.
    """

    alphabet: str
    train: Tensor
    validation: Tensor
    tuning: Tensor

    @property
    def vocab_size(self) -> int:
        """The number of different characters."""
        return len(self.alphabet)

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`. Raises ValueError for a character outside the alphabet."""
        ids = {character: i for i, character in enumerate(self.alphabet)}
        unknown = sorted(set(text) - set(ids))
        if unknown:
            raise ValueError(f"{unknown} are not in the alphabet of {len(ids)} characters: remove them")
        return [ids[character] for character in text]

    def decode(self, token_ids: Iterable[int]) -> str:
        """Return the text of `token_ids`."""
        return "".join(self.alphabet[int(i)] for i in token_ids)


def split_characters(text: str, length: int = TINY_LENGTH) -> Characters:
    """Return `text[:length]` split 90/10 in its order, and up to length/10 of what follows for tuning.

    A text that is no longer than `length` is cut shorter, so that a tuning part is left.

    >>> parts = split_characters("abcabcabcabc", length=10)
    >>> len(parts.train), len(parts.validation), len(parts.tuning), parts.decode(parts.tuning)
    (9, 1, 1, 'b')
    """
    if len(text) < 12:
        raise ValueError(f"a text of {len(text)} characters cannot be split in three: give at least 12")
    length = min(length, len(text) * 10 // 11)
    text = text[: length + length // 10]
    alphabet = "".join(sorted(set(text)))
    ids = {character: i for i, character in enumerate(alphabet)}
    row = torch.tensor([ids[character] for character in text])
    cut = length * 9 // 10
    return Characters(alphabet, row[:cut], row[cut:length], row[length:])


def load_characters(length: int | None = TINY_LENGTH, quiet: bool = False) -> Characters:
    """Return the plays, in the order of their titles, cut to `length` characters and split.

    `length=None` takes all 38 plays: 10/11 of them as the text, the last 1/11 for tuning.
    """
    text = "".join(play.text for play in load_plays(quiet))
    return split_characters(text, len(text) if length is None else length)
