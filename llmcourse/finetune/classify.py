"""Text classification: features of a pretrained model, a linear probe, and a model with a head.

Dimensions: B batch, T time (tokens), C width (d_model), N texts, L layers.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from llmcourse.data.batches import LabelledBatches, batches_by_length, pad_right
from llmcourse.losses import classification_loss
from llmcourse.model import GPT
from llmcourse.optim import AdamW, parameter_groups
from llmcourse.runtime import evaluating
from llmcourse.schedules import warmup_cosine
from llmcourse.support.inputs import class_row, id_row, text_list, whole
from llmcourse.support.outputs import no_nan
from llmcourse.training import train


def mean_pool(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """Return the mean over the real tokens, (B, C), of hidden (B, T, C) with attention_mask (B, T).

    >>> mean_pool(torch.tensor([[[1.0], [3.0], [99.0]]]), torch.tensor([[1, 1, 0]])).tolist()
    [[2.0]]
    """
    mask = attention_mask.unsqueeze(-1).to(hidden.dtype)  # (B, T, 1)
    return (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)


def hidden_states(model: GPT, token_ids: Tensor) -> list[Tensor]:
    """Return the residual stream (B, T, C) after the embedding and after each block, L + 1 tensors.

    The last one has passed the final norm. Padding on the right needs no mask in a causal model:
    no real token looks at it.
    """
    x, rotary = model.embed(token_ids)
    states = [x]
    for block in model.blocks:
        x = block(x, rotary=rotary)
        states.append(x)
    return [*states[:-1], model.final_norm(x)]


@torch.no_grad()
def _pooled_states(rows, batch_size: int, states_of) -> Tensor:
    """Return (N, L + 1, C): `states_of(rows of a batch)` gives its hidden states and its mask."""
    batches, parts = batches_by_length([len(row) for row in rows], batch_size), []
    for batch in batches:
        states, mask = states_of([rows[i] for i in batch])
        parts.append(torch.stack([mean_pool(hidden.float(), mask) for hidden in states], dim=1).cpu())
    place = torch.tensor([i for batch in batches for i in batch]).argsort()  # back to the rows' order
    return torch.cat(parts)[place]


def encoder_features(
    model, tokenizer, texts: Sequence[str], max_length=48, batch_size=64, dtype=torch.float32
) -> Tensor:
    """Return the mean-pooled hidden states of a transformers encoder after each layer, (N, L + 1, C).

    Longer texts are cut at `max_length` tokens; one without a token has features of 0. `dtype` is
    the precision of the products. Raises ValueError for no texts, and what is no text.
    Source: Reimers & Gurevych 2019, arXiv:1908.10084, sec. 3 (mean pooling).
    """
    device = next(model.parameters()).device

    def states_of(rows):
        token_ids, mask = (x.to(device) for x in pad_right(rows, tokenizer.pad_token_id or 0))
        with evaluating(model), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            return model(token_ids, attention_mask=mask, output_hidden_states=True).hidden_states, mask

    texts = text_list(texts)
    rows = tokenizer(texts, truncation=True, max_length=max_length)["input_ids"] if texts else []
    return _pooled_states(rows, batch_size, states_of)


def gpt_features(model: GPT, rows: Sequence[Sequence[int]], batch_size: int = 64) -> Tensor:
    """Return the mean-pooled hidden states of our GPT after each block, (N, L + 1, C).

    `rows` are token ids, each at most the model's context long; an empty one has features of 0.
    Raises ValueError for no rows, a longer one, and an id outside the vocabulary.
    """
    rows = _checked_rows(model, rows)

    def states_of(some):
        token_ids, mask = pad_right(some)
        with evaluating(model):
            return hidden_states(model, token_ids), mask

    return _pooled_states(rows, batch_size, states_of)


def _checked_rows(model: GPT, rows) -> list:
    """Return rows of ids that the model can read; ValueError names the first that it cannot, before any work."""
    rows = [id_row(row, model.config.vocab_size, f"rows[{i}]") for i, row in enumerate(rows)]
    for i, row in enumerate(rows):
        if len(row) > model.config.context_length:
            raise ValueError(
                f"rows[{i}] has {len(row)} tokens and the model's context {model.config.context_length}: "
                "cut the text, or build the model with a longer context_length"
            )
    return rows


def linear_probe(features, labels, strength: float = 0.01):
    """Return logistic regression fitted on standardized features (N, C): scikit-learn's pipeline.

    `strength` is scikit-learn's C: small values keep the weights small. Raises ValueError when
    a label is missing or no class, when there is only one class, and for features that are not finite.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    labels = class_row(labels)
    if isinstance(features, Tensor):  # numpy knows no bfloat16
        features = features.detach().cpu().to(torch.promote_types(features.dtype, torch.float32)).numpy()
    if len(features) != len(labels):
        raise ValueError(f"{len(features)} texts but {len(labels)} labels: each text needs one label")
    if len(set(labels)) < 2:
        raise ValueError(f"all {len(labels)} labels are the same: a classifier needs examples of two classes")
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=500)).fit(features, labels)


class GPTClassifier(nn.Module):
    """Our GPT without its vocabulary: blocks, mean over the tokens, and one linear head.

    The GPT is copied, so the one that was given stays as it is.

    Source: Radford et al. 2018, sec. 3.2 (a linear head on a pretrained decoder).
    """

    def __init__(self, gpt: GPT, n_classes: int = 2):
        super().__init__()
        self.body = copy.deepcopy(gpt)
        self.head = nn.Linear(gpt.config.d_model, n_classes)
        nn.init.zeros_(self.head.weight)  # the first guess is even, whatever the features
        nn.init.zeros_(self.head.bias)

    def forward(self, token_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return logits (B, n_classes) for token_ids (B, T), padded on the right."""
        pooled = mean_pool(hidden_states(self.body, token_ids)[-1], attention_mask)
        return self.head(pooled.to(self.head.weight.dtype))  # float32, whatever the body's precision


def fit_classifier(
    model: GPTClassifier, rows, labels, steps: int, lr: float = 1e-3, batch_size: int = 16, seed: int = 0
) -> list[float]:
    """Train all weights on `rows` of token ids in place; return the loss of each step.

    Batches come from rows of about equal length, shuffled anew each epoch. Raises ValueError, before
    the first step, for missing labels, a class that the head lacks, and rows as `gpt_features` does;
    FloatingPointError when the loss is not finite.
    """
    rows, labels = _labelled_rows(model, rows, labels)
    steps = whole(steps, "steps")
    batches = LabelledBatches(rows, labels, batch_size, seed)
    optimizer = AdamW(parameter_groups(model, weight_decay=0.1), lr=lr)
    schedule = warmup_cosine(steps, max(1, steps // 10))
    how = dict(loss=classification_loss, optimizer=optimizer, schedule=schedule)
    return [step.loss for step in train(model, batches, steps=steps, **how)]


@torch.no_grad()
def accuracy(model: GPTClassifier, rows, labels, batch_size: int = 64) -> float:
    """Return the share of `rows` of token ids that the model labels right.

    An empty row is a text as well: the head's bias decides. Raises ValueError as `fit_classifier`.
    """
    rows, labels = _labelled_rows(model, rows, labels)
    right = 0
    for batch in batches_by_length([len(row) for row in rows], batch_size):
        with evaluating(model):
            guesses = no_nan(model(*pad_right([rows[i] for i in batch]))).argmax(dim=-1)
        right += (guesses == labels[batch]).sum().item()
    return right / len(rows)


def _labelled_rows(model: GPTClassifier, rows, labels) -> tuple[list, Tensor]:
    rows = _checked_rows(model.body, rows)
    labels = torch.from_numpy(id_row(labels, model.head.out_features, "labels", kind="classes"))
    if len(rows) != len(labels):
        raise ValueError(f"{len(rows)} texts but {len(labels)} labels: each text needs one label")
    return rows, labels
