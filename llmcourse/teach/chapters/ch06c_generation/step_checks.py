"""Exercises of chapter 6c: which tokens may come, and which drafted ones are kept."""

import torch

from llmcourse.teach.examine import examine
from llmcourse.teach.exercises import exercise
from llmcourse.teach.forms import several, tensor, truth


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
