"""Exercises of chapter 2: core concepts."""

import math

import numpy as np
import torch

from llmcourse.teach.examine import examine
from llmcourse.teach.exercises import exercise, require
from llmcourse.teach.forms import number, several, tensor


@exercise(
    "02-mask",
    "Read the source, write the target",
    minutes=8,
    difficulty=2,
    hints=(
        "Start from the causal mask, torch.ones(T, T).tril(): it is right for the targets already.",
        "What is missing: every row, source or target, may look at all source columns.",
    ),
    wants="function",
    form=tensor,
)
def check_mask(answer):
    """Look at the four quarters of the mask one by one."""
    for s, t in ((3, 2), (1, 4), (4, 1), (2, 3)):
        mask, n = answer(s, t), s + t
        require(mask.shape == (n, n), f"for ({s}, {t}) the shape is ({n}, {n}); yours is {tuple(mask.shape)}")
        require(((mask == 0) | (mask == 1)).all(), "a boolean mask holds True and False, not numbers to add")
        past = torch.ones(n, n).tril().bool()
        right, mask = past | (torch.arange(n) < s), mask.bool()
        if torch.equal(mask, right):
            continue
        require(
            not torch.equal(mask, past),
            "that is the decoder's mask: the source may also look to its right, within the source",
        )
        require(not mask.all(), "that is the encoder's mask: a target must not see later targets")
        require(not torch.equal(mask, ~right), "your mask is inside out: True is where a row MAY look")
        require(not torch.equal(mask, right.T), "rows look at columns: yours is transposed")
        swapped = past | (torch.arange(n) < t)
        require(
            not torch.equal(mask, swapped), "you have exchanged n_source and n_target: the source comes first"
        )
        require(mask[:s, :s].all(), "a source position may look at the whole source, also to its right")
        require(not mask[:s, s:].any(), "a source position must not see the target")
        require(mask[s:, :s].all(), "a target position may look at the whole source")
        require(mask[s:, s:].diagonal().all(), "a target position may look at itself")
        require(False, "among the targets the mask is causal: itself and the past")
    return "this is the mask of a prefix LM; an encoder-decoder splits it into two stacks."


@exercise(
    "02-likelihood",
    "How likely is the answer?",
    minutes=8,
    difficulty=3,
    hints=(
        "log_softmax over the last dimension turns each row of logits into log-probabilities.",
        "The row at place t predicts the token at place t + 1: the first token you need stands at n_prompt.",
        "So take the rows n_prompt - 1 to T - 2, and from each the entry of the token that follows.",
    ),
    wants="function",
    form=number,
)
def check_likelihood(answer):
    """Compare with a sum by hand; tell shifts and lengths apart."""
    generator = torch.Generator().manual_seed(0)

    def example(T, V, n_prompt):
        return (
            2 * torch.randn(T, V, generator=generator),
            torch.randint(V, (T,), generator=generator),
            n_prompt,
        )

    def picked(logits, ids, places, row=-1):
        return float(sum(logits.log_softmax(-1)[t + row, ids[t]] for t in places))

    def right(logits, ids, n):
        return picked(logits, ids, range(n, len(ids)))

    long = example(7, 5, 4)
    cases = {
        "for a random example it is {right}; you return {value}": long,
        "right for three tokens, but not for one: {right}, and yours is {value}": (*long[:2], 6),
        "right for 7 tokens of 5, but not for 9 tokens of 11: {right}, and yours is {value}": example(
            9, 11, 2
        ),
    }
    slips = {
        "the row at place t predicts token t + 1: you read each token from its own row": (
            lambda x, ids, n: picked(x, ids, range(n, len(ids)), row=0)
        ),
        "you read the row before the right one: that at place t - 1 predicts token t": (
            lambda x, ids, n: picked(x, ids, range(n, len(ids)), row=-2)
        ),
        "you start one token too late: the token at place n_prompt belongs to the answer": (
            lambda x, ids, n: picked(x, ids, range(n + 1, len(ids)))
        ),
        "you start one token too early: that one belongs to the prompt": (
            lambda x, ids, n: picked(x, ids, range(n - 1, len(ids)))
        ),
        "the last token is missing: it belongs to the answer": (
            lambda x, ids, n: picked(x, ids, range(n, len(ids) - 1))
        ),
        "that is the whole text: leave the prompt's tokens out": (
            lambda x, ids, n: picked(x, ids, range(1, len(ids)))
        ),
        "that is the prompt: the answer's tokens begin at n_prompt": lambda x, ids, n: picked(
            x, ids, range(1, n)
        ),
        "that is the mean over the tokens: the log-probability of all of them is the sum": (
            lambda x, ids, n: right(x, ids, n) / (len(ids) - n)
        ),
        "the sign is wrong: a log-probability is at most 0": lambda *case: -right(*case),
        "that is the probability: return its logarithm": lambda *case: math.exp(right(*case)),
        "these are logits: log_softmax each row first": (
            lambda x, ids, n: sum(x[t - 1, ids[t]] for t in range(n, len(ids)))
        ),
        "you normalize over the places (dim 0): each ROW is a distribution over the vocabulary": (
            lambda x, ids, n: sum(x.log_softmax(0)[t - 1, ids[t]] for t in range(n, len(ids)))
        ),
        "that is in bits: use the natural logarithm": lambda *case: right(*case) / math.log(2),
    }
    examine(answer, right, cases, slips, rtol=1e-4)
    return "multiple-choice tests of language models are scored like this."


@exercise(
    "02-points",
    "A difference and its error",
    minutes=6,
    difficulty=2,
    hints=(
        "First one list of differences, one for each seed; then its mean and its standard deviation.",
        "Divide the sum of squares by n - 1, take the root, and divide by the root of n.",
    ),
    wants="function",
    form=several(number, 2, "numbers", "the mean, and its standard error"),
)
def check_points(answer):
    """Compare with the definition; tell unpaired, population and undivided errors apart."""
    a, b = [0.70, 0.64, 0.73, 0.69], [0.55, 0.53, 0.57, 0.49]
    longer = [0.81, 0.77, 0.80, 0.79, 0.70, 0.74, 0.77], [0.80, 0.79, 0.80, 0.75, 0.71, 0.70, 0.70]

    def paired(measure):  # a function of the differences
        return lambda a, b: measure(
            torch.tensor(a, dtype=torch.float64) - torch.tensor(b, dtype=torch.float64)
        ).item()

    def error(d):
        return d.std() / len(d) ** 0.5

    means = {
        "the sign is wrong: a - b": paired(lambda d: -d.mean()),
        "that is the sum of the differences: take the mean": paired(torch.sum),
        "that is the median of the differences: take the mean": (
            paired(torch.median),
            paired(lambda d: d.quantile(0.5)),
        ),
        "that is the standard error: the mean comes first": paired(error),
    }
    cases = {
        "the mean of a - b is {right}, not {value}": (a, b),
        "right for four seeds, but not for seven: the mean of a - b is {right}, not {value}": longer,
    }
    examine(lambda a, b: answer(a, b)[0], paired(torch.mean), cases, means, rtol=1e-6, atol=1e-8)
    slips = {
        "that is the standard deviation of one difference: divide by the root of n": paired(torch.std),
        "you divide by n: the standard error is s divided by the ROOT of n": paired(
            lambda d: d.std() / len(d)
        ),
        "divide the squares by n - 1, not by n (numpy: ddof=1)": paired(
            lambda d: d.std(correction=0) / len(d) ** 0.5
        ),
        "that is the deviation with n, and not divided by the root of n": paired(
            lambda d: d.std(correction=0)
        ),
        "you add the variances of a and b: pairs share their reviews, so take the differences first": (
            lambda a, b: ((np.var(a, ddof=1) + np.var(b, ddof=1)) / len(a)) ** 0.5,
            lambda a, b: ((np.var(a) + np.var(b)) / len(a)) ** 0.5,
        ),
        "that is the variance: the root is missing": (paired(torch.var), paired(lambda d: d.var() / len(d))),
    }
    cases = {
        "the standard error is {right}, not {value}": (a, b),
        "right for four seeds, but not for seven: the standard error is {right}, not {value}": longer,
    }
    examine(lambda a, b: answer(a, b)[1], paired(error), cases, slips, rtol=1e-4, atol=1e-8)
    return "pairs take out what both methods share: lucky and unlucky draws of reviews."
