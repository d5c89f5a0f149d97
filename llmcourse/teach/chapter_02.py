"""Exercises of chapter 2: core concepts."""

import math

import torch

from llmcourse.teach.checks import number, tensor
from llmcourse.teach.exercises import exercise, require


def prefix_mask(n_source, n_target):
    """True where a row may look: the source sees the source, targets see the source and the past."""
    T = n_source + n_target
    mask = torch.ones(T, T, dtype=torch.bool).tril()
    mask[:, :n_source] = True
    return mask


@exercise(
    "02-mask",
    "Read the source, write the target",
    minutes=8,
    difficulty=2,
    hints=(
        "Start from the causal mask, torch.ones(T, T).tril(): it is right for the targets already.",
        "What is missing: every row, source or target, may look at all source columns.",
    ),
    solution=prefix_mask,
)
def check_mask(answer):
    """Look at the four quarters of the mask one by one."""
    for s, t in ((3, 2), (1, 4), (4, 1)):
        given = tensor(answer(s, t))
        n = s + t
        require(
            given.shape == (n, n), f"for ({s}, {t}) the shape is ({n}, {n}); yours is {tuple(given.shape)}"
        )
        require(
            bool(((given == 0) | (given == 1)).all()),
            "a boolean mask holds True and False, not numbers to add",
        )
        mask = given.bool()
        require(
            not (s > 1 and torch.equal(mask, torch.ones(n, n).tril().bool())),
            "that is the decoder's mask: the source may also look to its right, within the source",
        )
        require(not mask.all(), "that is the encoder's mask: a target must not see later targets")
        require(
            not (s > 1 and torch.equal(mask, prefix_mask(s, t).T)),
            "rows look at columns: yours is transposed",
        )
        require(mask[:s, :s].all(), "a source position may look at the whole source, also to its right")
        require(not mask[:s, s:].any(), "a source position must not see the target")
        require(mask[s:, :s].all(), "a target position may look at the whole source")
        require(mask[s:, s:].diagonal().all(), "a target position may look at itself")
        require(
            torch.equal(mask[s:, s:], torch.ones(t, t).tril().bool()),
            "among the targets the mask is causal: itself and the past",
        )
    return "this is the mask of a prefix LM; an encoder-decoder splits it into two stacks."


def continuation_log_probability(logits, token_ids, n_prompt):
    """The log-probability of token_ids[n_prompt:], each token given all before it."""
    log_probabilities = torch.as_tensor(logits).log_softmax(dim=-1)[n_prompt - 1 : -1]
    targets = torch.as_tensor(token_ids)[n_prompt:]
    return log_probabilities.gather(1, targets[:, None]).sum()


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
    solution=continuation_log_probability,
)
def check_likelihood(answer):
    """Compare with a sum by hand; tell shifts and lengths apart."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(7, 5, generator=generator)
    ids = torch.randint(5, (7,), generator=generator)
    table = logits.log_softmax(-1)
    right = sum(table[t - 1, ids[t]] for t in range(4, 7)).item()
    value = number(answer(logits.clone(), ids.clone(), 4))
    slips = {
        "the row at place t predicts token t + 1: you read each token from its own row": sum(
            table[t, ids[t]] for t in range(4, 7)
        ),
        "you start one token too late: the token at place n_prompt belongs to the answer": sum(
            table[t - 1, ids[t]] for t in range(5, 7)
        ),
        "you start one token too early: that one belongs to the prompt": sum(
            table[t - 1, ids[t]] for t in range(3, 7)
        ),
        "that is the whole text: leave the prompt's tokens out": sum(
            table[t - 1, ids[t]] for t in range(1, 7)
        ),
        "that is the mean over the tokens: the log-probability of all of them is the sum": torch.tensor(
            right / 3
        ),
        "the sign is wrong: a log-probability is at most 0": torch.tensor(-right),
        "that is the probability: return its logarithm": torch.tensor(math.exp(right)),
        "these are logits: log_softmax each row first": sum(logits[t - 1, ids[t]] for t in range(4, 7)),
        "that is in bits: use the natural logarithm": torch.tensor(right / math.log(2)),
    }
    for message, slip in slips.items():
        require(not math.isclose(value, float(slip), rel_tol=1e-4, abs_tol=1e-5), message)
    require(
        math.isclose(value, right, rel_tol=1e-4),
        f"for a random example it is {right:.4f}; you return {value:.4f}",
    )
    last = number(answer(logits.clone(), ids.clone(), 6))
    require(
        math.isclose(last, table[5, ids[6]].item(), rel_tol=1e-4), "right for three tokens, but not for one"
    )
    return "multiple-choice tests of language models are scored like this."


def paired_difference(a, b):
    """(mean, standard error) of the paired differences a - b."""
    differences = torch.as_tensor(a, dtype=torch.float64) - torch.as_tensor(b, dtype=torch.float64)
    return differences.mean().item(), (differences.std() / len(differences) ** 0.5).item()


@exercise(
    "02-points",
    "A difference and its error",
    minutes=6,
    difficulty=2,
    hints=(
        "First one list of differences, one for each seed; then its mean and its standard deviation.",
        "Divide the sum of squares by n - 1, take the root, and divide by the root of n.",
    ),
    solution=paired_difference,
)
def check_points(answer):
    """Compare with the definition; tell unpaired, population and undivided errors apart."""
    a, b = [0.70, 0.64, 0.73, 0.69], [0.55, 0.52, 0.57, 0.50]
    x, y = (torch.tensor(values, dtype=torch.float64) for values in (a, b))
    d = x - y
    given = answer(list(a), list(b))
    require(isinstance(given, tuple | list), "return two numbers: the mean, and its standard error")
    require(len(given) == 2, f"return two numbers, not {len(given)}: the mean, and its standard error")
    mean, error = map(number, given)
    require(not math.isclose(mean, -d.mean(), rel_tol=1e-6), "the sign is wrong: a - b")
    require(
        not math.isclose(mean, d.sum(), rel_tol=1e-6), "that is the sum of the differences: take the mean"
    )
    require(
        math.isclose(mean, d.mean(), rel_tol=1e-6), f"the mean of a - b is {d.mean():.4f}, not {mean:.4f}"
    )
    root = len(a) ** 0.5
    slips = {
        "that is the standard deviation of one difference: divide by the root of n": d.std(),
        "you divide by n: the standard error is s divided by the ROOT of n": d.std() / len(a),
        "divide the squares by n - 1, not by n (numpy: ddof=1)": d.std(correction=0) / root,
        "that is the deviation with n, and not divided by the root of n": d.std(correction=0),
        "you add the variances of a and b: pairs share their reviews, so take the differences first": (
            (x.var() + y.var()) / len(a)
        )
        ** 0.5,
        "that is the variance: the root is missing": d.var() / len(a),
    }
    for message, slip in slips.items():
        require(not math.isclose(error, slip, rel_tol=1e-4), message)
    right = (d.std() / root).item()
    require(math.isclose(error, right, rel_tol=1e-4), f"the standard error is {right:.5f}, not {error:.5f}")
    return "pairs take out what both methods share: lucky and unlucky draws of reviews."
