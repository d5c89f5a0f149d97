"""Exercises of chapter 6c: what a decoder does with a distribution."""

import torch

from llmcourse.teach.examine import examine
from llmcourse.teach.exercises import exercise
from llmcourse.teach.forms import number, several, tensor, truth


def _nucleus(p, share, order, extra=0):
    """Keep as many tokens, in this order, as hold `share` of the probability, and `extra` more."""
    n = int((p[order].cumsum(-1) < share).sum()) + 1 + extra
    kept = torch.zeros_like(p)
    kept[order[:n]] = p[order[:n]]
    return kept / kept.sum()


@exercise(
    "06c-top-p",
    "Keep the smallest set that holds p",
    minutes=8,
    difficulty=2,
    hints=(
        "Sort the probabilities, the largest first, and add them up: sort(descending=True), cumsum(-1).",
        "A token stays if what stands above it, without itself, holds less than p: cumsum - probabilities < p.",
        "Put the kept ones back to their own places, new[order[kept]] = sorted[kept], and divide by their sum.",
    ),
    wants="function",
    form=tensor,
)
def check_top_p(answer):
    """The nucleus: the token that crosses p belongs to it, and the rest is divided by its sum."""
    cases = {
        "for [0.1, 0.5, 0.15, 0.25] and p = 0.6 you return {value}; it is {right}": (
            torch.tensor([0.1, 0.5, 0.15, 0.25]),
            0.6,
        ),
        "right for p = 0.6, but for p = 0.3, which the first token alone reaches, you return {value}; it is {right}": (
            torch.tensor([0.1, 0.5, 0.15, 0.25]),
            0.3,
        ),
        "right for four tokens, but for [0.05, 0.02, 0.4, 0.13, 0.07, 0.33] and p = 0.9 you return {value}; "
        "it is {right}": (torch.tensor([0.05, 0.02, 0.4, 0.13, 0.07, 0.33]), 0.9),
    }

    def descending(p):
        return p.argsort(descending=True)

    def unscaled(p, share):
        return torch.where(_nucleus(p, share, descending(p)) > 0, p, 0.0)

    def under(p, share):  # without the token that crosses p
        order = descending(p)
        kept = torch.zeros_like(p)
        kept[order] = p[order] * (p[order].cumsum(-1) <= share)
        return kept / kept.sum()

    slips = {
        "what is left must sum to 1 again: divide it by its sum": unscaled,
        "the token with which the sum reaches p belongs to the set; you leave it out": (
            under,
            lambda p, share: under(p, share).nan_to_num(0.0),
            lambda p, share: torch.where(under(p, share) > 0, p, 0.0),
        ),
        "you keep one token too many: stop with the token with which the sum reaches p": (
            lambda p, share: _nucleus(p, share, descending(p), extra=1)
        ),
        "the values are in sorted order: put each back to the place of its token": (
            lambda p, share: _nucleus(p, share, descending(p))[descending(p)],
            lambda p, share: unscaled(p, share)[descending(p)],
        ),
        "you add up from the least likely token: sort with descending=True": (
            lambda p, share: _nucleus(p, share, p.argsort())
        ),
        "you add up in the order of the tokens: sort them first, the likeliest first": (
            lambda p, share: _nucleus(p, share, torch.arange(len(p)))
        ),
        "you compare each single probability with p; compare the sum of those above it": (
            lambda p, share: torch.where(p >= share, p, 0.0),
        ),
        "nothing is dropped: return 0 for the tokens outside the set": lambda p, share: p,
    }
    examine(answer, lambda p, share: _nucleus(p, share, descending(p)), cases, slips, "(V,)")
    return "where the model is sure one token is left, where it is not, many."


def _grams(row, n):
    return [tuple(row[i : i + n]) for i in range(len(row) - n + 1)]


@exercise(
    "06c-distinct",
    "How much is said twice?",
    minutes=5,
    difficulty=1,
    hints=(
        "The n-grams of a row are row[i : i + n] for each i from 0 to len(row) - n.",
        "Collect those of all rows in one list, as tuples: a set of tuples holds each once.",
    ),
    wants="function",
    form=number,
)
def check_distinct(answer):
    """Different n-grams of all rows, by all n-grams of all rows."""
    first, second = [1, 2, 1, 2, 3], [1, 2, 4, 4, 1]
    cases = {
        "for the rows [1, 2, 1, 2, 3] and [1, 2, 4, 4, 1] and n = 2 you get {value}; it is {right}: six "
        "different pairs of eight": ([first, second], 2),
        "right for pairs, but for three rows and n = 3 you get {value}; it is {right}": (
            [[5, 5, 5, 5, 5, 5], [1, 2, 3, 1, 2, 3, 4], [5, 5, 5, 2]],
            3,
        ),
        "right for n = 2 and 3, but for single tokens, n = 1, you get {value}; it is {right}": (
            [[7, 7, 8], [8, 9], [7]],
            1,
        ),
    }

    def right(rows, n):
        grams = [gram for row in rows for gram in _grams(row, n)]
        return len(set(grams)) / len(grams)

    def joined(rows, n):
        grams = _grams([token for row in rows for token in row], n)
        return len(set(grams)) / len(grams)

    def different(rows, n):
        return len({gram for row in rows for gram in _grams(row, n)})

    slips = {
        "you join the rows, so some n-grams begin in one row and end in the next: take those of each row": joined,
        "that is the mean over the rows: an n-gram that stands in two rows counts once among the different ones": (
            lambda rows, n: sum(right([row], n) for row in rows) / len(rows)
        ),
        "you divide by the number of tokens: divide by the number of n-grams, n - 1 fewer in each row": (
            lambda rows, n: different(rows, n) / sum(map(len, rows))
        ),
        "that is the number of different n-grams: divide it by the number of all": different,
        "that is the share that is said again: the share of different ones is 1 minus it": (
            lambda rows, n: 1 - right(rows, n)
        ),
        "your n-grams do not overlap: one begins at every token": (
            lambda rows, n: (
                len({tuple(row[i : i + n]) for row in rows for i in range(0, len(row) - n + 1, n)})
                / sum(len(range(0, len(row) - n + 1, n)) for row in rows)
            )
        ),
        "you count different tokens: count different n-grams": (lambda rows, n: right(rows, 1)),
        "the last n-gram of each row is missing: it begins at len(row) - n": (
            lambda rows, n: (
                len({gram for row in rows for gram in _grams(row, n)[:-1]})
                / sum(len(_grams(row, n)[:-1]) for row in rows)
            )
        ),
        "you count n-grams that come exactly once; one that comes twice is one different n-gram": (
            lambda rows, n: (
                sum(
                    [g for row in rows for g in _grams(row, n)].count(gram) == 1
                    for gram in {g for row in rows for g in _grams(row, n)}
                )
                / sum(len(_grams(row, n)) for row in rows)
            )
        ),
    }
    examine(answer, right, cases, slips)
    return "1 means that nothing is said twice, in no text and in no two."


@exercise(
    "06c-mask",
    "Which tokens may come next?",
    minutes=6,
    difficulty=2,
    hints=(
        "A token may come if what is then written, written + token, can still become one of the choices.",
        "It can if a choice begins with it: choice.startswith(written + token).",
        "For each token ask any(...) over the choices, and return the answers as a list.",
    ),
    wants="function",
    form=several(truth, what="truth values", which="one for each token"),
    keeps="the list of choices or tokens",
)
def check_mask(answer):
    """A token may come if some choice begins with what is then written."""
    choices = ["exit", "enter", "enter king"]
    tokens = ["e", "en", "ent", "ter", "xit", "exit", "enter king", "k", " king", " kingdom", "er", "x"]
    cases = {
        'at the beginning, with nothing written, of the tokens {"e", "en", "ent", "ter", ...}: '
        + "you say {value}; it is {right}": (choices, "", tokens),
        "right at the beginning, but after 'en' you say {value}; it is {right}": (choices, "en", tokens),
        "right at the beginning and after 'en', but after 'enter' you say {value}; it is {right}": (
            choices,
            "enter",
            tokens,
        ),
        "right in English, but for the choices '是' and '不是' after '不' you say {value}; it is {right}": (
            ["是", "不是"],
            "不",
            ["是", "不", "不是", "是的"],
        ),
    }

    def asking(test):
        return lambda choices, written, tokens: [
            any(test(choice, written, t) for choice in choices) for t in tokens
        ]

    slips = {
        "the token must also fit behind what is written: ask choice.startswith(written + token)": (
            asking(lambda choice, written, t: choice.startswith(t)),
            asking(lambda choice, written, t: t in choice),
        ),
        "you ask whether the text begins with a choice; a choice must begin with the text": (
            asking(lambda choice, written, t: (written + t).startswith(choice))
        ),
        "only tokens that complete a choice are allowed by yours; a token may also be on the way": (
            asking(lambda choice, written, t: written + t == choice)
        ),
        "the text must stand at the BEGINNING of a choice, not anywhere in it": (
            asking(lambda choice, written, t: written + t in choice)
        ),
        "one choice that fits is enough: any(...), not all(...)": (
            lambda choices, written, tokens: [all(c.startswith(written + t) for c in choices) for t in tokens]
        ),
        "that is upside down: True is for tokens that may come": (
            lambda choices, written, tokens: [
                not any(c.startswith(written + t) for c in choices) for t in tokens
            ]
        ),
        "the token comes behind what is written: written + token": (
            asking(lambda choice, written, t: choice.startswith(t + written))
        ),
        "you look at the first choice alone; any of them may be meant": (
            lambda choices, written, tokens: [choices[0].startswith(written + t) for t in tokens],
        ),
    }

    def look(value, choices, written, tokens):
        if len(value) != len(tokens):
            return f"return one truth value for each of {len(tokens)} tokens; yours has {len(value)}"
        wanted = asking(lambda choice, w, t: choice.startswith(w + t))(choices, written, tokens)
        i = next(i for i, pair in enumerate(zip(value, wanted, strict=True)) if pair[0] != pair[1])
        what = "may come" if wanted[i] else "may not come"
        return f"after {written!r}, with the choices {choices}, the token {tokens[i]!r} {what}; you say {value[i]}"

    examine(answer, asking(lambda c, w, t: c.startswith(w + t)), cases, slips, look=look)
    return "the logit of a token that may not come is set to -inf: nothing else is needed."


@exercise(
    "06c-speculative",
    "Keep a draft, or replace it",
    minutes=10,
    difficulty=3,
    hints=(
        "The draft proposes token x with probability q[x], and it should come with probability p[x]. "
        "If q[x] is at most p[x], keep it always; else keep it in p[x] / q[x] of the cases.",
        "What is still missing of token x after that is p[x] - q[x], where this is above 0.",
        "The replacement is drawn from max(0, p - q), divided by its sum; torch.stack joins the two rows.",
    ),
    wants="function",
    form=tensor,
)
def check_speculative(answer):
    """min(1, p / q), and max(0, p - q) divided by its sum."""
    cases = {
        "for p = [0.5, 0.3, 0.2] and q = [0.2, 0.2, 0.6] you return {value}; it is {right}": (
            torch.tensor([0.5, 0.3, 0.2]),
            torch.tensor([0.2, 0.2, 0.6]),
        ),
        "right for one pair, but for p = [0.1, 0.1, 0.1, 0.7] and q = [0.25, 0.25, 0.25, 0.25] you return "
        "{value}; it is {right}": (torch.tensor([0.1, 0.1, 0.1, 0.7]), torch.full((4,), 0.25)),
        "right for two pairs, but where p gives a token 0 you return {value}; it is {right}": (
            torch.tensor([0.0, 0.4, 0.6]),
            torch.tensor([0.5, 0.3, 0.2]),
        ),
    }

    def keep(p, q):
        return (p / q).clamp(max=1)

    def rest(p, q):
        return (p - q).clamp(min=0) / (p - q).clamp(min=0).sum()

    def rows(first, second):
        return lambda p, q: torch.stack([first(p, q), second(p, q)])

    slips = {
        "a probability is at most 1: keep with min(1, p / q)": rows(lambda p, q: p / q, rest),
        "p is what should come, q what the draft proposes: keep with min(1, p / q), not q / p": (
            rows(lambda p, q: (q / p).clamp(max=1), rest)
        ),
        "a token that the draft proposes too often is kept sometimes, in p / q of the cases, not never": (
            rows(lambda p, q: (p >= q).float(), rest)
        ),
        "each token is kept or not by its own p / q; p alone is the chance that it comes at all": (
            rows(lambda p, q: p, rest)
        ),
        "the replacement is drawn from what is still missing, max(0, p - q): drawn from p, a token that was "
        "kept often would come too often": rows(keep, lambda p, q: p),
        "the second row must sum to 1: divide it by its sum": rows(keep, lambda p, q: (p - q).clamp(min=0)),
        "where p - q is below 0 nothing is missing: set it to 0 first": (
            rows(keep, lambda p, q: p - q),
            rows(keep, lambda p, q: (p - q).abs() / (p - q).abs().sum()),
            rows(keep, lambda p, q: (p - q).softmax(-1)),
        ),
        "that is what the draft proposes too often, q - p; missing is p - q": (
            rows(keep, lambda p, q: rest(q, p)),
        ),
        "the rows are exchanged: first the chance to keep, then the replacement": rows(rest, keep),
    }

    def look(value, p, q):
        comes = q * value[0] + (1 - (q * value[0]).sum()) * value[1]
        return f"with yours the tokens come with {[round(x, 3) for x in comes.tolist()]}; wanted is p, {[round(x, 3) for x in p.tolist()]}"

    examine(answer, rows(keep, rest), cases, slips, "(2, V)", look)
    return "kept or replaced, a token comes with probability p, whatever the draft is worth."
