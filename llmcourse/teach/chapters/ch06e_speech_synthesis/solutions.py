"""Solutions of `06e_speech_synthesis`: a right answer to each exercise."""

import math
from itertools import pairwise

import torch


def durations_of_spikes(places):
    """Return how many frames each label of an alignment lasts, cut midway between the spikes."""
    cuts, last = [0], None
    for frame, place in enumerate(places):
        if place < 0:
            continue
        if last is not None and place != places[last]:
            cuts.append((last + 1 + frame + 1) // 2)
        last = frame
    cuts.append(len(places))
    return [end - begin for begin, end in pairwise(cuts)]


def lengthen(states, durations):
    """Return the frames (T, C): state l of (L, C) stands durations[l] times, in order."""
    return states.repeat_interleave(durations, dim=0)


def put_strengths_back(strengths, real, imaginary):
    """Return (real, imaginary) parts (2, T, F) with these strengths and the angles of the spectrum found."""
    angles = torch.atan2(imaginary, real)
    return torch.stack([strengths * angles.cos(), strengths * angles.sin()])


def decibels(a, b):
    """Return the mel-cepstral distortion in dB of two rows of cepstra (T, D), the mean over the frames."""
    squares = (a - b).square().sum(dim=1)
    return (10 / math.log(10) * (2 * squares).sqrt()).mean()


SOLUTIONS = {
    "06e-durations": durations_of_spikes,
    "06e-expand": lengthen,
    "06e-phases": put_strengths_back,
    "06e-distortion": decibels,
}
