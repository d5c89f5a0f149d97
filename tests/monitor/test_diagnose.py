"""`diagnose` on seeds that no threshold was set on; each probe against what it should be."""

import csv
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from llmcourse.data.manifest import course_data
from llmcourse.model import GPT, ModelConfig
from llmcourse.monitor import planted_bugs, small_run
from llmcourse.monitor import run_record as probes
from llmcourse.monitor.diagnose import ALARMS, RULES, diagnose
from llmcourse.training import Step

SEED = 900


@pytest.fixture(scope="module")
def healthy():
    return small_run.healthy_run(SEED)


def test_a_healthy_run_raises_no_alarm(healthy):
    assert diagnose(healthy) == []
    assert diagnose(small_run.healthy_run(SEED + 2, steps=50)) == []


@pytest.mark.parametrize("name", planted_bugs.BUGS)
def test_every_bug_is_named_on_a_held_out_seed(name):
    """A third of the run is enough, but for memorizing, which takes a few epochs."""
    steps = small_run.STEPS if name == "too little text" else 50
    findings = diagnose(small_run.sick_run(planted_bugs.BUGS[name], SEED + 1, steps=steps))
    assert findings[0].name == name
    assert any(character.isdigit() for character in findings[0].evidence)


def test_the_stored_table_keeps_the_promise():
    """At least 90 % of the bugs named right, at most 5 % false alarms, over at least 40 healthy runs."""
    with (course_data() / "diagnose" / "confusion.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))

    def share(*groups):
        mine = [row for row in rows if row["group"] in groups]
        right = sum(int(row["runs"]) for row in mine if row["truth"] == row["named"])
        return right / sum(int(row["runs"]) for row in mine), sum(int(row["runs"]) for row in mine)

    assert share("bug")[0] >= 0.9
    right, total = share("healthy", "healthy variant")
    assert right >= 0.95
    assert total >= 40
    assert {row["threads"] for row in rows} == {"1", "2"}
    assert {row["named"] for row in rows} <= {name for name, *_ in (*RULES, *ALARMS)} | {"healthy"}


def test_the_rules_do_not_depend_on_the_text(healthy):
    """A record with one value changed is named by that value alone."""
    gradients = {step: norm / 3 for step, norm in healthy.recomputed_grad_norms.items()}
    steps = tuple(replace(step, loss=step.loss - 1) for step in healthy.steps)
    changes = {
        "tokenizer mismatch": dict(cross_entropy=healthy.entropy + 1),
        "data not shuffled": dict(follow_on=1.0),
        "initialization too large": dict(untrained_loss=9.0),
        "softmax over the wrong axis": dict(row_sums=2.0),
        "no causal mask": dict(future_leak=(0.5, 0.5)),
        "label leak": dict(future_leak=(0.5, 0.0)),
        "gradients not reset": dict(recomputed_grad_norms=gradients),
        "float16 underflow": dict(zeros=0.9),
        "weight tying broken": dict(
            parameter_movement={**healthy.parameter_movement, "unembedding.weight": 0.0}
        ),
        "frozen parameters": dict(
            parameter_movement={**healthy.parameter_movement, "blocks.0.mlp.up.weight": 0.0}
        ),
        "weight decay too strong": dict(norm_gain=0.1),
        "learning rate too high": dict(stopped="the loss is nan at step 3. Usual causes"),
        "evaluation mode forgotten": dict(repeated_validation_loss=(2.5, 2.501)),
        "too little text": dict(steps=steps),
        "too good to be true": dict(
            steps=(*steps[:-1], replace(steps[-1], validation_loss=1.2)), sample_bigram_loss=4.0
        ),
        "does not learn": dict(entropy=2.0, cross_entropy=2.0),
    }
    for name, change in changes.items():
        assert diagnose(replace(healthy, **change))[0].name == name, name


def test_a_finding_reads_as_sentences():
    finding = diagnose(small_run.sick_run(planted_bugs.no_causal_mask, SEED, steps=30))[0]
    assert str(finding).startswith("no causal mask: a logit changes by ")
    assert str(finding).endswith(".")


def test_a_run_that_stops_is_recorded_and_named():
    setup = small_run.healthy_setup(SEED, steps=10)
    setup.model.final_norm.weight.data[0] = math.nan
    run = small_run.run_setup(setup)
    assert run.steps == ()
    assert "nan" in run.stopped
    assert "learning rate too high" in {finding.name for finding in diagnose(run)}


# ---- the probes -----------------------------------------------------------------------------


def test_fresh_gradients_are_those_of_the_batch(healthy):
    logged = {step.step: step.grad_norm for step in healthy.steps}
    assert len(healthy.recomputed_grad_norms) >= 4
    for step, norm in healthy.recomputed_grad_norms.items():
        assert norm == pytest.approx(logged[step], rel=1e-4)


def test_entropy_is_that_of_the_counts(healthy):
    setup = small_run.healthy_setup(SEED)
    rows = []
    for _ in range(setup.steps):
        inputs, targets = next(setup.batches)
        rows += [inputs, targets[:, -1:]]
    share = torch.cat([row.flatten() for row in rows]).bincount(minlength=healthy.vocab_size).double() + 0.5
    distribution = torch.distributions.Categorical(probs=share / share.sum())
    assert healthy.entropy == pytest.approx(distribution.entropy().item())
    expected = F.nll_loss(distribution.logits.expand(len(setup.validation_ids), -1), setup.validation_ids)
    assert healthy.cross_entropy == pytest.approx(expected.item())
    assert healthy.shuffled_share == pytest.approx((share / share.sum()).square().sum().item())


def test_pair_losses_by_hand():
    table = probes.pair_losses(torch.tensor([0, 1, 0, 1, 1]), vocab_size=2)  # pairs 01 10 01 11
    expected = -torch.tensor([[0.5 / 3, 2.5 / 3], [1.5 / 3, 1.5 / 3]]).double().log()
    assert torch.allclose(table, expected)
    assert torch.allclose((-table).exp().sum(-1), torch.ones(2).double())


def test_a_causal_model_does_not_know_the_future_even_with_dropout_on():
    torch.manual_seed(0)
    model = GPT(ModelConfig(9, context_length=16, d_model=16, n_layers=2, dropout=0.5))
    rows = torch.randint(9, (3, 16))
    assert probes.future_change(model, rows) == (0.0, 0.0)
    assert model.training
    model.eval = lambda: model
    assert probes.future_change(model, rows) == (0.0, 0.0)


def test_updates_and_growth_are_lengths_of_differences():
    a, b = (
        [torch.tensor([3.0, 0.0]), torch.tensor([[0.0]])],
        [torch.tensor([0.0, 0.0]), torch.tensor([[4.0]])],
    )
    assert probes.distance(a, b) == 5.0
    assert probes.length(a) == 3.0


def test_the_first_and_last_values_of_a_run():
    steps = tuple(Step(i, float(i), 0.1, 1.0, i, 0.0, 2.0 if i == 3 else None) for i in (1, 2, 3))
    run = replace(small_run.healthy_run(0, steps=2), steps=steps)
    assert run.validation() == ([3], [2.0])
    assert run.last_losses(2) == 2.5
    assert replace(run, steps=()).last_losses() == run.untrained_loss


def test_what_cannot_be_recorded_is_refused():
    setup = small_run.healthy_setup(0, steps=2)
    texts = setup.train_ids, setup.validation_ids, small_run.characters().decode
    with pytest.raises(ValueError, match="accumulate=1"):
        probes.record_run(setup.model, setup.batches, *texts, steps=2, accumulate=2)
    with pytest.raises(ValueError, match="at least one context of 64"):
        probes.record_run(setup.model, setup.batches, texts[0], texts[1][:10], texts[2], steps=2)
