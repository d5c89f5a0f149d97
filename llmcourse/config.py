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
    "mlp": ("relu", "gelu", "gelu_tanh", "relu_squared", "swiglu"),
}


@dataclass(frozen=True)
class ModelConfig:
    """Shape and parts of a decoder-only Transformer; the defaults are small and modern.

    `d_ff=None` means 4·d_model, or 8/3·d_model rounded up to a multiple of 8 for SwiGLU, which
    has three matrices instead of two (arXiv:2002.05202). `d_head=None` means d_model / n_heads.
    Raises ValueError on a bad value.

    Today's small models add to Llama `d_head` and `qk_norm` (Qwen 3, arXiv:2505.09388, sec. 2) or
    `rotary_scaling` (Llama 3.1 and 3.2, see `RotaryScaling`).

    Switches that chapter 5c measures:
    - `embedding_shift=n`: each position also gets the embeddings, from n tables of their own, of
      the n tokens before it (the window of Bengio et al. 2003, JMLR 3, eq. 3, kept additive).
    - `token_shift`: in each layer, what attention and MLP read is mixed with the position before,
      one learned weight a channel (RWKV, arXiv:2305.13048, sec. 3.1).
    - `value_embeddings`: each layer adds an embedding of the token to its values (value residual,
      arXiv:2410.17897, in the form of Jordan et al.'s modded-nanogpt).
    - `bigram_table`: a learned table of V x V logits, one row for each last token.
    - `logit_cap=c`: logits become c·tanh(logits/c) (Gemma 2, arXiv:2408.00118, sec. 2).
    - `zero_init`: the last matrix of each residual part starts at 0 (Fixup, arXiv:1901.09321).
    - `mlp="relu_squared"`: ReLU, squared (Primer, arXiv:2109.08668, sec. 4.2).

    >>> ModelConfig(vocab_size=256, d_model=96).hidden_width
    256
    """

    vocab_size: int
    context_length: int = 128
    d_model: int = 128
    n_heads: int = 4
    n_kv_heads: int | None = None
    d_head: int | None = None
    n_layers: int = 4
    d_ff: int | None = None
    norm: str = "rms"
    norm_position: str = "pre"
    norm_eps: float = 1e-5
    positions: str = "rotary"
    rotary_base: float = 10000.0
    rotary_scaling: RotaryScaling | None = None
    mlp: str = "swiglu"
    bias: bool = False
    qk_norm: bool = False
    tied_embeddings: bool = True
    scaled_embeddings: bool = False
    dropout: float = 0.0
    embedding_shift: int = 0
    token_shift: bool = False
    value_embeddings: bool = False
    bigram_table: bool = False
    logit_cap: float | None = None
    zero_init: bool = False
    embedding_std: float = 0.02

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
        if not 0 <= self.embedding_shift < self.context_length:
            raise ValueError(
                f"embedding_shift={self.embedding_shift}: must be from 0 to context_length - 1 = "
                f"{self.context_length - 1}"
            )
        if self.logit_cap is not None and not self.logit_cap > 0:
            raise ValueError(f"logit_cap={self.logit_cap}: must be above 0, or None for no cap")

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
