"""Solutions of `08c_safety`: a right answer to each exercise."""

import math


def flag_precision(share, recall, false_alarms):
    """Return which share of the flagged texts is bad, where `share` of all texts is."""
    found = share * recall
    alarms = (1 - share) * false_alarms
    return found / (found + alarms)


def exposure(losses, planted):
    """Return the exposure in bits of candidate `planted` among the candidates with these losses (N,)."""
    smaller = (losses < losses[planted]).sum().item()
    same = (losses == losses[planted]).sum().item()  # itself included
    rank = smaller + (same + 1) / 2
    return math.log2(len(losses)) - math.log2(rank)


def private_gradient(gradients, C, sigma, noise):
    """Return the gradient (P,) of DP-SGD: each row of (B, P) clipped to C, noise on the sum, then the mean."""
    norms = gradients.norm(dim=1, keepdim=True)
    clipped = gradients * (C / norms.clamp_min(1e-12)).clamp(max=1)
    return (clipped.sum(dim=0) + sigma * C * noise) / len(gradients)


def refusal_rates(transcripts, refusal):
    """Return the shares of forbidden and of allowed requests that are refused."""
    rates = []
    for kind in (True, False):
        answers = [answer for forbidden, answer in transcripts if forbidden == kind]
        rates.append(sum(answer == refusal for answer in answers) / len(answers))
    return rates


SOLUTIONS = {
    "08c-base-rate": flag_precision,
    "08c-exposure": exposure,
    "08c-clip": private_gradient,
    "08c-refusals": refusal_rates,
}
