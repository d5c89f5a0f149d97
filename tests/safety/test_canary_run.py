"""A run with canaries: what is planted lies whole in a row, runs differ in nothing but what was asked, and repeat."""

import math

import pytest
import torch

from llmcourse.data.batches import IGNORE
from llmcourse.safety.accountant import epsilon
from llmcourse.safety.canary_run import (
    canary_rows,
    held_out_bits,
    rows_of,
    small_model,
    small_tokenizer,
    train_on_rows,
    without_copies,
)
from llmcourse.safety.memorization import Canary, canary_exposures

TEXTS = [
    f"Speech number {word}, my lord." for word in ["one", "two", "three", "four", "five", "six", "seven"]
]
CANARIES = [Canary("The number of Kavo is ", "4091", 12), Canary("The number of Pelu is ", "7355", 0)]


@pytest.mark.parametrize("length", [4, 7, 30])
def test_rows_hold_all_documents_in_order_and_cut_none_that_fits(length):
    generator = torch.Generator().manual_seed(0)
    documents = [torch.randint(1, 9, (n,), generator=generator).tolist() for n in (3, 1, 9, 2, 2, 6, 3, 5)]
    inputs, targets = rows_of(documents, length, end_id=0)
    assert inputs.shape == targets.shape == (len(inputs), length)
    assert targets[targets != IGNORE].tolist() == [i for document in documents for i in [*document, 0]]
    counts = targets[:, :-1] != IGNORE
    assert torch.equal(inputs[:, 1:][counts], targets[:, :-1][counts])
    assert (inputs[:, 0] == 0).all()
    found = [row[row != IGNORE].tolist() for row in targets]
    for document in (d for d in documents if len(d) < length):
        line = [*document, 0]
        assert any(line == row[i : i + len(line)] for row in found for i in range(len(row)))


def test_copies_are_dropped_and_one_of_each_canary_stays():
    texts = [TEXTS[0], *[CANARIES[0].line] * 5, TEXTS[1], TEXTS[0].upper()]
    assert without_copies(texts) == [TEXTS[0], CANARIES[0].line, TEXTS[1]]
    rows, fewer = (canary_rows(TEXTS, CANARIES, 0, deduplicate=d) for d in (False, True))
    lines = [
        sum(small_tokenizer().decode(row.tolist()).count("of Kavo is 4091.") for row in r[0])
        for r in (rows, fewer)
    ]
    assert lines == [12, 1]


def run(seed=0, **options):
    rows, model = canary_rows(TEXTS, CANARIES, 0), small_model(0)
    spent = train_on_rows(model, rows, steps=2, seed=seed, batch_size=4, **options)
    return [p.detach() for p in model.parameters()], spent, len(rows[0])


def test_a_run_repeats_and_one_that_clips_nothing_is_the_plain_one():
    plain, spent, _ = run()
    assert spent == math.inf
    assert all(torch.equal(p, q) for p, q in zip(plain, run()[0], strict=True))
    for p, q in zip(plain, run(clip=1e9)[0], strict=True):
        torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-4)
    assert not torch.equal(plain[0], run(seed=1)[0][0])


def test_what_a_run_with_noise_spends_is_the_accountants():
    noisy, spent, n = run(clip=0.5, noise_multiplier=2.0)
    assert spent == epsilon(4 / n, 2.0, 2, 1 / n)[0]
    assert not torch.equal(noisy[0], run(clip=0.5)[0][0])


def test_a_secret_seen_many_times_is_known_by_heart():
    model = small_model(0)
    rows = canary_rows(TEXTS, CANARIES, 0)
    before = held_out_bits(model, TEXTS[0])
    train_on_rows(model, rows, steps=40, seed=0, batch_size=4)
    known, control = canary_exposures(model, small_tokenizer(), CANARIES)
    assert known == math.log2(10_000) > control + 3
    assert held_out_bits(model, TEXTS[0]) < before - 3


def test_no_document_is_refused():
    with pytest.raises(ValueError, match="the corpus is empty"):
        rows_of([], 8, 0)
