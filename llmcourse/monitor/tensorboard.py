"""Write a run to TensorBoard's event files, and read event files back into numbers and texts."""

import contextlib
import itertools
import math
import os
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from llmcourse.evaluate.likelihood import bits_per_byte
from llmcourse.runtime import leave_tensorflow_out
from llmcourse.training import Step
from llmcourse.weights import unwrap


def log_steps(steps: Iterable[Step], log_dir, *, bytes_per_token: float | None = None) -> Iterator[Step]:
    """Pass each `Step` on and write it as scalars: put it around `train(...)`.

    `log_dir` is a folder, or an open SummaryWriter, which stays open. Tags: loss/train,
    loss/validation, learning_rate, gradient_norm, tokens_per_second, and with `bytes_per_token`
    (of the validation text) bits_per_byte/validation. The file is flushed when the run ends, also
    by an error or an interruption.

    A folder may hold an earlier file, of a run that crashed after its checkpoint: the new file says
    at which step it begins, and readers drop what the earlier one has from that step on, of every
    kind. A writer of your own says so with `SummaryWriter(folder, purge_step=first_step)`; for
    TensorBoard's own server the first writer of the folder must say it too (purge_step=1).
    """
    leave_tensorflow_out()
    from torch.utils.tensorboard import SummaryWriter

    steps, given = iter(steps), isinstance(log_dir, SummaryWriter)
    first = next(steps, None)
    if first is None:
        return
    # a fresh run has a mark too: TensorBoard's own server takes the first of a folder for no restart
    writer = log_dir if given else SummaryWriter(str(log_dir), purge_step=first.step)
    with contextlib.nullcontext() if given else writer:
        tokens, seconds = 0, 0.0
        try:
            for step in itertools.chain([first], steps):
                writer.add_scalar("loss/train", step.loss, step.step)
                writer.add_scalar("learning_rate", step.lr, step.step)
                writer.add_scalar("gradient_norm", step.grad_norm, step.step)
                if step.seconds > seconds and (tokens or step.step == 1):  # not after a resume
                    speed = (step.tokens - tokens) / (step.seconds - seconds)
                    writer.add_scalar("tokens_per_second", speed, step.step)
                tokens, seconds = step.tokens, step.seconds
                if step.validation_loss is not None:
                    writer.add_scalar("loss/validation", step.validation_loss, step.step)
                    if bytes_per_token is not None:
                        bits = bits_per_byte(step.validation_loss, 1, bytes_per_token)
                        writer.add_scalar("bits_per_byte/validation", bits, step.step)
                yield step
        finally:
            writer.flush()


def log_parameters(
    model: nn.Module, optimizer: torch.optim.Optimizer, writer, every: int = 50, done: int = 0
) -> list:
    """From now on, write what the optimizer sees and does, at its first step and every `every` steps.

    Histograms weights/NAME and gradients/NAME (after clipping) of each parameter; scalars
    update_ratio/NAME, the length of the update over that of the weights, for each matrix, and
    gradients_near_zero, the share of gradient entries below 1e-8, where AdamW no longer takes full
    steps. Gradients live between `backward` and `zero_grad` only, so this hooks into
    `optimizer.step`; `hook.remove()` for each hook of the returned list ends it. A resumed run has
    `done` steps behind it, and numbers its own from there on.

    Raises ValueError when `every` is below 1.
    """
    if every < 1:
        raise ValueError(f"every={every}: must be at least 1; 50 is a good start")
    model, parts = unwrap(model), getattr(optimizer, "optimizers", [optimizer])  # of an OptimizerList
    count, before = done, {}

    def is_time() -> bool:
        return count == done + 1 or count % every == 0

    @torch.no_grad()
    def before_step(*_) -> None:
        nonlocal count
        count += 1
        before.clear()
        if not is_time():
            return
        small, total = 0, 0
        for name, p in model.named_parameters():
            if p.grad is None:
                continue
            before[name] = p.detach().clone()
            small += int((p.grad.abs() < 1e-8).sum())
            total += p.grad.numel()
            for kind, values in (("weights", p), ("gradients", p.grad)):
                if torch.isfinite(values).all():  # numpy draws no histogram of NaN or infinity
                    writer.add_histogram(f"{kind}/{name}", values.float(), count)
        writer.add_scalar("gradients_near_zero", small / max(1, total), count)

    @torch.no_grad()
    def after_step(*_) -> None:
        for name, p in model.named_parameters():
            if name in before and p.dim() >= 2:
                writer.add_scalar(f"update_ratio/{name}", update_ratio(before[name], p), count)

    return [parts[0].register_step_pre_hook(before_step), parts[-1].register_step_post_hook(after_step)]


def update_ratio(before: torch.Tensor, after: torch.Tensor) -> float:
    """Return |after - before| / |before|, Euclidean: how far a step moved the weights, for their size.

    >>> round(update_ratio(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.1])), 4)
    0.02
    """
    return ((after - before).norm() / before.norm()).item()


def smooth(values: Iterable[float], weight: float) -> list[float]:
    """Return the running mean that TensorBoard's smoothing slider draws, `weight` its position.

    Each value counts `weight` times as much as the next one, and the weights are made to sum to 1
    from the first value on. Values that are not finite are passed through and leave the mean as it
    was. Raises ValueError for a weight outside [0, 1).

    >>> [round(x, 4) for x in smooth([1.0, 1.0, 4.0], weight=0.5)]
    [1.0, 1.0, 2.7143]

    Source: Kingma & Ba 2014, arXiv:1412.6980, sec. 3, for the correction.
    """
    if not 0 <= weight < 1:
        raise ValueError(f"weight={weight}: must be in [0, 1); 0 leaves the values as they are")
    mean, count, smoothed = 0.0, 0, []
    for value in map(float, values):
        if math.isfinite(value):
            mean, count = weight * mean + (1 - weight) * value, count + 1
            value = mean / (1 - weight**count)
        smoothed.append(value)
    return smoothed


class Histogram(NamedTuple):
    """One histogram of a log: `counts` (n,) between `edges` (n + 1,), at a step."""

    step: int
    edges: np.ndarray
    counts: np.ndarray


def find_runs(log_dir: str | Path) -> list[str]:
    """Return the names of the runs below `log_dir`, as TensorBoard lists them: a run is a folder
    with event files, named by its path ("." for `log_dir` itself).

    Links to folders are followed, so a run has as many names as there are ways to it; a link that
    leads back to a folder above itself is passed over.
    """
    runs, above = [], {os.fspath(log_dir): set()}  # of each folder: what a link below it must not lead to
    for folder, names, _ in os.walk(log_dir, followlinks=True):
        here = Path(os.path.realpath(folder))
        chain = above.pop(folder) | {here, *here.parents}
        names[:] = [n for n in names if Path(os.path.realpath(os.path.join(folder, n))) not in chain]
        above |= {os.path.join(folder, name): chain for name in names}
        if _event_files(folder):
            runs.append(Path(os.path.relpath(folder, log_dir)).as_posix())
    return sorted(runs)


def _event_files(folder: str | Path) -> list[Path]:
    """Return the event files in `folder`; TensorBoard, too, knows them by this part of their names."""
    return sorted(path for path in Path(folder).glob("*tfevents*") if path.is_file())


def _events(path: Path) -> list:
    """Return the events of one file; a warning says what could not be read."""
    leave_tensorflow_out()
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event

    events, used = [], 0
    for record in RawEventFileLoader(str(path)).Load():
        used += len(record) + 16  # 8 bytes of length, and two checksums of 4
        events.append(Event.FromString(record))
    if rest := path.stat().st_size - used:
        steps = [event.step for event in events if event.HasField("summary")]
        warnings.warn(
            f"{path.name}: the last {rest} bytes cannot be read, because the file was cut short or "
            f"damaged, or is still being written; {len(steps)} records before them are whole"
            + (f", the last at step {steps[-1]}" if steps else ""),
            stacklevel=4,
        )
    return events


def _values(log_dir: str | Path):
    """Return (event, value, plugin) for all values in the event files of one folder, in order.

    A file may begin with a mark that a run was taken up again at a step: what was written before
    the mark, from that step on, is dropped, as TensorBoard's `EventAccumulator` does.
    """
    paths = _event_files(log_dir)
    if not paths:
        raise FileNotFoundError(
            f"{log_dir} holds no TensorBoard event file: wrap a run in log_steps(..., {str(log_dir)!r}) "
            f"first, or name one of the runs below it: {find_runs(log_dir)[:5]}"
        )
    files = [events for path in paths if (events := _events(path))]
    files.sort(key=lambda events: events[0].wall_time)
    plugins = {"simple_value": "scalars", "histo": "histograms"}  # how older writers mark them
    found = []
    for event in itertools.chain.from_iterable(files):
        if event.HasField("session_log") and event.session_log.status == event.session_log.START:
            step, time = event.step, event.wall_time  # a writer that is still open writes on after it
            found = [row for row in found if row[0].step < step or row[0].wall_time > time]
        for value in event.summary.value:
            new_kind = value.metadata.plugin_data.plugin_name  # perhaps only at a tag's first value
            kind = plugins.get(value.WhichOneof("value")) or new_kind or plugins.get("tag " + value.tag)
            plugins["tag " + value.tag] = kind
            found.append((event, value, kind))
    return found


def _array(value) -> np.ndarray:
    """Return the numbers of a value, which older writers (torch's too) store in their own fields."""
    leave_tensorflow_out()
    from tensorboard.data_compat import migrate_value
    from tensorboard.util.tensor_util import make_ndarray

    return make_ndarray(migrate_value(value).tensor)


def _number(value) -> float:
    return value.simple_value if value.WhichOneof("value") == "simple_value" else _array(value).item()


def read_scalars(log_dir: str | Path, x: str = "step") -> dict[str, tuple[list, list[float]]]:
    """Return, for each tag in the event files of `log_dir`, its steps and its values.

    `x="seconds"` gives seconds since the first value in place of steps. A file that was cut short
    gives what is whole, and a warning. Where a run was taken up again at an earlier step, the later
    values count, if its writer said so (`log_steps` does); else all are there, in order of writing.
    Raises FileNotFoundError when the folder holds no event file.
    """
    if x not in ("step", "seconds"):
        raise ValueError(f"x={x!r} is unknown: choose 'step' or 'seconds'")
    curves: dict[str, tuple[list, list[float]]] = {}
    start = None
    for event, value, kind in _values(log_dir):
        if kind == "scalars":
            start = event.wall_time if start is None else start
            places, numbers = curves.setdefault(value.tag, ([], []))
            places.append(event.step if x == "step" else event.wall_time - start)
            numbers.append(_number(value))
    return curves


def read_histograms(log_dir: str | Path) -> dict[str, list[Histogram]]:
    """Return, for each tag in the event files of `log_dir`, its histograms in the order of writing."""
    found: dict[str, list[Histogram]] = {}
    for event, value, kind in _values(log_dir):
        if kind == "histograms" and len(rows := _array(value)):  # (n, 3): left, right, count
            edges = np.append(rows[:, 0], rows[-1, 1])
            found.setdefault(value.tag, []).append(Histogram(event.step, edges, rows[:, 2]))
    return found


def read_texts(log_dir: str | Path) -> dict[str, list[tuple[int, str]]]:
    """Return, for each tag in the event files of `log_dir`, its texts as (step, text)."""
    found: dict[str, list[tuple[int, str]]] = {}
    for event, value, kind in _values(log_dir):
        if kind == "text":
            text = value.tensor.string_val[0].decode("utf-8")
            found.setdefault(value.tag.removesuffix("/text_summary"), []).append((event.step, text))
    return found


def read_hparams(log_dir: str | Path) -> dict[str, dict]:
    """Return, for each run below `log_dir` that logged hyper-parameters, their values and the last
    value of each metric that `add_hparams` named, in one dict."""
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    table = {}
    for run in find_runs(log_dir):
        row, metrics, last = {}, [], {}
        for _, value, kind in _values(Path(log_dir) / run):
            if kind == "scalars":
                last[value.tag] = _number(value)
            elif kind == "hparams":
                data = HParamsPluginData.FromString(value.metadata.plugin_data.content)
                chosen = data.session_start_info.hparams
                row |= {k: getattr(v, v.WhichOneof("kind")) for k, v in sorted(chosen.items())}
                metrics += [metric.name.tag for metric in data.experiment.metric_infos]
        if row:
            table[run] = row | {tag: last[tag] for tag in metrics if tag in last}
    return table
