"""Private training: each gradient equal to a loop and to opacus, clipped, covered, and resumed to the bit."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from llmcourse.data.batches import IGNORE
from llmcourse.finetune.classify import GPTClassifier
from llmcourse.losses import next_token_loss
from llmcourse.model import GPT, ModelConfig
from llmcourse.safety.private import (
    PoissonBatches,
    PrivateOptimizer,
    example_gradients,
    gradient_norms,
    private_loss,
    row_losses,
)
from llmcourse.training import train

V, T, B = 13, 6, 5
KINDS = {
    "course": {},
    "untied": dict(tied_embeddings=False),
    "gpt2": dict(norm="layer", positions="learned", mlp="gelu_tanh", bias=True),
    "2017": dict(
        norm="layer", norm_position="post", positions="sinusoidal", mlp="relu", scaled_embeddings=True
    ),
    "qwen": dict(qk_norm=True, n_kv_heads=1),
}


def gpt(seed=0, **options):
    torch.manual_seed(seed)
    return GPT(ModelConfig(V, context_length=T, d_model=8, n_heads=2, n_layers=2, **options))


def rows(n=B, seed=0):
    """Rows whose targets count unequally often; the last has none."""
    ids = torch.randint(V, (n, T + 1), generator=torch.Generator().manual_seed(seed))
    targets = ids[:, 1:].clone()
    for i in range(n):
        targets[i, T - i % T :] = IGNORE
    targets[-1] = IGNORE
    return ids[:, :-1], targets


def by_a_loop(model, batch):
    """The gradients of rows one at a time, as anybody would take them."""
    found = []
    for inputs, targets in zip(*batch, strict=True):
        model.zero_grad(set_to_none=True)
        count = max(1, int((targets != IGNORE).sum()))
        (next_token_loss(model, (inputs[None], targets[None]))[0] / count).backward()
        found.append({name: p.grad.clone() for name, p in model.named_parameters()})
    model.zero_grad(set_to_none=True)
    return {name: torch.stack([one[name] for one in found]) for name in found[0]}


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("chunk", [2, 16])
def test_gradients_and_norms_are_those_of_a_loop(options, chunk):
    model, batch = gpt(**options).double(), rows()
    found, expected = example_gradients(model, batch, chunk=chunk), by_a_loop(model, batch)
    assert found.keys() == expected.keys()  # the tied matrix once, with both of its parts
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-9, atol=1e-12)
    squares = sum(g.flatten(1).square().sum(1) for g in expected.values())
    torch.testing.assert_close(
        gradient_norms(model, batch, chunk=chunk).double(), squares.sqrt(), rtol=1e-5, atol=1e-9
    )
    assert squares[-1] == 0  # nothing to learn from a row without targets


@pytest.mark.parametrize("kind", ["course", "untied", "qwen"])
def test_gradients_are_those_of_opacus(kind):
    """Opacus knows RMSNorm and our attention's Linear layers; a tied matrix it must be told of by its name."""
    opacus = pytest.importorskip("opacus.grad_sample")
    model = gpt(**KINDS[kind])
    ids = torch.randint(V, (B, T + 1))
    batch = ids[:, :-1], ids[:, 1:]
    expected = example_gradients(model, batch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = opacus.GradSampleModule(model, loss_reduction="sum")
        row_losses(wrapped, batch).sum().backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad_sample, expected[name], rtol=1e-4, atol=1e-6)


def test_frozen_parameters_have_no_gradient_and_add_nothing_to_the_norm():
    model = gpt()
    model.token_embedding.requires_grad_(False)
    found = example_gradients(model, rows())
    assert "token_embedding.weight" not in found
    assert len(found) == len(list(model.parameters())) - 1
    squares = sum(g.flatten(1).square().sum(1) for g in found.values())
    torch.testing.assert_close(gradient_norms(model, rows()), squares.sqrt())


def test_another_model_and_loss_have_example_gradients_too():
    """A classifier that reads padded rows: the loss of one example is torch's cross-entropy of its label."""
    torch.manual_seed(0)
    model = GPTClassifier(gpt(), n_classes=3)
    batch = torch.randint(V, (B, T)), torch.ones(B, T, dtype=torch.long), torch.arange(B) % 3

    def losses(model, batch):
        return F.cross_entropy(model(*batch[:2]), batch[2], reduction="none")

    found = example_gradients(model, batch, losses)
    for i in range(B):
        model.zero_grad(set_to_none=True)
        losses(model, tuple(part[i : i + 1] for part in batch)).sum().backward()
        for name, p in model.named_parameters():
            torch.testing.assert_close(found[name][i], p.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("clip", [0.01, 0.5, 1e6])
def test_the_gradient_of_the_loss_is_the_sum_of_clipped_gradients(clip):
    model, batch = gpt().double(), rows()
    each, norms = example_gradients(model, batch), gradient_norms(model, batch).double()
    total, count, reported = private_loss(clip, batch_size=7)(model, batch)
    total.backward()
    weights = (clip / norms).clamp(max=1)
    for name, p in model.named_parameters():
        expected = torch.einsum("b,b...->...", weights, each[name])
        torch.testing.assert_close(p.grad, expected, rtol=1e-5, atol=1e-9)
    assert count == 7
    torch.testing.assert_close(reported / count, row_losses(model, batch).mean())
    assert bool((weights < 1).any()) == (clip < 1e6)


def test_no_example_can_move_the_sum_by_more_than_the_clip():
    """With or without one row, whatever is in it: also one that made a weight a thousand times as large."""
    model = gpt()
    for block in model.blocks:
        block.mlp.down.weight.data *= 1000
    batch, sums = rows(), []
    for part in (batch, tuple(tensor[1:] for tensor in batch)):
        model.zero_grad(set_to_none=True)
        private_loss(0.1, batch_size=1)(model, part)[0].backward()
        sums.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    moved = (sums[0] - sums[1]).norm().item()
    assert gradient_norms(model, batch)[0] > 1
    assert moved == pytest.approx(0.1, rel=1e-3)


def test_a_batch_without_rows_makes_a_step_of_noise_alone():
    model = gpt()
    before = [p.clone() for p in model.parameters()]
    optimizer = PrivateOptimizer(torch.optim.SGD(model.parameters(), lr=1.0), 2.0, 0.5, batch_size=4, seed=1)
    empty = tuple(part[:0] for part in rows())
    (step,) = train(model, [empty], steps=1, loss=private_loss(0.5, 4), optimizer=optimizer, clip=None)
    assert (step.loss, step.grad_norm) == (0, 0)
    moved = torch.cat(
        [(p - old).detach().flatten() for p, old in zip(model.parameters(), before, strict=True)]
    )
    assert moved.std() == pytest.approx(2.0 * 0.5 / 4, rel=0.05)
    assert abs(moved.mean()) < 0.03


def test_without_noise_and_clipping_it_is_plain_training_on_the_mean_of_rows():
    batch = rows()[0], rows()[0].flip(0)  # each row counts T targets: then the mean of rows is that of tokens
    runs = []
    for loss in (next_token_loss, private_loss(1e6, batch_size=B)):
        model = gpt()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        if loss is not next_token_loss:
            optimizer = PrivateOptimizer(optimizer, 0.0, 1e6, B, seed=0)
        steps = list(train(model, [batch], steps=4, loss=loss, optimizer=optimizer, clip=None))
        runs.append(([step.loss for step in steps], list(model.parameters())))
    assert runs[0][0] == pytest.approx(runs[1][0], rel=1e-5)
    assert runs[0][0][-1] < runs[0][0][0]
    for one, other in zip(runs[0][1], runs[1][1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_a_run_stops_and_goes_on_to_the_bit_and_its_noise_with_it(tmp_path):
    def run(path, seed, stop_at=None):
        model = gpt(seed)
        adamw = torch.optim.AdamW(model.parameters(), lr=1e-2)
        options = dict(
            loss=private_loss(0.3, 4), optimizer=PrivateOptimizer(adamw, 1.0, 0.3, 4, seed), clip=None
        )
        seen, batches = [], PoissonBatches(rows(20), 0.2, seed=3)
        for step in train(model, batches, steps=6, checkpoint=path, resume=True, **options):
            seen.append((step.loss, step.grad_norm))
            if step.step == stop_at:
                break
        return seen, [p.detach().clone() for p in model.parameters()]

    whole, weights = run(tmp_path / "whole", 0)
    first, _ = run(tmp_path / "parts", 0, stop_at=2)
    rest, resumed = run(tmp_path / "parts", 9)
    assert first + rest == whole
    assert len(set(whole)) == 6
    assert all(torch.equal(one, other) for one, other in zip(weights, resumed, strict=True))


def test_a_run_without_noise_does_not_go_on_as_a_private_one(tmp_path):
    path, batch = tmp_path / "run.pt", rows()

    def run(optimizer_of, steps):
        model = gpt()
        optimizer = optimizer_of(torch.optim.SGD(model.parameters(), lr=0.1))
        list(train(model, [batch], steps=steps, optimizer=optimizer, checkpoint=path, resume=True))

    run(lambda optimizer: optimizer, 1)
    with pytest.raises(ValueError, match="no noise"):
        run(lambda optimizer: PrivateOptimizer(optimizer, 1.0, 1.0, B, seed=0), 2)


def test_each_row_takes_part_with_the_probability_that_was_asked_for():
    batches = PoissonBatches((torch.arange(50), torch.arange(50)), 0.1)
    drawn = [next(batches) for _ in range(2000)]
    sizes = torch.tensor([len(inputs) for inputs, _ in drawn]).float()
    times = torch.bincount(torch.cat([inputs for inputs, _ in drawn]), minlength=50)
    assert all(torch.equal(inputs, targets) for inputs, targets in drawn)
    assert sizes.mean() == pytest.approx(5, abs=0.2)
    assert sizes.var() == pytest.approx(4.5, abs=0.6)
    assert times.min() > 140
    assert times.max() < 260
    assert sizes.min() == 0
    batches.load_state_dict({**batches.state_dict(), "position": 7})
    assert torch.equal(next(batches)[0], drawn[7][0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: private_loss(0.0, 4), "clip is 0.0"),
        (lambda: private_loss(1.0, 0), "batch_size is 0"),
        (
            lambda: PrivateOptimizer(torch.optim.SGD([nn.Parameter(torch.ones(1))]), -1.0, 1.0, 4, 0),
            "noise_multiplier",
        ),
        (lambda: PoissonBatches(rows(), 0.0), "sampling_rate is 0.0"),
        (lambda: PoissonBatches((torch.arange(3), torch.arange(4)), 0.5), r"parts of \[3, 4\] rows"),
        (lambda: gradient_norms(gpt(dropout=0.1), rows()), "build it with dropout=0.0"),
        (lambda: gradient_norms(gpt(), rows(), chunk=0), "chunk=0"),
        (lambda: PoissonBatches(rows(), 0.5).load_state_dict({"seed": 1}), "seed=1"),
    ],
)
def test_what_would_not_be_private_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
