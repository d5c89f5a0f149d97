"""Going on with a run: to the bit with unchanged arguments; a changed one is used, or named.

The expectation is the run that was never interrupted, and for a changed option, the steps of torch's
own optimizers loaded by hand.
"""

import copy
import itertools
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from llmcourse.checkpoint import load_checkpoint, random_state, save_checkpoint, set_random_state
from llmcourse.data.batches import TokenBatches
from llmcourse.losses import smoothed_next_token_loss
from llmcourse.model import GPT
from llmcourse.optim import AdamW, OptimizerList, muon_and_adamw, parameter_groups
from llmcourse.training import train
from llmcourse.tune import techniques

V, T = 11, 6
IDS = torch.randint(0, V, (400,), generator=torch.Generator().manual_seed(0))
FLOAT = dict(float32=torch.float32, bfloat16=torch.bfloat16, float16=torch.float16)
OPTIMIZERS = {
    "default": lambda model: None,
    "AdamW by hand": lambda model: AdamW(parameter_groups(model, 0.1), lr=3e-3),
    "SGD": lambda model: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
    "Muon": muon_and_adamw,
    "RMSprop": lambda model: torch.optim.RMSprop(parameter_groups(model, 0.1), lr=1e-3),
    "state in the group": lambda model: CountsInItsGroup(model.parameters(), lr=0.1),
}


class CountsInItsGroup(torch.optim.SGD):
    """As schedule-free optimizers do, it keeps a number that changes among the options."""

    def __init__(self, params, lr):
        super().__init__(params, lr)
        for group in self.param_groups:
            group["k"] = 0

    def step(self):
        for group in self.param_groups:
            group["k"] += 1
            group["lr"] /= group["k"]
        super().step()


def make_model(seed: int = 0, **changes) -> GPT:
    shape = dict(context_length=T, d_model=8, n_heads=2, n_layers=1, d_ff=16)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return techniques.make_model(techniques.make_config(V, **{**shape, **changes}))


def make_net(seed: int = 0, width: int = 8) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Embedding(V, width), nn.Dropout(0.1), nn.Linear(width, V))


def make_batches(seed: int = 3, batch_size: int = 2) -> TokenBatches:
    return TokenBatches(IDS, batch_size=batch_size, context_length=T, seed=seed)


# ---- unchanged: to the bit ------------------------------------------------------------------

SWITCHES = {
    "norm": ["rms", "layer"],
    "tied_embeddings": [True, False],
    "dropout": [0.0, 0.3],
    "n_layers": [1, 2],
    "embedding_shift": [0, 1],
    "value_embeddings": [False, True],
}


@dataclass
class Case:
    """One way to train, and where it stops."""

    path: Path
    kind: str
    precision: str
    accumulate: int
    every: int | None
    changes: dict

    def run(self, steps: int, seed: int, compiled: bool, stop_at: int | None = None):
        """Train with new objects, as a new process would; return what was seen, and the weights."""
        model = make_model(seed, **self.changes)
        optimizer = OPTIMIZERS[self.kind](model)
        torch.manual_seed(seed)
        options = dict(checkpoint=self.path, checkpoint_every=self.every, resume=True)
        options |= dict(optimizer=optimizer, dtype=FLOAT[self.precision], accumulate=self.accumulate)
        seen = []
        with torch.compiler.set_stance("force_eager"):  # the wrapper with its names, and the same numbers
            called = torch.compile(model, backend="eager") if compiled else model
            for step in train(called, make_batches(), steps=steps, schedule=lambda i: 1 / (1 + i), **options):
                seen.append(repr((step.step, step.loss, step.lr, step.grad_norm, step.tokens)))
                if step.step == stop_at:
                    break
        return seen, model.state_dict()


@pytest.mark.parametrize(("kind", "precision"), sorted(itertools.product(OPTIMIZERS, FLOAT)))
def test_a_run_in_two_parts_equals_one_in_one(tmp_path, kind, precision):
    """108 ways: two configurations each, drawn from all switches, and torch.compile in one part or none."""
    drawn = random.Random(f"{kind} {precision}")
    for accumulate in (1, 2):
        changes = {name: drawn.choice(values) for name, values in SWITCHES.items()}
        case = Case(tmp_path / "run.pt", kind, precision, accumulate, drawn.choice([None, 2]), changes)
        whole, wanted = case.run(4, 0, False)
        for compiled_first, compiled_then in ((False, False), (False, True), (True, False)):
            case.path.unlink()
            first, _ = case.run(4, 0, compiled_first, stop_at=drawn.randint(1, 3))
            rest, state = case.run(4, 1, compiled_then)
            assert first + rest == whole, case
            assert all(torch.equal(state[name], wanted[name]) for name in wanted), case
        case.path.unlink()


# ---- changed arguments: used, or named ------------------------------------------------------


def continued(path, then=None, make=make_net, optimizer=None, then_optimizer=None, done=3, **first):
    """Train `done` steps; go on to 6 with new objects and the arguments `then`. Return (steps, model)."""
    run = dict(lr=1e-2, checkpoint=path) | first
    model = make(0)
    torch.manual_seed(5)
    given = optimizer(model) if optimizer else None
    list(train(model, make_batches(), steps=done, optimizer=given, **run))
    return go_on(path, run | (then or {}), make, then_optimizer or optimizer)


def go_on(path, run, make=make_net, optimizer=None):
    model, run = make(1), dict(run)
    torch.manual_seed(6)
    steps, batches = run.pop("steps", 6), run.pop("batches", None) or make_batches()
    given = optimizer(model) if optimizer else None
    run |= dict(checkpoint=path, resume=True, optimizer=given)
    return list(train(model, batches, steps=steps, **run)), model


def by_hand(path, model, change, dtype=torch.float32, steps=3):
    """The oracle: torch's own AdamW, loaded as torch loads it, with `change` set in its groups."""
    content = torch.load(path, weights_only=True)
    model.load_state_dict(content["model"])
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.1), lr=1e-2, betas=(0.9, 0.95), fused=True)
    optimizer.load_state_dict(content["parts"]["optimizer"])
    for group in optimizer.param_groups:
        group.update({n: v for n, v in change.items() if n != "weight_decay" or group["weight_decay"]})
    batches = make_batches()
    batches.load_state_dict(content["parts"]["batches"])
    torch.set_rng_state(content["random"]["cpu"])
    losses = []
    for _ in range(steps):
        inputs, targets = next(batches)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses, model


CHANGES = [{"lr": 1e-4}, {"lr": 0.0}, {"betas": (0.5, 0.6)}, {"weight_decay": 0.7}, {}]
CHANGES.append({"lr": 3e-2, "betas": (0.0, 0.9), "weight_decay": 0.01})


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_rate_decay_or_beta_takes_the_steps_of_torchs_adamw(tmp_path, change):
    """facebookresearch/ParlAI#1772, pytorch/examples#816: the new rate counts, the moments stay."""
    path = tmp_path / "run.pt"
    continued(path, {"steps": 3})
    wanted, theirs = by_hand(path, make_net(9), change)
    steps, mine = go_on(path, dict(lr=1e-2) | change)
    assert [step.step for step in steps] == [4, 5, 6]
    assert {step.lr for step in steps} == {change.get("lr", 1e-2)}
    np.testing.assert_allclose([step.loss for step in steps], wanted, rtol=1e-6)
    for p, q in zip(mine.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q, atol=1e-6, rtol=1e-5)
    again = torch.load(path, weights_only=True)["parts"]["optimizer"]["param_groups"]
    assert [group["weight_decay"] for group in again] == [change.get("weight_decay", 0.1), 0.0]


def test_a_lowered_rate_stays_lowered_through_another_resume(tmp_path):
    path = tmp_path / "run.pt"
    schedule = dict(schedule=lambda i: 1 / (1 + i))
    continued(path, {"lr": 1e-4, "steps": 5, **schedule}, **schedule)
    steps, _ = go_on(path, dict(lr=1e-4, steps=8, **schedule))
    assert [step.lr for step in steps] == pytest.approx([1e-4 / 6, 1e-4 / 7, 1e-4 / 8])
    steps, _ = go_on(path, dict(lr=1.0, steps=9, **schedule))
    assert [step.lr for step in steps] == pytest.approx([1 / 9])


OWN = {
    "SGD": (torch.optim.SGD, dict(lr=0.1, momentum=0.9, weight_decay=0.1, dampening=0.0)),
    "Adam": (torch.optim.Adam, dict(lr=0.1, betas=(0.9, 0.9), eps=1e-8, weight_decay=0.1)),
    "Adamax": (torch.optim.Adamax, dict(lr=0.1, betas=(0.9, 0.9), eps=1e-8)),
    "RMSprop": (torch.optim.RMSprop, dict(lr=0.1, alpha=0.9, eps=1e-8, weight_decay=0.1)),
    "Adagrad": (torch.optim.Adagrad, dict(lr=0.1, lr_decay=0.1, eps=1e-8)),
    "by hand": (AdamW, dict(lr=0.1, betas=(0.9, 0.9), eps=1e-8, weight_decay=0.1)),
}
NAMES = [(kind, name) for kind, (_, options) in OWN.items() for name in options]


@pytest.mark.parametrize(("kind", "name"), NAMES)
def test_every_changed_number_of_an_own_optimizer_is_used(tmp_path, kind, name):
    """What it does: the losses differ from those of an unchanged run, and the group holds the new value."""
    build, options = OWN[kind]
    value = (0.5, 0.5) if name == "betas" else options[name] / 2 + 0.01
    made = []

    def changed(model):
        made.append(build(model.parameters(), **{**options, name: value}))
        return made[-1]

    same = lambda model: build(model.parameters(), **options)  # noqa: E731
    one, _ = continued(tmp_path / "a", optimizer=same)
    two, _ = continued(tmp_path / "b", optimizer=same, then_optimizer=changed)
    assert made[0].param_groups[0][name] == (pytest.approx(value) if name != "lr" else value)
    assert one[0].loss == two[0].loss
    assert one[-1].loss != two[-1].loss


def test_a_rate_set_in_a_group_between_two_runs_is_used(tmp_path):
    model, path = make_net(), tmp_path / "run.pt"
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    options = dict(optimizer=optimizer, checkpoint=path, resume=True, schedule=lambda i: 1 / (1 + i))
    list(train(model, make_batches(), steps=2, **options))
    assert [step.lr for step in train(model, make_batches(), steps=3, **options)] == [0.1 / 3]
    optimizer.param_groups[0]["lr"] = 0.004
    assert [step.lr for step in train(model, make_batches(), steps=4, **options)] == [0.001]


OTHER = {
    "class": (lambda m: torch.optim.SGD(m.parameters()), r"torch\.AdamW there and torch\.SGD here"),
    "by hand": (lambda m: AdamW(parameter_groups(m, 0.1)), r"torch\.AdamW there and llmcourse\.AdamW here"),
    "Adam": (
        lambda m: torch.optim.Adam(parameter_groups(m, 0.1)),
        r"torch\.AdamW there and torch\.Adam here",
    ),
    "groups": (lambda m: torch.optim.AdamW(m.parameters()), r"2 groups there and 1 here"),
    "parameters": (
        lambda m: torch.optim.AdamW(parameter_groups(m[2], 0.1)),
        r"group 0 has 2 parameters there and 1 here.*only there: \['0.weight'\]",
    ),
    "order": (
        lambda m: torch.optim.AdamW([{"params": [m[2].weight, m[0].weight]}, {"params": [m[2].bias]}]),
        "in another order",
    ),
    "amsgrad": (
        lambda m: torch.optim.AdamW(parameter_groups(m, 0.1), amsgrad=True),
        "amsgrad is False there and True here",
    ),
    "together": (
        lambda m: OptimizerList(torch.optim.AdamW(m[0].parameters()), torch.optim.SGD(m[2].parameters())),
        r"torch\.AdamW there and torch\.SGD here",
    ),
}


@pytest.mark.parametrize("kind", OTHER)
@pytest.mark.parametrize("older", [False, True])
def test_another_optimizer_is_named(tmp_path, kind, older):
    optimizer, words = OTHER[kind]
    path = tmp_path / "run.pt"
    continued(path, {"steps": 3})
    if older:
        as_before(path)
        words = words if "torch" not in words else r"is .* there and .* here"
        if kind in ("order",):
            return  # a file of before does not say it
        words = words.split(".*only")[0]
    model = make_net(1)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=words) as caught:
        next(train(model, make_batches(), steps=6, optimizer=optimizer(model), checkpoint=path, resume=True))
    assert str(path) in str(caught.value)
    assert "resume=False" in str(caught.value)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("one", "other"), list(itertools.permutations(("fused", "foreach", "differentiable"), 2))
)
def test_another_way_to_compute_the_same_steps_is_taken(tmp_path, one, other):
    def make(name):
        return lambda model: torch.optim.AdamW(model.parameters(), 1e-2, **{name: name != "differentiable"})

    same, _ = continued(tmp_path / "a", optimizer=make(one))
    changed, _ = continued(tmp_path / "b", optimizer=make(one), then_optimizer=make(other))
    np.testing.assert_allclose([s.loss for s in same], [s.loss for s in changed], rtol=1e-5)


def test_torch_knows_the_new_switches_when_it_loads_the_state(tmp_path, monkeypatch):
    """With fused=True it puts the counts of steps on the GPU, else on the CPU: it must know which, then."""
    seen, load = [], torch.optim.AdamW.load_state_dict

    def watched(self, state):
        seen.append(state["param_groups"][0]["fused"])
        return load(self, state)

    monkeypatch.setattr(torch.optim.AdamW, "load_state_dict", watched)
    plain, fused = (lambda m, f=f: torch.optim.AdamW(m.parameters(), fused=f) for f in (False, True))
    continued(tmp_path / "a", optimizer=plain, then_optimizer=fused)
    continued(tmp_path / "b", optimizer=fused, then_optimizer=plain)
    assert seen == [True, False]


def test_momentum_that_begins_is_named_where_torch_cannot_begin_it(tmp_path):
    build = {n: lambda m, n=n: torch.optim.RMSprop(m.parameters(), momentum=n) for n in (0.0, 0.5, 0.9)}
    with pytest.raises(ValueError, match=r"momentum is 0\.0 there and 0\.9 here"):
        continued(tmp_path / "a", optimizer=build[0.0], then_optimizer=build[0.9])
    for one, other in ((0.5, 0.9), (0.9, 0.0)):
        steps, _ = continued(tmp_path / f"{one}", optimizer=build[one], then_optimizer=build[other])
        assert len(steps) == 3


def test_other_frozen_parameters_of_the_same_shapes_are_named(tmp_path):
    """Their number is the same: torch would give the moments of one matrix to another."""

    def make(seed, frozen):
        model = make_model(seed, n_layers=2, tied_embeddings=False)
        model.blocks[frozen].requires_grad_(False)
        return model

    continued(tmp_path / "run.pt", {"steps": 3}, make=lambda seed: make(seed, 0))
    with pytest.raises(ValueError, match=r"only there: \['blocks\.1\..*only here: \['blocks\.0\."):
        go_on(tmp_path / "run.pt", {}, make=lambda seed: make(seed, 1))


@pytest.mark.parametrize(
    ("first", "then"), [pair for pair in itertools.product(FLOAT, FLOAT) if pair[0] != pair[1]]
)
def test_a_run_goes_on_in_another_precision_with_its_moments(tmp_path, first, then):
    """facebookresearch/ParlAI#1772: laptop first, float16 on the GPU later; the scaler is fresh."""
    path = tmp_path / "run.pt"
    make = lambda seed: make_model(seed)  # noqa: E731
    if then == "float32":
        continued(path, {"steps": 3}, make=make, dtype=FLOAT[first])
        wanted, _ = by_hand(path, make(9), {})
        steps, _ = go_on(path, dict(lr=1e-2), make)
        np.testing.assert_allclose([step.loss for step in steps], wanted, rtol=1e-5)
        return
    small = dict(dtype=FLOAT[then])
    steps, _ = continued(path, small, make=make, dtype=FLOAT[first])
    assert [step.step for step in steps] == [4, 5, 6]
    scaler = torch.load(path, weights_only=True)["parts"]["scaler"]
    assert bool(scaler) == (then == "float16")
    if first == "float32" and scaler:
        fresh = torch.amp.GradScaler("cpu").state_dict()
        assert scaler["_growth_tracker"] <= 3
        assert scaler["scale"] <= fresh["scale"]


@pytest.mark.parametrize(
    ("then", "words"),
    [
        (dict(clip=None), None),
        (dict(accumulate=3), None),
        (dict(loss=smoothed_next_token_loss(0.3)), None),
        (dict(schedule=lambda i: 0.5 if i > 2 else 1.0), None),
        (dict(steps=2), "steps=2, but the run in .* has done 3: give at least as many"),
        (dict(batches="seed"), "seed=3 and these have 4"),
        (dict(batches="size"), "batch_size=2 and these have 3"),
        (dict(batches="other"), "holds batches of another kind"),
        (dict(make="wider"), "0.weight is .* there and .* in the model"),
        (dict(make="bfloat16"), "0.weight in torch.float32 and this model in torch.bfloat16"),
    ],
)
def test_every_other_argument_that_changes_is_used_or_named(tmp_path, then, words):
    class Others(list):
        state_dict = staticmethod(dict)

        def load_state_dict(self, state):
            raise KeyError("place")

    then, path = dict(then), tmp_path / "run.pt"
    makes = {"wider": lambda seed: make_net(seed, 9), "bfloat16": lambda seed: make_net(seed).bfloat16()}
    sources = {
        "seed": make_batches(4),
        "size": make_batches(batch_size=3),
        "other": Others([next(make_batches())]),
    }
    first = dict(clip=1e-3, lr=1e-2)
    unchanged, _ = continued(path, **first)
    continued(path, {"steps": 3}, **first)
    make = makes.get(then.pop("make", None), make_net)
    if "batches" in then:
        then["batches"] = sources[then["batches"]]
    if words:
        with pytest.raises(ValueError, match=words):
            go_on(path, first | then, make)
        return
    steps, _ = go_on(path, first | then, make)
    assert steps[0].step == 4
    assert [(s.loss, s.tokens, s.lr) for s in steps] != [(s.loss, s.tokens, s.lr) for s in unchanged]


def test_batches_without_a_place_start_where_they_are(tmp_path):
    """Either way: a list goes on with TokenBatches, and the reverse."""
    rows = [next(make_batches())]
    for one, other in ((rows, make_batches()), (make_batches(), rows)):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        list(train(make_net(), one, steps=2, checkpoint=path))
        assert [s.step for s in train(make_net(1), other, steps=3, checkpoint=path, resume=True)] == [3]


def test_nothing_to_resume_from_is_named():
    for options in (dict(resume=True), dict(checkpoint_every=5)):
        with pytest.raises(ValueError, match="give checkpoint=PATH"):
            next(train(make_net(), make_batches(), steps=1, **options))


# ---- files of before ------------------------------------------------------------------------


def as_before(path, prefix: str = ""):
    """Rewrite a checkpoint as save_checkpoint of version 0.1 wrote it, of a compiled model with `prefix`."""
    content = torch.load(path, weights_only=True)
    del content["parts"]["given"]
    optimizer = content["parts"]["optimizer"]
    for group in [g for each in optimizer.get("optimizers", [optimizer]) for g in each["param_groups"]]:
        del group["last_lr"]
    content["model"] = {prefix + name: tensor for name, tensor in content["model"].items()}
    torch.save(content, path)


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("prefix", ["", "_orig_mod."])
def test_a_file_of_before_goes_on_to_the_bit_and_takes_a_new_rate(tmp_path, kind, prefix):
    case = Case(tmp_path / "run.pt", kind, "float32", 1, None, dict(dropout=0.2))
    whole, _ = case.run(5, 0, False)
    case.path.unlink()
    first, _ = case.run(3, 0, False)
    as_before(case.path, prefix)
    rest, _ = case.run(5, 1, False)
    if kind != "state in the group":  # such a file does not say what is an option
        assert first + rest == whole
    if kind == "default":
        case.path.unlink()
        case.run(3, 0, False)
        as_before(case.path, prefix)
        steps, _ = go_on(case.path, dict(lr=1e-5), lambda seed: make_model(seed, dropout=0.2))
        assert [step.lr for step in steps] == [1e-5] * 3


# ---- any module -----------------------------------------------------------------------------


class WithConfig(nn.Module):
    """As a model of transformers: its `config` is no dataclass."""

    def __init__(self, seed=0):
        super().__init__()
        self.net, self.config = make_net(seed), {"hidden_size": 8, "library": object()}

    def forward(self, ids):
        return self.net(ids)


@pytest.mark.parametrize("make", [make_net, WithConfig])
def test_a_plain_module_is_saved_and_goes_on_to_the_bit(tmp_path, make):
    whole, wanted = continued(tmp_path / "a", make=make)
    path, seen = tmp_path / "b", []
    torch.manual_seed(5)
    for step in train(make(0), make_batches(), steps=6, lr=1e-2, checkpoint=path):
        seen.append((step.step, step.loss))
    assert [number for number, _ in seen] == [1, 2, 3, 4, 5, 6]
    assert seen[3:] == [(step.step, step.loss) for step in whole]
    other = make(7)
    load_checkpoint(path, other)
    assert all(torch.equal(p, q) for p, q in zip(other.parameters(), wanted.parameters(), strict=True))


def test_a_plain_modules_other_names_and_shapes_are_listed(tmp_path):
    path = tmp_path / "net.pt"
    save_checkpoint(path, nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)))
    for other, words in [
        (nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3)), r"1\.weight is \(2, 3\) there and \(3, 3\)"),
        (nn.Sequential(nn.Linear(2, 3)), r"it has 1\.weight, which the model lacks"),
        (nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2), nn.Linear(1, 1)), r"it lacks 2\.weight"),
    ]:
        before = copy.deepcopy(other.state_dict())
        with pytest.raises(ValueError, match=words):
            load_checkpoint(path, other)
        assert all(torch.equal(before[name], value) for name, value in other.state_dict().items())
    tied = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    save_checkpoint(path, tied)
    tied[1].weight = tied[0].weight
    with pytest.raises(ValueError, match="one tensor in the model, and differ"):
        load_checkpoint(path, tied)


def test_a_model_with_a_configuration_and_one_without_are_told_apart(tmp_path):
    save_checkpoint(tmp_path / "gpt", make_model())
    save_checkpoint(tmp_path / "net", make_net())
    with pytest.raises(ValueError, match=r"comes from another model.*a model without one here"):
        load_checkpoint(tmp_path / "gpt", make_net())
    with pytest.raises(ValueError, match=r"comes from another model.*a model without one there"):
        load_checkpoint(tmp_path / "net", make_model())


def test_compiled_inside_and_outside_the_names_are_plain_and_all_load(tmp_path):
    """karpathy/nanoGPT#325: the prefix of torch.compile; here also of a block that is compiled alone."""
    plain, outside, inside = make_model(0), make_model(1), make_model(2)
    inside.blocks[0] = torch.compile(inside.blocks[0], backend="eager")
    models = [plain, torch.compile(outside, backend="eager"), inside]
    for i, one in enumerate(models):
        save_checkpoint(tmp_path / "model.pt", one)
        saved = torch.load(tmp_path / "model.pt", weights_only=True)["model"]
        assert saved.keys() == plain.state_dict().keys()
        for other in models[i + 1 :] + models[:i]:
            load_checkpoint(tmp_path / "model.pt", other)
            assert all(torch.equal(a, b) for a, b in zip(other.parameters(), saved.values(), strict=False))


def test_muon_finds_the_matrices_of_a_compiled_model():
    model = make_model()
    plain, compiled = muon_and_adamw(model), muon_and_adamw(torch.compile(model, backend="eager"))
    sizes = [[len(group["params"]) for group in each.param_groups] for each in (plain, compiled)]
    assert sizes[0] == sizes[1]


# ---- files and paths ------------------------------------------------------------------------

FILES = {
    "empty": lambda path, good: path.write_bytes(b""),
    "cut": lambda path, good: path.write_bytes(good[: len(good) // 2]),
    "one bit": lambda path, good: path.write_bytes(flipped(good)),
    "text": lambda path, good: path.write_text("a checkpoint", encoding="utf-8"),
    "safetensors": lambda path, good: safetensors.torch.save_file({"a": torch.ones(2)}, path),
    "numpy": lambda path, good: np.savez(path.with_suffix(""), a=np.ones(2)),
    "only weights": lambda path, good: torch.save(make_net().state_dict(), path),
    "a whole model": lambda path, good: torch.save(make_net(), path),
    "a number": lambda path, good: torch.save(3, path),
}


def flipped(good: bytes) -> bytes:
    """Change one bit of a weight: torch loads such a file without a word."""
    weight = make_net().state_dict()["0.weight"].numpy().tobytes()
    place = good.index(weight) + 40
    return good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :]


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_is_no_checkpoint_is_named_with_a_remedy(tmp_path, kind):
    path = tmp_path / "file.npz"
    save_checkpoint(path, make_net())
    FILES[kind](path, path.read_bytes())
    for use in (
        lambda: load_checkpoint(path, make_net()),
        lambda: next(train(make_net(), make_batches(), steps=1, checkpoint=path, resume=True)),
    ):
        with pytest.raises(
            ValueError, match=r"is no checkpoint of save_checkpoint, or a damaged one \(.+\)"
        ) as e:
            use()
        assert str(path) in str(e.value)
        assert "start again" in str(e.value)
        assert "still be loaded" not in str(e.value)  # torch's advice to trust a file of unknown origin


def test_a_checkpoint_of_parts_that_are_not_of_a_run_is_named(tmp_path):
    save_checkpoint(tmp_path / "a", make_net(), step=3)
    with pytest.raises(ValueError, match=r"holds no optimizer, no scaler, .*not of a run of train"):
        next(train(make_net(), make_batches(), steps=4, checkpoint=tmp_path / "a", resume=True))
    with pytest.raises(ValueError, match=r"holds no optimizer, but \['step'\]"):
        load_checkpoint(tmp_path / "a", make_net(), optimizer=torch.optim.SGD(make_net().parameters()))


def test_a_path_that_cannot_be_written_fails_before_the_first_batch(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x", encoding="utf-8")
    for path, error in [("folder", IsADirectoryError), ("file/model.pt", OSError)]:
        for resume in (False, True):
            with pytest.raises(error, match=path.split("/")[0]):
                next(train(make_net(), iter(()), steps=1, checkpoint=tmp_path / path, resume=resume))
    with pytest.raises(IsADirectoryError, match="is a folder: give the name of a file in it"):
        load_checkpoint(tmp_path / "folder", make_net())


class Places(list):
    """Batches whose place is no number that torch can read again."""

    place = np.int64(3)

    def state_dict(self):
        return {"place": self.place}

    def load_state_dict(self, state):
        pass


def test_a_state_that_could_not_be_read_again_is_refused_and_the_old_file_stays(tmp_path):
    path = tmp_path / "run.pt"
    save_checkpoint(path, make_net(), step=1)
    before = path.read_bytes()
    for place in (np.int64(3), object(), lambda: 3, Path("a")):
        source = Places([next(make_batches())])
        source.place = place
        with pytest.raises(ValueError, match="could not be read again"):
            next(train(make_net(), source, steps=2, checkpoint=path))
        with pytest.raises(ValueError, match="could not be read again"):
            save_checkpoint(path, make_net(), batches=source)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


# ---- the random state of other devices -------------------------------------------------------


def test_the_random_state_of_mps_is_kept_and_restored(monkeypatch):
    """A stand-in for Apple's device, with torch's names for it."""
    state = [torch.tensor([1, 2], dtype=torch.uint8)]
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda: state[0].clone())
    monkeypatch.setattr(torch.mps, "set_rng_state", lambda new: state.__setitem__(0, new))
    kept = random_state()
    state[0] = torch.tensor([9, 9], dtype=torch.uint8)
    set_random_state(kept)
    assert state[0].tolist() == [1, 2]
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    state[0] = torch.tensor([9, 9], dtype=torch.uint8)
    set_random_state(kept)  # resumed on another machine
    assert state[0].tolist() == [9, 9]


def test_a_run_of_four_gpus_goes_on_with_two(monkeypatch):
    seen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", lambda states: seen.extend(states))
    set_random_state({"cpu": torch.get_rng_state(), "cuda": ["a", "b", "c", "d"]})
    assert seen == ["a", "b"]
