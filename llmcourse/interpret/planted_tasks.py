"""Tasks whose solution is a handful of attention heads: their texts, and how the heads are wired.

Every text has `LENGTH` symbols and begins with a mark; the answer is the next token. A clean text and its
corrupted twin have different answers. A head is told by what its queries look for in the keys (`matches`)
and by what it carries from there (`moves`): pairs of directions of the residual stream.

Dimensions: N texts, T time (LENGTH), V vocabulary (SYMBOLS), C width, n directions.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

LENGTH, VOCABULARY = 16, 20
START = 0  # the mark with which every text begins
SYMBOLS = [".", *"abcdefghijklmnopqrs"]
SURE = 40.0  # nats by which a head prefers what it looks for: its softmax is as good as one-hot
OPEN, CLOSE = 1, 2  # brackets
FIRST, SECOND = 17, 18  # answers of tasks with two: open or closed, even or odd, new or seen
MARKER, QUESTION = 15, 16
NAMES = range(1, 9)  # of indirect objects, and keys of a lookup


@dataclass(frozen=True)
class Pairs:
    """Clean and corrupted texts (N, T), and the right next token (N,) of each."""

    clean: Tensor
    corrupted: Tensor
    answer: Tensor
    other_answer: Tensor


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


def _rows(n: int, symbols, generator: torch.Generator) -> Tensor:
    """Return (N, len(symbols)): the symbols in a random order in each row."""
    order = torch.rand(n, len(symbols), generator=generator).argsort(1)
    return torch.tensor(list(symbols))[order]


def _draw(low: int, high: int, n: int, generator: torch.Generator) -> Tensor:
    return torch.randint(low, high, (n,), generator=generator)


def _started(rows: Tensor) -> Tensor:
    return torch.cat([torch.full_like(rows[:, :1], START), rows], dim=1)  # (N, T)


def _swapped(rows: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """Return a copy with what stands at the columns `one` and `other`, each (N,), exchanged."""
    new, row = rows.clone(), torch.arange(len(rows))
    new[row, one], new[row, other] = rows[row, other], rows[row, one]
    return new


def previous_token_texts(n: int, generator: torch.Generator) -> Pairs:
    """Letters in any order; the answer is the last but one. The twin has another letter there."""
    rows = _rows(n, range(1, VOCABULARY), generator)
    clean = _started(rows[:, : LENGTH - 1])
    corrupted = clean.clone()
    corrupted[:, -2] = rows[:, -1]
    return Pairs(clean, corrupted, clean[:, -2], corrupted[:, -2])


def induction_texts(n: int, generator: torch.Generator) -> Pairs:
    """Letters, the last of which stood there before: what followed it then? The twin has it elsewhere."""
    clean = _started(_rows(n, range(1, VOCABULARY), generator)[:, : LENGTH - 1])
    row, first = torch.arange(n), _draw(1, 7, n, generator)  # columns 1 to 6, and 8 to 13 for the twin
    clean[:, -1] = clean[row, first]
    second = first + 7
    corrupted = _swapped(clean, first, second)
    return Pairs(clean, corrupted, clean[row, first + 1], clean[row, second + 1])


def key_lookup_texts(n: int, generator: torch.Generator) -> Pairs:
    """Seven pairs of key and value, and a key: which value stood behind it? The twin has two keys exchanged."""
    keys, values = _rows(n, NAMES, generator)[:, :7], _rows(n, range(9, VOCABULARY), generator)[:, :7]
    row, first = torch.arange(n), _draw(0, 7, n, generator)
    second = (first + _draw(1, 7, n, generator)) % 7
    asked = keys[row, first]
    texts = [
        torch.cat([torch.stack([k, values], dim=2).flatten(1), asked[:, None]], dim=1)
        for k in (keys, _swapped(keys, first, second))
    ]
    return Pairs(_started(texts[0]), _started(texts[1]), values[row, first], values[row, second])


def bracket_texts(n: int, generator: torch.Generator) -> Pairs:
    """Fifteen symbols, brackets and letters, never more closing than opening so far: is one still open?"""
    rows = {True: [], False: []}
    while min(map(len, rows.values())) < n:
        row, depth = [], 0
        for draw in torch.rand(LENGTH - 1, generator=generator).tolist():
            step = 0 if draw < 0.2 else 1 if depth == 0 or draw < 0.6 else -1
            depth += step
            row.append({0: 3 + int(draw * 50), 1: OPEN, -1: CLOSE}[step])
        rows[depth > 0].append(row)
    is_open, closed = (_started(torch.tensor(rows[key][:n])) for key in (True, False))  # (N, T) each
    clean_is_open = torch.rand(n, 1, generator=generator) < 0.5
    clean, corrupted = (torch.where(clean_is_open == side, is_open, closed) for side in (True, False))
    answers = [torch.where(clean_is_open[:, 0] == side, FIRST, SECOND) for side in (True, False)]
    return Pairs(clean, corrupted, *answers)


def marker_texts(n: int, generator: torch.Generator) -> Pairs:
    """Letters, a marker, and a question: is the marker's position even or odd? The twin has it elsewhere."""
    clean = _started(_rows(n, range(1, MARKER), generator))
    clean = torch.cat([clean, torch.full((n, 1), QUESTION)], dim=1)
    row, place = torch.arange(n), _draw(1, LENGTH - 1, n, generator)
    elsewhere = 1 + (place + 2 * _draw(0, 7, n, generator)) % (LENGTH - 2)  # at an odd distance
    corrupted = clean.clone()
    clean[row, place], corrupted[row, elsewhere] = MARKER, MARKER
    return Pairs(clean, corrupted, *(torch.where(p % 2 == 0, FIRST, SECOND) for p in (place, elsewhere)))


def duplicate_texts(n: int, generator: torch.Generator) -> Pairs:
    """Letters: did the last one stand there before? The twin says the opposite."""
    new = _started(_rows(n, range(1, FIRST), generator)[:, : LENGTH - 1])
    row, place = torch.arange(n), _draw(1, LENGTH - 1, n, generator)
    seen = new.clone()
    seen[row, place] = new[:, -1]
    clean_is_seen = torch.rand(n, 1, generator=generator) < 0.5
    clean, corrupted = (torch.where(clean_is_seen == side, seen, new) for side in (True, False))
    answers = [torch.where(clean_is_seen[:, 0] == side, SECOND, FIRST) for side in (True, False)]
    return Pairs(clean, corrupted, *answers)


def indirect_object_texts(n: int, generator: torch.Generator) -> Pairs:
    """Two names among other letters, one of them again, and a question; in the twin the other comes again."""
    names, others = _rows(n, NAMES, generator)[:, :2], _rows(n, range(9, MARKER), generator)
    order = (
        torch.rand(n, LENGTH - 2, generator=generator).argsort(1)[:, :3].sort(1).values + 1
    )  # three places
    row = torch.arange(n)
    filled = others[row[:, None], torch.arange(LENGTH - 2) % others.shape[1]]  # (N, T - 2)
    clean = torch.cat([_started(filled), torch.full((n, 1), QUESTION)], dim=1)
    clean[row, order[:, 0]], clean[row, order[:, 1]] = names[:, 0], names[:, 1]
    corrupted, which = clean.clone(), _draw(0, 2, n, generator)
    clean[row, order[:, 2]], corrupted[row, order[:, 2]] = names[row, which], names[row, 1 - which]
    return Pairs(clean, corrupted, names[row, 1 - which], names[row, which])


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
