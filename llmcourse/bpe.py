"""Learning byte-pair merges: the most frequent pair of neighbours becomes a new token, again and again."""

import heapq
from collections import Counter, defaultdict
from itertools import pairwise

Pair = tuple[int, int]


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


def learn_merges(word_counts: dict[str, int], n_merges: int, min_count: int = 2) -> list[Pair]:
    """Return up to `n_merges` pairs of ids in the order in which they were merged.

    Ids below 256 are bytes; merge k makes id 256 + k. Each step takes the most frequent pair, a
    tie the smaller ids. Only the counts that a merge changes are recounted: the words that
    contain the pair. It stops early when no pair occurs `min_count` times.

    >>> learn_merges({"aaab": 5, "ab": 2}, n_merges=2)
    [(97, 97), (97, 98)]

    Source: Gage 1994; Sennrich et al. 2016, arXiv:1508.07909, alg. 1.
    """
    words = [tuple(word.encode("utf-8")) for word in word_counts]
    counts = list(word_counts.values())
    pair_counts: Counter[Pair] = Counter()
    where: dict[Pair, set[int]] = defaultdict(set)
    for index, word in enumerate(words):
        for pair in pairwise(word):
            pair_counts[pair] += counts[index]
            where[pair].add(index)
    heap = [(-count, pair) for pair, count in pair_counts.items()]
    heapq.heapify(heap)
    merges: list[Pair] = []
    while heap and len(merges) < n_merges:
        count, pair = heapq.heappop(heap)
        if -count != pair_counts[pair]:  # out of date: the current count is further down
            continue
        if -count < min_count:
            break
        new_id = 256 + len(merges)
        merges.append(pair)
        changed = set()
        for index in where.pop(pair):
            old, new = words[index], replace_pair(words[index], pair, new_id)
            words[index] = new
            for gone in pairwise(old):
                pair_counts[gone] -= counts[index]
                changed.add(gone)
            for come in pairwise(new):
                pair_counts[come] += counts[index]
                where[come].add(index)
                changed.add(come)
        for each in changed:
            if pair_counts[each] > 0:
                heapq.heappush(heap, (-pair_counts[each], each))
    return merges
