"""The loss and its gradient against torch's, and its limits."""

import pytest
import torch
import torch.nn.functional as F

from llmcourse.fast.cross_entropy import cross_entropy


def example(N=7, V=5, scale=1.0, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(N, V, generator=generator, dtype=dtype)
    return logits.requires_grad_(), torch.randint(V, (N,), generator=generator)


@pytest.mark.parametrize("ignored", [[], [0, 3], list(range(7))])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1000.0])  # 1000: most probabilities are 0
def test_value_and_gradient_equal_torch(scale, ignored):
    logits, targets = example(scale=scale)
    targets[ignored] = -100
    ours = cross_entropy(logits, targets)
    (gradient,) = torch.autograd.grad(3 * ours, logits)
    theirs = F.cross_entropy(logits, targets, reduction="sum")
    (expected,) = torch.autograd.grad(3 * theirs, logits)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("V", [2, 80, 2048])
def test_float32_agrees_with_torch_in_float64(V):
    logits, targets = example(N=64, V=V, scale=4.0)
    exact = F.cross_entropy(logits, targets, reduction="sum")
    ours = cross_entropy(logits.float(), targets)
    assert abs(ours - exact) < 1e-6 * exact


def test_another_ignored_index_and_the_closed_form():
    logits, targets = torch.zeros(4, 8, requires_grad=True), torch.tensor([7, 1, 7, 2])
    loss = cross_entropy(logits, targets, ignore_index=7)
    torch.testing.assert_close(loss, 2 * torch.tensor(8.0).log())
    loss.backward()
    assert logits.grad.sum(dim=-1).abs().max() < 1e-6  # adding a constant to all logits changes nothing
    assert not logits.grad[::2].any()


def test_a_bad_logit_is_not_hidden():
    logits, targets = example()
    logits.data[2, 1] = float("nan")
    assert cross_entropy(logits, targets).isnan()


def test_a_second_derivative_and_a_second_pass_are_refused():
    logits, targets = example()
    loss = cross_entropy(logits, targets)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="inplace operation"):
        loss.backward()
    (gradient,) = torch.autograd.grad(cross_entropy(logits, targets), logits, create_graph=True)
    with pytest.raises(RuntimeError, match="does not require grad"):
        gradient.sum().backward()
