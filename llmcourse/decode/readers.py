"""Rows of tokens that a model has read, to be continued and reordered: all that a search needs of a model.

Dimensions: B sources or prompts, N rows of one source, R = B·N rows, T time, V vocabulary.
"""

import torch
from torch import Tensor

from llmcourse.attention import KVCache
from llmcourse.cross_attention import Source, sources_of
from llmcourse.encoder_decoder import EncoderDecoder, Memory
from llmcourse.model import GPT
from llmcourse.runtime import evaluating
from llmcourse.seq2seq import build_target_decoder


class Reader:
    """Rows that a GPT has read. `read` continues them, `reorder` copies, drops and repeats them.

    >>> from llmcourse.model import ModelConfig
    >>> reader = Reader(GPT(ModelConfig(vocab_size=10, d_model=16, n_layers=1)).eval(), n_rows=1)
    >>> reader.read(torch.tensor([[1, 2, 3]])).shape
    torch.Size([1, 10])
    >>> reader.reorder([0, 0])
    >>> reader.read(torch.tensor([[4], [5]])).shape
    torch.Size([2, 10])
    """

    def __init__(self, model: GPT, n_rows: int):
        self.model, self.caches = model, model.make_caches(n_rows)

    @torch.no_grad()
    def read(self, token_ids: Tensor) -> Tensor:
        """Return the logits (R, V) after token_ids (R, T), which stand behind what was read before."""
        with evaluating(self.model):
            return self.logits(token_ids)[:, -1]

    def logits(self, token_ids: Tensor) -> Tensor:
        """Return all logits (R, T, V) after token_ids (R, T)."""
        return self.model(token_ids, caches=self.caches)

    def reorder(self, rows: list[int]) -> None:
        """Go on with these rows of the present ones, in this order: row i is then what rows[i] was."""
        if rows != list(range(len(self.caches[0].k))):
            index = torch.tensor(rows, device=self.caches[0].k.device)
            self.caches = [reordered(cache, index) for cache in self.caches]


class SourceReader(Reader):
    """Rows that an encoder-decoder writes after sources, N after each: keys of a source are kept once.

    Tokens are read one at a time by `fast.cross_decoding`, where it knows the model.
    """

    def __init__(self, model: EncoderDecoder, memory: Memory):
        self.model, self.memory = model, memory
        self.decoder = build_target_decoder(model, memory)
        self.caches = model.make_caches(len(memory.states)) if self.decoder is None else None

    @torch.no_grad()
    def read(self, token_ids: Tensor) -> Tensor:
        """Return the logits (R, V) after token_ids (R, T), which stand behind what was read before."""
        if self.decoder is None:
            return super().read(token_ids)
        for column in token_ids.unbind(1):
            logits = self.decoder(column)
        return logits

    def logits(self, token_ids: Tensor) -> Tensor:
        """Return all logits (R, T, V) after token_ids (R, T)."""
        return self.model.decode(token_ids, self.memory, self.caches)

    def reorder(self, rows: list[int]) -> None:
        """Go on with these rows; those of one source stay side by side, and equally many of each."""
        if self.decoder is not None:
            return self.decoder.reorder(rows)
        B = len(self.memory.states)
        sources = sources_of(rows, len(self.caches[0].k) // B)
        super().reorder(rows)
        if sources != list(range(B)):
            index = torch.tensor(sources, device=self.memory.states.device)
            pick = lambda part: None if part is None else part.index_select(0, index)  # noqa: E731
            layers = [Source(*map(pick, source)) for source in self.memory.layers]
            self.memory = Memory(pick(self.memory.states), layers)


def reordered(cache: KVCache, rows: Tensor) -> KVCache:
    """Return a cache with these rows of `cache`; where their number stays, it is the same one, filled anew.

    Only positions that are filled are copied.
    """
    known = [part[:, :, : cache.length].index_select(0, rows) for part in (cache.k, cache.v)]
    if len(rows) != len(cache.k):
        new = object.__new__(type(cache))
        vars(new).update(vars(cache))
        new.k, new.v = (part.new_empty(len(rows), *part.shape[1:]) for part in (cache.k, cache.v))
        cache = new
    for part, filled in zip((cache.k, cache.v), known, strict=True):
        part[:, :, : cache.length] = filled
    return cache
