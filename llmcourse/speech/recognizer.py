"""A recognizer: convolutions, which make fewer frames, a Transformer encoder, and CTC.

Dimensions: B batch, T frames, M mel bands, U frames after the convolutions, C width, K labels with the blank.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmcourse.config import ModelConfig
from llmcourse.mlp import make_norm
from llmcourse.model import Block
from llmcourse.positions import rotary_angles
from llmcourse.runtime import evaluating
from llmcourse.speech.ctc import BLANK, greedy_decode
from llmcourse.speech.features import normalized
from llmcourse.support.inputs import whole
from llmcourse.support.outputs import wide


@dataclass(frozen=True)
class RecognizerConfig:
    """Shape of a recognizer, and what it can hear. Raises ValueError on a bad value."""

    labels: tuple[str, ...]  # K - 1 labels, such as words; the blank is added before them, as label 0
    n_mels: int = 40  # M
    strides: tuple[int, ...] = (2, 2)  # one convolution each, which keeps one frame of so many
    d_model: int = 96  # C
    n_heads: int = 4
    n_layers: int = 3
    dropout: float = 0.0
    longest: int = 512  # U, most frames after the convolutions: 20 s at 100 frames a second and strides 2, 2

    def __post_init__(self):
        object.__setattr__(self, "labels", tuple(self.labels))
        object.__setattr__(self, "strides", tuple(whole(stride, "strides") for stride in self.strides))
        for name in ("n_mels", "longest"):
            whole(getattr(self, name), name)
        if not self.labels or len(set(self.labels)) < len(self.labels) or "" in self.labels:
            raise ValueError(f"labels={self.labels[:5]}: give at least one, each once, none empty")

    @property
    def encoder(self) -> ModelConfig:
        """The configuration of the blocks."""
        shape = dict(d_model=self.d_model, n_heads=self.n_heads, n_layers=self.n_layers)
        return ModelConfig(len(self.labels) + 1, self.longest, **shape, dropout=self.dropout)


class Recognizer(nn.Module):
    """Features (B, T, M) in, logits (B, U, K) out, with U = T / 4, rounded up, for strides 2, 2.

    >>> model = Recognizer(RecognizerConfig(labels=("yes", "no")))
    >>> logits, lengths = model(torch.zeros(1, 50, 40), torch.tensor([50]))
    >>> logits.shape, lengths.tolist()
    (torch.Size([1, 13, 3]), [13])

    Source: convolutions and blocks as in Whisper (arXiv:2212.04356, sec. 2.2), with CTC in place of a decoder.
    """

    def __init__(self, config: RecognizerConfig):
        super().__init__()
        self.config, parts = config, config.encoder
        inputs = [config.n_mels, *[config.d_model] * (len(config.strides) - 1)]
        self.convolutions = nn.ModuleList(
            nn.Conv1d(n, config.d_model, kernel_size=3, stride=stride, padding=1)
            for n, stride in zip(inputs, config.strides, strict=True)
        )
        self.blocks = nn.ModuleList(Block(parts) for _ in range(config.n_layers))
        self.final_norm = make_norm(parts)
        self.unembedding = nn.Linear(config.d_model, parts.vocab_size)
        cos, sin = rotary_angles(config.longest, parts.head_width)
        self.register_buffer("rotary_cos", cos, persistent=False)
        self.register_buffer("rotary_sin", sin, persistent=False)

    def n_frames(self, lengths):
        """Return how many frames (B,) are left of `lengths` after the convolutions."""
        for stride in self.config.strides:
            lengths = (lengths - 1) // stride + 1
        return lengths

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return (logits (B, U, K), lengths (B,)); frames beyond a clip's length change nothing.

        Raises ValueError for another number of bands, clips beyond `longest`, and lengths that do not fit.
        """
        B, T, M = features.shape
        if self.config.n_mels != M or not (lengths.min() >= 1 and lengths.max() <= T):
            raise ValueError(
                f"features have the shape {(B, T, M)} and lengths {lengths.tolist()[:8]}: give "
                f"(clips, frames, {self.config.n_mels}) and lengths from 1 to {T}"
            )
        if self.n_frames(T) > self.config.longest:
            most = self.config.longest * math.prod(self.config.strides)
            raise ValueError(
                f"a clip has {T} frames and the recognizer hears {most} at once: cut it in parts"
            )
        x = features.to(self.unembedding.weight.dtype).transpose(1, 2)  # (B, M, T)
        for convolution, stride in zip(self.convolutions, self.config.strides, strict=True):
            x = x * _inside(lengths, x.shape[-1])[:, None]  # beyond the end there is silence, as in padding
            x = F.gelu(convolution(x))  # (B, C, U)
            lengths = (lengths - 1) // stride + 1
        x = x.transpose(1, 2).to(self.unembedding.weight.dtype)  # (B, U, C), in full precision
        U = x.shape[1]
        mask = _inside(lengths, U)[:, None, None, :]  # (B, 1, 1, U): look at the clip's own frames
        for block in self.blocks:
            x = block(x, mask, (self.rotary_cos[:U], self.rotary_sin[:U]))
        return self.unembedding(self.final_norm(x)), lengths

    @torch.no_grad()
    def log_probabilities(self, clips: list[Tensor], batch_size: int = 32) -> list[Tensor]:
        """Return the log-probabilities (U, K) of each clip (T, M), without dropout."""
        device, found = self.unembedding.weight.device, [None] * len(clips)
        order = sorted(range(len(clips)), key=lambda i: len(clips[i]))
        with evaluating(self):
            for start in range(0, len(order), batch_size):
                numbers = order[start : start + batch_size]
                features, lengths = pad_clips([clips[i] for i in numbers])
                logits, lengths = self(features.to(device), lengths.to(device))
                for i, row, n in zip(
                    numbers, wide(logits).log_softmax(-1).cpu(), lengths.tolist(), strict=True
                ):
                    found[i] = row[:n]
        return found

    def text(self, labels) -> str:
        """Return labels, numbers from 1, as words."""
        return " ".join(self.config.labels[label - 1] for label in labels)

    def labels_of(self, text: str) -> list[int]:
        """Return the labels of a text, numbers from 1. Raises ValueError for a word that the recognizer does not know."""
        unknown = [word for word in text.split() if word not in self.config.labels]
        if unknown:
            raise ValueError(
                f"the recognizer knows no {unknown[0]!r}; it knows {len(self.config.labels)} words"
            )
        return [self.config.labels.index(word) + 1 for word in text.split()]

    def transcribe(self, clips: list[Tensor]) -> list[str]:
        """Return what each clip (T, M) says, by the most probable label of each frame."""
        return [self.text(greedy_decode(log_probs)) for log_probs in self.log_probabilities(clips)]


@torch.no_grad()
def with_labels(model: Recognizer, labels: Sequence[str]) -> Recognizer:
    """Return a recognizer of other labels that begins with what this one has learned: transfer learning.

    Everything is copied; in the last layer the blank and the labels that both have. New labels begin at random.

    >>> small = Recognizer(RecognizerConfig(labels=("yes", "no")))
    >>> large = with_labels(small, ("maybe", "no"))
    >>> bool((large.unembedding.weight[2] == small.unembedding.weight[2]).all())
    True
    """
    grown = Recognizer(replace(model.config, labels=tuple(labels)))
    old, new = model.state_dict(), grown.state_dict()
    shared = [label for label in grown.config.labels if label in model.config.labels]
    here = [BLANK, *(grown.config.labels.index(label) + 1 for label in shared)]
    there = [BLANK, *(model.config.labels.index(label) + 1 for label in shared)]
    for name, tensor in old.items():
        if name.startswith("unembedding."):
            new[name][here] = tensor[there]
        else:
            new[name].copy_(tensor)
    return grown


def ctc_loss(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor, Tensor]) -> tuple[Tensor, int]:
    """Return (minus the log-likelihood of the texts, number of labels) of a batch, for `train(loss=...)`.

    The batch is (features (B, T, M), lengths (B,), labels (B, L), number of labels (B,)). A clip with too
    few frames for its labels makes the loss infinite, and training stops: `ClipBatches` refuses it.
    """
    features, lengths, labels, n_labels = batch
    logits, lengths = model(features, lengths)
    log_probs = wide(logits).log_softmax(-1).transpose(0, 1)  # (U, B, K), as torch wants it
    total = F.ctc_loss(log_probs, labels, lengths, n_labels, blank=BLANK, reduction="sum")
    return total, int(n_labels.sum())


def pad_clips(clips: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return (features (B, T, M), lengths (B,)) of clips (T, M), with T the longest, filled up with zeros."""
    lengths = torch.tensor([len(clip) for clip in clips])
    return nn.utils.rnn.pad_sequence(list(clips), batch_first=True), lengths


def listen(model: Recognizer, features: Sequence[Tensor]) -> list[str]:
    """Return what a recognizer writes of features (T, at least n_mels), as `log_mel` gives them.

    It takes the first bands, as many as it knows (one for the telephone has no higher ones), normalized.

    >>> listen(Recognizer(RecognizerConfig(labels=("yes",), n_mels=8)), [])
    []
    """
    return model.transcribe([normalized(clip[:, : model.config.n_mels]) for clip in features])


def _inside(lengths: Tensor, n: int) -> Tensor:
    return torch.arange(n, device=lengths.device) < lengths[:, None]  # (B, n)
