"""A pretrained encoder in two parts: the lower layers, which stay and are computed once, and the upper, trained.

Dimensions: B batch, T time (tokens), C width, N tokens of all rows, K classes.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmcourse.data.batches import LabelledBatches, batches_by_length, pad_right
from llmcourse.runtime import evaluating
from llmcourse.support.inputs import whole

MAX_CACHED_BYTES = 256e6  # of hidden states in float16; a larger table is computed anew in each epoch
MULTIPLE = 8  # rows are padded to lengths of this multiple: for each new shape, torch keeps memory


class RecipeError(ValueError):
    """An encoder, or a number, with which no run can work."""


class UpperLayers(nn.Module):
    """The layers of a transformers classifier from number `frozen_layers` on, with its head, as a model of its own.

    It maps hidden states (B, T, C), as `lower_states` computes them, to logits (B, K). The classifier is
    taken apart in place; `reassemble` puts it together again. Raises RecipeError for an encoder that has
    not BERT's two parts, embeddings and a row of layers, and for more layers than it has.
    """

    def __init__(self, classifier: nn.Module, frozen_layers: int):
        super().__init__()
        base = classifier.base_model
        if not (hasattr(base, "embeddings") and hasattr(getattr(base, "encoder", None), "layer")):
            raise RecipeError(
                f"the encoder is of the type {classifier.config.model_type!r}: give one built as BERT is "
                "(bert, roberta, xlm-roberta, electra)"
            )
        layers = base.encoder.layer
        if whole(frozen_layers, "frozen_layers", least=0) > len(layers):
            raise RecipeError(f"frozen_layers={frozen_layers}, but the encoder has {len(layers)} layers")
        self._below = (
            base.embeddings,
            layers,
            int(frozen_layers),
        )  # a tuple: these are no parts of the model
        self.classifier, ids = classifier, torch.ones(1, 4, dtype=torch.long)
        with torch.no_grad(), evaluating(classifier):
            expected = classifier(ids, attention_mask=ids).logits
            self._cut()
            if not self._is_whole(ids, expected):
                raise RecipeError(
                    f"the encoder, of the type {classifier.config.model_type!r}, is another one when it is taken "
                    "apart: give one built as BERT is, such as bert or roberta"
                )

    def _is_whole(self, ids: Tensor, expected: Tensor) -> bool:
        """Return whether both parts together give the logits of the whole: not all encoders are built alike."""
        try:
            return torch.allclose(self(self.lower_states(ids, ids), ids), expected, rtol=1e-3, atol=1e-4)
        except (RuntimeError, TypeError):  # shapes or arguments do not fit
            return False

    def _cut(self) -> None:
        base, (_, layers, frozen) = self.classifier.base_model, self._below
        base.embeddings, base.encoder.layer = _HiddenStates(), layers[frozen:]

    def reassemble(self) -> nn.Module:
        """Return the whole classifier, which maps token ids to logits again."""
        base, (embeddings, layers, _) = self.classifier.base_model, self._below
        base.embeddings, base.encoder.layer = embeddings, layers
        return self.classifier

    def forward(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """Return logits (B, K) of hidden states (B, T, C) and their mask (B, T)."""
        return self.classifier(inputs_embeds=hidden, attention_mask=attention_mask).logits

    @torch.no_grad()
    def lower_states(self, token_ids: Tensor, attention_mask: Tensor, dtype=torch.float32) -> Tensor:
        """Return the hidden states (B, T, C) below the first layer that is trained, without dropout."""
        base, (embeddings, layers, frozen) = self.classifier.base_model, self._below
        base.embeddings, base.encoder.layer = embeddings, layers[:frozen]
        try:
            with evaluating(base), torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
                return base(token_ids, attention_mask=attention_mask).last_hidden_state.float()
        finally:
            self._cut()


def pad_to_multiple(rows: Sequence[Sequence[int]], pad_id: int = 0) -> tuple[Tensor, Tensor]:
    """Return (token_ids, attention_mask) as `pad_right`, with T a multiple of MULTIPLE.

    >>> pad_to_multiple([[5, 6], [7]])[0].shape
    torch.Size([2, 8])
    """
    token_ids, mask = pad_right(rows, pad_id)
    more = (0, -token_ids.shape[1] % MULTIPLE)
    return F.pad(token_ids, more, value=pad_id), F.pad(mask, more)


class _HiddenStates(nn.Module):
    """Stands where the embeddings were: what is given as embedded is taken as it is."""

    def forward(self, input_ids=None, inputs_embeds=None, **others) -> Tensor:
        return inputs_embeds


class HiddenBatches(LabelledBatches):
    """Endless batches (hidden states (B, T, C), mask (B, T), labels (B,)), in the order of `LabelledBatches`.

    The hidden states of all rows are computed once, where they fit into `MAX_CACHED_BYTES`, and kept in
    float16. They depend on the rows and the encoder alone, so that a run which goes on has the same.
    """

    def __init__(
        self, model: UpperLayers, rows: Sequence[Sequence[int]], labels: Tensor, batch_size: int = 16,
        seed: int = 0, dtype: torch.dtype = torch.float32, pad_id: int = 0,
    ):  # fmt: skip
        super().__init__(rows, labels, batch_size, seed)
        self.model, self.dtype, self.pad_id = model, dtype, pad_id
        lengths = torch.tensor([len(row) for row in rows])
        self.ends = lengths.cumsum(0)
        width = model.classifier.config.hidden_size
        fits = int(lengths.sum()) * width * 2 <= MAX_CACHED_BYTES
        self.cache = self._compute(lengths.tolist(), width) if fits else None

    def _compute(self, lengths: list[int], width: int) -> Tensor:
        """Return the hidden states (N, C) of all rows, one after the other."""
        cache = torch.empty(sum(lengths), width, dtype=torch.float16)
        for batch in batches_by_length(lengths, 64):
            for i, states in zip(batch, self._below(batch)[0], strict=True):
                cache[self.ends[i] - lengths[i] : self.ends[i]] = states[: lengths[i]]
        return cache

    def _below(self, batch: list[int]) -> tuple[Tensor, Tensor]:
        token_ids, mask = pad_to_multiple([self.rows[i] for i in batch], self.pad_id)
        return self.model.lower_states(token_ids, mask, self.dtype), mask

    def __next__(self) -> tuple[Tensor, Tensor, Tensor]:
        batch = self.next_numbers()
        if self.cache is None:
            return *self._below(batch), self.labels[batch]
        rows = [self.cache[self.ends[i] - len(self.rows[i]) : self.ends[i]] for i in batch]
        mask = pad_to_multiple([self.rows[i] for i in batch])[1]
        hidden = torch.zeros(*mask.shape, self.cache.shape[1])
        for place, row in zip(hidden, rows, strict=True):
            place[: len(row)] = row
        return hidden, mask, self.labels[batch]
