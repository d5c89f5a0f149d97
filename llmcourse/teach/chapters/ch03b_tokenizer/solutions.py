"""Solutions of `03b_tokenizer`: a right answer to each exercise."""

from itertools import pairwise


def most_frequent_pair(words):
    """Count each pair of neighbours as often as its word occurs; a tie goes to the smaller pair."""
    counts = {}
    for symbols, count in words.items():
        for pair in pairwise(symbols):
            counts[pair] = counts.get(pair, 0) + count
    return min(counts, key=lambda pair: (-counts[pair], pair))


def inputs_and_targets(ids, length):
    """Cut `length` inputs and the token that follows each."""
    return ids[:length], ids[1 : length + 1]


SOLUTIONS = {
    "03b-pair": most_frequent_pair,
    "03b-bytes": 6,
    "03b-targets": inputs_and_targets,
}
