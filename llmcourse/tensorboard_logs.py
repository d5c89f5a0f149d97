"""Write a run to TensorBoard's event files, and read event files back into numbers."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from llmcourse.training import Step


def log_steps(steps: Iterable[Step], log_dir: str | Path) -> Iterator[Step]:
    """Pass each `Step` on and write it as scalars: put it around `train(...)`.

    Tags: loss/train, loss/validation, learning_rate, gradient_norm. The file is flushed when the
    run ends, also by an error or an interruption.
    """
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(log_dir)) as writer:
        for step in steps:
            writer.add_scalar("loss/train", step.loss, step.step)
            writer.add_scalar("learning_rate", step.lr, step.step)
            writer.add_scalar("gradient_norm", step.grad_norm, step.step)
            if step.validation_loss is not None:
                writer.add_scalar("loss/validation", step.validation_loss, step.step)
            yield step


def read_scalars(log_dir: str | Path) -> dict[str, tuple[list[int], list[float]]]:
    """Return, for each tag in the event files of `log_dir`, its steps and its values.

    Raises FileNotFoundError when the folder holds no event file.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    if not list(Path(log_dir).glob("events.out.tfevents.*")):
        raise FileNotFoundError(
            f"{log_dir} holds no TensorBoard event file: wrap a run in log_steps(..., {log_dir!r}) first"
        )
    events = EventAccumulator(str(log_dir), size_guidance={"scalars": 0}).Reload()
    rows = {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}
    return {tag: ([e.step for e in row], [e.value for e in row]) for tag, row in rows.items()}
