"""Fine-tuning MiniLM on the rows of a table: `llmcourse finetune` against transformers' Trainer.

One thread, seconds of the processor, for one reading of a sample of training reviews. How many readings
each side needs for which accuracy on films that it never saw is in data/finetune (`python -m benchmarks.finetune_runs`).
"""

import contextlib
import io
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.measure import Result, alternate, cpu_seconds
from llmcourse.data.sources.encoder import encoder_name
from llmcourse.data.sources.reviews import load_reviews, split_by_movie
from llmcourse.finetune.table.encoder import HiddenBatches, UpperLayers
from llmcourse.finetune.table.train import Recipe, fine_tune, load_encoder, quiet, token_rows
from llmcourse.runtime import fast_dtype

N_REVIEWS, EPOCHS, BATCH, RATE = 640, 2, 16, 1e-4  # the last two are Trainer's, as in chapter 5a


def trainer(texts: list[str], labels: list[int], seed: int, epochs: int, folder: str, **options):
    """Return transformers' Trainer on `texts`, with the settings of chapter 5a, its tokenizer beside it."""
    import transformers
    from datasets import Dataset

    name = encoder_name(quiet=True)
    transformers.set_seed(seed)
    with quiet():
        tokenizer = transformers.AutoTokenizer.from_pretrained(name)
        model = transformers.AutoModelForSequenceClassification.from_pretrained(name, num_labels=2)
    encoded = tokenizer(texts, truncation=True, max_length=128)
    how = transformers.TrainingArguments(
        folder, num_train_epochs=epochs, per_device_train_batch_size=BATCH, per_device_eval_batch_size=64,
        learning_rate=RATE, lr_scheduler_type="linear", warmup_steps=0.1, weight_decay=0.01, seed=seed,
        bf16=fast_dtype() == torch.bfloat16, use_cpu=True, save_strategy="no", report_to=[], disable_tqdm=True,
        logging_strategy="no", **options,
    )  # fmt: skip
    rows = Dataset.from_dict({**encoded, "labels": labels})
    collate = transformers.DataCollatorWithPadding(tokenizer)
    return transformers.Trainer(
        model, how, train_dataset=rows, data_collator=collate, processing_class=tokenizer
    )


def ours(texts: list[str], labels: list[int], epochs: int) -> None:
    """Fine-tune as the command does, from texts to trained layers, with its checkpoints."""
    recipe = Recipe(epochs)
    model, tokenizer = load_encoder(encoder_name(quiet=True), ["rotten", "fresh"], recipe)
    upper, rows = UpperLayers(model, recipe.frozen_layers), token_rows(tokenizer, texts, recipe.max_length)
    batches = HiddenBatches(upper, rows, torch.tensor(labels), recipe.batch_size, 0, fast_dtype())
    check = HiddenBatches(upper, rows[:64], torch.tensor(labels[:64]), 64, 0, fast_dtype())
    with tempfile.TemporaryDirectory() as folder:
        for _ in fine_tune(upper, batches, check, recipe, Path(folder), fast_dtype()):
            pass


def finetune(rounds: int) -> Iterator[Result]:
    """Two readings of 640 reviews by each side, Trainer also with its own grouping by length."""
    torch.set_num_threads(1)
    some = random.Random(0).sample(split_by_movie(load_reviews(quiet=True))[0], N_REVIEWS)
    texts, labels = [review.text for review in some], [review.label for review in some]
    for name, options in {
        "Trainer": {},
        "Trainer, grouped by length": {"train_sampling_strategy": "group_by_length"},
    }.items():

        def theirs(options=options) -> None:
            silent = contextlib.redirect_stdout(io.StringIO())  # it prints its own seconds
            with tempfile.TemporaryDirectory() as folder, silent:
                trainer(texts, labels, 0, EPOCHS, folder, **options).train()

        pairs = alternate(cpu_seconds(lambda: ours(texts, labels, EPOCHS)), cpu_seconds(theirs), rounds)
        note = f"{EPOCHS} readings of {N_REVIEWS} reviews; ours with checkpoints, two layers frozen"
        yield Result("finetune", f"fine-tuning, against {name}", *pairs, note, EPOCHS * N_REVIEWS, "rows")
