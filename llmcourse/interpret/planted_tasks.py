"""Tasks that a handful of attention heads can solve, and how these are wired.

A head is told by what its queries look for in the keys (`matches`) and by what it carries from there
(`moves`): pairs of directions of the residual stream.

Dimensions: T time (LENGTH), V vocabulary, C width, n directions.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from llmcourse.interpret.planted_texts import (
    CLOSE,
    FIRST,
    LENGTH,
    MARKER,
    NAMES,
    OPEN,
    QUESTION,
    SECOND,
    START,
    VOCABULARY,
    Pairs,
    bracket_texts,
    duplicate_texts,
    indirect_object_texts,
    induction_texts,
    key_lookup_texts,
    marker_texts,
    previous_token_texts,
)

SURE = 40.0  # nats by which a head prefers what it looks for: its softmax is as good as one-hot


@dataclass(frozen=True)
class Head:
    """What a head does. `depth` orders heads: one reads what those of a smaller depth wrote.

    `matches` are (queries (n, C), keys (n, C), strength): a score grows by the strength in nats where a
    query's direction meets its key's. `moves` are (read (n, C), write (n, C), strength). Without
    matches a head looks everywhere alike.
    """

    role: str
    depth: int
    moves: list
    matches: list = field(default_factory=list)


class Stream:
    """Named directions of a residual stream, all at right angles, in a basis that the seed turns."""

    def __init__(self, d_model: int, generator: torch.Generator):
        self.basis = torch.linalg.qr(torch.randn(d_model, d_model, generator=generator))[0]
        self.names: dict[str, Tensor] = {}

    def __call__(self, name: str, n: int = 1) -> Tensor:
        """Return the directions (n, C) of `name`, the same each time. Raises ValueError if the stream is full."""
        if name not in self.names:
            used = sum(map(len, self.names.values()))
            if used + n > len(self.basis):
                raise ValueError(
                    f"{name} needs {n} directions and {len(self.basis) - used} are left: widen d_model"
                )
            self.names[name] = self.basis[used : used + n]
        return self.names[name]


def previous_token(x: Stream) -> list[Head]:
    """One head: look one position back, copy what stands there."""
    token, position = x("token", VOCABULARY), x("position", LENGTH)
    back = (position[1:], position[:-1], SURE)
    return [Head("previous token", 0, [(token, x("output", VOCABULARY), 2.0)], [back])]


def induction(x: Stream) -> list[Head]:
    """Two heads: one notes at each position the token before; one finds the own token among these notes."""
    token, position = x("token", VOCABULARY), x("position", LENGTH)
    note, output = x("note", VOCABULARY), x("output", VOCABULARY)
    back = (position[1:], position[:-1], SURE)
    return [
        Head("previous token", 0, [(token, note, 1.0)], [back]),
        Head("induction", 1, [(token, output, 2.0)], [(token, note, SURE)]),
    ]


def key_lookup(x: Stream) -> list[Head]:
    """Two heads: one finds the own key further left and notes its position; one reads one further on."""
    token, position = x("token", VOCABULARY), x("position", LENGTH)
    note, output = x("note", LENGTH), x("output", VOCABULARY)
    same, not_itself = (token, token, SURE), (position, position, -2 * SURE)
    return [
        Head("same token", 0, [(position, note, 1.0)], [same, not_itself]),
        Head("read behind", 1, [(token, output, 2.0)], [(note[:-1], position[1:], SURE)]),
    ]


def bracket_depth(x: Stream) -> list[Head]:
    """Two heads that look everywhere alike: the share of opening brackets, and of closing ones."""
    token, output = x("token", VOCABULARY), x("output", VOCABULARY)
    is_open, one = output[FIRST] - output[SECOND], x("one")[0]
    half = 1 / (4 * LENGTH)  # together half a bracket: what divides depth 0 from depth 1
    count = lambda bracket, sign: (token[bracket][None], is_open[None], sign * 20.0)  # noqa: E731
    return [
        Head("opening brackets", 0, [count(OPEN, 1.0), (one[None], is_open[None], -20.0 * half)]),
        Head("closing brackets", 0, [count(CLOSE, -1.0), (one[None], is_open[None], -20.0 * half)]),
    ]


def marker_parity(x: Stream) -> list[Head]:
    """One head: find the marker, carry whether its position is even or odd."""
    token, position, output = x("token", VOCABULARY), x("position", LENGTH), x("output", VOCABULARY)
    parity = output[[FIRST, SECOND] * (LENGTH // 2)]  # (T, C)
    return [Head("find marker", 0, [(position, parity, 2.0)], [(x("one"), token[[MARKER]], SURE)])]


def duplicate_token(x: Stream) -> list[Head]:
    """One head: look for the own token further left, and rest on the first position if there is none."""
    token, position, output = x("token", VOCABULARY), x("position", LENGTH), x("output", VOCABULARY)
    matches = [(token, token, SURE), (position, position, -2 * SURE), (x("one"), token[[START]], SURE / 2)]
    seen = (token[1:].sum(0)[None], output[[SECOND]], 2.0)
    return [Head("duplicate token", 0, [seen, (token[[START]], output[[FIRST]], 2.0)], matches)]


def indirect_object(x: Stream) -> list[Head]:
    """Three heads, in miniature those of Wang et al. 2022: which of two names stands there only once?"""
    token, position, output = x("token", VOCABULARY), x("position", LENGTH), x("output", VOCABULARY)
    twice, avoid, one = x("twice", VOCABULARY), x("avoid", VOCABULARY), x("one")
    names, question = list(NAMES), token[[QUESTION]]
    elsewhere = [(token, token, SURE), (position, position, -2 * SURE), (one, token[[START]], SURE / 2)]
    any_name, repeated = token[names].sum(0)[None], twice[names].sum(0)[None]
    return [
        Head("duplicate token", 0, [(token[names], twice[names], 1.0)], elsewhere),
        Head("inhibition", 1, [(twice, avoid, 1.0)], [(question, repeated, SURE)]),
        Head("name mover", 2, [(token, output, 2.0)], [(one, any_name, SURE), (avoid, token, -2 * SURE)]),
    ]


@dataclass(frozen=True)
class Task:
    """How the heads are wired, `wire(stream)`, and the texts, `texts(n, generator)`.

    `answers` are the tokens that can be one; the heads stand in the first `layers` layers.
    """

    wire: Callable[[Stream], list[Head]]
    texts: Callable[[int, torch.Generator], Pairs]
    answers: tuple[int, ...] = tuple(range(VOCABULARY))
    layers: int = 3


TASKS = {
    "previous token": Task(previous_token, previous_token_texts),
    "induction": Task(induction, induction_texts),
    "key lookup": Task(key_lookup, key_lookup_texts),
    "bracket depth": Task(
        bracket_depth, bracket_texts, (FIRST, SECOND), layers=1
    ),  # later norms differ, and so would the shares
    "marker parity": Task(marker_parity, marker_texts, (FIRST, SECOND)),
    "duplicate token": Task(duplicate_token, duplicate_texts, (FIRST, SECOND)),
    "indirect object": Task(indirect_object, indirect_object_texts),
}
