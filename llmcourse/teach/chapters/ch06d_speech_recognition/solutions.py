"""Solutions of `06d_speech_recognition`: a right answer to each exercise."""

import torch


def collapse(frames):
    """Return what an alignment reads: repeats merged, then blanks (0) dropped."""
    text, before = [], 0
    for label in frames:
        if label not in (0, before):
            text.append(label)
        before = label
    return text


def forward_step(alpha, states, p):
    """Return the probabilities (S,) of the states after one more frame, which gives the labels p (K,)."""
    new = torch.zeros_like(alpha)
    for s in range(len(states)):
        total = alpha[s]
        if s >= 1:
            total = total + alpha[s - 1]
        if s >= 2 and states[s] != 0 and states[s] != states[s - 2]:
            total = total + alpha[s - 2]
        new[s] = total * p[states[s]]
    return new


def normalize(features):
    """Return features (T, M) with mean 0 and deviation 1 in each band."""
    return (features - features.mean(dim=0)) / features.std(dim=0, correction=0)


SOLUTIONS = {"06d-collapse": collapse, "06d-forward": forward_step, "06d-normalize": normalize}
