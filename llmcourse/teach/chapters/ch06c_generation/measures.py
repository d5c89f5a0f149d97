"""What chapter 6c counts in texts that continue prompts.

Dimensions: B texts, T tokens, V vocabulary.
"""

import time
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from llmcourse.decode.drafts import guess
from llmcourse.decode.speculative import check_by_chance, generate_speculative, reader
from llmcourse.evaluate.diversity import distinct_n, repetition, self_bleu
from llmcourse.evaluate.likelihood import token_losses
from llmcourse.ngrams import NGramModel
from llmcourse.runtime import evaluating


class Numbers(NamedTuple):
    """Diversity of B texts, and how much a judge was surprised by them."""

    distinct_2: float
    rep_3: float
    self_bleu: float
    surprise: float  # nats per token


def surprise(judge, prompts: Tensor, rows: Tensor) -> float:
    """Return the nats per token that `judge`, a GPT or an n-gram model, needs for rows (B, T) after prompts."""
    total = 0.0
    for prompt, row in zip(prompts, rows, strict=True):
        text = torch.cat([prompt, row])
        if isinstance(judge, NGramModel):
            total -= judge.log_probabilities(text)[len(prompt) :].mean()
        else:
            total += token_losses(judge, text)[len(prompt) - 1 :].mean().item()
    return float(total / len(rows))


def numbers(judge, tokenizer, prompts: Tensor, rows: Tensor) -> Numbers:
    """Return what is counted in rows (B, T) of token ids, which continue prompts (B, T)."""
    texts = [tokenizer.decode(row) for row in rows]
    counted = distinct_n(rows, 2), repetition(rows, 3), self_bleu(texts)
    return Numbers(*counted, surprise(judge, prompts, rows))


def distance(p: np.ndarray, q: np.ndarray) -> float:
    """Return the total variation distance of two distributions (V,): half the sum of absolute differences.

    >>> distance(np.array([0.5, 0.5]), np.array([1.0, 0.0]))
    0.5
    """
    return float(np.abs(p - q).sum() / 2)


class Tried(NamedTuple):
    """What became of the guesses of a draft at one place."""

    q: np.ndarray  # (V,) the draft's own distribution
    written: np.ndarray  # (V,) shares of the tokens that were kept or drawn as a replacement
    kept: float  # share of the guesses


def keep_or_replace(p: np.ndarray, candidates: dict[int, float], n: int, seed: int) -> Tried:
    """Let a draft guess one token `n` times, by the weights of `candidates`, and a model with p (V,) check it.

    A pass over one guess gives two distributions: one to test the guess, one for the token after it. Only
    the first token that is chosen counts here, so p stands in both rows.
    """
    rng, both, written, kept = np.random.default_rng(seed), np.stack([p, p]), np.zeros_like(p), 0
    for _ in range(n):
        tokens = check_by_chance(both, [guess(candidates, len(p), 1.0, rng)], rng)
        written[tokens[0]] += 1 / n
        kept += len(tokens) == 2  # the guess and the token after it; else the replacement alone
    q = np.zeros_like(p)
    q[list(candidates)] = list(candidates.values())
    return Tried(q / q.sum(), written, kept / n)


class Passes(NamedTuple):
    """What speculation needed for some texts."""

    tokens_a_pass: float
    kept_share: float
    seconds: float  # of the processor, so that other programs do not count


def passes(model, prompts: Tensor, n_new: int, seed: int, **options) -> Passes:
    """Continue each prompt by speculation, and return tokens a pass, the share of guesses kept, seconds."""
    start = time.process_time()
    runs = [
        generate_speculative(model, row, n_new, seed=seed + i, **options) for i, row in enumerate(prompts)
    ]
    seconds = time.process_time() - start
    written, n_passes, proposed, accepted = (
        sum(getattr(run, name) for run in runs) for name in ("written", "passes", "proposed", "accepted")
    )
    return Passes(written / n_passes, accepted / max(1, proposed), seconds)


@torch.no_grad()
def prices(model, prompt: Tensor, counts: list[int]) -> dict[int, float]:
    """Return for each count the seconds of the processor that one pass over so many tokens behind a prompt takes.

    The counts take turns, and the quickest turn of each is returned: other programs slow all of them down.
    """
    best = dict.fromkeys(counts, float("inf"))
    with evaluating(model):
        read = reader(model, prompt)
        for _ in range(25):
            for n in counts:
                start = time.process_time()
                for _ in range(5):
                    read(prompt[:n], len(prompt))
                best[n] = min(best[n], (time.process_time() - start) / 5)
    return best
