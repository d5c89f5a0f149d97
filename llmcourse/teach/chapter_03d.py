"""Exercises of chapter 3d: fine-tuning."""

import torch

from llmcourse.compress.quantize import nf4_levels
from llmcourse.teach.checks import tensor
from llmcourse.teach.exercises import exercise, require


def answer_mask(token_ids, assistant_id, end_id):
    """True for each id that an assistant has to write: its text and its end token."""
    mask, speaking = [], False
    for token in token_ids:
        mask.append(speaking)
        if token == assistant_id:
            speaking = True
        elif token == end_id:
            speaking = False
    return mask


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
    solution=answer_mask,
)
def check_mask(answer):
    """Two turns of each role; the usual slips, one by one."""
    user, assistant, end = 90, 91, 92
    ids = [user, 1, 2, 3, end, assistant, 4, 5, end, user, 6, end, assistant, 7, end]
    right = answer_mask(ids, assistant, end)

    def ask(ids):
        given = tensor(answer(list(ids), assistant, end)).flatten()
        require(
            len(given) == len(ids),
            f"return one True or False for each id: {len(ids)} of them, not {len(given)}",
        )
        require(bool(((given == 0) | (given == 1)).all()), "each entry must be True or False (or 1 or 0)")
        return given.bool().tolist()

    mask = ask(ids)
    places = {token: [i for i, x in enumerate(ids) if x == token] for token in (user, assistant, end)}
    require(any(mask), "nothing counts in your mask: the loss would have nothing to learn from")
    require(
        mask != [not x for x in right], "your mask is inside out: True is where the loss counts the target"
    )
    require(not all(mask), "everything counts in yours: the questions are to be read, not to be learned")
    require(
        not all(mask[9:11]), "after an answer has ended, the next turn of the user must not count: switch off"
    )
    require(
        not any(mask[i] for i in places[assistant]),
        "<|assistant|> itself must not count: it is given to the model, which writes what follows",
    )
    require(mask[8], "the end token of the answer must count, or the model never learns to stop")
    require(
        not any(mask[i] for i in (0, 1, 2, 3, 4, 9, 10, 11)),
        "a turn of the user counts in yours, its end token perhaps: only answers must",
    )
    require(any(mask[12:]), "you stop after the first answer: a chat may have several turns")
    require(mask == right, f"for {ids} you return {mask}, expected {right}")
    require(
        not any(ask([user, 1, 2, end])),
        "a chat without an answer has nothing to count, and yours counts something",
    )
    cut = [user, 1, end, assistant, 5, 6]
    require(
        ask(cut) == answer_mask(cut, assistant, end),
        "an answer that was cut before its end token still counts as far as it goes",
    )
    return "the answers and their end tokens count, and the questions are only read."


def lora_forward(x, W, A, B, alpha):
    """Return the frozen layer's output plus the scaled low-rank correction."""
    r = A.shape[0]
    return x @ W.T + (alpha / r) * (x @ A.T @ B.T)


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
    solution=lora_forward,
)
def check_lora(answer):
    """Compare with the merged weight; tell the usual slips apart."""
    generator = torch.Generator().manual_seed(0)
    x, W, A, B = (torch.randn(shape, generator=generator) for shape in ((2, 3, 6), (4, 6), (2, 6), (4, 2)))
    expected = x @ (W + 8 / 2 * B @ A).T
    value = tensor(answer(x.clone(), W.clone(), A.clone(), B.clone(), 8.0))
    require(
        value.shape == expected.shape,
        f"the result has the shape {tuple(value.shape)}, expected {tuple(expected.shape)}: (..., out)",
    )
    plain, correction = x @ W.T, x @ A.T @ B.T
    slips = {
        "the correction is missing: that is the frozen layer alone": plain,
        "the frozen layer is missing: that is the correction alone": 4 * correction,
        "the factor alpha / r is missing": plain + correction,
        "you multiply by alpha, and do not divide by the rank r": plain + 8 * correction,
        "you divide by alpha and multiply by r: the factor is alpha / r": plain + correction / 4,
        "the factor belongs to the correction only, not to the frozen layer": 4 * (plain + correction),
        "the rank is the number of ROWS of A; you divide by its columns": plain + 8 / 6 * correction,
        "the rank is the number of columns of B; you divide by its rows": plain + 8 / 4 * correction,
        "divide by r, not by its root (that is a variant, rsLoRA)": plain + 8 / 2**0.5 * correction,
        "the correction is added, not taken away": plain - 4 * correction,
    }
    for message, slip in slips.items():
        require(not torch.allclose(value, slip, atol=1e-4), message)
    require(
        torch.allclose(value, expected, atol=1e-4),
        "for a random example the result is not x Wᵀ + (alpha / r) x Aᵀ Bᵀ",
    )
    start = tensor(answer(x.clone(), W.clone(), A.clone(), torch.zeros(4, 2), 8.0))
    require(torch.allclose(start, plain, atol=1e-5), "with B = 0 the output must be that of the frozen layer")
    wide = tensor(answer(x[0, 0].clone(), W.clone(), A[:1].clone(), B[:, :1].clone(), 3.0))
    require(
        wide.shape == (4,) and torch.allclose(wide, x[0, 0] @ (W + 3 * B[:, :1] @ A[:1]).T, atol=1e-4),
        "right for one example, but not for a single vector with rank 1: take r from A.shape[0]",
    )
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
    solution=8 * (11_008 + 4_096),
)
def check_parameters(answer):
    """8 x (11,008 + 4,096)."""
    right = 8 * (11_008 + 4_096)
    require(answer != 11_008 * 4_096, "that is the whole matrix, which stays frozen")
    require(answer != 8 * 11_008, "that is one of the two matrices, B: A is missing")
    require(answer != 8 * 4_096, "that is one of the two matrices, A: B is missing")
    require(answer != 11_008 + 4_096, "that is rank 1: with rank r there are r times as many")
    require(answer != 8 * 11_008 * 4_096, "add the two sides, do not multiply them: A and B are two matrices")
    require(answer != right + 11_008 * 4_096, "that includes the frozen matrix: count only what is trained")
    require(answer == right, f"{answer} is not r x in + out x r")
    return "0.27 % of the 45,088,768 weights of that matrix."


def round_block(block, levels):
    """Return the block after scaling to [-1, 1], rounding to the nearest level, and scaling back."""
    scale = block.abs().max()
    nearest = (block[:, None] / scale - levels).abs().argmin(dim=1)
    return levels[nearest] * scale


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
    solution=round_block,
)
def check_nf4(answer):
    """Compare with the definition; catch a signed scale, floor, indices, and a missing scale."""
    levels = nf4_levels()
    block = torch.tensor([0.11, -0.5, 0.02, 0.37, -0.21, 0.0, 0.3, -0.44])
    scaled = block / 0.5
    expected = round_block(block, levels)
    value = tensor(answer(block.clone(), levels.clone()))
    require(
        value.shape == block.shape,
        f"return one value for each weight, (G,) = {tuple(block.shape)}, not {tuple(value.shape)}",
    )
    nearest = (scaled[:, None] - levels).abs().argmin(dim=1)
    below = torch.bucketize(scaled, levels, right=True) - 1
    signed = (block[:, None] / block.max() - levels).abs().argmin(dim=1)
    deviation = (block[:, None] / block.std() - levels).abs().argmin(dim=1)
    unscaled = (block[:, None] - levels).abs().argmin(dim=1)
    slips = {
        "nothing was rounded: replace each value by the nearest level": block,
        "these are the indices of the levels: look the levels up, and scale back": nearest.float(),
        "these are still between -1 and 1: multiply by the scale again": levels[nearest],
        "you take the next level BELOW; the nearest may be above": levels[below] * 0.5,
        "the scale is the largest MAGNITUDE; yours ignores negative weights": levels[signed] * block.max(),
        "divide by the largest magnitude, not by the standard deviation": levels[deviation] * block.std(),
        "you round without dividing by the scale first": levels[unscaled],
        "you round without dividing by the scale first, and multiply afterwards": levels[unscaled] * 0.5,
    }
    for message, slip in slips.items():
        require(not torch.allclose(value, slip, atol=1e-5), message)
    require(
        torch.allclose(value, expected, atol=1e-5),
        "a value is not the nearest level: compare abs(block / scale - level) for all 16 levels",
    )
    generator = torch.Generator().manual_seed(0)
    other, few = torch.randn(64, generator=generator), torch.tensor([-1.0, 0.0, 0.5, 1.0])
    require(
        torch.allclose(tensor(answer(other.clone(), few.clone())), round_block(other, few), atol=1e-5),
        "right for that block, but not for another one with other levels: use what is given",
    )
    return "the largest weight of the block survives exactly, and the others move to their nearest level."
