"""The stored records of the patients of chapter 5d, which `tools/record_patients.py` writes.

A training run of a patient takes seconds, and the page shows sixteen; the records of one seed are kept.
"""

import csv
import functools
import json
from dataclasses import asdict, fields
from pathlib import Path

from llmcourse.data.manifest import course_data
from llmcourse.monitor.run_record import Run
from llmcourse.training import Step

SEED = 1234  # of the stored patients
CURVES = ("loss", "lr", "grad_norm", "validation_loss")


def as_json(run: Run) -> dict:
    """Return a record as JSON can hold it: curves to six digits, and without the seconds of the steps."""
    curves = [
        [None if (value := getattr(step, name)) is None else float(f"{value:.6g}") for name in CURVES]
        for step in run.steps
    ]
    tokens = run.steps[0].tokens if run.steps else 0  # of one batch
    return asdict(run) | {"steps": curves, "tokens": tokens}


def from_json(record: dict) -> Run:
    """Return the record that `as_json` was given, its seconds as 0.

    >>> run = stored_patients()["J"]
    >>> from_json(json.loads(json.dumps(as_json(run)))) == run
    True
    """
    values = {field.name: record[field.name] for field in fields(Run)}
    for name in (field.name for field in fields(Run) if str(field.type).startswith("tuple")):
        values[name] = tuple(values[name])
    for name in (field.name for field in fields(Run) if field.type == dict[int, float]):
        values[name] = {int(step): value for step, value in values[name].items()}
    values["steps"] = tuple(
        Step(number, loss, lr, norm, number * record["tokens"], 0.0, validation)
        for number, (loss, lr, norm, validation) in enumerate(record["steps"], start=1)
    )
    return Run(**values)


def path() -> Path:
    """Return where the records lie."""
    return course_data() / "clinic" / "patients.json"


@functools.cache
def stored_patients() -> dict[str, Run]:
    """Return the records of all patients by letter, those of the seed SEED."""
    records = json.loads(path().read_text(encoding="utf-8"))
    return {letter: from_json(record) for letter, record in records.items()}


def read_confusion() -> list[dict]:
    """Return the rows of data/diagnose/confusion.csv, `runs` as numbers: what was done, and what it was named."""
    with (course_data() / "diagnose" / "confusion.csv").open(encoding="utf-8", newline="") as file:
        return [row | {"runs": int(row["runs"])} for row in csv.DictReader(file)]
