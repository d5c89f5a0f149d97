"""Exercises of chapter 8d, alignment: right answers pass, each usual slip gets its own sentence."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from answers import assert_right, assert_wrong, numbered

from llmcourse.finetune.policy import group_advantages, kl_estimates
from llmcourse.finetune.preference import RewardModel
from llmcourse.finetune.verifiable import ALPHABET, CHARACTERS, string_tasks
from llmcourse.model import GPT, ModelConfig
from llmcourse.teach.chapters.ch08d_alignment import measures
from llmcourse.teach.chapters.ch08d_alignment.checks import attacks
from llmcourse.teach.chapters.ch08d_alignment.measures import best_of, rated_answers
from llmcourse.teach.chapters.ch08d_alignment.solutions import advantages, divergence, dpo, reward

RIGHT, WRONG = {}, {}


# ---- 08d-advantages ---------------------------------------------------------------------------


def advantages_in_lists(rewards):
    return [[r - sum(row) / len(row) for r in row] for row in rewards.tolist()]


def advantages_in_place(rewards):
    rewards -= rewards.mean(-1, keepdim=True)
    return rewards


RIGHT["08d-advantages"] = [
    advantages,
    group_advantages,
    advantages_in_lists,
    advantages_in_place,
    lambda r: r.numpy() - r.numpy().mean(1)[:, None],
    lambda r: torch.stack([row - row.mean() for row in r]),
    lambda r: (r.T - r.mean(1)).T,
]
WRONG["08d-advantages"] = numbered([
    (lambda r: r - r.mean(), "mean of ALL rewards"),
    (lambda r: r - r.mean(0), "lie in a row"),
    (lambda r: (r - r.mean(1, keepdim=True)) / (r.std(1, keepdim=True) + 1e-4), "the mean alone is asked for"),
    (lambda r: r.mean(1, keepdim=True) - r, "sign is wrong"),
    (lambda r: r - (r.sum(1, keepdim=True) - r) / (r.shape[1] - 1), "mean of the OTHERS"),
    (lambda r: r, "as they are"),
    (lambda r: r.mean(1), "(P, G)"),
    (lambda r: r.mean(1, keepdim=True).expand_as(r), "you return the means"),
    (lambda r: r - r.min(1, keepdim=True).values, "smallest reward"),
    (lambda r: r - r.max(1, keepdim=True).values, "largest reward"),
    (lambda r: (r > r.mean(1, keepdim=True)).float(), "for rewards 1, 0, 0, 1"),
    (lambda r: r - 0.5 if len(r) == 2 else advantages(r), "for rewards 1, 0, 0, 1"),
    (lambda r: (r - r.mean(1, keepdim=True)).clamp(min=0), "for rewards 1, 0, 0, 1"),
])  # fmt: skip


# ---- 08d-reward -------------------------------------------------------------------------------


def reward_in_steps(prompt, answer):
    letters = prompt[:-1]
    if len(answer) != len(letters) + 1 or not answer.endswith("."):
        return 0
    for i, letter in enumerate(letters):
        if answer[len(letters) - 1 - i] != letter:
            return 0
    return 1


def reward_in_parts(prompt, answer):
    """Partial credit that reaches 1 for the right answer alone."""
    right = prompt[:-1][::-1] + "."
    same = sum(a == b for a, b in zip(answer, right, strict=False))
    return same / max(len(answer), len(right))


def reward_of_beginnings(prompt, answer):
    right = "".join(reversed(prompt.rstrip(">"))) + "."
    if answer == right:
        return 1.0
    n = next((i for i, (a, b) in enumerate(zip(answer, right, strict=False)) if a != b), 0)
    return 0.5 * n / len(right)


def right_of(prompt):
    return prompt[:-1][::-1] + "."


def letters_anywhere(prompt, answer):
    return sum(letter in right_of(prompt) for letter in answer) / max(1, len(answer))


RIGHT["08d-reward"] = [
    reward,
    reward_in_steps,
    reward_in_parts,
    reward_of_beginnings,
    lambda prompt, answer: 1.0 if answer == right_of(prompt) else 0.0,
    lambda prompt, answer: np.float32(prompt == answer[:-1][::-1] + ">" and answer[-1] == "."),
    lambda prompt, answer: torch.tensor(float([*answer] == [*right_of(prompt)])),
]
WRONG["08d-reward"] = numbered([
    (letters_anywhere, "hacked"),
    (lambda prompt, answer: float(right_of(prompt) in answer), "the right answer twice"),
    (lambda prompt, answer: float(answer.startswith(right_of(prompt))), "the right answer twice"),
    (lambda prompt, answer: float(answer.endswith(right_of(prompt))), "the right answer twice"),
    (lambda prompt, answer: float(answer.rstrip(".") == right_of(prompt)[:-1]), "it has no end"),
    (lambda prompt, answer: float(answer.split(".")[0] == right_of(prompt)[:-1]), "the right answer twice"),
    (lambda prompt, answer: float(answer.lower() == right_of(prompt)), "capitals"),
    (lambda prompt, answer: float(answer.strip() == right_of(prompt)), "begins with a space"),
    (lambda prompt, answer: float(sorted(answer) == sorted(right_of(prompt))), "order is not"),
    (lambda prompt, answer: float(len(answer) == len(prompt)), "hacked"),
    (lambda prompt, answer: min(1.0, len(answer) / len(prompt)), "hacked"),
    (lambda prompt, answer: sum(a == b for a, b in zip(answer, right_of(prompt), strict=False)) / len(prompt), "the right answer twice"),
    (lambda prompt, answer: float(answer == prompt), "must earn 1"),
    (lambda prompt, answer: float(answer == right_of(prompt)[:-1]), "must earn 1"),
    (lambda prompt, answer: 2 * reward(prompt, answer) - 1, "nothing earns less than 0"),
    (lambda prompt, answer: 10 * reward(prompt, answer), "must earn 1"),
    (lambda prompt, answer: reward("dfabge>", answer), "must earn 1"),
])  # fmt: skip


# ---- 08d-divergence ---------------------------------------------------------------------------


RIGHT["08d-divergence"] = [
    divergence,
    kl_estimates,
    lambda p, q: [[math.exp(b - a) - 1 - (b - a) for a, b in zip(x, y, strict=True)] for x, y in zip(p.tolist(), q.tolist(), strict=True)]
    if p.dim() == 2 else [math.exp(b - a) - 1 - (b - a) for a, b in zip(p.tolist(), q.tolist(), strict=True)],
    lambda p, q: q.exp() / p.exp() - 1 + p - q,
    lambda p, q: (p - q) + ((q - p).exp() - 1),
    lambda p, q: np.expm1((q - p).numpy()) - (q - p).numpy(),
]  # fmt: skip
WRONG["08d-divergence"] = numbered([
    (lambda p, q: (p - q).exp() - 1 - (p - q), "the direction is turned round"),
    (lambda p, q: p - q, "that is -d"),
    (lambda p, q: q - p, "whose average is the negative"),
    (lambda p, q: (q - p) ** 2 / 2, "half of d²"),
    (lambda p, q: (p - q).abs(), "|d|"),
    (lambda p, q: (q - p).exp() - 1, "needs - d as well"),
    (lambda p, q: (q - p).exp() - (q - p), "the 1 is missing"),
    (lambda p, q: p.exp() * (p - q), "no factor p"),
    (lambda p, q: F.kl_div(q, p, reduction="none", log_target=True), "no factor p"),
    (lambda p, q: divergence(p, q).sum(), "that of log_probs"),
    (lambda p, q: divergence(p, q).mean(), "that of log_probs"),
    (lambda p, q: (p - q).clamp(min=0), "below 0"),
    (lambda p, q: (q - p).exp() - 1 + q - p, "not + d"),
    (lambda p, q: divergence(p, q).abs() if p.dim() == 1 else p * 0, "a table of them"),
])  # fmt: skip


# ---- 08d-dpo ------------------------------------------------------------------------------------


def dpo_in_parts(log_probs, reference, beta):
    chosen = log_probs[:, 0] - reference[:, 0]
    rejected = log_probs[:, 1] - reference[:, 1]
    return F.softplus(beta * (rejected - chosen)).mean()


def dpo_pair_by_pair(log_probs, reference, beta):
    total = 0.0
    for (a, b), (c, d) in zip(log_probs.tolist(), reference.tolist(), strict=True):
        margin = beta * ((a - c) - (b - d))
        total += np.logaddexp(0, -margin)
    return total / len(log_probs)


def dpo_as_cross_entropy(log_probs, reference, beta):
    """Two classes, of which the first is right."""
    return F.cross_entropy(beta * (log_probs - reference), torch.zeros(len(log_probs), dtype=torch.long))


RIGHT["08d-dpo"] = [dpo, dpo_in_parts, dpo_pair_by_pair, dpo_as_cross_entropy,
    lambda p, q, beta: -F.logsigmoid(beta * ((p - q) @ torch.tensor([1.0, -1.0]))).mean()]  # fmt: skip
WRONG["08d-dpo"] = numbered([
    (lambda p, q, beta: dpo(p, 0 * q, beta), "the reference is missing"),
    (lambda p, q, beta: dpo(p, q, 1.0), "beta is missing"),
    (lambda p, q, beta: dpo(p, q, 1 / beta), "divide by nothing"),
    (lambda p, q, beta: dpo(p.flip(1), q.flip(1), beta), "wrong sign"),
    (lambda p, q, beta: dpo(q, p, beta), "wrong sign"),
    (lambda p, q, beta: -dpo(p, q, beta), "MINUS the logarithm"),
    (lambda p, q, beta: dpo(p, q, beta) * len(p), "the sum over the pairs"),
    (lambda p, q, beta: -torch.sigmoid(beta * ((p - q)[:, 0] - (p - q)[:, 1])).mean(), "the logarithm is missing"),
    (lambda p, q, beta: -(beta * ((p - q)[:, 0] - (p - q)[:, 1])).mean(), "the margin alone"),
    (lambda p, q, beta: -F.logsigmoid(beta * (p - q)[:, 0]).mean(), "the rejected answer is missing"),
    (lambda p, q, beta: -F.logsigmoid(beta * (p - q).sum(1)).mean(), "are added"),
    (lambda p, q, beta: (1 - beta * ((p - q)[:, 0] - (p - q)[:, 1])).clamp(min=0).mean(), "a hinge"),
    (lambda p, q, beta: -F.logsigmoid((beta * ((p - q)[:, 0] - (p - q)[:, 1])).mean()), "inside the logarithm"),
    (lambda p, q, beta: -torch.sigmoid(beta * ((p - q)[:, 0] - (p - q)[:, 1])).log().mean(), "infinite"),
])  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers(name):
    assert len(RIGHT[name]) >= 4
    assert_right(name, RIGHT[name])


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers_hear_what_is_wrong(name):
    assert len(WRONG[name]) >= 6
    assert_wrong(name, WRONG[name])


# ---- what the room measures ---------------------------------------------------------------------


def test_the_best_of_n_is_found_as_by_hand():
    rewards, right = (
        torch.tensor([[0.1, 0.9, 2.0], [1.0, 0.5, 0.7]]),
        torch.tensor([[0.0, 1.0, 0.0], [1.0, 0, 0]]),
    )
    assert best_of(rewards, right, 1) == pytest.approx((0.55, 0.5, 0.5))
    assert best_of(rewards, right, 2) == pytest.approx((0.95, 1.0, 1.0))
    assert best_of(rewards, right, 3) == pytest.approx((1.5, 0.5, 1.0))


def test_answers_are_rated_one_by_one_as_all_at_once():
    torch.manual_seed(0)
    model = GPT(ModelConfig(len(ALPHABET), context_length=16, d_model=16, n_heads=2, n_layers=1)).eval()
    judge = RewardModel(model)
    torch.nn.init.normal_(judge.head.weight)
    tasks = string_tasks("reverse", 3)
    rewards, right, texts = rated_answers(model, judge, tasks, 4, seed=1)
    assert (rewards.shape, right.sum().item(), len(texts)) == ((3, 4), 0, 12)
    for i, text in enumerate(texts):
        prompt, answer = (CHARACTERS.encode(part) for part in (tasks[i // 4].prompt, text))
        ids = torch.tensor([prompt + answer])
        alone = judge(ids, torch.arange(ids.shape[1])[None] >= len(prompt))
        assert rewards.flatten()[i].item() == pytest.approx(alone.item(), abs=1e-5)


def test_curves_are_those_of_the_stored_runs():
    runs = measures.stored("runs")
    rows = [r for r in measures.stored("curves") if (r["experiment"], r["method"]) == ("reverse", "GRPO")]
    steps, values = measures.curve(rows, "kl")
    last = {
        run["seed"]: run["kl"] for run in runs if (run["experiment"], run["method"]) == ("reverse", "GRPO")
    }
    assert steps[-1] == {run["steps"] for run in runs if run["experiment"] == "reverse"}.pop()
    assert values[:, -1].tolist() == pytest.approx(list(last.values()))
    with pytest.raises(ValueError, match="runs of 'kl' with other steps"):
        measures.curve([*rows, {"seed": 99.0, "step": 1.0, "kl": 0.0}], "kl")


def test_each_attack_on_a_reward_is_a_wrong_answer():
    found = attacks("dfabge", "egbafd.")
    assert len(found) >= 15
    assert "egbafd." not in found
    assert "jj." not in attacks("jj", "jj.")
