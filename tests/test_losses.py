"""Losses of many kinds through one loop: each resumes to the bit, and accumulates what one large batch gives.

The expectation is torch's own loss, the run that was never interrupted, or the step of one large batch.
"""

import copy
import math
import sys
from collections import namedtuple
from importlib import util

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from llmcourse import losses
from llmcourse.compress.distill import distillation_loss
from llmcourse.data.batches import IGNORE, LabelledBatches, TokenBatches, to_device
from llmcourse.data.pairs import PairBatches, pair_batch
from llmcourse.encoder_decoder import EncoderDecoder
from llmcourse.finetune.classify import GPTClassifier
from llmcourse.finetune.policy import Rollouts, policy_loss
from llmcourse.finetune.preference import (
    PreferenceBatches,
    RewardModel,
    dpo_loss,
    pairwise_loss,
    preference_batch,
)
from llmcourse.losses import (
    classification_loss,
    mean_loss,
    next_token_loss,
    seq2seq_loss,
    smoothed_next_token_loss,
)
from llmcourse.model import GPT, ModelConfig
from llmcourse.pointer import PointerGenerator
from llmcourse.speech.recognizer import Recognizer, RecognizerConfig, ctc_loss
from llmcourse.training import accumulate_gradients, train

V, T = 11, 6


def seeded(seed: int, build):
    """Build with a random start of its own, and leave torch's random numbers where they were."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def gpt(seed: int, dropout: float = 0.0, n_layers: int = 1) -> GPT:
    shape = dict(context_length=T, d_model=8, n_heads=2, n_layers=n_layers, d_ff=16)
    return seeded(seed, lambda: GPT(ModelConfig(V, dropout=dropout, **shape)))


class Drawn:
    """Batches drawn from their number, so that a checkpoint can keep the place."""

    def __init__(self, draw):
        self.draw, self.position = draw, 0

    def __iter__(self):
        return self

    def __next__(self):
        self.position += 1
        return self.draw(torch.Generator().manual_seed(self.position))

    def state_dict(self):
        return {"position": self.position}

    def load_state_dict(self, state):
        self.position = state["position"]


# ---- the kinds: (model from a seed and dropout, a source, the loss, a batch of 7 rows) ------------


def ids(generator, rows=7, length=T + 1):
    return torch.randint(V, (rows, length), generator=generator)


def pairs(generator):
    row = ids(generator)
    targets = row[:, 1:].clone()
    targets[::2, :3] = IGNORE  # parts of a batch count unequally much
    return row[:, :-1], targets


def token_batches():
    return TokenBatches(ids(torch.Generator().manual_seed(0), 1, 300)[0], 3, T, seed=3)


def net(seed, dropout):
    layers = lambda: nn.Sequential(  # noqa: E731
        nn.Linear(3, 8), nn.BatchNorm1d(8) if dropout else nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 2)
    )
    return seeded(seed, layers)


def points(generator):
    x = torch.randn(7, 3, generator=generator)
    return {"x": x, "y": x[:, :2] ** 2}


def squared_error(model, batch):
    y = model(batch["x"].to(next(model.parameters()).dtype))
    return F.mse_loss(y, batch["y"].to(y.dtype), reduction="sum"), batch["y"].numel()


TEACHER = gpt(99, 0.5, n_layers=2).eval()
REFERENCE = gpt(98, 0.5).eval()


def distillation(model, batch):
    """The student's KL divergence from a teacher that is closed over."""
    inputs, targets = batch
    with torch.no_grad():
        wanted = copy.deepcopy(TEACHER).to(next(model.parameters()).dtype)(inputs).log_softmax(-1)
    found = model(inputs).log_softmax(-1).to(wanted.dtype)
    counts = targets != IGNORE
    divergence = F.kl_div(found, wanted, reduction="none", log_target=True).sum(-1)  # (B, T)
    return divergence[counts].sum(), int(counts.sum())


def two(seed, dropout):
    return nn.ModuleDict({"one": gpt(seed, dropout), "other": gpt(seed + 50, dropout, n_layers=2)})


def mutual(model, batch):
    """Two students that learn from the text and from each other (Zhang et al. 2017, arXiv:1706.00384)."""
    inputs, _ = batch
    total = 0.0
    one, other = (model[name](inputs).float().log_softmax(-1) for name in ("one", "other"))
    for a, b in ((one, other), (other, one)):
        total = total + F.kl_div(a, b.detach(), reduction="sum", log_target=True)
    plain = [next_token_loss(model[name], batch) for name in ("one", "other")]
    return total + plain[0][0] + plain[1][0], plain[0][1], plain[0][0]


def with_z_loss(model, batch):
    """Cross-entropy, and a penalty on large normalizers (PaLM, arXiv:2204.02311, sec. 5)."""
    inputs, targets = batch
    logits, flat = model(inputs).float().flatten(0, 1), targets.flatten()
    plain = F.cross_entropy(logits, flat, ignore_index=IGNORE, reduction="sum")
    z = logits.logsumexp(-1)[flat != IGNORE]
    return plain + 0.1 * z.square().sum(), torch.tensor(len(z)), plain


def classifier(seed, dropout):
    return seeded(seed, lambda: GPTClassifier(gpt(seed, dropout), n_classes=3))


def labelled(generator):
    row = ids(generator, length=T)
    return row, torch.ones_like(row), row[:, 0] % 3


def labelled_batches():
    generator = torch.Generator().manual_seed(0)
    rows = [ids(generator, 1, 1 + i % T)[0].tolist() for i in range(20)]
    return LabelledBatches(rows, torch.tensor([row[0] % 3 for row in rows]), batch_size=3, seed=3)


def recognizer(seed, dropout):
    shape = dict(n_mels=3, d_model=8, n_layers=1, n_heads=2, strides=(1,), dropout=dropout)
    return seeded(seed, lambda: Recognizer(RecognizerConfig(("a", "b", "c", "d"), **shape)))


def sounds(generator):
    return [
        torch.randn(7, 9, 3, generator=generator),
        torch.tensor([9, 7, 8, 9, 6, 9, 7]),
        torch.randint(1, 5, (7, 3), generator=generator),
        torch.tensor([3, 1, 2, 2, 1, 3, 1]),
    ]


def translator(seed, dropout, kind=EncoderDecoder):
    shape = dict(context_length=T, d_model=8, n_heads=2, n_layers=1, d_ff=16, dropout=dropout)
    return seeded(seed, lambda: kind(kind.config_type(V, **shape)))


def copier(seed, dropout):
    return translator(seed, dropout, PointerGenerator)


def sentences(generator, rows=7):
    """Lists of ids from 2 on, of unequal lengths, and what is to be said of them: the reverse."""
    lengths = torch.randint(1, T, (rows,), generator=generator).tolist()
    sources = [torch.randint(2, V, (n,), generator=generator).tolist() for n in lengths]
    return sources, [source[::-1] for source in sources]


def translations(generator):
    return pair_batch(*sentences(generator), start_id=0, end_id=1)


def pair_batches():
    return PairBatches(
        list(zip(*sentences(torch.Generator().manual_seed(0), 20), strict=True)), 0, 1, 3, seed=3
    )


def compared(generator, rows=7):
    """Lists of ids: a prompt, and two answers of unequal length, of which the chosen one begins with 1."""
    draw = lambda n: torch.randint(2, V, (n,), generator=generator).tolist()  # noqa: E731
    n_chosen, n_rejected = torch.randint(1, 4, (2, rows), generator=generator).tolist()
    return [(draw(2), [1, *draw(n)], [0, *draw(m)]) for n, m in zip(n_chosen, n_rejected, strict=True)]


def preferences(generator):
    return preference_batch(compared(generator))


def preference_batches():
    return PreferenceBatches(compared(torch.Generator().manual_seed(0), 20), batch_size=3, seed=3)


def reward_model(seed, dropout):
    return RewardModel(gpt(seed, dropout))


def rollouts(generator):
    ends = torch.randint(3, T + 1, (7, 1), generator=generator)
    mask = (torch.arange(T) >= 2) & (torch.arange(T) < ends)
    old = -1 - torch.rand(7, T, generator=generator)
    return Rollouts(ids(generator, length=T), mask, torch.randn(7, generator=generator), old * mask)


def drawn(draw):
    return lambda: Drawn(draw)


KINDS = {
    "next token": (gpt, token_batches, next_token_loss, pairs),
    "smoothed": (gpt, token_batches, smoothed_next_token_loss(0.2), pairs),
    "regression": (net, drawn(points), squared_error, points),
    "distillation": (gpt, token_batches, distillation, pairs),
    "soft targets": (gpt, token_batches, distillation_loss(TEACHER, share=0.2), pairs),
    "two models": (two, token_batches, mutual, pairs),
    "auxiliary term": (gpt, token_batches, with_z_loss, pairs),
    "classification": (classifier, labelled_batches, classification_loss, labelled),
    "translation": (translator, pair_batches, seq2seq_loss, translations),
    "copying": (copier, pair_batches, seq2seq_loss, translations),
    "recognition": (recognizer, drawn(sounds), ctc_loss, sounds),
    "preferences": (gpt, preference_batches, dpo_loss(REFERENCE, beta=0.5), preferences),
    "rewards of pairs": (reward_model, preference_batches, pairwise_loss, preferences),
    "policy gradient": (gpt, drawn(rollouts), policy_loss(), rollouts),
    "clipped, token by token": (gpt, drawn(rollouts), policy_loss(clip=0.2, normalization="token"), rollouts),
    "GRPO": (gpt, drawn(rollouts), policy_loss(0.2, 0.1, REFERENCE, "sequence"), rollouts),
}


def assert_equal(one, other, path=""):
    """Compare nested states to the bit."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), path
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key in one:
            assert_equal(one[key], other[key], f"{path}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), path
        for a, b in zip(one, other, strict=True):
            assert_equal(a, b, path)
    else:
        assert one == other, path


def content(path) -> dict:
    saved = torch.load(path, weights_only=True)
    saved["parts"].pop("seconds")
    return saved


@pytest.mark.parametrize(
    ("accumulate", "dtype"), [(1, torch.float32), (3, torch.float32), (2, torch.bfloat16)]
)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_stops_and_goes_on_to_the_bit(tmp_path, kind, accumulate, dtype):
    """With dropout, running means and an optimizer's moments: all is drawn and kept as in one run."""
    make, source, loss, _ = KINDS[kind]

    def run(path, seed, stop_at=None):
        torch.manual_seed(seed)
        seen, options = [], dict(lr=1e-2, accumulate=accumulate, dtype=dtype)
        for step in train(
            make(seed, 0.3), source(), steps=7, loss=loss, checkpoint=path, resume=True, **options
        ):
            seen.append((step.step, step.loss, step.grad_norm, step.tokens))
            if step.step == stop_at:
                break
        return seen

    whole = run(tmp_path / "whole", 0)
    first, rest = run(tmp_path / "parts", 0, stop_at=3), run(tmp_path / "parts", 8)
    assert first + rest == whole
    assert len({loss for _, loss, *_ in whole}) == 7
    assert_equal(content(tmp_path / "whole"), content(tmp_path / "parts"))


def rows_of(batch, rows):
    """Return some rows of a batch, whatever it is made of."""
    if isinstance(batch, dict):
        return {name: part[rows] for name, part in batch.items()}
    if hasattr(batch, "_fields"):
        return type(batch)(*(part[rows] for part in batch))
    return type(batch)(part[rows] for part in batch)


@pytest.mark.parametrize("clip", [None, 0.05])
@pytest.mark.parametrize("kind", KINDS)
def test_unequal_parts_make_the_steps_of_one_large_batch(kind, clip):
    """In float64, where rounding cannot hide a wrong weight; the first part is the smallest."""
    make, _, loss, draw = KINDS[kind]
    batch = draw(torch.Generator().manual_seed(1))
    parts = [rows_of(batch, slice(*ends)) for ends in ((0, 1), (1, 5), (5, 7))]
    runs = []
    for data in ([batch], parts):
        model = make(0, 0.0).double()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
        options = dict(steps=3, loss=loss, optimizer=optimizer, clip=clip, accumulate=len(data))
        steps = list(train(model, data, **options))
        runs.append([(s.loss, s.grad_norm, s.tokens) for s in steps] + [list(model.parameters())])
    for one, other in zip(runs[0][:-1], runs[1][:-1], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)  # some losses are added up in float32
    for p, q in zip(runs[0][-1], runs[1][-1], strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-7)
    assert runs[0][0][0] != runs[0][2][0]


def test_equal_parts_make_the_bits_of_a_loop_written_out():
    """Each sum is divided by the count of all before its backward pass, and nothing is multiplied after."""
    batches = [next(token_batches()) for _ in range(3)]
    mine, theirs = gpt(0), gpt(0)
    counted = sum(targets.numel() for _, targets in batches)
    for batch in batches:
        (next_token_loss(theirs, batch)[0] / counted).backward()
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    accumulate_gradients(mine, batches, next_token_loss, torch.float32, scaler)
    assert all(
        torch.equal(p.grad, q.grad) for p, q in zip(mine.parameters(), theirs.parameters(), strict=True)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_learns(kind):
    make, _, loss, draw = KINDS[kind]
    batch = draw(torch.Generator().manual_seed(1))
    seen = [step.loss for step in train(make(0, 0.0), [batch], steps=150, lr=1e-2, loss=loss)]
    assert seen[-1] < 0.7 * seen[0]


# ---- the losses of the package ------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_next_token_loss_is_torchs_cross_entropy_in_float32(dtype):
    model, (inputs, targets) = gpt(0), pairs(torch.Generator().manual_seed(1))
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        logits = model(inputs)
        total, count = next_token_loss(model, (inputs, targets))
    assert (total.dtype, logits.dtype) == (torch.float32, dtype)
    wanted = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())
    assert count == int((targets != IGNORE).sum())
    torch.testing.assert_close(total / count, wanted, rtol=1e-6, atol=0)
    torch.testing.assert_close(mean_loss(model, (inputs, targets)), total / count, rtol=1e-2, atol=0)
    found, gradients = (torch.autograd.grad(x, list(model.parameters())) for x in (total / count, wanted))
    for a, b in zip(found, gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-6 if dtype == torch.float32 else 1e-3)


def test_without_the_fast_one_the_loss_is_torchs(monkeypatch):
    monkeypatch.setitem(sys.modules, "llmcourse.fast.cross_entropy", None)  # as if it were not there
    spec = util.spec_from_file_location("plain_losses", losses.__file__)
    plain = util.module_from_spec(spec)
    spec.loader.exec_module(plain)
    model, batch = gpt(0), pairs(torch.Generator().manual_seed(1))
    assert plain.cross_entropy is not losses.cross_entropy
    runs = [list(train(gpt(0), [batch], steps=3, loss=one.next_token_loss)) for one in (plain, losses)]
    np.testing.assert_allclose(*([step.loss for step in run] for run in runs), rtol=1e-5)
    assert plain.next_token_loss(model, batch)[1] == next_token_loss(model, batch)[1]


def test_the_classification_loss_is_torchs_and_a_label_may_not_count():
    model, (row, mask, labels) = classifier(0, 0.0), labelled(torch.Generator().manual_seed(1))
    nn.init.normal_(model.head.weight)
    labels[2] = IGNORE
    total, count = classification_loss(model, (row, mask, labels))
    assert count == 6
    torch.testing.assert_close(total / count, F.cross_entropy(model(row, mask), labels))


def test_what_is_reported_is_not_what_is_differentiated():
    batch = pairs(torch.Generator().manual_seed(1))
    model, other = gpt(0), gpt(0)
    (step,) = train(model, [batch], steps=1, loss=with_z_loss, clip=None)
    assert step.loss == pytest.approx(mean_loss(other, batch).item(), rel=1e-6)
    total, count, _ = with_z_loss(other, batch)
    gradients = torch.autograd.grad(total / count, list(other.parameters()))
    assert step.grad_norm == pytest.approx(
        math.sqrt(sum(g.square().sum().item() for g in gradients)), rel=1e-4
    )
    plain = train(gpt(0), [batch], steps=1, clip=None)
    assert next(plain).grad_norm != pytest.approx(step.grad_norm, rel=1e-2)


def test_a_teacher_that_is_closed_over_stays_as_it_is():
    before, modes = copy.deepcopy(TEACHER.state_dict()), [m.training for m in TEACHER.modules()]
    list(train(gpt(0), token_batches(), steps=2, loss=distillation))
    assert_equal(dict(before), dict(TEACHER.state_dict()))
    assert [m.training for m in TEACHER.modules()] == modes
    assert all(p.grad is None for p in TEACHER.parameters())


def test_both_of_two_models_are_trained_and_a_frozen_one_is_not():
    model = two(0, 0.0)
    before = copy.deepcopy(model.state_dict())
    model["other"].requires_grad_(False)
    list(train(model, token_batches(), steps=2, loss=mutual))
    same = {name: torch.equal(before[name], value) for name, value in model.state_dict().items()}
    assert all(is_same == name.startswith("other.") for name, is_same in same.items())
    model["other"].requires_grad_(True)
    list(train(model, token_batches(), steps=2, loss=mutual))
    assert not any(torch.equal(before[name], value) for name, value in model.state_dict().items())


# ---- running means: an update of the model that a forward pass makes --------------------------------


def test_a_step_that_stopped_after_a_running_mean_moved_is_taken_again_from_the_file(tmp_path):
    def run(path, broken=False, seed=0):
        torch.manual_seed(seed)
        calls = []

        def loss(model, batch):
            found = squared_error(model, batch)
            calls.append(1)
            if broken and len(calls) == 5:
                raise KeyboardInterrupt  # the running means have seen this batch
            return found

        options = dict(checkpoint=path, checkpoint_every=3, resume=True)
        return [(s.step, s.loss) for s in train(net(seed, 0.3), Drawn(points), steps=8, loss=loss, **options)]

    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", broken=True)
    assert content(tmp_path / "parts")["parts"]["step"] == 3
    assert run(tmp_path / "parts", seed=8) == whole[3:]
    assert_equal(content(tmp_path / "whole"), content(tmp_path / "parts"))


# ---- batches on their way to the device ---------------------------------------------------------------


def test_batches_of_any_form_reach_the_device():
    Pair = namedtuple("Pair", "x y")
    x = torch.ones(2)
    batch = {"a": [x, (x, "text")], "b": Pair(x, None), "c": 3}
    moved = to_device(batch, "meta")
    assert [moved["a"][0].device.type, moved["a"][1][0].device.type, moved["b"].x.device.type] == ["meta"] * 3
    assert (type(moved["a"]), type(moved["a"][1]), type(moved["b"])) == (list, tuple, Pair)
    assert (moved["a"][1][1], moved["b"].y, moved["c"]) == ("text", None, 3)
    assert x.device.type == "cpu"


# ---- losses that break the contract -------------------------------------------------------------------

BAD = {
    "a mean alone": (lambda total, count: total, r"a Tensor: return \(sum, count\)"),
    "a list": (lambda total, count: [total, count], r"a list: return \(sum, count\)"),
    "nothing": (lambda total, count: None, "a NoneType"),
    "one value": (lambda total, count: (total,), "1 values"),
    "four values": (lambda total, count: (total, count, total, 1), "4 values"),
    "a number": (lambda total, count: (total.item(), count), r"the sum [\d.]+: return a tensor, without .item"),
    "not added up": (lambda total, count: (total * torch.ones(2), count), r"a sum of shape \(2,\): add it up"),
    "one number in a row": (lambda total, count: (total[None], count), r"a sum of shape \(1,\)"),
    "detached": (lambda total, count: (total.detach(), count), r"the sum [\d.]+ without a gradient.*\.detach"),
    "narrow": (lambda total, count: (total.bfloat16(), count), r"added up in torch\.bfloat16.*\.float\(\)"),
    "count of none": (lambda total, count: (total, None), "the count None: return how many"),
    "count below 0": (lambda total, count: (total, -3), "the count -3: .*not negative"),
    "count of NaN": (lambda total, count: (total, math.nan), "the count nan"),
    "count in a row": (lambda total, count: (total, torch.ones(2)), r"the count tensor\("),
    "nothing counted": (lambda total, count: (total, 0), "no target counts: .* count 0 for all batches"),
    "reported text": (lambda total, count: (total, count, "loss"), "the reported sum 'loss': return a tensor"),
    "reported row": (lambda total, count: (total, count, torch.ones(3)), r"a reported sum of shape \(3,\)"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_a_loss_that_breaks_its_contract_gets_a_sentence(kind):
    broken, words = BAD[kind]
    model, batch = gpt(0), pairs(torch.Generator().manual_seed(1))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=words):
        next(train(model, [batch], steps=1, loss=lambda *given: broken(*next_token_loss(*given))))
    assert_equal(dict(before), dict(model.state_dict()))


def test_a_part_may_count_nothing_and_a_count_may_be_a_fraction():
    inputs, targets = pairs(torch.Generator().manual_seed(1))
    nothing = inputs, torch.full_like(targets, IGNORE)
    for parts in ([nothing, (inputs, targets)], [(inputs, targets), nothing]):
        (step,), (alone,) = (
            list(train(gpt(0), data, steps=1, accumulate=len(data))) for data in (parts, [(inputs, targets)])
        )
        assert (step.loss, step.tokens) == (alone.loss, alone.tokens)
        assert step.grad_norm == pytest.approx(alone.grad_norm, rel=1e-5)
    halves = lambda model, batch: (next_token_loss(model, batch)[0], 0.5)  # noqa: E731
    (step,) = train(gpt(0), [(inputs, targets)], steps=1, loss=halves)
    assert step.tokens == 0.5
    assert step.loss == pytest.approx(alone.loss * alone.tokens / 0.5)
