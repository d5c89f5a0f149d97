r"""What a probe may ask of a token, told by rules from the text: how far it is into its line, whether in a stage direction.

`pieces` are the texts of the tokens, in order; a label speaks of the text up to the end of its token.
Little of it can be seen in the piece alone.

Dimensions: N tokens.
"""

from collections.abc import Sequence

import numpy as np


def _last_before(pieces: Sequence[str], mark: str) -> np.ndarray:
    """Return (N,): where in the text `mark` last ended by the end of each piece, -1 where it has not."""
    text, ends = "".join(pieces), np.cumsum([len(piece) for piece in pieces])
    places = [-1]
    while (found := text.find(mark, places[-1] + 1 if len(places) > 1 else 0)) >= 0:
        places.append(found)
    marks = np.array(places)
    marks[1:] += len(mark) - 1
    return marks[np.searchsorted(marks, ends) - 1]


def inside(pieces: Sequence[str], opening: str = "[", closing: str = "]") -> np.ndarray:
    """Return (N,) booleans: True where a bracket has been opened and not closed again.

    >>> inside(["Enter", " [", "He", " reads", "].", " What"]).astype(int).tolist()
    [0, 1, 1, 1, 0, 0]
    """
    return _last_before(pieces, opening) > _last_before(pieces, closing)


def tokens_since(pieces: Sequence[str], mark: str = "\n") -> np.ndarray:
    r"""Return (N,): how many tokens ago a token held `mark`, 0 in it; before the first, from the beginning.

    >>> tokens_since(["To", " be", "\n", "or", " not"]).tolist()
    [0, 1, 0, 1, 2]
    """
    at = np.arange(len(pieces))
    return at - np.maximum.accumulate(np.where([mark in piece for piece in pieces], at, 0))


def lines_since(pieces: Sequence[str], mark: str = ":\n") -> np.ndarray:
    r"""Return (N,): how many line breaks ago `mark` ended a line, as after a speaker's name; 1 in the next line.

    Before the first it counts from the beginning.

    >>> lines_since(["NURSE", ":", "\n", "I", " go", "\n", "and", " come"]).tolist()
    [0, 0, 1, 1, 1, 2, 2, 2]
    """
    breaks = np.flatnonzero([letter == "\n" for letter in "".join(pieces)])
    ends = np.cumsum([len(piece) for piece in pieces])
    return np.searchsorted(breaks, ends) - np.searchsorted(breaks, _last_before(pieces, mark))
