"""Solutions of `02_core_concepts`: a right answer to each exercise."""

import torch


def prefix_mask(n_source, n_target):
    """True where a row may look: the source sees the source, targets see the source and the past."""
    T = n_source + n_target
    mask = torch.ones(T, T, dtype=torch.bool).tril()
    mask[:, :n_source] = True
    return mask


def continuation_log_probability(logits, token_ids, n_prompt):
    """The log-probability of token_ids[n_prompt:], each token given all before it."""
    log_probabilities = torch.as_tensor(logits).log_softmax(dim=-1)[n_prompt - 1 : -1]
    targets = torch.as_tensor(token_ids)[n_prompt:]
    return log_probabilities.gather(1, targets[:, None]).sum()


def paired_difference(a, b):
    """(mean, standard error) of the paired differences a - b."""
    differences = torch.as_tensor(a, dtype=torch.float64) - torch.as_tensor(b, dtype=torch.float64)
    return differences.mean().item(), (differences.std() / len(differences) ** 0.5).item()


SOLUTIONS = {
    "02-mask": prefix_mask,
    "02-likelihood": continuation_log_probability,
    "02-points": paired_difference,
}
