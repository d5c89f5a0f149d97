"""Schedules against transformers' where the definitions agree, and their shapes."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import (
    get_cosine_schedule_with_warmup,
    get_cosine_with_min_lr_schedule_with_warmup,
    get_linear_schedule_with_warmup,
    get_wsd_schedule,
)

from llmcourse.optim import AdamW
from llmcourse.schedules import constant, warmup_cosine, warmup_linear, warmup_stable_decay


def their_factor(get_schedule, *arguments, **options):
    """The function from step to factor inside a schedule of transformers."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    return get_schedule(optimizer, *arguments, **options).lr_lambdas[0]


@pytest.mark.parametrize(("total", "warmup"), [(100, 10), (100, 0), (37, 1), (50, 49)])
def test_cosine_equals_transformers_except_that_warmup_starts_one_step_later_there(total, warmup):
    ours, theirs = warmup_cosine(total, warmup), their_factor(get_cosine_schedule_with_warmup, warmup, total)
    for step in range(warmup):
        assert abs(ours(step) - theirs(step + 1)) < 1e-12  # theirs wastes step 0 on a rate of 0
        assert abs(ours(step) - (step + 1) / warmup) < 1e-12
    for step in range(warmup, total + 1):
        assert abs(ours(step) - theirs(step)) < 1e-12


@pytest.mark.parametrize("final_factor", [0.0, 0.1, 1.0])
def test_cosine_with_a_floor_equals_transformers(final_factor):
    ours = warmup_cosine(80, 20, final_factor)
    theirs = their_factor(get_cosine_with_min_lr_schedule_with_warmup, 20, 80, min_lr_rate=final_factor)
    for step in range(20, 81):
        assert abs(ours(step) - theirs(step)) < 1e-12


def test_cosine_passes_through_its_known_points():
    schedule = warmup_cosine(110, 10, final_factor=0.2)
    for share, factor in ((0, 1.0), (1 / 3, 0.8), (1 / 2, 0.6), (2 / 3, 0.4), (1, 0.2)):
        expected_step = 10 + 100 * share
        before, after = schedule(math.floor(expected_step)), schedule(math.ceil(expected_step))
        assert after - 1e-12 <= factor <= before + 1e-12


def test_after_the_end_cosine_stays_at_its_last_value():
    schedule = warmup_cosine(10, 2, final_factor=0.1)
    assert [round(schedule(step), 12) for step in (10, 11, 1000)] == [0.1, 0.1, 0.1]


@pytest.mark.parametrize(("total", "warmup", "decay"), [(100, 10, 20), (30, 10, 20), (20, 0, 5), (20, 1, 19)])
def test_stable_decay_equals_transformers(total, warmup, decay):
    ours = warmup_stable_decay(total, warmup, decay)
    options = dict(num_warmup_steps=warmup, num_decay_steps=decay, num_training_steps=total)
    theirs = their_factor(get_wsd_schedule, **options, warmup_type="linear", decay_type="linear")
    for step in range(warmup):
        assert abs(ours(step) - theirs(step + 1)) < 1e-12
    for step in range(warmup, total + 1):
        assert abs(ours(step) - theirs(step)) < 1e-12


def test_stable_decay_has_three_phases():
    schedule = warmup_stable_decay(total_steps=100, warmup_steps=10, decay_steps=30)
    factors = [schedule(step) for step in range(101)]
    slopes = [b - a for a, b in pairwise(factors)]
    assert all(abs(slope - 1 / 10) < 1e-12 for slope in slopes[:9])
    assert factors[9:71] == [1.0] * 62
    assert all(abs(slope + 1 / 30) < 1e-12 for slope in slopes[70:])
    assert factors[100] == 0.0
    assert schedule(150) == 0.0


def test_prolonging_the_stable_phase_changes_nothing_before_the_decay():
    short, long = warmup_stable_decay(50, 5, 10), warmup_stable_decay(500, 5, 10)
    assert all(short(step) == long(step) for step in range(41))
    assert short(41) < long(41) == 1.0


@pytest.mark.parametrize(
    ("schedule", "steepest"),
    [
        (warmup_cosine(100, 20), 1 / 20),
        (warmup_cosine(100, 0), math.pi / 2 / 100),
        (warmup_cosine(100, 50, 0.3), math.pi / 2 / 50),
        (warmup_stable_decay(100, 20, 10), 1 / 10),
        (warmup_stable_decay(100, 10, 90), 1 / 10),
        (constant, 0.0),
    ],
)
def test_no_jumps_and_always_above_zero_until_the_end(schedule, steepest):
    factors = [schedule(step) for step in range(100)]
    assert all(0 < factor <= 1 for factor in factors)
    assert max(factors) == 1.0
    jumps = [abs(b - a) for a, b in pairwise(factors)]
    assert max(jumps) <= steepest + 1e-12


def test_no_phases_at_all_are_allowed():
    assert [warmup_stable_decay(3, 0, 0)(step) for step in range(3)] == [1.0, 1.0, 1.0]
    assert [warmup_cosine(3, 3)(step) for step in range(3)] == [1 / 3, 2 / 3, 1.0]
    assert [constant(step) for step in (0, 7, 10**6)] == [1.0, 1.0, 1.0]


def test_a_schedule_drives_the_optimizer_through_torch():
    w = nn.Parameter(torch.zeros(1))
    optimizer = AdamW([w], lr=0.3)
    schedule = warmup_cosine(12, 4)
    scheduler = LambdaLR(optimizer, schedule)
    for step in range(12):
        assert abs(optimizer.param_groups[0]["lr"] - 0.3 * schedule(step)) < 1e-12
        w.grad = torch.ones(1)
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: warmup_cosine(10, 11), r"phases of \(11,\) steps do not fit into total_steps=10"),
        (lambda: warmup_cosine(10, -1), r"phases of \(-1,\) steps .* each must be >= 0"),
        (lambda: warmup_cosine(10, math.nan), r"phases of \(nan,\) steps"),
        (lambda: warmup_cosine(0), r"total_steps=0: .*at most the total"),
        (lambda: warmup_stable_decay(10, 6, 5), r"phases of \(6, 5\) steps do not fit into total_steps=10"),
        (lambda: warmup_stable_decay(10, 12, -3), r"phases of \(12, -3\) steps .* each must be >= 0"),
    ],
)
def test_phases_that_do_not_fit_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(("total", "warmup"), [(100, 10), (100, 0), (37, 1), (50, 49)])
def test_linear_equals_transformers_except_that_warmup_starts_one_step_later_there(total, warmup):
    ours, theirs = warmup_linear(total, warmup), their_factor(get_linear_schedule_with_warmup, warmup, total)
    for step in range(warmup):
        assert abs(ours(step) - theirs(step + 1)) < 1e-12
    for step in range(warmup, total + 1):
        assert abs(ours(step) - theirs(step)) < 1e-12
    assert warmup_linear(total, warmup, final_factor=0.25)(2 * total) == 0.25
    with pytest.raises(ValueError, match="do not fit into total_steps"):
        warmup_linear(total, total + 1)
