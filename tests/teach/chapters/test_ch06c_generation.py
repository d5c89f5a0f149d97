"""Chapter 6c: answers that learners give, right and wrong."""

import numpy as np
import pytest
import torch
from answers import assert_right, assert_wrong

RIGHT, WRONG = {}, {}


# 06c-top-p


def top_p_by_loop(probabilities, p):
    total, new = 0.0, [0.0] * len(probabilities)
    for i in sorted(range(len(probabilities)), key=lambda i: -probabilities[i].item()):
        if total >= p:
            break
        new[i] = probabilities[i].item()
        total += new[i]
    return [x / total for x in new]


def top_p_by_logits(probabilities, p):
    from llmcourse.sampling import keep_top_p

    return keep_top_p(probabilities.log(), p).softmax(-1)


def top_p_in_numpy(probabilities, p):
    values = probabilities.numpy()
    order = np.argsort(-values)
    n = np.searchsorted(np.cumsum(values[order]), p) + 1
    new = np.zeros_like(values)
    new[order[:n]] = values[order[:n]]
    return new / new.sum()


def top_p_by_threshold(probabilities, p):
    ordered = probabilities.sort(descending=True).values
    least = ordered[int((ordered.cumsum(-1) < p).sum())]
    new = probabilities.masked_fill(probabilities < least, 0)
    return new / new.sum()


RIGHT["06c-top-p"] = [top_p_by_loop, top_p_by_logits, top_p_in_numpy, top_p_by_threshold]


def cut(keep, back=True, scale=True, **options):
    def answer(probabilities, p):
        ordered, order = probabilities.sort(**({"descending": True} | options))
        kept = ordered * keep(ordered, p)
        new = torch.zeros_like(probabilities).scatter(-1, order, kept) if back else kept
        return new / new.sum() if scale else new

    return answer


WRONG["06c-top-p"] = {
    "not scaled": ("sum to 1 again", cut(lambda x, p: x.cumsum(-1) - x < p, scale=False)),
    "one too few": ("you leave it out", cut(lambda x, p: x.cumsum(-1) <= p)),
    "one too few, not scaled": ("you leave it out", cut(lambda x, p: x.cumsum(-1) < p, scale=False)),
    "one too many": (
        "one token too many",
        cut(lambda x, p: x.cumsum(-1) - x - torch.cat([x[:1] * 0, x[:-1]]) < p),
    ),
    "sorted": ("put each back", cut(lambda x, p: x.cumsum(-1) - x < p, back=False)),
    "ascending": ("from the least likely", cut(lambda x, p: x.cumsum(-1) - x < p, descending=False)),
    "unsorted": ("in the order of the tokens", lambda x, p: (y := x * (x.cumsum(-1) - x < p)) / y.sum()),
    "single probabilities": ("each single probability", lambda x, p: torch.where(x >= p, x, 0.0)),
    "unchanged": ("nothing is dropped", lambda x, p: x),
    "the set alone": ("shape should be (V,)", lambda x, p: top_p_by_loop(x, p)[:2]),
    "pair": ("take one of them", lambda x, p: x.sort(descending=True)),
    "whole number of tokens": (
        "you return",
        lambda x, p: torch.where(x >= x.topk(2).values[-1], x, 0.0) / x.topk(2).values.sum(),
    ),
}


# 06c-distinct


def distinct_by_loop(rows, n):
    seen, total = set(), 0
    for row in rows:
        for i in range(len(row)):
            if i + n <= len(row):
                seen.add(tuple(row[i : i + n]))
                total += 1
    return len(seen) / total


def distinct_by_package(rows, n):
    from llmcourse.evaluate.diversity import distinct_n

    return distinct_n(rows, n)


RIGHT["06c-distinct"] = [
    distinct_by_loop,
    distinct_by_package,
    lambda rows, n: np.float64(distinct_by_loop(rows, n)),
    lambda rows, n: (
        len({str(r[i : i + n]) for r in rows for i in range(len(r) - n + 1)})
        / sum(len(r) - n + 1 for r in rows)
    ),
]


def grams(row, n):
    return [tuple(row[i : i + n]) for i in range(len(row) - n + 1)]


WRONG["06c-distinct"] = {
    "joined": (
        "you join the rows",
        lambda rows, n: distinct_by_loop([[token for row in rows for token in row]], n),
    ),
    "mean of rows": (
        "mean over the rows",
        lambda rows, n: np.mean([distinct_by_loop([row], n) for row in rows]),
    ),
    "by tokens": (
        "divide by the number of n-grams",
        lambda rows, n: len({g for row in rows for g in grams(row, n)}) / sum(map(len, rows)),
    ),
    "number": (
        "divide it by the number of all",
        lambda rows, n: len({g for row in rows for g in grams(row, n)}),
    ),
    "repeated": ("1 minus it", lambda rows, n: 1 - distinct_by_loop(rows, n)),
    "last missing": (
        "last n-gram of each row is missing",
        lambda rows, n: (
            len({g for row in rows for g in grams(row, n)[:-1]}) / sum(len(grams(row, n)) - 1 for row in rows)
        ),
    ),
    "tokens": ("different tokens", lambda rows, n: distinct_by_loop(rows, 1)),
    "percent": ("100 times", lambda rows, n: 100 * distinct_by_loop(rows, n)),
    "first row": ("you get", lambda rows, n: distinct_by_loop(rows[:1], n)),
    "lists in a set": ("your code raised", lambda rows, n: len({row[:n] for row in rows})),
    "text": ("give a number", lambda rows, n: "0.75"),
}


# 06c-mask


def mask_by_loop(choices, written, tokens):
    result = []
    for token in tokens:
        text = written + token
        result.append(any(choice[: len(text)] == text for choice in choices))
    return result


def mask_by_prefixes(choices, written, tokens):
    prefixes = {choice[:n] for choice in choices for n in range(len(choice) + 1)}
    return [written + token in prefixes for token in tokens]


RIGHT["06c-mask"] = [
    mask_by_loop,
    mask_by_prefixes,
    lambda choices, written, tokens: np.array(mask_by_loop(choices, written, tokens)),
    lambda choices, written, tokens: torch.tensor(mask_by_prefixes(choices, written, tokens)),
    lambda choices, written, tokens: (any(c.startswith(written + t) for c in choices) for t in tokens),
]
WRONG["06c-mask"] = {
    "written forgotten": (
        "behind what is written",
        lambda c, w, ts: [any(x.startswith(t) for x in c) for t in ts],
    ),
    "anywhere": ("behind what is written", lambda c, w, ts: [any(t in x for x in c) for t in ts]),
    "upside down start": (
        "a choice must begin with the text",
        lambda c, w, ts: [any((w + t).startswith(x) for x in c) for t in ts],
    ),
    "complete only": ("on the way", lambda c, w, ts: [w + t in c for t in ts]),
    "in a choice": ("BEGINNING", lambda c, w, ts: [any(w + t in x for x in c) for t in ts]),
    "all": ("any(...), not all(...)", lambda c, w, ts: [all(x.startswith(w + t) for x in c) for t in ts]),
    "not": ("upside down", lambda c, w, ts: [not x for x in mask_by_loop(c, w, ts)]),
    "order": ("written + token", lambda c, w, ts: [any(x.startswith(t + w) for x in c) for t in ts]),
    "tokens themselves": (
        "return True or False",
        lambda c, w, ts: [t for t in ts if any(x.startswith(w + t) for x in c)],
    ),
    "numbers": ("return True or False, not 1", lambda c, w, ts: [int(x) for x in mask_by_loop(c, w, ts)]),
    "one answer": ("return a list of truth values", lambda c, w, ts: any(mask_by_loop(c, w, ts))),
    "too few": ("one truth value for each of 12", lambda c, w, ts: mask_by_loop(c, w, ts)[:-1]),
    "changes the list": (
        "changes the list",
        lambda c, w, ts: [any(x.startswith(w + t) for x in c) for t in (ts.sort() or ts)],
    ),
}


# 06c-speculative


def speculative_by_loop(p, q):
    keep, missing = [], []
    for a, b in zip(p.tolist(), q.tolist(), strict=True):
        keep.append(min(1.0, a / b))
        missing.append(max(0.0, a - b))
    return [keep, [x / sum(missing) for x in missing]]


def speculative_in_numpy(p, q):
    p, q = p.numpy().astype(np.float64), q.numpy().astype(np.float64)
    missing = np.maximum(p - q, 0)
    return np.stack([np.minimum(p / q, 1), missing / missing.sum()])


def speculative_by_what_both_have(p, q):
    both = torch.minimum(p, q)
    return torch.stack([both / q, (p - both) / (1 - both.sum())])


RIGHT["06c-speculative"] = [
    speculative_by_loop,
    speculative_in_numpy,
    speculative_by_what_both_have,
    lambda p, q: torch.stack([torch.where(p > q, 1.0, p / q), torch.relu(p - q) / torch.relu(p - q).sum()]),
]


def pair(
    keep=lambda p, q: (p / q).clamp(max=1), rest=lambda p, q: torch.relu(p - q) / torch.relu(p - q).sum()
):
    return lambda p, q: torch.stack([keep(p, q), rest(p, q)])


WRONG["06c-speculative"] = {
    "no minimum": ("at most 1", pair(keep=lambda p, q: p / q)),
    "q by p": ("not q / p", pair(keep=lambda p, q: (q / p).clamp(max=1))),
    "hard": ("not never", pair(keep=lambda p, q: (p >= q).float())),
    "p": ("p alone", pair(keep=lambda p, q: p)),
    "replaced from p": ("what is still missing", pair(rest=lambda p, q: p)),
    "not divided": ("divide it by its sum", pair(rest=lambda p, q: torch.relu(p - q))),
    "below 0": ("set it to 0 first", pair(rest=lambda p, q: p - q)),
    "absolute": ("set it to 0 first", pair(rest=lambda p, q: (p - q).abs() / (p - q).abs().sum())),
    "q - p": ("too often, q - p", pair(rest=lambda p, q: torch.relu(q - p) / torch.relu(q - p).sum())),
    "exchanged": ("exchanged", lambda p, q: pair()(p, q).flip(0)),
    "replaced from q": ("with yours the tokens come with", pair(rest=lambda p, q: q)),
    "always kept": ("with yours the tokens come with", pair(keep=lambda p, q: torch.ones_like(p))),
    "one row": ("the shape should be (2, V)", lambda p, q: (p / q).clamp(max=1)),
    "two tensors": ("torch.stack", lambda p, q: ((p / q).clamp(max=1), torch.relu(p - q))),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers(name):
    assert_right(name, RIGHT[name])


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers_hear_what_is_wrong(name):
    assert_wrong(name, WRONG[name])
