"""Solutions of `06a_translation`: a right answer to each exercise."""

import math


def cross_attention(q, k, v, mask):
    """Mix the values of the source, with weights from the queries of the target."""
    scores = q @ k.T / math.sqrt(k.shape[-1])  # (T, S)
    weights = scores.masked_fill(~mask, -math.inf).softmax(dim=-1)
    return weights @ v


def shift(ids, start_id, end_id):
    """What is read, and what is to be said at each place."""
    return [start_id, *ids], [*ids, end_id]


def pairs_of_entry(english, forms, form, fuzzy):
    """The pairs of an entry as gettext means it."""
    if fuzzy:
        return []
    if len(english) == 1:
        pairs = [(english[0], forms[0])]
    else:
        pairs = [(english[0], forms[form(1)]), (english[1], forms[form(2)])]
    return [(text, translation) for text, translation in pairs if translation]


def best_hypothesis(log_p, lengths, alpha):
    """The place of the largest log-probability, each divided by its length to the power alpha."""
    scores = [p / n**alpha for p, n in zip(log_p, lengths, strict=True)]
    return scores.index(max(scores))


SOLUTIONS = {
    "06a-cross": cross_attention,
    "06a-shift": shift,
    "06a-entry": pairs_of_entry,
    "06a-length": best_hypothesis,
}
