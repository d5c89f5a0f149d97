"""The loss of direct preference optimization (DPO; Rafailov et al. 2023, arXiv:2305.18290, eq. 7) on one pair."""

import torch
import torch.nn.functional as F


@torch.no_grad()
def log_probability(model, prompt_ids: list[int], answer_ids: list[int]) -> torch.Tensor:
    """Return log p(answer | prompt), the sum over the tokens of the answer. Raises ValueError without a prompt."""
    if not prompt_ids:
        raise ValueError("the prompt has no token: the first token of an answer needs one before it")
    ids = torch.tensor([*prompt_ids, *answer_ids])
    log_p = model(ids[None])[0, :-1].log_softmax(dim=-1)  # (T - 1, V)
    return log_p[torch.arange(len(ids) - 1), ids[1:]][len(prompt_ids) - 1 :].sum()


def dpo_loss(policy, reference, prompt, chosen, rejected, beta: float = 0.1) -> float:
    """Return -log sigmoid(beta (gain of the chosen answer - gain of the rejected one)), all given as token ids.

    A gain is how much likelier the policy finds an answer than the reference does. Equal models give ln 2.
    """
    gains = [
        log_probability(policy, prompt, a) - log_probability(reference, prompt, a) for a in (chosen, rejected)
    ]
    return -F.logsigmoid(beta * (gains[0] - gains[1])).item()
