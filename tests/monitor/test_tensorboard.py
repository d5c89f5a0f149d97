"""Event files against TensorBoard's own reader, numpy and hand-written updates; files that were cut."""

import itertools
import math
import os
import random
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing import plugin_event_accumulator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.io_wrapper import GetLogdirSubdirectories
from torch.utils.tensorboard import SummaryWriter

from llmcourse.evaluate.likelihood import bits_per_byte, evaluate_loss
from llmcourse.model import GPT, ModelConfig
from llmcourse.monitor.tensorboard import (
    find_runs,
    log_parameters,
    log_steps,
    read_histograms,
    read_hparams,
    read_scalars,
    read_texts,
    smooth,
    update_ratio,
)
from llmcourse.optim import AdamW, muon_and_adamw, parameter_groups
from llmcourse.training import Step, train

V = 13


def make_model(**changes):
    torch.manual_seed(0)
    return GPT(ModelConfig(vocab_size=V, context_length=8, d_model=16, n_heads=2, n_layers=1, **changes))


def make_batches(n=4):
    rows = torch.randint(V, (n, 3, 9), generator=torch.Generator().manual_seed(1))
    return [(row[:, :-1], row[:, 1:]) for row in rows]


def accumulate(folder):
    guidance = {"scalars": 0, "histograms": 0, "tensors": 0}
    return EventAccumulator(str(folder), size_guidance=guidance).Reload()


def event_file(folder):
    (path,) = folder.glob("events.out.tfevents.*")
    return path


# ---- reading: the same as TensorBoard's own reader ------------------------------------------


def test_scalars_are_those_that_tensorboard_reads(tmp_path):
    with SummaryWriter(str(tmp_path)) as writer:
        for number in range(50):
            writer.add_scalar("sine", math.sin(number), number * 10)
            writer.add_scalar("new/style", number / 7, number, new_style=True)
        writer.add_scalar("bad", math.nan, 3)
        writer.add_scalar("bad", math.inf, 4)
    scalars, theirs = read_scalars(tmp_path), accumulate(tmp_path)
    assert scalars["sine"][0] == [e.step for e in theirs.Scalars("sine")]
    assert scalars["sine"][1] == [e.value for e in theirs.Scalars("sine")]
    assert scalars["new/style"][1] == [float(np.float32(number / 7)) for number in range(50)]
    assert math.isnan(scalars["bad"][1][0])
    assert scalars["bad"][1][1] == math.inf


def test_histograms_are_those_that_tensorboard_reads(tmp_path):
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    with SummaryWriter(str(tmp_path)) as writer:
        for step in (1, 5, 9):
            writer.add_histogram("w", values * step, step)
            writer.add_histogram("linear", values, step, bins=16)
        writer.add_scalar("loss", 1.0, 1)
    histograms, theirs = read_histograms(tmp_path), accumulate(tmp_path)
    assert histograms.keys() == {"w", "linear"}
    for mine, event in zip(histograms["w"], theirs.Histograms("w"), strict=True):
        assert mine.step == event.step
        assert mine.counts.sum() == event.histogram_value.num == 1000
        assert mine.edges[0] == np.float32(event.histogram_value.min)
        assert mine.edges[-1] == np.float32(event.histogram_value.max)
        inside = [count for count in event.histogram_value.bucket if count]
        assert [count for count in mine.counts if count] == inside
    counts, edges = np.histogram(values.numpy(), bins=16)
    np.testing.assert_array_equal(histograms["linear"][0].counts, counts)
    np.testing.assert_allclose(histograms["linear"][0].edges, edges, atol=1e-6)


def test_texts_come_back_as_they_were(tmp_path):
    text = "HAMLET:\nTo be, or not\n\n  莎士比亚 \N{BLACK HEART SUIT} *x*"
    with SummaryWriter(str(tmp_path)) as writer:
        writer.add_text("sample", text, 3)
        writer.add_text("sample", "", 4)
        writer.add_text("other/tag", "x", 1)
    assert read_texts(tmp_path) == {"sample": [(3, text), (4, "")], "other/tag": [(1, "x")]}
    assert read_scalars(tmp_path) == read_histograms(tmp_path) == {}


@pytest.mark.parametrize("run_name", [".", "result", None])
def test_hyper_parameters_come_back_with_their_results(tmp_path, run_name):
    for rate in (0.1, 0.3):
        with SummaryWriter(str(tmp_path / f"rate-{rate}")) as writer:
            writer.add_scalar("loss", 9.0, 1)
            settings = {"rate": rate, "optimizer": "adamw", "tied": True, "none": None}
            writer.add_hparams(settings, {"final/loss": rate * 2}, run_name=run_name, global_step=1)
    table = read_hparams(tmp_path)
    assert len(table) == 2
    assert {name.split("/")[0] for name in table} == {"rate-0.1", "rate-0.3"}
    assert all(("/" in name) == (run_name != ".") for name in table)
    for row, rate in zip(table.values(), (0.1, 0.3), strict=True):
        assert row["rate"] == rate
        assert row["optimizer"] == "adamw"
        assert row["tied"] == 1.0  # torch stores a truth value as a number
        assert row["final/loss"] == float(np.float32(rate * 2))
        assert row.keys() == {"rate", "optimizer", "tied", "final/loss"}
    with SummaryWriter(str(tmp_path / "plain")) as writer:
        writer.add_scalar("loss", 1.0, 1)
    assert read_hparams(tmp_path) == table  # a run without hyper-parameters has no row


def test_runs_are_folders_with_event_files(tmp_path):
    for name in ("b", "a/deep", "."):
        with SummaryWriter(str(tmp_path / name)) as writer:
            writer.add_scalar("x", 1, 1)
    (tmp_path / "empty").mkdir()
    assert find_runs(tmp_path) == [".", "a/deep", "b"]
    with pytest.raises(FileNotFoundError, match=r"one of the runs below it: \['deep'\]"):
        read_scalars(tmp_path / "a")
    for read in (read_scalars, read_histograms, read_texts):
        with pytest.raises(FileNotFoundError, match="holds no TensorBoard event file"):
            read(tmp_path / "empty")
    assert find_runs(tmp_path / "none") == []
    assert read_hparams(tmp_path / "none") == {}


def test_two_files_of_a_folder_are_joined_in_the_order_of_time(tmp_path):
    for name, start in (("z", 0), ("a", 10)):  # the names sort the other way
        with SummaryWriter(str(tmp_path / name)) as writer:
            for number in range(3):
                writer.add_scalar("x", start + number, number)
        event_file(tmp_path / name).rename(tmp_path / f"events.out.tfevents.{name}")
    assert read_scalars(tmp_path)["x"] == ([0, 1, 2, 0, 1, 2], [0, 1, 2, 10, 11, 12])


def test_the_axis_may_be_seconds(tmp_path):
    with SummaryWriter(str(tmp_path)) as writer:
        for number, wall_time in enumerate((100.0, 100.5, 103.0)):
            writer.add_scalar("x", number, number, walltime=wall_time)
    assert read_scalars(tmp_path, x="seconds")["x"] == ([0.0, 0.5, 3.0], [0, 1, 2])
    with pytest.raises(ValueError, match=r"x='hours' is unknown: choose 'step' or 'seconds'"):
        read_scalars(tmp_path, x="hours")


# ---- links ----------------------------------------------------------------------------------


LINKS = pytest.mark.skipif(os.name == "nt", reason="not on this system: links need a right of their own")


def some_run(folder, name="events.out.tfevents.1"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"")


def listed_by_tensorboard(folder):
    return sorted(Path(os.path.relpath(f, folder)).as_posix() for f in GetLogdirSubdirectories(str(folder)))


@LINKS
def test_runs_are_those_that_tensorboard_lists_through_links_too(tmp_path):
    """tensorflow/tensorboard#5438: trees of links are how its README collects runs."""
    store, logs = tmp_path / "store", tmp_path / "logs"
    for name in ("a", "deep/er/b", "Mein Lauf [1] ü", "x*?"):
        some_run(store / name)
    some_run(store / "other", "1700000000.tfevents.host")
    some_run(store / "none", "notes.txt")
    some_run(logs / "own")
    (logs / "all").symlink_to(store, target_is_directory=True)
    (logs / "one").symlink_to(store / "deep", target_is_directory=True)
    (logs / "again").symlink_to(logs / "one", target_is_directory=True)
    (logs / "gone").symlink_to(tmp_path / "nowhere")
    (logs / "linked-file").mkdir()
    (logs / "linked-file" / "events.out.tfevents.2").symlink_to(store / "a" / "events.out.tfevents.1")
    assert find_runs(logs) == listed_by_tensorboard(logs)
    assert find_runs(str(logs) + "/") == find_runs(logs)
    assert find_runs(logs / "all") == listed_by_tensorboard(logs / "all")
    assert {"own", "one/er/b", "again/er/b", "all/Mein Lauf [1] ü", "linked-file"} <= set(find_runs(logs))
    assert find_runs(tmp_path / "nowhere") == find_runs(store / "a" / "events.out.tfevents.1") == []


@LINKS
def test_links_in_a_circle_end(tmp_path):
    some_run(tmp_path / "a" / "run")
    some_run(tmp_path / "b")
    for link, target in (
        ("a/run/up", "a"),
        ("a/self", "a/self"),
        ("b/to-a", "a"),
        ("a/to-b", "b"),
        ("b/top", "/"),
    ):
        (tmp_path / link).symlink_to(tmp_path / target, target_is_directory=True)
    assert find_runs(tmp_path) == ["a/run", "a/to-b", "b", "b/to-a/run"]
    assert find_runs(tmp_path / "b" / "to-a") == ["run", "to-b"]


@LINKS
def test_a_linked_run_is_read_and_a_link_to_nothing_is_no_run(tmp_path):
    with SummaryWriter(str(tmp_path / "store")) as writer:
        writer.add_scalar("x", 1.0, 1)
    (tmp_path / "link").symlink_to(tmp_path / "store", target_is_directory=True)
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone" / "events.out.tfevents.1").symlink_to(tmp_path / "nowhere")
    assert read_scalars(tmp_path / "link") == {"x": ([1], [1.0])}
    with pytest.raises(FileNotFoundError, match="holds no TensorBoard event file"):
        read_scalars(tmp_path / "gone")


# ---- a run that was taken up again ----------------------------------------------------------


@pytest.mark.parametrize("seed", range(2))
def test_restarts_are_read_as_tensorboards_accumulator_reads_them(tmp_path, seed):
    """tensorflow/tensorboard#3732, lanpa/tensorboardX#185: any order of crashes, with and without a mark.

    It leaves texts as they are (only its scalars and histograms are purged); here they go too.
    """
    rng, begin, texts = random.Random(seed), 1, []
    for part in range(5):
        mark = begin if rng.random() < 0.7 else None
        texts = [(step, text) for step, text in texts if mark is None or step < mark]
        with SummaryWriter(str(tmp_path), purge_step=mark, filename_suffix=f".{part}") as writer:
            for step in range(begin, begin + rng.randint(1, 6)):
                writer.add_scalar("x", part, step)
                if step % 2:
                    writer.add_histogram("h", np.arange(3.0), step)
                if step % 3:
                    writer.add_text("t", f"{part}", step)
                    texts.append((step, f"{part}"))
        begin = rng.randint(1, step + 1)
    theirs = accumulate(tmp_path)
    assert read_scalars(tmp_path)["x"][0] == [event.step for event in theirs.Scalars("x")]
    assert read_scalars(tmp_path)["x"][1] == [event.value for event in theirs.Scalars("x")]
    mine = [row.step for row in read_histograms(tmp_path).get("h", [])]
    assert mine == [event.step for event in theirs.Histograms("h")]
    assert read_texts(tmp_path).get("t", []) == texts


def made_steps(first, last, offset=0.0):
    return (Step(i, 1 / i + offset, 1e-3, 1.0, i, float(i), 2.0) for i in range(first, last + 1))


def test_a_resumed_run_is_one_curve_with_the_later_values(tmp_path):
    list(log_steps(made_steps(1, 7), tmp_path))
    with SummaryWriter(str(tmp_path)) as writer:  # what else the first run had written
        for step in (3, 6):
            writer.add_histogram("h", np.arange(3.0), step)
            writer.add_text("t", "text", step)
            writer.add_scalar("note", 1.0, step)
    event = sorted(tmp_path.iterdir())[0]
    event.write_bytes(event.read_bytes()[:-5])  # the crash cut a record
    list(log_steps(made_steps(5, 8, offset=1.0), tmp_path))
    with pytest.warns(UserWarning, match="cut short"):
        scalars = read_scalars(tmp_path)
    assert scalars["loss/train"][0] == scalars["loss/validation"][0] == list(range(1, 9))
    assert scalars["loss/train"][1] == pytest.approx([1 / i + (i > 4) for i in range(1, 9)])
    assert scalars["note"][0] == [3]
    with pytest.warns(UserWarning, match="cut short"):
        assert [h.step for h in read_histograms(tmp_path)["h"]] == [3]
    with pytest.warns(UserWarning, match="cut short"):
        assert read_texts(tmp_path)["t"] == [(3, "text")]
    list(log_steps(made_steps(1, 2), tmp_path))  # and from the beginning
    with pytest.warns(UserWarning, match="cut short"):
        assert read_scalars(tmp_path)["loss/train"][0] == [1, 2]


def test_all_readers_of_tensorboard_agree_on_a_resumed_run(tmp_path):
    """Its server in Python passes over the first mark of a folder, its accumulator obeys each one."""
    for first, last in ((1, 7), (5, 9), (3, 4)):
        list(log_steps(made_steps(first, last), tmp_path))
    served = plugin_event_accumulator.EventAccumulator(str(tmp_path), size_guidance={"tensors": 0}).Reload()
    for steps in (
        read_scalars(tmp_path)["loss/train"][0],
        [event.step for event in accumulate(tmp_path).Scalars("loss/train")],
        [event.step for event in served.Tensors("loss/train")],
    ):
        assert steps == [1, 2, 3, 4]


def test_a_run_without_steps_writes_nothing_and_hides_nothing(tmp_path):
    list(log_steps(made_steps(1, 3), tmp_path))
    assert list(log_steps(iter(()), tmp_path)) == []  # resumed when all was done
    assert read_scalars(tmp_path)["loss/train"][0] == [1, 2, 3]
    assert list(log_steps(iter(()), tmp_path / "new")) == []
    assert not (tmp_path / "new").exists()


def test_a_writer_that_is_still_open_keeps_what_it_writes_after_the_mark(tmp_path):
    with SummaryWriter(str(tmp_path)) as mine:
        mine.add_scalar("before", 0.0, 0)
        for step in log_steps(made_steps(1, 3), tmp_path):
            mine.add_scalar("mine", step.loss, step.step)
    scalars = read_scalars(tmp_path)
    assert scalars["mine"][0] == scalars["loss/train"][0] == [1, 2, 3]
    assert scalars["before"][0] == [0]


@pytest.mark.parametrize("bad", [0, -1.0, math.nan])
def test_bytes_per_token_must_be_some(tmp_path, bad):
    with pytest.raises(ValueError, match="n_bytes="):
        next(log_steps(made_steps(1, 1), tmp_path, bytes_per_token=bad))


# ---- files that were cut or damaged ---------------------------------------------------------


def test_a_file_cut_anywhere_gives_the_records_before_the_cut(tmp_path):
    with SummaryWriter(str(tmp_path / "whole")) as writer:
        for number in range(6):
            writer.add_scalar("x", number, number)
    content = event_file(tmp_path / "whole").read_bytes()
    (tmp_path / "cut").mkdir()
    path = tmp_path / "cut" / "events.out.tfevents.1"
    counts = []
    for size in range(len(content) + 1):
        path.write_bytes(content[:size])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            steps, values = read_scalars(tmp_path / "cut").get("x", ([], []))
        assert steps == values == list(range(len(steps)))
        counts.append(len(steps))
        if caught:
            assert len(caught) == 1
            said = str(caught[0].message)
            assert "cannot be read, because the file was cut short" in said
            assert f"{len(steps)} records before them are whole" in said
            assert ("the last at step" in said) == bool(steps)
            assert str(tmp_path) not in said
    assert counts == sorted(counts)
    assert (counts[0], counts[-2], counts[-1]) == (0, 5, 6)
    assert not caught  # the whole file is silent


def test_a_damaged_record_ends_the_file_with_a_warning(tmp_path):
    with SummaryWriter(str(tmp_path)) as writer:
        for number in range(10):
            writer.add_scalar("x", number, number)
    path = event_file(tmp_path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="cut short or damaged"):
        steps, _ = read_scalars(tmp_path)["x"]
    assert steps == list(range(len(steps)))
    assert 0 < len(steps) < 10
    path.write_bytes(b"this is no event file, but it is called one")
    with pytest.warns(UserWarning, match="0 records before them are whole"):
        assert read_scalars(tmp_path) == {}


def test_the_histograms_and_texts_before_a_cut_are_read(tmp_path):
    with SummaryWriter(str(tmp_path)) as writer:
        for step in (1, 2):
            writer.add_histogram("w", torch.arange(5.0), step)
            writer.add_text("t", "text", step)
    path = event_file(tmp_path)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.warns(UserWarning, match="the last at step 2"):
        assert [h.step for h in read_histograms(tmp_path)["w"]] == [1, 2]
    with pytest.warns(UserWarning, match="cut short"):
        assert read_texts(tmp_path) == {"t": [(1, "text")]}


# ---- log_steps ------------------------------------------------------------------------------


def test_an_open_writer_stays_open_and_bits_per_byte_are_written(tmp_path):
    row = torch.arange(40) % V
    options = dict(evaluate=lambda model: evaluate_loss(model, row), eval_every=2)
    with SummaryWriter(str(tmp_path)) as writer:
        steps = list(
            log_steps(train(make_model(), make_batches(), steps=4, **options), writer, bytes_per_token=2.5)
        )
        assert read_scalars(tmp_path)["loss/train"][0] == [1, 2, 3, 4]  # flushed
        writer.add_scalar("after", 1.0, 5)
    scalars = read_scalars(tmp_path)
    assert scalars["after"] == ([5], [1.0])
    wanted = [bits_per_byte(s.validation_loss, 100, 250) for s in steps if s.validation_loss is not None]
    np.testing.assert_allclose(scalars["bits_per_byte/validation"][1], wanted, rtol=1e-6)
    assert len(find_runs(tmp_path)) == 1


def test_tokens_per_second_are_of_each_step_and_not_of_the_run_before_a_resume(tmp_path):
    steps = [Step(n, 1.0, 0.1, 1.0, tokens=100 * n, seconds=2.0 * n + n // 3) for n in range(1, 6)]
    list(log_steps(iter(steps), tmp_path / "fresh"))
    assert read_scalars(tmp_path / "fresh")["tokens_per_second"][0] == [1, 2, 3, 4, 5]
    np.testing.assert_allclose(
        read_scalars(tmp_path / "fresh")["tokens_per_second"][1], [50, 50, 100 / 3, 50, 50], rtol=1e-6
    )
    list(log_steps(iter(steps[2:]), tmp_path / "resumed"))
    assert read_scalars(tmp_path / "resumed")["tokens_per_second"][0] == [4, 5]


# ---- log_parameters -------------------------------------------------------------------------


def run_logged(folder, every, steps=6, model=None, make=None, **options):
    model = make_model() if model is None else model
    optimizer = (make or (lambda m: AdamW(parameter_groups(m, 0.1), lr=0.01)))(model)
    with SummaryWriter(str(folder)) as writer:
        if every:
            log_parameters(model, optimizer, writer, every=every)
        losses = [s.loss for s in train(model, make_batches(), steps=steps, optimizer=optimizer, **options)]
    return model, losses


def test_watching_changes_nothing(tmp_path):
    plain, losses = run_logged(tmp_path / "plain", every=None)
    watched, same_losses = run_logged(tmp_path / "watched", every=1)
    assert losses == same_losses
    for a, b in zip(plain.parameters(), watched.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    "make",
    [
        lambda m: AdamW(parameter_groups(m, 0.1), lr=0.01),
        lambda m: torch.optim.AdamW(m.parameters(), lr=0.01),
        lambda m: torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9),
        muon_and_adamw,
    ],
)
def test_what_is_written_is_what_the_optimizer_saw_and_did(tmp_path, make):
    model = make_model()
    optimizer = make(model)
    seen = []
    with SummaryWriter(str(tmp_path)) as writer:
        log_parameters(model, optimizer, writer, every=2)
        for inputs, targets in make_batches(4):  # by hand, so that gradients are in sight
            loss = torch.nn.functional.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
            loss.backward()
            before = {name: (p.detach().clone(), p.grad.clone()) for name, p in model.named_parameters()}
            optimizer.step()
            after = {name: p.detach().clone() for name, p in model.named_parameters()}
            model.zero_grad()
            seen.append((before, after))
    histograms, scalars = read_histograms(tmp_path), read_scalars(tmp_path)
    names = [name for name, _ in model.named_parameters()]
    assert histograms.keys() == {f"{kind}/{name}" for kind in ("weights", "gradients") for name in names}
    for name, (kind, part) in itertools.product(names, (("weights", 0), ("gradients", 1))):
        rows = histograms[f"{kind}/{name}"]
        assert [row.step for row in rows] == [1, 2, 4]  # the first step, and every second
        for row in rows:
            values = seen[row.step - 1][0][name][part]
            assert row.counts.sum() == values.numel()
            assert row.edges[0] == values.min()
            assert row.edges[-1] == values.max()
    matrices = [name for name, p in model.named_parameters() if p.dim() >= 2]
    assert {tag for tag in scalars if tag.startswith("update")} == {f"update_ratio/{n}" for n in matrices}
    for name in matrices:
        steps, ratios = scalars[f"update_ratio/{name}"]
        assert steps == [1, 2, 4]
        wanted = [update_ratio(seen[step - 1][0][name][0], seen[step - 1][1][name]) for step in steps]
        np.testing.assert_allclose(ratios, wanted, rtol=1e-6)


def test_the_share_near_zero_is_counted_over_all_gradients(tmp_path):
    model = torch.nn.Linear(4, 2, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with SummaryWriter(str(tmp_path)) as writer:
        log_parameters(model, optimizer, writer, every=1)
        model.weight.grad = torch.tensor([[0.0, 1e-9, -5e-9, 2e-8], [1.0, -1.0, 1e-3, -1e-7]])
        optimizer.step()
    assert read_scalars(tmp_path)["gradients_near_zero"] == ([1], [3 / 8])


def test_clipping_comes_before_the_histogram(tmp_path):
    run_logged(tmp_path, every=1, steps=1, clip=1e-3)
    rows = read_histograms(tmp_path)
    largest = max(max(abs(r.edges[0]), abs(r.edges[-1])) for t in rows for r in rows[t] if "gradients" in t)
    assert 0 < largest <= 1e-3


def test_a_resumed_run_numbers_its_histograms_from_where_it_stopped(tmp_path):
    layer = torch.nn.Linear(2, 2, bias=False)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    with SummaryWriter(str(tmp_path)) as writer:
        log_parameters(layer, optimizer, writer, every=4, done=5)
        for _ in range(4):
            layer.weight.grad = torch.ones(2, 2)
            optimizer.step()
    assert [h.step for h in read_histograms(tmp_path)["weights/weight"]] == [6, 8]


def test_a_compiled_model_has_the_tags_of_the_model_inside(tmp_path):
    layer = torch.nn.Linear(2, 2, bias=False)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    with SummaryWriter(str(tmp_path)) as writer:
        log_parameters(torch.compile(layer, backend="eager"), optimizer, writer)
        layer.weight.grad = torch.ones(2, 2)
        optimizer.step()
    assert read_histograms(tmp_path).keys() == {"weights/weight", "gradients/weight"}


def test_frozen_parameters_and_infinite_gradients_are_passed_over(tmp_path):
    model = make_model()
    model.blocks[0].mlp.up.weight.requires_grad_(False)
    run_logged(tmp_path / "frozen", every=1, model=model)
    assert not any("mlp.up" in tag for tag in read_histograms(tmp_path / "frozen"))
    layer = torch.nn.Linear(2, 2, bias=False)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.0)
    with SummaryWriter(str(tmp_path / "infinite")) as writer:
        log_parameters(layer, optimizer, writer, every=1)
        layer.weight.grad = torch.tensor([[math.inf, 1.0], [math.nan, 1.0]])
        optimizer.step()
    assert not any("gradients" in tag for tag in read_histograms(tmp_path / "infinite"))


def test_removed_hooks_write_nothing_and_a_bad_interval_is_an_error(tmp_path):
    model = make_model()
    optimizer = AdamW(model.parameters())
    with SummaryWriter(str(tmp_path)) as writer:
        for hook in log_parameters(model, optimizer, writer, every=1):
            hook.remove()
        list(train(model, make_batches(), steps=2, optimizer=optimizer))
        with pytest.raises(ValueError, match=r"every=0: must be at least 1"):
            log_parameters(model, optimizer, writer, every=0)
    assert read_scalars(tmp_path) == read_histograms(tmp_path) == {}


# ---- smoothing ------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.6, 0.99])
def test_smoothing_is_a_weighted_mean_from_the_first_value_on(weight):
    values = torch.randn(40, generator=torch.Generator().manual_seed(0)).tolist()
    wanted = [
        np.average(values[: t + 1], weights=np.float64(weight) ** np.arange(t, -1.0, -1)) for t in range(40)
    ]
    np.testing.assert_allclose(smooth(values, weight), wanted, rtol=1e-9, atol=1e-12)


def test_smoothing_is_that_of_pandas():
    pandas = pytest.importorskip("pandas")
    values = [3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0]
    wanted = pandas.Series(values).ewm(alpha=0.1, adjust=True).mean()
    np.testing.assert_allclose(smooth(values, 0.9), wanted, rtol=1e-12)


def test_smoothing_passes_over_what_is_not_finite():
    smoothed = smooth([1.0, math.nan, 3.0, math.inf, 5.0], 0.5)
    assert math.isnan(smoothed[1])
    assert smoothed[3] == math.inf
    np.testing.assert_allclose([smoothed[i] for i in (0, 2, 4)], smooth([1.0, 3.0, 5.0], 0.5))
    assert smooth([], 0.5) == []
    np.testing.assert_allclose(smooth([2.5] * 9, 0.99), 2.5)


@pytest.mark.parametrize("weight", [-0.1, 1.0, 2.0])
def test_a_weight_outside_is_an_error(weight):
    with pytest.raises(ValueError, match=r"must be in \[0, 1\)"):
        smooth([1.0], weight)


def test_the_update_ratio_is_that_of_the_definition():
    before, after = torch.randn(3, 5, dtype=torch.float64), torch.randn(3, 5, dtype=torch.float64)
    wanted = np.linalg.norm((after - before).numpy()) / np.linalg.norm(before.numpy())
    assert math.isclose(update_ratio(before, after), wanted, rel_tol=1e-12)
    assert math.isclose(update_ratio(-7 * before, -7 * after), wanted, rel_tol=1e-12)  # no unit
