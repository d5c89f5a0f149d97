"""Exercises of chapter 6a: translation."""

import math

import torch

from llmcourse.teach.examine import examine
from llmcourse.teach.exercises import NotRight, exercise
from llmcourse.teach.forms import items, number, several, tensor


def attend(q, k, v, mask, scale=None, hide="before", dim=-1):
    """Cross-attention with its parts open to slips."""
    scores = q @ k.T * (k.shape[-1] ** -0.5 if scale is None else scale)  # (T, S)
    if hide == "before":
        scores = scores.masked_fill(~mask, -math.inf)
    weights = scores.softmax(dim).nan_to_num()
    return (weights * mask if hide == "after" else weights) @ v


@exercise(
    "06a-cross",
    "Look at the source",
    minutes=8,
    difficulty=2,
    hints=(
        "It is the attention of chapter 4a: scores, a mask, softmax, a mean. Only the rows of the table "
        "belong to the target, and its columns to the source.",
        "The mask has one entry for each column: scores.masked_fill(~mask, -math.inf) hides those that are padding.",
        "No position of the source is in the future: nothing else is hidden.",
    ),
    wants="function",
    form=tensor,
)
def check_cross(answer):
    """Compare with torch's attention; a single target, padding, and more targets than sources."""
    generator = torch.Generator().manual_seed(0)

    def case(T, S, D, padding):
        q, k, v = (3 * torch.randn(n, D, generator=generator) for n in (T, S, S))
        return q, k, v, torch.arange(S) < S - padding

    def right(q, k, v, mask):
        attention = torch.nn.functional.scaled_dot_product_attention
        return attention(q[None], k[None], v[None], mask[None, None])[0]

    def triangle(q, k, v, mask):
        seen = torch.ones(len(q), len(k)).tril().bool() & mask
        scores = (q @ k.T * k.shape[-1] ** -0.5).masked_fill(~seen, -math.inf)
        return scores.softmax(-1) @ v

    cases = {
        "for a random example the result is not softmax(q kᵀ / √D) v, with the padding hidden": case(
            3, 5, 4, 2
        ),
        "right for three targets, but not for seven that look at four tokens": case(7, 4, 8, 0),
        "right for several targets, but not for one": case(1, 6, 2, 3),
    }
    slips = {
        "padding is looked at: hide the columns where the mask is False, before the softmax": (
            lambda q, k, v, mask: attend(q, k, v, mask, hide="no")
        ),
        "your mask is inside out: True is where there is a token": lambda q, k, v, mask: attend(
            q, k, v, ~mask
        ),
        "you hide padding after the softmax, so the weights no longer sum to 1: fill the scores with -inf before it": (
            lambda q, k, v, mask: attend(q, k, v, mask, hide="after")
        ),
        "the scale is missing: divide the scores by the root of D": lambda *a: attend(*a, scale=1.0),
        "divide by the root of D, not by D": lambda q, k, v, m: attend(q, k, v, m, scale=1 / k.shape[1]),
        "multiply by 1 / √D, not by √D": lambda q, k, v, m: attend(q, k, v, m, scale=k.shape[1] ** 0.5),
        "the D of the scale is the width of a key, not the number of tokens": (
            lambda q, k, v, m: attend(q, k, v, m, scale=len(k) ** -0.5)
        ),
        "the softmax runs over the source, the last dimension; yours runs over the target": (
            lambda *a: attend(*a, dim=0)
        ),
        "nothing of the source lies in the future: no triangle is hidden in cross-attention": triangle,
        "the mean is taken of the values v; yours is of the keys": lambda q, k, v, m: attend(q, k, k, m),
    }
    examine(answer, right, cases, slips, "(T, D), a row for each target", rtol=1e-4, atol=1e-5)
    return "it equals torch's scaled_dot_product_attention with a padding mask."


@exercise(
    "06a-shift",
    "Shift the target",
    minutes=4,
    difficulty=1,
    hints=(
        "The model reads the inputs and must say, at each place, what stands in the targets at that place.",
        "Before the first token it has read only the start token; after the last it must say the end token.",
    ),
    wants="function",
    form=several(several(number), 2, "lists", "the inputs, then the targets"),
    keeps="the ids",
)
def check_shift(answer):
    """Lists of one, several and no token, and other special ids."""
    right = lambda ids, start, end: [[start, *ids], [*ids, end]]  # noqa: E731
    cases = {
        "for [7, 8, 9] with start 1 and end 2 you return {value}, expected {right}": ([7, 8, 9], 1, 2),
        "right for start 1 and end 2, but not for others: use start_id and end_id": ([4, 4], 50, 60),
        "a translation of one token has two inputs and two targets": ([5], 1, 2),
        "an empty translation still begins and ends: {right}; yours is {value}": ([], 1, 2),
    }
    slips = {
        "these two are swapped: the start is read, the end is written": lambda i, s, e: right(i, s, e)[::-1],
        "the inputs lack the start token: what would the model read before the first word?": (
            lambda i, s, e: [i, [*i, e]]
        ),
        "the targets lack the end token: the model would never learn to stop": lambda i, s, e: [[s, *i], i],
        "both rows are equal: the targets stand one place earlier, so that each is the NEXT token": (
            lambda i, s, e: [[s, *i, e]] * 2,
            lambda i, s, e: [[s, *i]] * 2,
            lambda i, s, e: [[*i, e]] * 2,
            lambda i, s, e: [i] * 2,
        ),
        "the inputs hold the end token, after which nothing is to be said": lambda i, s, e: [
            [s, *i, e],
            [*i, e],
        ],
        "the targets hold the start token, which is never to be said": (
            lambda i, s, e: [[s, *i], [s, *i, e]]
        ),
        "start and end are exchanged": lambda i, s, e: right(i, e, s),
        "the targets are one place too late: at its first place the model must say the first token": (
            lambda i, s, e: [[s, *i], [e, *i]]
        ),
    }
    examine(answer, right, cases, slips)
    return "at each place the target is the token that comes next, from the start token to the end token."


FRENCH = lambda n: int(n > 1)  # noqa: E731
THREE = lambda n: 0 if n in (0, 1) else 1 if n % 1_000_000 == 0 else 2  # noqa: E731
TURNED = lambda n: int(n == 1)  # noqa: E731
CHINESE = lambda n: 0  # noqa: E731


def read_entry(english, forms, form, fuzzy, drop_fuzzy=True, drop_empty=True, index=None):
    """The pairs of an entry with its parts open to slips."""
    if drop_fuzzy and fuzzy:
        return []
    place = index or (lambda i: form(i + 1) if len(english) > 1 else 0)
    pairs = [(text, forms[min(place(i), len(forms) - 1)]) for i, text in enumerate(english)]
    return [pair for pair in pairs if pair[1] or not drop_empty]


def pair_list(value):
    """Return a list of pairs of texts."""
    rows = items(value)
    for row in rows:
        if not isinstance(row, list | tuple) or len(row) != 2 or not all(isinstance(x, str) for x in row):
            raise NotRight(f"return a list of pairs (English, translation), not {str(row)[:60]}")
    return [list(row) for row in rows]


@exercise(
    "06a-entry",
    "Read an entry of a catalogue",
    minutes=8,
    difficulty=2,
    hints=(
        "A fuzzy entry gives nothing: return an empty list first of all.",
        "Without a plural there is one English text and one form: forms[0].",
        "With a plural, the singular stands for n = 1 and the plural for n = 2: the form is forms[form(1)] or "
        "forms[form(2)]. Which number that is differs between languages, so do not guess it.",
        "An empty form means that nobody has translated it yet: leave that pair out.",
    ),
    wants="function",
    form=pair_list,
    keeps="the entry",
)
def check_entry(answer):
    """One form, two, three, two in the other order; fuzzy, empty, and a part that is empty."""
    one, two = ["Open"], ["%d file", "%d files"]
    cases = {
        "for ['Open'] and ['Ouvrir'] you return {value}, expected {right}": (one, ["Ouvrir"], FRENCH, False),
        "for French with two forms you return {value}, expected {right}": (two, ["fichier", "fichiers"], FRENCH, False),
        "Chinese has one form for every number: expected {right}, yours is {value}": (two, ["文件"], CHINESE, False),
        "newer French catalogues have three forms, and n = 2 takes the last: expected {right}, yours is {value}": (
            two, ["fichier", "de fichiers", "fichiers"], THREE, False,
        ),
        "this catalogue counts its forms in another order, and `form` says so: expected {right}, yours is {value}": (
            two, ["fichiers", "fichier"], TURNED, False,
        ),
        "a fuzzy entry is no translation: return an empty list; yours is {value}": (one, ["Ouvre"], FRENCH, True),
        "an empty form means untranslated: leave the pair out; yours is {value}": (one, [""], FRENCH, False),
        "where one of two forms is empty, the other still counts: expected {right}, yours is {value}": (
            two, ["", "fichiers"], FRENCH, False,
        ),
    }  # fmt: skip

    def with_(**options):
        return lambda *entry: read_entry(*entry, **options)

    slips = {
        "fuzzy entries come through: a translator has not looked at them yet, and msgfmt leaves them out": with_(
            drop_fuzzy=False
        ),
        "untranslated texts come through: leave out pairs whose translation is empty": with_(
            drop_empty=False
        ),
        "fuzzy and untranslated entries come through: leave both out": with_(
            drop_fuzzy=False, drop_empty=False
        ),
        "you count the forms yourself: forms[0] for the singular and forms[1] for the plural holds for some "
        "languages; ask form(1) and form(2)": with_(index=lambda i: i),
        "the plural gets the form of n = 1: ask form(2) for it": with_(index=lambda i: 0),
        "the last form is not always the plural's: ask form(1) and form(2)": with_(
            index=lambda i: -1 if i else 0
        ),
        "the plural of the entry is missing: it gives a pair of its own": lambda *entry: read_entry(*entry)[
            :1
        ],
        "the pairs are turned round: English first": lambda *entry: [p[::-1] for p in read_entry(*entry)],
        "`form` takes the number n, from 1: you ask form(0) and form(1)": (
            lambda english, forms, form, fuzzy: read_entry(english, forms, lambda n: form(n - 1), fuzzy)
        ),
    }
    examine(answer, read_entry, cases, slips)
    return "what remains is what a program would show its users, with the form that its language has for n = 1 and 2."


@exercise(
    "06a-length",
    "Choose with a length penalty",
    minutes=6,
    difficulty=2,
    hints=(
        "The score of a hypothesis is its log-probability divided by its length to the power alpha.",
        "Log-probabilities are negative: the best is the one nearest to zero, the largest.",
        "With alpha = 0 the length does not count, with 1 it is the mean of each token.",
    ),
    wants="function",
    form=number,
)
def check_length(answer):
    """Rows in which each slip chooses another place."""
    logs, lengths = [-1.5, -9.5, -9.1, -1.7, -3.7], [7, 5, 9, 8, 6]
    cases = {
        f"for {logs} with the lengths {lengths} and alpha = 1 you return {{value}}, expected {{right}}": (
            logs, lengths, 1.0,
        ),
        "with alpha = 0 only the log-probability counts: expected {right}, yours is {value}": (
            [-2.9, -2.1, -4.9, -4.3, -1.9], [8, 4, 9, 7, 5], 0.0,
        ),
        "with alpha = 0.6 expected {right}, yours is {value}: raise the length to the power alpha": (
            [-2.6, -11.6, -6.0, -11.1, -4.7], [2, 5, 9, 8, 7], 0.6,
        ),
        "right for three rows, but not for a fourth: compare log p / length^alpha": (
            [-2.7, -3.2, -4.3, -6.2, -6.8], [5, 8, 4, 1, 7], 0.6,
        ),
    }  # fmt: skip
    slips = {
        "the length does not count in yours: divide by it": lambda logs, n, a: choose(logs, n, 0),
        "alpha does not count in yours: it is the power of the length": lambda logs, n, a: choose(logs, n, 1),
        "you choose the smallest score, the worst hypothesis": (
            lambda logs, n, a: choose([-x for x in logs], n, a),
            lambda logs, n, a: choose([-x for x in logs], n, 0),
            lambda logs, n, a: choose([-x for x in logs], n, 1),
        ),
        "you multiply by the length: that makes long ones worse still; divide": lambda logs, n, a: choose(
            logs, n, -a
        ),
        "the length is raised to the power alpha, not multiplied by it": (
            lambda logs, n, a: max(range(len(logs)), key=lambda i: logs[i] / (a * n[i] or 1))
        ),
        "return the place of the best, not its score": (
            lambda logs, n, a: max(x / m**a for x, m in zip(logs, n, strict=True)),
            lambda logs, n, a: logs[choose(logs, n, a)],
        ),
        "you choose the longest": lambda logs, n, a: max(range(len(n)), key=n.__getitem__),
        "you choose the shortest": lambda logs, n, a: min(range(len(n)), key=n.__getitem__),
        "places are counted from 0": lambda logs, n, a: choose(logs, n, a) + 1,
    }
    examine(answer, choose, cases, slips)
    return (
        "with alpha = 0 the likeliest wins, however short; the larger alpha is, the more a long one may cost."
    )


def choose(logs, lengths, alpha) -> int:
    """Return the place of the best hypothesis under log p / length^alpha."""
    return max(range(len(logs)), key=lambda i: logs[i] / lengths[i] ** alpha)
