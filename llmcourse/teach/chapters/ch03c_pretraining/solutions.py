"""Solutions of `03c_pretraining`: a right answer to each exercise."""

import math

import torch
import torch.nn.functional as F


def cross_entropy(logits, targets):
    """Mean negative log-probability of the targets: logits (T, V), targets (T,)."""
    log_probabilities = logits - logits.logsumexp(dim=-1, keepdim=True)
    return -log_probabilities[torch.arange(len(targets)), targets].mean()


def learning_rate(step, total_steps, warmup_steps, max_lr):
    """Rise linearly to max_lr during the warmup, then fall along half a cosine to 0."""
    if step < warmup_steps:
        return max_lr * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / (total_steps - warmup_steps)
    return max_lr * 0.5 * (1 + math.cos(math.pi * progress))


def with_temperature(logits, temperature):
    """Probabilities of the next token at a temperature."""
    return (logits / temperature).softmax(dim=-1)


def train_steps(model, batches, optimizer):
    """One step for each batch of (inputs, targets); the loss of each batch, before its step."""
    losses = []
    for inputs, targets in batches:
        logits = model(inputs)  # (B, T, V)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


SOLUTIONS = {
    "03c-loop": train_steps,
    "03c-loss": cross_entropy,
    "03c-bits": round(4.0 / math.log(2) / 2.5, 4),
    "03c-schedule": learning_rate,
    "03c-temperature": with_temperature,
}
