"""Which tokens of a text made a classifier decide as it did: integrated gradients.

Dimensions: T tokens, C width (d_model), K classes, S steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from llmcourse.finetune.classify import GPTClassifier
from llmcourse.generate import prompt_batch
from llmcourse.interpret.hooks import hooked, record
from llmcourse.runtime import evaluating
from llmcourse.support.inputs import whole


@dataclass(frozen=True)
class Attribution:
    """What each token adds to the logit of a class, against a baseline that says nothing."""

    scores: Tensor  # (T,)
    logit: float  # of the class, for the text
    baseline_logit: float  # and for the baseline

    @property
    def gap(self) -> float:
        """How much the sum of the scores misses logit - baseline_logit: 0 with enough steps (completeness)."""
        return self.scores.sum().item() - (self.logit - self.baseline_logit)


def integrated_gradients(
    classifier: GPTClassifier, token_ids, target: int, baseline, n_steps: int = 64
) -> Attribution:
    """Return what each token of one text (T,) adds to the logit of class `target`.

    The embeddings, positions added, go from the baseline to those of the text on a straight line; the gradient along
    it is integrated by Gauss and Legendre's rule with `n_steps` points, and multiplied by the way. The
    `baseline` says what counts as nothing, and is part of the answer: a token id that stands everywhere, such as
    the end token, or as many ids as the text has; a token equal to the baseline's gets 0. None is embeddings of
    zeros, the default of captum: not to be trusted in a model with norms, which make large numbers of any that
    are not 0, so that of several layers the sum is missed however many steps there are. Look at `gap`. Raises
    ValueError for an unknown class, for a baseline of another length, and as `record` does.

    >>> from llmcourse.config import ModelConfig
    >>> from llmcourse.model import GPT
    >>> _ = torch.manual_seed(0)
    >>> classifier = GPTClassifier(GPT(ModelConfig(vocab_size=10, d_model=16, n_layers=1)))
    >>> _ = torch.nn.init.normal_(classifier.head.weight)
    >>> found = integrated_gradients(classifier, [1, 2, 3], target=1, baseline=0)
    >>> found.scores.shape, abs(found.gap) < 1e-3
    (torch.Size([3]), True)

    Source: Sundararajan et al. 2017, arXiv:1703.01365, eq. 1 (the integral), proposition 1 (completeness).
    """
    body, head = classifier.body, classifier.head
    if not (target == int(target) and 0 <= target < head.out_features):
        raise ValueError(f"target={target} is no class: this head has 0 to {head.out_features - 1}")
    ids = prompt_batch(token_ids, body.config.vocab_size)
    if len(ids) != 1:
        raise ValueError(f"{len(ids)} texts: give one row of token ids")
    end = record(body, ids, "embedding")["embedding"]  # (1, T, C)
    start = torch.zeros_like(end)
    if baseline is not None:
        row = [baseline] * ids.shape[1] if isinstance(baseline, int) else baseline
        start = record(body, row, "embedding")["embedding"]
        if start.shape != end.shape:
            raise ValueError(
                f"a baseline of {start.shape[1]} ids for a text of {end.shape[1]}: give one for each"
            )
    points, weights = np.polynomial.legendre.leggauss(whole(n_steps, "n_steps"))
    points = torch.from_numpy((points + 1) / 2).to(end)  # (S,), from 0 to 1
    weights = torch.from_numpy(weights / 2).to(end)
    path = start + points[:, None, None] * (end - start)  # (S, T, C)
    gradient = _gradient(classifier, ids, path, target)
    scores = ((end - start)[0] * (weights[:, None, None] * gradient).sum(dim=0)).sum(dim=-1)  # (T,)
    with torch.no_grad():
        ends = _logits(classifier, ids, torch.cat([end, start]))[:, target].tolist()
    return Attribution(scores, *ends)


def _logits(classifier: GPTClassifier, ids: Tensor, embeddings: Tensor) -> Tensor:
    """Return the logits (S, K) for embeddings (S, T, C) in the place of those of the ids."""
    ids = ids.to(embeddings.device).expand(len(embeddings), -1)
    with evaluating(classifier), hooked(classifier.body, {"embedding": lambda x: embeddings}):
        return classifier(ids, torch.ones_like(ids))


def _gradient(classifier: GPTClassifier, ids: Tensor, path: Tensor, target: int) -> Tensor:
    path = path.clone().requires_grad_()
    with torch.enable_grad():
        total = _logits(classifier, ids, path)[:, target].sum()  # rows do not mix: each gets its own gradient
    return torch.autograd.grad(total, path)[0]


def by_word(pieces: Sequence[str | bytes], scores: Tensor) -> list[tuple[str, float]]:
    """Return the words of a text with the sums of their tokens' scores; a word begins with a space or line break.

    Pieces are texts, or bytes where a token may hold a part of a letter.

    >>> by_word(["A", " du", "ll", " film", "."], torch.tensor([0.0, 0.5, 0.25, 1.0, 2.0]))
    [('A', 0.0), ('dull', 0.75), ('film.', 3.0)]
    """
    if len(pieces) != len(scores):
        raise ValueError(f"{len(pieces)} pieces and {len(scores)} scores: each token needs one of each")
    words: list[tuple[bytes, float]] = []
    for piece, score in zip(pieces, scores.tolist(), strict=True):
        piece = piece.encode() if isinstance(piece, str) else piece
        if not words or piece[:1].isspace() or words[-1][0][-1:].isspace():
            words.append((b"", 0.0))
        words[-1] = (words[-1][0] + piece, words[-1][1] + score)
    return [(word.decode(errors="replace").strip(), score) for word, score in words]
