"""A translator: a model, its tokenizer, and all that stands between two texts.

Dimensions: B batch, S source, T target.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from llmcourse.data.batches import IGNORE
from llmcourse.data.manifest import course_data
from llmcourse.data.pairs import pair_batch
from llmcourse.data.placeholders import mask, unmask
from llmcourse.data.translation_text import END, START, Prepared, encode_target, finish, prepare
from llmcourse.encoder_decoder import EncoderDecoder
from llmcourse.pretrained import load_model
from llmcourse.runtime import evaluating
from llmcourse.seq2seq import generate_target
from llmcourse.support.inputs import text_list
from llmcourse.tokenizer import BPETokenizer

THRESHOLD = -0.5  # nats a token; chosen on the validation set by tools/build_translation.py


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

    @torch.no_grad()
    def confidence(
        self, texts: Sequence[str], translations: Sequence[str], language: str, batch_size: int = 64
    ) -> list[float]:
        """Return how sure the model is of each translation: the mean log p of its tokens, in nats; 0 is certain.

        The translations may be its own or another's; the end counts as a token. No reference is needed, so
        it can be asked of a text that nobody has translated. A translation that is longer than the context
        is judged by its beginning. Raises ValueError as `translate` does, and for lists that differ in
        length.

        Source: Fomicheva et al. 2020, arXiv:2005.10608, sec. 4.1 (TP).
        """
        texts, translations = text_list(texts), text_list(translations, "translations")
        if len(texts) != len(translations):
            raise ValueError(f"{len(texts)} texts but {len(translations)} translations: each text needs one")
        prepared = [self.prepare(text, language) for text in texts]
        limit = self.model.config.context_length - 1  # the start token is read too
        pairs = [
            (one.ids, encode_target(self.tokenizer, translation, one.known)[:limit])
            for one, translation in zip(prepared, translations, strict=True)
        ]
        order, out = sorted(range(len(pairs)), key=lambda i: len(pairs[i][1])), [0.0] * len(pairs)
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            for i, mean in zip(rows, self._mean_log_p([pairs[i] for i in rows]).tolist(), strict=True):
                out[i] = mean
        return out

    def _mean_log_p(self, pairs: list[tuple[list[int], list[int]]]) -> Tensor:
        sources, targets = zip(*pairs, strict=True)
        batch = pair_batch(sources, targets, self.start_id, self.end_id)
        source_ids, source_mask, inputs, wanted = batch
        with evaluating(self.model):
            log_p = self.model(source_ids, inputs, source_mask).log_softmax(-1)  # (B, T, V)
        counts = wanted != IGNORE  # (B, T)
        chosen = log_p.gather(-1, wanted.clamp(min=0)[..., None])[..., 0]
        return (chosen * counts).sum(1) / counts.sum(1)


class WithFallback:
    """A translator that hands over where it is not sure of what it wrote.

    `translator` is asked first. Where its confidence in its own translation is below `threshold`, in nats
    a token, that is thrown away, and `fallbacks[language].translate`, which takes masked texts, as the
    systems of `evaluate.baselines` do, writes another. -inf never hands over, 0 nearly always. Choose the
    threshold on texts that are not in the test set. Raises ValueError for a language without a fallback,
    and as the translator does.

    Source: to answer only when sure, Chow 1957; El-Yaniv & Wiener 2010, *On the foundations of
    noise-free selective classification*, JMLR 11.
    """

    def __init__(self, translator: Translator, fallbacks: Mapping, threshold: float = THRESHOLD):
        self.translator, self.fallbacks, self.threshold = translator, fallbacks, threshold

    def translate(self, texts: Sequence[str], language: str) -> list[str]:
        """Return a translation of each text."""
        return self.choose(texts, self.translator.translate(texts, language), language)[0]

    def choose(
        self, texts: Sequence[str], written: Sequence[str], language: str
    ) -> tuple[list[str], list[bool]]:
        """Return (translations, whether each is the model's), given what the model has `written`."""
        if language not in self.fallbacks:
            raise ValueError(
                f"language={language!r} has no fallback here: choose one of {sorted(self.fallbacks)}, or give a "
                "system of evaluate.baselines for it"
            )
        sure = [c >= self.threshold for c in self.translator.confidence(texts, written, language)]
        unsure = [i for i, keep in enumerate(sure) if not keep]
        sides = [mask(" ".join(texts[i].split())) for i in unsure]
        theirs = self.fallbacks[language].translate([masked for masked, _ in sides])
        out = list(written)
        for i, text, (_, known) in zip(unsure, theirs, sides, strict=True):
            out[i] = unmask(text, known)
        return out, sure


def load_translator(folder: str | Path | None = None) -> Translator:
    """Return the translator of a folder, by default the one that the course ships.

    Raises as `load_model` does.
    """
    folder = course_data() / "checkpoints" / "translation" if folder is None else folder
    return Translator(*load_model(folder, EncoderDecoder))
