"""Fine-tune an encoder on the rows of a table: what is trained, for how long, and how a killed run goes on.

The recipe was chosen on validation films of the course's reviews (`python -m benchmarks.finetune_runs`). Embeddings
and the lowest layers stay as they are: they are computed once, without dropout, in place of once an epoch.

Dimensions: N rows, K classes.
"""

import contextlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from llmcourse.data.batches import batches_by_length
from llmcourse.finetune.table.encoder import HiddenBatches, RecipeError, UpperLayers, pad_to_multiple
from llmcourse.finetune.table.read import TableError
from llmcourse.losses import classification_loss
from llmcourse.runtime import evaluating
from llmcourse.schedules import warmup_linear
from llmcourse.support.files import atomic_write
from llmcourse.support.inputs import number, whole
from llmcourse.training import Step, train


@dataclass(frozen=True)
class Recipe:
    """How a classifier is trained. `epochs=None` is `default_epochs` of the number of training rows."""

    epochs: int | None = None
    batch_size: int = 32
    lr: float = 2e-4
    frozen_layers: int = 2
    max_length: int = 128
    seed: int = 0

    def __post_init__(self):
        """Raise RecipeError for a number with which no run can work."""
        try:
            whole(self.max_length, "max_length", least=3)  # two are the signs at both ends
            for name in ("batch_size", *(["epochs"] if self.epochs is not None else [])):
                whole(getattr(self, name), name)
            whole(self.frozen_layers, "frozen_layers", least=0)
            number(whole(self.seed, "seed", least=0), "seed", 0, 2**31, "one of at most 2^31")
            number(self.lr, "lr", 1e-9, 1.0, "a learning rate above 0 and at most 1, such as 2e-4")
        except ValueError as error:
            raise RecipeError(str(error)) from error


def default_epochs(n_rows: int) -> int:
    """Return how often the training rows are read: more often where they are few.

    >>> default_epochs(9000), default_epochs(1000), default_epochs(100)
    (2, 5, 10)
    """
    return min(10, max(2, math.ceil(5000 / n_rows)))


def load_encoder(encoder: str, classes: Sequence[str], recipe: Recipe) -> tuple[nn.Module, object]:
    """Return a transformers classifier with a new head for `classes`, and the tokenizer.

    Raises TableError where the encoder cannot be loaded, or reads fewer tokens than `recipe.max_length`.
    """
    import transformers

    names = dict(enumerate(classes))
    how = dict(id2label=names, label2id={name: i for i, name in names.items()})
    torch.manual_seed(recipe.seed)
    try:
        with quiet():
            tokenizer = transformers.AutoTokenizer.from_pretrained(encoder)
            model, found = transformers.AutoModelForSequenceClassification.from_pretrained(
                encoder, **how, ignore_mismatched_sizes=True, output_loading_info=True
            )
        _renew_head(model, found)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0][:150]
        raise TableError(
            f"--encoder {encoder} cannot be loaded ({reason}): give a folder with config.json, model.safetensors "
            "and a tokenizer, or leave the option out to take MiniLM"
        ) from error
    longest = longest_text(model)
    if longest is not None and recipe.max_length > longest:
        raise TableError(f"--max-length {recipe.max_length}: this encoder reads at most {longest} tokens")
    return model.float(), tokenizer


def _renew_head(model: nn.Module, found: dict) -> None:
    """Give a new head to an encoder that came with one, of other classes or of the same in another order.

    `found` is what transformers says of the loading. Raises ValueError where weights of the encoder itself
    were missing or of another size: transformers draws such weights at random, and goes on.
    """
    other = {*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])}
    if lost := sorted(k for k in other if not k.startswith("classifier.") and ".pooler." not in k):
        raise ValueError(f"its weights do not fit its config.json, such as {lost[0]}")
    if any(key.startswith("classifier.") for key in other):
        return  # transformers has just drawn it
    for part in model.classifier.modules() if hasattr(model, "classifier") else ():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=model.config.initializer_range)
            nn.init.zeros_(part.bias)


def longest_text(model: nn.Module) -> int | None:
    """Return how many tokens an encoder reads, None if any number. RoBERTa counts positions from behind its padding."""
    table = getattr(getattr(model.base_model, "embeddings", None), "position_embeddings", None)
    longest = getattr(model.config, "max_position_embeddings", None)
    padding = getattr(table, "padding_idx", None)
    return longest if longest is None or padding is None else longest - padding - 1


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers silent while it loads and saves: that a head is new is as it should be."""
    from transformers import logging

    before, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bar:
            logging.enable_progress_bar()


def token_rows(tokenizer, texts: Sequence[str], max_length: int) -> list[list[int]]:
    """Return the token ids of each text, cut at `max_length`."""
    return tokenizer(list(texts), truncation=True, max_length=max_length)["input_ids"]


def fine_tune(
    upper: UpperLayers, batches: HiddenBatches, validation: HiddenBatches, recipe: Recipe, work: Path,
    dtype: torch.dtype = torch.float32,
) -> Iterator[Step]:  # fmt: skip
    """Train the upper layers in place; yield each step, with the validation loss after each epoch.

    It goes on from `work`/checkpoint.pt, if that is there, to the bit: dropout, batches and Adam's moments
    are in it. About ten are written in a run. Raises ValueError and OSError as `train` does.
    """
    upper.requires_grad_(True)
    epoch = batches.batches_per_epoch
    steps = epoch * (recipe.epochs or default_epochs(len(batches.rows)))

    def evaluate(model: nn.Module) -> float:
        loss = validation_loss(model, validation, dtype)
        record_loss(work / "validation.json", batches.position // epoch, loss)
        return loss

    torch.manual_seed(recipe.seed)
    run = train(
        upper, batches, steps=steps, loss=classification_loss, lr=recipe.lr, weight_decay=0.01,
        betas=(0.9, 0.999), schedule=warmup_linear(steps, max(1, steps // 10)), dtype=dtype,
        evaluate=evaluate, eval_every=epoch, checkpoint=work / "checkpoint.pt",
        checkpoint_every=max(1, min(epoch, steps // 10)), resume=True,
    )  # fmt: skip
    done, rest = divmod(batches.position, epoch)
    if rest == 0 and len(read_losses(work / "validation.json")) < done:
        evaluate(upper)  # the run was stopped between the last step of an epoch and its evaluation
    return run


def record_loss(path: Path, epoch: int, loss: float) -> None:
    """Write down the validation loss after `epoch`: before the checkpoint of that step, so that none is lost."""
    losses = [*read_losses(path)[: epoch - 1], loss]
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(losses), encoding="utf-8")


def read_losses(path: Path) -> list[float]:
    """Return the validation losses that were written down, [] before the first."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


@torch.no_grad()
def validation_loss(model: nn.Module, batches: HiddenBatches, dtype: torch.dtype) -> float:
    """Return the mean cross-entropy of one pass over `batches`, in nats."""
    batches.position, losses, count = 0, 0.0, 0
    with evaluating(model), torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        for _ in range(batches.batches_per_epoch):
            total, n = classification_loss(model, next(batches))
            losses, count = losses + total.item(), count + n
    return losses / count


@torch.no_grad()
def predict(classifier: nn.Module, rows: Sequence[Sequence[int]], pad_id: int = 0) -> Tensor:
    """Return the probabilities (N, K) that the whole classifier gives, in float32, as a pipeline would."""
    batches = batches_by_length([len(row) for row in rows], 64)
    parts = []
    with evaluating(classifier):
        for batch in batches:
            token_ids, mask = pad_to_multiple([rows[i] for i in batch], pad_id)
            parts.append(classifier(token_ids, attention_mask=mask).logits.float().softmax(-1))
    place = torch.tensor([i for batch in batches for i in batch]).argsort()
    return torch.cat(parts)[place]
