"""Texts that repeat against loops; the stored run against its own checkpoints and its card."""

import csv
import hashlib
import re
from itertools import combinations

import pytest
import torch
import torch.nn.functional as F

from llmcourse.data.batches import TokenBatches
from llmcourse.data.manifest import course_data
from llmcourse.interpret.heads import head_scores
from llmcourse.interpret.induction import (
    RepeatedBatches,
    best_heads,
    copying_losses,
    load_induction_run,
    other_sets,
    rank_heads,
    repeated_rows,
    small_model,
)

FOLDER = course_data() / "induction"


def periods_of(row):
    return [p for p in range(1, len(row)) if all(row[i] == row[i - p] for i in range(p, len(row)))]


def test_rows_repeat_with_a_period_in_the_range_and_use_the_symbols():
    rows = repeated_rows(range(100, 200), 40, 33, torch.Generator().manual_seed(0), (4, 11))
    assert rows.shape == (40, 33)
    first = [periods_of(row)[0] for row in rows.tolist()]
    assert {min(first), max(first)} == {4, 11}
    assert set(rows.flatten().tolist()) <= set(range(100, 200))
    with pytest.raises(ValueError, match="smallest and the largest"):
        repeated_rows([1], 1, 4, torch.Generator(), (3, 2))


def test_batches_are_known_by_their_number_and_half_is_text():
    text = TokenBatches(torch.arange(1000) % 50 + 50, 4, 16, seed=2)
    batches = RepeatedBatches(range(50), 8, 16, seed=1, text=text)
    seen = [next(batches) for _ in range(4)]
    state = batches.state_dict()
    following = next(batches)
    other = RepeatedBatches(range(50), 8, 16, seed=1, text=TokenBatches(text.token_ids, 4, 16, seed=2))
    other.load_state_dict(state)
    assert all(map(torch.equal, following, next(other)))
    for inputs, targets in seen:
        assert torch.equal(inputs[:, 1:], targets[:, :-1])
        assert (inputs[:4] >= 50).all()
        assert all(2 <= periods_of(row)[0] <= 8 for row in inputs[4:].tolist())
    with pytest.raises(ValueError, match="seed=2"):
        RepeatedBatches(range(50), 8, 16, seed=1).load_state_dict(state | {"seed": 2})
    with pytest.raises(ValueError, match="half of 6 rows"):
        RepeatedBatches(range(50), 6, 16, text=text)


def test_copying_losses_are_means_of_cross_entropy():
    torch.manual_seed(0)
    model, halves = small_model(20, 12), torch.randint(20, (5, 6))
    first, second = [], []
    for half in halves:
        row = torch.cat([half, half])
        with torch.no_grad():
            logits = model(row[None])[0]
        losses = [F.cross_entropy(logits[t - 1], row[t]).item() for t in range(1, 12)]  # of token t
        first += losses[:5]
        second += losses[6:]
    assert copying_losses(model, halves) == pytest.approx((sum(first) / 25, sum(second) / 25), abs=1e-5)


def test_heads_are_ranked_and_others_are_all_or_some():
    scores = torch.tensor([[0.2, 0.5, 0.4], [0.9, 0.1, 0.3]])
    assert rank_heads(scores, 0.3) == [(1, 0), (0, 1), (0, 2), (1, 2)]
    assert rank_heads(scores, 0.95) == []
    places, generator = [(0, 0), (0, 1), (1, 1), (1, 2)], torch.Generator().manual_seed(0)
    assert other_sets(places, 2, 99, generator) == list(combinations(places, 2))
    few = other_sets(places, 2, 3, generator)
    assert 1 <= len(few) <= 3
    assert set(few) <= set(combinations(places, 2))
    assert other_sets(places, 5, 3, generator) == []


def test_the_card_has_the_sum_of_the_checkpoints_and_they_are_small():
    content = (FOLDER / "checkpoints.safetensors").read_bytes()
    assert hashlib.sha256(content).hexdigest() in (FOLDER / "README.md").read_text(encoding="utf-8")
    assert len(content) < 2e6
    assert re.search(rf"{len(content)} bytes", (FOLDER / "README.md").read_text(encoding="utf-8"))


def test_the_stored_curve_is_that_of_the_stored_models():
    models, alphabet = load_induction_run()
    with (FOLDER / "runs.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["seed"] == "1" and int(row["step"]) in models]
    assert [int(row["step"]) for row in rows] == list(models)
    generator = torch.Generator().manual_seed(0)  # as in tools/build_induction.py
    halves = torch.randint(len(alphabet), (64, 32), generator=generator)
    for row in rows[:: len(rows) // 4]:
        first, second = copying_losses(models[int(row["step"])], halves)
        assert first == pytest.approx(float(row["first_time"]), abs=0.02)
        assert second == pytest.approx(float(row["second_time"]), abs=0.02)
        score, place = best_heads(models[int(row["step"])], halves)["induction"]
        assert score == pytest.approx(float(row["induction_score"]), abs=0.01)
        assert head_scores(models[int(row["step"])], halves.repeat(1, 2))["induction"][
            place
        ] == pytest.approx(score)


def test_induction_heads_come_in_every_seed_and_with_them_copying():
    with (FOLDER / "runs.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for seed in {row["seed"] for row in rows}:
        mine = [row for row in rows if row["seed"] == seed]
        score, second, first = (
            [float(row[name]) for row in mine] for name in ("induction_score", "second_time", "first_time")
        )
        assert max(score[:5]) < 0.1
        assert score[-1] > 0.3
        assert second[-1] < first[-1] - 2


def test_halves_of_one_token_are_refused():
    with pytest.raises(ValueError, match="give at least 2"):
        copying_losses(small_model(8), torch.tensor([[1]]))
