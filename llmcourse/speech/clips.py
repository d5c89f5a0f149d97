"""Batches of clips for training, with noise and other voices made of the ones that are there.

Dimensions: B batch, T frames, M mel bands, L labels.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from llmcourse.data.batches import EndlessBatches, batches_by_length
from llmcourse.speech.ctc import frames_needed
from llmcourse.speech.recognizer import pad_clips
from llmcourse.support.inputs import whole

Change = Callable[[Tensor, torch.Generator], Tensor]


def cannot_align(clips: Sequence[Tensor], labels: Sequence[Sequence[int]], n_frames=lambda n: n) -> list[int]:
    """Return the numbers of the clips that have too few frames for their labels.

    `n_frames` says how many are left of a clip's frames, as `Recognizer.n_frames` does. CTC can learn
    nothing from them, and torch's `zero_infinity` would hide it: count them.

    >>> cannot_align([torch.zeros(3, 40), torch.zeros(4, 40)], [[1, 1, 2], [1, 1, 2]])
    [0]
    """
    pairs = enumerate(zip(clips, labels, strict=True))
    return [i for i, (clip, row) in pairs if n_frames(len(clip)) < frames_needed(row)]


class ClipBatches(EndlessBatches):
    """Endless batches (features, lengths, labels, number of labels) of clips of about equal length.

    `clips` are features (T, M), `labels` lists of numbers from 1. `change(clip, generator)` returns a clip
    made of another, with noise for instance; it draws from `generator`, which depends on the batch's
    number alone, so that a run resumes exactly.

    Raises ValueError for a clip without labels, and for one with too few frames for them.

    >>> batches = ClipBatches([torch.zeros(9, 40), torch.zeros(8, 40)], [[1, 2], [3]], batch_size=2)
    >>> [part.shape for part in next(batches)]
    [torch.Size([2, 9, 40]), torch.Size([2]), torch.Size([2, 2]), torch.Size([2])]
    """

    def __init__(
        self,
        clips: Sequence[Tensor],
        labels: Sequence[Sequence[int]],
        batch_size: int = 32,
        seed: int = 0,
        change: Change | None = None,
        n_frames: Callable[[int], int] = lambda n: n,
    ):
        if len(clips) != len(labels) or not all(len(row) for row in labels):
            raise ValueError(
                f"{len(clips)} clips and {len(labels)} texts: each clip needs one that is not empty"
            )
        if short := cannot_align(clips, labels, n_frames):
            i = short[0]
            raise ValueError(
                f"{len(short)} clips have too few frames for their labels; the first is clip {i} with "
                f"{n_frames(len(clips[i]))} frames for {frames_needed(labels[i])}: leave out cannot_align(...), "
                "or keep more frames"
            )
        self.clips, self.labels, self.change = clips, labels, change
        self.batch_size, self.seed = whole(batch_size, "batch_size"), seed
        self._shuffle(0)

    def _shuffle(self, epoch: int) -> None:
        lengths = [len(clip) for clip in self.clips]
        self._batches = batches_by_length(lengths, self.batch_size, seed=self.seed * 1009 + epoch)
        self._epoch = epoch

    def __next__(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        epoch, index = divmod(self.position, len(self._batches))
        if epoch != self._epoch:
            self._shuffle(epoch)
        numbers = self._batches[index]
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.position)
        clips = [self.clips[i] for i in numbers]
        if self.change is not None:
            clips = [self.change(clip, generator) for clip in clips]
        labels = [torch.tensor(self.labels[i]) for i in numbers]
        self.position += 1
        return *pad_clips(clips), *_pad_labels(labels)

    def _identity(self) -> dict:
        n_frames = sum(len(clip) for clip in self.clips)
        return dict(seed=self.seed, batch_size=self.batch_size, n_rows=len(self.clips), n_frames=n_frames)


class TimedBatches(EndlessBatches):
    """Endless batches (numbers (B, L), durations (B, L), features (B, T, M), lengths (B,)) for a synthesizer.

    `numbers` are those of phonemes, from 1, and `durations` how many frames each lasts; both are filled
    up with 0. Raises ValueError where the durations of a clip do not add up to its frames.

    >>> batches = TimedBatches([torch.zeros(9, 80), torch.zeros(8, 80)], [[1, 2], [3]], [[4, 5], [8]], batch_size=2)
    >>> [part.shape for part in next(batches)]
    [torch.Size([2, 2]), torch.Size([2, 2]), torch.Size([2, 9, 80]), torch.Size([2])]
    """

    def __init__(
        self,
        clips: Sequence[Tensor],
        numbers: Sequence[Sequence[int]],
        durations: Sequence[Sequence[int]],
        batch_size: int = 16,
        seed: int = 0,
    ):
        for i, (clip, row, frames) in enumerate(zip(clips, numbers, durations, strict=True)):
            if len(row) != len(frames) or sum(frames) != len(clip):
                raise ValueError(
                    f"clip {i} has {len(clip)} frames, and its {len(row)} phonemes {len(frames)} durations "
                    f"that add up to {sum(frames)}: give one for each, which add up to the frames"
                )
        self.clips, self.batch_size, self.seed = clips, whole(batch_size, "batch_size"), seed
        self.rows = [tuple(map(torch.tensor, pair)) for pair in zip(numbers, durations, strict=True)]
        self._shuffle(0)

    _shuffle, _identity = ClipBatches._shuffle, ClipBatches._identity

    def __next__(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        epoch, index = divmod(self.position, len(self._batches))
        if epoch != self._epoch:
            self._shuffle(epoch)
        chosen = self._batches[index]
        self.position += 1
        numbers, durations = zip(*(self.rows[i] for i in chosen), strict=True)
        pad = torch.nn.utils.rnn.pad_sequence
        texts = [pad(rows, batch_first=True) for rows in (numbers, durations)]
        return *texts, *pad_clips([self.clips[i] for i in chosen])


def _pad_labels(labels: list[Tensor]) -> tuple[Tensor, Tensor]:
    return torch.nn.utils.rnn.pad_sequence(labels, batch_first=True), torch.tensor(
        [len(row) for row in labels]
    )
