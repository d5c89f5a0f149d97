"""Texts whose next token a handful of attention heads can tell, and their corrupted twins.

Every text has `LENGTH` symbols and begins with a mark; the answer is the next token. A clean text and its
corrupted twin differ in little and have different answers.

Dimensions: N texts, T time (LENGTH), V vocabulary (SYMBOLS).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from llmcourse.interpret.patching import Metric, logit_difference

LENGTH, VOCABULARY = 16, 20
START = 0  # the mark with which every text begins
SYMBOLS = [".", *"abcdefghijklmnopqrs"]
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

    @property
    def metric(self) -> Metric:
        """The mean of logit(answer) - logit(other answer) behind the texts."""
        return logit_difference(self.answer, self.other_answer)


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
