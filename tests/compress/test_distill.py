"""Soft targets against torch's own divergence, and against what must not change."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from llmcourse.compress.distill import distillation_loss, divergences
from llmcourse.data.batches import IGNORE
from llmcourse.losses import next_token_loss
from llmcourse.model import GPT, ModelConfig
from llmcourse.training import train

V, T = 11, 6


def gpt(seed: int, vocab_size: int = V, **shape) -> GPT:
    shape = dict(context_length=T, d_model=8, n_heads=2, n_layers=1, d_ff=16) | shape
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GPT(ModelConfig(vocab_size, **shape))
        for p in model.parameters():  # far from uniform, so that the teacher has something to say
            nn.init.normal_(p, std=0.5)
    return model


def batch(ignored: bool = True):
    ids = torch.randint(V, (5, T + 1), generator=torch.Generator().manual_seed(0))
    targets = ids[:, 1:].clone()
    if ignored:
        targets[::2, :3] = IGNORE
    return ids[:, :-1], targets


def logits(*shape, seed=0, std=3.0):
    return std * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("std", [0.1, 3.0, 30.0])
def test_the_divergence_and_its_gradient_are_torchs(std, dtype):
    student, teacher = (logits(20, 50, seed=s, std=std).to(dtype).requires_grad_() for s in (0, 1))
    mine = divergences(student, teacher)
    for target, log_target in ((teacher.softmax(-1), False), (teacher.log_softmax(-1), True)):
        theirs = F.kl_div(student.log_softmax(-1), target, reduction="none", log_target=log_target).sum(-1)
        tolerance = dict(rtol=1e-5, atol=2e-6) if dtype == torch.float32 else dict(rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(mine, theirs, **tolerance)
        found, wanted = (torch.autograd.grad(x.sum(), student, retain_graph=True)[0] for x in (mine, theirs))
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found, student.softmax(-1) - teacher.softmax(-1), rtol=1e-5, atol=1e-6)
    assert bool((mine > 0).all())


def test_equal_logits_diverge_by_nothing_and_what_the_teacher_excludes_adds_nothing():
    same = logits(4, 9)
    torch.testing.assert_close(divergences(same, same + 5), torch.zeros(4), rtol=0, atol=1e-6)
    fewer = same.clone()
    fewer[:, 3:] = -torch.inf
    wanted = same.logsumexp(-1) - same[:, :3].logsumexp(-1)  # of the student's share of those three
    torch.testing.assert_close(divergences(same, fewer), wanted)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 4.0])
@pytest.mark.parametrize("share", [0.3, 1.0])
def test_the_loss_is_the_papers_sum_of_two_terms(temperature, share):
    """Value and gradient, from torch's cross-entropy and the mean divergence of positions that count."""
    model, teacher, (inputs, targets) = gpt(0), gpt(1, n_layers=2).eval(), batch()
    total, count, reported = distillation_loss(teacher, temperature, share)(model, (inputs, targets))
    counts = targets != IGNORE
    x, wanted = model(inputs)[counts], teacher(inputs)[counts].detach()
    hard = F.cross_entropy(x, targets[counts])
    soft = F.kl_div(
        F.log_softmax(x / temperature, -1), F.softmax(wanted / temperature, -1), reduction="batchmean"
    )
    expected = (1 - share) * hard + share * temperature**2 * soft
    assert count == int(counts.sum())
    torch.testing.assert_close(total / count, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(reported / count, hard, rtol=1e-5, atol=1e-6)
    mine, theirs = (torch.autograd.grad(x, list(model.parameters())) for x in (total / count, expected))
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_the_factor_keeps_the_gradient_where_the_temperature_is_high():
    """Hinton et al., eq. 4: T² · divergence tends to half the squared distance of centred logits, over V."""
    student, teacher = logits(3, 9, seed=0).double().requires_grad_(), logits(3, 9, seed=1).double()
    distance = lambda t: t**2 * divergences(student / t, teacher / t)  # noqa: E731
    centred = (student - student.mean(-1, keepdim=True)) - (teacher - teacher.mean(-1, keepdim=True))
    torch.testing.assert_close(distance(1e4), centred.square().sum(-1) / 2 / 9, rtol=1e-3, atol=0)
    (gradient,) = torch.autograd.grad(distance(1e4).sum(), student)
    torch.testing.assert_close(gradient, (centred / 9).detach(), rtol=1e-2, atol=1e-3)


def test_no_share_is_the_plain_loss_and_the_whole_share_never_sees_the_targets():
    assert distillation_loss(gpt(1), share=0) is next_token_loss
    model, (inputs, targets), loss = gpt(0), batch(), distillation_loss(gpt(1), share=1)
    others = targets.where(targets == IGNORE, (targets + 1) % V)
    one, other = (loss(model, (inputs, t)) for t in (targets, others))
    assert torch.equal(one[0], other[0])
    assert not torch.equal(one[2], other[2])


def test_padding_is_not_looked_at():
    """A row that is all IGNORE changes neither sum; the rest is as without it."""
    model, (inputs, targets), loss = gpt(0), batch(), distillation_loss(gpt(1))
    more = torch.cat([inputs, inputs[:1]]), torch.cat([targets, torch.full_like(targets[:1], IGNORE)])
    one, other = loss(model, (inputs, targets)), loss(model, more)
    assert one[1] == other[1]
    for a, b in ((one[0], other[0]), (one[2], other[2])):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=0)
    total, count, _ = loss(model, (inputs, torch.full_like(targets, IGNORE)))
    assert (total.item(), count, total.requires_grad) == (0.0, 0, True)


@pytest.mark.parametrize("training", [True, False])
def test_the_teacher_reads_without_dropout_and_stays_as_it_was(training):
    teacher = gpt(1, dropout=0.5).train(training)
    teacher.blocks[0].eval()  # modes may be mixed
    before, modes = copy.deepcopy(teacher.state_dict()), [m.training for m in teacher.modules()]
    loss, model = distillation_loss(teacher), gpt(0)
    assert torch.equal(loss(model, batch())[0], loss(model, batch())[0])
    list(train(model, [batch()], steps=2, loss=loss))
    assert [m.training for m in teacher.modules()] == modes
    assert all(p.grad is None and p.requires_grad for p in teacher.parameters())
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())


def test_in_half_precision_the_sums_are_float32():
    with torch.autocast("cpu", torch.bfloat16):
        total, _, reported = distillation_loss(gpt(1))(gpt(0), batch())
    assert (total.dtype, reported.dtype) == (torch.float32, torch.float32)
    exact = distillation_loss(gpt(1))(gpt(0), batch())[0]
    torch.testing.assert_close(total, exact, rtol=0.05, atol=0)


def test_a_student_comes_to_agree_with_its_teacher():
    """From soft targets alone: less divergence, on the same inputs, than the targets' own text would give."""
    teacher, inputs = gpt(1).eval(), batch()[0]
    left = []
    for loss in (distillation_loss(teacher, share=1), next_token_loss):
        model = gpt(0)
        list(train(model, [batch(False)], steps=200, lr=1e-2, weight_decay=0.0, loss=loss))
        with torch.no_grad():
            left.append(divergences(model(inputs).flatten(0, 1), teacher(inputs).flatten(0, 1)).mean().item())
    assert left[0] < 0.05 < left[1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(temperature=0), "temperature is 0: give a number from 0.01"),
        (dict(temperature=-1.0), "temperature is -1.0"),
        (dict(temperature=float("nan")), "temperature is nan"),
        (dict(share=1.5), "share is 1.5: give a share of the soft targets from 0 to 1"),
        (dict(share=-0.1), "share is -0.1"),
    ],
)
def test_bad_options_get_a_sentence(options, words):
    with pytest.raises(ValueError, match=words):
        distillation_loss(gpt(1), **options)


def test_a_teacher_with_another_vocabulary_is_refused():
    loss = distillation_loss(gpt(1, vocab_size=V + 2))
    with pytest.raises(ValueError, match="teacher has a vocabulary of 13 and the student one of 11"):
        loss(gpt(0), batch())


def test_a_token_that_both_exclude_adds_nothing():
    logits = torch.tensor([[0.5, 1.0, -torch.inf]], requires_grad=True)
    wanted = torch.tensor([[1.0, 0.2, -torch.inf]])
    found = divergences(logits, wanted)
    assert torch.allclose(found, divergences(logits[:, :2], wanted[:, :2]))
    found.sum().backward()
    assert torch.allclose(logits.grad, (logits.softmax(-1) - wanted.softmax(-1)).detach())
