"""Exercises of chapter 9: right answers pass, each usual slip gets its own sentence."""

import math
from collections import Counter
from itertools import accumulate

import numpy as np
import pandas as pd
import pytest
import torch
from answers import assert_right, assert_wrong, numbered
from scipy import optimize, stats

from llmcourse.teach.chapters.ch09_faq import chooser, figures, stored
from llmcourse.teach.chapters.ch09_faq.solutions import (
    fit_power_law,
    mup_factors,
    split_by_group,
    texts_that_fit,
)
from llmcourse.tune import scaling
from llmcourse.tune.choose import Need
from llmcourse.tune.model_memory import cache_bytes, weight_bytes
from llmcourse.tune.open_models import read_models

RIGHT, WRONG = {}, {}


# ---- 09-law ---------------------------------------------------------------------------------


def by_hand(sizes, losses, floor):
    x, y = [math.log(n) for n in sizes], [math.log(loss - floor) for loss in losses]
    mx, my = sum(x) / len(x), sum(y) / len(y)
    slope = sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True)) / sum((a - mx) ** 2 for a in x)
    return [math.exp(my - slope * mx), -slope]


def by_lstsq(sizes, losses, floor):
    x = torch.tensor(sizes, dtype=torch.float64).log()
    y = (torch.tensor(losses, dtype=torch.float64) - floor).log()
    A, slope = torch.linalg.lstsq(torch.stack([torch.ones_like(x), -x], 1), y[:, None]).solution[:, 0]
    return torch.stack([A.exp(), slope])


def by_regression(sizes, losses, floor):
    line = stats.linregress(np.log10(sizes), np.log10(np.array(losses) - floor))
    return 10**line.intercept, -line.slope


def by_optimizer(sizes, losses, floor):
    y = np.log(np.array(losses) - floor)
    found = optimize.least_squares(lambda p: p[0] - p[1] * np.log(sizes) - y, [0.0, 0.5], xtol=1e-14)
    return np.array([np.exp(found.x[0]), found.x[1]])


RIGHT["09-law"] = [fit_power_law, by_hand, by_lstsq, by_regression, by_optimizer]


def line(sizes, losses):
    return np.polyfit(np.log(sizes), np.log(losses), 1)


WRONG["09-law"] = numbered(
    [
        (lambda n, y, e: by_hand(n, y, 0), "the floor is subtracted first"),
        (lambda n, y, e: by_hand(n, y, -e), "you add it"),
        (lambda n, y, e: (by_hand(n, y, e)[0], -by_hand(n, y, e)[1]), "minus its slope"),
        (lambda n, y, e: by_hand(n, y, e)[::-1], "first A, then a"),
        (lambda n, y, e: (math.log(by_hand(n, y, e)[0]), by_hand(n, y, e)[1]), "take exp of it"),
        (lambda n, y, e: (math.exp(np.polyfit(np.log10(n), np.log10(np.array(y) - e), 1)[1]), by_hand(n, y, e)[1]), "10 ** intercept"),
        (lambda n, y, e: (math.exp(np.polyfit(np.log2(n), np.log2(np.array(y) - e), 1)[1]), by_hand(n, y, e)[1]), "2 ** intercept"),
        (lambda n, y, e: (np.exp(np.polyfit(n, np.log(np.array(y) - e), 1)[1]), -np.polyfit(n, np.log(np.array(y) - e), 1)[0]), "logarithm of the sizes too"),
        (lambda n, y, e: (np.polyfit(np.log(n), np.array(y) - e, 1)[1], -np.polyfit(np.log(n), np.array(y) - e, 1)[0]), "above the floor too"),
        (lambda n, y, e: (20, 0.4), "noisy"),
        (lambda n, y, e: fit_power_law(n[:2], y[:2], e), "noisy"),
        (lambda n, y, e: by_hand(n, y, e)[:1], "two values, not 1"),
    ]
)  # fmt: skip


# ---- 09-mup ---------------------------------------------------------------------------------


def by_the_package(width, base):
    """The same factors, read off a model of the package."""
    from llmcourse.config import ModelConfig
    from llmcourse.tune.mup import MuPConfig, width_ratio

    shape = dict(vocab_size=8, n_heads=1, n_layers=1)
    config = MuPConfig.of(ModelConfig(d_model=width, **shape), base=ModelConfig(d_model=base, **shape))
    r = width_ratio(config, "blocks.0.attention.qkv.weight")
    return [1 / r, r**-0.5, 1 / width_ratio(config)]


RIGHT["09-mup"] = [
    mup_factors,
    by_the_package,
    lambda width, base: [base / width, (base / width) ** 0.5, base / width],
    lambda width, base: torch.tensor(
        [base / width, math.sqrt(base) / math.sqrt(width), base / width]
    ).double(),
    lambda width, base: tuple(np.exp(np.log(base / width) * np.array([1, 0.5, 1]))),
]
WRONG["09-mup"] = numbered(
    [
        (lambda w, b: (w / b, (w / b) ** 0.5, w / b), "turned round"),
        (lambda w, b: ((b / w) ** 0.5, (b / w) ** 0.5, b / w), "not with its root"),
        (lambda w, b: (b / w, b / w, b / w), "the ROOT of r"),
        (lambda w, b: (b / w, (b / w) ** 0.5, (b / w) ** 0.5), "logits are divided by r"),
        (lambda w, b: (1, (b / w) ** 0.5, b / w), "the rate stays"),
        (lambda w, b: (b / w, 1, b / w), "the deviation stays"),
        (lambda w, b: (b / w, (b / w) ** 0.5, 1), "the logits stay"),
        (lambda w, b: ((b / w) ** 0.5, b / w, b / w), "in this order"),
        (lambda w, b: (1, (b / w) ** 0.5, 1), "the usual parametrization"),
        (lambda w, b: ((b / w) ** 0.5,) * 3, "not all the same"),
        (lambda w, b: (1 / w, w**-0.5, 1 / w), "the base does not appear"),
        (lambda w, b: (0.25, 0.5, 0.25), "96 over 32"),
    ]
)


# ---- 09-texts -------------------------------------------------------------------------------


def one_after_the_other(memory, weights, n_layers, n_kv_heads, d_head, tokens):
    left, n = memory - weights, 0
    while left >= (each := 4 * n_layers * n_kv_heads * d_head * tokens):
        left, n = left - each, n + 1
    return n


def by_tensors(memory, weights, n_layers, n_kv_heads, d_head, tokens):
    shape = (2, n_layers, n_kv_heads, tokens, d_head)
    each = torch.empty(shape, dtype=torch.bfloat16, device="meta").nbytes
    return max(0, (memory - weights) // each)


def by_floats(memory, weights, n_layers, n_kv_heads, d_head, tokens):
    each = 2 * 2 * n_layers * n_kv_heads * d_head * tokens
    return math.floor((memory - weights) / each) if memory > weights else 0


RIGHT["09-texts"] = [
    texts_that_fit,
    one_after_the_other,
    by_tensors,
    by_floats,
    lambda m, w, n, h, d, t: np.maximum(0, np.floor((m - w) / (4.0 * n * h * d * t))),
]
WRONG["09-texts"] = numbered(
    [
        (lambda m, w, n, h, d, t: m // (4 * n * h * d * t), "subtract them"),
        (lambda m, w, n, h, d, t: max(0, (m - w) // (2 * n * h * d * t)), "keys AND values"),
        (lambda m, w, n, h, d, t: max(0, (m - w) // (8 * n * h * d * t)), "not four"),
        (lambda m, w, n, h, d, t: max(0, (m - w) // (32 * n * h * d * t)), "those are bits"),
        (lambda m, w, n, h, d, t: max(0, (m - w) // (4 * h * d * t)), "every layer"),
        (lambda m, w, n, h, d, t: max(0, (m - w) // (4 * n * h * d)), "every token"),
        (lambda m, w, n, h, d, t: max(0, (m - w) // (4 * n * d * t)), "each head of keys"),
        (lambda m, w, n, h, d, t: max(0, (m - w) / (4 * n * h * d * t)), "half a text"),
        (lambda m, w, n, h, d, t: max(0, -((w - m) // (4 * n * h * d * t))), "half a text"),
        (lambda m, w, n, h, d, t: (m - w) // (4 * n * h * d * t), "below 0"),
        (lambda m, w, n, h, d, t: max(0, (m - w - 1) // (4 * n * h * d * t)), "exactly three"),
        (lambda m, w, n, h, d, t: 12, "8 GB, 6 GB"),
    ]
)


# ---- 09-split -------------------------------------------------------------------------------


def by_counter(groups, share):
    sizes = Counter(groups)  # in the order of the first row
    before = [0, *accumulate(sizes.values())][:-1]
    test = {g for g, rows in zip(sizes, before, strict=True) if rows < share * len(groups)}
    return np.array([g in test for g in groups])


def by_pandas(groups, share):
    table = pd.Series(groups, dtype=object)
    sizes = table.groupby(table, sort=False).size()
    test = sizes[(sizes.cumsum() - sizes) < share * len(table)].index
    return table.isin(test)


def by_codes(groups, share):
    names = list(dict.fromkeys(groups))
    codes = torch.tensor([names.index(g) for g in groups])
    before = torch.bincount(codes).cumsum(0) - torch.bincount(codes)
    return before[codes] < share * len(groups)


def by_generator(groups, share):
    test = []
    for row in groups:
        if row not in test and sum(g in test for g in groups) < share * len(groups):
            test.append(row)
    return (row in test for row in groups)


RIGHT["09-split"] = [split_by_group, by_counter, by_pandas, by_codes, by_generator]


def first_groups(n):
    return lambda groups, share: [g in list(dict.fromkeys(groups))[: n(groups, share)] for g in groups]


def shuffled(groups, share):
    names = list(dict.fromkeys(groups))
    np.random.default_rng(0).shuffle(names)
    return [g in names[:2] for g in groups]


def greedy_most(groups, share):
    sizes, test, rows = Counter(groups), set(), 0
    for group in sizes:
        if rows + sizes[group] <= share * len(groups):
            test.add(group)
            rows += sizes[group]
        else:
            break
    return [group in test for group in groups]


WRONG["09-split"] = numbered(
    [
        (lambda g, s: [i < s * len(g) for i in range(len(g))], "on both sides"),
        (lambda g, s: [i < int(s * len(g)) for i in range(len(g))], "on both sides"),
        (first_groups(lambda g, s: math.ceil(s * len(set(g)))), "of the ROWS"),
        (greedy_most, "at LEAST that share"),
        (lambda g, s: [not x for x in split_by_group(g, s)], "turned round"),
        (lambda g, s: split_by_group(g[::-1], s)[::-1], "Emma, Ran"),
        (lambda g, s: [x in sorted(set(g))[:2] for x in g], "you sort the groups"),
        (shuffled, "Emma, Ran"),
        (lambda g, s: [True] * len(g), "Emma, Ran"),
        (lambda g, s: split_by_group(g, s + 1e-9), "one group too many"),
        (lambda g, s: split_by_group(g, 0.4), "side by side"),
    ]
)


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers(name):
    assert_right(name, RIGHT[name])


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers_hear_what_is_wrong(name):
    assert_wrong(name, WRONG[name])


def test_texts_that_fit_are_those_of_the_package():
    """The exercise's formula against the library's count, for each decoder of the table."""
    for model in read_models():
        if model.task == "text":
            weights, each = weight_bytes(model), cache_bytes(model, 1000)
            shape = (model.decoder_layers, model.kv_heads, model.head_dim, 1000)
            fit = texts_that_fit(24 * 10**9, weights, *shape)
            assert weights + fit * each <= 24e9 < weights + (fit + 1) * each


def test_no_group_is_on_both_sides_and_the_share_is_just_reached():
    generator = np.random.default_rng(9)
    for share in (0.1, 0.3, 0.7):
        groups = generator.integers(0, 12, 60).tolist()
        test = split_by_group(groups, share)
        inside, outside = (
            {g for g, t in zip(groups, test, strict=True) if t == side} for side in (True, False)
        )
        assert not inside & outside
        last = max(inside, key=groups.index)
        assert sum(test) - groups.count(last) < share * 60 <= sum(test)


# ---- what the room shows --------------------------------------------------------------------

HEADER = "part,width,parameters,steps,tokens,log2_rate,mup,seed,bits,seconds\n"


def trials(usual, mup):
    """Rows of stored runs: {width: {log2_rate: bits}} in the usual way and in muP."""
    return [
        {
            "width": width,
            "parameters": 100 * width,
            "tokens": 1e5,
            "log2_rate": rate,
            "mup": kind,
            "bits": bits,
        }
        for kind, found in ((False, usual), (True, mup))
        for width, row in found.items()
        for rate, bits in row.items()
    ]


def test_stored_runs_are_read_by_part(tmp_path, monkeypatch):
    (tmp_path / "scaling").mkdir()
    text = HEADER + "rates,32,25248,150,76800,-7,1,0,3.25,2.1\nsizes,64,98688,300,153600,-6,0,2,inf,4.0\n"
    (tmp_path / "scaling" / "runs.csv").write_text(text, encoding="utf-8")
    monkeypatch.setattr(stored, "course_data", lambda: tmp_path)
    (row,) = stored.runs("rates")
    assert (row["width"], row["mup"], row["bits"], row["log2_rate"]) == (32, True, 3.25, -7)
    (row,) = stored.runs("sizes")
    assert (row["mup"], row["bits"]) == (False, math.inf)
    with pytest.raises(ValueError, match="held_back"):
        stored.runs("held_back")


def test_the_base_counts_for_both_parametrizations():
    rows = trials({64: {-8: 2.9, -7: 3.0, -6: 3.4}}, {32: {-7: 3.1, -6: 3.0}, 64: {-7: 2.9, -6: 2.8}})
    assert stored.best_rates(rows, mup=False) == {32: -6, 64: -8}
    assert stored.best_rates(rows, mup=True) == {32: -6, 64: -6}


def test_the_best_rate_is_that_of_the_mean_over_seeds():
    rows = trials({}, {32: {-7: 3.0, -6: 2.9}}) + trials({}, {32: {-7: 3.0, -6: 3.3}})
    assert stored.best_rates(rows, mup=True) == {32: -7}


def test_a_rate_at_which_runs_end_is_drawn_nowhere_and_is_not_best():
    rows = trials({64: {-8: 2.9, -3: math.inf}}, {32: {-8: 3.1, -7: 3.0}, 64: {-8: 2.95}})
    left, right = figures.rates(rows)
    assert stored.best_rates(rows, mup=False)[64] == -8
    lines = {line.get_label(): len(line.get_xdata()) for line in left.lines if "width" in line.get_label()}
    assert lines == {"width 32": 2, "width 64": 1}
    assert right.get_title() == "muP"


def test_each_run_and_each_interval_is_drawn():
    rows = [
        {"parameters": 1e4 * n, "tokens": 1e5 * d, "bits": 2 + 1 / n + 1 / d}
        for n in (1, 2, 4)
        for d in (1, 2)
    ]
    held = [{"parameters": 8e4, "tokens": 2e5, "bits": 2.6}]
    found = scaling.Prediction(2.62, 2.58, 2.66, scaling.ScalingLaw(2.0, 1e4, 1.0, 1e5, 1.0))
    axis = figures.over_sizes(rows, found.law, held, {2e5: found})
    drawn = sum(len(line.get_xdata()) for line in axis.lines if line.get_linestyle() == "None")
    assert drawn == len(rows) + len(held)
    assert [2.58, 2.66] in [list(line.get_ydata()) for line in axis.lines]


def test_the_table_says_all_that_speaks_against_the_others():
    need = Need("text", "zh", commercial=True, gigabytes=4, tokens=2048, seconds=0.2, bandwidth=2e10)
    lines = chooser.table(read_models(), need).splitlines()
    assert [line.split()[:2] for line in lines[:2]] == [
        ["fits", "Qwen3-0.6B"],
        ["fits", "Qwen2.5-0.5B-Instruct"],
    ]
    assert len(lines) == sum(model.task == "text" for model in read_models())
    (small,) = (line for line in lines if "gpt2" in line)
    assert small.endswith("no zh; reads 1024 tokens")


def test_the_sliders_show_the_same_table(capsys, monkeypatch):
    made = {}
    monkeypatch.setattr("ipywidgets.interact", lambda show, **options: made.update(options, show=show))
    chooser.explore_models(read_models(), bandwidth=2e10)
    values = {name: widget.value for name, widget in made.items() if name != "show"}
    made["show"](**values)
    need = Need("text", "zh", True, values["gigabytes"], "bfloat16", 512, 0.2, 2e10)
    assert capsys.readouterr().out == chooser.table(read_models(), need) + "\n"


def test_marks_of_memory_leave_out_what_needs_none():
    rows = {"a": {"bfloat16": 1.0, "cache": 0.5}, "b": {"bfloat16": 2.0, "cache": 0}}
    axis = figures.memory(rows)
    assert [len(line.get_xdata()) for line in axis.lines] == [2, 1]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a", "b"]
