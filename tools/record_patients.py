"""Train the sixteen patients of chapter 5d once, and store their records: data/clinic/patients.json.

    python tools/record_patients.py

One thread; about 40 seconds of processor time. `admit` of the room reads them, and trains the
patients of any other seed.
"""

import json

import torch

from llmcourse.support.files import atomic_write
from llmcourse.teach.chapters.ch05d_failure_clinic.patients import ROUNDS, train_patient
from llmcourse.teach.chapters.ch05d_failure_clinic.stored import SEED, as_json, path


def main() -> None:
    """Train, and write one line for each patient."""
    torch.set_num_threads(1)
    records = {letter: train_patient(letter, SEED) for names in ROUNDS.values() for letter in names}
    lines = [
        f'"{letter}": {json.dumps(as_json(run), separators=(",", ":"))}' for letter, run in records.items()
    ]
    path().parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path()) as temporary:
        temporary.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
