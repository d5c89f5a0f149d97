"""Pictures of rewards and preferences: what they say is true, and no text lies where it cannot be read."""

import math

import numpy as np
import pytest
from diagram_tools import problems, text_at

from llmcourse.teach.diagrams.alignment import compared_answers, policy_loop

ANSWERS = ["egbafd.", "egbfad.", "egbaf.", "dfabge.", "egbafd.", "eeeeeee"]


@pytest.mark.parametrize("rewards", [[1, 0], [1, 0, 0, 0], [0.5, 0.25, 0, 1, 0.75, 0], [0, 0, 0]])
def test_each_answer_stands_beside_its_reward_and_its_advantage(rewards):
    answers = [f"{answer[:-1]}{i}" for i, answer in enumerate(ANSWERS[: len(rewards)])]
    axis = policy_loop("dfabge>", answers, rewards)
    assert problems(axis) == []
    texts = [text.get_text() for text in axis.texts]
    for advantage in np.array(rewards) - np.mean(rewards):
        assert f"{advantage:+.2f}" in texts
    assert f"less the mean, {np.mean(rewards):.2f}" in texts
    heights = [text_at(axis, answer)[1] for answer in answers]
    assert heights == sorted(heights, reverse=True)


@pytest.mark.parametrize(("answers", "rewards"), [(["a"], [1]), (["a", "b"], [1]), (["a"] * 7, [1] * 7)])
def test_groups_that_do_not_fit_are_refused(answers, rewards):
    with pytest.raises(ValueError, match="give 2 to 6"):
        policy_loop("a>", answers, rewards)


@pytest.mark.parametrize("beta", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("now", [(-1.0, -3.0), (-12.34, -45.6)])
def test_the_loss_is_that_of_the_numbers_shown(now, beta):
    before = (-2.5, -2.0)
    axis = compared_answers("dfabge>", ("egbafd.", "dfabge."), now, before, beta)
    assert problems(axis) == []
    margin = beta * ((now[0] - before[0]) - (now[1] - before[1]))
    text_at(axis, f"loss {math.log1p(math.exp(-margin)):.3f}")
    text_at(axis, f"margin {margin:+.2f}")
    assert (
        text_at(axis, f"{now[0]:.2f} - ({before[0]:.2f})")[1]
        > text_at(axis, f"{now[1]:.2f} - ({before[1]:.2f})")[1]
    )
