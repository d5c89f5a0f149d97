"""Choosing one token: from the logits of a model to the next id.

What changes logits returns logits, with -inf for a token that must not come; so all of it combines,
in any order. `choose_next` draws at the end.

Dimensions: B batch, T time, V vocabulary.
"""

import torch
from torch import Tensor

from llmcourse.support.inputs import number, whole
from llmcourse.support.outputs import no_nan, wide

NEVER = float("-inf")  # the logit of a token of probability 0


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Return logits (..., V) with all but the k largest set to -inf; what ties with the k-th stays too.

    >>> keep_top_k(torch.tensor([1.0, 3.0, 2.0]), k=2).tolist()
    [-inf, 3.0, 2.0]

    Source: Fan et al. 2018, arXiv:1805.04833, sec. 5.1.
    """
    if not (k >= 1 and k == int(k)):
        raise ValueError(f"top_k={k}: at least one token must stay; use None to keep all, or a whole number")
    threshold = logits.topk(min(int(k), logits.shape[-1]), dim=-1).values[..., -1:]
    return logits.masked_fill(logits < threshold, NEVER)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Return logits (..., V) with only the smallest set whose probability reaches `p` kept.

    The most likely token always stays. Of tokens that tie at the edge those with the larger ids
    stay, as in transformers: the set would not be the smallest with all of them.

    >>> keep_top_p(torch.tensor([0.5, 0.3, 0.2]).log(), p=0.7).isfinite().tolist()
    [True, True, False]

    Source: Holtzman et al. 2019, arXiv:1904.09751, eq. 2-3.
    """
    if not 0.0 < p <= 1.0:
        raise ValueError(f"top_p={p}: must be in (0, 1]")
    if p == 1.0:  # a rounded sum reaches 1 before the last tokens
        return logits
    ordered, order = wide(logits).sort(dim=-1)  # the least likely first
    tail = ordered.softmax(dim=-1).cumsum(dim=-1)  # probability of a token and of all that are less likely
    dropped = tail <= 1 - p  # the tokens above it reach p
    dropped[..., -1] = False
    return logits.masked_fill(torch.zeros_like(dropped).scatter(-1, order, dropped), NEVER)


def keep_min_p(logits: Tensor, p: float) -> Tensor:
    """Return logits (..., V) with only the tokens kept that are at least `p` times as likely as the likeliest.

    Where the model is sure, few tokens stay; where it is not, many. 0 keeps all of them, and 1 the
    likeliest, with its ties.

    >>> keep_min_p(torch.tensor([0.5, 0.3, 0.2]).log(), p=0.5).isfinite().tolist()
    [True, True, False]

    Source: Nguyen et al. 2024, arXiv:2407.01082, sec. 3.
    """
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"min_p={p}: must be in [0, 1], a share of the largest probability")
    probabilities = wide(logits).softmax(dim=-1)
    return logits.masked_fill(probabilities < p * probabilities.amax(dim=-1, keepdim=True), NEVER)


def penalize_repetition(token_ids: Tensor, logits: Tensor, penalty: float = 1.2, start: int = 0) -> Tensor:
    """Return logits (B, V), smaller for each token that stands in `token_ids` (B, T), however often.

    A logit above 0 is divided by `penalty`, one below is multiplied: so both fall, and both rise
    with a penalty below 1. The paper divides alone, which would lift a logit below 0; this is what
    transformers and most other libraries do. All ids count, the prompt too, but the first `start`.

    It is a `process` of `generate`: `functools.partial(penalize_repetition, penalty=1.3)`. Raises
    ValueError for a penalty that is not above 0.

    >>> penalize_repetition(torch.tensor([[0, 1]]), torch.tensor([[3.0, -1.0, 2.0]]), penalty=1.5).tolist()
    [[2.0, -1.5, 2.0]]

    Source: Keskar et al. 2019, CTRL, arXiv:1909.05858, sec. 4.1.
    """
    penalty = number(penalty, "penalty", 1e-6, wanted="a number above 0; 1 changes nothing, 1.2 is common")
    written = token_ids[:, whole(start, "start", least=0) :].to(logits.device)
    before = logits.gather(-1, written)  # (B, T)
    return logits.scatter(-1, written, torch.where(before < 0, before * penalty, before / penalty))


def next_probabilities(
    logits: Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
) -> Tensor:
    """Return the probabilities (B, V) with which `choose_next` takes each token after logits (B, V).

    The logits are divided by the temperature, then top-k, top-p and min-p drop tokens in this order,
    as in transformers. Temperature 0 (below 1e-6) gives 1 to the largest logit, the first of equals.
    Raises ValueError for NaN, and for an option that means nothing.

    >>> next_probabilities(torch.tensor([[0.0, 2.0, 1.0]]), top_k=1).tolist()
    [[0.0, 1.0, 0.0]]
    """
    check_temperature(temperature)
    logits = wide(no_nan(logits))
    if temperature < 1e-6:  # the quotient could be infinite
        return torch.zeros_like(logits).scatter(-1, logits.argmax(dim=-1, keepdim=True), 1.0)
    logits = logits / temperature
    for keep, limit in ((keep_top_k, top_k), (keep_top_p, top_p), (keep_min_p, min_p)):
        if limit is not None:
            logits = keep(logits, limit)
    return logits.softmax(dim=-1)


def check_temperature(temperature: float) -> None:
    """Raise ValueError for a temperature that is negative, infinite or NaN."""
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature={temperature}: must be >= 0; 0 is greedy, 1 the model's own")


def choose_next(
    logits: Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return the next token ids (B,) from logits (B, V): drawn, or for temperature 0 the largest.

    Options and errors are those of `next_probabilities`.

    >>> choose_next(torch.tensor([[0.0, 5.0]]), temperature=0).tolist()
    [1]
    """
    if 0 <= temperature < 1e-6:
        return no_nan(logits).argmax(dim=-1)
    probabilities = next_probabilities(logits, temperature, top_k, top_p, min_p)
    return torch.multinomial(probabilities, 1, generator=generator).squeeze(-1)
