"""Solutions of `05d_failure_clinic`: a right answer to each exercise."""

import torch

from llmcourse.teach.chapters.ch05d_failure_clinic.patients import ROUNDS


@torch.no_grad()
def sees_future(model, token_ids, place):
    """Largest change of a logit before `place` when the token at `place` is changed."""
    was_training = model.training
    model.eval()
    changed = token_ids.clone()
    changed[:, place] = (changed[:, place] + 1) % model.config.vocab_size
    difference = (model(changed) - model(token_ids)).abs()[:, :place].max().item()
    model.train(was_training)
    return difference


SOLUTIONS = {
    "05d-too-good": ROUNDS["too good"],
    "05d-stuck": ROUNDS["stuck"],
    "05d-restless": ROUNDS["restless"],
    "05d-elsewhere": ROUNDS["fine in training"],
    "05d-causality": sees_future,
}
