"""Exercises of chapter 3c: pretraining."""

import math

import torch
import torch.nn.functional as F

import llmcourse.teach.chapters.ch03c_pretraining.loop_checks  # noqa: F401 - registers one more
from llmcourse.schedules import warmup_cosine
from llmcourse.teach.examine import Calls, compare, examine
from llmcourse.teach.exercises import exercise, require
from llmcourse.teach.forms import number, tensor


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
    wants="function",
    form=tensor,
)
def check_loss(answer):
    """Compare with torch; tell the usual slips apart."""

    def loss(logits, targets):
        with Calls() as calls:
            value = answer(logits, targets)
        require(
            not calls.to(F.cross_entropy), "the task is to write it without F.cross_entropy, and you call it"
        )
        require(value.numel() == 1, f"return one number, the mean; yours has the shape {tuple(value.shape)}")
        far = f"with logits near {logits.abs().max():.0f} your result is not finite: use logsumexp"
        require(value.isfinite().all(), far)
        return number(value)

    def picked(table, y):
        return table[torch.arange(len(y)), y]

    def mean_loss(x, y):
        return F.nll_loss(x.log_softmax(-1), y)

    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 9, generator=generator) * 3
    targets = torch.randint(9, (6,), generator=generator)
    cases = {
        "for a random example you return {value} and torch {right}": (logits, targets),
        "right for 6 rows of 9, but not for 7 of 3: you return {value} and torch {right}": (
            torch.randn(7, 3, generator=generator),
            torch.tensor([2, 0, 1, 1, 2, 2, 0]),
        ),
        "with logits near 3000 your result is finite but wrong, {value} for {right}: use logsumexp, not a constant or "
        "a limit": (logits * 1000, targets),
    }
    slips = {
        "the sign is wrong: a loss is the NEGATIVE log-probability": lambda x, y: -mean_loss(x, y),
        "that is the sum over positions: take the mean": lambda x, y: len(y) * mean_loss(x, y),
        "that is minus the sum over positions: the sign is wrong, and it should be the mean": (
            lambda x, y: -len(y) * mean_loss(x, y)
        ),
        "that is in bits: use the natural logarithm": lambda x, y: mean_loss(x, y) / math.log(2),
        "you normalize over positions; each ROW (dim=-1) is one distribution over the vocabulary": (
            lambda x, y: -picked(x.log_softmax(0), y).mean()
        ),
        "you take every target in every row: row i needs targets[i] only": lambda x, y: (
            -x.log_softmax(-1)[:, y].mean()
        ),
        "each row has its own target: yours are one row too far": (
            lambda x, y: mean_loss(x, y.roll(1)),
            lambda x, y: mean_loss(x, y.roll(-1)),
            lambda x, y: mean_loss(x[:-1], y[1:]),
        ),
        "you divide by T x V: the mean is over the T positions": lambda x, y: mean_loss(x, y) / x.shape[1],
        "that is the mean over the whole vocabulary: pick the target's entry in each row": (
            lambda x, y: -x.log_softmax(-1).mean()
        ),
        "you take the largest entry of each row: take that of the target": lambda x, y: (
            -x.log_softmax(-1).amax(-1).mean()
        ),
        "the logarithm is missing": (
            lambda x, y: -picked(x.softmax(-1), y).mean(),
            lambda x, y: picked(x.softmax(-1), y).mean(),
        ),
        "that is the log of the mean probability: first the logarithm of each, then the mean": (
            lambda x, y: -picked(x.softmax(-1), y).mean().log()
        ),
        "that is the perplexity, exp of the loss: leave the exp out": lambda x, y: mean_loss(x, y).exp(),
        "these are the logits of the targets: normalize each row first": lambda x, y: -picked(x, y).mean(),
        "that is the loss of the first row alone: take the mean over all": lambda x, y: mean_loss(
            x[:1], y[:1]
        ),
    }
    examine(loss, lambda x, y: mean_loss(x, y).item(), cases, slips, rtol=1e-4)
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
    wants="value",
    form=number,
)
def check_bits(answer):
    """4 nats per token at 2.5 bytes per token."""
    bits = 4.0 / math.log(2)
    slips = {
        "1.6 is nats per byte: divide by ln 2 to get bits": 1.6,
        "that is bits per TOKEN: a token is 2.5 bytes long": bits,
        "a nat is MORE than a bit: divide by ln 2": 4.0 * math.log(2) / 2.5,
        "a byte is LESS than a token: divide by 2.5": bits * 2.5,
        "the loss is a logarithm already: do not take log2 of it, divide it by ln 2": (
            math.log2(4) / 2.5,
            2,
            5,
        ),
        "ln 10 is for decimal digits, which is not 4 nats in bits: divide by ln 2": 4.0 / math.log(10) / 2.5,
        "both steps divide, and 10 is not 4 nats in bits: a nat is more than a bit, and a byte less than a token": (
            10,
            6.931,
        ),
        "the sign is wrong: it costs a positive number of bits": -bits / 2.5,
    }
    otherwise = "{value} is not 4 nats per token at 2.5 bytes per token"
    compare(answer, bits / 2.5, slips, otherwise, rtol=0, atol=0.01)
    return "bits per byte compares models whose tokenizers differ; nats per token does not."


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
    wants="function",
    form=number,
)
def check_schedule(answer):
    """Compare with the package's schedule at telling steps."""

    def slipped(
        first=1,
        until=0,
        share=lambda s, t, w: (s - w) / (t - w),
        curve=lambda p: (1 + math.cos(math.pi * p)) / 2,
    ):
        def rate(step, total, warmup, max_lr):
            if step < warmup + until:
                return max_lr * (step + first) / warmup
            return max_lr * curve(share(step, total, warmup))

        return rate

    cases = {}
    for total, warmup, max_lr, but in (
        (100, 10, 2.0, ""),
        (200, 20, 3.0, "right for 100 steps, but not for 200: "),
    ):
        for step in (0, 4, warmup - 1, warmup, 30, 55, total - 1):
            told = (
                f"{but}at step {step}, with {warmup} steps of warmup and max_lr {max_lr}, you give {{value}}"
            )
            cases[f"{told}, expected {{right}}"] = (step, total, warmup, max_lr)
    slips = {
        "step 0 has learning rate 0: the first step would do nothing. Use (step + 1)": slipped(first=0),
        "The warmup is over when step == warmup_steps; yours is one step longer": slipped(until=1),
        "the warmup is missing: below warmup_steps the rate rises in a line": lambda s, t, w, m: slipped()(
            s, t, 0, m
        ),
        "the rate starts at max_lr when the warmup is over: is progress 0 there? Subtract warmup_steps": (
            slipped(share=lambda s, t, w: s / t),
            slipped(share=lambda s, t, w: s / (t - w)),
        ),
        "the rate is 0 at total_steps: divide by total_steps - warmup_steps": slipped(
            share=lambda s, t, w: (s - w) / t
        ),
        "the rate reaches 0 AT total_steps, one step after the last; yours reaches it at the last one": (
            slipped(share=lambda s, t, w: (s - w) / (t - w - 1)),
            slipped(share=lambda s, t, w: (s - w + 1) / (t - w)),
        ),
        "1 + cos runs from 2 to 0: halve it": slipped(curve=lambda p: 1 + math.cos(math.pi * p)),
        "yours rises after the warmup: it is 1 + cos, not 1 - cos or cos - 1": (
            slipped(curve=lambda p: (1 - math.cos(math.pi * p)) / 2),
            slipped(curve=lambda p: (math.cos(math.pi * p) - 1) / 2),
        ),
        "the factor pi is missing: half a cosine is cos(pi * progress), with progress from 0 to 1": (
            slipped(curve=lambda p: (1 + math.cos(p)) / 2),
            slipped(curve=lambda p: math.cos(p)),
        ),
        "that is a whole cosine, down and up again: half of one is cos(pi * progress), with progress from 0 to 1": (
            slipped(curve=lambda p: (1 + math.cos(2 * math.pi * p)) / 2)
        ),
        "that is a quarter of a cosine, cos(pi / 2 * progress): half of one is (1 + cos(pi * progress)) / 2": (
            slipped(curve=lambda p: math.cos(math.pi / 2 * p))
        ),
        "cos(pi * progress) goes down to -1: add 1 and halve it": slipped(
            curve=lambda p: math.cos(math.pi * p)
        ),
        "after the warmup yours stays at max_lr: at the last step it should be near 0; yours is 2.000": slipped(
            curve=lambda p: 1
        ),
        "after the warmup yours falls along a straight line, not a cosine": slipped(curve=lambda p: 1 - p),
        "the highest rate should be max_lr, 2.0; yours is 1.000": lambda s, t, w, m: slipped()(s, t, w, 1.0),
    }

    def right(step, total, warmup, max_lr):
        return max_lr * warmup_cosine(total, warmup)(step)

    examine(answer, right, cases, slips, rtol=1e-4, atol=1e-5)
    return "the same curve as `llmcourse.schedules.warmup_cosine`."


@exercise(
    "03c-temperature",
    "Turn the temperature",
    minutes=4,
    difficulty=1,
    hints=("Divide the logits, not the probabilities.", "Then softmax over the last dimension."),
    wants="function",
    form=tensor,
)
def check_temperature(answer):
    """Compare with the definition; catch dividing probabilities and multiplying."""

    def probabilities(logits, temperature):
        p = answer(logits, temperature)
        require(
            p.shape == logits.shape, f"return one probability for each logit, not the shape {tuple(p.shape)}"
        )
        return p

    slips = {
        "these are logits still: the softmax is missing": lambda x, t: x / t,
        "these are LOG-probabilities: softmax, not log_softmax": lambda x, t: (x / t).log_softmax(-1),
        "the softmax comes before the division, so yours do not sum to 1. Divide the LOGITS, then softmax": (
            lambda x, t: x.softmax(-1) / t
        ),
        "probabilities must sum to 1: divide the exponentials by their sum": lambda x, t: (x / t).exp(),
        "a temperature below 1 must sharpen; yours flattens. Divide, do not multiply": lambda x, t: (
            x * t
        ).softmax(-1),
        "the temperature has no effect in your function": lambda x, t: x.softmax(-1),
        "you take the softmax twice: divide the LOGITS, then one softmax": (
            lambda x, t: (x.softmax(-1) / t).softmax(-1),
            lambda x, t: (x / t).softmax(-1).softmax(-1),
        ),
        "you subtract the temperature, which changes nothing: divide by it": lambda x, t: (
            (x - t).exp() / x.exp().sum()
        ),
        "the smallest logit gets the largest probability: the sign is wrong": lambda x, t: (-x / t).softmax(
            -1
        ),
    }
    cases = {
        "that is not softmax(logits / temperature)": (torch.tensor([2.0, 1.0, 0.0, -1.0]), 0.5),
        "right at temperature 0.5, but not at 3": (torch.tensor([2.0, 1.0, 0.0, -1.0]), 3.0),
        "right for 4 logits, but not for 7": (torch.tensor([0.3, -2.0, 4.1, 0.0, 1.2, 2.5, -0.4]), 1.7),
    }
    examine(probabilities, lambda x, t: (x / t).softmax(-1), cases, slips, rtol=1e-4, atol=1e-5)
    return "below 1 it sharpens, above 1 it flattens, and the order of the tokens never changes."
