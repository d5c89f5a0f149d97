"""Pairs of a text and its translation, and a split that leaves no near copy on the other side."""

import hashlib
from dataclasses import dataclass

from llmcourse.data.cleaning.dedup import near_groups
from llmcourse.data.placeholders import PLACEHOLDER


@dataclass(frozen=True)
class Pair:
    """A text, its translation, the language of that, and where it is from: a program, or a kind of text."""

    source: str
    target: str
    language: str
    origin: str = ""


def split_pairs(
    pairs: list[Pair], validation: float = 0.04, test: float = 0.08, held_out: str = "allauth"
) -> dict[str, list[Pair]]:
    """Return pairs as "train", "validation", "test" and "other": the last is all of one held-out program.

    English texts that share 0.7 of their words (placeholders and order aside), and those near to them
    in turn, form a group, which stands on one side: so no test text is a near copy of a training text,
    and both translations of a text stand together. The hash of a group's first text decides, so no
    seed is needed. A text of the held-out program that is near to one of another program is left out.
    Raises ValueError when the shares leave nothing to train on.
    """
    if not (validation > 0 and test > 0 and validation + test < 1):
        raise ValueError(f"shares {validation} and {test} must be positive, with a sum below 1")
    sources = sorted({pair.source for pair in pairs})
    groups = dict(zip(sources, near_groups([bare(text) for text in sources], n=1), strict=True))
    known = {groups[pair.source] for pair in pairs if pair.origin != held_out}
    parts: dict[str, list[Pair]] = {"train": [], "validation": [], "test": [], "other": []}
    for pair in pairs:
        group = groups[pair.source]
        if pair.origin == held_out:
            if group not in known:
                parts["other"].append(pair)
            continue
        digest = hashlib.sha256(sources[group].encode("utf-8", "surrogatepass")).digest()
        place = int.from_bytes(digest[:6], "big") / 2**48
        part = "test" if place < test else "validation" if place < test + validation else "train"
        parts[part].append(pair)
    if not parts["train"]:
        raise ValueError(f"{len(pairs)} pairs are too few to split: nothing is left to train on")
    return parts


def bare(text: str) -> str:
    """Return a text without its placeholders, to look for near copies; one of nothing else stays.

    >>> bare("Delete %(n)d files?")
    'Delete files?'
    """
    return " ".join(PLACEHOLDER.sub(" ", text).split()) or text
