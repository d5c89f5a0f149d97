"""The stored contest: cheap rows are measured again, bytes are those of the formula, the card says what the rows do."""

import csv
import sys

import numpy as np
import pytest
from notebook_tools import ROOT

from llmcourse.compress.rounding import quantize_model
from llmcourse.packed import PackedLinear, Scheme

sys.path.insert(0, str(ROOT / "tools"))
import measure_compression as tool

with tool.PATH.open(encoding="utf-8", newline="") as file:
    ROWS = list(csv.DictReader(file))
BLOCKS = tool.read_table(tool.BLOCKS)
CARD = (tool.FOLDER / "README.md").read_text(encoding="utf-8")
INT2 = str(tool.INT2)


def rows(method, scheme=INT2):
    return [row for row in ROWS if (row["method"], row["scheme"]) == (method, scheme)]


def numbers(row):
    return [float(row[name]) for name in ("held_out", "training", "kl")]


def test_a_cheap_row_is_measured_again():
    measured = tool.Measured()
    for scheme, clip in ((tool.INT2, True), (tool.INT3, False)):
        bits, divergence = measured.evaluate(quantize_model(measured.model, scheme, clip=clip))
        found = [(bits[n].sum() / measured.n_bytes[n].sum()).item() for n in ("held_out", "training")]
        (row,) = rows("rounding, clipped" if clip else "rounding", str(scheme))
        assert [*found, divergence] == pytest.approx(numbers(row), abs=5e-4)


def test_bytes_are_equal_within_a_scheme_and_grow_with_the_formula():
    by_scheme = {}
    for row in ROWS:
        by_scheme.setdefault(row["scheme"], set()).add(int(row["bytes"]))
    assert all(len(sizes) == 1 for sizes in by_scheme.values())
    layers = [
        m for m in quantize_model(tool.load_course_model()[0], tool.INT2).modules() if type(m) is PackedLinear
    ]
    promised = {
        str(s): sum(s.n_bytes(m.shape) for m in layers) for s in (tool.INT2, tool.INT3, Scheme(8, "row"))
    }
    sizes = {scheme: by_scheme[scheme].pop() - promised[scheme] for scheme in promised}
    assert (
        max(sizes.values()) - min(sizes.values()) < 2000
    )  # the embedding, the norms, and the names of the parts


def test_blocks_and_rows_belong_together():
    for row in ROWS:
        for text in ("held_out", "training"):
            found = tool.blocks(
                [b for b in BLOCKS if b[2] == row["seed"]], row["method"], row["scheme"], text
            )
            assert found.shape == (1, tool.WINDOWS // tool.PER_BLOCK)
            assert found.mean() == pytest.approx(
                float(row[text]), rel=0.01
            )  # blocks differ a little in bytes


def test_the_card_holds_what_the_blocks_say():
    for line in tool.summary(BLOCKS):
        assert line in CARD, line


def test_qat_wins_back_more_than_half_and_more_than_its_controls():
    """Of the loss on unseen text, at equal bytes; with at least three seeds, and tests over blocks of text."""
    runs, rounded, floats = (
        tool.blocks(BLOCKS, method, scheme, "held_out")
        for method, scheme in (("QAT", INT2), ("rounding", INT2), ("float", "float16"))
    )
    assert len(runs) >= 3
    share, low, _ = tool.won_back(runs, rounded, floats)
    assert low > 0.5
    assert share > 0.7
    for method in ("rounding", "GPTQ", "GPTQ, clipped", "float steps, rounding", "float steps, GPTQ"):
        for text in ("held_out", "training"):
            ours, others = (tool.blocks(BLOCKS, m, INT2, text) for m in ("QAT", method))
            assert ours.mean() < others.mean()
            if (method, text) != ("GPTQ, clipped", "held_out"):  # which the card does not call a difference
                assert tool.p_value(ours, others[: len(ours)]) < 0.01, (method, text)


def test_the_share_won_back_is_the_ratio_of_means_and_its_interval_holds_it():
    rng = np.random.default_rng(1)
    floats = rng.normal(2, 0.1, (1, 400))
    rounded = floats + 0.1 + rng.normal(0, 0.01, (1, 400))
    runs = floats + 0.03 + rng.normal(0, 0.01, (5, 400))
    share, low, high = tool.won_back(runs, rounded, floats, resamples=500)
    assert share == pytest.approx(1 - (runs.mean() - floats.mean()) / (rounded.mean() - floats.mean()))
    assert low < 0.7 < high
    assert high - low < 0.05
    assert tool.p_value(runs, runs.mean(0, keepdims=True)) > 0.5
    assert tool.p_value(runs, rounded) < 0.001
