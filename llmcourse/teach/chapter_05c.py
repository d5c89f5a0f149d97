"""Exercises of chapter 5c: training techniques."""

import torch

from llmcourse.positions import shift
from llmcourse.teach.checks import number, tensor
from llmcourse.teach.exercises import NotRight, exercise, require


def newton_schulz(matrix):
    """Five steps of the odd polynomial, after dividing by the matrix's norm."""
    x = matrix / matrix.norm()
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.775 * gram + 2.0315 * gram @ gram) @ x
    return x


@exercise(
    "05c-orthogonalize",
    "Make a matrix orthogonal with products alone",
    minutes=12,
    difficulty=3,
    hints=(
        "First divide by matrix.norm(): then no singular value is above 1, where the polynomial works.",
        "s·s·s is what X Xᵀ X does to a singular value s; s to the fifth is X Xᵀ X Xᵀ X.",
        "gram = x @ x.T; then x = a * x + (b * gram + c * gram @ gram) @ x, five times.",
    ),
    solution=newton_schulz,
)
def check_orthogonalize(f):
    """Compare singular values and vectors with the polynomial of the exercise."""
    generator = torch.Generator().manual_seed(3)
    matrix = torch.randn(6, 10, generator=generator)
    before = matrix.clone()
    answer = tensor(f(matrix))
    require(
        torch.equal(matrix, before), "Your function changes the matrix that it was given: work on a copy."
    )
    require(
        answer.shape == matrix.shape,
        f"The result is {tuple(answer.shape)} for a matrix of {tuple(matrix.shape)}: it keeps its shape.",
    )
    require(
        answer.isfinite().all(),
        "The values overflow: divide by the norm first, so that no singular value is above 1; and b is negative.",
    )
    right = newton_schulz(matrix)
    if torch.allclose(answer.float(), right, atol=1e-3):
        large = tensor(f(1000 * matrix))
        require(
            torch.allclose(large.float(), right, atol=1e-2),
            "A matrix 1,000 times larger gives another result: divide by its own norm.",
        )
        return "The singular values now lie near 1 and the vectors are unchanged, with products alone."
    u, singular, vh = torch.linalg.svd(matrix, full_matrices=False)
    if torch.allclose(answer.float(), u @ vh, atol=1e-3):
        raise NotRight(
            "That is the exact answer, U Vᵀ, by a singular value decomposition: right, and far too slow in every "
            "step. Use the polynomial."
        )
    if torch.allclose(answer.float(), matrix / matrix.norm(), atol=1e-3):
        raise NotRight(
            "Dividing by the norm is the first step; the five steps of the polynomial are missing."
        )
    s = singular / singular[0]  # what the polynomial makes of them after another division
    for _ in range(5):
        s = 3.4445 * s - 4.775 * s**3 + 2.0315 * s**5
    if torch.allclose(answer.float(), u @ s.diag() @ vh, atol=1e-3):
        raise NotRight(
            "You divided by the largest singular value; that works too, but it is slow to find: use matrix.norm(), "
            "the root of the sum of the squares."
        )
    x = matrix / matrix.norm()
    for steps in range(1, 12):
        gram = x @ x.T
        x = 3.4445 * x + (-4.775 * gram + 2.0315 * gram @ gram) @ x
        if steps != 5 and torch.allclose(answer.float(), x, atol=1e-3):
            raise NotRight(
                f"The polynomial is right, but was applied {steps} times: the exercise asks for 5."
            )
    inner = u.T @ answer.float() @ vh.T
    off = (inner - torch.diag(inner.diagonal())).abs().max()
    require(
        off < 1e-2,
        "The singular vectors changed. Only products of X with X Xᵀ keep them: x @ x.T first, then times x.",
    )
    raise NotRight(
        "The vectors are kept, but the singular values are not those of a·s + b·s³ + c·s⁵ with a = 3.4445, "
        "b = -4.775, c = 2.0315: check signs and powers, and that each step starts from the last one's result."
    )


def shifted_sum(token_ids, tables):
    """Add up tables[j][token j steps back]; before the text stands nothing."""
    x = tables[0][token_ids].clone()
    for j in range(1, len(tables)):
        x[:, j:] += tables[j][token_ids[:, :-j]]
    return x


@exercise(
    "05c-shift",
    "Let each position see the tokens before it",
    minutes=10,
    difficulty=2,
    hints=(
        "tables[0][token_ids] is the usual embedding, (B, T, C).",
        "Position t needs tables[j][token_ids[:, t - j]]: the looked-up row, moved j places to the right.",
        "Start from a clone of the usual embedding, then x[:, j:] += tables[j][token_ids[:, :-j]] for j from 1: "
        "positions before j get nothing added.",
    ),
    solution=shifted_sum,
)
def check_shift(f):
    """Compare with the sum by loops; name wrap-around, looking ahead and sharing one table."""
    generator = torch.Generator().manual_seed(5)
    token_ids = torch.randint(7, (2, 6), generator=generator)
    tables = [torch.randn(7, 4, generator=generator) for _ in range(3)]
    kept = [table.clone() for table in tables]
    answer = tensor(f(token_ids, tables)).float()
    require(
        all(torch.equal(table, old) for table, old in zip(tables, kept, strict=True)),
        "Your function changes the tables: x += ... on a view of a table writes into it. Start from a copy.",
    )
    require(
        answer.shape == (2, 6, 4), f"The result is {tuple(answer.shape)}; it must be (B, T, C) = (2, 6, 4)."
    )
    if torch.allclose(answer, shifted_sum(token_ids, tables), atol=1e-5):
        return "Each position now holds its own token and those before it, and nothing from the future."
    rolled = sum(table[token_ids.roll(j, dims=1)] for j, table in enumerate(tables))
    if torch.allclose(answer, rolled, atol=1e-5):
        raise NotRight(
            "roll brings the end of the row back to its beginning: the first position sees the last tokens, which "
            "are its future. Before the text stands nothing."
        )
    ahead = tables[0][token_ids]
    for j in range(1, 3):
        ahead = ahead + torch.nn.functional.pad(tables[j][token_ids], (0, 0, 0, j))[:, j:]
    if torch.allclose(answer, ahead, atol=1e-5):
        raise NotRight("Position t sees the tokens after it: that is the answer itself. Move to the right.")
    shared = sum(shift(tables[0][token_ids], j) if j else tables[0][token_ids] for j in range(3))
    if torch.allclose(answer, shared, atol=1e-5):
        raise NotRight(
            "All distances use table 0: then 'ab' and 'ba' give the same sum. Each distance has its table."
        )
    if torch.allclose(answer, tables[0][token_ids], atol=1e-5):
        raise NotRight("That is the usual embedding alone: the tables for the tokens before are missing.")
    zero = tables[0][token_ids]
    for j in range(1, 3):
        padded = torch.cat([torch.zeros(2, j, dtype=token_ids.dtype), token_ids[:, :-j]], dim=1)
        zero = zero + tables[j][padded]
    if torch.allclose(answer, zero, atol=1e-5):
        raise NotRight(
            "Before the text you put token 0, which is a real character. Put nothing there: add zeros."
        )
    raise NotRight("Not yet: position t is tables[0][t's token] + tables[1][the one before] + and so on.")


@exercise(
    "05c-sooner",
    "How much sooner?",
    minutes=5,
    difficulty=1,
    hints=(
        "When does each curve first stand at 2.0? Ours passes it between its first and its second point.",
        "On a straight line from (2 s, 2.2) to (4 s, 1.8), 2.0 lies half way: at 3 s.",
        "The recipe stands at 2.0 at 60 s. Divide theirs by ours.",
    ),
    solution=20.0,
)
def check_sooner(answer):
    """Take 60 s / 3 s; name the usual slips."""
    value = number(answer)
    if abs(value - 20) < 0.05:
        return "60 s against 3 s. The same quality decides when to stop the clock, not the end of the runs."
    slips = {
        25.0: "You divided the lengths of the whole runs, 100 s by 4 s: but they end at different losses.",
        15.0: "You took the second point of our curve, 4 s: it passed 2.0 before that. Go along the line.",
        30.0: "You took the first point of our curve, 2 s: there it still stands at 2.2.",
        0.05: "That is ours over theirs: the question asks how many times sooner ours is.",
        57.0: "You subtracted: 57 seconds sooner depends on the machine. The ratio does not.",
        1.0: "You compared losses. The question is about time: when does each reach 2.0?",
    }
    for slip, message in slips.items():
        if abs(value - slip) < 0.02 * max(1, slip):
            raise NotRight(message)
    raise NotRight("Find the second at which each curve first reaches 2.0, then divide theirs by ours.")
