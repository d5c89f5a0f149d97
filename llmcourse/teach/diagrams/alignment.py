"""Pictures of learning from rewards and preferences: the loop of a policy gradient, and what DPO compares."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes

from llmcourse.teach.diagrams.draw import SMALL, arrow, box, canvas, grid, label


def policy_loop(prompt: str, answers: Sequence[str], rewards: Sequence[float]) -> Axes:
    """Draw a prompt, the group of answers that a model writes, their rewards and advantages, and the update.

    The advantages are the rewards less their mean. Raises ValueError unless there are 2 to 6 answers with
    a reward each.

    >>> axis = policy_loop("abc>", ["cba.", "cbb."], [1, 0])
    >>> [text.get_text() for text in axis.texts if text.get_text() in ("+0.50", "-0.50")]
    ['+0.50', '-0.50']
    """
    if not 2 <= len(answers) <= 6 or len(rewards) != len(answers):
        raise ValueError(f"{len(answers)} answers, {len(rewards)} rewards: give 2 to 6, with a reward each")
    mean = sum(rewards) / len(rewards)
    height = 0.27 * len(answers)
    axis = canvas(6.8, height + 1.35)
    top, middle = height + 0.75, 0.75 + height / 2
    asked = box(axis, 0.62, middle, prompt, 0.9, 0.4, "soft", SMALL)
    model = box(axis, 1.95, middle, "model", 0.9, 0.4, "query")
    columns = {
        "answers": (3.0, 0.95, [[text] for text in answers], "plain"),
        "rewards": (4.3, 0.65, [[f"{reward:g}"] for reward in rewards], "plain"),
        "advantages": (
            5.4,
            0.9,
            [[f"{reward - mean:+.2f}"] for reward in rewards],
            [["value" if reward > mean else "key" if reward < mean else "soft"] for reward in rewards],
        ),
    }
    last = None
    for name, (x, width, values, fills) in columns.items():
        cells = grid(axis, x, top, values, (), (), (width, 0.27), fills)[:, 0]
        label(axis, x + width / 2, top + 0.14, name, SMALL)
        for cell, before in zip(cells, last if last is not None else [model] * len(cells), strict=True):
            arrow(axis, before.right, cell.left, color="0.5")
        last = cells
    arrow(axis, asked.right, model.left)
    label(axis, 2.45, top + 0.32, "sampled", SMALL)
    label(axis, 4.12, top + 0.32, "a rule", SMALL)
    label(axis, 5.2, top + 0.32, f"less the mean, {mean:.2f}", SMALL)
    below = last[-1].bottom
    axis.plot([below[0], below[0], model.x], [below[1], 0.45, 0.45], color="0.2", linewidth=1)
    arrow(axis, (model.x, 0.44), model.bottom)
    label(axis, (below[0] + model.x) / 2, 0.28, "update: answers above the mean become more probable", SMALL)
    return axis


def compared_answers(
    prompt: str,
    answers: tuple[str, str],
    log_probs: tuple[float, float],
    reference: tuple[float, float],
    beta: float,
) -> Axes:
    """Draw what DPO's loss is made of: ln p of both answers, now and in the reference, rewards, and the loss.

    `answers`, `log_probs` and `reference` have the chosen answer first.

    >>> axis = compared_answers("abc>", ("cba.", "abc."), (-1.0, -3.0), (-2.0, -2.0), 0.5)
    >>> [text.get_text() for text in axis.texts if text.get_text().startswith("loss")]
    ['loss 0.313']
    """
    axis = canvas(6.8, 1.9)
    rewards = [beta * (now - before) for now, before in zip(log_probs, reference, strict=True)]
    margin = rewards[0] - rewards[1]
    asked = box(axis, 0.55, 0.8, prompt, 0.8, 0.4, "soft", SMALL)
    ends = []
    for y, kind, fill, answer, now, before, reward in zip(
        (1.2, 0.4), ("chosen", "rejected"), ("value", "key"), answers, log_probs, reference, rewards, strict=True
    ):  # fmt: skip
        written = box(axis, 1.85, y, answer, 0.9, 0.3, fill, SMALL)
        label(axis, 1.85, y - 0.26, kind, SMALL)
        arrow(axis, asked.right, written.left)
        difference = box(axis, 3.4, y, f"{now:.2f} - ({before:.2f})", 1.3, 0.3, "plain", SMALL)
        arrow(axis, written.right, difference.left)
        found = box(axis, 4.85, y, f"{reward:+.2f}", 0.7, 0.3, fill, SMALL)
        arrow(axis, difference.right, found.left)
        ends.append(found)
    loss = math.log1p(math.exp(-margin))
    result = box(axis, 6.15, 0.8, f"margin {margin:+.2f}", 0.95, 0.3, "soft", SMALL)
    for end in ends:
        arrow(axis, end.right, result.left)
    label(axis, 6.15, 0.5, f"loss {loss:.3f}", SMALL)
    for x, text in ((3.4, "ln p now - reference"), (4.85, f"times {beta:g}"), (6.15, "difference")):
        label(axis, x, 1.62, text, SMALL)
    return axis
