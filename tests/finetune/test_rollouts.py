"""Answers against `generate`, a source that resumes to the bit, and a gradient against that of all answers there are."""

from itertools import product

import pytest
import torch

from llmcourse import fast
from llmcourse.compress.distill import divergences
from llmcourse.finetune.policy import Rollouts, group_advantages, policy_loss
from llmcourse.finetune.rollouts import (
    RolloutBatches,
    answer_lengths,
    divergence,
    join,
    merge_equal,
    sample_answers,
)
from llmcourse.finetune.tasks import Task
from llmcourse.finetune.verifiable import Spelling, answer_probabilities, string_tasks
from llmcourse.generate import generate
from llmcourse.model import GPT, ModelConfig
from llmcourse.training import train

DIGITS = Spelling(lambda text: [int(c) for c in text], lambda ids: "".join(map(str, ids)), end_id=0)


def tiny(vocab_size=4, context_length=8, seed=0, **changes):
    torch.manual_seed(seed)
    shape = dict(d_model=8, n_heads=2, n_layers=1, d_ff=16) | changes
    model = GPT(ModelConfig(vocab_size, context_length=context_length, **shape)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("positions", ["rotary", "learned"])
@pytest.mark.parametrize("prompts", [[[1, 2], [3, 3]], [[1, 2, 3], [2]]], ids=["equal", "unequal"])
def test_greedy_answers_are_those_of_generate(quick, positions, prompts):
    model = tiny(positions=positions, n_layers=2)
    wanted = [
        generate(model, prompt, 4, stop_id=0, temperature=0)[0, len(prompt) :].tolist() for prompt in prompts
    ]
    wanted = [row + [0] * (4 - len(row)) for row in wanted for _ in range(3)]
    model.train()
    if quick:
        assert sample_answers(model, prompts, 3, 4, 0, temperature=0).tolist() == wanted
    else:
        with fast.disabled():
            assert sample_answers(model, prompts, 3, 4, 0, temperature=0).tolist() == wanted
    assert model.training


def test_answers_come_as_often_as_the_model_says():
    model, n = tiny(), 3000
    written = sample_answers(model, [[1, 2], [3]], n, 3, 0, generator=torch.Generator().manual_seed(0))
    assert written.shape == (2 * n, 3)
    for prompt, rows in (("12", written[:n]), ("3", written[n:])):
        texts = [
            DIGITS.decode(row[:k])
            for row, k in zip(rows.tolist(), answer_lengths(rows, 0).tolist(), strict=True)
        ]
        for answer in ("0", "10", "230", "333"):
            p = answer_probabilities(model, [Task("any", prompt, answer)], DIGITS).item()
            assert texts.count(answer) / n == pytest.approx(p, abs=4.5 * (p * (1 - p) / n) ** 0.5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(prompts=[[1], []]), "has no token"),
        (dict(prompts=[[1, 9]]), "give ids from 0 to 3"),
        (dict(max_new_tokens=8), "exceed the context of 8"),
        (dict(group=0), "group=0 must be a whole number"),
        (dict(end_id=4), "end_id"),
        (dict(temperature=-1.0), "temperature=-1.0"),
    ],
)
def test_what_cannot_be_answered_is_named(changes, words):
    arguments = dict(prompts=[[1]], group=2, max_new_tokens=2, end_id=0) | changes
    with pytest.raises(ValueError, match=words):
        sample_answers(tiny(), **arguments)


# ---- a batch ------------------------------------------------------------------------------------------


def first_digit(task, answer):
    """A reward with many values: the first digit, and one more for an end."""
    return int(answer[0]) + answer.endswith("0")


TASKS = [Task("any", prompt, "10") for prompt in ("12", "3", "231", "22", "1", "13")]


def batches(model, **changes):
    arguments = dict(n_tasks=4, group=3, max_new_tokens=4, spelling=DIGITS, seed=5) | changes
    return RolloutBatches(model, TASKS, first_digit, **arguments)


def test_a_batch_is_what_was_written_and_how_much_better_it_was():
    source = batches(tiny())
    for _ in range(3):
        batch = next(source)
        assert (len(source.drawn), len({id(task) for task in source.drawn})) == (4, 4)
        for i, (row, mask) in enumerate(zip(batch.token_ids.tolist(), batch.mask.tolist(), strict=True)):
            task, group = source.drawn[i // 3], slice(i // 3 * 3, i // 3 * 3 + 3)
            answer = DIGITS.decode([t for t, counts in zip(row, mask, strict=True) if counts])
            assert answer == source.answers[i]
            assert DIGITS.decode(row).startswith(task.prompt + answer)
            assert mask.index(True) == len(task.prompt)
            assert "0" not in answer[:-1]
            assert len(answer) == source.lengths[i // 3, i % 3] <= 4
            rewards = [first_digit(task, text) for text in source.answers[group]]
            assert source.rewards[i // 3].tolist() == rewards
            assert batch.advantages[i].item() == pytest.approx(rewards[i % 3] - sum(rewards) / 3, abs=1e-6)
    assert batch.old_log_probs is None


@pytest.mark.parametrize("clip", [None, 0.2])
def test_merged_rows_make_the_same_step(clip):
    model = tiny().double()
    whole, source = (batches(model, merge=merge, n_tasks=6, group=8, reuse=2) for merge in (False, True))
    for _ in range(4):
        gradients = []
        for each in (whole, source):
            batch = next(each)
            batch = batch._replace(old_log_probs=batch.old_log_probs - 0.3 * batch.mask)  # ratios of 1.35
            total, count = policy_loss(clip=clip)(model, batch)
            gradients.append(flat_gradient(total / count, model))
        assert source.answers == whole.answers
        torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-8)
        assert len(source.batch.mask) < len(whole.batch.mask)


def test_merging_keeps_who_wrote_the_rows():
    batch = next(batches(tiny(), n_tasks=6, group=8, reuse=2))
    merged = merge_equal(batch)
    assert len(merged.mask) < len(batch.mask)
    for row, mask, old in zip(merged.token_ids, merged.mask, merged.old_log_probs, strict=True):
        place = ((batch.token_ids == row) & (batch.mask == mask)).all(1).nonzero()[0, 0]
        assert torch.equal(old, batch.old_log_probs[place])


def test_a_state_of_other_tasks_is_refused():
    model, kinds = GPT(ModelConfig(23, d_model=8, n_heads=2, n_layers=1)), ("reverse", "sort")
    one, other = (RolloutBatches(model, string_tasks(kind, 20), n_tasks=4, group=2) for kind in kinds)
    next(one)
    with pytest.raises(ValueError, match="resume with the same data"):
        other.load_state_dict(one.state_dict())


def test_where_nothing_was_better_all_rows_stay():
    source = RolloutBatches(tiny(), TASKS, lambda *_: 1.0, 4, 3, 4, merge=True, spelling=DIGITS)
    assert (len(next(source).advantages), next(source).advantages.abs().max()) == (12, 0)


def test_a_batch_that_comes_again_knows_who_wrote_it():
    model = tiny()
    source = batches(model, reuse=2)
    one = next(source)
    with torch.no_grad():
        wanted = answer_log_probabilities(model, one)
        model.token_embedding.weight.mul_(1.5)
    assert next(source) is one
    torch.testing.assert_close(one.old_log_probs.sum(1), wanted)
    assert next(source) is not one


def answer_log_probabilities(model, batch):
    found = []
    for row, mask in zip(batch.token_ids, batch.mask, strict=True):
        logs = model(row[None]).log_softmax(-1)[0]
        found.append(sum(logs[t - 1, row[t]] for t in mask.nonzero()[:, 0].tolist()))
    return torch.stack(found)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(n_tasks=7), "there are 6 tasks"),
        (dict(group=1), "group=1 must be a whole number and at least 2"),
        (dict(temperature=0.0), "equal answers cannot be compared"),
        (dict(reuse=0), "reuse=0"),
    ],
)
def test_a_source_that_could_teach_nothing_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        batches(tiny(), **changes)


def test_joined_rows_and_lengths():
    written = torch.tensor([[0, 0, 0], [1, 0, 0], [1, 2, 3], [1, 2, 0]])
    lengths = answer_lengths(written, end_id=0)
    assert lengths.tolist() == [1, 2, 3, 3]
    token_ids, mask = join([[2], [3, 3], [1], [2, 2, 2]], written, lengths)
    assert token_ids.shape == mask.shape == (4, 6)
    assert [token_ids[i][mask[i]].tolist() for i in range(4)] == [[0], [1, 0], [1, 2, 3], [1, 2, 0]]


# ---- training on them -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes", [{}, dict(reuse=3), dict(merge=True, scale=True)], ids=["plain", "again", "merged"]
)
def test_a_run_stops_and_goes_on_to_the_bit(tmp_path, changes):
    def run(path, seed, stop_at=None):
        model, seen = tiny(seed=seed, dropout=0.2), []
        options = dict(loss=policy_loss(), lr=1e-2, checkpoint=path, resume=True)
        for step in train(model, batches(model, **changes), steps=7, **options):
            seen.append((step.step, step.loss, step.grad_norm))
            if step.step == stop_at:
                break
        return seen, [p.tolist() for p in model.parameters()]

    whole, weights = run(tmp_path / "whole", 0)
    first, _ = run(tmp_path / "parts", 0, stop_at=4)
    rest, same = run(tmp_path / "parts", 8)
    assert first + rest == whole
    assert same == weights
    model = tiny(dropout=0.2)
    others = batches(model, group=2, **changes)
    with pytest.raises(ValueError, match="group=3 and these have"):
        train(model, others, steps=9, loss=policy_loss(), checkpoint=tmp_path / "whole", resume=True)


ANSWERS = ["0", *(a + b for a, b in product("123", "0123"))]  # all of up to two tokens
REWARDS = torch.tensor([float(first_digit(None, answer)) for answer in ANSWERS])


def flat_gradient(value, model):
    return torch.cat([part.flatten() for part in torch.autograd.grad(value, list(model.parameters()))])


def expected_reward(model):
    probabilities = answer_probabilities(model, [Task("any", "12", answer) for answer in ANSWERS], DIGITS)
    assert probabilities.sum().item() == pytest.approx(1, abs=1e-5)
    return probabilities, flat_gradient(probabilities @ REWARDS.to(probabilities.dtype), model)


def test_over_all_groups_the_gradient_is_that_of_the_expected_reward():
    """Each of the 13 x 13 groups of two, as often as it comes: exact, without drawing.

    The mean of a group holds the answer itself, so its advantages are (G - 1) / G of what they would be.
    """
    model = tiny().double()
    p, exact = expected_reward(model)
    pairs = list(product(range(len(ANSWERS)), repeat=2))
    written = torch.tensor([[int(c) for c in ANSWERS[i].ljust(2, "0")] for pair in pairs for i in pair])
    token_ids, mask = join([[1, 2]] * len(written), written, answer_lengths(written, 0))
    rewards = torch.stack([REWARDS[list(pair)] for pair in pairs]).double()
    often = torch.stack([p[a] * p[b] for a, b in pairs]).detach()
    advantages = group_advantages(rewards) * often[:, None]
    total, _ = policy_loss()(model, Rollouts(token_ids, mask, advantages.flatten()))
    torch.testing.assert_close(flat_gradient(-total / 2, model) * 2, exact, rtol=1e-6, atol=1e-9)


def test_the_gradient_of_batches_is_on_average_that_of_the_expected_reward():
    model, group, n = tiny(), 4, 60
    _, exact = expected_reward(model)
    source = RolloutBatches(model, [TASKS[0]] * 32, first_digit, 32, group, 2, spelling=DIGITS)
    along = []  # the part of each gradient in the exact direction, 1 on average
    for _ in range(n):
        total, count = policy_loss()(model, next(source))
        along.append(
            flat_gradient(-total / count, model) @ exact / exact.square().sum() * group / (group - 1)
        )
    along = torch.stack(along)
    error = along.std().item() / n**0.5
    assert error < 0.05
    assert along.mean().item() == pytest.approx(1, abs=3 * error)


def test_a_model_learns_what_is_rewarded():
    model = tiny(vocab_size=len("abcdefghij0123456789+>."), context_length=16, d_model=16)
    tasks = string_tasks("double", 50)
    source = RolloutBatches(model, tasks, lambda task, answer: answer.count("c"), 8, 8, 6)
    list(train(model, source, steps=30, lr=2e-2, loss=policy_loss(), weight_decay=0.0))
    assert source.rewards.mean() > 5


def test_divergence_is_that_of_the_answers_tokens():
    model, other = tiny(), tiny(seed=1)
    batch = next(batches(model))
    assert divergence(model, model, batch) == pytest.approx(0, abs=1e-6)
    total = 0.0
    for row, mask in zip(batch.token_ids, batch.mask, strict=True):
        places = mask.nonzero()[:, 0] - 1
        with torch.no_grad():
            mine, theirs = (each(row[None])[0, places] for each in (model, other))
        total += divergences(theirs, mine).sum().item()
    assert divergence(model, other, batch) == pytest.approx(total / len(batch.mask), rel=1e-4)
    nobody = Rollouts(batch.token_ids, torch.zeros_like(batch.mask), batch.advantages)
    assert divergence(model, other, nobody) == 0
