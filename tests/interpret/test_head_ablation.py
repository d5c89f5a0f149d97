"""Ablation against weights that are changed by hand, and means against means."""

import pytest
import torch

from llmcourse.config import ModelConfig
from llmcourse.interpret.ablation import ablate_heads, head_means
from llmcourse.interpret.hooks import hooked, record
from llmcourse.model import GPT


def small_model(seed=0, **options):
    torch.manual_seed(seed)
    config = dict(vocab_size=13, context_length=12, d_model=16, n_heads=4, n_layers=3) | options
    model = GPT(ModelConfig(**config)).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


IDS = torch.arange(24).reshape(3, 8) * 5 % 13


def test_heads_of_several_layers_are_zero_and_the_others_as_they_are():
    model, gone = small_model(), [(0, 1), (2, 0), (2, 3)]
    sites = [f"blocks.{layer}.attention.heads" for layer in range(3)]
    before = record(model, IDS, sites)
    with hooked(model, ablate_heads(iter(gone))):
        after = record(model, IDS, sites)
        logits = model(IDS)
    for layer, site in enumerate(sites):
        for head in range(4):
            if (layer, head) in gone:
                assert not after[site][:, :, head].any()
            elif layer == 0:
                assert torch.equal(after[site][:, :, head], before[site][:, :, head])
    with torch.no_grad():
        for layer, head in gone:
            model.blocks[layer].attention.out.weight[:, 4 * head : 4 * head + 4] = 0
    torch.testing.assert_close(logits, model(IDS))


@pytest.mark.parametrize("each_position", [False, True])
def test_mean_is_what_the_head_puts_out_on_average(each_position):
    model = small_model()
    means = head_means(model, IDS, each_position)
    site = "blocks.1.attention.heads"
    outputs = record(model, IDS, site)[site]
    assert means.shape == ((3, 8, 4, 4) if each_position else (3, 4, 4))
    expected = outputs.mean(0) if each_position else outputs.flatten(0, 1).mean(0)
    torch.testing.assert_close(means[1], expected)
    with hooked(model, ablate_heads([(1, 2)], mode="mean", means=means)):
        after = record(model, IDS, site)[site]
    torch.testing.assert_close(after[:, :, 2], expected[..., 2, :].expand(3, 8, 4))
    assert torch.equal(after[:, :, [0, 1, 3]], outputs[:, :, [0, 1, 3]])


def test_a_mean_of_equal_rows_changes_nothing():
    model, same = small_model(), IDS[:1].expand(4, 8)
    with hooked(model, ablate_heads([(0, 0), (1, 1)], "mean", head_means(model, same, each_position=True))):
        torch.testing.assert_close(model(same), model(same[:1]).expand(4, -1, -1))


def test_no_head_is_no_edit():
    assert ablate_heads([]) == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([(0, 0)], "median"), r"mode='median' is unknown: choose one of \('zero', 'mean'\)"),
        (([(0, 0)], "mean"), "mode='mean' with means=None: give head_means"),
        (([(0, 0)], "zero", torch.zeros(3, 4, 4)), r"mode='zero' with means=\(3, 4, 4\)"),
        (([(0, -1)],), "head -1 does not exist"),
        (([(0.5, 0)],), "layer 0.5 does not exist"),
        (([(3, 0)], "mean", torch.zeros(3, 4, 4)), "layer 3 has no means: they are of layers 0 to 2"),
        (([0, 1],), r"give pairs \(layer, head\)"),
    ],
)
def test_what_cannot_be_taken_away_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        ablate_heads(*arguments)


def test_what_the_model_has_not_is_named_when_it_runs():
    model = small_model()
    with pytest.raises(ValueError, match=r"'blocks\.3\.attention\.heads' does not exist"):
        hooked(model, ablate_heads([(3, 0)])).__enter__()
    with hooked(model, ablate_heads([(0, 4)])), pytest.raises(ValueError, match="has heads 0 to 3"):
        model(IDS)
    means = head_means(model, IDS, each_position=True)
    with hooked(model, ablate_heads([(0, 0)], "mean", means)), pytest.raises(ValueError, match="same length"):
        model(IDS[:, :5])
