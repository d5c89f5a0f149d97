"""Batches: each token in its place, about once an epoch, and position alone decides."""

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from llmcourse.data.batches import (
    IGNORE,
    LabelledBatches,
    TokenBatches,
    batches_by_length,
    pack,
    pad,
    pad_right,
)


def test_pack_closes_each_document():
    assert pack([[5, 6], [], [7]], end_id=0).tolist() == [5, 6, 0, 0, 7, 0]
    assert pack(([i] for i in range(2)), end_id=9).dtype == torch.int64
    row = pack([np.array([5, 6], dtype=np.uint16), torch.tensor([7])], end_id=0)
    assert row.tolist() == [5, 6, 0, 7, 0]


@pytest.mark.parametrize("nothing", [[], iter(())])
def test_an_empty_corpus_is_refused(nothing):
    with pytest.raises(ValueError, match="corpus is empty"):
        pack(nothing, end_id=0)


def test_pad_places_shifts_cuts_and_ignores():
    documents = [[1, 2, 3, 4, 5], [1, 2, 3, 4], [1, 2, 3], [1], []]
    inputs, targets = pad(documents, length=3, pad_id=7)
    assert inputs.tolist() == [[1, 2, 3], [1, 2, 3], [1, 2, 3], [1, 7, 7], [7, 7, 7]]
    X = IGNORE
    assert targets.tolist() == [[2, 3, 4], [2, 3, 4], [2, 3, X], [X, X, X], [X, X, X]]
    with pytest.raises(ValueError, match="corpus is empty"):
        pad([], length=3, pad_id=0)


def test_padding_changes_no_loss():
    torch.manual_seed(0)
    logits_of = torch.randn(10, 10)  # a bigram model: logits depend on the input token only
    documents = [[1, 2, 3, 4, 5, 6], [7, 8], [9]]
    inputs, targets = pad(documents, length=8, pad_id=0)
    padded = F.cross_entropy(logits_of[inputs].transpose(1, 2), targets)
    pairs = torch.tensor([pair for d in documents for pair in itertools.pairwise(d)])
    torch.testing.assert_close(padded, F.cross_entropy(logits_of[pairs[:, 0]], pairs[:, 1]))


def test_ignore_is_torchs_own():
    assert torch.nn.CrossEntropyLoss().ignore_index == IGNORE


def test_targets_are_the_inputs_shifted_by_one():
    row = torch.randint(0, 1000, (500,), generator=torch.Generator().manual_seed(0))
    batches = TokenBatches(row, batch_size=3, context_length=16, seed=5)
    windows = row.unfold(0, 17, 1)
    for _ in range(3 * batches.batches_per_epoch):
        inputs, targets = next(batches)
        assert inputs.shape == targets.shape == (3, 16)
        assert inputs.dtype == targets.dtype == torch.int64
        assert torch.equal(inputs[:, 1:], targets[:, :-1])
        for window in torch.cat([inputs, targets[:, -1:]], dim=1):
            assert (windows == window).all(dim=1).any()  # it stands in the row


@pytest.mark.parametrize(("n", "B", "T"), [(1000, 4, 16), (100, 1, 7), (24, 2, 8), (1001, 5, 10)])
def test_each_token_is_seen_about_once_an_epoch(n, B, T):
    batches = TokenBatches(torch.arange(n), B, T, seed=1)
    for _ in range(20):
        seen = Counter()
        for _ in range(batches.batches_per_epoch):
            seen.update(next(batches)[1].flatten().tolist())
        assert set(seen.values()) == {1}
        missed = n - len(seen)
        assert missed <= (B - 1) * T + 2 * T  # an incomplete batch, and the ends


@pytest.mark.parametrize(("n", "B", "T"), [(1023, 1, 128), (100, 1, 7), (17, 1, 8), (67, 3, 5)])
def test_every_start_is_drawn_in_the_long_run(n, B, T):
    """As a batch of random windows, whose starts are all of 0..n-T-1 (CS336, assignment 1)."""
    batches = TokenBatches(torch.arange(n), B, T)
    rows = [next(batches) for _ in range(2000 * batches.batches_per_epoch)]
    assert {start for inputs, _ in rows for start in inputs[:, 0].tolist()} == set(range(n - T))
    assert max(int(targets.max()) for _, targets in rows) == n - 1


def test_each_token_is_seen_in_the_long_run_and_at_any_place():
    batches = TokenBatches(torch.arange(200), batch_size=2, context_length=8)
    places = Counter()
    for _ in range(60 * batches.batches_per_epoch):
        inputs, _ = next(batches)
        places.update((token, place) for row in inputs.tolist() for place, token in enumerate(row))
    assert {token for token, _ in places} == set(range(199))
    assert {place for token, place in places if token == 100} == set(range(8))


def test_epochs_differ_in_order_and_offset():
    batches = TokenBatches(torch.arange(1000), batch_size=4, context_length=16)
    epochs = []
    for _ in range(6):
        epochs.append([next(batches)[0][:, 0].tolist() for _ in range(batches.batches_per_epoch)])
    assert len({str(epoch) for epoch in epochs}) == 6
    assert len({epoch[0][0] % 16 for epoch in epochs}) > 1
    starts = list(itertools.chain(*epochs[0]))
    assert starts != sorted(starts)


def test_position_alone_decides():
    row = torch.arange(300)
    batches = TokenBatches(row, 2, 8, seed=3)
    straight = [next(batches) for _ in range(3 * batches.batches_per_epoch)]
    torch.manual_seed(99)  # the global generator has no say
    for position in (40, 0, 17, len(straight) - 1, 5, 5):
        other = TokenBatches(row, 2, 8, seed=3)
        other.load_state_dict({**batches.state_dict(), "position": position})
        batches.position = position
        for one in (next(other), next(batches)):
            assert torch.equal(one[0], straight[position][0])
            assert torch.equal(one[1], straight[position][1])
    assert not torch.equal(next(TokenBatches(row, 2, 8, seed=4))[0], straight[0][0])


def test_reading_batches_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    next(TokenBatches(torch.arange(100), 2, 8))
    assert torch.equal(torch.get_rng_state(), state)


def test_it_is_endless_and_iterates_from_where_it_is():
    batches = TokenBatches(torch.arange(24), batch_size=2, context_length=8)
    assert batches.batches_per_epoch == 1
    for count, _ in enumerate(batches, start=1):
        if count == 5:
            break
    assert batches.position == 5


@pytest.mark.parametrize("change", [{"seed": 1}, {"batch_size": 3}, {"context_length": 9}, {"n": 299}])
def test_a_state_of_other_batches_is_refused(change):
    def make(n=300, batch_size=2, context_length=8, seed=0):
        return TokenBatches(torch.arange(n), batch_size, context_length, seed)

    saved, other = make(), make(**change)
    next(saved)
    name = {"n": "n_tokens"}.get(*change, *change)
    mine, theirs = other.state_dict()[name], saved.state_dict()[name]
    with pytest.raises(ValueError, match=rf"{name}={theirs} and these have {mine}"):
        other.load_state_dict(saved.state_dict())
    assert other.position == 0


@pytest.mark.parametrize(("n", "B", "T"), [(0, 1, 4), (23, 2, 8), (7, 1, 4)])
def test_too_few_tokens_are_refused_and_just_enough_are_not(n, B, T):
    with pytest.raises(ValueError, match=rf"^{n} tokens are too few .* {(B + 1) * T} are needed"):
        TokenBatches(torch.arange(n), B, T)
    inputs, _ = next(TokenBatches(torch.arange((B + 1) * T), B, T))
    assert inputs.shape == (B, T)


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_a_mapped_file_of_uint16_is_read_without_a_warning(tmp_path, mode):
    ids = np.arange(500, dtype=np.uint16) * 131  # up to 65,369: beyond int16
    ids.tofile(tmp_path / "tokens.bin")
    mapped = TokenBatches(np.memmap(tmp_path / "tokens.bin", dtype=np.uint16, mode=mode), 3, 16)
    plain = TokenBatches(torch.as_tensor(ids.astype(np.int64)), 3, 16)
    for _ in range(2 * plain.batches_per_epoch):
        (a, b), (c, d) = next(mapped), next(plain)
        assert a.dtype == torch.int64
        assert torch.equal(a, c)
        assert torch.equal(b, d)


@pytest.mark.parametrize(
    ("ids", "B", "T", "message"),
    [
        (torch.zeros(100, 5).long(), 2, 8, r"\(100, 5\) in torch.int64: give one row"),
        (np.arange(100) / 2, 2, 8, r"\(100,\) in torch.float64: give one row of whole numbers"),
        (torch.arange(100), 0, 8, "batch_size=0 must be a whole number"),
        (torch.arange(100), 1.5, 8, "batch_size=1.5 must be"),
        (torch.arange(100), 2, 0, "context_length=0 must be"),
    ],
)
def test_what_gives_no_batches_is_named(ids, B, T, message):
    with pytest.raises(ValueError, match=message):
        TokenBatches(ids, B, T)


# ---- rows with a label ----------------------------------------------------------------------------


def labelled(n=11, **changes):
    rows = [[1 + i] * (i % 4) for i in range(n)]
    return rows, LabelledBatches(rows, torch.arange(n), **{"batch_size": 3, "seed": 5, **changes})


def test_each_epoch_holds_every_row_with_its_label_in_batches_of_equal_length():
    rows, batches = labelled()
    for epoch in range(3):
        for wanted in batches_by_length([len(row) for row in rows], 3, seed=5 * 1009 + epoch):
            token_ids, mask, labels = next(batches)
            assert labels.tolist() == wanted
            assert torch.equal(token_ids, pad_right([rows[i] for i in wanted])[0])
            for row, counts, i in zip(token_ids, mask, wanted, strict=True):
                assert row[counts.bool()].tolist() == rows[i]


@pytest.mark.parametrize("done", [0, 1, 3, 4, 5, 9])
def test_labelled_batches_go_on_from_a_position(done):
    _, whole = labelled()
    seen = [next(whole)[2].tolist() for _ in range(14)]
    _, first = labelled()
    assert [next(first)[2].tolist() for _ in range(done)] == seen[:done]
    _, rest = labelled()
    rest.load_state_dict(first.state_dict())
    assert [next(rest)[2].tolist() for _ in range(14 - done)] == seen[done:]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(seed=6), "seed=5 and these have 6"),
        (dict(batch_size=4), "batch_size=3 and these have 4"),
        (dict(n=12), "n_rows=11 and these have 12"),
    ],
)
def test_other_labelled_batches_are_named(changes, words):
    _, other = labelled(**changes)
    with pytest.raises(ValueError, match=words):
        other.load_state_dict(labelled()[1].state_dict())


def test_labelled_batches_refuse_what_cannot_be_batched():
    with pytest.raises(ValueError, match="2 texts but 1 labels"):
        LabelledBatches([[1], [2]], torch.zeros(1))
    with pytest.raises(ValueError, match="at least one text"):
        LabelledBatches([], torch.zeros(0))
