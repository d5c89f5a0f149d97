"""Labels of tokens against rules that read the whole text by its letters, however it is cut into tokens."""

import random

import numpy as np
import pytest

from llmcourse.interpret.text_labels import inside, lines_since, tokens_since

TEXT = "ACT I\n\nNURSE:\nMadam, [aside] what\nnow [Exit NURSE]\n\nJULIET:\nO [She reads it: so] be\ncalm.\nStay.\n"


def cut(seed):
    """Return the text in pieces of 1 to 4 letters."""
    rng, pieces, at = random.Random(seed), [], 0
    while at < len(TEXT):
        pieces.append(TEXT[at : at + rng.randint(1, 4)])
        at += len(pieces[-1])
    return pieces, np.cumsum([len(piece) for piece in pieces])


@pytest.mark.parametrize("seed", range(20))
def test_labels_are_those_of_the_text_up_to_the_end_of_the_token(seed):
    pieces, ends = cut(seed)
    read = [TEXT[:end] for end in ends]
    assert inside(pieces).tolist() == [text.count("[") > text.count("]") for text in read]
    for i, since in enumerate(tokens_since(pieces)):
        broken = [j for j in range(i + 1) if "\n" in pieces[j]]
        assert since == (i - broken[-1] if broken else i)


@pytest.mark.parametrize("seed", range(20))
def test_lines_are_counted_from_the_speaker(seed):
    pieces, ends = cut(seed)
    expected = [text.count("\n", max(text.rfind(":\n"), 0)) for text in (TEXT[:end] for end in ends)]
    assert lines_since(pieces).tolist() == expected


def test_no_token_has_no_label():
    assert [len(label([])) for label in (inside, tokens_since, lines_since)] == [0, 0, 0]
