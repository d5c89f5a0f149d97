"""Solutions of `06b_summarization`: a right answer to each exercise."""

import torch


def rouge_l(summary, reference):
    """F1 of the longest common subsequence, by a table of all beginnings of both texts."""
    best = [[0] * (len(reference) + 1) for _ in range(len(summary) + 1)]
    for i, word in enumerate(summary, 1):
        for j, other in enumerate(reference, 1):
            best[i][j] = best[i - 1][j - 1] + 1 if word == other else max(best[i - 1][j], best[i][j - 1])
    length = best[-1][-1]
    if length == 0:
        return 0.0
    precision, recall = length / len(summary), length / len(reference)
    return 2 * precision * recall / (precision + recall)


def rank(weights, damping):
    """How often a walk along the weights is at each sentence."""
    N = len(weights)
    steps = weights / weights.sum(dim=1, keepdim=True)
    ranks = torch.full((N,), 1 / N, dtype=weights.dtype)
    for _ in range(100):
        ranks = damping * ranks @ steps + (1 - damping) / N
    return ranks


def write_or_copy(p_vocab, weights, source_ids, p_gen):
    """The probability of each word: written from the vocabulary, or copied from its places in the source."""
    p = p_gen * p_vocab
    p.index_add_(0, source_ids, (1 - p_gen) * weights)
    return p


def from_source(summary, source, ignore):
    """The share of the summary's words, without those to ignore, that stand in the source."""
    kept = [word for word in summary if word not in ignore]
    if not kept:
        return 1.0
    return sum(word in source for word in kept) / len(kept)


SOLUTIONS = {
    "06b-rouge-l": rouge_l,
    "06b-rank": rank,
    "06b-copy": write_or_copy,
    "06b-source": from_source,
}
