"""Solutions of `05b_tensorboard`: a right answer to each exercise."""

import math

from llmcourse.monitor.tensorboard import update_ratio


def first_step_below(curve, limit):
    """First step of (steps, values) whose value is below the limit, or infinity."""
    for step, value in zip(*curve, strict=True):
        if value < limit:
            return step
    return math.inf


def smooth(values, weight):
    """Running mean with weight `weight` on the past, corrected for its start at zero."""
    mean, smoothed = 0.0, []
    for count, value in enumerate(values, start=1):
        mean = weight * mean + (1 - weight) * value
        smoothed.append(mean / (1 - weight**count))
    return smoothed


SOLUTIONS = {
    "05b-first": first_step_below,
    "05b-disease": "DCAB",
    "05b-ratio": update_ratio,
    "05b-smooth": smooth,
}
