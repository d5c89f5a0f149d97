"""What chapter 8a measures of a model, and how it compares stored methods over seeds."""

import csv
from collections.abc import Iterable, Mapping

from llmcourse.data.manifest import course_data
from llmcourse.evaluate.seeds import paired as paired
from llmcourse.evaluate.seeds import select
from llmcourse.evaluate.seeds import summary as summary  # readers of the notebook look for it here

NUMBERS = ("seed", "steps", "bytes", "held_out", "training", "kl")
# The model "pretrained" on the texts of students.csv and pruning.csv: its card, and measure_students.training_bits.
FLOAT = {"held_out": 2.0336, "training": 1.5850}


def stored(name: str) -> list[dict]:
    """Return the rows of data/compression/`name`.csv, numbers as floats."""
    with (course_data() / "compression" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row |= {key: float(row[key]) for key in NUMBERS if row.get(key)}
    return rows


def points(
    quantized: Iterable[Mapping], students: Iterable[Mapping], pruned: Iterable[Mapping]
) -> dict[str, list[tuple[float, float, float]]]:
    """Return {method: [(bytes, change in bits per byte held out, and on training text)]} of all stored models.

    Each change is from the float model on the text that the table was measured on. Controls are left out.
    """
    (start,) = select(quantized, method="float")
    chosen = {
        "float16": (select(quantized, method="float"), start),
        "rounding": (select(quantized, method="rounding"), start),
        "GPTQ": (select(quantized, method="GPTQ"), start),
        "GPTQ, clipped": (select(quantized, method="GPTQ, clipped"), start),
        "QAT": (select(quantized, method="QAT"), start),
        "pruned": (select(pruned, method="pruned"), FLOAT),
        "pruned, trained": (select(pruned, method="pruned, trained"), FLOAT),
        "student, no teacher": (select(students, method="scratch"), FLOAT),
        "student, distilled": (select(students, method="distilled"), FLOAT),
    }
    return {
        name: [
            (row["bytes"], *(row[text] - from_[text] for text in ("held_out", "training"))) for row in rows
        ]
        for name, (rows, from_) in chosen.items()
    }
