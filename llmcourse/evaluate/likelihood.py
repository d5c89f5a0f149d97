"""How good is a language model: loss, perplexity, bits per byte, multiple choice, contamination.

A model is a GPT, or any module that maps ids to logits and has `config.context_length` and `.vocab_size`.

Dimensions: T time (context_length), S new tokens of a window (stride), N items, K options.
"""

import math
from collections.abc import Hashable, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmcourse.runtime import evaluating
from llmcourse.support.inputs import id_row, plain, whole
from llmcourse.support.outputs import no_nan, wide


def evaluate_loss(
    model: nn.Module, token_ids: Tensor, stride: int | None = None, batch_size: int = 32
) -> float:
    """Return the mean cross-entropy in nats per token over the whole row `token_ids`.

    Windows of the model's context length start every `stride` tokens (default: the context
    length, so they do not overlap); each token but the first is scored once, by the window in
    which it is new. A smaller stride gives each token more context, costs more, and is fairer
    to the model. Raises ValueError for fewer than two tokens, a table of them, and what is no id.
    """
    return token_losses(model, token_ids, stride, batch_size).mean(dtype=torch.float64).item()


@torch.no_grad()
def token_losses(
    model: nn.Module, token_ids: Tensor, stride: int | None = None, batch_size: int = 32
) -> Tensor:
    """Return (N - 1,): the loss in nats of each token but the first; `evaluate_loss` is their mean."""
    T = model.config.context_length
    S = T if stride is None else stride
    token_ids = torch.from_numpy(id_row(token_ids, model.config.vocab_size))
    if len(token_ids) < 2:
        raise ValueError(f"{len(token_ids)} tokens hold nothing to predict: give at least 2")
    if not 1 <= S <= T or int(S) != S:
        raise ValueError(f"stride={S} must be between 1 and the context of {T}")
    batch_size = whole(batch_size, "batch_size")
    device = next(model.parameters()).device
    parts = []
    starts = list(range(0, len(token_ids) - 1, S))
    full = [start for start in starts if start + T + 1 <= len(token_ids)]
    groups = [full[i : i + batch_size] for i in range(0, len(full), batch_size)]
    if len(full) < len(starts):  # the first window that reaches the end of the text, shorter
        groups.append([starts[len(full)]])
    with evaluating(model):
        for group in groups:
            rows = torch.stack([token_ids[start : start + T + 1] for start in group]).to(device)
            logits = wide(model(rows[:, :-1]))  # (B, T, V)
            losses = F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten(), reduction="none")
            losses = losses.view(len(group), -1).cpu()  # (B, T); in rows: V side by side is many times faster
            parts += [
                loss if start == 0 else loss[T - S :] for start, loss in zip(group, losses, strict=True)
            ]
    return torch.cat(parts)


def perplexity(loss: float) -> float:
    """Return e^loss: among how many equally likely tokens the model hesitates; inf beyond 1e308.

    Raises ValueError for a loss below 0, such as a log-likelihood whose sign was forgotten.

    >>> round(perplexity(math.log(8)), 6)
    8.0
    """
    if loss < -1e-3:
        raise ValueError(f"loss={loss}: a cross-entropy is not negative; is it a log-likelihood?")
    return math.exp(loss) if loss < 709.78 else float(loss) * math.inf


def bits_per_byte(loss: float, n_tokens: int, n_bytes: int) -> float:
    """Return the bits that the model needs for one byte of text: comparable across tokenizers.

    `loss` is in nats per token, for `n_tokens` tokens that spell `n_bytes` bytes. Raises ValueError
    for a text without tokens or bytes.

    >>> bits_per_byte(math.log(2), n_tokens=10, n_bytes=5)
    2.0
    """
    if not (n_tokens > 0 and n_bytes > 0):
        raise ValueError(
            f"n_tokens={n_tokens}, n_bytes={n_bytes}: the text must have at least one token and one byte"
        )
    return loss / math.log(2) * n_tokens / n_bytes


@torch.no_grad()
def multiple_choice(
    model: nn.Module, contexts: Sequence[Sequence[int]], options: Sequence[Sequence[Sequence[int]]]
) -> tuple[Tensor, Tensor]:
    """Return (log-likelihoods, lengths), each (N, K): of each option given the context of its item.

    `contexts` are N rows of token ids, `options` K rows of ids for each. A log-likelihood is in
    nats, summed over the tokens of the option; a length is their number. Choose by the sum, by
    sum / length, or by the sum minus the sum after a context that says nothing. What does not
    fit into the model's context length is cut from the left of the context.

    Options of the same ids are a tie, and have the same sum.

    Raises ValueError for an empty context or option, another number of options, an option that does
    not fit, an id outside the vocabulary, or a model that puts out NaN.
    """
    T, V, device = model.config.context_length, model.config.vocab_size, next(model.parameters()).device
    contexts = [id_row(context, V, f"contexts[{i}]") for i, context in enumerate(contexts)]
    options = [[id_row(option, V, f"options[{i}]") for option in row] for i, row in enumerate(options)]
    counts = sorted({len(row) for row in options})
    if len(contexts) != len(options) or len(counts) != 1 or counts == [0]:
        raise ValueError(
            f"{len(contexts)} contexts with {len(options)} rows of {counts} "
            "options: give the same number of options for each context, at least one"
        )
    lengths = torch.tensor([[len(option) for option in row] for row in options])
    if not all(map(len, contexts)) or lengths.min() < 1 or lengths.max() > T:
        raise ValueError(
            f"options of {int(lengths.min())} to {int(lengths.max())} tokens and contexts from "
            f"{min(map(len, contexts))}: an option has 1 to {T} tokens, a context needs at least 1"
        )
    sums = torch.zeros(lengths.shape, dtype=torch.float64)
    for i, (context, row) in enumerate(zip(contexts, options, strict=True)):
        shared = context[-(T + 1 - int(lengths[i].max())) :]
        rows = torch.zeros(len(row), len(shared) + int(lengths[i].max()), dtype=torch.long)
        for k, option in enumerate(row):  # filled up on the right, where a causal model cannot look
            rows[k, : len(shared) + len(option)] = torch.as_tensor([*shared, *option])
        with evaluating(model):
            logits = wide(
                no_nan(model(rows[:, :-1].to(device)))[:, len(shared) - 1 :]
            )  # (K, longest option, V)
        losses = F.cross_entropy(logits.transpose(1, 2), rows[:, len(shared) :].to(device), reduction="none")
        filled_up = torch.arange(losses.shape[1]) >= lengths[i, :, None]
        sums[i] = -losses.cpu().double().masked_fill(filled_up, 0.0).sum(-1)
    return sums, lengths


def ngram_overlap(
    items: Sequence[Sequence[Hashable]], documents: Iterable[Sequence[Hashable]], n: int
) -> list[float]:
    """Return for each item the share of its n-grams that occur in a document: 1.0 if all do.

    Items and documents are rows of words or token ids. An item shorter than n is one n-gram of
    its own length. Documents are read once and one at a time, so they may stream; only the
    n-grams of the items are kept in memory. Raises ValueError for n < 1 and for an empty item.

    >>> ngram_overlap(["to be or not".split()], ["I say to be or no".split()], n=2)
    [0.6666666666666666]

    Source: Brown et al. 2020, arXiv:2005.14165, app. C (13 words, any); Chowdhery et al. 2022,
    arXiv:2204.02311, sec. 8 (8 words, a share of 70 %).
    """
    items = [plain(item, "an item") for item in items]
    n = whole(n, "n", least=0)
    if n < 1 or not all(map(len, items)):
        raise ValueError(f"n={n} must be at least 1, and each item must hold a word")

    def grams(row: Sequence[Hashable], size: int) -> list[tuple]:
        return [tuple(row[i : i + size]) for i in range(len(row) - size + 1)]

    wanted = [grams(item, min(n, len(item))) for item in items]
    sizes = sorted({min(n, len(item)) for item in items})
    searched, seen = {gram for row in wanted for gram in row}, set()
    for document in documents:
        document = plain(document, "a document")
        for size in sizes:
            seen |= searched.intersection(grams(document, size))
    return [sum(gram in seen for gram in row) / len(row) for row in wanted]
