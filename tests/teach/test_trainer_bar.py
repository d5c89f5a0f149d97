"""The bar of transformers' Trainer: one line, where someone is watching."""

import io
import types

import datasets
import pytest
import transformers

from llmcourse.teach import trainer_bar
from llmcourse.teach.trainer_bar import TrainerBar, losses_of, quiet_libraries


@pytest.mark.parametrize("watched", [True, False])
def test_a_run_of_200_logged_steps_takes_one_line(watched, monkeypatch):
    """transformers' own NotebookProgressCallback adds a table row for each logged step."""
    screen, real = io.StringIO(), trainer_bar.tqdm
    monkeypatch.setattr(trainer_bar, "someone_is_watching", lambda: watched)
    monkeypatch.setattr(trainer_bar, "tqdm", lambda **options: real(**options, file=screen, mininterval=0))
    bar, state = TrainerBar(), types.SimpleNamespace(max_steps=200, global_step=0)
    bar.on_train_begin(None, state, None)
    for step in range(1, 201):
        state.global_step = step
        bar.on_step_end(None, state, None, model=None)
        bar.on_log(None, state, None, logs={"loss": 1 / step, "learning_rate": 1e-4})
    bar.on_log(None, state, None, logs={"train_runtime": 8.0})  # at the end, without a loss
    bar.on_train_end(None, state, None)
    text = screen.getvalue()
    assert "\n" not in text
    assert ("200/200" in text) is watched
    assert ("loss=0.005" in text) is watched


def test_the_losses_of_a_trainer_are_those_of_training():
    log = [{"loss": 1.0, "step": 1}, {"eval_loss": 2.0}, {"loss": 0.5, "step": 2}, {"train_loss": 0.75}]
    assert losses_of(types.SimpleNamespace(state=types.SimpleNamespace(log_history=log))) == [1.0, 0.5]


def test_quiet_libraries_keeps_bars_for_who_is_watching(monkeypatch):
    bars = []
    monkeypatch.setattr(transformers.logging, "disable_progress_bar", lambda: None)
    monkeypatch.setattr(transformers.logging, "set_verbosity_error", lambda: None)
    monkeypatch.setattr(datasets, "disable_progress_bars", lambda: bars.append("datasets"))
    for watched, expected in ((True, []), (False, ["datasets"])):
        monkeypatch.setattr(trainer_bar, "someone_is_watching", lambda watched=watched: watched)
        quiet_libraries()
        assert bars == expected
