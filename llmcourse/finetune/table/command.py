"""Fine-tune a classifier on a table of one's own.

The command is `llmcourse finetune FILE.csv --out DIR`; in Python it is

    report = finetune_table("reviews.csv", "judge", text="text", label="label", group="movie")
    print(*report.lines(), sep=chr(10))
    judge = transformers.pipeline("text-classification", "judge")

The folder holds the weights, configuration and tokenizer, a card (README.md), the report (report.json) and
what was said of each test row (test.csv). Every fault of the table is found before any training
(`read.TableError`). The same call again goes on with a run that was killed, to the bit; after the end it
returns the report. The same holds for the command.
"""

import contextlib
import csv
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import torch

from llmcourse import __version__
from llmcourse.data.cards import file_digest
from llmcourse.data.sources.encoder import encoder_name
from llmcourse.finetune.table.card import write_card
from llmcourse.finetune.table.columns import Table, read_table
from llmcourse.finetune.table.encoder import HiddenBatches, UpperLayers
from llmcourse.finetune.table.folder import CARD, RunFolder
from llmcourse.finetune.table.read import TableError, counted
from llmcourse.finetune.table.report import Report, make_report
from llmcourse.finetune.table.split import FEW_UNITS, Split, split_table, units_of
from llmcourse.finetune.table.train import (
    Recipe,
    default_epochs,
    fine_tune,
    load_encoder,
    predict,
    quiet,
    read_losses,
    token_rows,
)
from llmcourse.runtime import fast_dtype

Say = Callable[[str], None]
FILES = ("config.json", "model.safetensors", "tokenizer.json")


def finetune_table(
    path: str | Path, out: str | Path, *, text: str | None = None, label: str | None = None,
    group: str | None = None, encoder: str | None = None, recipe: Recipe | None = None,
    delimiter: str | None = None, encoding: str | None = None, say: Say = print,
) -> Report:  # fmt: skip
    """Fine-tune `encoder` (MiniLM if None) on the CSV file `path`, and export it to the folder `out`.

    `text`, `label` and `group` name columns; the first two are found by their usual names. Rows of one
    group are on one side of the split. `say` gets what is worth knowing, line by line. Raises TableError
    for a fault of the table, FolderError for one of the folder, OSError where nothing can be written,
    FloatingPointError where the loss is not finite.
    """
    table = read_table(path, text, label, group, delimiter, encoding)
    split = split_table(table)
    recipe = recipe or Recipe()
    recipe = replace(recipe, epochs=recipe.epochs or default_epochs(len(split.train)))
    describe(table, split, say)
    called, encoder = (
        ("all-MiniLM-L6-v2", encoder_name()) if encoder is None else (Path(encoder).name, encoder)
    )
    folder = RunFolder(out)
    with own_state(folder) as (dtype, threads):
        identity = make_identity(path, table, called, encoder, recipe, dtype, threads)
        model, tokenizer = load_encoder(encoder, table.classes, recipe)
        state = folder.begin(identity, megabytes_needed(model))
        if state == "finished":
            say(f"{folder.path} is finished: here is its report")
            return Report.load(folder.path / "report.json")
        say({"new": "training begins", "resumed": "training goes on where it stopped"}[state])
        return _run(folder, table, split, model, tokenizer, identity, recipe, dtype, say)


def describe(table: Table, split: Split, say: Say) -> None:
    """Say what was read, and how it was split."""
    counts = ", ".join(f"{name} {table.labels.count(name):,}" for name in table.classes[:8])
    more = ", ..." if len(table.classes) > 8 else ""
    say(f"{table.name}: {len(table.texts):,} rows, {len(table.classes)} classes ({counts}{more})")
    for note in table.notes:
        say(f"note: {note}")
    parts = f"{len(split.train):,} for training, {len(split.validation):,} for validation, {len(split.test):,} for the test"
    if split.left_out:
        parts += f"; {len(split.left_out):,} left out, whose text stands on another side"
    say(parts)


@contextlib.contextmanager
def own_state(folder: RunFolder) -> Iterator[tuple[torch.dtype, int]]:
    """Yield the precision and the threads of the run; torch's random state and threads are put back.

    A run goes on with those with which it began: with others, sums differ in the last bit.
    """
    before, saved = torch.get_num_threads(), folder.saved_identity() or {}
    dtype = getattr(torch, str(saved.get("dtype")), None)
    dtype = dtype if isinstance(dtype, torch.dtype) else fast_dtype()
    threads = saved.get("threads", before)
    with torch.random.fork_rng(devices=[]):
        torch.set_num_threads(threads)
        try:
            yield dtype, threads
        finally:
            torch.set_num_threads(before)


def make_identity(path, table: Table, called: str, encoder: str, recipe: Recipe, dtype, threads: int) -> dict:
    """Return what the result depends on, for run.json: data, columns, encoder, recipe, precision, versions."""
    import transformers

    local = Path(encoder)
    return {
        "data": file_digest(path),
        "columns": table.columns,
        "encoder": called,
        "encoder files": {name: file_digest(local / name) for name in FILES if (local / name).is_file()},
        "recipe": asdict(recipe),
        "dtype": str(dtype).removeprefix("torch."),
        "threads": threads,
        "versions": {"llmcourse": __version__, "torch": torch.__version__, "transformers": transformers.__version__},
    }  # fmt: skip


def megabytes_needed(model) -> float:
    """Return the space that a run needs at its peak: a checkpoint beside its successor, and the model."""
    return sum(p.numel() * p.element_size() for p in model.parameters()) * (2 * 3 + 2) / 1e6


def _run(folder, table, split, model, tokenizer, identity, recipe, dtype, say) -> Report:
    """Train, judge, and export."""
    rows = token_rows(tokenizer, table.texts, recipe.max_length)
    if (largest := max(map(max, rows))) >= model.config.vocab_size:
        raise TableError(
            f"--encoder: the tokenizer gives the id {largest} and the encoder has {model.config.vocab_size}: they "
            "do not belong together; give a folder with both of one model"
        )
    notes = [
        *table.notes,
        *notes_on_tokens(rows, tokenizer, recipe.max_length),
        *notes_on_units(table, split),
    ]
    for note in notes[len(table.notes) :]:
        say(f"note: {note}")
    labels = torch.tensor([table.classes.index(name) for name in table.labels])
    pad_id = tokenizer.pad_token_id or 0
    upper = UpperLayers(model, recipe.frozen_layers)
    train, validation = (
        HiddenBatches(upper, [rows[i] for i in part], labels[part], size, recipe.seed, dtype, pad_id)
        for part, size in ((split.train, recipe.batch_size), (split.validation, 64))
    )
    losses = _train(folder, fine_tune(upper, train, validation, recipe, folder.work, dtype), say)
    model = upper.reassemble().eval()
    probabilities = predict(model, [rows[i] for i in split.test], pad_id).numpy()
    report = make_report(table, split, probabilities, losses, notes)
    _export(folder, model, tokenizer, table, split, report, probabilities, identity)
    return report


def _export(folder, model, tokenizer, table, split, report, probabilities, identity) -> None:
    """Write everything beside the folder's place, then move it in, the card last."""
    from safetensors import SafetensorError

    export = folder.export_folder()
    try:
        with quiet():
            model.save_pretrained(export)
            tokenizer.save_pretrained(export)
    except SafetensorError as error:  # what a full disk raises here
        raise OSError(f"the weights could not be written to {export} ({error}): free some space") from error
    report.save(export / "report.json")
    write_predictions(export / "test.csv", table, split, probabilities)
    card = write_card(table, report, identity, file_digest(export / "model.safetensors"))
    (export / CARD).write_text(card, encoding="utf-8")
    folder.finish()


def _train(folder: RunFolder, steps: Iterator, say: Say) -> list[float]:
    """Let the run go to its end; return the validation loss after each epoch, of this process or an earlier one."""
    with contextlib.closing(steps):  # stopped by the keyboard, it saves where it is
        for step in steps:
            if step.validation_loss is not None:
                say(f"step {step.step:,}: validation loss {step.validation_loss:.3f} nats")
    return read_losses(folder.work / "validation.json")


def notes_on_tokens(rows: list[list[int]], tokenizer, max_length: int) -> list[str]:
    """Return what must be said of what the encoder does not read: unknown tokens, and ends of long texts."""
    notes, total = [], sum(map(len, rows))
    unknown = sum(row.count(tokenizer.unk_token_id) for row in rows) / total
    if unknown > 0.05:
        notes.append(
            f"{unknown:.0%} of the tokens are unknown to the encoder, and lost: take one that was trained on "
            "this language, with --encoder"
        )
    if cut := sum(len(row) >= max_length for row in rows):
        notes.append(
            f"{counted(cut, 'text')} reach{'es' * (cut == 1)} {max_length} tokens; what is longer is cut"
        )
    return notes


def notes_on_units(table: Table, split: Split) -> list[str]:
    """Return what must be said of a test with few groups, or few texts: whose intervals promise too much."""
    units, kind = units_of(table), "groups" if table.groups else "different texts"
    n = len({units[i] for i in split.test})
    if n >= FEW_UNITS:
        return []
    return [
        f"the test holds {n} {kind} only: its intervals and p-values are too sure; several dozen are needed"
    ]


def write_predictions(path: Path, table: Table, split: Split, probabilities) -> None:
    """Write test.csv: for each test row its line, its label, the class that was said, and its probability."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["line", "label", "predicted", "probability"])
        for i, row in zip(split.test, probabilities, strict=True):
            k = int(row.argmax())
            writer.writerow([table.lines[i], table.labels[i], table.classes[k], f"{row[k]:.4f}"])
