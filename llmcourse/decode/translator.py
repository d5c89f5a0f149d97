"""A translator: a model, its tokenizer, and all that stands between two texts.

Dimensions: B batch, S source, T target.
"""

from collections.abc import Sequence
from pathlib import Path

from llmcourse.data.manifest import course_data
from llmcourse.data.translation_text import END, START, Prepared, finish, prepare
from llmcourse.encoder_decoder import EncoderDecoder
from llmcourse.pretrained import load_model
from llmcourse.seq2seq import generate_target
from llmcourse.support.inputs import text_list
from llmcourse.tokenizer import BPETokenizer


class Translator:
    """Texts in, texts out: placeholders and capitals are taken care of, long and empty texts refused.

    `model` is an `EncoderDecoder`, `tokenizer` one of `data.translation_text.train_tokenizer`.
    """

    def __init__(self, model: EncoderDecoder, tokenizer: BPETokenizer):
        self.model, self.tokenizer = model, tokenizer
        self.start_id, self.end_id = (tokenizer.special_tokens[name] for name in (START, END))

    def prepare(self, text: str, language: str) -> Prepared:
        """Return a text as the model reads it. Raises ValueError, which says what to do, for one that it cannot."""
        prepared = prepare(self.tokenizer, text, language)
        limit = self.model.encoder.config.context_length
        if len(prepared.ids) > limit:
            raise ValueError(
                f"the text {text[:30]!r}... has {len(prepared.ids)} tokens with its language, and this model reads "
                f"{limit}: translate it sentence by sentence"
            )
        return prepared

    def longest(self, n_source: int) -> int:
        """Return how many tokens a translation of n tokens may have: twice as many and ten, if they fit."""
        return min(self.model.config.context_length, 2 * n_source + 10)

    def translate(self, texts: Sequence[str], language: str, batch_size: int = 64) -> list[str]:
        """Return a translation of each text, written greedily; those of about equal length go together.

        Raises ValueError for a language that the model does not know, an empty text, and a text that is
        longer than its context.
        """
        prepared = [self.prepare(text, language) for text in text_list(texts)]
        order = sorted(range(len(prepared)), key=lambda i: len(prepared[i].ids))
        out = [""] * len(prepared)
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            sources = [prepared[i].ids for i in rows]
            ids = generate_target(
                self.model, sources, self.longest(max(map(len, sources))), self.start_id, self.end_id
            )
            for i, row in zip(rows, ids.tolist(), strict=True):
                out[i] = finish(self.tokenizer, row, prepared[i])
        return out


def load_translator(folder: str | Path | None = None) -> Translator:
    """Return the translator of a folder, by default the one that the course ships.

    Raises as `load_model` does.
    """
    folder = course_data() / "checkpoints" / "translation" if folder is None else folder
    return Translator(*load_model(folder, EncoderDecoder))
