"""Scores of heads against loops, and against heads whose attention is known."""

import pytest
import torch

from llmcourse.config import ModelConfig
from llmcourse.interpret.heads import head_scores, patterns, uniform_scores
from llmcourse.interpret.planted import plant
from llmcourse.model import GPT

IDS = torch.tensor([[3, 1, 4, 1, 5, 3, 1, 4], [2, 2, 2, 0, 1, 0, 2, 2], [0, 1, 2, 3, 4, 5, 6, 7]])


def places(row, name, t):
    """Say by hand at which keys a head of that name looks from position t."""
    earlier = range(t)
    return {
        "previous token": {t - 1} if t else set(),
        "same token": {s for s in earlier if row[s] == row[t]},
        "induction": {s + 1 for s in earlier if row[s] == row[t] and s + 1 < t},
        "first": {0} if t else set(),
        "itself": {t},
    }[name]


def test_patterns_are_those_of_a_loop():
    for name, mask in patterns(IDS).items():
        for b, row in enumerate(IDS.tolist()):
            for t in range(len(row)):
                assert set(mask[b, t].nonzero()[:, 0].tolist()) == places(row, name, t), (name, b, t)


def test_scores_are_the_mean_share_where_there_is_a_place():
    torch.manual_seed(0)
    model = GPT(ModelConfig(vocab_size=8, d_model=16, n_heads=2, n_layers=2, context_length=8))
    torch.nn.init.normal_(model.blocks[1].attention.qkv.weight, std=0.5)
    maps, scores = model.attention_maps(IDS), head_scores(model, IDS)
    for name in scores:
        for layer in range(2):
            for head in range(2):
                shares = [
                    sum(maps[layer][b, head, t, s].item() for s in places(row, name, t))
                    for b, row in enumerate(IDS.tolist())
                    for t in range(len(row))
                    if places(row, name, t)
                ]
                assert scores[name][layer, head].item() == pytest.approx(sum(shares) / len(shares), abs=1e-5)


def test_a_head_that_looks_everywhere_alike_has_the_uniform_score():
    model = GPT(ModelConfig(vocab_size=8, d_model=16, n_heads=2, n_layers=1, context_length=8))
    torch.nn.init.zeros_(model.blocks[0].attention.qkv.weight)
    for name, score in head_scores(model, IDS).items():
        assert score[0].tolist() == pytest.approx([uniform_scores(IDS)[name]] * 2, abs=1e-6)


def test_no_place_gives_no_number():
    assert (
        head_scores(GPT(ModelConfig(8, 8, 16, 2, n_layers=1)), torch.tensor([[0, 1, 2]]))["induction"]
        .isnan()
        .all()
    )


def test_planted_heads_look_where_they_should_and_look_alikes_too():
    planted = plant("induction", 1)
    scores = head_scores(planted.model, planted.texts(50).clean)
    for (layer, head), role in planted.roles.items():
        assert scores[role][layer, head] > 0.99
    for (layer, head), role in planted.others.items():
        name = role.removeprefix("looks like ")
        if name in scores:
            assert scores[name][layer, head] > 0.99


def test_one_row_is_a_batch_of_one():
    wanted = uniform_scores(torch.tensor([[1, 2, 1]]))
    assert uniform_scores([1, 2, 1]) == wanted
