"""Exercises of chapter 3c: pretraining."""

import math

import torch
import torch.nn.functional as F

from llmcourse.schedules import warmup_cosine
from llmcourse.teach.checks import number, tensor
from llmcourse.teach.exercises import exercise, require


def cross_entropy(logits, targets):
    """Mean negative log-probability of the targets: logits (T, V), targets (T,)."""
    log_probabilities = logits - logits.logsumexp(dim=-1, keepdim=True)
    return -log_probabilities[torch.arange(len(targets)), targets].mean()


@exercise(
    "03c-loss",
    "Write the loss",
    minutes=8,
    difficulty=2,
    hints=(
        "Turn logits into log-probabilities: subtract log(sum(exp(logits))) of each row.",
        "torch.logsumexp does not overflow; torch.log(torch.exp(...).sum()) does.",
        "log_probabilities[torch.arange(T), targets] picks one entry from each row.",
    ),
    solution=cross_entropy,
)
def check_loss(answer):
    """Compare with torch; tell the usual slips apart."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 9, generator=generator) * 3
    targets = torch.randint(9, (6,), generator=generator)
    expected = F.cross_entropy(logits, targets)
    value = tensor(answer(logits.clone(), targets.clone()))
    require(value.numel() == 1, f"return one number, the mean; yours has the shape {tuple(value.shape)}")
    value, rows = value.squeeze(), torch.arange(6)
    table = logits.log_softmax(-1)
    slips = {
        "the sign is wrong: a loss is the NEGATIVE log-probability": -expected,
        "that is the sum over positions: take the mean": expected * 6,
        "that is minus the sum over positions: the sign is wrong, and it should be the mean": expected * -6,
        "that is in bits: use the natural logarithm": expected / math.log(2),
        "you normalize over positions; each ROW (dim=-1) is one distribution over the vocabulary": (
            -logits.log_softmax(0)[rows, targets].mean()
        ),
        "you take every target in every row: row i needs targets[i] only": -table[:, targets].mean(),
        "you divide by T x V: the mean is over the T positions": expected / 9,
        "that is the mean over the whole vocabulary: pick the target's entry in each row": -table.mean(),
        "the logarithm is missing": -table.exp()[rows, targets].mean(),
        "these are the logits of the targets: normalize each row first": -logits[rows, targets].mean(),
    }
    for message, slip in slips.items():
        require(not torch.isclose(value, slip, rtol=1e-4), message)
    require(
        torch.isclose(value, expected, rtol=1e-4),
        f"for a random example you return {value.item():.4f} and torch {expected.item():.4f}",
    )
    large = tensor(answer(logits * 1000, targets.clone())).squeeze()
    require(torch.isfinite(large), "with logits near 3000 your result is not finite: use logsumexp")
    require(
        torch.isclose(large, F.cross_entropy(logits * 1000, targets), rtol=1e-4),
        "with logits near 3000 your result is finite but wrong: use logsumexp, not a constant or a limit",
    )
    return "it equals torch.nn.functional.cross_entropy, also for very large logits."


@exercise(
    "03c-bits",
    "From nats per token to bits per byte",
    minutes=4,
    difficulty=1,
    hints=(
        "One nat is 1 / ln 2 = 1.4427 bits.",
        "If a token is 2.5 bytes long on average, one byte costs 1/2.5 of a token.",
    ),
    solution=round(4.0 / math.log(2) / 2.5, 4),
)
def check_bits(answer):
    """4 nats per token at 2.5 bytes per token."""
    right = 4.0 / math.log(2) / 2.5
    require(abs(answer - 1.6) > 0.01, "1.6 is nats per byte: divide by ln 2 to get bits")
    require(abs(answer - 4.0 / math.log(2)) > 0.01, "that is bits per TOKEN: a token is 2.5 bytes long")
    require(abs(answer - 4.0 * math.log(2) / 2.5) > 0.01, "a nat is MORE than a bit: divide by ln 2")
    require(abs(answer - right * 2.5**2) > 0.01, "a byte is LESS than a token: divide by 2.5")
    require(abs(answer - right) < 0.01, f"{answer} is not 4 nats per token at 2.5 bytes per token")
    return "bits per byte compares models whose tokenizers differ; nats per token does not."


def learning_rate(step, total_steps, warmup_steps, max_lr):
    """Rise linearly to max_lr during the warmup, then fall along half a cosine to 0."""
    if step < warmup_steps:
        return max_lr * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / (total_steps - warmup_steps)
    return max_lr * 0.5 * (1 + math.cos(math.pi * progress))


@exercise(
    "03c-schedule",
    "Warm up, then follow a cosine",
    minutes=8,
    difficulty=2,
    hints=(
        "Two cases: step < warmup_steps, and the rest.",
        "In the second, progress = (step - warmup_steps) / (total_steps - warmup_steps) runs from 0 to 1.",
        "0.5 * (1 + cos(pi * progress)) runs from 1 to 0.",
    ),
    solution=learning_rate,
)
def check_schedule(answer):
    """Compare with the package's schedule at telling steps."""
    reference = warmup_cosine(100, 10)
    values = {step: number(answer(step, 100, 10, 2.0)) for step in (0, 4, 9, 10, 30, 55, 99)}
    require(values[0] > 0, "step 0 has learning rate 0: the first step would do nothing. Use (step + 1)")
    require(
        values[9] > 1.01,
        f"at the end of the warmup the rate should be max_lr, 2.0; yours is {values[9]:.3f}",
    )
    start = values[10]
    reason = "Is progress 0 there? Subtract warmup_steps"
    if start > 3.9:
        reason = "1 + cos runs from 2 to 0: halve it"
    elif start > 2.0:
        reason = "The warmup is over when step == warmup_steps"
    elif start < 0.1:
        reason = "It is 1 + cos, not 1 - cos or cos - 1"
    require(
        abs(start - 2.0) < 0.02,
        f"right after the warmup, at step 10, the cosine starts at max_lr; yours is {start:.3f}. {reason}",
    )
    require(
        abs(values[99]) < 0.1,
        f"at the last step the rate should be near 0; yours is {values[99]:.3f}. "
        "Half a cosine is cos(pi * progress), with progress from 0 to 1",
    )
    line = 2.0 * (100 - 30) / 90
    require(abs(values[30] - line) > 1e-3, "after the warmup yours falls along a straight line, not a cosine")
    for step, value in values.items():
        require(
            abs(value - 2.0 * reference(step)) < 1e-3,
            f"at step {step} you give {value:.4f}, expected {2.0 * reference(step):.4f}",
        )
    other = number(answer(50, 200, 20, 3.0))
    require(abs(other - 3.0 * warmup_cosine(200, 20)(50)) < 1e-3, "right for 100 steps, but not for 200")
    return "the same curve as `llmcourse.schedules.warmup_cosine`."


def with_temperature(logits, temperature):
    """Probabilities of the next token at a temperature."""
    return (logits / temperature).softmax(dim=-1)


@exercise(
    "03c-temperature",
    "Turn the temperature",
    minutes=4,
    difficulty=1,
    hints=("Divide the logits, not the probabilities.", "Then softmax over the last dimension."),
    solution=with_temperature,
)
def check_temperature(answer):
    """Compare with the definition; catch dividing probabilities and multiplying."""
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
    p = tensor(answer(logits.clone(), 0.5))
    require(p.shape == logits.shape, f"return one probability for each logit, not the shape {tuple(p.shape)}")
    require(not torch.allclose(p, logits / 0.5), "these are logits still: the softmax is missing")
    require(
        not torch.allclose(p, (logits / 0.5).log_softmax(-1)),
        "these are LOG-probabilities: softmax, not log_softmax",
    )
    require(
        abs(p.sum().item() - 1) < 1e-5,
        f"probabilities must sum to 1; yours sum to {p.sum().item():.3f}. Divide the LOGITS, then softmax",
    )
    require(
        not torch.allclose(p, (logits * 0.5).softmax(-1)),
        "a temperature below 1 must sharpen; yours flattens. Divide, do not multiply",
    )
    require(not torch.allclose(p, logits.softmax(-1)), "the temperature has no effect in your function")
    require(
        not torch.allclose(p, (logits.softmax(-1) / 0.5).softmax(-1)),
        "you take the softmax twice: divide the LOGITS, then one softmax",
    )
    require(
        torch.allclose(p, (logits / 0.5).softmax(-1), atol=1e-5), "that is not softmax(logits / temperature)"
    )
    flat = tensor(answer(logits.clone(), 3.0))
    require(
        torch.allclose(flat, (logits / 3).softmax(-1), atol=1e-5), "right at temperature 0.5, but not at 3"
    )
    return "below 1 it sharpens, above 1 it flattens, and the order of the tokens never changes."
