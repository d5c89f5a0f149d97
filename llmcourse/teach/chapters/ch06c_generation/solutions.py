"""Solutions of `06c_generation`: a right answer to each exercise."""

import torch


def top_p(probabilities, p):
    """Keep the smallest set of tokens whose probability reaches p, and let it sum to 1: (V,) to (V,)."""
    ordered, order = probabilities.sort(descending=True)
    kept = ordered.cumsum(-1) - ordered < p  # what stands above each token
    new = torch.zeros_like(probabilities)
    new[order[kept]] = ordered[kept]
    return new / new.sum()


def distinct(rows, n):
    """Share of different n-grams among all n-grams of all rows."""
    grams = [tuple(row[i : i + n]) for row in rows for i in range(len(row) - n + 1)]
    return len(set(grams)) / len(grams)


def may_come(choices, written, tokens):
    """Say for each token whether it may come behind `written`, on the way to one of the choices."""
    return [any(choice.startswith(written + token) for choice in choices) for token in tokens]


def keep_and_replace(p, q):
    """Return the chance to keep each drafted token, and the distribution of a replacement: (2, V)."""
    keep = (p / q).clamp(max=1)
    missing = (p - q).clamp(min=0)
    return torch.stack([keep, missing / missing.sum()])


SOLUTIONS = {
    "06c-top-p": top_p,
    "06c-distinct": distinct,
    "06c-mask": may_come,
    "06c-speculative": keep_and_replace,
}
