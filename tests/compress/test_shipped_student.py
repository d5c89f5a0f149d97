"""The student that ships: it loads, its card is true, and it is what its teacher made better."""

import hashlib
import re
import sys

import pytest
import torch
from notebook_tools import ROOT

from llmcourse.data.manifest import course_data
from llmcourse.pretrained import load_course_model

sys.path.insert(0, str(ROOT / "tools"))
import measure_students as tool

FOLDER = course_data() / "checkpoints" / "student"
CARD = (FOLDER / "README.md").read_text(encoding="utf-8")
BITS = {  # of validation, test, training text
    title: [float(cell) for cell in re.findall(r"\d\.\d{4}", line)]
    for line in CARD.splitlines()
    if len(re.findall(r"\d\.\d{4}", line)) == 3
    for title in [line.split(" | ")[0].removeprefix("| ")]
}


def test_the_card_is_of_this_file_and_its_bits_are_measured_again():
    model, tokenizer = load_course_model("student")
    weights = (FOLDER / "model.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() in CARD
    assert f"{len(weights)} bytes" in CARD
    assert f"{model.n_parameters():,} parameters" in CARD
    assert tool.training_bits(model) == pytest.approx(BITS["with its teacher"][2], abs=5e-4)
    text = "Enter ROMEO."
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_teacher_and_student_read_the_same_tokens():
    (student, one), (teacher, other) = map(load_course_model, ("student", "pretrained"))
    assert one.encode("To be, or not to be") == other.encode("To be, or not to be")
    assert student.n_parameters() < 0.2 * teacher.n_parameters()
    ids = torch.tensor([one.encode("To be, or not to be")])
    assert student(ids).shape == teacher(ids).shape


def test_with_equal_steps_the_teacher_is_worth_something_and_the_student_stays_behind_it():
    bits = [BITS[title][0] for title in ("the teacher", "with its teacher", "alone, as many steps")]
    assert bits == sorted(bits)
