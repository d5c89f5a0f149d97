"""The small run repeats to the bit, and planted bugs change what they say."""

import torch

from llmcourse.data.batches import TokenBatches
from llmcourse.evaluate.likelihood import evaluate_loss
from llmcourse.monitor import planted_bugs, small_run
from llmcourse.optim import AdamW, parameter_groups
from llmcourse.schedules import warmup_cosine
from llmcourse.training import train


def test_the_record_leaves_the_training_as_it_was():
    """The same losses, gradients and validation losses as `train` without any probe."""
    run = small_run.healthy_run(3, steps=24)
    setup = small_run.healthy_setup(3, steps=24)
    torch.manual_seed(3)
    watch = dict(evaluate=lambda m: evaluate_loss(m, setup.validation_ids), eval_every=20)
    steps = list(
        train(setup.model, setup.batches, optimizer=setup.optimizer, steps=24, **setup.options, **watch)
    )
    assert [s.loss for s in run.steps] == [s.loss for s in steps]
    assert [s.grad_norm for s in run.steps] == [s.grad_norm for s in steps]
    assert run.validation()[1] == [s.validation_loss for s in steps if s.validation_loss]


def test_the_healthy_run_is_the_documented_recipe_and_repeats_to_the_bit():
    setup = small_run.healthy_setup(5)
    options = {name: value for name, value in setup.optimizer.defaults.items() if name in ("lr", "betas")}
    assert options == {"lr": 3e-3, "betas": (0.9, 0.95)}
    assert setup.options["schedule"](39) == warmup_cosine(160, 40, 0.1)(39) == 1.0
    assert (setup.steps, setup.model.config.d_model, setup.model.config.context_length) == (160, 64, 64)
    runs = [small_run.healthy_run(5, steps=6) for _ in range(2)]
    assert [s.loss for s in runs[0].steps] == [s.loss for s in runs[1].steps]
    assert runs[0].sample == runs[1].sample
    assert small_run.healthy_run(6, steps=6).steps[0].loss != runs[0].steps[0].loss


def test_bugs_of_the_model_do_what_they_say():
    setup = small_run.healthy_setup(0)
    planted_bugs.tying_broken(setup)
    assert torch.equal(setup.model.unembedding.weight, setup.model.token_embedding.weight)
    trained = {id(p) for group in setup.optimizer.param_groups for p in group["params"]}
    assert id(setup.model.unembedding.weight) not in trained

    setup = small_run.healthy_setup(0)
    ids = setup.train_ids[None, :64]
    setup.model.eval()
    before = setup.model(ids)
    planted_bugs.softmax_over_queries(setup)
    (weights,) = setup.model.attention_maps(ids)
    assert torch.allclose(weights.sum(-2), torch.ones(1, 4, 64), atol=1e-5)  # columns sum to 1
    assert not weights.triu(1).any()  # and the mask is there
    assert not torch.allclose(setup.model(ids), before)

    setup = small_run.healthy_setup(0)
    setup.model.eval()
    planted_bugs.underflow(setup, n_tokens=small_run.BATCH * small_run.CONTEXT)
    assert torch.allclose(setup.model(ids).float(), before, atol=0.01)  # float16 alone changes little


def test_bugs_of_the_data_do_what_they_say():
    setup = small_run.healthy_setup(0)
    planted_bugs.targets_not_shifted(setup)
    inputs, targets = next(iter(setup.batches))
    assert torch.equal(inputs, targets)

    setup = small_run.healthy_setup(0)
    planted_bugs.not_shuffled(setup)
    (first, _), (second, targets) = setup.batches[0], setup.batches[1]
    text = small_run.characters().decode(torch.cat([first.flatten(), second.flatten()]).tolist())
    speeches = text.split("\n\n")[:-1]
    assert len(speeches) > 10
    assert [len(s) for s in speeches] == sorted(len(s) for s in speeches)
    assert torch.equal(second[:, 1:], targets[:, :-1])

    setup = small_run.healthy_setup(0)
    right = setup.validation_ids
    planted_bugs.other_alphabet(setup)
    assert len(setup.validation_ids) == len(right)
    assert setup.validation_ids.max() < right.max()


def test_a_bug_leaves_the_next_run_alone():
    loss = small_run.healthy_run(1, steps=3).steps[-1].loss
    for bug in planted_bugs.BUGS.values():
        bug(small_run.healthy_setup(1, steps=3))
    assert small_run.healthy_run(1, steps=3).steps[-1].loss == loss


def test_batches_of_the_healthy_run_are_those_of_the_course():
    setup = small_run.healthy_setup(9)
    ours, theirs = next(setup.batches), next(TokenBatches(setup.train_ids, 8, 64, seed=9))
    assert torch.equal(ours[0], theirs[0])
    groups = parameter_groups(setup.model, 0.1)
    assert [len(g["params"]) for g in setup.optimizer.param_groups] == [len(g["params"]) for g in groups]
    assert isinstance(setup.optimizer, AdamW)
