"""Planted circuits: answers against plain Python, and the truth against the weights, without any method."""

from dataclasses import astuple

import pytest
import torch

from llmcourse.interpret.planted import plant
from llmcourse.interpret.planted_tasks import TASKS, Stream
from llmcourse.interpret.planted_texts import (
    CLOSE,
    FIRST,
    LENGTH,
    MARKER,
    NAMES,
    OPEN,
    SECOND,
    START,
    VOCABULARY,
)


def indirect_object(row):
    names = [symbol for symbol in row if symbol in NAMES]
    return next(name for name in names if names.count(name) == 1)


SOLVED = {
    "previous token": lambda row: row[-2],
    "induction": lambda row: row[row.index(row[-1]) + 1],
    "key lookup": lambda row: row[row.index(row[-1]) + 1],
    "bracket depth": lambda row: FIRST if row.count(OPEN) > row.count(CLOSE) else SECOND,
    "marker parity": lambda row: SECOND if row.index(MARKER) % 2 else FIRST,
    "duplicate token": lambda row: SECOND if row[-1] in row[:-1] else FIRST,
    "indirect object": indirect_object,
}


@pytest.mark.parametrize("task", TASKS)
def test_answers_are_those_of_plain_python_and_twins_differ_in_them(task):
    texts = TASKS[task].texts(60, torch.Generator().manual_seed(5))
    for rows, answers in ((texts.clean, texts.answer), (texts.corrupted, texts.other_answer)):
        assert rows.shape == (60, LENGTH)
        assert (rows[:, 0] == START).all()
        assert [SOLVED[task](row) for row in rows.tolist()] == answers.tolist()
        assert set(rows.flatten().tolist()) <= set(range(VOCABULARY))
    assert (texts.answer != texts.other_answer).all()
    assert set(texts.answer.tolist()) <= set(TASKS[task].answers)


def test_brackets_never_close_what_is_not_open():
    texts = TASKS["bracket depth"].texts(40, torch.Generator().manual_seed(1))
    depth = (texts.clean == OPEN).long().cumsum(1) - (texts.clean == CLOSE).long().cumsum(1)
    assert (depth >= 0).all()


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("task", TASKS)
def test_the_model_is_always_right_and_only_the_circuit_can_be_the_reason(task, seed):
    planted = plant(task, seed)
    texts = planted.texts(200, seed=seed)
    with torch.no_grad():
        assert torch.equal(planted.model(texts.clean)[:, -1].argmax(1), texts.answer)
        assert torch.equal(planted.model(texts.corrupted)[:, -1].argmax(1), texts.other_answer)
    read, differences = reads_of(planted), differences_of(planted, TASKS[task].answers)
    for (
        layer,
        head,
    ) in planted.others:  # what it writes, no head of the circuit reads, and no difference of answers
        wrote = written_by(planted, layer, head)
        assert (differences @ wrote).abs().max() < 1e-4
        later = [rows for (place, _), rows in read.items() if place > layer]
        assert all((rows @ wrote).abs().max() < 1e-4 for rows in later)
        assert wrote.abs().max() > 0.01
    last = max(planted.roles)
    assert (differences @ written_by(planted, *last)).abs().max() > 0.5


def written_by(planted, layer, head):
    D = planted.model.config.head_width
    return planted.model.blocks[layer].attention.out.weight[:, head * D : (head + 1) * D]  # (C, D)


def reads_of(planted):
    read = {}
    for layer, head in planted.roles:
        attention = planted.model.blocks[layer].attention
        parts = attention.qkv.weight.view(3, attention.n_heads, attention.d_head, -1)
        read[layer, head] = parts[:, head].flatten(0, 1)  # (3·D, C)
    return read


def differences_of(planted, answers):
    rows = planted.model.unembedding.weight[list(answers)]
    return rows - rows[:1]


def test_mlps_write_what_nobody_reads_either():
    planted = plant("indirect object", 3)
    for block in planted.model.blocks:
        wrote = block.mlp.down.weight
        assert wrote.abs().max() > 0.01
        assert (differences_of(planted, NAMES) @ wrote).abs().max() < 1e-4
        assert all((rows @ wrote).abs().max() < 1e-4 for rows in reads_of(planted).values())


def test_a_seed_gives_the_same_model_and_another_one_another_place():
    torch.manual_seed(1)
    one = plant("induction", 4)
    torch.manual_seed(2)
    two = plant("induction", 4)
    assert one.roles == two.roles
    for name, tensor in one.model.state_dict().items():
        assert torch.equal(tensor, two.model.state_dict()[name])
    assert len({frozenset(plant("induction", seed).heads) for seed in range(6)}) >= 4
    assert all(map(torch.equal, astuple(one.texts(5, 3)), astuple(two.texts(5, 3))))


def test_layers_follow_the_chain_and_every_head_has_a_place():
    for seed in range(5):
        planted = plant("indirect object", seed)
        order = ["duplicate token", "inhibition", "name mover"]
        assert [role for _, role in sorted(planted.roles.items())] == order
        assert len(planted.roles) + len(planted.others) == 18
        assert list(planted.others.values()).count("constant") == 1


def test_copies_stand_in_one_layer_and_one_is_enough():
    planted = plant("induction", 0, copies=3)
    assert sorted(planted.roles.values()) == ["induction"] * 3 + ["previous token"]
    assert len({layer for (layer, _), role in planted.roles.items() if role == "induction"}) == 1
    texts = planted.texts(50)
    with torch.no_grad():
        for layer, head in [place for place, role in planted.roles.items() if role == "induction"][:2]:
            written_by(planted, layer, head).zero_()
        assert torch.equal(planted.model(texts.clean)[:, -1].argmax(1), texts.answer)


def test_directions_stand_at_right_angles_until_the_stream_is_full():
    stream = Stream(8, torch.Generator().manual_seed(0))
    rows = torch.cat([stream("a", 3), stream("b", 5)])
    assert torch.allclose(rows @ rows.T, torch.eye(8), atol=1e-6)
    assert torch.equal(stream("a", 3), rows[:3])
    with pytest.raises(ValueError, match="c needs 1 directions and 0 are left"):
        stream("c")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: plant("inducton"), "unknown: choose one of"),
        (lambda: plant("induction", copies=0), "copies"),
        (lambda: plant("induction", seed=-1), "seed"),
        (lambda: plant("previous token", 1, copies=7), "7 heads do not fit into a layer"),
        (lambda: plant("induction").texts(0), "n=0"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
