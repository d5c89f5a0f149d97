"""A synthesizer: phonemes and how long each lasts in, log-mel frames out, all frames at once.

Two encoders of a Transformer. The first reads phonemes and says how long each lasts; each is then repeated
for as many frames; the second reads frames and says what is heard in them. No frame waits for the one before,
so nothing can be skipped, repeated or go on for ever, as attention to the text may.

Source: FastSpeech (arXiv:1905.09263, sec. 3), with rotary positions, and durations from CTC in place of a teacher.

Dimensions: B batch, L phonemes, T frames, M mel bands, C width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmcourse.config import ModelConfig
from llmcourse.mlp import make_norm
from llmcourse.model import Block
from llmcourse.positions import rotary_angles
from llmcourse.runtime import evaluating
from llmcourse.support.inputs import number, whole

PLACES = 3  # numbers that say where in its phoneme a frame lies


@dataclass(frozen=True)
class SynthesizerConfig:
    """Shape of a synthesizer, and what it can say. Raises ValueError on a bad value."""

    phonemes: tuple[str, ...]  # all that it knows; number 0 is padding, the first of these is number 1
    n_mels: int = 80  # M
    d_model: int = 128  # C
    n_heads: int = 4
    n_text_layers: int = 2
    n_frame_layers: int = 3
    dropout: float = 0.0
    longest: int = 1000  # T, most frames of one sentence

    def __post_init__(self):
        object.__setattr__(self, "phonemes", tuple(self.phonemes))
        for name in ("n_mels", "longest", "n_text_layers", "n_frame_layers"):
            whole(getattr(self, name), name)
        if not self.phonemes or len(set(self.phonemes)) < len(self.phonemes) or "" in self.phonemes:
            raise ValueError(f"phonemes={self.phonemes[:5]}: give at least one, each once, none empty")

    @property
    def parts(self) -> ModelConfig:
        """The configuration of the blocks."""
        shape = dict(d_model=self.d_model, n_heads=self.n_heads, dropout=self.dropout)
        return ModelConfig(len(self.phonemes) + 1, self.longest, **shape)


def expand(states: Tensor, durations: Tensor) -> tuple[Tensor, Tensor]:
    """Return (frames (B, T, C), places (B, T, 3)): state l of (B, L, C) stands durations[:, l] times, in order.

    `durations` (B, L) are whole numbers of frames; T is the longest sum, shorter rows are filled up with 0.
    The places say of each frame how far through its phoneme it is, 0 to 1, how far from the middle, and the
    logarithm of how long the phoneme lasts.

    >>> frames, places = expand(torch.tensor([[[5.0], [7.0]]]), torch.tensor([[1, 2]]))
    >>> frames[0, :, 0].tolist(), places[0, :, 0].tolist()
    ([5.0, 7.0, 7.0], [0.5, 0.25, 0.75])

    Source: the length regulator of FastSpeech, arXiv:1905.09263, eq. 1.
    """
    rows, where = [], []
    for state, row in zip(states, durations, strict=True):
        rows.append(state.repeat_interleave(row, dim=0))
        first = (row.cumsum(0) - row).repeat_interleave(row)  # frame at which the phoneme begins
        long = row.repeat_interleave(row)
        through = (torch.arange(len(long), device=row.device) - first + 0.5) / long
        where.append(torch.stack([through, (2 * through - 1).abs(), long.log()], dim=-1))
    pad = nn.utils.rnn.pad_sequence
    return pad(rows, batch_first=True), pad(where, batch_first=True)


class Encoder(nn.Module):
    """A convolution over 5 neighbours, and blocks that look at the whole row: x (B, N, C) to x (B, N, C)."""

    def __init__(self, parts: ModelConfig, n_layers: int):
        super().__init__()
        self.convolution = nn.Conv1d(parts.d_model, parts.d_model, kernel_size=5, padding=2)
        self.blocks = nn.ModuleList(Block(parts) for _ in range(n_layers))
        self.final_norm = make_norm(parts)
        cos, sin = rotary_angles(parts.context_length, parts.head_width)
        self.register_buffer("rotary_cos", cos, persistent=False)
        self.register_buffer("rotary_sin", sin, persistent=False)

    def forward(self, x: Tensor, inside: Tensor) -> Tensor:
        """`inside` (B, N) says what is no padding."""
        x = x * inside[..., None]
        x = x + F.gelu(self.convolution(x.transpose(1, 2))).transpose(1, 2).to(x.dtype)
        N = x.shape[1]
        for block in self.blocks:
            x = block(x, inside[:, None, None, :], (self.rotary_cos[:N], self.rotary_sin[:N]))
        return self.final_norm(x)


class Synthesizer(nn.Module):
    """Phonemes (B, L) and durations (B, L) in, log-mel (B, T, M) and log-durations (B, L) out.

    >>> model = Synthesizer(SynthesizerConfig(phonemes=("a", "b")))
    >>> mel, log_durations = model(torch.tensor([[1, 2]]), torch.tensor([[3, 4]]))
    >>> mel.shape, log_durations.shape
    (torch.Size([1, 7, 80]), torch.Size([1, 2]))
    """

    def __init__(self, config: SynthesizerConfig):
        super().__init__()
        self.config, parts = config, config.parts
        self.embedding = nn.Embedding(parts.vocab_size, config.d_model)
        self.text = Encoder(parts, config.n_text_layers)
        self.duration = nn.Linear(config.d_model, 1)
        self.place = nn.Linear(PLACES, config.d_model)
        self.frames = Encoder(parts, config.n_frame_layers)
        self.mel = nn.Linear(config.d_model, config.n_mels)
        self.register_buffer("mean", torch.zeros(config.n_mels))
        self.register_buffer("deviation", torch.ones(config.n_mels))

    def set_scale(self, clips: Sequence[Tensor]) -> None:
        """Keep mean and deviation of each band of clips (T, M): the model writes in these units."""
        frames = torch.cat(list(clips))
        self.mean.copy_(frames.mean(dim=0))
        self.deviation.copy_(frames.std(dim=0).clamp(min=1e-3))

    def forward(self, phonemes: Tensor, durations: Tensor | None = None, pace: float = 1.0):
        """Return (mel (B, T, M), log_durations (B, L)); phonemes of number 0 are padding, their durations 0.

        Without `durations` the predicted ones are taken, divided by `pace`, one frame at least.
        """
        spoken = phonemes > 0  # (B, L)
        x = self.text(self.embedding(phonemes), spoken)
        log_durations = self.duration(x).squeeze(-1)
        if durations is None:
            durations = (log_durations.float().exp() / pace).round().long().clamp(min=1) * spoken
        total = durations.sum(dim=1)
        if int(total.max()) > self.config.longest:
            raise ValueError(
                f"that is {int(total.max())} frames, and the synthesizer says {self.config.longest} at once: "
                "say it in parts"
            )
        frames, places = expand(x, durations)
        x = frames + self.place(places)
        inside = torch.arange(x.shape[1], device=x.device) < total[:, None]
        return self.mel(self.frames(x, inside)).float() * self.deviation + self.mean, log_durations

    def numbers(self, phonemes: Sequence[str]) -> list[int]:
        """Return the numbers of phonemes. Raises ValueError for none, and for one that is not known."""
        for phoneme in phonemes:
            if phoneme not in self.config.phonemes:
                raise ValueError(
                    f"the synthesizer knows no phoneme {phoneme!r}; it knows {' '.join(self.config.phonemes)}"
                )
        if not phonemes:
            raise ValueError("there is nothing to say: give at least one phoneme")
        return [self.config.phonemes.index(phoneme) + 1 for phoneme in phonemes]

    @torch.no_grad()
    def say(self, phonemes: Sequence[str], durations=None, pace: float = 1.0) -> tuple[Tensor, Tensor]:
        """Return (log-mel (T, M), durations (L,) in frames) of one sentence; `pace` 2 speaks twice as fast.

        `durations` are whole numbers of frames, one for each phoneme; None takes the predicted ones.
        """
        pace = number(pace, "pace", 0.25, 4.0, "a number from 0.25 to 4, such as 1")
        row = torch.tensor([self.numbers(phonemes)], device=self.mean.device)
        if durations is not None:
            durations = torch.as_tensor(durations, device=self.mean.device)[None]
            if durations.shape != row.shape or durations.is_floating_point() or (durations < 1).any():
                raise ValueError(
                    f"durations are {durations[0].tolist()[:8]}: give {row.shape[1]} whole numbers of frames, "
                    "one for each phoneme, each at least 1"
                )
        with evaluating(self):
            if durations is None:
                log_durations = self.duration(self.text(self.embedding(row), row > 0)).squeeze(-1)
                durations = (log_durations.exp() / pace).round().long().clamp(min=1)
            mel, _ = self(row, durations)
        return mel[0].cpu(), durations[0].cpu()


def synthesis_loss(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor, Tensor]):
    """Return (the sum of errors, number of frames, the mel error alone) of a batch, for `train(loss=...)`.

    The batch is (phonemes (B, L), durations (B, L), log-mel (B, T, M), lengths (B,)). The error of a frame
    is the mean over bands of |wanted - written|, in units of the band's deviation; that of a phoneme is the
    square of its log-duration's.
    """
    phonemes, durations, wanted, lengths = batch
    mel, log_durations = model(phonemes, durations)
    inside = torch.arange(wanted.shape[1], device=wanted.device) < lengths[:, None]
    error = ((mel - wanted) / model.deviation).abs().mean(dim=-1)  # (B, T)
    spoken = phonemes > 0
    wrong = (log_durations.float() - durations.clamp(min=1).log()).square()
    n, heard = int(lengths.sum()), (error * inside).sum()
    return heard + (wrong * spoken).sum() * (n / int(spoken.sum())), n, heard
