"""Byte-pair merges: the most frequent pair of neighbours becomes a new token, again and again.

`learn_merges` finds them in a text, `apply_merges` applies them to a word.
"""

import heapq
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

Pair = tuple[int, int]
EDGE = -1  # stands between two words: no pair reaches across it


def replace_pair(ids: tuple[int, ...], pair: Pair, new_id: int) -> tuple[int, ...]:
    """Return `ids` with each occurrence of `pair`, from the left, replaced by `new_id`.

    >>> replace_pair((1, 2, 1, 2, 2), (1, 2), 9)
    (9, 9, 2)
    """
    merged, i = [], 0
    while i < len(ids):
        if ids[i : i + 2] == pair:
            merged.append(new_id)
            i += 2
        else:
            merged.append(ids[i])
            i += 1
    return tuple(merged)


def apply_merges(ids: list[int], ranks: dict[Pair, int], new_ids: list[int]) -> list[int]:
    """Return `ids` after all merges: the pair of the lowest rank first, from the left.

    `ranks` gives each pair its place in the order of the merges, `new_ids` the id that it becomes.
    A queue holds the pairs with their places, so n ids take about n log n steps, where `replace_pair`
    for one merge after the other would look through all n each time.

    >>> apply_merges([1, 2, 1, 2, 2], ranks={(1, 2): 0, (8, 2): 1}, new_ids=[8, 9])
    [8, 9]

    Source: Sennrich et al. 2016, arXiv:1508.07909, sec. 3.2; with a queue as in `tokenizers`.
    """
    ids, n, rank_of = list(ids), len(ids), ranks.get
    queue = [rank << 32 | i for i, p in enumerate(pairwise(ids)) if (rank := rank_of(p)) is not None]
    heapq.heapify(queue)  # rank and place in one number, to sort by
    before, after = list(range(-1, n - 1)), list(range(1, n + 1))
    while queue:
        entry = heapq.heappop(queue)
        rank, i = entry >> 32, entry & 0xFFFFFFFF
        j, new_id = after[i], new_ids[rank]
        if j == n or rank_of((ids[i], ids[j])) != rank:
            continue  # one of the two is part of another token by now
        ids[i], ids[j] = new_id, EDGE
        k = after[i] = after[j]
        if k < n:
            before[k] = i
            if (rank := rank_of((new_id, ids[k]))) is not None:
                heapq.heappush(queue, rank << 32 | i)
        if (h := before[i]) >= 0 and (rank := rank_of((ids[h], new_id))) is not None:
            heapq.heappush(queue, rank << 32 | h)
    return [i for i in ids if i != EDGE]


def learn_merges(word_counts: dict[str, int], n_merges: int, min_count: int = 2) -> list[Pair]:
    """Return up to `n_merges` pairs of ids in the order in which they were merged.

    Ids below 256 are bytes; merge k makes id 256 + k. Each step takes the most frequent pair, a
    tie the smaller ids. It stops early when no pair occurs `min_count` times.

    All words stand in one row, each once, linked `before` and `after`, and a queue holds the
    pairs with their places. A pair gets all its places when the younger of its two tokens is
    made; later merges only take places away. So a count in the queue may be too high but never
    too low: a pair that comes out first with a count that still holds is the most frequent one.
    A merge costs as much as the pair has places, however long the text.

    Raises ValueError when `min_count` is below 1.

    >>> learn_merges({"aaab": 5, "ab": 2}, n_merges=2)
    [(97, 97), (97, 98)]

    Source: Gage 1994; Sennrich et al. 2016, arXiv:1508.07909, alg. 1.
    """
    if min_count < 1:
        raise ValueError(f"min_count={min_count}: a pair must occur to be merged; give 1 or more")
    ids, weights = in_one_row(word_counts)
    places = np.arange(len(ids))
    before, after = np.roll(places, 1), np.roll(places, -1)
    queue = list(find_pairs(places, ids, after, weights))
    heapq.heapify(queue)
    merges: list[Pair] = []
    while queue and len(merges) < n_merges:
        count, (left, right), at = heapq.heappop(queue)
        at = at[(ids[at] == left) & (ids[after[at]] == right)]  # the places that are still there
        count_now = int(weights[at].sum())
        if count_now < min_count:
            continue
        if count_now < -count:  # back into the queue: another pair may now be more frequent
            heapq.heappush(queue, (-count_now, (left, right), at))
            continue
        if left == right:
            at = every_other(at, after)
        new_id = 256 + len(merges)
        merges.append((left, right))
        ids[at], ids[after[at]] = new_id, EDGE  # the right half leaves the row
        after[at] = after[after[at]]
        before[after[at]] = at
        lefts = before[at]
        starts = np.concatenate((lefts[ids[lefts] != new_id], at))  # two in a row: one pair, not two
        for entry in find_pairs(starts, ids, after, weights):
            heapq.heappush(queue, entry)
    return merges


def in_one_row(word_counts: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the bytes of all words with an `EDGE` around each, and at each place its word's count.

    >>> in_one_row({"ab": 5, "c": 2})
    (array([-1, 97, 98, -1, 99, -1]), array([5, 5, 5, 2, 2, 0]))
    """
    row = b"\xff".join([b"", *(word.encode("utf-8") for word in word_counts), b""])
    ids = np.frombuffer(row, np.uint8).astype(np.int64)
    ids[ids == 0xFF] = EDGE  # no UTF-8 text contains this byte
    lengths = np.diff(np.flatnonzero(ids == EDGE), append=len(ids))
    return ids, np.repeat(np.array([*word_counts.values(), 0]), lengths)


def find_pairs(starts, ids, after, weights) -> Iterator[tuple[int, Pair, np.ndarray]]:
    """Yield (-count, pair, places in the order of the text) for each pair that begins at `starts`."""
    starts = starts[(ids[starts] != EDGE) & (ids[after[starts]] != EDGE)]
    pairs = ids[starts] << 32 | ids[after[starts]]  # both ids in one number, to sort by
    order = np.argsort(pairs, kind="stable")
    pairs, starts = pairs[order], starts[order]
    first = np.flatnonzero(np.diff(pairs, prepend=-1))
    counts = np.add.reduceat(weights[starts], first)
    ends = [*first[1:].tolist(), len(starts)]
    for pair, count, i, j in zip(pairs[first].tolist(), counts.tolist(), first.tolist(), ends, strict=False):
        yield -count, (pair >> 32, pair & 0xFFFFFFFF), starts[i:j]


def every_other(at, after):
    """Return the 1st, 3rd, 5th ... place of each run in `at`: in "aaa" only the first "aa" can merge."""
    index = np.arange(len(at))
    begins = at != np.append(EDGE, after[at[:-1]])
    return at[(index - np.maximum.accumulate(index * begins)) % 2 == 0]
