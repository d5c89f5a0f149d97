"""The clinic: runs repeat to the bit, bugs change what they say, patients are named once."""

import torch

from llmcourse.data.batches import TokenBatches
from llmcourse.evaluate.likelihood import evaluate_loss
from llmcourse.optim import AdamW, parameter_groups
from llmcourse.schedules import warmup_cosine
from llmcourse.teach import clinic
from llmcourse.teach.chapters.ch05d_failure_clinic.patients import (
    HEALTHY,
    ROUNDS,
    charts,
    lab_table,
    samples,
    smooth,
)
from llmcourse.training import train


def test_the_record_leaves_the_training_as_it_was():
    """The same losses, gradients and validation losses as `train` without any probe."""
    run = clinic.healthy_run(3, steps=24)
    setup = clinic.healthy_setup(3, steps=24)
    torch.manual_seed(3)
    watch = dict(evaluate=lambda m: evaluate_loss(m, setup.validation_ids), eval_every=20)
    steps = list(
        train(setup.model, setup.batches, optimizer=setup.optimizer, steps=24, **setup.options, **watch)
    )
    assert [s.loss for s in run.steps] == [s.loss for s in steps]
    assert [s.grad_norm for s in run.steps] == [s.grad_norm for s in steps]
    assert run.validation()[1] == [s.validation_loss for s in steps if s.validation_loss]


def test_the_healthy_run_is_the_documented_recipe_and_repeats_to_the_bit():
    setup = clinic.healthy_setup(5)
    options = {name: value for name, value in setup.optimizer.defaults.items() if name in ("lr", "betas")}
    assert options == {"lr": 3e-3, "betas": (0.9, 0.95)}
    assert setup.options["schedule"](39) == warmup_cosine(160, 40, 0.1)(39) == 1.0
    assert (setup.steps, setup.model.config.d_model, setup.model.config.context_length) == (160, 64, 64)
    runs = [clinic.healthy_run(5, steps=6) for _ in range(2)]
    assert [s.loss for s in runs[0].steps] == [s.loss for s in runs[1].steps]
    assert runs[0].sample == runs[1].sample
    assert clinic.healthy_run(6, steps=6).steps[0].loss != runs[0].steps[0].loss


def test_bugs_of_the_model_do_what_they_say():
    setup = clinic.healthy_setup(0)
    clinic.tying_broken(setup)
    assert torch.equal(setup.model.unembedding.weight, setup.model.token_embedding.weight)
    trained = {id(p) for group in setup.optimizer.param_groups for p in group["params"]}
    assert id(setup.model.unembedding.weight) not in trained

    setup = clinic.healthy_setup(0)
    ids = setup.train_ids[None, :64]
    setup.model.eval()
    before = setup.model(ids)
    clinic.softmax_over_queries(setup)
    (weights,) = setup.model.attention_maps(ids)
    assert torch.allclose(weights.sum(-2), torch.ones(1, 4, 64), atol=1e-5)  # columns sum to 1
    assert not weights.triu(1).any()  # and the mask is there
    assert not torch.allclose(setup.model(ids), before)

    setup = clinic.healthy_setup(0)
    setup.model.eval()
    clinic.underflow(setup, n_tokens=clinic.BATCH * clinic.CONTEXT)
    assert torch.allclose(setup.model(ids).float(), before, atol=0.01)  # float16 alone changes little


def test_bugs_of_the_data_do_what_they_say():
    setup = clinic.healthy_setup(0)
    clinic.targets_not_shifted(setup)
    inputs, targets = next(iter(setup.batches))
    assert torch.equal(inputs, targets)

    setup = clinic.healthy_setup(0)
    clinic.not_shuffled(setup)
    (first, _), (second, targets) = setup.batches[0], setup.batches[1]
    text = clinic.characters().decode(torch.cat([first.flatten(), second.flatten()]).tolist())
    speeches = text.split("\n\n")[:-1]
    assert len(speeches) > 10
    assert [len(s) for s in speeches] == sorted(len(s) for s in speeches)
    assert torch.equal(second[:, 1:], targets[:, :-1])

    setup = clinic.healthy_setup(0)
    right = setup.validation_ids
    clinic.other_alphabet(setup)
    assert len(setup.validation_ids) == len(right)
    assert setup.validation_ids.max() < right.max()


def test_a_bug_leaves_the_next_run_alone():
    loss = clinic.healthy_run(1, steps=3).steps[-1].loss
    for bug in clinic.BUGS.values():
        bug(clinic.healthy_setup(1, steps=3))
    assert clinic.healthy_run(1, steps=3).steps[-1].loss == loss


def test_each_illness_is_one_patient():
    names = [name for patients in ROUNDS.values() for name in patients.values()]
    assert sorted(names) == sorted([*clinic.BUGS, HEALTHY])
    letters = [letter for patients in ROUNDS.values() for letter in patients]
    assert "".join(letters) == "ABCDEFGHIJKLMNOP"


def test_charts_tables_and_folds_show_every_patient():
    runs = {"A": clinic.healthy_run(1, steps=10), "B": clinic.healthy_run(2, steps=10)}
    healthy = [clinic.healthy_run(seed, steps=10) for seed in (3, 4)]
    figure = charts(runs, healthy)
    assert [axis.get_title() for axis in figure.axes[:2]] == ["A", "B"]
    assert max(figure.get_size_inches()) * 100 <= 700
    head, *rows = lab_table(runs, healthy[0]).splitlines()
    assert head.split() == ["healthy", "A", "B"]
    assert len(rows) == 17
    assert len({len(row) for row in rows}) == 1
    assert samples(runs).count("\n") == 1


def test_smooth_is_the_mean_of_the_last_values():
    values = torch.rand(2, 9).double().numpy()
    assert abs(smooth(values)[:, 7] - values[:, 3:8].mean(1)).max() < 1e-12
    assert (smooth(values)[:, 0] == values[:, 0]).all()


def test_batches_of_the_healthy_run_are_those_of_the_course():
    setup = clinic.healthy_setup(9)
    ours, theirs = next(setup.batches), next(TokenBatches(setup.train_ids, 8, 64, seed=9))
    assert torch.equal(ours[0], theirs[0])
    groups = parameter_groups(setup.model, 0.1)
    assert [len(g["params"]) for g in setup.optimizer.param_groups] == [len(g["params"]) for g in groups]
    assert isinstance(setup.optimizer, AdamW)
