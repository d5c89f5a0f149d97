"""Writing a target after a source: the source is read once, then tokens are chosen one after another.

A model is an `EncoderDecoder`. Dimensions: B batch, S source, T target, V vocabulary.
"""

import contextlib
from collections.abc import Callable

import torch
from torch import Tensor

from llmcourse.data.batches import pad_right
from llmcourse.encoder_decoder import EncoderDecoder, Memory
from llmcourse.generate import Process, processed
from llmcourse.runtime import evaluating
from llmcourse.sampling import choose_next
from llmcourse.support.inputs import id_row, whole


def build_target_decoder(model: EncoderDecoder, memory: Memory) -> None:
    """Return a quicker step for `prefill_target`, or None where there is none."""


with contextlib.suppress(ImportError):  # without fast/ there is none
    from llmcourse.fast.cross_decoding import build_target_decoder


def source_rows(source, source_mask: Tensor | None, vocab_size: int) -> tuple[Tensor, Tensor | None]:
    """Return (source, mask) for a model: lists of ids become padded rows, a tensor stays as it is.

    A list of ids is one source, a list of lists several, of any lengths. Raises ValueError for an empty
    source, for what is no id of the vocabulary, and for a mask beside lists, whose lengths say it already.

    >>> source_rows([[5, 6], [7]], None, vocab_size=10)[1].tolist()
    [[True, True], [True, False]]
    """
    if isinstance(source, Tensor):
        if not source.is_floating_point():
            id_row(source.flatten(), vocab_size, "the source")
        return source, source_mask
    if isinstance(source, str):
        raise ValueError(f"the source is {source[:30]!r}: give its ids, tokenizer.encode(text)")
    if source_mask is not None:
        raise ValueError(
            "a source_mask belongs to a tensor of ids: lists of ids are padded here, leave it out"
        )
    rows = list(source)
    rows = rows if rows and hasattr(rows[0], "__len__") else [rows]
    rows = [id_row(row, vocab_size, f"source {i}", least=1) for i, row in enumerate(rows)]
    token_ids, mask = pad_right(rows)
    return token_ids, mask.bool()


@torch.no_grad()
def prefill_target(
    model: EncoderDecoder, source, start_id: int, source_mask: Tensor | None = None
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Read sources; return the logits (B, V) of the first token, and a function for what follows.

    The function maps the next ids (B,) to the logits (B, V) after them, until the context is full:
    then it raises ValueError. `start_id` stands before each target, as in training. No gradient is
    kept, and there is no dropout. The source is what `source_rows` takes.

    >>> from llmcourse.encoder_decoder import EncoderDecoderConfig
    >>> model = EncoderDecoder(EncoderDecoderConfig(vocab_size=10, d_model=16, n_layers=1)).eval()
    >>> source, target = torch.tensor([[1, 2, 3]]), torch.tensor([[0, 4]])
    >>> logits, step = prefill_target(model, source, start_id=0)
    >>> torch.allclose(step(torch.tensor([4])), model(source, target)[:, -1], atol=1e-6)
    True
    """
    config, device = model.config, next(model.parameters()).device
    id_row([start_id], config.vocab_size, "start_id")
    source, source_mask = source_rows(source, source_mask, config.source_vocab_size or config.vocab_size)
    with evaluating(model):
        memory = model.encode(source.to(device), None if source_mask is None else source_mask.to(device))
    step = build_target_decoder(model, memory)
    if step is None:
        caches = model.make_caches(len(source))

        @torch.no_grad()
        def step(new: Tensor) -> Tensor:
            with evaluating(model):
                return model.decode(new[:, None], memory, caches)[:, -1]

    return step(torch.full((len(source),), start_id, device=device)), step


def generate_target(
    model: EncoderDecoder,
    source,
    max_new_tokens: int,
    start_id: int,
    stop_id: int | None = None,
    source_mask: Tensor | None = None,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    process: Process | None = None,
    seed: int | None = None,
) -> Tensor:
    """Return a target (B, T), at most `max_new_tokens` long, for each source: greedy, unless you sample.

    `start_id` is not in it. A row that has written `stop_id` is filled with it, and when all rows have,
    it ends. `process(token_ids, logits)` may change logits (B, V) as in `generate`; it gets the ids so
    far, `start_id` included. Raises ValueError for more tokens than the model's context, for bad sources as
    `source_rows` and `EncoderDecoder.encode` do, and for options that mean nothing.

    >>> from llmcourse.encoder_decoder import EncoderDecoderConfig
    >>> model = EncoderDecoder(EncoderDecoderConfig(vocab_size=10, d_model=16, n_layers=1))
    >>> generate_target(model, [[5, 6], [7]], max_new_tokens=3, start_id=0).shape
    torch.Size([2, 3])
    """
    limit, columns = model.config.context_length, []
    max_new_tokens = whole(max_new_tokens, "max_new_tokens")
    if max_new_tokens > limit:
        raise ValueError(f"max_new_tokens={max_new_tokens}: the model's context holds {limit}, give no more")
    if stop_id is not None:
        id_row([stop_id], model.config.vocab_size, "stop_id")
    logits, step = prefill_target(model, source, start_id, source_mask)
    generator = None if seed is None else torch.Generator(logits.device).manual_seed(seed)
    done = torch.zeros(len(logits), dtype=torch.bool, device=logits.device)
    start = torch.full_like(done, start_id, dtype=torch.long)
    while True:
        if process is not None:
            logits = processed(process, torch.stack([start, *columns], dim=1), logits)
        new = choose_next(logits, temperature, top_k, top_p, min_p, generator)  # (B,)
        if stop_id is not None:
            new = new.masked_fill(done, stop_id)
            done |= new == stop_id
        columns.append(new)
        if len(columns) == max_new_tokens or (stop_id is not None and done.all()):
            return torch.stack(columns, dim=1)
        logits = step(new)
