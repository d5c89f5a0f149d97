"""Policy gradients: the loss has, on average, the gradient of the expected reward, enumerated over all answers."""

import copy
from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

from llmcourse.finetune.log_probs import answer_log_probs, token_log_probs
from llmcourse.finetune.policy import Rollouts, group_advantages, kl_estimates, policy_loss
from llmcourse.model import GPT, ModelConfig

V = 4
ANSWERS = torch.tensor(list(product(range(V), repeat=2)))  # all of them, of two tokens
ROWS = torch.cat([torch.tensor([[1]]).expand(len(ANSWERS), -1), ANSWERS], dim=1)  # after one prompt
MASK = torch.tensor([[False, True, True]]).expand(len(ROWS), -1)


def small(seed=0):
    torch.manual_seed(seed)
    model = GPT(ModelConfig(V, d_model=8, n_heads=2, n_layers=1, context_length=8, dropout=0.3)).double()
    for p in model.parameters():
        p.data.mul_(10)  # far from even
    return model.eval()


def gradient(model, value):
    return torch.cat([g.flatten() for g in torch.autograd.grad(value, list(model.parameters()))])


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---- advantages ------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [False, True])
def test_advantages_are_numpys_centred_and_standardized_rows(scale):
    rewards = normal(5, 8)
    found, rows = group_advantages(rewards, scale=scale).numpy(), rewards.numpy()
    wanted = rows - rows.mean(1, keepdims=True)
    wanted = wanted / (rows.std(1, ddof=1, keepdims=True) + 1e-4) if scale else wanted
    np.testing.assert_allclose(found, wanted, rtol=1e-12)
    np.testing.assert_allclose(found.sum(1), 0, atol=1e-12)


@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("rewards", [torch.ones(2, 4), torch.zeros(1, 2), torch.tensor([[True, True]])])
def test_a_group_that_agrees_teaches_nothing(rewards, scale):
    assert group_advantages(rewards, scale).tolist() == torch.zeros(rewards.shape).tolist()


def test_with_the_scale_a_rare_success_weighs_more():
    rewards = torch.tensor([[1.0] + [0.0] * 7, [1.0] * 4 + [0.0] * 4])
    plain, scaled = group_advantages(rewards), group_advantages(rewards, scale=True)
    assert plain.max(1).values.tolist() == [0.875, 0.5]
    np.testing.assert_allclose(scaled.max(1).values, [0.875 / 0.35365, 0.5 / 0.53462], rtol=1e-4)


@pytest.mark.parametrize(
    ("rewards", "words"),
    [
        (torch.ones(8), r"shape \(8,\).*\(P, G\)"),
        (torch.ones(8, 1), "at least two answers"),
        (torch.tensor([[1.0, torch.nan]]), "not finite"),
    ],
)
def test_rewards_that_cannot_be_compared_are_refused(rewards, words):
    with pytest.raises(ValueError, match=words):
        group_advantages(rewards)


# ---- the gradient ----------------------------------------------------------------------------------


@pytest.mark.parametrize("clip", [None, 0.2])
@pytest.mark.parametrize("baseline", [0.0, 0.7])
def test_on_average_it_is_the_gradient_of_the_expected_reward(clip, baseline):
    """Σ p(answer) · gradient of its loss, over all 16 answers; what is taken off every reward does not count."""
    model, rewards = small(), normal(len(ROWS))
    probabilities = answer_log_probs(model, ROWS, MASK).exp()
    assert probabilities.sum().item() == pytest.approx(1, abs=1e-12)
    wanted = gradient(model, (probabilities * rewards).sum())
    weights = probabilities.detach() * (rewards - baseline)  # the loss is linear in the advantages
    total, count = policy_loss(clip)(model, Rollouts(ROWS, MASK, weights))
    assert count == 16
    torch.testing.assert_close(gradient(model, -total), wanted, rtol=1e-9, atol=1e-12)


def test_centring_in_groups_of_g_shrinks_the_gradient_by_1_over_g_and_does_not_turn_it():
    """All groups of two answers, each as often as the model writes it: (1 - 1/2) of the exact gradient."""
    model, rewards = small(), normal(len(ROWS))
    p = answer_log_probs(model, ROWS, MASK).exp()
    wanted = gradient(model, (p * rewards).sum())
    pairs = torch.cartesian_prod(torch.arange(16), torch.arange(16))  # (256, 2)
    weights = p.detach()[pairs].prod(1)
    advantages = group_advantages(rewards[pairs]) * weights[:, None]
    rows = pairs.flatten()
    total, _ = policy_loss()(model, Rollouts(ROWS[rows], MASK[rows], advantages.flatten()))
    torch.testing.assert_close(gradient(model, -total / 2), wanted / 2, rtol=1e-9, atol=1e-12)


def test_where_the_model_moved_the_ratio_corrects_for_it():
    """Answers of one token that an old model wrote have the new model's gradient, but for those that are clipped."""
    old, model, rewards = small(0), small(1), normal(len(ROWS))
    one = torch.tensor([[False, True]]).expand(V, -1)  # answers of one token: the two are the same
    rows = torch.stack([torch.ones(V, dtype=torch.long), torch.arange(V)], 1)
    with torch.no_grad():
        written = token_log_probs(old, rows, one)
    advantages = written.exp()[:, 1] * rewards[:V]
    total, _ = policy_loss(clip=1.0)(model, Rollouts(rows, one, advantages, written))
    inside = (token_log_probs(model, rows, one) - written)[:, 1].exp() < 2
    wanted = (answer_log_probs(model, rows, one).exp() * rewards[:V])[inside | (rewards[:V] < 0)].sum()
    torch.testing.assert_close(gradient(model, -total), gradient(model, wanted), rtol=1e-9, atol=1e-12)


def test_a_token_that_moved_enough_in_the_wanted_direction_is_left_alone():
    """The eight cases of the clipped objective, by hand: the ratio, the sign, and whether a gradient is left."""
    for ratio, advantage, value, passes in [
        (1.0, 1.0, 1.0, True), (1.1, 1.0, 1.1, True), (1.3, 1.0, 1.2, False), (0.5, 1.0, 0.5, True),
        (1.0, -1.0, -1.0, True), (0.9, -1.0, -0.9, True), (0.5, -1.0, -0.8, False), (1.3, -1.0, -1.3, True),
    ]:  # fmt: skip
        model = nn.Embedding.from_pretrained(torch.zeros(V, V, dtype=torch.float64), freeze=False)
        rows, mask = torch.tensor([[0, 2]]), torch.tensor([[False, True]])
        old = torch.tensor([[0.0, (1 / V) / ratio]], dtype=torch.float64).log().nan_to_num(neginf=0)
        batch = Rollouts(rows, mask, torch.tensor([advantage]), old)
        total, _ = policy_loss(clip=0.2)(model, batch)
        assert total.item() == pytest.approx(-value), (ratio, advantage)
        assert bool(gradient(model, total).abs().sum() > 0) == passes, (ratio, advantage)


# ---- what the terms are divided by -------------------------------------------------------------------


def test_normalizations_are_the_written_out_sums():
    model, advantages = small(), torch.tensor([1.0, -0.5, 2.0])
    rows = torch.tensor([[1, 2, 3, 0, 0], [1, 1, 2, 3, 2], [0, 1, 2, 2, 0]])
    mask = torch.tensor([[0, 1, 1, 0, 0], [0, 1, 1, 1, 1], [0, 0, 0, 1, 0]]).bool()
    terms = -advantages[:, None] * token_log_probs(model, rows, mask)
    batch = Rollouts(rows, mask, advantages)
    for options, wanted in (
        (dict(), terms.sum() / 3),
        (dict(max_tokens=10), terms.sum() / 30),
        (dict(normalization="token"), terms.sum() / 7),
        (dict(normalization="sequence"), (terms.sum(1) / torch.tensor([2, 4, 1])).mean()),
    ):
        total, count = policy_loss(**options)(model, batch)
        assert (total / count).item() == pytest.approx(wanted.item(), rel=1e-12), options


def test_per_sequence_a_token_of_a_wrong_answer_twice_as_long_is_discouraged_half_as_much():
    model = nn.Embedding.from_pretrained(torch.zeros(V, V, dtype=torch.float64), freeze=False)
    pushes = {}
    for normalization in ("constant", "sequence", "token"):
        for length in (2, 4):
            mask = torch.tensor([[False] + [True] * length])
            rows = torch.tensor([[0] + [2] * length])
            total, _ = policy_loss(normalization=normalization)(model, Rollouts(rows, mask, -torch.ones(1)))
            pushes[normalization, length] = torch.autograd.grad(total, model.weight)[0][0, 2].item()
    assert pushes["sequence", 2] == pytest.approx(2 * pushes["sequence", 4])
    assert pushes["constant", 2] == pytest.approx(pushes["constant", 4])
    assert pushes["token", 2] == pytest.approx(pushes["token", 4])


def test_an_answer_without_tokens_counts_and_gives_nothing():
    mask = MASK.clone()
    mask[0] = False
    total, count = policy_loss(normalization="sequence")(small(), Rollouts(ROWS, mask, torch.ones(16)))
    assert count == 16
    assert total.isfinite()


# ---- the divergence ----------------------------------------------------------------------------------


def test_the_estimates_are_never_negative_and_average_to_the_divergence():
    model, reference = small(0), small(1)
    with torch.no_grad():
        ours, theirs = answer_log_probs(model, ROWS, MASK), answer_log_probs(reference, ROWS, MASK)
    estimates = kl_estimates(ours, theirs)
    exact = (ours.exp() * (ours - theirs)).sum().item()
    assert (ours.exp() * estimates).sum().item() == pytest.approx(exact, rel=1e-9)
    assert estimates.min() >= 0
    assert kl_estimates(ours, ours).abs().max() == 0

    def spread(values):
        return (ours.exp() * (values - exact) ** 2).sum().item()

    near = ours + 0.1 * (theirs - ours)  # close to the model, where it is used
    near = near - near.exp().sum().log()
    exact = (ours.exp() * (ours - near)).sum().item()
    assert spread(kl_estimates(ours, near)) < 0.05 * spread(ours - near)
    far = ours + 2 * (theirs - ours)
    far = far - far.exp().sum().log()
    exact = (ours.exp() * (ours - far)).sum().item()
    assert spread(kl_estimates(ours, far)) > spread(ours - far)


def test_as_a_loss_the_estimate_has_the_gradient_of_the_other_divergence_unless_the_ratio_is_there():
    """Enumerated over all answers of one token, each as often as the model writes it."""
    model, reference = small(0), small(1)
    rows, mask = ROWS[:, :2].unique(dim=0), MASK[:V, :2]
    with torch.no_grad():
        theirs = answer_log_probs(reference, rows, mask)

    def divergence_gradient(value):
        return gradient(model, value(answer_log_probs(model, rows, mask)))

    alone = divergence_gradient(lambda ours: (ours.exp().detach() * kl_estimates(ours, theirs)).sum())
    other = divergence_gradient(lambda ours: (theirs.exp() * (theirs - ours)).sum())
    own = divergence_gradient(lambda ours: (ours.exp() * (ours - theirs)).sum())
    torch.testing.assert_close(alone, other, rtol=1e-9, atol=1e-12)
    assert torch.cosine_similarity(alone, own, dim=0) < 0.95
    p = answer_log_probs(model, rows, mask).exp().tolist()
    found = 0
    for i, share in enumerate(p):  # the loss itself, in the step after the answers were written
        batch = Rollouts(rows[i : i + 1], mask[i : i + 1], torch.zeros(1))
        found += share * gradient(model, policy_loss(kl=1.0, reference=reference)(model, batch)[0])
    torch.testing.assert_close(found, own, rtol=1e-9, atol=1e-12)


def test_the_divergence_is_added_and_the_reference_left_as_it_was():
    model, reference = small(0), small(1).train()
    before = copy.deepcopy(reference.state_dict())
    batch = Rollouts(ROWS, MASK, torch.zeros(16))
    total, count = policy_loss(kl=0.5, reference=reference, normalization="token")(model, batch)
    with torch.no_grad():
        wanted = kl_estimates(
            token_log_probs(model, ROWS, MASK), token_log_probs(reference.eval(), ROWS, MASK)
        )
    assert (total / count).item() == pytest.approx(0.5 * wanted.sum().item() / 32, rel=1e-9)
    total.backward()
    assert all(torch.equal(before[name], now) for name, now in reference.state_dict().items())
    assert all(p.grad is None for p in reference.parameters())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(clip=0.0), "clip is 0.0.*such as 0.2"),
        (dict(clip=1.5), "clip is 1.5"),
        (dict(kl=-1), "kl is -1"),
        (dict(kl=0.1), "kl=0.1 needs reference="),
        (dict(normalization="mean"), "normalization='mean' is unknown.*'sequence'"),
        (dict(max_tokens=0), "max_tokens=0"),
        (dict(max_tokens=8, normalization="token"), "max_tokens=8 is what normalization='constant'"),
    ],
)
def test_switches_that_cannot_be_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        policy_loss(**options)


@pytest.mark.parametrize("advantages", [torch.ones(1), torch.ones(4, 4), torch.ones(3)])
def test_a_batch_whose_parts_do_not_fit_is_refused(advantages):
    with pytest.raises(ValueError, match=r"advantages \(P, G\) of groups are flattened"):
        policy_loss()(small(), Rollouts(ROWS, MASK, advantages))
    with pytest.raises(ValueError, match=r"old_log_probs \(16, 1\)"):
        policy_loss(clip=0.2)(small(), Rollouts(ROWS, MASK, torch.ones(16), torch.zeros(16, 1)))


def test_a_model_is_not_its_own_reference_of_divergence():
    model = small()
    with pytest.raises(ValueError, match="give a copy"):
        policy_loss(kl=0.1, reference=model)(model, Rollouts(ROWS, MASK, torch.ones(16)))
