"""Exercises of chapter 8a: rounding in groups, the bytes that are stored, and GPTQ's step; a student's is apart."""

import math

import torch

from llmcourse.teach.chapters.ch08a_efficiency import student_checks  # noqa: F401 - registers an exercise
from llmcourse.teach.examine import examine
from llmcourse.teach.exercises import exercise
from llmcourse.teach.forms import number, tensor


@exercise(
    "08a-round",
    "Round a row in groups",
    minutes=8,
    difficulty=2,
    hints=(
        "row.view(-1, group) has one group in each line: (N / group, group).",
        "The scale of a group is its largest magnitude over the largest code, 2 ** (bits - 1) - 1: 7 for 4 bits.",
        "Divide by the scale, torch.round, multiply back, flatten. A group of zeros has the scale 0: keep it "
        "from dividing, for example with clamp_min.",
    ),
    wants="function",
    form=tensor,
)
def check_round(answer):
    """Compare with the rule, on groups of different sizes; tell scales, roundings and orders apart."""

    def rounded(
        largest=lambda groups: groups.abs().amax(1, keepdim=True),
        top=lambda bits: 2 ** (bits - 1) - 1,
        nearest=torch.round,
        split=lambda row, group: row.view(-1, group),
        join=lambda groups, row: groups.reshape(row.shape),
        back=lambda codes, scale: codes * scale,
        low=0.0,
    ):
        def function(row, bits, group):
            groups = split(row, group)
            scale = largest(groups) / top(bits)
            codes = nearest((groups - low * groups.amin(1, keepdim=True)) / scale.clamp_min(1e-12))
            return join(back(codes, scale) + low * groups.amin(1, keepdim=True), row)

        return function

    generator = torch.Generator().manual_seed(8)
    plain = torch.tensor(
        [0.27, -1.13, 0.52, 0.41, -7.6, 4.1, 2.9, -11.3]
    )  # the largest of a group is negative
    eight = torch.randn(24, generator=generator)
    cases = {
        "for 8 weights, 3 bits, groups of 4, it is {right}; yours is {value}": (plain, 3, 4),
        "right for 3 bits and groups of 4, but not for 8 bits and groups of 6": (eight, 8, 6),
        "right for 3 and 8 bits, but not for 2: the codes are -1, 0 and 1": (eight * 3, 2, 12),
        "right for several groups, but not where the whole row is one": (eight[:10], 4, 10),
        "a group of zeros must stay zeros: keep its scale from dividing": (
            torch.cat([torch.zeros(4), plain[:4]]),
            4,
            4,
        ),
    }
    interleaved = dict(
        split=lambda row, group: row.view(group, -1).T, join=lambda groups, row: groups.T.reshape(row.shape)
    )
    slips = {
        "one scale for the whole row: each group has a scale of its own": rounded(
            lambda groups: groups.abs().amax().expand(len(groups), 1)
        ),
        "the scale comes from the largest MAGNITUDE: a group's largest weight may be negative": rounded(
            lambda groups: groups.amax(1, keepdim=True)
        ),
        "the largest code is 2 ** (bits - 1) - 1, 7 for 4 bits; with 2 ** (bits - 1) the largest weight gets a "
        "code that does not exist": rounded(top=lambda bits: 2 ** (bits - 1)),
        "codes have a sign, which takes one of the bits: the largest is 2 ** (bits - 1) - 1": (
            rounded(top=lambda bits: 2**bits - 1),
            rounded(top=lambda bits: 2**bits),
        ),
        "you cut off what follows the point: round to the NEAREST code": rounded(nearest=torch.trunc),
        "you always round down: round to the NEAREST code": rounded(nearest=torch.floor),
        "you always round up: round to the NEAREST code": rounded(nearest=torch.ceil),
        "these are the codes: multiply each by the scale of its group": rounded(
            back=lambda codes, scale: codes
        ),
        "you return the row as it is: nothing is rounded": lambda row, bits, group: row,
        "a group is `group` NEIGHBOURS: row.view(-1, group) has one in each line": rounded(**interleaved),
        "`group` is how many weights a group has, not how many groups there are": rounded(
            split=lambda row, group: row.view(group, -1)
        ),
        "this rule measures from the group's smallest weight; here a code 0 stands for the weight 0": rounded(
            lambda groups: groups.amax(1, keepdim=True) - groups.amin(1, keepdim=True),
            lambda bits: 2**bits - 1,
            low=1.0,
        ),
        "the scale is the largest magnitude of a group, not the mean": rounded(
            lambda groups: groups.abs().mean(1, keepdim=True)
        ),
        "you round the weights themselves, without a scale": lambda row, bits, group: row.round(),
    }
    examine(answer, rounded(), cases, slips, "that of the row")
    return "round to nearest, a scale for each group: every error is at most half a scale."


@exercise(
    "08a-bytes",
    "Count the bytes that are stored",
    minutes=4,
    difficulty=1,
    hints=(
        "The codes of one row: columns x bits, and 8 bits are a byte. Round up: the next row begins in a new byte.",
        "Scales: one for each group, so rows x columns / group of them, two bytes each.",
    ),
    wants="function",
    form=number,
)
def check_bytes(answer):
    """Compare with the formula; every usual slip gives other numbers."""

    def size(
        code=lambda bits: bits / 8,
        scale=2,
        scales=lambda r, c, g: r * c / g,
        codes=lambda r, row: r * math.ceil(row),
    ):
        return lambda r, c, bits, g: codes(r, c * code(bits)) + scale * scales(r, c, g)

    cases = {
        "for a matrix of 192 x 512 in 4 bits, groups of 64, it is {right}; yours is {value}": (
            192,
            512,
            4,
            64,
        ),
        "right for 4 bits, but not for 3 bits and groups of 32": (96, 64, 3, 32),
        "right for groups in a row, but not where a group is the whole row": (10, 48, 8, 48),
        "right where rows fill their bytes, but not for 3 x 5 codes of 3 bits, where 15 bits of a row need 2 bytes": (
            3,
            5,
            3,
            5,
        ),
        "right for four matrices, but not for 7 x 9 in 2 bits, groups of 9: {right}": (7, 9, 2, 9),
        "right for five matrices, but not for 4 x 12 in 3 bits, groups of 4: {right}": (4, 12, 3, 4),
    }
    slips = {
        "the scales are stored too: two bytes for each group": size(scale=0),
        "the codes are stored too, not the scales alone": size(code=lambda bits: 0),
        "those are bits: eight of them are a byte": size(code=lambda bits: bits),
        "packed codes take `bits` bits each, not a byte each": size(code=lambda bits: 1),
        "that is the matrix in 16 bits: codes take `bits` bits each": size(code=lambda bits: 2),
        "a scale in 16 bits takes two bytes, not four": size(scale=4),
        "a scale in 16 bits takes two bytes, not one": size(scale=1),
        "a scale for each GROUP, not for each row": size(scales=lambda r, c, g: r),
        "a scale for each GROUP, not for each column": size(scales=lambda r, c, g: c),
        "a scale for each GROUP, not one for the matrix": size(scales=lambda r, c, g: 1),
        "a scale is shared by `group` weights: divide their number by the group": size(
            scales=lambda r, c, g: r * c
        ),
        "the last byte of a row counts whole, even if it is not full: round up": size(
            codes=lambda r, row: r * math.floor(row)
        ),
        "a row's codes fill whole bytes: yours has a fraction of one": size(codes=lambda r, row: r * row),
        "each ROW begins in a new byte: round up before you multiply by the rows": size(
            codes=lambda r, row: math.ceil(r * row)
        ),
        "only a ROW begins in a new byte, not each group: round up the bytes of the whole row": (
            lambda r, c, bits, g: r * (c // g) * math.ceil(g * bits / 8) + 2 * r * c / g
        ),
        "bytes are asked for: a scale of 16 bits takes two": size(scale=16),
    }
    examine(answer, size(), cases, slips, rtol=0, atol=1e-3)
    return "codes and scales: in groups of 64, a scale adds a quarter of a bit to each weight."


@exercise(
    "08a-compensate",
    "Let the other weights make good an error",
    minutes=12,
    difficulty=3,
    hints=(
        "The first weight changes by e = value - weights[0], which is fixed. Let d (K - 1,) be the change of "
        "the others, and write the error (e, d) H (e, d)ᵀ in parts: e² H[0,0] + 2 e d·H[1:,0] + d H[1:,1:] d.",
        "Set its gradient by d to zero: H[1:,1:] d = - e H[1:,0]. torch.linalg.solve finds d.",
        "Or by the inverse of the whole H, as GPTQ does: d = e inverse[1:, 0] / inverse[0, 0]. Both are the same.",
    ),
    wants="function",
    form=tensor,
)
def check_compensate(answer):
    """Compare with the solved linear system; every slip is another formula."""

    def moved(change):
        def function(weights, H, value):
            w, H = weights.double(), H.double()
            return (w[1:] + change(w, H, value - w[0])).float()

        return function

    def right(w, H, e):
        return torch.linalg.solve(H[1:, 1:], -e * H[1:, 0])

    def inverse(w, H, e):
        return torch.linalg.inv(H)

    def example(K, seed, correlated=1.0):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(8 * K, K, generator=generator)
        x = x + correlated * torch.randn(8 * K, 1, generator=generator)
        return torch.randn(K, generator=generator), x.T @ x / len(x)

    (four, H4), (two, H2), (six, H6) = example(4, 1), example(2, 2), example(6, 3, 0.4)
    cases = {
        "for 4 weights you return {value}, and {right} makes the output change least": (four, H4, 1.0),
        "right for 4 weights, but not for 2": (two, H2, -0.5),
        "where H is diagonal, no other input can help: the others stay as they are": (
            six,
            torch.diag(torch.arange(1.0, 7.0)),
            0.25,
        ),
        "right for three examples, but not for 6 weights": (six, H6, 2.0),
        "where the first weight is exactly `value`, nothing has to move": (four, H4, four[0].item()),
    }
    slips = {
        "the others stay as they are in yours: move them against the error": moved(lambda w, H, e: 0),
        "the sign is wrong: that makes the error larger": moved(lambda w, H, e: -right(w, H, e)),
        "that is by how much they move: add it to the weights": lambda w, H, value: right(
            w.double(), H.double(), value - w[0].item()
        ).float(),
        "you use H where its inverse belongs": (
            moved(lambda w, H, e: e * H[1:, 0] / H[0, 0]),
            moved(lambda w, H, e: -e * H[1:, 0] / H[0, 0]),
            moved(lambda w, H, e: -e * H[1:, 0]),
            moved(lambda w, H, e: e * H[1:, 0]),
        ),
        "the error is value - weights[0], by how much the first weight moved": (
            lambda w, H, value: moved(lambda w, H, e: right(w, H, e + w[0]))(w, H, value),
            lambda w, H, value: moved(lambda w, H, e: right(w, H, w[0]))(w, H, value),
        ),
        "you divide by nothing: inverse[1:, 0] belongs over inverse[0, 0]": moved(
            lambda w, H, e: e * inverse(w, H, e)[1:, 0]
        ),
        "you divide by H[0, 0]: it is the INVERSE's first entry that belongs there": moved(
            lambda w, H, e: e * inverse(w, H, e)[1:, 0] / H[0, 0]
        ),
        "you multiply by H[0, 0] where inverse[0, 0] divides: 1 / inverse[0, 0] is not H[0, 0]": moved(
            lambda w, H, e: e * inverse(w, H, e)[1:, 0] * H[0, 0]
        ),
        "the error is shared out evenly in yours: how much each takes, H says": moved(
            lambda w, H, e: -e / (len(w) - 1) * torch.ones(len(w) - 1, dtype=torch.float64)
        ),
        "each weight for itself is not enough: the others are correlated among themselves too": moved(
            lambda w, H, e: -e * H[1:, 0] / H.diagonal()[1:]
        ),
        "the first weight is not to be returned: K - 1 numbers, the others": lambda w, H, value: torch.cat(
            [torch.tensor([value]), moved(right)(w, H, value)]
        ),
    }
    examine(answer, moved(right), cases, slips, "(K - 1,)", rtol=1e-3, atol=1e-4)
    return "the same as the least-squares solution: GPTQ does this for one column after the other."
