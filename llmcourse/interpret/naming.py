r"""Name units by rules: where a unit is active, and whether a simple rule about the text says so, on new text as well.

A rule is read off the tokens: which token stands here, which one before, whether it is in a speaker's name, ...
A name is found on one text and checked on another one.

Dimensions: N tokens, U units, R rules.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from llmcourse.interpret.text_labels import inside, lines_since, tokens_since

LEAST = 20  # tokens on which a unit or a rule must be active to be looked at
GOOD = 0.7  # precision and recall that a name must reach on the other text


@dataclass(frozen=True)
class Named:
    """Unit `unit` is active where `rule` says so: precision and recall on the text that did not choose the rule."""

    unit: int
    rule: str
    precision: float
    recall: float

    @property
    def good(self) -> bool:
        """Whether both reach 0.7."""
        return min(self.precision, self.recall) >= GOOD

    @property
    def kind(self) -> str:
        """The kind of the rule: "token", "before", "pair", "place" or "among"."""
        return self.rule.partition(" ")[0]


def structure_rules(pieces: Sequence[str]) -> dict[str, np.ndarray]:
    """Return rules (N,) on the place of a token in the text of a play, whatever the token is."""
    since_line = tokens_since(pieces)
    text, ends = "".join(pieces), np.cumsum([len(piece) for piece in pieces])
    starts = ends - [len(piece) for piece in pieces]
    line_end = [text.find("\n", max(0, end - 1)) for end in ends.tolist()]
    heading = [
        stop > 0 and text[stop - 1] == ":" and start < stop
        for start, stop in zip(starts, line_end, strict=True)
    ]
    word_before = [start > 0 and text[start - 1].isalpha() for start in starts.tolist()]
    rules = {f"place {n} after a line break": since_line == n for n in (1, 2, 3)}
    return rules | {
        "place in a stage direction": inside(pieces),
        "place in a speaker's name": np.array(heading),
        "place first line of a speech": lines_since(pieces) == 1,
        "place inside a word": np.array(
            [b and piece[:1].isalpha() for b, piece in zip(word_before, pieces, strict=True)]
        ),
        "place begins with a capital": np.array([piece.strip()[:1].isupper() for piece in pieces]),
        "place capitals only": np.array([piece.strip().isupper() for piece in pieces]),
        "place punctuation": np.array(
            [bool(piece.strip()) and not any(map(str.isalnum, piece)) for piece in pieces]
        ),
        "place white space": np.array([not piece.strip() for piece in pieces]),
    }


def token_rules(pieces: Sequence[str], least: int = LEAST) -> list[str]:
    """Return the names of rules on tokens that hold at `least` so many: "token 'x'", "before 'x'", "pair 'x' 'y'"."""
    one, two = Counter(pieces), Counter(pairwise(pieces))
    names = [f"{kind} {piece!r}" for kind in ("token", "before") for piece, n in one.items() if n >= least]
    return names + [f"pair {x!r} {y!r}" for (x, y), n in two.items() if n >= least]


def rule_table(pieces: Sequence[str], names: Sequence[str]) -> Tensor:
    """Return (N, R) of 0 and 1: which rule holds at which token. "before" speaks of the token before this one.

    >>> rule_table(["a", "b", "a"], ["token 'a'", "before 'a'", "pair 'a' 'b'"]).tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 1.0], [1.0, 0.0, 0.0]]
    """
    table, column = torch.zeros(len(pieces), len(names)), {name: i for i, name in enumerate(names)}
    for name, holds in structure_rules(pieces).items():
        if name in column:
            table[:, column[name]] = torch.from_numpy(np.asarray(holds)).float()
    for t, piece in enumerate(pieces):
        told = [f"token {piece!r}"]
        if t:
            told += [f"before {pieces[t - 1]!r}", f"pair {pieces[t - 1]!r} {piece!r}"]
        for name in told:
            if name in column:
                table[t, column[name]] = 1
    return table


def strongly_active(codes: Tensor, reference: Tensor) -> Tensor:
    """Return (N, U) of 0 and 1: where a unit is above half of what it reaches in `reference` (M, U).

    What it reaches is the mean of its ten largest values. A unit that is never above 0 there is nowhere active.
    """
    high = reference.topk(min(10, len(reference)), dim=0).values.mean(0)
    return ((codes > high / 2) & (high > 0)).float()


def name_units(
    active: Tensor, rules: Tensor, new_active: Tensor, new_rules: Tensor, names: Sequence[str]
) -> list[Named]:
    """Return the best rule of each unit that is active at 20 tokens of both texts, and how good it is on the new one.

    `active` (N, U) and `rules` (N, R) are 0 and 1 on the text that chooses, by the largest F1; `new_active` and
    `new_rules` those of the text that checks. Raises ValueError for tables of unequal length.
    """
    if len(active) != len(rules) or len(new_active) != len(new_rules):
        raise ValueError(
            f"{len(active)} and {len(rules)} rows, new {len(new_active)} and {len(new_rules)}: units and rules "
            "speak of the same tokens"
        )
    both = active.T @ rules  # (U, R)
    f1 = 2 * both / (active.sum(0)[:, None] + rules.sum(0)).clamp(min=1)
    best = f1.argmax(1)
    return [
        _checked(unit, names[best[unit]], new_active[:, unit], new_rules[:, best[unit]])
        for unit in _looked_at(active, new_active)
    ]


def name_by_tokens(
    active: Tensor, pieces: Sequence[str], new_active: Tensor, new_pieces: Sequence[str], most: int = 5
) -> list[Named]:
    """Return for the same units the rule "among 'x' 'y'": the token is one of at most `most`, and how good it is.

    They are the tokens, of five or more, at half or more of which the unit is active; of more such tokens those
    with the most of its activity. A unit without one is left out.
    """
    types = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    ids = torch.tensor([types[piece] for piece in pieces])
    counts = torch.bincount(ids, minlength=len(types)).float()  # (P,)
    hits = torch.zeros(len(types), active.shape[1]).index_add_(0, ids, active)  # (P, U)
    hits = hits * ((hits >= counts[:, None] / 2) & (counts[:, None] >= 5))
    new_ids, found, told = torch.tensor([types.get(piece, -1) for piece in new_pieces]), [], list(types)
    for unit in _looked_at(active, new_active):
        values, chosen = hits[:, unit].topk(min(most, len(types)))
        if len(chosen := chosen[values > 0]):
            name = "among " + " ".join(repr(told[i]) for i in chosen.tolist())
            found.append(_checked(unit, name, new_active[:, unit], torch.isin(new_ids, chosen).float()))
    return found


def _looked_at(active: Tensor, new_active: Tensor) -> list[int]:
    """Return the units that are active often enough on both texts."""
    return ((active.sum(0) >= LEAST) & (new_active.sum(0) >= LEAST)).nonzero()[:, 0].tolist()


def _checked(unit: int, name: str, on: Tensor, rule: Tensor) -> Named:
    hit = (on * rule).sum().item()
    return Named(unit, name, hit / max(rule.sum().item(), 1), hit / on.sum().item())
