"""Exercises of chapter 8a, efficiency: right answers pass, each usual slip gets its own sentence."""

import math
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from answers import assert_right, assert_wrong, numbered

from llmcourse.data.manifest import course_data
from llmcourse.packed import Scheme
from llmcourse.teach.chapters.ch08a_efficiency import measures
from llmcourse.teach.chapters.ch08a_efficiency.solutions import (
    compensate,
    distillation_loss,
    packed_bytes,
    round_groups,
)

RIGHT, WRONG = {}, {}


# ---- 08a-round ------------------------------------------------------------------------------


def one_by_one(row, bits, group):
    values, top = row.tolist(), 2 ** (bits - 1) - 1
    out = []
    for start in range(0, len(values), group):
        part = values[start : start + group]
        scale = max(abs(x) for x in part) / top
        out += [round(x / scale) * scale if scale else 0.0 for x in part]
    return out


def with_numpy(row, bits, group):
    groups = row.numpy().reshape(-1, group).astype(np.float64)
    scale = np.abs(groups).max(axis=1, keepdims=True) / (2 ** (bits - 1) - 1)
    return (np.rint(groups / np.where(scale == 0, 1, scale)) * scale).reshape(-1)


def with_where(row, bits, group):
    out = row.clone()
    for chunk in out.split(group):
        scale = chunk.abs().max() / (2 ** (bits - 1) - 1)
        if scale > 0:
            chunk.copy_((chunk / scale).round().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) * scale)
    return out


def by_torch(row, bits, group):
    top = 2 ** (bits - 1) - 1
    groups = row.view(-1, group)
    scale = (groups.abs().amax(1) / top).clamp_min(1e-12)
    zero = torch.zeros(len(groups), dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(groups, scale, zero, 0, -top, top).reshape(row.shape)


RIGHT["08a-round"] = [round_groups, one_by_one, with_numpy, with_where, by_torch]


def rule(row, bits, group, top=None, largest=None, nearest=torch.round):
    groups = row.view(-1, group)
    scale = groups.abs().amax(1, keepdim=True) if largest is None else largest(groups)
    scale = (scale / (top or 2 ** (bits - 1) - 1)).clamp_min(1e-12)
    return (nearest(groups / scale) * scale).flatten()


WRONG_ROUND = [
    (lambda row, bits, group: rule(row, bits, len(row)), "one scale for the whole row"),
    (lambda row, bits, group: rule(row, bits, group, largest=lambda g: g.amax(1, keepdim=True)), "MAGNITUDE"),
    (lambda row, bits, group: rule(row, bits, group, top=2 ** (bits - 1)), "a code that does not exist"),
    (lambda row, bits, group: rule(row, bits, group, top=2**bits - 1), "codes have a sign"),
    (lambda row, bits, group: rule(row, bits, group, nearest=torch.trunc), "cut off"),
    (lambda row, bits, group: rule(row, bits, group, nearest=torch.floor), "always round down"),
    (lambda row, bits, group: rule(row, bits, len(row) // group), "not how many groups"),
    (lambda row, bits, group: row, "as it is"),
    (lambda row, bits, group: row.round(), "without a scale"),
    (lambda row, bits, group: round_groups(row, 3, group), "8 bits and groups of 6"),
    (lambda row, bits, group: round_groups(row, bits, group if len(row) < 20 else 12), "groups of 6"),
    (lambda row, bits, group: torch.cat([row, row]), "the shape should be that of the row"),
]


def dividing_by_zero(row, bits, group):
    groups = row.view(-1, group)
    scale = groups.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    return (torch.round(groups / scale) * scale).flatten()


def codes_only(row, bits, group):
    groups = row.view(-1, group)
    scale = groups.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    return torch.round(groups / scale.clamp_min(1e-12)).flatten()


WRONG_ROUND += [(dividing_by_zero, "keep its scale from dividing"), (codes_only, "these are the codes")]
WRONG["08a-round"] = numbered(WRONG_ROUND)


# ---- 08a-bytes ------------------------------------------------------------------------------


def in_bits(rows, columns, bits, group):
    return rows * -(-columns * bits // 8) + rows * columns // group * 2


def by_packing(rows, columns, bits, group):
    codes = np.packbits(np.zeros((rows, columns * bits), dtype=np.uint8), axis=1)
    return codes.nbytes + np.zeros(rows * columns // group, dtype=np.float16).nbytes


def by_package(rows, columns, bits, group):
    return Scheme(bits, group).n_bytes((rows, columns))


RIGHT["08a-bytes"] = [
    packed_bytes,
    by_package,
    in_bits,
    by_packing,
    lambda r, c, b, g: r * (math.ceil(c * b / 8) + 16 * (c / g) / 8),
]
WRONG_BYTES = [
    (lambda r, c, b, g: r * math.ceil(c * b / 8), "the scales are stored too"),
    (lambda r, c, b, g: r * c * b + 2 * r * c / g, "those are bits"),
    (lambda r, c, b, g: r * c + 2 * r * c / g, "not a byte each"),
    (lambda r, c, b, g: r * math.ceil(c * b / 8) + 4 * r * c / g, "two bytes, not four"),
    (lambda r, c, b, g: r * math.ceil(c * b / 8) + 2 * r, "not for each row"),
    (lambda r, c, b, g: r * math.ceil(c * b / 8) + 2, "not one for the matrix"),
    (lambda r, c, b, g: r * (c * b // 8) + 2 * r * c / g, "the last byte of a row counts whole"),
    (lambda r, c, b, g: math.ceil(r * c * b / 8) + 2 * r * c / g, "each ROW begins"),
    (lambda r, c, b, g: r * c * b / 8 + 2 * r * c / g, "a fraction of one"),
    (lambda r, c, b, g: r * (c // g) * math.ceil(g * b / 8) + 2 * r * c / g, "not each group"),
    (lambda r, c, b, g: r * math.ceil(c * b / 8) + 16 * r * c / g, "of 16 bits takes two"),
    (lambda r, c, b, g: packed_bytes(r, c, 4, g), "3 bits and groups of 32"),
    (lambda r, c, b, g: packed_bytes(r, c, b, g) + 100, "yours is"),
]
WRONG["08a-bytes"] = numbered(WRONG_BYTES)


# ---- 08a-compensate -------------------------------------------------------------------------


def by_solving(weights, H, value):
    return weights[1:] - torch.linalg.solve(H[1:, 1:], H[1:, 0]) * (value - weights[0])


def by_least_squares(weights, H, value):
    """Inputs with these products, from the Cholesky factor: the output of the others makes good the error's."""
    x = torch.linalg.cholesky(H.double()).T  # x.T @ x = H
    missing = x[:, 0] * (weights[0].double() - value)
    return weights[1:] + torch.linalg.lstsq(x[:, 1:], missing[:, None]).solution[:, 0]


def by_descent(weights, H, value):
    change = torch.zeros(len(weights), dtype=torch.float64)
    change[0], H = value - weights[0].double(), H.double()
    for _ in range(20_000):
        gradient = H @ change
        gradient[0] = 0
        change -= 0.9 / torch.linalg.eigvalsh(H).max() * gradient
        if gradient.abs().max() < 1e-7:
            break
    return (weights.double() + change)[1:]


def with_pseudo_inverse(weights, H, value):
    inverse = np.linalg.pinv(H.numpy().astype(np.float64))
    w = weights.numpy().astype(np.float64)
    return w[1:] - (w[0] - value) * inverse[0, 1:] / inverse[0, 0]


RIGHT["08a-compensate"] = [compensate, by_solving, by_least_squares, by_descent, with_pseudo_inverse]


def inv(H):
    return torch.linalg.inv(H)


WRONG["08a-compensate"] = numbered(
    [
        (lambda w, H, v: w[1:], "stay as they are in yours"),
        (lambda w, H, v: w[1:] - (v - w[0]) * inv(H)[1:, 0] / inv(H)[0, 0], "the sign is wrong"),
        (lambda w, H, v: (v - w[0]) * inv(H)[1:, 0] / inv(H)[0, 0], "by how much they move"),
        (lambda w, H, v: w[1:] - (v - w[0]) * H[1:, 0] / H[0, 0], "where its inverse belongs"),
        (lambda w, H, v: w[1:] - (v - w[0]) * H[1:, 0], "where its inverse belongs"),
        (lambda w, H, v: w[1:] - v * torch.linalg.solve(H[1:, 1:], H[1:, 0]), "is value - weights[0]"),
        (lambda w, H, v: w[1:] + (v - w[0]) * inv(H)[1:, 0], "you divide by nothing"),
        (lambda w, H, v: w[1:] - (v - w[0]) * H[1:, 0] / H.diagonal()[1:], "each weight for itself"),
        (lambda w, H, v: w[1:] - (v - w[0]) / (len(w) - 1), "shared out evenly"),
        (lambda w, H, v: torch.cat([torch.tensor([v]), compensate(w, H, v)]), "the first weight is not"),
        (lambda w, H, v: w[1:] + (v - w[0]) * inv(H)[1:, 0] * H[0, 0], "1 / inverse[0, 0] is not H[0, 0]"),
        (lambda w, H, v: compensate(w, H, 1.0), "but not for 2"),
    ]
)


# ---- 08a-distill ----------------------------------------------------------------------------


def by_kl_div(student, teacher, targets, temperature, share):
    q, p = F.log_softmax(student / temperature, -1), F.softmax(teacher / temperature, -1)
    soft = F.kl_div(q, p, reduction="batchmean") * temperature**2
    return share * soft + (1 - share) * F.cross_entropy(student, targets)


def with_log_targets(student, teacher, targets, temperature, share):
    q, p = ((x / temperature).log_softmax(-1) for x in (student, teacher))
    soft = F.kl_div(q, p, reduction="none", log_target=True).sum(-1).mean()
    return soft * share * temperature * temperature + F.nll_loss(student.log_softmax(-1), targets) * (
        1 - share
    )


def by_entropies(student, teacher, targets, temperature, share):
    s, t = student.double() / temperature, teacher.double() / temperature
    p = t.softmax(-1)
    entropy = -(p * t.log_softmax(-1)).sum(-1).mean()
    soft = F.cross_entropy(s, p) - entropy
    return share * temperature**2 * soft + (1 - share) * F.cross_entropy(student.double(), targets)


def by_distributions(student, teacher, targets, temperature, share):
    p, q = (torch.distributions.Categorical(logits=x.double() / temperature) for x in (teacher, student))
    hard = -torch.distributions.Categorical(logits=student.double()).log_prob(targets).mean()
    return share * temperature**2 * torch.distributions.kl_divergence(p, q).mean() + (1 - share) * hard


RIGHT["08a-distill"] = [distillation_loss, by_kl_div, with_log_targets, by_entropies, by_distributions]


def mixed(soft=1.0, hard=1.0, direction=1, tempered=(True, True), mean=lambda table: table.sum(-1).mean()):
    def function(s, t, y, T, a):
        p, q = t / T if tempered[0] else t, s / T if tempered[1] else s
        p, q = (p, q) if direction == 1 else (q, p)
        divergence = mean(F.kl_div(q.log_softmax(-1), p.softmax(-1), reduction="none"))
        weigh = soft(T, a) if callable(soft) else soft * a * T**2
        return weigh * divergence + (hard(T, a) if callable(hard) else hard * (1 - a)) * F.cross_entropy(s, y)

    return function


def with_exp(student, teacher, targets, temperature, share):
    p, q = ((x / temperature).exp() for x in (teacher, student))
    p, q = p / p.sum(-1, keepdim=True), q / q.sum(-1, keepdim=True)
    soft = (p * (p / q).log()).sum(-1).mean()
    return share * temperature**2 * soft + (1 - share) * F.cross_entropy(student, targets)


def with_logs_of_softmax(student, teacher, targets, temperature, share):
    p, q = ((x / temperature).softmax(-1) for x in (teacher, student))
    soft = (p * (p.log() - q.log())).sum(-1).mean()
    return share * temperature**2 * soft + (1 - share) * F.cross_entropy(student, targets)


WRONG["08a-distill"] = numbered(
    [
        (mixed(soft=lambda T, a: a), "the factor temperature² is missing"),
        (mixed(soft=lambda T, a: a * T), "the SQUARE"),
        (mixed(direction=-1), "KL(student || teacher)"),
        (mixed(tempered=(False, True)), "the teacher's logits are not divided"),
        (mixed(tempered=(True, False)), "the student's logits are not divided"),
        (mixed(tempered=(False, False)), "nothing is divided"),
        (mixed(mean=torch.mean), "tokens AND vocabulary"),
        (mixed(mean=torch.sum), "is a sum over the tokens"),
        (mixed(soft=lambda T, a: (1 - a) * T**2, hard=lambda T, a: a), "exchanged"),
        (mixed(hard=0.0), "the targets' part is missing"),
        (mixed(soft=0.0), "the teacher's part is missing"),
        (mixed(hard=lambda T, a: 1.0), "the weight 1 - share"),
        (with_exp, "use log_softmax"),
        (with_logs_of_softmax, "use log_softmax"),
        (lambda s, t, y, T, a: distillation_loss(s, t, y, 2.0, a), "temperature 3"),
    ]
)


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers(name):
    assert_right(name, RIGHT[name])


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers_hear_what_is_wrong(name):
    assert_wrong(name, WRONG[name])


def test_no_other_change_of_the_rest_makes_the_error_smaller():
    """The solution against what it claims: the output's squared error is least, by many random trials."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(50, 5, generator=generator) @ torch.randn(5, 5, generator=generator)
    w, value = torch.randn(5, generator=generator), 0.5
    best = torch.cat([torch.tensor([value]), compensate(w, x.T @ x, value)])
    error = (x @ (best - w)).square().sum()
    for size in (1.0, 0.1, 0.01):
        for _ in range(50):
            other = best.clone()
            other[1:] += size * torch.randn(4, generator=generator)
            assert (x @ (other - w)).square().sum() >= error


# ---- what the room measures -----------------------------------------------------------------


def test_the_float_model_is_where_the_student_s_card_says():
    """Students and pruned models were measured on other text than quantized ones: each has its own zero."""
    card = (course_data() / "checkpoints" / "student" / "README.md").read_text(encoding="utf-8")
    (row,) = re.findall(r"^\| the teacher \|.*$", card, flags=re.MULTILINE)
    held_out, _, training = re.findall(r"\d\.\d{4}", row)
    assert {name: f"{value:.4f}" for name, value in measures.FLOAT.items()} == {
        "held_out": held_out,
        "training": training,
    }


def test_each_point_of_the_chart_is_a_stored_model():
    tables = [measures.stored(name) for name in ("quantization", "students", "pruning")]
    points = measures.points(*tables)
    assert [(cost, more) for _, cost, more in points["float16"]] == [(0, 0)]
    assert points["float16"][0][0] > 4_331_280
    sizes = {name: [size for size, *_ in found] for name, found in points.items()}
    assert max(sizes["student, distilled"]) < 10**6 < min(sizes["QAT"]) < 2 * 10**6
    spread = [cost for _, cost, _ in points["pruned"]]
    assert len(spread) >= 6
    assert max(spread) > 0.5 > 0.01 > min(spread)
