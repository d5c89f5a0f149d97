"""A deterministic automaton over bytes: states, and for each state and byte the state that follows.

Dimensions: S states.
"""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

STUCK = -1  # where no text can be completed any more
MAX_STATES = 50_000  # 51 MB of table

Move = tuple[int, int, Hashable]  # from byte `low` to byte `high`, both included, to a node


@dataclass(frozen=True, eq=False)
class Automaton:
    """A set of texts. State 0 is the start, and from every state an accepting one can be reached.

    `table` (S + 1, 256) holds the next state, or STUCK; its last row is that of STUCK itself, because
    -1 is the index of a last row. `accepting` (S,) says where a text may end.

    >>> from llmcourse.decode.regular import compile_regular
    >>> cats = compile_regular("cats?")
    >>> len(cats), cats.accepts("cat"), cats.accepts("cap"), cats.walk(0, b"cap")
    (5, True, False, -1)
    """

    table: np.ndarray
    accepting: np.ndarray

    def __len__(self) -> int:
        return len(self.accepting)

    def walk(self, state: int, data: bytes) -> int:
        """Return the state after `data`, or STUCK."""
        for byte in data:
            state = int(self.table[state, byte])
        return state

    def accepts(self, text: str | bytes) -> bool:
        """Return whether the whole `text` is one of the set."""
        state = self.walk(0, text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text)
        return state != STUCK and bool(self.accepting[state])

    def edges(self, state: int) -> list[tuple[int, int, int]]:
        """Return the ways out of `state`: (low, high, next state), bytes low to high, both included.

        >>> from llmcourse.decode.regular import compile_regular
        >>> [(chr(low), chr(high), target) for low, high, target in compile_regular("[0-9]x?").edges(0)]
        [('0', '9', 1)]
        """
        row = self.table[state]
        starts = [0, *(np.flatnonzero(np.diff(row)) + 1).tolist()]
        ends = [*(start - 1 for start in starts[1:]), 255]
        return [(a, b, int(row[a])) for a, b in zip(starts, ends, strict=True) if row[a] != STUCK]

    def arrows(self) -> list[tuple[int, str, int]]:
        """Return what a drawing needs: (state, label, next state), one for each two states.

        >>> from llmcourse.decode.regular import compile_regular
        >>> compile_regular("[a-cx]é?").minimal().arrows()
        [(0, 'a-c x', 1), (1, 'c3', 2), (2, 'a9', 3)]
        """

        def name(byte: int) -> str:
            return chr(byte) if 33 <= byte < 127 else "␣" if byte == 32 else f"{byte:02x}"

        labels: dict[tuple[int, int], list[str]] = {}
        for state in range(len(self)):
            for low, high, target in self.edges(state):
                span = name(low) if low == high else f"{name(low)}-{name(high)}"
                labels.setdefault((state, target), []).append(span)
        return [(state, " ".join(spans), target) for (state, target), spans in labels.items()]

    def forced(self, state: int) -> bytes:
        """Return the bytes that must follow `state`, up to where there is a choice or the text may end.

        >>> from llmcourse.decode.regular import compile_regular
        >>> compile_regular("(yes|yellow)").forced(0)
        b'ye'
        """
        data = bytearray()
        while not self.accepting[state]:
            edges = self.edges(state)
            if len(edges) > 1 or edges[0][0] != edges[0][1]:
                break
            data.append(edges[0][0])
            state = edges[0][2]
        return bytes(data)

    def __and__(self, other: "Automaton") -> "Automaton":
        """Return the automaton of the texts that both accept: its states are pairs of theirs.

        Raises ValueError if there is none.
        """

        def moves(pair):
            rows = np.stack([self.table[pair[0]], other.table[pair[1]]])
            starts = [0, *(np.flatnonzero(np.diff(rows).any(axis=0)) + 1).tolist(), 256]
            for low, after in pairwise(starts):
                a, b = rows[:, low].tolist()
                if a != STUCK and b != STUCK:
                    yield low, after - 1, (a, b)

        return explore((0, 0), moves, lambda pair: self.accepting[pair[0]] and other.accepting[pair[1]])

    def minimal(self) -> "Automaton":
        """Return the smallest automaton of the same texts, numbered in the order of its bytes.

        So two sets of texts are the same exactly if the tables of their minimal automata are. States
        are put together at first, and parted when some byte leads them apart (Moore 1956). It takes as
        many rounds as the shortest text is long that tells two states apart: for small automata.

        >>> from llmcourse.decode.regular import compile_regular
        >>> len(compile_regular("(aa|ba)*").minimal())
        2
        """
        n_groups, group = 0, np.append(self.accepting, False).astype(np.int64)
        group[-1] = 2  # STUCK
        while len(np.unique(group)) > n_groups:
            n_groups = len(np.unique(group))
            views = np.column_stack([group, group[self.table]])  # (S + 1, 257)
            group = np.unique(views, axis=0, return_inverse=True)[1].reshape(-1)
        members = {int(g): state for state, g in enumerate(group[:-1])}

        def moves(g):
            return [(low, high, int(group[target])) for low, high, target in self.edges(members[g])]

        return explore(int(group[0]), moves, lambda g: self.accepting[members[g]])


def explore(
    start: Hashable,
    moves: Callable[[Hashable], Iterable[Move]],
    accepts: Callable[[Hashable], bool],
    max_states: int = MAX_STATES,
) -> Automaton:
    """Return the automaton whose states are the nodes that are reached from `start` and reach an end.

    `moves(node)` gives ways out whose bytes do not overlap. Raises ValueError if nothing is accepted,
    or if there are more than `max_states` nodes.

    >>> two_bits = explore(0, lambda n: [(48, 49, n + 1)] if n < 2 else [], lambda n: n == 2)
    >>> len(two_bits), two_bits.accepts("01")
    (3, True)
    """
    number, nodes, ways, sources = {start: 0}, [start], [], [[]]
    for node in nodes:  # grows while it is read
        ways.append([])
        for low, high, target in moves(node):
            if target not in number:
                if len(nodes) == max_states:
                    raise ValueError(
                        f"the automaton has more than {max_states:,} states: make counts such as {{1,500}} "
                        "or maxLength smaller, or leave them out"
                    )
                number[target] = len(nodes)
                nodes.append(target)
                sources.append([])
            ways[-1].append((low, high, number[target]))
            sources[number[target]].append(len(ways) - 1)
    accepting = np.array([bool(accepts(node)) for node in nodes])
    alive, waiting = accepting.copy(), np.flatnonzero(accepting).tolist()
    while waiting:
        for source in sources[waiting.pop()]:
            if not alive[source]:
                alive[source] = True
                waiting.append(source)
    if not alive[0]:
        raise ValueError("no text at all fits: a class is empty, or two conditions exclude each other")
    new = np.where(alive, np.cumsum(alive) - 1, STUCK)
    table = np.full((int(alive.sum()) + 1, 256), STUCK, dtype=np.int32)
    for state in np.flatnonzero(alive):
        for low, high, target in ways[state]:
            table[new[state], low : high + 1] = new[target]
    return Automaton(table, accepting[alive])
