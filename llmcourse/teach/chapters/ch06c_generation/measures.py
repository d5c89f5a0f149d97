"""What chapter 6c counts in texts that continue prompts.

Dimensions: B texts, T tokens.
"""

import time
from typing import NamedTuple

import torch
from torch import Tensor

from llmcourse.decode.speculative import generate_speculative, reader
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
def price(model, prompt: Tensor, n_tokens: int) -> float:
    """Return the seconds of the processor that one pass over `n_tokens` tokens behind a prompt (T,) takes."""
    with evaluating(model):
        read, ids, blocks = reader(model, prompt), prompt[:n_tokens], []
        for _ in range(6):
            start = time.process_time()
            for _ in range(20):
                read(ids, len(prompt))
            blocks.append((time.process_time() - start) / 20)
    return min(blocks[1:])  # the first one warms up
