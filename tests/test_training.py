"""The training loop against hand-written steps; exact resume; TensorBoard; what happens on errors."""

import copy
import math
import re
import shutil
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import clip_grad_norm_
from torch.utils.tensorboard import SummaryWriter

from llmcourse.checkpoint import check_config, load_checkpoint, save_checkpoint
from llmcourse.data.batches import IGNORE, TokenBatches
from llmcourse.evaluate.likelihood import evaluate_loss
from llmcourse.finetune.lora import add_lora, merge_lora
from llmcourse.losses import next_token_loss, smoothed_next_token_loss
from llmcourse.model import GPT, ModelConfig
from llmcourse.monitor.tensorboard import log_steps, read_scalars
from llmcourse.optim import AdamW, muon_and_adamw, parameter_groups
from llmcourse.schedules import warmup_cosine
from llmcourse.training import accumulate_gradients, train

V, T = 13, 8


def make_model(seed: int = 0, **changes) -> GPT:
    shape = dict(context_length=T, d_model=16, n_heads=2, n_layers=2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GPT(ModelConfig.gpt2(V, **{**shape, **changes}))


def make_batches(n: int, rows: int = 4, seed: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, V, (n, rows, T + 1), generator=generator)
    return [(each[:, :-1], each[:, 1:]) for each in ids]


def make_token_batches(seed: int = 3) -> TokenBatches:
    """Two epochs in 20 batches: the order is shuffled anew within a short run."""
    row = torch.randint(0, V, (10 * 3 * T + T + 5,), generator=torch.Generator().manual_seed(1))
    return TokenBatches(row, batch_size=3, context_length=T, seed=seed)


def plain_loss(model, inputs, targets):
    return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten(), ignore_index=IGNORE)


def assert_equal_states(one, other, path="state"):
    """Compare nested states to the bit."""
    assert type(one) is type(other), path
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), path
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key in one:
            assert_equal_states(one[key], other[key], f"{path}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), path
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_equal_states(a, b, f"{path}[{i}]")
    else:
        assert one == other, path


def content(path) -> dict:
    """Return a checkpoint without the seconds, which differ from run to run."""
    saved = torch.load(path, weights_only=True)
    assert saved["parts"].pop("seconds") > 0
    return saved


# ---- a step ---------------------------------------------------------------------------------


@pytest.mark.parametrize("clip", [None, 0.5])
def test_steps_equal_hand_written_ones_with_torchs_adamw(clip):
    batches = make_batches(4)
    schedule = warmup_cosine(total_steps=4, warmup_steps=2, final_factor=0.1)
    mine, theirs = make_model(), make_model()
    optimizer = torch.optim.AdamW(parameter_groups(theirs, 0.3), lr=1e-2, betas=(0.8, 0.9))
    options = dict(lr=1e-2, schedule=schedule, weight_decay=0.3, betas=(0.8, 0.9), clip=clip)
    steps = train(mine, batches, steps=4, **options)
    for number, (inputs, targets) in enumerate(batches):
        step = next(steps)
        loss = plain_loss(theirs, inputs, targets)
        loss.backward()
        norm = clip_grad_norm_(theirs.parameters(), math.inf if clip is None else clip)
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * schedule(number)
        optimizer.step()
        optimizer.zero_grad()
        assert step.step == number + 1
        assert step.tokens == (number + 1) * targets.numel()
        assert step.loss == pytest.approx(loss.item(), abs=1e-5)
        assert step.grad_norm == pytest.approx(norm.item(), rel=1e-3)
        assert step.lr == pytest.approx(1e-2 * schedule(number))
        for (name, p), q in zip(mine.named_parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(p, q, atol=2e-5, rtol=1e-4, msg=lambda text, name=name: name + text)
    assert next(steps, None) is None


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_default_optimizer_takes_the_steps_of_the_one_written_by_hand(accumulate):
    default, by_hand = make_model(), make_model()
    optimizer = AdamW(parameter_groups(by_hand, 0.3), lr=5e-3, betas=(0.8, 0.9))
    options = dict(steps=20, accumulate=accumulate, schedule=warmup_cosine(20, 5))
    a = list(train(default, make_batches(4), lr=5e-3, weight_decay=0.3, betas=(0.8, 0.9), **options))
    b = list(train(by_hand, make_batches(4), optimizer=optimizer, **options))
    np.testing.assert_allclose([s.loss for s in a], [s.loss for s in b], rtol=1e-5)
    np.testing.assert_allclose([s.grad_norm for s in a], [s.grad_norm for s in b], rtol=1e-3)
    for p, q in zip(default.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(p, q, atol=1e-4, rtol=1e-3)


def test_parameters_that_are_frozen_stay_and_one_group_may_be_empty():
    model = make_model(bias=False)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("mlp" in name and parameter.dim() == 2)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    list(train(model, make_batches(2), steps=2))
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) != parameter.requires_grad, name


def test_a_given_optimizer_is_used_and_its_learning_rate_scheduled():
    batches = make_batches(2)
    model, before = make_model(), make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    steps = list(train(model, batches, steps=2, optimizer=optimizer, clip=None, schedule=lambda i: 1 - i))
    assert [step.lr for step in steps] == [0.5, 0.0]
    gradients = torch.autograd.grad(plain_loss(before, *batches[0]), list(before.parameters()))
    for p, q, gradient in zip(model.parameters(), before.parameters(), gradients, strict=True):
        torch.testing.assert_close(p, q - 0.5 * gradient, atol=1e-6, rtol=1e-5)


def uneven(rows: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    """Targets of which the first quarter counts hardly, the second not at all, the rest mostly."""
    ((inputs, targets),) = make_batches(1, rows=rows)
    targets = targets.clone()
    targets[: rows // 4, 1:] = IGNORE
    targets[rows // 4 : rows // 2] = IGNORE
    targets[-1, ::2] = IGNORE
    return inputs, targets


@pytest.mark.parametrize("ignored", [False, True])
def test_four_accumulated_batches_equal_one_of_four_times_the_size(ignored):
    inputs, targets = uneven() if ignored else make_batches(1, rows=16)[0]
    parts = list(zip(inputs.chunk(4), targets.chunk(4), strict=True))
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    one, four = make_model(), make_model()
    loss, counted = accumulate_gradients(four, parts, next_token_loss, torch.float32, scaler)
    expected = plain_loss(one, inputs, targets)
    expected.backward()
    assert counted == int((targets != IGNORE).sum())
    assert loss == pytest.approx(expected.item(), abs=1e-6)
    for p, q in zip(one.parameters(), four.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, atol=1e-6, rtol=0)


def test_accumulate_takes_that_many_batches_for_each_step():
    inputs, targets = uneven()
    parts = list(zip(inputs.chunk(4), targets.chunk(4), strict=True))
    one, four = make_model(), make_model()
    a = list(train(one, [(inputs, targets)], steps=3, lr=1e-2))
    b = list(train(four, parts, steps=3, lr=1e-2, accumulate=4))
    np.testing.assert_allclose([s.loss for s in a], [s.loss for s in b], atol=1e-5)
    assert [s.tokens for s in a] == [s.tokens for s in b]


def test_a_finite_list_of_batches_repeats():
    batches, seen = make_batches(3), []
    model = make_model()
    model.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    assert len(list(train(model, batches, steps=7))) == 7
    order = [next(i for i, (inputs, _) in enumerate(batches) if inputs is x) for x in seen]
    assert order == [0, 1, 2, 0, 1, 2, 0]


def test_training_learns_what_can_be_learned():
    ids = torch.arange(T + 1).repeat(4, 1)
    losses = [step.loss for step in train(make_model(), [(ids[:, :-1], ids[:, 1:])], steps=60, lr=1e-2)]
    assert losses[0] == pytest.approx(math.log(V), abs=0.1)
    assert losses[-1] < 0.1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_lower_precision_runs_and_learns(dtype):
    ids = torch.arange(T + 1).repeat(4, 1)
    try:
        with torch.autocast("cpu", dtype):
            torch.ones(2, 2) @ torch.ones(2, 2)
    except RuntimeError as error:
        pytest.skip(f"this torch cannot autocast to {dtype} on the CPU: {error}")
    model, seen = make_model(), []
    hook = model.blocks[0].mlp.up.register_forward_hook(lambda *arguments: seen.append(arguments[2].dtype))
    losses = [s.loss for s in train(model, [(ids[:, :-1], ids[:, 1:])], steps=60, lr=1e-2, dtype=dtype)]
    hook.remove()
    assert set(seen) == {dtype}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert losses[0] == pytest.approx(math.log(V), abs=0.1)
    assert losses[-1] < 0.2


def test_validation_runs_when_asked_and_training_goes_on_in_training_mode():
    model, row = make_model(dropout=0.1), torch.arange(40) % V
    calls, modes = [], []

    def evaluate(some_model):
        calls.append(evaluate_loss(some_model, row))
        some_model.eval()  # an evaluation that forgets to switch back
        return calls[-1]

    model.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    steps = list(train(model, make_batches(2), steps=5, evaluate=evaluate, eval_every=2))
    assert [step.step for step in steps if step.validation_loss is not None] == [2, 4, 5]
    assert [step.validation_loss for step in steps if step.validation_loss is not None] == calls
    assert calls[-1] == evaluate_loss(model, row)
    assert modes.count(True) == 5
    assert model.training
    (only_last,) = [s for s in train(model, make_batches(1), steps=3, evaluate=evaluate) if s.validation_loss]
    assert only_last.step == 3


def test_without_a_terminal_nothing_is_printed(capsys):
    list(train(make_model(), make_batches(1), steps=2))
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_gradients_left_by_others_do_not_count():
    batches, clean, dirty = make_batches(1), make_model(), make_model()
    plain_loss(dirty, *make_batches(1, seed=9)[0]).backward()
    (a,), (b,) = train(clean, batches, steps=1), train(dirty, batches, steps=1)
    assert a.grad_norm == b.grad_norm
    assert_equal_states(dict(clean.state_dict()), dict(dirty.state_dict()))


def test_gradients_of_parameters_outside_the_optimizer_do_not_pile_up():
    model, batches = make_model(), make_batches(1)
    optimizer = torch.optim.SGD([model.final_norm.weight], lr=0.0)  # the same step again and again
    norms = [step.grad_norm for step in train(model, batches, steps=4, optimizer=optimizer)]
    assert norms == pytest.approx([norms[0]] * 4)


# ---- label smoothing ------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("parts", [1, 4])
def test_gradients_of_smoothed_labels_equal_torchs(smoothing, parts):
    inputs, targets = uneven()
    micro_batches = list(zip(inputs.chunk(parts), targets.chunk(parts), strict=True))
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    mine, theirs = make_model(), make_model()
    smoothed = smoothed_next_token_loss(smoothing)
    loss, counted = accumulate_gradients(mine, micro_batches, smoothed, torch.float32, scaler)
    logits, options = theirs(inputs).flatten(0, 1), dict(ignore_index=IGNORE)
    F.cross_entropy(logits, targets.flatten(), label_smoothing=smoothing, **options).backward()
    assert counted == int((targets != IGNORE).sum())
    assert loss == pytest.approx(F.cross_entropy(logits, targets.flatten(), **options).item(), abs=1e-6)
    for p, q in zip(mine.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, atol=1e-6, rtol=1e-5)


def test_smoothing_keeps_a_doubt_and_the_reported_loss_says_how_much():
    ids = torch.arange(T + 1).repeat(4, 1)
    batches, e = [(ids[:, :-1], ids[:, 1:])], 0.2
    smoothed = smoothed_next_token_loss(e)
    losses = [s.loss for s in train(make_model(), batches, steps=300, lr=1e-2, loss=smoothed)]
    assert losses[0] == pytest.approx(plain_loss(make_model(), *batches[0]).item(), abs=1e-5)
    assert losses[-1] == pytest.approx(-math.log(1 - e + e / V), abs=0.01)  # the best that it aims at
    assert next(train(make_model(), batches, steps=1)).loss == losses[0]


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, 2.0, math.nan])
def test_label_smoothing_out_of_range_is_an_error(smoothing):
    with pytest.raises(ValueError, match=rf"smoothing is {smoothing}: give a number in \[0, 1\)"):
        smoothed_next_token_loss(smoothing)


# ---- exact resume ---------------------------------------------------------------------------


def run(path, steps, model_seed=0, random_seed=7, stop_at=None, **options):
    """Train with fresh objects, as a new process would, and return the losses."""
    torch.manual_seed(random_seed)
    model, batches = make_model(model_seed, dropout=0.2), make_token_batches()
    losses = []
    schedule = warmup_cosine(total_steps=100, warmup_steps=10)
    options = dict(schedule=schedule, lr=5e-3, checkpoint=path, resume=True) | options
    for step in train(model, batches, steps=steps, **options):
        losses.append((step.step, step.loss, step.lr, step.grad_norm, step.tokens))
        if step.step == stop_at:
            break
    return losses, model


@pytest.mark.parametrize("make", [lambda model: AdamW(parameter_groups(model, 0.1)), muon_and_adamw])
def test_a_checkpoint_of_a_hand_written_optimizer_resumes_with_it(tmp_path, make):
    def hand_run(steps):
        model = make_model()
        options = dict(optimizer=make(model), checkpoint=tmp_path / f"{steps % 2}.pt", resume=True)
        return [s.loss for s in train(model, make_token_batches(), steps=steps, **options)]

    whole = hand_run(9)
    (tmp_path / "1.pt").unlink()
    assert hand_run(3) + hand_run(9) == whole


@pytest.mark.parametrize("accumulate", [1, 3])
def test_50_and_50_steps_equal_100(tmp_path, accumulate):
    whole, model = run(tmp_path / "whole.pt", 100, accumulate=accumulate)
    first, _ = run(tmp_path / "parts.pt", 50, accumulate=accumulate)
    second, resumed = run(tmp_path / "parts.pt", 100, 5, 55, accumulate=accumulate)
    assert first + second == whole
    assert len({loss for _, loss, *_ in whole}) > 90  # dropout and shuffling make them differ
    assert_equal_states(dict(model.state_dict()), dict(resumed.state_dict()))
    assert_equal_states(content(tmp_path / "whole.pt"), content(tmp_path / "parts.pt"))


@pytest.mark.parametrize("stop_at", [1, 37])
@pytest.mark.parametrize("every", [None, 10])
def test_breaking_out_early_loses_nothing(tmp_path, stop_at, every):
    whole, _ = run(tmp_path / "whole.pt", 60)
    first, _ = run(tmp_path / "parts.pt", 60, stop_at=stop_at, checkpoint_every=every)
    second, _ = run(tmp_path / "parts.pt", 60, 5, 55, checkpoint_every=every)
    assert [step for step, *_ in first] == list(range(1, stop_at + 1))
    assert first + second == whole
    assert_equal_states(content(tmp_path / "whole.pt"), content(tmp_path / "parts.pt"))


def test_a_crash_between_checkpoints_goes_on_from_the_last_one(tmp_path):
    whole, _ = run(tmp_path / "whole.pt", 40)

    def crash(model):  # what is on the disk when the machine is lost
        shutil.copy(tmp_path / "lost.pt", tmp_path / "parts.pt")

    run(tmp_path / "lost.pt", 40, checkpoint_every=10, evaluate=crash, eval_every=25, stop_at=25)
    rest, _ = run(tmp_path / "parts.pt", 40, 5, 55)
    assert rest == whole[20:]
    assert_equal_states(content(tmp_path / "whole.pt"), content(tmp_path / "parts.pt"))


@pytest.mark.parametrize("place", ["evaluation", "last evaluation", "schedule", "batches", "forward pass"])
def test_an_error_of_the_readers_own_loses_nothing(tmp_path, monkeypatch, place):
    """As an interrupt: the state after the last whole step is saved, and going on is exact."""
    whole, _ = run(tmp_path / "whole.pt", 12)

    def broken(*arguments):
        raise ZeroDivisionError

    options, kept = {}, 8
    if place == "evaluation":
        options = dict(evaluate=broken, eval_every=8)
    elif place == "last evaluation":
        options, kept = dict(evaluate=broken), 12
    elif place == "schedule":
        options = dict(schedule=lambda i: broken() if i == 8 else warmup_cosine(100, 10)(i))
    elif place == "batches":
        draw = TokenBatches.__next__
        monkeypatch.setattr(TokenBatches, "__next__", lambda b: broken() if b.position == 8 else draw(b))
    else:
        forward, calls = GPT.forward, []
        monkeypatch.setattr(
            GPT, "forward", lambda *a: (forward(*a), calls.append(1), len(calls) == 9 and broken())[0]
        )
    with pytest.raises(ZeroDivisionError):
        run(tmp_path / "parts.pt", 12, **options)
    monkeypatch.undo()
    assert run(tmp_path / "parts.pt", 12, 5, 55)[0] == whole[kept:]
    assert_equal_states(content(tmp_path / "whole.pt"), content(tmp_path / "parts.pt"))


@pytest.mark.parametrize("place", ["the forward pass", "the evaluation", "the update"])
def test_an_interrupt_by_hand_loses_nothing(tmp_path, monkeypatch, place):
    whole, _ = run(tmp_path / "whole.pt", 20)
    calls = []

    def interrupt(*arguments):
        calls.append(1)
        if len(calls) == 8:
            raise KeyboardInterrupt

    options = dict(checkpoint_every=5)
    if place == "the forward pass":  # of step 8: its batch was drawn and dropout has begun
        forward = GPT.forward
        monkeypatch.setattr(GPT, "forward", lambda *a, **k: (forward(*a, **k), interrupt())[0])
    elif place == "the evaluation":
        options |= dict(evaluate=interrupt, eval_every=1)
    else:  # half of the parameters may have moved: only the last checkpoint is whole
        step = torch.optim.AdamW.step
        monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: (interrupt(), step(self)))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts.pt", 20, **options)
    monkeypatch.undo()
    rest, _ = run(tmp_path / "parts.pt", 20, 5, 55)
    kept = {"the forward pass": 7, "the evaluation": 8, "the update": 5}[place]
    assert rest == whole[kept:]
    assert_equal_states(content(tmp_path / "whole.pt"), content(tmp_path / "parts.pt"))


def test_the_loss_scaler_is_resumed_too(tmp_path):
    options = dict(dtype=torch.float16)
    whole, _ = run(tmp_path / "whole.pt", 8, **options)
    run(tmp_path / "parts.pt", 4, **options)
    rest, _ = run(tmp_path / "parts.pt", 8, 5, 55, **options)
    assert rest == whole[4:]
    assert content(tmp_path / "whole.pt")["parts"]["scaler"]["_growth_tracker"] == 8
    assert_equal_states(content(tmp_path / "whole.pt"), content(tmp_path / "parts.pt"))


def test_without_resume_the_run_starts_again_and_a_finished_one_has_nothing_to_do(tmp_path):
    path = tmp_path / "run.pt"
    first, _ = run(path, 5)
    assert run(path, 5, resume=False)[0] == first
    assert run(path, 5)[0] == []
    with pytest.raises(ValueError, match=r"steps=3, but the run in .* has done 5: give at least as many"):
        run(path, 3)
    assert content(path)["parts"]["step"] == 5


def test_resume_with_other_data_is_refused(tmp_path):
    run(tmp_path / "run.pt", 2)
    batches = make_token_batches(seed=4)
    options = dict(steps=4, checkpoint=tmp_path / "run.pt", resume=True)
    with pytest.raises(ValueError, match="seed=3 and these have 4"):
        next(train(make_model(dropout=0.2), batches, **options))


# ---- checkpoints ----------------------------------------------------------------------------


def test_a_checkpoint_keeps_model_parts_numbers_and_randomness(tmp_path):
    model, path = make_model(1), tmp_path / "deep" / "model.pt"
    optimizer = torch.optim.AdamW(model.parameters())
    plain_loss(model, *make_batches(1)[0]).backward()
    optimizer.step()
    torch.manual_seed(5)
    save_checkpoint(path, model, optimizer=optimizer, step=7, note="so")
    drawn = torch.rand(3)
    other = make_model(2)
    other_optimizer = torch.optim.AdamW(other.parameters())
    numbers = load_checkpoint(path, other, optimizer=other_optimizer)
    assert numbers == {"step": 7, "note": "so"}
    assert torch.equal(torch.rand(3), drawn)
    assert_equal_states(dict(model.state_dict()), dict(other.state_dict()))
    assert_equal_states(optimizer.state_dict(), other_optimizer.state_dict())


def test_a_checkpoint_of_another_configuration_is_refused_and_the_fields_are_named(tmp_path):
    save_checkpoint(tmp_path / "model.pt", make_model())
    other = make_model(d_model=32, norm="rms")
    with pytest.raises(ValueError, match="comes from another model") as caught:
        load_checkpoint(tmp_path / "model.pt", other)
    message = str(caught.value)
    assert "d_model is 16 there and 32 here" in message
    assert "norm is 'layer' there and 'rms' here" in message
    assert set(re.findall(r"(\w+) is \S+ there", message)) == {"d_model", "norm"}
    options = dict(steps=1, checkpoint=tmp_path / "model.pt", resume=True)
    with pytest.raises(ValueError, match="d_model"):
        next(train(other, make_batches(1), **options))


def test_fields_that_one_side_lacks_are_named():
    config = ModelConfig(V)
    saved = {**vars(config), "new_field": 1}
    del saved["vocab_size"]
    with pytest.raises(ValueError, match=r"new_field is 1 there.*vocab_size is None there"):
        check_config(saved, config, "model.pt")
    old = dict(vars(config))
    del old["dropout"]  # of a file from before there was such a field: the default
    check_config(old, config, "model.pt")
    with pytest.raises(ValueError, match=r"dropout is 0.0 there and 0.5 here"):
        check_config(old, ModelConfig(V, dropout=0.5), "model.pt")
    check_config(dict(vars(config)), config, "model.pt")


def test_a_missing_checkpoint_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="train with checkpoint="):
        load_checkpoint(tmp_path / "none.pt", make_model())


def test_an_interrupted_save_leaves_the_old_file(tmp_path, monkeypatch):
    path, model = tmp_path / "model.pt", make_model(1)
    save_checkpoint(path, model, step=1)
    before = path.read_bytes()
    whole_save = torch.save

    def half_save(what, target):
        whole_save(what, target)
        target.write_bytes(target.read_bytes()[:1000])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", half_save)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(path, make_model(2), step=2)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["model.pt"]
    other = make_model(3)
    assert load_checkpoint(path, other) == {"step": 1}
    assert_equal_states(dict(model.state_dict()), dict(other.state_dict()))


# ---- errors ---------------------------------------------------------------------------------


class Breaks(nn.Module):
    """Wraps a model whose logits become not a number, or infinite, at one call."""

    def __init__(self, model: GPT, at: int, factor: float):
        super().__init__()
        self.model, self.config, self.at, self.factor, self.calls = model, model.config, at, factor, 0

    def forward(self, ids):
        self.calls += 1
        return self.model(ids) * (self.factor if self.calls == self.at else 1.0)


@pytest.mark.parametrize(("factor", "value"), [(math.nan, "nan"), (math.inf, "(inf|nan)")])
def test_a_loss_that_is_not_finite_stops_before_it_does_harm(tmp_path, factor, value):
    model, batches = Breaks(make_model(), at=3, factor=factor), make_batches(5)
    options = dict(lr=0.02, schedule=lambda i: 0.5**i, checkpoint=tmp_path / "a.pt", checkpoint_every=1)
    steps = train(model, batches, steps=5, **options)
    assert [next(steps).step, next(steps).step] == [1, 2]
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(FloatingPointError, match=rf"loss is {value} at step 3 with learning rate 0\.005"):
        next(steps)
    assert_equal_states(dict(before), dict(model.state_dict()))
    saved = content(tmp_path / "a.pt")
    assert saved["parts"]["step"] == 2
    assert_equal_states(dict(before), dict(saved["model"]))
    again = copy.deepcopy(model)
    again.zero_grad()
    (healthy,) = train(again, batches, steps=1)  # and the model can go on: nothing bad was left in it
    (step,) = train(model, batches, steps=1)
    assert math.isfinite(step.grad_norm)
    assert step.grad_norm == healthy.grad_norm


def test_a_loss_that_is_not_finite_does_not_replace_the_last_checkpoint(tmp_path):
    """The weights may be ruined since then: what was saved before is worth more than the last step."""
    model = Breaks(make_model(), at=6, factor=math.nan)
    options = dict(checkpoint=tmp_path / "a.pt", checkpoint_every=3)
    with pytest.raises(FloatingPointError):
        list(train(model, make_batches(5), steps=9, **options))
    assert content(tmp_path / "a.pt")["parts"]["step"] == 3


@pytest.mark.parametrize("empty", [[], iter(()), (batch for batch in make_batches(2))])
def test_batches_that_run_out_are_an_error(empty):
    with pytest.raises(ValueError, match="no batch left"):
        list(train(make_model(), empty, steps=3))


def test_targets_of_which_none_counts_are_an_error():
    ((inputs, targets),) = make_batches(1)
    with pytest.raises(ValueError, match="no target counts"):
        list(train(make_model(), [(inputs, torch.full_like(targets, IGNORE))], steps=1))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[(name, bad) for name in ("steps", "accumulate") for bad in (0, -1, 2.5, math.nan, "3")],
        *[(name, bad) for name in ("eval_every", "checkpoint_every") for bad in (0, -5, 0.5)],
        *[(name, bad) for name in ("lr", "weight_decay") for bad in (-1e-3, math.nan, math.inf, "1e-3")],
        *[("betas", bad) for bad in ((0.9, 1.0), (-0.1, 0.9), (0.9, math.nan), (0.9,), (0.9, 0.9, 0.9))],
        *[("clip", bad) for bad in (0, -1.0, math.nan)],
        *[("dtype", bad) for bad in (torch.float64, torch.int64, "float16")],
    ],
)
def test_a_bad_argument_is_named_with_its_limit_before_the_first_batch(name, value):
    with pytest.raises(ValueError, match=rf"^{name}(=| is ).*(must be|give)") as caught:
        next(train(make_model(), iter(()), **{"steps": 1, name: value}))
    assert str(value).strip("()") in str(caught.value)


def test_a_bad_argument_is_named_when_train_is_called_and_not_when_its_steps_are_taken(tmp_path):
    with pytest.raises(ValueError, match="steps=0"):
        train(make_model(), make_batches(1), steps=0)
    with pytest.raises(OSError, match="folder"):
        train(make_model(), make_batches(1), steps=1, checkpoint=tmp_path)


def test_a_model_with_nothing_to_train_is_refused_before_the_first_batch():
    frozen = make_model().requires_grad_(False)
    with pytest.raises(ValueError, match=r"the model has \d\d parameters, none of which has requires_grad"):
        next(train(frozen, iter(()), steps=1))
    with pytest.raises(ValueError, match="the model has 0 parameters"):
        next(train(nn.ReLU(), iter(()), steps=1))
    other = torch.optim.SGD(make_model().parameters())
    with pytest.raises(ValueError, match="no trainable parameter of this model"):
        next(train(make_model(), iter(()), steps=1, optimizer=other))


# ---- TensorBoard ----------------------------------------------------------------------------


def test_what_is_logged_is_read_back(tmp_path):
    row = torch.arange(40) % V
    options = dict(schedule=lambda i: 1 / (1 + i), evaluate=lambda m: evaluate_loss(m, row), eval_every=2)
    steps = list(log_steps(train(make_model(), make_batches(2), steps=5, **options), tmp_path))
    assert [step.step for step in steps] == [1, 2, 3, 4, 5]
    scalars = read_scalars(tmp_path)
    totals = [(0, 0.0), *((s.tokens, s.seconds) for s in steps)]
    speeds = [(b[0] - a[0]) / (b[1] - a[1]) for a, b in pairwise(totals)]
    wanted = {
        "tokens_per_second": list(enumerate(speeds, start=1)),
        "loss/train": [(s.step, s.loss) for s in steps],
        "learning_rate": [(s.step, s.lr) for s in steps],
        "gradient_norm": [(s.step, s.grad_norm) for s in steps],
        "loss/validation": [(s.step, s.validation_loss) for s in steps if s.step in (2, 4, 5)],
    }
    assert scalars.keys() == wanted.keys()
    for tag, rows in wanted.items():
        assert scalars[tag][0] == [number for number, _ in rows]
        assert scalars[tag][1] == [float(np.float32(value)) for _, value in rows], tag


def test_a_long_run_is_read_back_whole(tmp_path):
    with SummaryWriter(str(tmp_path)) as writer:
        for number in range(10_050):  # TensorBoard keeps a sample of 10,000 unless told otherwise
            writer.add_scalar("loss", 1 / (1 + number), number)
    numbers, values = read_scalars(tmp_path)["loss"]
    assert numbers == list(range(10_050))
    assert values == [float(np.float32(1 / (1 + number))) for number in range(10_050)]


def test_steps_before_an_error_or_a_break_are_in_the_log(tmp_path):
    model = Breaks(make_model(), at=3, factor=math.nan)
    with pytest.raises(FloatingPointError):
        list(log_steps(train(model, make_batches(1), steps=5), tmp_path / "error"))
    assert read_scalars(tmp_path / "error")["loss/train"][0] == [1, 2]
    path = tmp_path / "model.pt"
    for step in log_steps(train(make_model(), make_batches(1), steps=5, checkpoint=path), tmp_path / "break"):
        if step.step == 4:
            break
    assert read_scalars(tmp_path / "break")["loss/train"][0] == [1, 2, 3, 4]
    assert content(path)["parts"]["step"] == 4


def test_a_folder_without_events_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no TensorBoard event file"):
        read_scalars(tmp_path)
    with pytest.raises(FileNotFoundError, match="holds no TensorBoard event file"):
        read_scalars(tmp_path / "none")


def test_weights_in_float16_are_refused_where_the_loss_is_scaled_and_frozen_ones_are_not():
    """torch's GradScaler cannot take them: "Attempting to unscale FP16 gradients"."""
    ids = torch.arange(8).repeat(2, 1)
    model = GPT(ModelConfig(vocab_size=8, d_model=16, n_layers=1)).half()
    options = dict(steps=1, dtype=torch.float16)
    with pytest.raises(ValueError, match=r"weights are in float16.*model\.float\(\)"):
        next(train(model, [(ids, ids)], **options))
    assert len(list(train(add_lora(model, 2), [(ids, ids)], **options))) == 1
    assert len(list(train(merge_lora(model).float(), [(ids, ids)], **options))) == 1
