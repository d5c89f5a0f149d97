"""Integrated gradients against captum, where it is installed, closed forms, and the axioms that they keep."""

import numpy as np
import pytest
import torch

from llmcourse.config import ModelConfig
from llmcourse.finetune.classify import GPTClassifier
from llmcourse.interpret.attribution import by_word, integrated_gradients
from llmcourse.interpret.hooks import hooked, record
from llmcourse.model import GPT

ROW, BASELINE = [3, 1, 4, 1, 5], [0] * 5


def small_classifier(dtype=torch.float64, seed=0, **options):
    torch.manual_seed(seed)
    config = dict(vocab_size=13, context_length=12, d_model=16, n_heads=4, n_layers=2, dropout=0.1) | options
    classifier = GPTClassifier(GPT(ModelConfig(**config)), n_classes=3).to(dtype)
    for parameter in classifier.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return classifier


PARTS = {"llama": {}, "gpt2": dict(norm="layer", positions="learned", mlp="gelu_tanh", bias=True)}


@pytest.mark.parametrize("options", PARTS.values(), ids=PARTS)
def test_scores_sum_to_what_the_text_adds(options):
    classifier = small_classifier(**options).train()
    for target in range(3):
        found = integrated_gradients(classifier, ROW, target, BASELINE, n_steps=200)
        assert abs(found.gap) < 1e-9
        assert torch.equal(found.scores, integrated_gradients(classifier, ROW, target, 0, n_steps=200).scores)
    assert classifier.training
    with torch.no_grad():
        classifier.eval()
        logits = [classifier(torch.tensor([row]), torch.ones(1, 5))[0, 2].item() for row in (ROW, BASELINE)]
    assert [found.logit, found.baseline_logit] == pytest.approx(logits, abs=1e-12)


def test_norms_make_zeros_a_baseline_whose_sum_is_missed():
    """What the docstring warns of: more steps do not help, and without norms they are not needed."""
    classifier = small_classifier()
    gaps = [integrated_gradients(classifier, ROW, 1, None, n).gap for n in (32, 256)]
    assert min(map(abs, gaps)) > 0.1
    for block in classifier.body.blocks:
        block.attention_norm = block.mlp_norm = torch.nn.Identity()
    classifier.body.final_norm = torch.nn.Identity()
    assert abs(integrated_gradients(classifier, ROW, 1, None, 32).gap) < 1e-6


@pytest.mark.parametrize("options", PARTS.values(), ids=PARTS)
@pytest.mark.parametrize("n_steps", [1, 7, 50])
@pytest.mark.parametrize("baseline", [None, BASELINE], ids=["zeros", "token"])
def test_scores_are_those_of_captum(options, n_steps, baseline):
    captum = pytest.importorskip("captum.attr")
    classifier = small_classifier(**options).eval()
    mask = torch.ones(1, 5, dtype=torch.long)

    def forward(embeddings):
        with hooked(classifier.body, {"embedding": lambda x: embeddings}):
            return classifier(
                torch.tensor([ROW]).expand(len(embeddings), -1), mask.expand(len(embeddings), -1)
            )

    here = record(classifier.body, ROW, "embedding")["embedding"]
    there = (
        torch.zeros_like(here)
        if baseline is None
        else record(classifier.body, baseline, "embedding")["embedding"]
    )
    library = captum.IntegratedGradients(forward)  # method="gausslegendre"
    expected = library.attribute(here, there, target=2, n_steps=n_steps).sum(dim=-1)[0]
    found = integrated_gradients(classifier, ROW, 2, baseline, n_steps).scores
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)  # captum's points are in float32


def test_a_linear_classifier_gives_each_token_its_own_share():
    """Without blocks and norm, the logit is a mean of dot products: its parts are known."""
    classifier = small_classifier()
    classifier.body.blocks, classifier.body.final_norm = torch.nn.ModuleList(), torch.nn.Identity()
    weight = classifier.body.token_embedding.weight
    for n_steps in (1, 5):
        found = integrated_gradients(classifier, ROW, 1, None, n_steps)
        expected = weight[ROW] @ classifier.head.weight[1] / 5
        torch.testing.assert_close(found.scores, expected.detach())
        assert found.baseline_logit == classifier.head.bias[1].item()
    against = integrated_gradients(classifier, ROW, 1, BASELINE).scores
    torch.testing.assert_close(
        against, expected.detach() - (weight[0] @ classifier.head.weight[1] / 5).item()
    )


def test_a_token_that_is_the_baseline_gets_nothing():
    found = integrated_gradients(small_classifier(), ROW, 0, [3, 0, 4, 0, 0])
    assert (found.scores != 0).tolist() == [False, True, False, True, True]
    same = integrated_gradients(small_classifier(), ROW, 0, ROW)
    assert same.scores.tolist() == [0] * 5
    assert same.gap == 0


def test_classes_that_share_a_difference_share_its_scores():
    """Linearity: scores of the sum of two logits are sums of scores."""
    classifier = small_classifier()
    first, second = (integrated_gradients(classifier, ROW, target, BASELINE).scores for target in (0, 1))
    with torch.no_grad():
        classifier.head.weight[2] = classifier.head.weight[0] + classifier.head.weight[1]
    torch.testing.assert_close(integrated_gradients(classifier, ROW, 2, BASELINE).scores, first + second)


def test_words_are_sums_of_their_tokens():
    pieces = ["It", "'s", " a", " du", "ll", "\n", "Film", ".", "  "]
    words = by_word(pieces, torch.arange(9.0))
    assert words == [("It's", 1), ("a", 2), ("dull", 7), ("", 5), ("Film.", 13), ("", 8)]
    assert np.isclose(sum(score for _, score in words), 36)
    halves = [b" caf", "é".encode()[:1], "é".encode()[1:]]
    assert by_word(halves, torch.ones(3)) == [("café", 3)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(target=3), "target=3 is no class: this head has 0 to 2"),
        (dict(target=-1), "target=-1 is no class"),
        (dict(token_ids=[[1, 2], [3, 4]]), "2 texts: give one row"),
        (dict(token_ids=[]), "no token"),
        (dict(token_ids=[13]), "prompt 0"),
        (dict(token_ids=[1] * 13), "context of 12"),
        (dict(baseline=[0]), "baseline of 1 ids for a text of 5"),
        (dict(baseline=13), "prompt 0"),
        (dict(n_steps=0), "n_steps=0"),
    ],
)
def test_what_cannot_be_attributed_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        integrated_gradients(small_classifier(), **dict(token_ids=ROW, target=1, baseline=0) | change)


def test_words_need_a_score_for_each_piece():
    with pytest.raises(ValueError, match="2 pieces and 3 scores"):
        by_word(["a", "b"], torch.zeros(3))
