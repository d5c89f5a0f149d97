"""Circuits found against circuits planted; effects and faithfulness against patching, and against all and none."""

import csv

import pytest
import torch

from llmcourse.data.manifest import course_data
from llmcourse.interpret.ablation import ablate_heads, head_means
from llmcourse.interpret.circuits import (
    Exchange,
    all_heads,
    compare_circuits,
    faithfulness,
    find_circuit,
    head_effects,
    prune_circuit,
)
from llmcourse.interpret.hooks import hooked
from llmcourse.interpret.patching import patch_heads
from llmcourse.interpret.planted import plant
from llmcourse.interpret.planted_tasks import TASKS


def parts_of(planted, n=30, seed=7):
    texts = planted.texts(n, seed)
    return planted.model, texts.clean, texts.corrupted, texts.metric


@pytest.fixture(scope="module")
def induction():
    return plant("induction", 2)


def test_effects_are_those_of_patching(induction):
    model, clean, corrupted, metric = parts_of(induction)
    noise, restore = (head_effects(model, clean, corrupted, metric, kind) for kind in ("corrupt", "restore"))
    assert torch.allclose(noise, patch_heads(model, corrupted, clean, metric), atol=1e-5)
    assert torch.allclose(restore, patch_heads(model, clean, corrupted, metric), atol=1e-5)


@pytest.mark.parametrize("kind", ["mean", "zero"])
def test_effects_of_taking_away_are_those_of_ablation(induction, kind):
    model, clean, corrupted, metric = parts_of(induction)
    means = head_means(model, torch.cat([clean, corrupted]), each_position=True) if kind == "mean" else None
    effects = head_effects(model, clean, corrupted, metric, kind)
    with torch.no_grad():
        full, twin = metric(model(clean)), metric(model(corrupted))
        for layer, head in [(0, 0), *induction.heads]:
            with hooked(model, ablate_heads([(layer, head)], kind, means)):
                left = metric(model(clean))
            assert effects[layer, head].item() == pytest.approx(
                ((full - left) / (full - twin)).item(), abs=1e-5
            )


@pytest.mark.parametrize("task", TASKS)
def test_every_true_head_is_named_and_no_other(task):
    planted = plant(task, 5)
    texts = parts_of(planted)
    assert find_circuit(*texts) == planted.heads
    assert prune_circuit(*texts) == planted.heads
    assert faithfulness(*texts, planted.heads, "corrupt") == pytest.approx(1, abs=0.05)
    assert faithfulness(*texts, planted.heads, "mean") >= 0.95


def test_all_heads_are_faithful_and_none_are_not(induction):
    texts = parts_of(induction)
    for kind in ("corrupt", "mean", "zero"):
        assert faithfulness(*texts, all_heads(induction.model), kind) == pytest.approx(1, abs=1e-6)
        assert faithfulness(*texts, [], kind) == pytest.approx(0, abs=1e-6)
    assert faithfulness(*texts, [max(induction.heads)], "corrupt") < 0.1  # one head of two is no circuit


def test_exchanging_all_heads_is_reading_the_other_text_where_heads_alone_carry_it(induction):
    exchange = Exchange(*parts_of(induction))
    assert exchange.effect(*all_heads(induction.model)) == pytest.approx(1, abs=0.02)
    assert exchange.effect() == 0


def test_copies_cover_for_each_other_when_one_is_taken_away():
    two = plant("induction", 0, copies=2)
    texts = parts_of(two)
    copies = {place for place, role in two.roles.items() if role == "induction"}
    assert find_circuit(*texts, kind="mean") == two.heads - copies
    assert faithfulness(*texts, two.heads - copies) < 0.1  # so one notices
    assert find_circuit(*texts, kind="mean", pairs=True) == two.heads
    assert find_circuit(*texts) == two.heads  # a copy that carries the wrong answer is not covered for
    assert len(prune_circuit(*texts, kind="mean") & copies) == 1


def test_pairs_add_nothing_to_a_circuit_without_copies(induction):
    assert find_circuit(*parts_of(induction), kind="mean", pairs=True) == induction.heads


def test_taking_away_zeros_blames_a_head_that_writes_a_constant():
    planted = plant("duplicate token", 2)
    constant = next(place for place, role in planted.others.items() if role == "constant")
    assert constant in find_circuit(*parts_of(planted), kind="zero")
    assert constant not in find_circuit(*parts_of(planted), kind="mean")


def test_a_twin_that_keeps_the_notes_hides_who_wrote_them(induction):
    model, clean, _, _ = parts_of(induction)
    texts = induction.texts(30, 7)
    row, place = torch.arange(30), (clean[:, 1:-1] == clean[:, -1:]).long().argmax(1) + 2
    corrupted = clean.clone()  # another letter follows the first time: the letter before is the same
    corrupted[row, place] = texts.other_answer
    metric = texts.metric
    last = {place for place, role in induction.roles.items() if role == "induction"}
    assert find_circuit(model, clean, corrupted, metric) == last


def test_circuits_are_compared_head_by_head():
    assert compare_circuits([], []) == {"right": 0, "missed": 0, "false": 0}
    assert compare_circuits([(0, 0), (0, 1)], [(0, 1), (2, 0), (2, 1)]) == {
        "right": 1,
        "missed": 2,
        "false": 1,
    }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(kind="noise"), "unknown: choose one of"),
        (dict(threshold=1.5), "threshold is 1.5"),
    ],
)
def test_bad_arguments_are_named(induction, change, words):
    with pytest.raises(ValueError, match=words):
        find_circuit(*parts_of(induction), **change)


def test_texts_that_do_not_pair_or_do_not_differ_are_refused(induction):
    model, clean, corrupted, metric = parts_of(induction)
    with pytest.raises(ValueError, match="same length"):
        find_circuit(model, clean, corrupted[:, :-1], metric)
    with pytest.raises(ValueError, match="no difference to find heads for"):
        find_circuit(model, clean, clean, metric)
    with pytest.raises(ValueError, match="does not exist"):
        faithfulness(model, clean, corrupted, metric, [(9, 0)])
    with pytest.raises(ValueError, match="to take away"):
        faithfulness(model, clean, corrupted, metric, [], kind="restore")
    assert not any(len(module._forward_hooks) for module in model.modules())


def test_the_stored_table_says_what_the_method_finds():
    with (course_data() / "circuits" / "found.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for kind in ("corrupt", "restore", "mean", "prune"):
        mine = [row for row in rows if row["method"] == kind]
        assert {row["task"] for row in mine} == set(TASKS)
        assert len(mine) == 3 * len(TASKS)
        assert all(row["missed"] == row["false"] == "0" for row in mine)
        assert all(float(row["faithful"]) >= 0.95 and float(row["faithful_mean"]) >= 0.95 for row in mine)
    for row in rows[:: len(rows) // 4]:
        planted = plant(row["task"], int(row["seed"]))
        assert row["true"] == " ".join(f"{layer}.{head}" for layer, head in sorted(planted.heads))
    zero = next(
        row for row in rows if (row["task"], row["seed"], row["method"]) == ("induction", "0", "zero")
    )
    planted = plant("induction", 0)
    found = find_circuit(*parts_of(planted, 60, seed=100), kind="zero")
    assert zero["found"] == " ".join(f"{layer}.{head}" for layer, head in sorted(found))


def test_heads_may_come_one_by_one_and_texts_as_lists():
    planted = plant("induction", seed=1)
    texts = planted.texts()
    given = planted.model, texts.clean, texts.corrupted, texts.metric
    assert faithfulness(*given, (head for head in planted.heads)) == faithfulness(*given, planted.heads)
    lists = planted.model, texts.clean.tolist(), texts.corrupted.tolist(), texts.metric
    assert find_circuit(*lists) == planted.heads
    with pytest.raises(ValueError, match="give ids from 0"):
        find_circuit(planted.model, texts.clean + 5000, texts.corrupted, texts.metric)
