"""Exercises of chapter 3d: fine-tuning."""

import torch

from llmcourse.compress.quantize import nf4_levels
from llmcourse.teach.examine import compare, examine
from llmcourse.teach.exercises import exercise, require
from llmcourse.teach.forms import number, tensor


@exercise(
    "03d-mask",
    "Count only the answer",
    minutes=8,
    difficulty=2,
    hints=(
        "Walk through the ids once, and remember whether the assistant is speaking.",
        "Note down the state first, then change it: the end token still belongs to the answer, the "
        "token <|assistant|> does not.",
        "The user's turns end with the same end token: outside an answer it changes nothing.",
    ),
    wants="function",
    form=tensor,
)
def check_mask(answer):
    """Two turns of each role; the usual slips, one by one."""

    def flags(ids, assistant, end):
        mask = answer(ids, assistant, end).flatten()
        size = f"return one True or False for each id: {len(ids)} of them, not {len(mask)}"
        require(len(mask) == len(ids), size)
        require(((mask == 0) | (mask == 1)).all(), "each entry must be True or False (or 1 or 0)")
        return mask

    def right(ids, assistant, end):
        """True where the last <|assistant|> or <|end|> before a place is <|assistant|>."""
        before = [[x for x in ids[:t] if x in (assistant, end)] for t in range(len(ids))]
        return torch.tensor([bool(marks) and marks[-1] == assistant for marks in before]).float()

    def places(ids, token):
        return (torch.tensor(ids) == token).float()

    def started(ids, a, e):  # from the first answer on
        return right(ids, a, e).cummax(0).values

    def first_only(ids, a, e):
        ended = (right(ids, a, e) * places(ids, e)).cumsum(0)
        return right(ids, a, e) * (ended - right(ids, a, e) * places(ids, e) == 0)

    def finished(ids, a, e):  # without an answer that was cut
        last = max((t for t, x in enumerate(ids) if x == e), default=-1)
        return right(ids, a, e) * (torch.arange(len(ids)) <= last)

    chat = [90, 1, 2, 3, 92, 91, 4, 5, 92, 90, 6, 92, 91, 7, 92]
    cases = {
        f"for {chat} you return {{value}}, expected {{right}}": (chat, 91, 92),
        "a chat without an answer has nothing to count, and yours counts something": ([90, 1, 2, 92], 91, 92),
        "an answer that was cut before its end token still counts as far as it goes": (
            [90, 1, 92, 91, 5, 6],
            91,
            92,
        ),
        "right for the ids 91 and 92, but not for others: use assistant_id and end_id": (
            [4, 9, 8, 91, 4, 8, 92],
            9,
            8,
        ),
    }
    slips = {
        "nothing counts in your mask: the loss would have nothing to learn from": lambda ids, a, e: (
            torch.zeros(len(ids))
        ),
        "your mask is inside out: True is where the loss counts the target": lambda *chat: 1 - right(*chat),
        "everything counts in yours: the questions are to be read, not to be learned": (
            lambda ids, a, e: torch.ones(len(ids))
        ),
        "after an answer has ended, the next turn of the user must not count: switch off": started,
        "<|assistant|> itself must not count: it is given to the model, which writes what follows": (
            lambda ids, a, e: right(ids, a, e).maximum(places(ids, a))
        ),
        "the end token of the answer must count, or the model never learns to stop": (
            lambda ids, a, e: right(ids, a, e) * (1 - places(ids, e))
        ),
        "a turn of the user counts in yours, its end token perhaps: only answers must": (
            lambda ids, a, e: right(ids, a, e).maximum(places(ids, e))
        ),
        "you stop after the first answer: a chat may have several turns": first_only,
        "an answer that was cut before its end token still counts as far as it goes": finished,
        "yours is one place too early: say of each id itself whether it counts, not of the one after it": (
            lambda *chat: torch.cat([right(*chat)[1:], torch.zeros(1)])
        ),
        "yours is one place too late: say of each id itself whether it counts": (
            lambda *chat: torch.cat([torch.zeros(1), right(*chat)[:-1]])
        ),
    }
    examine(flags, right, cases, slips)
    return "the answers and their end tokens count, and the questions are only read."


@exercise(
    "03d-lora",
    "Add a low-rank correction",
    minutes=6,
    difficulty=2,
    hints=(
        "The frozen part is x @ W.T, as in nn.Linear.",
        "The correction goes through the narrow place first: x times A transposed is (..., r).",
        "The rank r is the number of rows of A; the factor is alpha / r.",
    ),
    wants="function",
    form=tensor,
)
def check_lora(answer):
    """Compare with the merged weight; tell the usual slips apart."""
    generator = torch.Generator().manual_seed(0)
    x, W, A, B = (torch.randn(shape, generator=generator) for shape in ((2, 3, 6), (4, 6), (2, 6), (4, 2)))
    cases = {
        "for a random example the result is not x Wᵀ + (alpha / r) x Aᵀ Bᵀ": (x, W, A, B, 8.0),
        "with B = 0 the output must be that of the frozen layer": (x, W, A, torch.zeros(4, 2), 8.0),
        "right for one example, but not for a single vector with rank 1: take r from A.shape[0]": (
            x[0, 0],
            W,
            A[:1],
            B[:, :1],
            3.0,
        ),
    }

    def lora(factor=lambda A, B, alpha: alpha / len(A), frozen=1.0):
        return lambda x, W, A, B, alpha: frozen * x @ W.T + factor(A, B, alpha) * (x @ A.T @ B.T)

    slips = {
        "the correction is missing: that is the frozen layer alone": lora(lambda A, B, alpha: 0),
        "the frozen layer is missing: that is the correction alone": lora(frozen=0),
        "the factor alpha / r is missing": lora(lambda A, B, alpha: 1),
        "you multiply by alpha, and do not divide by the rank r": lora(lambda A, B, alpha: alpha),
        "you divide by the rank r, and do not multiply by alpha": lora(lambda A, B, alpha: 1 / len(A)),
        "you divide by alpha and multiply by r: the factor is alpha / r": lora(
            lambda A, B, alpha: len(A) / alpha
        ),
        "the factor belongs to the correction only, not to the frozen layer": (
            lambda x, W, A, B, alpha: alpha / len(A) * (x @ W.T + x @ A.T @ B.T)
        ),
        "the rank is the number of ROWS of A; you divide by its columns": lora(
            lambda A, B, alpha: alpha / A.shape[1]
        ),
        "the rank is the number of columns of B; you divide by its rows": lora(
            lambda A, B, alpha: alpha / len(B)
        ),
        "divide by r, not by its root (that is a variant, rsLoRA)": lora(
            lambda A, B, alpha: alpha / len(A) ** 0.5
        ),
        "the correction is added, not taken away": lora(lambda A, B, alpha: -alpha / len(A)),
        "right for rank 2 only: take r from A.shape[0]": lora(lambda A, B, alpha: alpha / 2),
    }
    right = lambda x, W, A, B, alpha: x @ (W + alpha / len(A) * B @ A).T  # noqa: E731
    examine(answer, right, cases, slips, "(..., out)", rtol=1e-4, atol=1e-4)
    return "it equals the layer with the weight W + (alpha / r) B A, so merging is exact."


@exercise(
    "03d-parameters",
    "Count what LoRA trains",
    minutes=3,
    difficulty=1,
    hints=(
        "A is r x in and B is out x r: two thin matrices.",
        "Together r times (in + out), here with in + out = 11,008 + 4,096.",
    ),
    wants="value",
    form=number,
)
def check_parameters(answer):
    """8 x (11,008 + 4,096)."""
    whole, right = 11_008 * 4_096, 8 * (11_008 + 4_096)
    slips = {
        "that is the whole matrix, which stays frozen": whole,
        "that is one of the two matrices, B: A is missing": 8 * 11_008,
        "that is one of the two matrices, A: B is missing": 8 * 4_096,
        "that is rank 1: with rank r there are r times as many": 11_008 + 4_096,
        "add the two sides, do not multiply them: A and B are two matrices": 8 * whole,
        "that includes the frozen matrix: count only what is trained": right + whole,
        "that is a share: give the number of parameters": (right / whole, 100 * right / whole),
        "there are two matrices, of r x in and of out x r: yours count twice": 2 * right,
    }
    compare(answer, right, slips, "{value} is not r x in + out x r", rtol=0, atol=1e-3)
    return "0.27 % of the 45,088,768 weights of that matrix."


@exercise(
    "03d-nf4",
    "Round one block of weights",
    minutes=8,
    difficulty=2,
    hints=(
        "The scale is the largest magnitude: the maximum of block.abs(), not of block.",
        "block[:, None] - levels is a table (G, 16) of differences: which column is nearest in each row?",
        "argmin gives indices; levels[indices] gives values between -1 and 1. Scale them back.",
    ),
    wants="function",
    form=tensor,
)
def check_nf4(answer):
    """Compare with the definition; catch a signed scale, floor, indices, and a missing scale."""
    generator = torch.Generator().manual_seed(0)
    block = torch.tensor([0.11, -0.5, 0.02, 0.37, -0.21, 0.0, 0.3, -0.44])
    few = torch.tensor([-1.0, 0.0, 0.5, 1.0])
    cases = {
        "a value is not the nearest level: compare abs(block / scale - level) for all 16 levels": (
            block,
            nf4_levels(),
        ),
        "right for that block, but not for another one with other levels: use what is given": (
            torch.randn(64, generator=generator),
            few,
        ),
        "right for those blocks, but not for one of 7 large weights": (
            5 * torch.randn(7, generator=generator),
            nf4_levels(),
        ),
    }

    def rounded(scale=lambda b: b.abs().max(), back=True):
        def function(b, levels):
            index = (b[:, None] / scale(b) - levels).abs().argmin(1)
            return levels[index] * (scale(b) if back else 1)

        return function

    def below(b, levels):
        scale = b.abs().max()
        return levels[torch.bucketize(b / scale, levels, right=True) - 1] * scale

    def above(b, levels):
        scale = b.abs().max()
        return levels[torch.bucketize(b / scale, levels)] * scale

    slips = {
        "nothing was rounded: replace each value by the nearest level": lambda b, levels: b,
        "these are the indices of the levels: look the levels up, and scale back": (
            lambda b, levels: (b[:, None] / b.abs().max() - levels).abs().argmin(1)
        ),
        "these are still between -1 and 1: multiply by the scale again": rounded(back=False),
        "you take the next level BELOW; the nearest may be above": below,
        "you take the next level ABOVE; the nearest may be below": above,
        "the scale is the largest MAGNITUDE; yours ignores negative weights": rounded(lambda b: b.max()),
        "divide by the largest magnitude, not by the standard deviation": (
            rounded(lambda b: b.std()),
            rounded(lambda b: b.std(correction=0)),
        ),
        "divide by the largest magnitude, not by the mean one": rounded(lambda b: b.abs().mean()),
        "divide by the largest magnitude, not by the length of the block": rounded(lambda b: b.norm()),
        "you round without dividing by the scale first": rounded(lambda b: 1),
        "you round without dividing by the scale first, and multiply afterwards": (
            lambda b, levels: rounded(lambda b: 1)(b, levels) * b.abs().max()
        ),
    }
    examine(answer, rounded(), cases, slips, "(G,), one value for each weight", atol=1e-5)
    return "the largest weight of the block survives exactly, and the others move to their nearest level."
