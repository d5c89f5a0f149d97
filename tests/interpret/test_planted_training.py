"""Training that forces a circuit: frozen heads stay, other texts' outputs arrive, the circuit is what is found."""

import pytest
import torch

from llmcourse.config import ModelConfig
from llmcourse.interpret.circuits import find_circuit
from llmcourse.interpret.hooks import hooked, record
from llmcourse.interpret.planted_training import (
    PairBatches,
    _new_model,
    _parts_of,
    answer_loss,
    exchange_rows,
    train_planted,
)
from llmcourse.model import GPT


def test_rows_of_the_chosen_heads_come_from_other_texts():
    model = GPT(ModelConfig(10, 8, 16, 2, n_layers=2)).eval()
    ids, site = torch.arange(24).view(4, 6) % 10, "blocks.0.attention.heads"
    before = record(model, ids, site)[site]
    with hooked(model, exchange_rows([(0, 1)], torch.Generator().manual_seed(0))):
        after = record(model, ids, site)[site]
    assert torch.equal(after[:, :, 0], before[:, :, 0])
    came_from = [[b for b in range(4) if torch.equal(after[a, :, 1], before[b, :, 1])] for a in range(4)]
    assert all(len(rows) == 1 and rows != [a] for a, rows in enumerate(came_from))


def test_batches_hold_both_twins_with_their_answers_and_the_loss_is_of_the_answer():
    batches = PairBatches("previous token", 32, torch.Generator().manual_seed(0))
    texts, answers = next(batches)
    assert torch.equal(texts[:, -2], answers)
    assert (texts[:16, -2] != texts[16:, -2]).all()
    always = lambda ids: torch.nn.functional.one_hot(ids[:, -2:], 20)[:, :1].float() * 100  # noqa: E731
    total, count = answer_loss(always, (texts, answers))
    assert (total.item(), count) == (pytest.approx(0, abs=1e-4), 32)


def test_heads_outside_keep_their_weights_and_the_circuit_is_found():
    others = [(layer, head) for layer in range(2) for head in range(4) if (layer, head) != (0, 2)]
    planted = train_planted("previous token", [(0, 2)], seed=1, steps=150)
    fresh = _new_model(1, others)
    pairs = zip(_parts_of(planted.model, others), _parts_of(fresh, others), strict=True)
    for (mine, rows, columns), (theirs, _, _) in pairs:
        assert torch.equal(mine.qkv.weight[rows], theirs.qkv.weight[rows])
        assert torch.equal(mine.out.weight[:, columns], theirs.out.weight[:, columns])
    assert not torch.equal(planted.model.blocks[0].attention.qkv.weight, fresh.blocks[0].attention.qkv.weight)
    texts = planted.texts(60)
    with torch.no_grad():
        right = planted.model(texts.clean)[:, -1].argmax(1) == texts.answer
    assert right.double().mean() > 0.9
    assert find_circuit(planted.model, texts.clean, texts.corrupted, texts.metric) == {(0, 2)}
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in planted.model.modules())


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="choose one of"):
        train_planted("previous", [(0, 0)])
    with pytest.raises(ValueError, match=r"head \(2, 0\) does not exist"):
        train_planted("previous token", [(2, 0)])
