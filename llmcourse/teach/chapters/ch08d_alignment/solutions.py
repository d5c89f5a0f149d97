"""Solutions of `08d_alignment`: a right answer to each exercise."""

import torch.nn.functional as F


def advantages(rewards):
    """Return (P, G): each reward less the mean of its group."""
    return rewards - rewards.mean(dim=1, keepdim=True)


def reward(prompt, answer):
    """Return 1 for the letters of the prompt turned round, with the end, and 0 for any other answer."""
    return float(answer == prompt[:-1][::-1] + ".")


def divergence(log_probs, reference):
    """Return an estimate of KL(model || reference) for each token that the model drew."""
    d = reference - log_probs
    return d.exp() - 1 - d


def dpo(log_probs, reference, beta):
    """Return the mean loss of pairs (B, 2), the chosen answers first."""
    rewards = beta * (log_probs - reference)
    return -F.logsigmoid(rewards[:, 0] - rewards[:, 1]).mean()


SOLUTIONS = {
    "08d-advantages": advantages,
    "08d-reward": reward,
    "08d-divergence": divergence,
    "08d-dpo": dpo,
}
