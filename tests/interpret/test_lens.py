"""The lens against the model, models that end sooner, and sums that must come out."""

import math

import pytest
import torch
import torch.nn.functional as F

from llmcourse.config import ModelConfig
from llmcourse.interpret.ablation import ablate_heads
from llmcourse.interpret.hooks import hooked
from llmcourse.interpret.lens import lens_scores, logit_contributions, logit_lens
from llmcourse.model import GPT

IDS = torch.arange(24).reshape(3, 8) * 5 % 13
PARTS = {
    "llama": dict(),
    "gpt2": dict(norm="layer", positions="learned", mlp="gelu_tanh", bias=True),
    "2017": dict(norm="layer", norm_position="post", positions="sinusoidal", mlp="relu", bias=True),
}


def small_model(dtype=torch.float32, n_layers=3, **options):
    torch.manual_seed(0)
    options = dict(vocab_size=13, context_length=12, d_model=16, n_heads=4, n_layers=n_layers) | options
    model = GPT(ModelConfig(**options)).to(dtype).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, mean=float(parameter.dim() == 1), std=0.3)
    return model


@pytest.mark.parametrize("options", PARTS.values(), ids=PARTS)
def test_each_layer_of_the_lens_is_a_model_that_ends_there(options):
    model = small_model(**options)
    lens = logit_lens(model, IDS)
    assert torch.equal(lens[-1], model(IDS))
    for n_layers in range(4):
        shorter = small_model(n_layers=max(n_layers, 1), **options)
        if n_layers == 0:
            del shorter.blocks[0]
        shorter.load_state_dict({name: model.state_dict()[name] for name in shorter.state_dict()})
        torch.testing.assert_close(lens[n_layers], shorter(IDS))


def test_scores_are_those_of_torch_and_end_with_the_model():
    model = small_model(torch.float64)
    scores, lens = lens_scores(model, IDS, batch_size=2), logit_lens(model, IDS)[:, :, :-1]
    for layer in range(4):
        loss = F.cross_entropy(lens[layer].flatten(0, 1), IDS[:, 1:].flatten())
        assert scores["loss"][layer] == pytest.approx(loss.item())
        kl = F.kl_div(
            lens[layer].log_softmax(-1).flatten(0, 1),
            lens[-1].log_softmax(-1).flatten(0, 1),
            log_target=True,
            reduction="batchmean",
        )
        assert scores["divergence"][layer] == pytest.approx(kl.item(), abs=1e-12)
    assert (scores["divergence"][-1], scores["agreement"][-1]) == (0, 1)
    with pytest.raises(ValueError, match="nothing to predict"):
        lens_scores(model, [[1]])


def test_a_model_whose_blocks_add_nothing_says_the_same_in_each_layer():
    model = small_model()
    with torch.no_grad():
        for block in model.blocks:
            block.attention.out.weight.zero_(), block.mlp.down.weight.zero_()
    scores = lens_scores(model, IDS)
    assert scores["agreement"] == [1] * 4
    assert scores["divergence"] == [0] * 4


@pytest.mark.parametrize(
    "options", [PARTS["llama"], PARTS["gpt2"], dict(norm_eps=None)], ids=["llama", "gpt2", "eps"]
)
def test_contributions_sum_to_the_difference_of_logits(options):
    model = small_model(torch.float64, **options)
    right, wrong = torch.tensor([1, 2, 3]), torch.tensor([4, 5, 6])
    logits = model(IDS)[:, -1]
    expected = logits.gather(1, right[:, None]) - logits.gather(1, wrong[:, None])
    parts = logit_contributions(model, IDS, right, wrong)
    torch.testing.assert_close(sum(parts.values()), expected[:, 0])
    swapped = logit_contributions(model, IDS, wrong, right)
    for name, part in parts.items():
        torch.testing.assert_close(part, -swapped[name])


def test_a_head_of_the_last_layer_contributes_what_is_missing_without_it():
    """There nothing comes after it but the norm, whose scale is held still here by a large constant."""
    model = small_model(torch.float64)
    with torch.no_grad():
        for block in model.blocks:
            block.mlp.down.weight.zero_()
        model.token_embedding.weight[:, 0] = 1e4  # the scale of the stream
        model.final_norm.weight[0] = 0  # which nothing reads
    part = logit_contributions(model, IDS, 1, 2)["head 2.3"]
    with hooked(model, ablate_heads([(2, 3)])):
        without = model(IDS)[:, -1]
    logits = model(IDS)[:, -1]
    effect = (logits - without)[:, 1] - (logits - without)[:, 2]
    torch.testing.assert_close(part, effect, rtol=1e-4, atol=1e-12)
    assert part.abs().min() > 1e-6


def test_norms_behind_the_sum_have_no_parts():
    with pytest.raises(ValueError, match="no sum of parts"):
        logit_contributions(small_model(**PARTS["2017"]), IDS, 1, 2)


def test_a_uniform_model_has_the_loss_of_a_guess():
    model = small_model()
    with torch.no_grad():
        model.final_norm.weight.zero_()
    assert lens_scores(model, IDS)["loss"] == pytest.approx([math.log(13)] * 4)
