"""Every number in the text was printed by a cell, stands in its code, or says where it comes from.

`tools/trace_numbers.py` says what counts as a number and where it may stand; it keeps the line that
each was read from in tests/prose_numbers.tsv. What nbval does for outputs, this does for the text:
a number that changes on one side only is noticed.

How sharp it is, measured by changing one digit of each of the 919 numbers with two digits or more: with
their traces, every change is noticed. A number that somebody adds without tracing it is looked for near
by and in the same words; there 97 % of the wrong ones with three digits or more are found out, 90 % of
those with two, and 11 % of the right ones want tracing. Bare digits and words below eleven ("two", 3) are
left out: they stand everywhere, and a match would prove nothing.
"""

import random
import re
import sys
from collections import defaultdict
from collections.abc import Iterator

import nbformat
import pytest
from notebook_tools import NOTEBOOKS, ROOT

sys.path.insert(0, str(ROOT / "tools"))
import trace_numbers
from trace_numbers import WORDS, find_numbers, holds, propose, read_traces, stands, traced_numbers

# Numbers that no output, code, exercise or named file holds: (notebook, cell) -> {number: reason}.
BRANTS = "Brants et al. 2007, named there"
HOFFMANN = "Hoffmann et al. 2022, named there"
CHOWDHERY = "Chowdhery et al. 2022, named there"
SOULY = "Souly et al. 2025, named there"
EXAMPLE = "an example, and no measurement"
EXCEPTIONS = {
    ("01_background", "why"): {"100": "Celsius", "Twelve": EXAMPLE, "thirty": EXAMPLE, "forty": EXAMPLE},
    ("01_background", "unseen-read"): {"2 trillion": BRANTS, "300 billion": BRANTS},
    ("01_background", "entropy-read"): {"583 million": "Brown et al. 1992, named there"},
    ("01_background", "scaling-law"): {"400": HOFFMANN},
    ("01_background", "law-read"): {"70 million": HOFFMANN, "16 billion": HOFFMANN},
    ("03b_data", "recap"): {"15 trillion": "Penedo et al. 2024, named there"},
    ("03e_evaluation", "choice-read"): {"70 %": CHOWDHERY},
    ("05b_tensorboard", "ratio"): {"10": EXAMPLE, "0.01": EXAMPLE, "0.1": EXAMPLE},
    ("05b_tensorboard", "smoothing"): {"0.6": "where TensorBoard's slider stands"},
    ("05b_tensorboard", "smoothing-read"): {"0.9": "a place of TensorBoard's slider"},
    ("05b_tensorboard", "killed-text"): {"120": "the default of TensorBoard's writer"},
    ("05b_tensorboard", "exercise-first-task"): {"0.001": "the CS231n notes, named there"},
    ("05c_precision_and_speed", "peak-text"): {"46 %": CHOWDHERY},
    ("05c_training_techniques", "curves-read"): {"1 %": "Jordan et al.'s estimate"},
    ("05d_failure_clinic", "spike"): {
        "100": CHOWDHERY,
        "200": CHOWDHERY,
        "500": CHOWDHERY,
        "twenty": CHOWDHERY,
    },
    ("08c_safety", "count-text"): {
        "250": SOULY,
        "600 million": SOULY,
        "13 billion": SOULY,
        "20": SOULY,
    },
}

TRACES = defaultdict(dict)
for (notebook, cell_id, text), trace in read_traces().items():
    TRACES[notebook, cell_id][text] = trace

REMEDY = "print it, name its source, or run `python tools/trace_numbers.py` if it is new or was moved"
BY_NAME = pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])


def text_cells(path) -> list:
    """Return the cells of text of a notebook."""
    return [cell for cell in trace_numbers.read(path).cells if cell.cell_type == "markdown"]


def complaints(path, cell) -> Iterator[str]:
    """Yield what is wrong with the numbers of a cell of text."""
    traces = TRACES[path.stem, cell.id]
    reasons = EXCEPTIONS.get((path.stem, cell.id), {})
    numbers = traced_numbers(cell)
    for text in (traces | reasons).keys() - numbers.keys():
        yield f"{text} is no longer in the text"
    for text, (times, number) in numbers.items():
        if text in traces:
            stored_times, where, line = traces[text]
            if times != stored_times:
                yield f"{text} stands {times} times in the text, not {stored_times}"
            if not stands(path, where, line, number):
                yield f"{text} is no longer in {where}: {line}"
        elif text not in reasons and propose(path, cell, number, least=1.5) is None:
            yield f"{text} stands nowhere"


@BY_NAME
def test_every_number_in_the_text_stands_where_it_says(path):
    found = {cell.id: wrong for cell in text_cells(path) if (wrong := list(complaints(path, cell)))}
    assert found == {}, REMEDY


def changed(text: str, rng: random.Random) -> str:
    """Return `text` with one of its digits changed, or with another number word."""
    if text.lower() in WORDS:
        return rng.choice([word for word in WORDS if word != text.lower()])
    place = rng.choice([match.start() for match in re.finditer(r"[0-9⁰¹²³⁴⁵⁶⁷⁸⁹]", text)])
    digits = "123456789" if text[place] in "0123456789" else "¹²³⁴⁵⁶⁷⁸⁹"
    other = rng.choice([digit for digit in digits if digit != text[place]])
    return text[:place] + other + text[place + 1 :]


@BY_NAME
def test_a_changed_digit_is_noticed(path):
    """At least 95 % of all changes of one digit; what is measured stands above."""
    rng, noticed = random.Random(0), []
    for cell in text_cells(path):
        source = cell.source
        for number in find_numbers(source):
            if number.is_traced:
                wrong = changed(number.text, rng)
                cell.source = source[: number.start] + wrong + source[number.start + len(number.text) :]
                noticed.append(any(complaints(path, cell)))
        cell.source = source
    assert len(noticed) >= 5
    assert sum(noticed) >= 0.95 * len(noticed)


def test_exceptions_are_few_and_needed():
    stems = {path.stem: path for path in NOTEBOOKS}
    for (stem, name), reasons in EXCEPTIONS.items():
        cell = next(cell for cell in text_cells(stems[stem]) if cell.id == name)
        for number in find_numbers(cell.source):
            if number.text in reasons:
                assert number.text not in TRACES[stem, name], "it has a line, so it needs no exception"
    assert sum(len(reasons) for reasons in EXCEPTIONS.values()) <= 40


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        ("0.79", "accuracy 0.7923", True),
        ("79 %", "accuracy 0.7923", True),
        ("79.2 %", "79.2% of 2,551 right", True),
        ("0.792", "79.2%", True),
        ("0.80", "accuracy 0.7923", False),  # not rounded, but wrong
        ("0.792", "accuracy 0.79", False),  # more digits than were printed
        ("79 %", "79 films", False),  # another unit
        ("4.5 million", "4,498,882 characters", True),
        ("4.6 million", "4,498,882 characters", False),
        ("about 20,000", "19,864 bytes", True),
        ("20,000", "19,864 bytes", False),
        ("10⁻⁴", "equal to 1e-4: True", True),
        ("6·10⁻⁸", "float16 6.1e-05 6e-08", True),
        ("2,048", "vocab_size=2048", True),
        ("0.95²⁰", "1 - 0.95**20", True),
        ("1.00", "rank = 1 + n", False),
        ("57 and 58 %", "right at once: 57%", True),
        ("128", "print(f'{value:128.3f}')", False),  # a format is no number
    ],
)
def test_rounding_is_honest(text, line, expected):
    assert holds(line, find_numbers(text)[0]) is expected


@pytest.mark.parametrize(
    ("text", "stands"), [("1.871", False), ("1.87", False), ("1.80", True), ("1.95", True)]
)
def test_the_value_of_a_band_line_is_no_place_for_a_number_and_its_limits_are(text, stands):
    """The value differs between machines; nbval does not compare it."""
    output = nbformat.v4.new_output(
        "stream", text="a count: 3\nvalidation loss: 1.871, inside 1.80 to 1.95\n"
    )
    lines = trace_numbers.output_lines(nbformat.v4.new_code_cell(outputs=[output]))
    assert len(lines) == 2
    assert any(holds(line, find_numbers(text)[0]) for line in lines) is stands


@pytest.mark.parametrize(
    "text",
    [
        "Vaswani et al. 2017, [arXiv:1706.03762](https://arxiv.org/abs/1706.03762), sections 3.2.1 and 3.2.3",
        "GPT-2, T5, float32, Llama 2 7B, MiniLM-L6-v2, `d_model`, chapter 3c, [04a_attention](04a_attention.ipynb)",
        "1. the first goal",
    ],
)
def test_names_years_and_references_are_no_numbers(text):
    assert [n.text for n in find_numbers(text) if n.is_traced] == []


@BY_NAME
def test_readme_quotes_the_notebook(path):
    """What README's table says that one sees in a chapter, stands in that chapter."""
    row = next(
        line for line in (ROOT / "README.md").read_text("utf-8").splitlines() if f"/{path.name})" in line
    )
    lines = [line for cell in trace_numbers.read(path).cells for line in cell.source.splitlines()]
    lines += [line for cell in trace_numbers.read(path).cells for line in trace_numbers.output_lines(cell)]
    for number in find_numbers("|".join(row.split("|")[2:4])):
        assert any(holds(line, number) for line in lines), number.text
