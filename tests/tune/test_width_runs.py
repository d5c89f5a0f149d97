"""The family of widths: what is counted, that both parametrizations start alike, and what was measured of it."""

import csv
import math
from pathlib import Path
from statistics import mean

import pytest
import torch

from llmcourse.optim import is_hidden_matrix
from llmcourse.tune.scaling import predict_loss
from llmcourse.tune.width_runs import (
    BATCH,
    CONTEXT,
    Text,
    held_out_bits,
    hidden_parameters,
    make_width,
    train_width,
)

FOLDER = Path(__file__).resolve().parents[2] / "data" / "scaling"


def rows(name):
    with (FOLDER / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def a_text(vocab_size=512, seed=0):
    """A text that repeats: its windows hold 8 bytes for each token."""
    ids = torch.arange(4000) % 7
    windows = (torch.arange(8)[:, None] * 100 + torch.arange(65)) % 7
    return Text(vocab_size, ids, windows[:, :-1], windows[:, 1:], 8 * 8 * 64)


def test_parameters_are_those_of_the_model_without_its_ends():
    for width in (32, 48, 96):
        model = make_width(width)
        ends = 2 * model.token_embedding.weight.numel()
        assert hidden_parameters(width) == model.n_parameters() - ends


def test_both_parametrizations_start_alike():
    for width in (32, 128):
        models = []
        for mup in (True, False):
            torch.manual_seed(0)
            models.append(make_width(width, mup=mup))
        for (name, one), (_, other) in zip(*(m.named_parameters() for m in models), strict=True):
            assert torch.allclose(one, other, rtol=1e-6), name
            if is_hidden_matrix(name, one) and "down" not in name and "out" not in name:
                assert one.std().item() == pytest.approx(1 / math.sqrt(width), rel=0.15), name


def test_bits_are_those_of_a_model_that_knows_nothing_and_training_lowers_them():
    text, model = a_text(), make_width(32)
    torch.nn.init.zeros_(model.unembedding.weight)
    assert held_out_bits(model, text) == pytest.approx(math.log2(512) / 8)
    assert train_width(text, 32, 30, 2.0**-6, seed=0) < 0.5 * math.log2(512) / 8
    assert train_width(text, 32, 4, 2.0**-6, 0) == train_width(text, 32, 4, 2.0**-6, 0)
    assert train_width(text, 32, 4, 2.0**-6, 0) != train_width(text, 32, 4, 2.0**-6, 1)


def test_a_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="must be a multiple of 16"):
        make_width(40)


# --- what tools/measure_scaling.py stored --------------------------------------------------------


def test_stored_runs_are_of_this_family_each_once():
    runs = rows("runs")
    keys = [tuple(row[n] for n in ("part", "width", "steps", "log2_rate", "mup", "seed")) for row in runs]
    assert len(set(keys)) == len(keys)
    for row in runs:
        assert int(row["parameters"]) == hidden_parameters(int(row["width"]))
        assert int(row["tokens"]) == int(row["steps"]) * BATCH * CONTEXT


def test_predictions_are_those_of_the_stored_runs():
    sizes = [row for row in rows("runs") if row["part"] == "sizes"]
    for row in rows("prediction"):
        runs = [r for r in sizes if int(r["seed"]) < int(row["seeds"])]
        if row["law"] == "sizes":
            runs = [r for r in runs if r["steps"] == row["steps"]]
        columns = [[float(r[name]) for r in runs] for name in ("parameters", "tokens", "bits")]
        size, at = float(row["parameters"]), float(row["tokens"])
        assert size > max(columns[0])
        if row["law"] == "sizes":
            columns[1], at = None, None
        told = predict_loss(*columns, size, at, n_resamples=15)
        assert told.loss == pytest.approx(float(row["loss"]), abs=2e-3)


def test_the_held_back_size_came_out_where_the_law_of_sizes_said():
    """The last prediction for the longest runs, committed before any of them."""
    row = [r for r in rows("prediction") if (r["law"], r["steps"]) == ("sizes", "600")][-1]
    held_back = [r for r in rows("runs") if (r["part"], r["steps"]) == ("held_back", "600")]
    low, high = float(row["low"]), float(row["high"])
    assert len(held_back) == 3
    assert low < mean(float(r["bits"]) for r in held_back) < high
    assert high - low <= 0.05
