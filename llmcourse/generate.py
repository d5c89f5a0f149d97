"""Writing: choose the next token, append it, repeat.

A model is a GPT; without a cache, any module that maps ids to logits and has `config.context_length`
and `.vocab_size`.

Dimensions: B batch, T time, V vocabulary.
"""

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from llmcourse.runtime import evaluating
from llmcourse.support.inputs import id_row, plain, whole
from llmcourse.support.outputs import no_nan, wide


def build_decoder(model: nn.Module, caches: list) -> None:
    """Return a quicker step for `prefill`, or None where there is none."""


with contextlib.suppress(ImportError):  # without fast/ there is none
    from llmcourse.fast.decoding import build_decoder


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Return logits (..., V) with all but the k largest set to -inf.

    >>> keep_top_k(torch.tensor([1.0, 3.0, 2.0]), k=2).tolist()
    [-inf, 3.0, 2.0]

    Source: Fan et al. 2018, arXiv:1805.04833, sec. 5.1.
    """
    if not (k >= 1 and k == int(k)):
        raise ValueError(f"top_k={k}: at least one token must stay; use None to keep all, or a whole number")
    threshold = logits.topk(min(int(k), logits.shape[-1]), dim=-1).values[..., -1:]
    return logits.masked_fill(logits < threshold, float("-inf"))


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Return logits (..., V) with only the smallest set whose probability reaches `p` kept.

    >>> keep_top_p(torch.tensor([0.5, 0.3, 0.2]).log(), p=0.7).isfinite().tolist()
    [True, True, False]

    Source: Holtzman et al. 2019, arXiv:1904.09751, eq. 2-3.
    """
    if not 0.0 < p <= 1.0:
        raise ValueError(f"top_p={p}: must be in (0, 1]")
    if p == 1.0:  # a rounded sum reaches 1 before the last tokens
        return logits
    ordered, order = wide(logits).sort(dim=-1, descending=True)
    probabilities = ordered.softmax(dim=-1)
    before = probabilities.cumsum(dim=-1) - probabilities  # probability of the tokens above
    dropped = torch.zeros_like(before, dtype=torch.bool).scatter(-1, order, before >= p)
    return logits.masked_fill(dropped, float("-inf"))


def choose_next(logits, temperature=1.0, top_k=None, top_p=None, generator=None) -> Tensor:
    """Return the next token ids (B,) from logits (B, V); temperature 0 (below 1e-6) takes the largest.

    >>> choose_next(torch.tensor([[0.0, 5.0]]), temperature=0).tolist()
    [1]
    """
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature={temperature}: must be >= 0; 0 is greedy, 1 the model's own")
    logits = no_nan(logits)
    if temperature < 1e-6:  # the quotient could be infinite
        return logits.argmax(dim=-1)
    logits = wide(logits) / temperature
    if top_k is not None:
        logits = keep_top_k(logits, top_k)
    if top_p is not None:
        logits = keep_top_p(logits, top_p)
    return torch.multinomial(logits.softmax(dim=-1), 1, generator=generator).squeeze(-1)


def prompt_rows(token_ids, vocab_size: int) -> Tensor:
    """Return prompts as (B, T) token ids: from one row of ids, or from rows of equal length.

    Raises ValueError for a prompt without a token, for unequal lengths, and for what is no id.

    >>> prompt_rows([5, 6], vocab_size=10).tolist()
    [[5, 6]]
    """
    if isinstance(token_ids, str):
        raise ValueError(f"the prompt is {token_ids[:30]!r}: give its ids, tokenizer.encode(text)")
    rows = plain(token_ids, "the prompt")
    rows = rows if rows and isinstance(rows[0], list | tuple) else [rows]
    rows = [id_row(row, vocab_size, f"prompt {i}") for i, row in enumerate(rows)]
    lengths = sorted({len(row) for row in rows})
    if lengths[0] == 0:
        raise ValueError("the prompt has no token: give at least one, such as <|endoftext|>")
    if len(lengths) > 1:
        raise ValueError(
            f"the prompts have {', '.join(map(str, lengths))} tokens: rows of one batch are equally long; "
            "let the model write after one prompt at a time, or after those of equal length"
        )
    return torch.from_numpy(np.stack(rows))


@torch.no_grad()
def prefill(model: nn.Module, token_ids: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Read a prompt (B, T) into a cache; return the logits (B, V) after it, and a function for what follows.

    The function maps the next ids (B,) to the logits (B, V) after them, until the context is
    full: then it raises ValueError. No gradient is kept, and there is no dropout.

    >>> from llmcourse.model import GPT, ModelConfig
    >>> model = GPT(ModelConfig(vocab_size=10, d_model=16, n_layers=1)).eval()
    >>> logits, step = prefill(model, torch.tensor([[1, 2, 3]]))
    >>> torch.allclose(step(torch.tensor([4])), model(torch.tensor([[1, 2, 3, 4]]))[:, -1], atol=1e-6)
    True
    """
    caches = model.make_caches(len(token_ids))

    @torch.no_grad()
    def read(ids: Tensor) -> Tensor:
        with evaluating(model):
            return model(ids, caches=caches)[:, -1]

    logits, step = read(token_ids), lambda new: read(new[:, None])
    return logits, build_decoder(model, caches) or step


@torch.no_grad()
def generate_tokens(
    model: nn.Module,
    token_ids: Tensor,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    use_cache: bool = True,
) -> Iterator[Tensor]:
    """Yield the next token ids (B,), one step after another, after the prompt (B, T).

    With the cache each step computes one position instead of all of them; logits are equal.
    When the context is full, its older half is dropped; of a prompt that is longer, the last
    context_length tokens are read. Raises ValueError for prompts as `prompt_rows` does, and for
    options that mean nothing.
    """
    token_ids = prompt_rows(token_ids, model.config.vocab_size)
    max_new_tokens = whole(max_new_tokens, "max_new_tokens", least=0)
    device = next(model.parameters()).device
    generator = None if seed is None else torch.Generator(device).manual_seed(seed)
    limit = model.config.context_length
    window, written, step = token_ids[:, -limit:].to(device), [], None
    with evaluating(model):
        for _ in range(max_new_tokens):
            if step is not None and window.shape[-1] + len(written) <= limit:
                logits = step(written[-1])  # (B, V)
            else:
                window, written = torch.cat([window, *(new[:, None] for new in written)], dim=-1), []
                if window.shape[-1] > limit:
                    window = window[:, -(limit // 2 + 1) :]
                if use_cache:
                    logits, step = prefill(model, window)
                else:
                    logits = model(window)[:, -1]
            written.append(choose_next(logits, temperature, top_k, top_p, generator))  # (B,)
            yield written[-1]


def generate(model: nn.Module, token_ids, max_new_tokens: int, stop_id=None, **options) -> Tensor:
    """Return the prompt and its continuation, (B, T + new); `options` are those of `generate_tokens`.

    With `stop_id`, a row that has written it is filled with it, and when all rows have, it ends.

    >>> from llmcourse.model import GPT, ModelConfig
    >>> model = GPT(ModelConfig(vocab_size=10, d_model=16, n_layers=1))
    >>> generate(model, [1, 2], max_new_tokens=3, seed=0).shape
    torch.Size([1, 5])
    """
    vocab_size, columns = model.config.vocab_size, []
    prompt = prompt_rows(token_ids, vocab_size).to(getattr(token_ids, "device", "cpu"))
    if stop_id is not None:
        id_row([stop_id], vocab_size, "stop_id")
    done = torch.zeros(len(prompt), dtype=torch.bool, device=prompt.device)
    for new in generate_tokens(model, prompt, max_new_tokens, **options):
        new = new.to(prompt.device)
        if stop_id is not None:
            new = new.masked_fill(done, stop_id)
            done |= new == stop_id
        columns.append(new)
        if stop_id is not None and done.all():
            break
    return torch.cat([prompt, *(new[:, None] for new in columns)], dim=-1)
