"""Writing: choose the next token (`sampling.choose_next`), append it, repeat.

A model is a GPT. Without a cache and for prompts of equal length it is any module that maps ids to
logits and has `config.context_length` and `.vocab_size`.

Dimensions: B batch, T time, V vocabulary.
"""

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from llmcourse.attention import padding_mask
from llmcourse.runtime import evaluating
from llmcourse.sampling import choose_next
from llmcourse.support.inputs import id_row, plain, whole
from llmcourse.support.outputs import wide

Process = Callable[[Tensor, Tensor], Tensor]  # (token_ids (B, T), logits (B, V)) -> logits (B, V)


def build_decoder(model: nn.Module, caches: list, padding: Tensor | None = None) -> None:
    """Return a quicker step for `prefill`, or None where there is none."""


def begin_decoder(model: nn.Module, token_ids: Tensor, padding: Tensor | None = None) -> None:
    """Return what `prefill` returns, sooner, or None where there is nothing quicker."""


with contextlib.suppress(ImportError):  # without fast/ there is none
    from llmcourse.fast.decoding import begin_decoder, build_decoder


def prompt_rows(token_ids, vocab_size: int) -> list[Tensor]:
    """Return prompts as a list of rows of token ids, (T,) each: from one row of ids, or from several.

    Raises ValueError for a prompt without a token, and for what is no id.

    >>> prompt_rows([[5, 6], [7]], vocab_size=10)
    [tensor([5, 6]), tensor([7])]
    """
    if isinstance(token_ids, str):
        raise ValueError(f"the prompt is {token_ids[:30]!r}: give its ids, tokenizer.encode(text)")
    rows = plain(token_ids, "the prompt")
    rows = rows if rows and isinstance(rows[0], list | tuple) else [rows]
    rows = [id_row(row, vocab_size, f"prompt {i}") for i, row in enumerate(rows)]
    if min(map(len, rows)) == 0:
        raise ValueError("the prompt has no token: give at least one, such as <|endoftext|>")
    return [torch.from_numpy(row) for row in rows]


def prompt_batch(token_ids, vocab_size: int) -> Tensor:
    """Return prompts of equal length as (B, T) token ids. Raises ValueError as `prompt_rows`, and for others.

    >>> prompt_batch([5, 6], vocab_size=10).tolist()
    [[5, 6]]
    """
    rows = prompt_rows(token_ids, vocab_size)
    if len(lengths := sorted({len(row) for row in rows})) > 1:
        raise ValueError(
            f"the prompts have {', '.join(map(str, lengths))} tokens: rows of one batch are equally long here; "
            "give one prompt at a time, or those of equal length"
        )
    return torch.stack(rows)


def pad_left(rows: list[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Return rows (T,) of unequal length as one tensor (B, T), and how much padding each row has, (B,).

    The padding repeats a row's first token, so that no token is in a row that was not there.
    It is None for rows of equal length.

    >>> pad_left([torch.tensor([5, 6, 7]), torch.tensor([8])])
    (tensor([[5, 6, 7],
            [8, 8, 8]]), tensor([0, 2]))
    """
    T = max(map(len, rows))
    padding = torch.tensor([T - len(row) for row in rows], device=rows[0].device)
    padded = torch.stack([torch.cat([row[:1].expand(T - len(row)), row]) for row in rows])
    return padded, padding if padding.any() else None


def grown(rows: list[Tensor], written: list[Tensor], limit: int) -> list[Tensor]:
    """Return rows (T,) with what was `written` to each, (B,) a step; of more than `limit` tokens the newer half.

    >>> grown([torch.tensor([1, 2, 3]), torch.tensor([4])], [torch.tensor([5, 6])], limit=3)
    [tensor([3, 5]), tensor([4, 6])]
    """
    if written:
        rows = [torch.cat(pair) for pair in zip(rows, torch.stack(written, dim=1), strict=True)]
    return [row if len(row) <= limit else row[-(limit // 2 + 1) :] for row in rows]


@torch.no_grad()
def read(model: nn.Module, token_ids: Tensor, padding: Tensor | None = None, caches=None) -> Tensor:
    """Return the logits (B, V) after token_ids (B, T), of which the first `padding` (B,) are none to a row.

    Nobody looks at padding, and positions count from the first token behind it.

    >>> from llmcourse.model import GPT, ModelConfig
    >>> model = GPT(ModelConfig(vocab_size=10, d_model=16, n_layers=1)).eval()
    >>> padded = read(model, torch.tensor([[8, 8, 1, 2]]), padding=torch.tensor([2]))
    >>> torch.allclose(padded, read(model, torch.tensor([[1, 2]])), atol=1e-6)
    True
    """
    options = dict(caches=caches) if caches else {}
    if padding is not None:
        T, start = token_ids.shape[1], caches[0].length if caches else 0
        options |= dict(mask=padding_mask(padding, T, start + T), start=start - padding)
    with evaluating(model):
        return model(token_ids, **options)[:, -1]


@torch.no_grad()
def prefill(
    model: nn.Module, token_ids: Tensor, padding: Tensor | None = None
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Read a prompt (B, T) into a cache; return the logits (B, V) after it, and a function for what follows.

    The function maps the next ids (B,) to the logits (B, V) after them, until the context is
    full: then it raises ValueError. No gradient is kept, and there is no dropout. `padding` (B,)
    says how many of the first tokens are none, as `pad_left` returns it.

    >>> from llmcourse.model import GPT, ModelConfig
    >>> model = GPT(ModelConfig(vocab_size=10, d_model=16, n_layers=1)).eval()
    >>> logits, step = prefill(model, torch.tensor([[1, 2, 3]]))
    >>> torch.allclose(step(torch.tensor([4])), model(torch.tensor([[1, 2, 3, 4]]))[:, -1], atol=1e-6)
    True
    """
    begun = begin_decoder(model, token_ids, padding)
    if begun is not None:
        return begun
    caches = model.make_caches(len(token_ids))
    logits = read(model, token_ids, padding, caches)
    step = build_decoder(model, caches, padding)
    return logits, step or (lambda new: read(model, new[:, None], padding, caches))


@torch.no_grad()
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
    """Yield the next token ids (B,), one step after another, after the prompts, (B, T) or a list of rows.

    Rows of unequal length are padded on the left, behind a mask: each row gets what it would get
    alone. With the cache each step computes one position instead of all of them; logits are equal.
    When the context is full, its older half is dropped; of a prompt that is longer, the last
    context_length tokens are read. Before each choice `process(token_ids, logits)` may change the
    logits (B, V): a penalty, a constraint. It gets all ids so far, (B, T), prompt included, and
    before a shorter prompt its first token as padding.
    Raises ValueError for prompts as `prompt_rows` does, for options that mean nothing, and where
    `process` leaves no token.
    """
    prompts = prompt_rows(token_ids, model.config.vocab_size)
    max_new_tokens = whole(max_new_tokens, "max_new_tokens", least=0)
    device = next(model.parameters()).device
    generator = None if seed is None else torch.Generator(device).manual_seed(seed)
    limit = model.config.context_length
    rows = [row[-limit:].to(device) for row in prompts]
    text, written = [pad_left(prompts)[0].to(device)], []
    length, step = limit, None
    with evaluating(model):
        for _ in range(max_new_tokens):
            if use_cache and length < limit:
                logits, length = step(written[-1]), length + 1  # (B, V)
            else:  # the first time, and when the cache is full
                rows, written = grown(rows, written, limit), []
                window, padding = pad_left(rows)
                length = window.shape[-1]
                if use_cache:
                    logits, step = prefill(model, window, padding)
                else:
                    logits = read(model, window, padding)
            if process is not None:
                logits = processed(process, torch.cat(text, dim=-1), logits)
            written.append(choose_next(logits, temperature, top_k, top_p, min_p, generator))  # (B,)
            if process is not None:
                text.append(written[-1][:, None])
            yield written[-1]


def generate(
    model: nn.Module, token_ids, max_new_tokens: int, stop_id: int | None = None, **options
) -> Tensor | list[Tensor]:
    """Return the prompt and its continuation, (B, T + new); `options` are those of `generate_tokens`.

    From prompts of unequal length a list comes back, of rows (T + new,). With `stop_id`, a row that
    has written it is filled with it, and when all rows have, it ends.

    >>> from llmcourse.model import GPT, ModelConfig
    >>> model = GPT(ModelConfig(vocab_size=10, d_model=16, n_layers=1))
    >>> generate(model, [1, 2], max_new_tokens=3, seed=0).shape
    torch.Size([1, 5])
    >>> [len(row) for row in generate(model, [[1, 2], [3, 4, 5]], max_new_tokens=3, seed=0)]
    [5, 6]
    """
    vocab_size, columns = model.config.vocab_size, []
    device = getattr(token_ids, "device", "cpu")
    prompts = [row.to(device) for row in prompt_rows(token_ids, vocab_size)]
    if stop_id is not None:
        id_row([stop_id], vocab_size, "stop_id")
    done = torch.zeros(len(prompts), dtype=torch.bool, device=device)
    for new in generate_tokens(model, prompts, max_new_tokens, **options):
        new = new.to(device)
        if stop_id is not None:
            new = new.masked_fill(done, stop_id)
            done |= new == stop_id
        columns.append(new)
        if stop_id is not None and done.all():
            break
    new = (
        torch.stack(columns, dim=1)
        if columns
        else torch.empty(len(prompts), 0, dtype=torch.long, device=device)
    )
    rows = [torch.cat(pair) for pair in zip(prompts, new, strict=True)]
    return torch.stack(rows) if len(set(map(len, rows))) == 1 else rows
