"""Pairs of a source and a target, such as a sentence and its translation, as padded batches.

Dimensions: B batch, S source, T target.
"""

from collections.abc import Sequence

from torch import Tensor

from llmcourse.data.batches import EndlessBatches, batches_by_length, pad, pad_right
from llmcourse.support.inputs import plain, whole

PairBatch = tuple[Tensor, Tensor, Tensor, Tensor]  # (source_ids, source_mask, inputs, targets)


def pair_batch(sources, targets, start_id: int, end_id: int, pad_id: int = 0) -> PairBatch:
    """Return (source_ids, source_mask, inputs, targets) of B pairs: (B, S), (B, S), (B, T), (B, T).

    `sources` and `targets` are lists of token ids. A source stays as it is; a target begins with
    `start_id`, which is only read, and ends with `end_id`, which is only written. Rows are padded on
    the right, and targets that are filled up are IGNORE. Raises ValueError for an empty source, and where
    each source has not one target.

    >>> source_ids, source_mask, inputs, targets = pair_batch([[5, 6], [7]], [[8], [9, 3]], start_id=1, end_id=2)
    >>> source_mask.tolist(), inputs.tolist(), targets.tolist()
    ([[True, True], [True, False]], [[1, 8, 2], [1, 9, 3]], [[8, 2, -100], [9, 3, 2]])
    """
    if len(sources) != len(targets):
        raise ValueError(f"{len(sources)} sources but {len(targets)} targets: each needs one")
    if empty := [i for i, row in enumerate(sources) if len(row) == 0]:
        raise ValueError(
            f"source {empty[0]} has no token: leave the pair out, or close each source with end_id"
        )
    source_ids, mask = pad_right(sources, pad_id)
    rows = [[start_id, *target, end_id] for target in targets]
    return source_ids, mask.bool(), *pad(rows, max(map(len, rows)) - 1, pad_id)


class PairBatches(EndlessBatches):
    """Endless batches (source_ids, source_mask, inputs, targets) of pairs of about equal length.

    `pairs` are (source ids, target ids); what becomes of them says `pair_batch`. Pairs and batches are
    shuffled anew each epoch, as `batches_by_length` does; the last batch of an epoch may be smaller.
    Batch number `position` depends on the seed and on nothing else: setting it resumes exactly.

    Raises ValueError without a pair, and for what `pair_batch` refuses.

    >>> batches = PairBatches([([5, 6], [8]), ([7], [9, 3])], start_id=1, end_id=2, batch_size=2)
    >>> [part.shape for part in next(batches)]
    [torch.Size([2, 2]), torch.Size([2, 2]), torch.Size([2, 3]), torch.Size([2, 3])]
    """

    def __init__(
        self,
        pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
        start_id: int,
        end_id: int,
        batch_size: int = 16,
        pad_id: int = 0,
        seed: int = 0,
    ):
        pairs = [
            (plain(source, f"source {i}"), plain(target, f"target {i}"))
            for i, (source, target) in enumerate(pairs)
        ]
        self.sources, self.targets = [source for source, _ in pairs], [target for _, target in pairs]
        self.lengths = [len(source) + len(target) for source, target in pairs]
        self.batch_size, self.seed = whole(batch_size, "batch_size"), seed
        self.ids = dict(start_id=start_id, end_id=end_id, pad_id=pad_id)
        self._shuffle(0)
        for i, source in enumerate(self.sources):
            if not source:
                pair_batch([source], [self.targets[i]], **self.ids)

    def _shuffle(self, epoch: int) -> None:
        self._batches = batches_by_length(self.lengths, self.batch_size, seed=self.seed * 1009 + epoch)
        self._epoch = epoch

    def __next__(self) -> PairBatch:
        epoch, index = divmod(self.position, len(self._batches))
        if epoch != self._epoch:
            self._shuffle(epoch)
        rows = self._batches[index]
        self.position += 1
        return pair_batch([self.sources[i] for i in rows], [self.targets[i] for i in rows], **self.ids)

    def _identity(self) -> dict:
        n_tokens = sum(self.lengths)
        return {
            "seed": self.seed,
            "batch_size": self.batch_size,
            "n_pairs": len(self.sources),
            "n_tokens": n_tokens,
        }
