"""Log-probabilities of answers: all answers together have probability 1, and padding changes nothing."""

from itertools import product

import pytest
import torch
from torch import nn

from llmcourse.finetune.log_probs import answer_log_probs, token_log_probs
from llmcourse.model import GPT, ModelConfig

V = 4


def small(seed=0, **options):
    torch.manual_seed(seed)
    return GPT(ModelConfig(V, d_model=8, n_heads=2, n_layers=2, context_length=8, **options)).eval().double()


def mask_of(n_prompt, n_answer, T):
    return (torch.arange(T) >= n_prompt) & (torch.arange(T) < n_prompt + n_answer)


def test_the_probabilities_of_all_answers_of_three_tokens_add_up_to_1():
    answers = torch.tensor(list(product(range(V), repeat=3)))
    rows = torch.cat([torch.tensor([[2, 1]]).expand(len(answers), -1), answers], dim=1)
    found = answer_log_probs(small(), rows, mask_of(2, 3, 5).expand(len(rows), -1))
    assert found.shape == (V**3,)
    assert found.exp().sum().item() == pytest.approx(1, abs=1e-12)


def test_each_token_has_its_entry_of_the_log_softmax_before_it():
    model, row = small(), torch.tensor([[2, 1, 3, 0, 2]])
    found = token_log_probs(model, row, mask_of(2, 3, 5)[None])
    wanted = model(row).log_softmax(-1)[0, [1, 2, 3], [3, 0, 2]]
    torch.testing.assert_close(found[0], torch.cat([torch.zeros(2), wanted]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("pad_id", [0, 3])
def test_padding_on_the_right_changes_nothing(pad_id):
    model = small()
    rows = [([2, 1], [3, 0, 2]), ([1], [2]), ([0, 0, 3, 1], [1, 1, 1])]
    T = 7
    padded = torch.tensor([p + a + [pad_id] * (T - len(p + a)) for p, a in rows])
    masks = torch.stack([mask_of(len(p), len(a), T) for p, a in rows])
    found = answer_log_probs(model, padded, masks)
    for (p, a), value in zip(rows, found, strict=True):
        alone = answer_log_probs(model, torch.tensor([p + a]), mask_of(len(p), len(a), len(p + a))[None])
        assert value.item() == pytest.approx(alone.item(), abs=1e-12)


def test_the_gradient_is_that_of_the_answer_alone():
    model, row = small(), torch.tensor([[2, 1, 3, 0]])
    answer_log_probs(model, row, mask_of(3, 1, 4)[None]).sum().backward()
    found = model.unembedding.weight.grad.clone()
    model.zero_grad()
    model(row[:, :3])[0, -1].log_softmax(-1)[0].backward()
    torch.testing.assert_close(found, model.unembedding.weight.grad, rtol=1e-10, atol=1e-14)


def test_in_half_precision_the_logits_are_summed_in_float32():
    model = nn.Embedding(V, V).bfloat16()
    assert (
        token_log_probs(model, torch.tensor([[0, 1]]), torch.tensor([[False, True]])).dtype == torch.float32
    )


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (torch.tensor([[False, True]]), r"\(1, 3\) and the mask \(1, 2\)"),
        (torch.tensor([[0, 1, 1]]), "in torch.int64.*torch.bool"),
        (torch.tensor([[True, True, True]]), "row 0 has an answer that begins with its first token"),
    ],
)
def test_a_mask_that_cannot_be_is_refused(mask, words):
    with pytest.raises(ValueError, match=words):
        token_log_probs(small(), torch.tensor([[0, 1, 2]]), mask)
