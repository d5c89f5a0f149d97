"""Preferences: DPO's own gradient formula, Bradley-Terry as scikit-learn's regression, batches that resume."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from llmcourse.finetune.log_probs import answer_log_probs
from llmcourse.finetune.preference import (
    PreferenceBatches,
    Preferences,
    RewardModel,
    dpo_loss,
    implicit_rewards,
    pair_log_probs,
    pairwise_loss,
    preference_batch,
    preference_metrics,
)
from llmcourse.model import GPT, ModelConfig
from llmcourse.training import train

V = 9
PAIRS = [([5, 1], [6, 7, 2], [8]), ([4], [3, 2], [7, 7, 2]), ([1, 1, 1], [2], [5, 2])]


def small(seed=0, **options):
    torch.manual_seed(seed)
    return GPT(ModelConfig(V, d_model=8, n_heads=2, n_layers=2, context_length=12, **options)).eval()


def gradients(model, value):
    return torch.cat([g.flatten() for g in torch.autograd.grad(value, list(model.parameters()))])


# ---- batches ---------------------------------------------------------------------------------------


def test_a_batch_is_prompt_answer_and_padding_twice_for_each_pair():
    batch = preference_batch(PAIRS, pad_id=0)
    assert batch.token_ids.tolist()[1] == [[4, 3, 2, 0, 0], [4, 7, 7, 2, 0]]
    assert batch.mask.int().tolist()[0] == [[0, 0, 1, 1, 1], [0, 0, 1, 0, 0]]
    for (prompt, *answers), rows, masks in zip(PAIRS, *batch, strict=True):
        for answer, row, mask in zip(answers, rows, masks, strict=True):
            assert row[mask].tolist() == answer
            assert row[: mask.int().argmax()].tolist() == prompt


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        (([1], [2]), "pair 0 has 2 parts"),
        (([], [2], [3]), "the prompt of pair 0 has no token"),
        (([1], [], [3]), "the chosen answer of pair 0"),
        (([1], [2], []), "the rejected answer of pair 0"),
        (([1], [2], [2]), "both answers of pair 0 are the same"),
        (([1], [2.5], [3]), "a part of pair 0.0. is 2.5"),
        (([1], [2], [-3]), "a part of pair 0.0. is -3"),
    ],
)
def test_pairs_that_prefer_nothing_are_refused(pair, words):
    for build in (preference_batch, PreferenceBatches):
        with pytest.raises(ValueError, match=words):
            build([pair])


def test_an_epoch_holds_every_pair_once_and_a_source_goes_on_where_it_was():
    pairs = [([i % 5 + 1], [7] * (1 + i % 3), [8, i % 4]) for i in range(11)]
    one, other = (PreferenceBatches(pairs, batch_size=4, seed=2) for _ in range(2))
    seen = [next(one) for _ in range(6)]
    assert [len(batch.mask) for batch in seen[:3]].count(3) == 1

    def content(batches):
        return sorted(str([row[mask].tolist() for row, mask in zip(*pair, strict=True)]) for batch in batches
                      for pair in zip(*batch, strict=True))  # fmt: skip

    assert content(seen[:3]) == content(seen[3:])
    assert content(seen[:1]) != content(seen[3:4])
    for _ in range(2):
        next(other)
    third = PreferenceBatches(pairs, batch_size=4, seed=2)
    third.load_state_dict(other.state_dict())
    assert all(
        torch.equal(a.token_ids, b.token_ids)
        for a, b in zip(seen[2:], [next(third) for _ in range(4)], strict=True)
    )
    with pytest.raises(ValueError, match="n_pairs=11 and these have 10"):
        PreferenceBatches(pairs[:10], batch_size=4, seed=2).load_state_dict(other.state_dict())


# ---- DPO -------------------------------------------------------------------------------------------


def test_log_probabilities_of_pairs_are_those_of_each_answer_alone():
    model = small()
    found = pair_log_probs(model, preference_batch(PAIRS))
    for (prompt, *answers), row in zip(PAIRS, found, strict=True):
        for answer, value in zip(answers, row, strict=True):
            ids = torch.tensor([prompt + answer])
            alone = answer_log_probs(model, ids, torch.arange(ids.shape[1])[None] >= len(prompt))
            torch.testing.assert_close(value, alone[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("beta", [0.05, 0.5, 3.0])
def test_it_begins_at_ln_2_and_its_gradient_is_the_papers(beta):
    """beta · σ(-margin) · (gradient of the rejected less that of the chosen), Rafailov et al., below eq. 7."""
    batch, reference, model = preference_batch(PAIRS), small(0).double(), small(1).double()
    loss = dpo_loss(reference, beta)
    total, count = loss(copy.deepcopy(reference), batch)
    assert (count, total.item()) == (3, pytest.approx(3 * math.log(2)))
    log_probs = pair_log_probs(model, batch)
    margins = beta * (log_probs - pair_log_probs(reference, batch)).detach().numpy() @ [1, -1]
    weights = torch.from_numpy(beta / (1 + np.exp(margins)))
    wanted = gradients(model, (weights * (log_probs[:, 1] - log_probs[:, 0])).sum())
    total, _ = loss(model, batch)
    assert total.item() == pytest.approx(np.log1p(np.exp(-margins)).sum())
    torch.testing.assert_close(gradients(model, total), wanted, rtol=1e-9, atol=1e-14)


def test_the_optimum_for_known_rewards_is_the_reference_times_e_to_the_reward_over_beta():
    """Answers of one token: all pairs, each in the share that Bradley-Terry gives, lead to the closed form."""
    torch.manual_seed(0)
    beta, n = 0.7, 4
    rewards, reference = torch.randn(n, dtype=torch.float64), nn.Embedding(n, n).double()
    model = copy.deepcopy(reference)
    a, b = torch.triu_indices(n, n, 1)
    ids = torch.stack([torch.stack([torch.zeros_like(x), x], 1) for x in (a, b)], 1)  # (pairs, 2, 2)
    ids = torch.cat([ids, ids.flip(1)])
    mask = torch.tensor([False, True]).expand(ids.shape)
    chances = torch.sigmoid(rewards[ids[:, 0, 1]] - rewards[ids[:, 1, 1]])
    optimizer = torch.optim.LBFGS(
        model.parameters(), max_iter=300, tolerance_grad=1e-12, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        loss = sum(
            chance * dpo_loss(reference, beta)(model, Preferences(ids[i : i + 1], mask[i : i + 1]))[0]
            for i, chance in enumerate(chances)
        )
        loss.backward()
        return loss

    optimizer.step(closure)
    wanted = (reference.weight[0].log_softmax(-1) + rewards / beta).log_softmax(-1)
    torch.testing.assert_close(model.weight[0].log_softmax(-1), wanted, rtol=0, atol=1e-4)


class OneWeight(nn.Module):
    """Three tokens whose logits move together: -w of the chosen, -2 w of the rejected, 0 of the third."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(()))

    def forward(self, token_ids):
        return (self.w * torch.tensor([-1.0, -2.0, 0.0])).expand(*token_ids.shape, 3)


def test_only_the_difference_is_trained_so_the_chosen_answer_may_become_less_probable():
    reference, model = OneWeight(), OneWeight()
    batch, seen = preference_batch([([2], [0], [1])]), []
    for _ in train(model, [batch], steps=20, loss=dpo_loss(reference, 0.5), lr=0.1, weight_decay=0.0):
        seen.append(preference_metrics(model, reference, batch, 0.5))
    assert np.all(np.diff([m.margin for m in seen]) > 0)
    assert np.all(np.diff([m.chosen for m in seen]) < 0)
    last, w = seen[-1], model.w.item()
    assert last.chosen == pytest.approx(-w - math.log(1 + math.exp(-w) + math.exp(-2 * w)), abs=1e-5)
    assert last.margin == pytest.approx(0.5 * w, abs=1e-5)
    rewards = implicit_rewards(model, reference, batch, 0.5)[0]
    assert last.margin == pytest.approx((rewards[0] - rewards[1]).item(), abs=1e-5)
    assert last.accuracy == 1


def test_the_reference_reads_without_dropout_and_stays_as_it_was():
    reference = small(dropout=0.5).train()
    before, batch = copy.deepcopy(reference.state_dict()), preference_batch(PAIRS)
    loss, model = dpo_loss(reference), small(1)
    one, other = loss(model, batch)[0], loss(model, batch)[0]
    assert one.item() == other.item()
    one.backward()
    assert reference.training
    assert all(p.grad is None for p in reference.parameters())
    assert all(torch.equal(before[name], now) for name, now in reference.state_dict().items())


@pytest.mark.parametrize("beta", [0, -0.1, math.nan])
def test_a_beta_that_is_not_above_0_is_refused(beta):
    with pytest.raises(ValueError, match=r"beta is .*such as 0\.1"):
        dpo_loss(small(), beta)


# ---- rewards ---------------------------------------------------------------------------------------


class Strengths(nn.Module):
    """One reward for each token, read at the end of the answer."""

    def __init__(self, n):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n, dtype=torch.float64))

    def forward(self, token_ids, mask):
        return self.weight[token_ids[:, -1]]


def test_bradley_terry_is_logistic_regression_on_differences():
    from sklearn.linear_model import LogisticRegression

    rng, n = np.random.default_rng(0), 4
    first, second = (rng.integers(0, n, 60) for _ in range(2))
    keep = first != second
    pairs = [([0], [int(a)], [int(b)]) for a, b in zip(first[keep], second[keep], strict=True)]
    model, batch = Strengths(n), preference_batch(pairs)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = pairwise_loss(model, batch)[0] + model.weight.square().sum() / 2
        loss.backward()
        return loss

    optimizer.step(closure)
    one_hot = np.eye(n)
    x = np.concatenate([one_hot[first[keep]] - one_hot[second[keep]]])
    x, y = np.concatenate([x, -x]), np.r_[np.ones(len(x)), np.zeros(len(x))]
    judge = LogisticRegression(C=1.0, fit_intercept=False, tol=1e-9).fit(
        x, y, sample_weight=np.full(len(x), 0.5)
    )
    np.testing.assert_allclose(model.weight.detach(), judge.coef_[0], atol=2e-3)


def test_a_reward_model_reads_the_last_token_of_the_answer_and_no_padding():
    model, batch = RewardModel(small()), preference_batch(PAIRS, pad_id=3)
    assert model(batch.token_ids.flatten(0, 1), batch.mask.flatten(0, 1)).tolist() == [0] * 6
    nn.init.normal_(model.head.weight)
    found = model(batch.token_ids.flatten(0, 1), batch.mask.flatten(0, 1)).view(-1, 2)
    for (prompt, *answers), row in zip(PAIRS, found, strict=True):
        for answer, value in zip(answers, row, strict=True):
            ids = torch.tensor([prompt + answer])
            assert value.item() == pytest.approx(model(ids, torch.ones_like(ids).bool()).item(), abs=1e-5)
    total, count = pairwise_loss(model, batch)
    assert count == 3
    assert total.item() == pytest.approx(
        np.log1p(np.exp((found[:, 1] - found[:, 0]).detach().numpy())).sum(), rel=1e-5
    )


def test_a_reward_model_learns_a_rule_and_leaves_its_gpt_alone():
    gpt = small()
    before = copy.deepcopy(gpt.state_dict())
    generator = torch.Generator().manual_seed(0)
    draw = lambda n: torch.randint(3, V, (n,), generator=generator).tolist()  # noqa: E731
    pairs = [(draw(2), [1, *draw(2), 2], [0, *draw(3), 2]) for _ in range(48)]
    model, test = RewardModel(gpt), preference_batch(pairs[32:])
    for _ in train(model, PreferenceBatches(pairs[:32], 8), steps=60, lr=1e-2, loss=pairwise_loss):
        pass
    rewards = model.eval()(test.token_ids.flatten(0, 1), test.mask.flatten(0, 1)).view(-1, 2)
    assert (rewards[:, 0] > rewards[:, 1]).float().mean() > 0.9
    assert all(torch.equal(before[name], now) for name, now in gpt.state_dict().items())


def test_a_model_is_not_its_own_reference():
    model, batch = small(), preference_batch([([5], [6, 7], [8])])
    with pytest.raises(ValueError, match=r"moves with it: give a copy, copy.deepcopy"):
        dpo_loss(model)(model, batch)


def test_a_reward_needs_an_answer_to_be_read_at():
    reward, ids = RewardModel(small()), torch.tensor([[1, 2, 3], [1, 2, 3]])
    with pytest.raises(ValueError, match="each row has at least a token"):
        reward(ids, torch.tensor([[False, True, True], [False, False, False]]))
    with pytest.raises(ValueError, match=r"mask in torch\.bool"):
        reward(ids, torch.ones(2, 3))
