"""From token ids to batches: (inputs, targets), or rows with a label.

Dimensions: B batch, T time (context_length).
"""

import warnings
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from llmcourse.support.inputs import whole

IGNORE = -100  # a target with this id does not count in the loss: torch's own convention
Batch = tuple[Tensor, Tensor]  # (inputs, targets), each (B, T)


def to_device(batch, device):
    """Return a batch with its tensors on `device`: a tensor, or tuples, lists and dictionaries of them.

    >>> to_device({"ids": (torch.tensor([1]), "as it is")}, "cpu")
    {'ids': (tensor([1]), 'as it is')}
    """
    if hasattr(batch, "to"):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {name: to_device(part, device) for name, part in batch.items()}
    if isinstance(batch, tuple | list):
        parts = [to_device(part, device) for part in batch]
        return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)
    return batch


def pack(documents: Iterable[Sequence[int]], end_id: int) -> Tensor:
    """Return all documents as one row of ids, each closed by `end_id`: nothing is wasted.

    Raises ValueError when there is no document.

    >>> pack([[5, 6], [7]], end_id=0).tolist()
    [5, 6, 0, 7, 0]
    """
    rows = [torch.as_tensor([*document, end_id], dtype=torch.long) for document in documents]
    if not rows:
        raise ValueError("the corpus is empty: give at least one document")
    return torch.cat(rows)


def pad(documents: Sequence[Sequence[int]], length: int, pad_id: int) -> tuple[Tensor, Tensor]:
    """Return (inputs, targets), each (B, length): one document a row, the rest filled up.

    Longer documents are cut. Filled positions have the target IGNORE.

    >>> pad([[5, 6, 7], [8, 9]], length=3, pad_id=0)[1].tolist()
    [[6, 7, -100], [9, -100, -100]]
    """
    if not documents:
        raise ValueError("the corpus is empty: give at least one document")
    inputs = torch.full((len(documents), length), pad_id)
    targets = torch.full((len(documents), length), IGNORE)
    for row, document in enumerate(documents):
        ids = torch.as_tensor(document[: length + 1], dtype=torch.long)
        inputs[row, : min(len(ids), length)] = ids[:length]
        targets[row, : max(0, len(ids) - 1)] = ids[1:]
    return inputs, targets


class EndlessBatches:
    """Batches that are known by their number: `position` is the place to go back to."""

    position = 0

    def __iter__(self):
        return self

    def state_dict(self) -> dict:
        """Return what a checkpoint must keep."""
        return {"position": self.position, **self._identity()}

    def load_state_dict(self, state: dict) -> None:
        """Go to the saved position. Raises ValueError if the data or the batches are others."""
        for name, mine in self._identity().items():
            if state[name] != mine:
                raise ValueError(
                    f"the checkpoint's batches have {name}={state[name]} and these have "
                    f"{mine}: resume with the same data, or start without resume"
                )
        self.position = state["position"]


class TokenBatches(EndlessBatches):
    """Endless batches of (inputs, targets), each (B, T), cut from one row of token ids.

    The row is cut into windows of T tokens, shuffled anew each epoch and shifted by a random
    offset, so every token is seen about once an epoch and not always at the same position. Every
    second epoch is laid out from the end of the row: else its last tokens would be in no window.
    Batch number `position` depends on the seed and on nothing else: setting it resumes exactly.

    Raises ValueError for what is no row of whole numbers, or one too short for one batch.

    >>> batches = TokenBatches(torch.arange(100), batch_size=2, context_length=8, seed=0)
    >>> inputs, targets = next(batches)
    >>> inputs.shape, bool((targets == inputs + 1).all())
    (torch.Size([2, 8]), True)
    """

    def __init__(self, token_ids: Tensor, batch_size: int, context_length: int, seed: int = 0):
        with warnings.catch_warnings():  # a file mapped read-only is fine: nothing writes to it
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            self.token_ids = torch.as_tensor(token_ids)
        if self.token_ids.dim() != 1 or self.token_ids.is_floating_point():
            form = f"{tuple(self.token_ids.shape)} in {self.token_ids.dtype}"
            raise ValueError(f"token_ids are {form}: give one row of whole numbers, such as pack(documents)")
        batch_size, context_length = whole(batch_size, "batch_size"), whole(context_length, "context_length")
        self.batch_size, self.context_length, self.seed = batch_size, context_length, seed
        self.windows = (len(self.token_ids) - context_length) // context_length
        self.batches_per_epoch = self.windows // batch_size
        if self.batches_per_epoch < 1:
            needed = (batch_size + 1) * context_length
            raise ValueError(
                f"{len(self.token_ids)} tokens are too few for one batch of {batch_size} x "
                f"{context_length}: {needed} are needed; use more text, or smaller batches"
            )
        self._epoch = -1

    def _shuffle(self, epoch: int) -> None:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        offset = torch.randint(self.context_length, (1,), generator=generator)
        n_windows = self.batches_per_epoch * self.batch_size
        order = torch.randperm(self.windows, generator=generator)[:n_windows]
        self._starts = offset + order * self.context_length
        if epoch % 2:
            self._starts = len(self.token_ids) - 1 - self.context_length - self._starts
        self._epoch = epoch

    def __next__(self) -> tuple[Tensor, Tensor]:
        epoch, index = divmod(self.position, self.batches_per_epoch)
        if epoch != self._epoch:
            self._shuffle(epoch)
        starts = self._starts[index * self.batch_size : (index + 1) * self.batch_size]
        rows = self.token_ids[starts[:, None] + torch.arange(self.context_length + 1)].long()
        self.position += 1
        return rows[:, :-1], rows[:, 1:]

    def _identity(self) -> dict:
        return {
            "seed": self.seed,
            "batch_size": self.batch_size,
            "context_length": self.context_length,
            "n_tokens": len(self.token_ids),
        }


def batches_by_length(lengths: Sequence[int], batch_size: int, seed: int | None = None) -> list[list[int]]:
    """Return the numbers of all rows in batches of about equal length: little is padded.

    With a `seed`, rows of equal length and the batches are shuffled, for training; without, the
    longest batch comes first, so that too little memory shows at once. Raises ValueError if empty.

    >>> batches_by_length([3, 9, 4, 8], batch_size=2)
    [[1, 3], [2, 0]]
    """
    if not len(lengths):
        raise ValueError("there is nothing to put into batches: give at least one text")
    batch_size = whole(batch_size, "batch_size")
    generator = torch.Generator().manual_seed(seed or 0)
    rows = range(len(lengths)) if seed is None else torch.randperm(len(lengths), generator=generator).tolist()
    order = sorted(rows, key=lambda row: -lengths[row])
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    if seed is None:
        return batches
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


def pad_right(rows: Sequence[Sequence[int]], pad_id: int = 0) -> tuple[Tensor, Tensor]:
    """Return (token_ids, attention_mask), each (B, T), with T the longest row, at least 1.

    So an empty text is a row of padding, and its mean is 0, whichever rows lie beside it. Raises
    ValueError without a row.

    >>> pad_right([[5, 6], [7]])[1].tolist()
    [[1, 1], [1, 0]]
    """
    rows = list(rows)
    lengths = torch.tensor([len(row) for row in rows])
    token_ids, _ = pad(rows, max([1, *lengths.tolist()]), pad_id)
    return token_ids, (torch.arange(token_ids.shape[1]) < lengths[:, None]).long()


class LabelledBatches(EndlessBatches):
    """Endless batches (token_ids, attention_mask, labels) of rows of about equal length, padded on the right.

    `rows` are lists of token ids, `labels` (N,) their classes. Rows and batches are shuffled anew each
    epoch, as `batches_by_length` does; the last batch of an epoch may be smaller. Batch number
    `position` depends on the seed and on nothing else: setting it resumes exactly.

    Raises ValueError without a row, and where each row has not one label.

    >>> batches = LabelledBatches([[5, 6], [7], [8, 9]], torch.tensor([0, 1, 0]), batch_size=2)
    >>> sorted(len(next(batches)[2]) for _ in range(2))
    [1, 2]
    """

    def __init__(self, rows: Sequence[Sequence[int]], labels: Tensor, batch_size: int = 16, seed: int = 0):
        if len(rows) != len(labels):
            raise ValueError(f"{len(rows)} texts but {len(labels)} labels: each text needs one label")
        self.rows, self.labels, self.batch_size, self.seed = rows, labels, batch_size, seed
        self._shuffle(0)

    def _shuffle(self, epoch: int) -> None:
        lengths = [len(row) for row in self.rows]
        self._batches = batches_by_length(lengths, self.batch_size, seed=self.seed * 1009 + epoch)
        self._epoch = epoch

    @property
    def batches_per_epoch(self) -> int:
        """How many batches hold every row once."""
        return len(self._batches)

    def next_numbers(self) -> list[int]:
        """Return the numbers of the rows of the next batch, and go on to the one after it."""
        epoch, index = divmod(self.position, self.batches_per_epoch)
        if epoch != self._epoch:
            self._shuffle(epoch)
        self.position += 1
        return self._batches[index]

    def __next__(self) -> tuple[Tensor, Tensor, Tensor]:
        batch = self.next_numbers()
        return *pad_right([self.rows[i] for i in batch]), self.labels[batch]

    def _identity(self) -> dict:
        n_tokens = sum(len(row) for row in self.rows)
        return {
            "seed": self.seed,
            "batch_size": self.batch_size,
            "n_rows": len(self.rows),
            "n_tokens": n_tokens,
        }
