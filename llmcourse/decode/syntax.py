"""What a set of texts is made of (characters, sequence, choice, repetition), and its automaton over bytes.

A tree becomes an automaton in two steps: Thompson's construction gives one that may be in several
states at once and moves without reading (Thompson 1968, doi:10.1145/363347.363387); the subset
construction makes each set of such states one state (Rabin and Scott 1959, doi:10.1147/rd.32.0114).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from llmcourse.decode.automaton import MAX_STATES, Automaton, explore

LAST = 0x10FFFF
Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Characters:
    """One character out of ranges of code points, (low, high), both included."""

    ranges: Ranges


@dataclass(frozen=True)
class Sequence:
    """One part after another; without parts, the empty text."""

    parts: tuple["Node", ...] = ()


@dataclass(frozen=True)
class Choice:
    """One of several options."""

    options: tuple["Node", ...]


@dataclass(frozen=True)
class Repeat:
    """A part at least `low` times and at most `high` times; None is no limit."""

    part: "Node"
    low: int = 0
    high: int | None = None


@dataclass(frozen=True)
class Both:
    """What fits `left` and `right` at once."""

    left: "Node"
    right: "Node"


Node = Characters | Sequence | Choice | Repeat | Both


def union(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Return the same characters as ordered ranges that do not touch.

    >>> union([(5, 9), (1, 2), (3, 6)])
    ((1, 9),)
    """
    merged: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return tuple(merged)


def complement(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Return all other characters.

    >>> complement([(0, 9), (20, LAST)])
    ((10, 19),)
    """
    ranges = union(ranges)
    starts = [0, *(high + 1 for _, high in ranges)]
    ends = [*(low - 1 for low, _ in ranges), LAST]
    return tuple((a, b) for a, b in zip(starts, ends, strict=True) if a <= b)


ANY = Characters(((0, LAST),))
DIGIT = Characters(((48, 57),))
EMPTY = Sequence()


def literal(text: str) -> Sequence:
    """Return the tree of one text."""
    return Sequence(tuple(Characters(((ord(c), ord(c)),)) for c in text))


def optional(*parts: Node) -> Repeat:
    """Return the tree of the parts, or of nothing."""
    return Repeat(Sequence(parts), 0, 1)


# ---- characters as bytes ------------------------------------------------------------------------


def _between(first: bytes, last: bytes) -> Iterator[Ranges]:
    """Yield sequences of byte ranges that make up all characters from `first` to `last`, of equal length."""
    a, b, n = first[0], last[0], len(first) - 1
    lowest, highest = b"\x80" * n, b"\xbf" * n
    if a == b and n:
        for rest in _between(first[1:], last[1:]):
            yield ((a, a), *rest)
        return
    if first[1:] > lowest:  # the first byte's block begins in the middle
        for rest in _between(first[1:], highest):
            yield ((a, a), *rest)
        a += 1
    ends_inside = last[1:] < highest
    if a <= b - ends_inside:
        yield ((a, b - ends_inside), *[(0x80, 0xBF)] * n)
    if ends_inside:
        for rest in _between(lowest, last[1:]):
            yield ((b, b), *rest)


def utf8_ranges(low: int, high: int) -> Iterator[Ranges]:
    """Yield the UTF-8 bytes of the characters `low` to `high`: for each byte its range.

    The halves of surrogate pairs, U+D800 to U+DFFF, are no characters.

    >>> [[f"{a:02x}-{b:02x}" for a, b in ranges] for ranges in utf8_ranges(ord("x"), ord("é"))]
    [['78-7f'], ['c2-c2', '80-bf'], ['c3-c3', '80-a9']]
    """
    blocks = (0, 0x7F), (0x80, 0x7FF), (0x800, 0xD7FF), (0xE000, 0xFFFF), (0x10000, LAST)
    for bottom, top in blocks:
        if max(low, bottom) <= min(high, top):
            yield from _between(chr(max(low, bottom)).encode(), chr(min(high, top)).encode())


# ---- from the tree to the automaton -------------------------------------------------------------


class _Network:
    """States with edges that read a byte, `edges[state] = [(low, high, target)]`, and free ones that do not."""

    def __init__(self):
        self.edges: list[list[tuple[int, int, int]]] = []
        self.free: list[list[int]] = []

    def new(self, before: int | None = None) -> int:
        if len(self.edges) == 4 * MAX_STATES:
            raise ValueError(
                f"the expression or schema has more than {4 * MAX_STATES:,} parts, because {{m,n}}, "
                "maxLength and maxItems repeat theirs: make the counts smaller, or leave them out"
            )
        self.edges.append([])
        self.free.append([])
        if before is not None:
            self.free[before].append(len(self.edges) - 1)
        return len(self.edges) - 1

    def build(self, node: Node, start: int) -> int:
        """Add what reads `node` from `start` on; return where it has been read."""
        match node:
            case Characters():
                return self._characters(node.ranges, start)
            case Sequence():
                for part in node.parts:
                    start = self.build(part, start)
                return start
            case Choice():
                end = self.new()
                for option in node.options:
                    self.free[self.build(option, start)].append(end)
                return end
            case Repeat():
                return self._repeat(node, start)
        return self._embed(compile_tree(node.left) & compile_tree(node.right), start)

    def _characters(self, ranges: Ranges, start: int) -> int:
        end = self.new()
        after = {(): end}  # bytes that are still to come -> the state that waits for them
        for low, high in ranges:
            for sequence in utf8_ranges(low, high):
                for i in range(len(sequence) - 1, 0, -1):
                    if sequence[i:] not in after:
                        after[sequence[i:]] = self.new()
                        self.edges[after[sequence[i:]]].append((*sequence[i], after[sequence[i + 1 :]]))
                self.edges[start].append((*sequence[0], after[sequence[1:]]))
        return end

    def _repeat(self, node: Repeat, start: int) -> int:
        for _ in range(node.low):
            start = self.build(node.part, self.new(before=start))
        if node.high is None:
            loop = self.new(before=start)  # its own: in a*b*, no a may follow a b
            self.free[self.build(node.part, loop)].append(loop)
            return loop
        end = self.new(before=start)
        for _ in range(node.high - node.low):
            start = self.build(node.part, self.new(before=start))
            self.free[start].append(end)
        return end

    def _embed(self, automaton: Automaton, start: int) -> int:
        end, states = self.new(), [self.new() for _ in range(len(automaton))]
        self.free[start].append(states[0])
        for state, own in enumerate(states):
            self.edges[own] = [(low, high, states[target]) for low, high, target in automaton.edges(state)]
            if automaton.accepting[state]:
                self.free[own].append(end)
        return end

    def closure(self, states: Iterable[int], end: int) -> frozenset[int]:
        """Return what is reached without reading; of it, only what can read or has ended."""
        seen, waiting = set(), list(states)
        while waiting:
            state = waiting.pop()
            if state not in seen:
                seen.add(state)
                waiting += self.free[state]
        return frozenset(state for state in seen if self.edges[state] or state == end)


def compile_tree(node: Node) -> Automaton:
    """Return the deterministic automaton over UTF-8 bytes that accepts the texts of `node`.

    Raises ValueError when it grows too large, or when no text fits.

    >>> compile_tree(Repeat(literal("né"), low=2)).accepts("nénéné")
    True
    """
    network = _Network()
    start = network.new()
    end = network.build(node, start)
    closures: dict[frozenset[int], frozenset[int]] = {}

    def moves(states: frozenset[int]):
        edges = [edge for state in states for edge in network.edges[state]]
        cuts = sorted({low for low, _, _ in edges} | {high + 1 for _, high, _ in edges})
        for low, after in pairwise(cuts):
            reached = frozenset(target for a, b, target in edges if a <= low <= b)
            if reached:
                if reached not in closures:
                    closures[reached] = network.closure(reached, end)
                yield low, after - 1, closures[reached]

    return explore(network.closure([start], end), moves, lambda states: end in states)
