"""The configuration of a model: its shape, and its parts as fields that a reader can switch.

One `ModelConfig` expresses the decoder of the 2017 Transformer, GPT-2, Llama and Qwen 3.
"""

import math
from dataclasses import dataclass, replace

from llmcourse.positions import RotaryScaling

WHOLE = ("vocab_size", "context_length", "d_model", "n_heads", "n_kv_heads", "d_head", "n_layers", "d_ff")
CHOICES = {
    "norm": ("layer", "rms"),
    "norm_position": ("pre", "post"),
    "positions": ("sinusoidal", "learned", "rotary", "none"),
    "mlp": ("relu", "gelu", "gelu_tanh", "relu_squared", "silu", "swiglu"),
}


@dataclass(frozen=True)
class ModelConfig:
    """Shape and parts of a decoder-only Transformer; the defaults are small and modern.

    Raises ValueError on a bad value.

    >>> ModelConfig(vocab_size=256, d_model=96).hidden_width
    256
    """

    vocab_size: int  # V, tokens that the model knows
    context_length: int = 128  # T, the most tokens that it reads at once
    d_model: int = 128  # C, width of the residual stream
    n_heads: int = 4  # H, attentions side by side
    n_kv_heads: int | None = None  # heads of keys and values; fewer than n_heads share them; None: n_heads
    d_head: int | None = None  # D, width of a head; None: d_model / n_heads
    n_layers: int = 4  # L, blocks
    d_ff: int | None = None  # F, hidden width of an MLP; None: 4·C, for SwiGLU 8/3·C up to a multiple of 8
    norm: str = "rms"  # "layer" subtracts the mean and divides by the deviation, "rms" divides only
    norm_position: str = "pre"  # before each part of a block, or after the sum ("post", as in 2017)
    norm_eps: float = 1e-5  # added under the root in a norm, so that none divides by 0
    positions: str = "rotary"  # "rotary" rotates q and k; "sinusoidal", "learned": added to x; or "none"
    rotary_base: float = 10000.0  # the slowest plane needs about 2π·base positions for one turn
    rotary_scaling: RotaryScaling | None = None  # slower rotations for a longer context (Llama 3.1, 3.2)
    mlp: str = "swiglu"  # activation between its matrices; "swiglu" has a third, a gate (arXiv:2002.05202)
    bias: bool = False  # added vectors in all matrices of the blocks, and in LayerNorm
    qk_norm: bool = False  # RMSNorm on each query and key (Qwen 3, arXiv:2505.09388, sec. 2)
    tied_embeddings: bool = True  # the unembedding is the token embedding (arXiv:1608.05859)
    scaled_embeddings: bool = False  # token embeddings times √C (2017, sec. 3.4)
    dropout: float = 0.0  # share of numbers set to 0 in training

    def __post_init__(self):
        if isinstance(self.rotary_scaling, dict):  # as a file of `asdict` has it
            object.__setattr__(self, "rotary_scaling", RotaryScaling(**self.rotary_scaling))
        for name in WHOLE:
            value = getattr(self, name)
            if value is not None and not (value >= 1 and value % 1 == 0):
                raise ValueError(f"{name}={value}: must be at least 1, and a whole number")
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)!r} is unknown: choose one of {allowed}")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout={self.dropout}: must be in [0, 1)")

    @property
    def head_width(self) -> int:
        """Width of a query and of a key."""
        return self.d_model // self.n_heads if self.d_head is None else self.d_head

    @property
    def hidden_width(self) -> int:
        """Width of the hidden layer of each MLP."""
        if self.d_ff is not None:
            return self.d_ff
        return 8 * math.ceil(self.d_model / 3) if self.mlp == "swiglu" else 4 * self.d_model

    @classmethod
    def transformer_2017(cls, vocab_size: int, **changes) -> "ModelConfig":
        """The decoder half of the original Transformer, without cross-attention (arXiv:1706.03762)."""
        parts = dict(norm="layer", norm_position="post", positions="sinusoidal", mlp="relu")
        return replace(cls(vocab_size, **parts, bias=True, scaled_embeddings=True), **changes)

    @classmethod
    def gpt2(cls, vocab_size: int, **changes) -> "ModelConfig":
        """GPT-2: norms before each part, learned positions, GELU (Radford et al. 2019)."""
        parts = dict(norm="layer", norm_position="pre", positions="learned", mlp="gelu_tanh")
        return replace(cls(vocab_size, **parts, bias=True), **changes)

    @classmethod
    def llama(cls, vocab_size: int, **changes) -> "ModelConfig":
        """Llama: RMSNorm, rotary positions, SwiGLU, no biases (arXiv:2302.13971)."""
        return replace(cls(vocab_size, tied_embeddings=False), **changes)
