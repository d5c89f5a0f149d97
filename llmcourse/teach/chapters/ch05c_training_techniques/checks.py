"""Exercises of chapter 5c: training techniques."""

import torch

from llmcourse.teach.examine import compare, examine
from llmcourse.teach.exercises import exercise
from llmcourse.teach.forms import number, tensor
from llmcourse.tune.techniques import shift


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
    wants="function",
    form=tensor,
    keeps="the matrix",
)
def check_orthogonalize(answer):
    """Compare with what the polynomial makes of the singular values, by torch's decomposition."""
    generator = torch.Generator().manual_seed(3)
    matrix = torch.randn(6, 10, generator=generator)
    cases = {
        "a singular value or vector is wrong": (matrix,),
        "A matrix 1,000 times larger gives another result: divide by its own norm.": (1000 * matrix,),
        "right for a wide matrix, but not for a tall one": (torch.randn(7, 4, generator=generator),),
    }

    def by_values(scale=lambda s: s.norm(), steps=5, b=-4.775):
        def function(matrix):
            u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
            s = s / scale(s)
            for _ in range(steps):
                s = 3.4445 * s + b * s**3 + 2.0315 * s**5
            return u @ s.diag() @ vh

        return function

    slips = {
        "That is the exact answer, U Vᵀ, by a singular value decomposition: right, and far too slow in every step. Use "
        "the polynomial.": lambda m: by_values(lambda s: s, 0)(m),
        "Dividing by the norm is the first step; the five steps of the polynomial are missing.": by_values(
            steps=0
        ),
        "You divided by the largest singular value; that works too, but it is slow to find: use matrix.norm(), the root "
        "of the sum of the squares.": by_values(lambda s: s[0]),
        "The sum of the squares lacks its root: divide by matrix.norm().": by_values(lambda s: s.norm() ** 2),
        "The matrix keeps its shape; yours is transposed.": lambda m: by_values()(m).T,
        "The signs are wrong: a and c are positive, and b is negative.": by_values(b=4.775),
        "The matrix is not divided by its norm first, and so the values overflow for a large one.": by_values(
            lambda s: 1
        ),
    } | {
        f"The polynomial is right, but was applied {n} times: the exercise asks for 5.": by_values(steps=n)
        for n in (1, 2, 3, 4, 6, 7, 8, 9, 10)
    }

    def look(value, matrix):
        if matrix.shape != (6, 10) or matrix.norm() > 100:
            return None  # right for the first, so the other sentences say what is the matter
        if not value.isfinite().all():
            return "The values overflow: divide by the norm first, so that no singular value is above 1; and b is negative."
        u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
        inner = u.T @ value @ vh.T
        if (inner - inner.diagonal().diag()).abs().max() > 1e-2:
            return "The singular vectors changed. Only products of X with X Xᵀ keep them: x @ x.T first, then times x."
        return (
            "The vectors are kept, but the singular values are not those of a·s + b·s³ + c·s⁵ with a = 3.4445, "
            "b = -4.775, c = 2.0315: check signs and powers, and that each step starts from the last one's result."
        )

    examine(
        answer,
        by_values(),
        cases,
        slips,
        "that of the matrix",
        look,
        rtol=0,
        atol=2e-3,
    )
    return "The singular values now lie near 1 and the vectors are unchanged, with products alone."


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
    wants="function",
    form=tensor,
    keeps="the tables or ids",
)
def check_shift(answer):
    """Compare with the sum by padding; name wrap-around, looking ahead and sharing one table."""
    generator = torch.Generator().manual_seed(5)

    def example(B, T, V, C, n_tables):
        tables = [torch.randn(V, C, generator=generator) for _ in range(n_tables)]
        return torch.randint(V, (B, T), generator=generator), tables

    def back(x, j):
        return shift(x, j) if j else x

    def right(ids, tables):
        return sum(back(table[ids], j) for j, table in enumerate(tables))

    def before_stands(token):
        def function(ids, tables):
            padded = (
                torch.cat([torch.full_like(ids[:, :j], token), ids[:, : ids.shape[1] - j]], 1)
                for j in range(len(tables))
            )
            return sum(table[row] for table, row in zip(tables, padded, strict=True))

        return function

    slips = {
        "roll brings the end of the row back to its beginning: the first position sees the last tokens, which are its "
        "future. Before the text stands nothing.": (
            lambda ids, tables: sum(table[ids.roll(j, dims=1)] for j, table in enumerate(tables))
        ),
        "Position t sees the tokens after it: that is the answer itself. Move to the right.": (
            lambda ids, tables: right(ids.flip(1), tables).flip(1),
            lambda ids, tables: sum(table[ids.roll(-j, dims=1)] for j, table in enumerate(tables)),
        ),
        "All distances use table 0: then 'ab' and 'ba' give the same sum. Each distance has its table.": (
            lambda ids, tables: right(ids, tables[:1] * len(tables))
        ),
        "That is the usual embedding alone: the tables for the tokens before are missing.": lambda ids, tables: (
            tables[0][ids]
        ),
        "Nothing is moved: each table looks up the token itself, not the one j places before.": (
            lambda ids, tables: sum(table[ids] for table in tables)
        ),
        "Before the text you put token 0, which is a real character. Put nothing there: add zeros.": before_stands(
            0
        ),
        "The usual embedding is missing: table 0 belongs to the token itself.": (
            lambda ids, tables: sum(
                (back(table[ids], j) for j, table in enumerate(tables) if j), 0 * tables[0][ids]
            ),
            lambda ids, tables: sum(back(table[ids], j) for j, table in enumerate(tables, start=1)),
        ),
        "The last table is missing: there is one for each distance, up to len(tables) - 1.": (
            lambda ids, tables: right(ids, tables[:-1])
        ),
        "Only the token right before is added: each table has its distance.": lambda ids, tables: right(
            ids, tables[:2]
        ),
        "You move along the batch (dim 0): time is dimension 1.": (
            lambda ids, tables: sum(table[ids].roll(j, dims=0) for j, table in enumerate(tables))
        ),
        "The tables are in the wrong order: table 0 belongs to the token itself.": lambda ids, tables: right(
            ids, tables[::-1]
        ),
        "You take the mean over the tables: add them up.": lambda ids, tables: (
            right(ids, tables) / len(tables)
        ),
    }
    cases = {
        "Not yet: position t is tables[0][t's token] + tables[1][the one before] + and so on.": example(
            2, 6, 7, 4, 3
        ),
        "Right for three tables, but not for four.": example(3, 5, 9, 2, 4),
    }
    examine(answer, right, cases, slips, "(B, T, C)", rtol=1e-4, atol=1e-5)
    return "Each position now holds its own token and those before it, and nothing from the future."


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
    wants="value",
    form=number,
)
def check_sooner(answer):
    """Take 60 s / 3 s; name the usual slips."""
    slips = {
        "You divided the lengths of the whole runs, 100 s by 4 s: but they end at different losses.": 25,
        "You took the second point of our curve, 4 s: it passed 2.0 before that. Go along the line.": 15,
        "You took the first point of our curve, 2 s: there it still stands at 2.2.": 30,
        "That is ours over theirs: the question asks how many times sooner ours is.": 0.05,
        "You subtracted: 57 seconds sooner depends on the machine. The ratio does not.": 57,
        "You compared losses. The question is about time: when does each reach 2.0?": (
            1,
            2.0 / 1.8,
            1.9 / 1.8,
        ),
        "You took the end of the recipe, 100 s: it stood at 2.0 after 60 s.": 100 / 3,
        "That is when ours reaches 2.0: divide theirs by it.": 3,
    }
    otherwise = "Find the second at which each curve first reaches 2.0, then divide theirs by ours."
    compare(answer, 20, slips, otherwise, rtol=0, atol=0.02)
    return "60 s against 3 s. The same quality decides when to stop the clock, not the end of the runs."
