"""The stored runs of chapter 5c: complete, and summed up as a closed form says."""

import math
from statistics import mean

import numpy as np
import pytest

from llmcourse.teach.chapters.ch05c_training_techniques.ablation import (
    Effect,
    effects,
    effects_figure,
    read_runs,
)
from llmcourse.tune.recipes import FAST, NANOGPT, PLAIN


def row(technique, seed, loss, seconds=1.0):
    return dict(part="add", optimizer="muon", technique=technique, seed=seed, loss=loss, seconds=seconds)


def test_effects_are_paired_differences_with_a_pooled_interval():
    generator = np.random.default_rng(0)
    base, noise = generator.normal(2, 1, 4), generator.normal(0, 0.1, (3, 4))
    rows = [row("base", seed, base[seed]) for seed in range(4)]
    for i, shift in enumerate((-0.5, 0.0, 0.5)):
        rows += [row(f"t{i}", seed, base[seed] + shift + noise[i, seed], seconds=2.0) for seed in range(4)]
    found = effects(rows, "add", "muon")
    scatter = math.sqrt(np.var(noise, axis=1, ddof=1).mean())
    for i, effect in enumerate(found):
        assert effect.technique == f"t{i}"
        assert effect.difference == pytest.approx((-0.5, 0.0, 0.5)[i] + noise[i].mean())
        assert effect.half_width == pytest.approx(1.96 * scatter / 2)
        assert (effect.cost, effect.runs) == (2.0, 4)
    assert [effect.verdict for effect in found] == ["helps", "no difference seen", "hurts"]
    assert Effect("x", math.inf, 0.1, 1.0, 1).verdict == "diverges"
    with pytest.raises(ValueError, match="no base among the runs"):
        effects(rows, "add", "adamw")


def test_the_ablation_has_what_it_promises():
    rows = read_runs("runs")
    for optimizer in ("adamw", "muon"):
        found = effects(rows, "add", optimizer)
        assert len(found) >= 12
        assert all(effect.runs >= 3 for effect in found)
        trials = [
            r for r in rows if (r["part"], r["optimizer"], r["technique"]) == ("search", optimizer, "trial")
        ]
        assert len(trials) == 24
        assert {r["steps"] for r in trials} == {PLAIN.steps}
    assert {effect.technique for effect in effects(rows, "remove", "muon")} >= {"without embedding shift"}


def test_the_race_kept_its_rules():
    rows = {}
    for r in read_runs("race"):
        rows.setdefault(r["recipe"], []).append(r)
    assert {name: len({r["seed"] for r in found}) for name, found in rows.items()}["fast"] == 6
    assert len({r["seed"] for r in rows["nanogpt"]}) == 6
    assert {r["steps"] for r in rows["nanogpt"]} == {NANOGPT.steps}
    assert {r["steps"] for r in rows["fast"]} == {FAST.steps}
    limit = rows["nanogpt"][0]["parameters"]
    assert all(r["parameters"] <= limit for found in rows.values() for r in found)
    target = mean(r["loss"] for r in rows["nanogpt"])
    assert sum(r["loss"] < target for r in rows["fast"]) >= 5


def test_the_figure_has_a_row_for_each_technique():
    found = effects(read_runs("runs"), "add", "muon")
    axis = effects_figure({"muon": found})
    assert len(axis.get_yticks()) == len(found)
