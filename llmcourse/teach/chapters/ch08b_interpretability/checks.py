"""Exercises of chapter 8b: attention without one head, and the effect of a patch."""

import torch
from torch import Tensor

import llmcourse.teach.chapters.ch08b_interpretability.score_checks  # noqa: F401 - registers two more
from llmcourse.teach.examine import examine
from llmcourse.teach.exercises import exercise
from llmcourse.teach.forms import number, tensor


def _project(heads: Tensor, weight: Tensor) -> Tensor:
    return heads.flatten(2) @ weight.T  # (B, T, H, D), (C, H·D) -> (B, T, C)


def _without(heads: Tensor, weight: Tensor, place) -> Tensor:
    """Project the heads' outputs, of which `place` is set to 0 first."""
    heads = heads.clone()
    heads[place] = 0
    return _project(heads, weight)


def _heads_case(seed: int, sizes: tuple[int, int, int, int], head: int) -> tuple:
    B, T, H, D = sizes
    generator = torch.Generator().manual_seed(seed)
    heads = torch.randn(B, T, H, D, generator=generator)
    return heads, torch.randn(H * D, H * D, generator=generator), head


@exercise(
    "08b-ablate",
    "Take one head out",
    minutes=5,
    difficulty=1,
    hints=(
        "Work on a copy, heads.clone(), and set the slice [:, :, h] to 0: B and T stand before it, D behind it.",
        "Put the heads side by side again, flatten(2): (B, T, H, D) becomes (B, T, H·D).",
        "nn.Linear stores its weight as (out, in), so the projection is x @ W.T.",
    ),
    wants="function",
    form=tensor,
)
def check_ablate(answer):
    """The output projection of all heads but one."""
    cases = {
        "for 2 texts of 3 tokens, 2 heads of width 4, and h = 1 your result differs from the right one by up to "
        "{difference}": _heads_case(0, (2, 3, 2, 4), 1),
        "right for the last of 2 heads, but for h = 2 of 4 heads you get something else": _heads_case(
            1, (1, 5, 4, 3), 2
        ),
        "right for 2 and 4 heads, but for h = 0 of 3 heads you get something else": _heads_case(
            2, (3, 4, 3, 2), 0
        ),
    }

    def right(heads, weight, h):
        return _without(heads, weight, (slice(None), slice(None), h))

    def alone(heads, weight, h):
        return _project(heads, weight) - right(heads, weight, h)

    def output_zeroed(heads, weight, h):
        output, D = _project(heads, weight), heads.shape[-1]
        output[..., h * D : (h + 1) * D] = 0
        return output

    def every_column(heads, weight, h):
        x = heads.flatten(2).clone()
        x[..., h :: heads.shape[2]] = 0
        return x @ weight.T

    slips = {
        "that is what head h adds, and it alone: return what all the others add": alone,
        "nothing is taken out: that is the output with all heads": lambda heads, weight, h: _project(
            heads, weight
        ),
        "you took out another head: they are counted from 0": (
            lambda heads, weight, h: right(heads, weight, h - 1),
            lambda heads, weight, h: right(heads, weight, (h + 1) % heads.shape[2]),
        ),
        "you set columns of the RESULT to 0: the projection spreads each head over all of its columns, so the head "
        "must be set to 0 before it": output_zeroed,
        "you set every H-th column to 0: a head has D columns that stand next to each other": every_column,
        "W stands the wrong way round: nn.Linear stores (out, in), so multiply by W.T": (
            lambda heads, weight, h: right(heads, weight.T, h)
        ),
        "the heads that stay are as they were: do not scale them up, as dropout would": (
            lambda heads, weight, h: right(heads, weight, h) * heads.shape[2] / (heads.shape[2] - 1)
        ),
        "you set the first or the h-th number of every head to 0: head h is the slice [:, :, h]": (
            lambda heads, weight, h: _without(heads, weight, (..., h % heads.shape[-1])),
        ),
    }
    examine(answer, right, cases, slips, "(B, T, C)")
    return "and what head h adds is the difference: the heads' contributions are summed."


def _difference(logits: Tensor, right: Tensor, wrong: Tensor) -> Tensor:
    rows = torch.arange(len(logits))
    return logits[rows, right] - logits[rows, wrong]  # (B,)


def _effect_case(seed: int, B: int, V: int) -> tuple:
    generator = torch.Generator().manual_seed(seed)
    clean, corrupted, patched = (2 * torch.randn(B, V, generator=generator) for _ in range(3))
    right = torch.randint(V, (B,), generator=generator)
    wrong = (right + torch.randint(1, V, (B,), generator=generator)) % V
    rows = torch.arange(B)
    clean[rows, right] += 5
    corrupted[rows, wrong] += 4
    patched[rows, right] += 2
    return clean, corrupted, patched, right, wrong


@exercise(
    "08b-effect",
    "How much of the answer came back?",
    minutes=6,
    difficulty=2,
    hints=(
        "The logits of the right tokens are logits[torch.arange(len(logits)), right], one for each row.",
        "Take the mean of right less wrong over the rows, once for each of the three runs.",
        "0 is the corrupted run and 1 the clean one: (patched - corrupted) / (clean - corrupted).",
    ),
    wants="function",
    form=number,
)
def check_effect(answer):
    """The normalized effect of a patch on the mean difference of two logits."""
    cases = {
        "for 3 texts you get {value}; it is {right}": _effect_case(0, 3, 6),
        "right for 3 texts, but for 5 others you get {value}; it is {right}": _effect_case(1, 5, 11),
        "right for several texts, but for a single one you get {value}; it is {right}": _effect_case(2, 1, 8),
    }

    def means(clean, corrupted, patched, right, wrong):
        return [_difference(logits, right, wrong).mean() for logits in (clean, corrupted, patched)]

    def effect(*parts):
        clean, corrupted, patched = means(*parts)
        return ((patched - corrupted) / (clean - corrupted)).item()

    def of_rows(clean, corrupted, patched, right, wrong):
        a, b, c = (_difference(logits, right, wrong) for logits in (clean, corrupted, patched))
        return ((c - b) / (a - b)).mean().item()

    def right_alone(clean, corrupted, patched, right, wrong):
        a, b, c = (logits[torch.arange(len(right)), right].mean() for logits in (clean, corrupted, patched))
        return ((c - b) / (a - b)).item()

    def by_probability(clean, corrupted, patched, right, wrong):
        return effect(clean.softmax(-1), corrupted.softmax(-1), patched.softmax(-1), right, wrong)

    def first_row(*parts):
        return effect(*(part[:1] for part in parts))

    def share_right(clean, corrupted, patched, right, wrong):
        a, b, c = ((logits.argmax(-1) == right).float().mean() for logits in (clean, corrupted, patched))
        return ((c - b) / (a - b)).nan_to_num(0.0, 0.0, 0.0).item()

    slips = {
        "take the means first and divide once: a mean of ratios is ruled by the rows whose clean and corrupted runs "
        "hardly differ": of_rows,
        "your scale runs the other way: 0 is the corrupted run and 1 the clean one": (
            lambda *parts: 1 - effect(*parts)
        ),
        "divide by what there is to win, clean less corrupted": (
            lambda *parts: (means(*parts)[2] - means(*parts)[1]).item()
        ),
        "divide by clean less corrupted, not by clean alone": (
            lambda *parts: ((means(*parts)[2] - means(*parts)[1]) / means(*parts)[0]).item(),
        ),
        "subtract the corrupted run above and below: its difference is what 0 means": (
            lambda *parts: (means(*parts)[2] / means(*parts)[0]).item()
        ),
        "that is the logit of the right token alone: subtract the wrong one's, else a patch that raises both looks "
        "like a success": right_alone,
        "use the logits: probabilities are full at 1, and hide most of an effect": by_probability,
        "that is the first text alone: take the mean over all": first_row,
        "you count right answers: measure the difference of the two logits": share_right,
    }
    examine(answer, effect, cases, slips)
    return "1 brings the whole answer back, 0 nothing; it can also lie outside."
