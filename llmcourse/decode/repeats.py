"""Writing without repeating: forbid each token that would complete a run of n tokens that stands there already."""

from torch import Tensor

from llmcourse.generate import Process
from llmcourse.support.inputs import whole


def no_repeat(n: int) -> Process:
    """Return a `process` for `generate`, `generate_target` and `beam_search` under which no n tokens come twice.

    Small models, and those that copy, fall into loops; where a text may repeat itself, as code does, this
    harms it. With n = 1 no token comes twice, not even a full stop.

    >>> import torch
    >>> no_repeat(2)(torch.tensor([[5, 7, 5]]), torch.zeros(1, 9))[0, 7]
    tensor(-inf)

    Source: Paulus et al. 2017, arXiv:1705.04304, sec. 2.5, for n = 3.
    """
    n = whole(n, "n")

    def process(token_ids: Tensor, logits: Tensor) -> Tensor:
        logits = logits.clone()
        for row, ids in enumerate(token_ids.tolist()):
            begun = ids[len(ids) - n + 1 :]
            seen = {ids[i + n - 1] for i in range(len(ids) - n + 1) if ids[i : i + n - 1] == begun}
            logits[row, list(seen)] = float("-inf")
        return logits

    return process
