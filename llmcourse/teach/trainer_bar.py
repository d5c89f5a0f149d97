"""A progress bar for transformers' `Trainer`: its own adds a table row for each logged step."""

from tqdm.auto import tqdm
from transformers import TrainerCallback

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
