"""The card of a classifier: what it learned from, what it is worth, what it is not for. `data.cards` reads it."""

from collections.abc import Mapping

from llmcourse.finetune.table.columns import Table
from llmcourse.finetune.table.report import Report

CARD = """\
---
license: TODO
pipeline_tag: text-classification
---
# {title}

```python
from transformers import pipeline

judge = pipeline("text-classification", "THIS FOLDER", truncation=True, max_length={max_length})
```

| What | |
|---|---|
| Data | {data} |
| Split | {split} |
| Classes | {classes} |
| Trained from | {encoder} |
| Training | {training} |
| Test accuracy | {accuracy} |
| Test macro F1 | {macro_f1:.3f} |
{rivals}
| Limits | {limits} |
| Licence | TODO |
| model.safetensors | sha256 {digest} |

The licence is yours to state: it depends on the texts, and on the encoder's own licence. Put it in place
of both TODO.

## By class

| Class | Test rows | Precision | Recall | F1 |
|---|---:|---:|---:|---:|
{by_class}

## Notes

{notes}
"""


def write_card(table: Table, report: Report, identity: Mapping, digest: str) -> str:
    """Return the text of the card.

    What the program cannot know, the licence, is a placeholder: `data.cards.missing_statements` names it
    until it is filled in. `identity` is what `command.finetune_table` recorded in run.json.
    """
    sizes, recipe = report.sizes, identity["recipe"]
    kind = (
        f"all rows of a {identity['columns'].get('group', 'text')!r} on one side"
        if table.groups
        else "all rows of a text on one side"
    )
    weakest = min(report.by_class, key=lambda row: row[4])
    cells = {
        "title": f"A classifier of {cell(table.columns['text'])}",
        "max_length": recipe["max_length"],
        "data": f"{cell(table.name)}, {len(table.texts):,} rows, sha256 {identity['data']}",
        "split": f"{sizes['train']:,} rows for training, {sizes['validation']:,} for validation, {sizes['test']:,} for the test; {cell(kind)}",
        "classes": ", ".join(f"{cell(name)} ({table.labels.count(name):,})" for name in table.classes),
        "encoder": f"{cell(identity['encoder'])}, its embeddings and lowest {recipe['frozen_layers']} layers kept",
        "training": f"{recipe['epochs']} epochs in batches of {recipe['batch_size']}, AdamW, rate {recipe['lr']:g}, seed {recipe['seed']}",
        "accuracy": f"{report.accuracy:.3f} (95 % interval over {report.units}: {report.low:.3f} to {report.high:.3f})",
        "macro_f1": report.macro_f1,
        "rivals": "\n".join(
            f"| Baseline: {cell(r.name)} | {r.accuracy:.3f}; this classifier is {100 * r.difference:+.1f} points "
            f"({100 * r.low:+.1f} to {100 * r.high:+.1f}, paired; p = {r.p_value:.4f}) |"
            for r in report.rivals
        ),
        "limits": f"measured on rows of the same table only; texts are cut at {recipe['max_length']} tokens; "
        f"weakest class {cell(weakest[0])} (F1 {weakest[4]:.2f}); labels are those of the table, right or wrong",
        "digest": digest,
        "by_class": "\n".join(
            f"| {cell(name)} | {n:,} | {precision:.3f} | {recall:.3f} | {f1:.3f} |"
            for name, n, precision, recall, f1 in report.by_class
        ),
        "notes": "\n".join(f"- {cell(note)}" for note in report.notes) or "None.",
    }
    return CARD.format(**cells)


def cell(text: str) -> str:
    """Return a text for a cell of a table: one line, bars escaped.

    >>> cell("a|b")
    'a\\\\|b'
    """
    return " ".join(str(text).split()).replace("|", "\\|")
