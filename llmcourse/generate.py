"""Writing: choose the next token (`sampling.choose_next`), append it, repeat.

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
from llmcourse.sampling import choose_next
from llmcourse.support.inputs import id_row, plain, whole
from llmcourse.support.outputs import wide

Process = Callable[[Tensor, Tensor], Tensor]  # (token_ids (B, T), logits (B, V)) -> logits (B, V)


def build_decoder(model: nn.Module, caches: list) -> None:
    """Return a quicker step for `prefill`, or None where there is none."""


with contextlib.suppress(ImportError):  # without fast/ there is none
    from llmcourse.fast.decoding import build_decoder


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


def processed(process: Process, token_ids: Tensor, logits: Tensor) -> Tensor:
    """Return `process(token_ids, logits)`. Raises ValueError for another shape, and where every logit is -inf.

    >>> processed(lambda ids, logits: logits / 2, torch.tensor([[1]]), torch.tensor([[2.0, 4.0]])).tolist()
    [[1.0, 2.0]]
    """
    changed = process(token_ids, wide(logits).clone())  # its own, to write into
    if getattr(changed, "shape", None) != logits.shape:
        shapes = tuple(logits.shape), tuple(getattr(changed, "shape", ())) or type(changed).__name__
        raise ValueError("process was given logits {} and returned {}: return all of them".format(*shapes))
    if (empty := changed.amax(dim=-1) == float("-inf")).any():
        raise ValueError(
            f"process leaves no token to row {empty.nonzero()[0].item()} after {token_ids.shape[-1]} tokens: "
            "all logits are -inf; let one come, such as the end token"
        )
    return changed


@torch.no_grad()
def generate_tokens(
    model: nn.Module,
    token_ids: Tensor,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    process: Process | None = None,
    seed: int | None = None,
    use_cache: bool = True,
) -> Iterator[Tensor]:
    """Yield the next token ids (B,), one step after another, after the prompt (B, T).

    With the cache each step computes one position instead of all of them; logits are equal.
    When the context is full, its older half is dropped; of a prompt that is longer, the last
    context_length tokens are read. Before each choice `process(token_ids, logits)` may change the
    logits (B, V): a penalty, a constraint. It gets all ids so far, (B, T), prompt included.
    Raises ValueError for prompts as `prompt_rows` does, for options that mean nothing, and where
    `process` leaves no token.
    """
    token_ids = prompt_rows(token_ids, model.config.vocab_size)
    max_new_tokens = whole(max_new_tokens, "max_new_tokens", least=0)
    device = next(model.parameters()).device
    generator = None if seed is None else torch.Generator(device).manual_seed(seed)
    limit = model.config.context_length
    text = [token_ids.to(device)]
    window, written, step = text[0][:, -limit:], [], None
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
            if process is not None:
                logits = processed(process, torch.cat(text, dim=-1), logits)
            written.append(choose_next(logits, temperature, top_k, top_p, min_p, generator))  # (B,)
            text.append(written[-1][:, None])
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
