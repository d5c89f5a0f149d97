"""A progress bar for transformers' `Trainer`: its own adds a table row for each logged step."""

from tqdm.auto import tqdm
from transformers import PrinterCallback, TrainerCallback

from llmcourse.runtime import someone_is_watching


class TrainerBar(TrainerCallback):
    """Show steps and the last logged loss in one line, where someone is watching.

    Use it with `disable_tqdm=True`; every loss is in `trainer.state.log_history`.
    """

    def on_train_begin(self, args, state, control, **others):
        """Open the bar."""
        watched = someone_is_watching()
        self.bar = tqdm(total=state.max_steps, unit="step", leave=False, disable=not watched)

    def on_step_end(self, args, state, control, **others):
        """Move the bar to the step that was done."""
        self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args, state, control, logs=None, **others):
        """Show the last loss."""
        if "loss" in (logs or {}):
            self.bar.set_postfix(loss=f"{float(logs['loss']):.3f}", refresh=False)

    def on_train_end(self, args, state, control, **others):
        """Close the bar."""
        self.bar.close()


def quiet_libraries() -> None:
    """Silence the progress bars and the advice of transformers and datasets; bars stay where someone is watching."""
    import datasets
    import transformers

    if not someone_is_watching():
        datasets.disable_progress_bars()
        transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()


def quiet_trainer(trainer) -> None:
    """Give a `Trainer` the bar instead of its printed lines."""
    trainer.add_callback(TrainerBar)
    trainer.remove_callback(PrinterCallback)


def losses_of(trainer) -> list[float]:
    """Return the logged training losses of a `Trainer`: one for each step with `logging_steps=1`."""
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
