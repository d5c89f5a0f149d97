"""Exercises of chapter 8d: advantages, a reward that cannot be hacked, an estimate of the divergence, and DPO."""

import torch
import torch.nn.functional as F

from llmcourse.teach.examine import examine
from llmcourse.teach.exercises import exercise, require
from llmcourse.teach.forms import number, tensor


def normal(*shape, seed):
    """Return numbers that are always the same."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@exercise(
    "08d-advantages",
    "Compare within the group",
    minutes=4,
    difficulty=1,
    hints=(
        "rewards.mean(dim=1, keepdim=True) has the mean of each group, (P, 1), and subtracts row by row.",
        "Groups are rows: dimension 1 runs over the answers to one prompt.",
    ),
    wants="function",
    form=tensor,
)
def check_advantages(answer):
    """Compare with the rows centred; tell other means and scales apart."""

    def centred(mean=lambda r: r.mean(1, keepdim=True), then=lambda a, r: a):
        return lambda rewards: then(rewards - mean(rewards), rewards)

    def others(r):
        return (r.sum(1, keepdim=True) - r) / (r.shape[1] - 1)

    cases = {
        "for rewards 1, 0, 0, 1 and 0, 0, 0, 1 it is {right}; yours is {value}": (
            torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 1.0]]),
        ),
        "right for rewards of 0 and 1, but not for others, some below 0": (normal(3, 5, seed=1),),
        "where all answers to a prompt earned the same, nothing is to be learned: their advantages are 0": (
            torch.tensor([[0.1, 0.1, 0.1], [1.0, 2.0, 6.0]]),
        ),
        "right for several prompts, but not for one": (normal(1, 6, seed=2),),
    }
    slips = {
        "you subtract the mean of ALL rewards: a hard prompt's answers are then all below it": centred(
            lambda r: r.mean()
        ),
        "that is the mean over the prompts: the answers to one prompt lie in a row, dimension 1": centred(
            lambda r: r.mean(0, keepdim=True)
        ),
        "divided by the spread as well: leave it out, the mean alone is asked for": (
            centred(then=lambda a, r: a / (r.std(1, keepdim=True) + 1e-4)),
            centred(then=lambda a, r: a / (r.std(1, keepdim=True, correction=0) + 1e-4)),
            centred(then=lambda a, r: a / (r.std(1, keepdim=True) + 1e-8)),
        ),
        "the sign is wrong: a better answer than the others has an advantage above 0": centred(
            then=lambda a, r: -a
        ),
        "each answer is compared with the mean of the OTHERS in yours; here the mean is that of the whole group": (
            lambda r: r - others(r)
        ),
        "you return the means: take them off the rewards": lambda r: r.mean(1, keepdim=True).expand_as(r),
        "you return the rewards as they are: what is common to the group has to go": lambda r: r,
        "you subtract the group's smallest reward: its mean is meant": centred(
            lambda r: r.amin(1, keepdim=True)
        ),
        "you subtract the group's largest reward: its mean is meant": centred(
            lambda r: r.amax(1, keepdim=True)
        ),
        "you subtract the group's median: its mean is meant": centred(
            lambda r: r.median(1, keepdim=True).values
        ),
    }
    examine(answer, centred(), cases, slips, "(P, G)")
    return "rewards less their group's mean: a prompt that is always or never answered right teaches nothing."


@exercise(
    "08d-reward",
    "Write a reward that cannot be hacked",
    minutes=6,
    difficulty=2,
    hints=(
        "The letters are prompt[:-1]; the right answer is prompt[:-1][::-1] + '.'.",
        "Whoever earns less for a part of it must never reach 1: compare the whole text, its end included.",
    ),
    wants="function",
    form=number,
)
def check_reward(answer):
    """Try to earn the whole reward with what is wrong, as a policy would."""
    for prompt in ("dfabge>", "abcdef>", "aab>", "jj>", "hcgdiafb>"):
        letters = prompt[:-1]
        right = letters[::-1] + "."
        value = answer(prompt, right)
        require(
            abs(value - 1) < 1e-6,
            f"the right answer to {prompt!r}, {right!r}, must earn 1; yours gives it {value:g}",
        )
        for text, what in attacks(letters, right).items():
            value = answer(prompt, text)
            require(value >= 0, f"{text!r} earns {value:g} for {prompt!r}: nothing earns less than 0")
            require(value < 1 - 1e-3, f"hacked: {text!r} earns {value:.4g} for {prompt!r}, and {what}")
    return "only the right answer earns 1, and nothing that we tried comes as high."


def attacks(letters: str, right: str) -> dict[str, str]:
    """Return wrong answers to a prompt of `letters`, and what is wrong with each."""
    end = right[-1:]
    turned = right[:-1]
    found = {
        right * 2: "it is the right answer twice",
        turned: "it has no end",
        turned + end * 2: "it goes on after its end",
        turned[0] * len(turned) + end: "it is one letter again and again",
        turned[0] + end: "it is one letter",
        "": "it is empty",
        end: "it is the end alone",
        end * len(right): "it is nothing but ends",
        "".join(sorted(letters)) + end: "its letters are right and their order is not",
        letters + end: "it is the prompt, not turned round",
        "z" + right: "it begins with another letter",
        right + turned: "it goes on after its end",
        turned[:-1] + end: "a letter is missing",
        turned + turned[-1] + end: "a letter is there twice",
        turned[:-1] + ("a" if turned[-1] != "a" else "b") + end: "its last letter is wrong",
        "abcdefghij" * 3 + right: "it writes everything, and the right answer too",
        right.upper(): "it is in capitals",
        right[::-1]: "it stands the wrong way round",
        " " + right: "it begins with a space",
        "\n".join((turned, end)): "it has a line break before its end",
    }
    return {text: what for text, what in found.items() if text != right}


@exercise(
    "08d-divergence",
    "Estimate a divergence that is never negative",
    minutes=6,
    difficulty=2,
    hints=(
        "d = reference - log_probs is the logarithm of a ratio of probabilities; the ratio itself is d.exp().",
        "On average over what the model draws, the ratio is 1. So ratio - 1 has the average 0, and may be added.",
        "d.exp() - 1 - d: the smallest value of e^d - 1 - d is 0, at d = 0.",
    ),
    wants="function",
    form=tensor,
)
def check_divergence(answer):
    """Compare with e^d - 1 - d; the usual slips are the other estimators, and the other direction."""

    def estimate(value=lambda d: d.expm1() - d, direction=1):
        return lambda log_probs, reference: value(direction * (reference - log_probs).double()).float()

    one = torch.tensor([-0.5, -1.2, -2.0]), torch.tensor([-0.7, -1.2, -0.4])
    cases = {
        "for ln p of -0.5, -1.2, -2.0, and -0.7, -1.2, -0.4 in the reference, it is {right}; yours is {value}": one,
        "right for three tokens, but not for a table of them": (
            -normal(2, 4, seed=3).abs(),
            -normal(2, 4, seed=4).abs(),
        ),
        "where both models agree, it is 0": (-normal(4, seed=5).abs(), -normal(4, seed=5).abs()),
        "right where the two are near, but not where they are far apart": (
            torch.tensor([-0.1, -6.0]),
            torch.tensor([-5.0, -0.2]),
        ),
    }
    slips = {
        "the direction is turned round: d is the REFERENCE's ln p less the model's": estimate(direction=-1),
        "that is -d: right on average, but it may be negative; add what is 0 on average, e^d - 1": estimate(
            lambda d: -d
        ),
        "that is d, whose average is the negative divergence: e^d - 1 - d is wanted": estimate(lambda d: d),
        "half of d² is never negative, but its average is not the divergence": estimate(lambda d: d * d / 2),
        "d² is never negative, but its average is not the divergence": estimate(lambda d: d * d),
        "|d| is never negative, but its average is not the divergence": estimate(lambda d: d.abs()),
        "e^d - 1 has the average 0: the estimate needs - d as well": estimate(lambda d: d.expm1()),
        "the 1 is missing: where both agree, e^d - d is 1 and not 0": estimate(lambda d: d.exp() - d),
        "add up nothing: a value for each token is wanted": lambda p, q: estimate()(p, q).sum(),
        "no mean: a value for each token is wanted": lambda p, q: estimate()(p, q).mean(),
        "- d, not + d: e^d - 1 + d may be negative": estimate(lambda d: d.expm1() + d),
        "the probabilities are weighed in already, by drawing: no factor p belongs here": (
            lambda p, q: p.exp() * (p - q),
            lambda p, q: F.kl_div(q, p, reduction="none", log_target=True),
        ),
        "you cut off what is below 0: the average is then too large": estimate(lambda d: (-d).clamp(min=0)),
    }
    examine(answer, estimate(), cases, slips, "that of log_probs", rtol=1e-4, atol=1e-5)
    return "never negative, 0 where both agree, and on average the divergence."


@exercise(
    "08d-dpo",
    "Turn a preference into a loss",
    minutes=8,
    difficulty=2,
    hints=(
        "The implicit rewards are beta * (log_probs - reference), (B, 2): chosen in column 0, rejected in column 1.",
        "The margin is the chosen reward less the rejected one, (B,).",
        "-F.logsigmoid(margin).mean(): with log(sigmoid(...)) a large negative margin gives infinity.",
    ),
    wants="function",
    form=number,
)
def check_dpo(answer):
    """Compare with the loss of the paper; each usual slip has a sentence."""

    def loss(
        rewards=lambda now, before, beta: beta * (now - before),
        margin=lambda r: r[:, 0] - r[:, 1],
        value=lambda m: -F.logsigmoid(m).mean(),
    ):
        def function(log_probs, reference, beta):
            return value(margin(rewards(log_probs.double(), reference.double(), beta))).item()

        return function

    two = torch.tensor([[-3.0, -5.0], [-4.0, -2.5]]), torch.tensor([[-3.5, -4.0], [-4.5, -4.2]])
    far = torch.tensor([[-900.0, -10.0]]), torch.tensor([[-10.0, -900.0]])
    cases = {
        "for the two pairs of the task and beta 0.5 it is {right}; yours is {value}": (*two, 0.5),
        "right for two pairs, but not for five of longer answers and beta 0.1: {right}, not {value}": (
            8 * normal(5, 2, seed=6) - 20,
            8 * normal(5, 2, seed=7) - 20,
            0.1,
        ),
        "where nothing has moved, it is ln 2 = 0.6931, whatever beta is; yours is {value}": (
            two[0],
            two[0],
            3.0,
        ),
        "right for usual numbers, but not for a margin of -1780, where it is 1780: take F.logsigmoid": (
            *far,
            1.0,
        ),
    }
    slips = {
        "the reference is missing: how much each answer has MOVED is compared": loss(
            lambda n, b, beta: beta * n
        ),
        "beta is missing": loss(lambda n, b, beta: n - b),
        "divide by nothing: beta is a factor of the log-ratio": loss(lambda n, b, beta: (n - b) / beta),
        "the margin has the wrong sign: chosen less rejected, and now less reference": loss(
            margin=lambda r: r[:, 1] - r[:, 0]
        ),
        "the sign of the loss is wrong: it is MINUS the logarithm": loss(
            value=lambda m: F.logsigmoid(m).mean()
        ),
        "that is the sum over the pairs: their mean is asked for": loss(
            value=lambda m: -F.logsigmoid(m).sum()
        ),
        "the logarithm is missing: -σ(margin) is no log-likelihood": (
            loss(value=lambda m: -m.sigmoid().mean()),
            loss(value=lambda m: (1 - m.sigmoid()).mean()),
        ),
        "that is the margin alone, without bound: put it into -ln σ": (
            loss(value=lambda m: -m.mean()),
            loss(value=lambda m: m.mean()),
        ),
        "the rejected answer is missing: the difference of the two is compared": loss(
            margin=lambda r: r[:, 0]
        ),
        "the two rewards are added in yours: their difference is compared": loss(
            margin=lambda r: r[:, 0] + r[:, 1]
        ),
        "that is a hinge: the loss is -ln σ of the margin": loss(value=lambda m: (1 - m).clamp(min=0).mean()),
        "the mean is taken inside the logarithm: each pair has a loss of its own": loss(
            value=lambda m: -F.logsigmoid(m.mean())
        ),
    }
    examine(answer, loss(), cases, slips, rtol=1e-4, atol=1e-5)
    return "ln 2 where nothing has moved, and nearly linear in the margin where it is wrong."
