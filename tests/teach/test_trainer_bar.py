"""The bar of transformers' Trainer: one line, where someone is watching."""

import io
import types

import pytest

from llmcourse.teach import trainer_bar
from llmcourse.teach.trainer_bar import TrainerBar


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
