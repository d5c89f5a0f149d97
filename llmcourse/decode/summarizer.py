"""A summarizer: a model, its tokenizer, and all that stands between a definition and a sentence about it.

Dimensions: B batch, S source, T target.
"""

from collections.abc import Iterable
from pathlib import Path

import torch

from llmcourse.data.batches import pad_right
from llmcourse.data.manifest import course_data
from llmcourse.data.summary_text import END, START, finish, source_text
from llmcourse.decode.repeats import no_repeat
from llmcourse.pointer import Copying, PointerGenerator
from llmcourse.pretrained import load_model
from llmcourse.seq2seq import generate_target
from llmcourse.tokenizer import BPETokenizer

LONGEST = 30  # tokens of a summary: 99 of 100 first sentences have fewer
RUN = 2  # no run of so many tokens comes twice in a summary: a small model that copies falls into loops


class Summarizer:
    """Definitions in (a name, parameters, a text), sentences out.

    `model` is a `PointerGenerator`, or another `EncoderDecoder`; `tokenizer` one of
    `data.summary_text.train_tokenizer`.
    """

    def __init__(self, model: PointerGenerator, tokenizer: BPETokenizer):
        self.model, self.tokenizer = model, tokenizer
        self.start_id, self.end_id = (tokenizer.special_tokens[name] for name in (START, END))

    def prepare(self, definition, cut: bool = False) -> list[int]:
        """Return the ids that the model reads; with `cut`, of a long text its beginning.

        Raises ValueError for a definition without a word, and without `cut` for one that is too long.
        """
        ids = self.tokenizer.encode(" " + source_text(definition))
        limit = self.model.encoder.config.context_length
        if len(ids) > limit and not cut:
            raise ValueError(
                f"{definition.name!r} with its text has {len(ids)} tokens, and this model reads {limit}: give "
                "a shorter text, or cut=True, and the beginning is read"
            )
        return ids[:limit]

    def write(self, definitions: Iterable, cut: bool = False, batch_size: int = 64) -> list[list[int]]:
        """Return the ids written for each definition, without the end token: greedily, no two tokens in a row twice."""
        rows = [self.prepare(definition, cut) for definition in definitions]
        order = sorted(
            range(len(rows)), key=lambda i: len(rows[i])
        )  # those of about equal length go together
        out: list[list[int]] = [[] for _ in rows]
        longest = min(LONGEST, self.model.config.context_length)
        for start in range(0, len(order), batch_size):
            some = order[start : start + batch_size]
            sources, ends = [rows[i] for i in some], (self.start_id, self.end_id)
            ids = generate_target(self.model, sources, longest, *ends, process=no_repeat(RUN))
            for i, row in zip(some, ids.tolist(), strict=True):
                out[i] = row[: row.index(self.end_id)] if self.end_id in row else row
        return out

    def summarize(self, definitions: Iterable, cut: bool = False) -> list[str]:
        """Return a sentence about each definition. Raises ValueError as `prepare` does."""
        return [finish(self.tokenizer, ids) for ids in self.write(definitions, cut)]

    def copying(self, definition, cut: bool = False) -> tuple[list[str], list[str], Copying]:
        """Return (tokens of the source, tokens written, `Copying` (1, T, S) and (1, T)) of one definition.

        Row t of the weights belongs to token t that is written. Raises ValueError as `prepare` does, and
        for a model without a pointer.
        """
        source, [written] = self.prepare(definition, cut), self.write([definition], cut)
        written = [*written, self.end_id][: self.model.config.context_length]
        source_ids, mask = pad_right([source])
        ids = torch.tensor([[self.start_id, *written[:-1]]])
        names = self.tokenizer.tokens(source), self.tokenizer.tokens(written)
        return *names, self.model.copying(source_ids, ids, mask.bool())


def load_summarizer(folder: str | Path | None = None) -> Summarizer:
    """Return the summarizer of a folder, by default the one that the course ships.

    Raises as `load_model` does.
    """
    folder = course_data() / "checkpoints" / "summarization" if folder is None else folder
    return Summarizer(*load_model(folder, PointerGenerator))
