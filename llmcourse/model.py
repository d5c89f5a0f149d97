"""The model: a configuration, a block, and a stack of blocks.

One `ModelConfig` expresses the decoder of the 2017 Transformer, GPT-2 and Llama: the
differences are fields that a reader can switch and measure.

Dimensions: B batch, T time, C width (d_model), V vocabulary.
"""

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmcourse.attention import KVCache, MultiHeadAttention
from llmcourse.positions import TokenShift, rotary_angles, shift, sinusoidal_positions
from llmcourse.weights import refuse_two_ends

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
    has three matrices instead of two (arXiv:2002.05202). Raises ValueError on a bad value.

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
    n_layers: int = 4
    d_ff: int | None = None
    norm: str = "rms"
    norm_position: str = "pre"
    norm_eps: float = 1e-5
    positions: str = "rotary"
    rotary_base: float = 10000.0
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
        for name in ("vocab_size", "context_length", "d_model", "n_heads", "n_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1")
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
        if self.logit_cap is not None and self.logit_cap <= 0:
            raise ValueError(f"logit_cap={self.logit_cap}: must be above 0, or None for no cap")

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


class MLP(nn.Module):
    """Two layers applied to each position alone; SwiGLU lets a third one gate the hidden units."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.kind = config.mlp
        factor = 2 if self.kind == "swiglu" else 1
        self.up = nn.Linear(config.d_model, factor * config.hidden_width, bias=config.bias)
        self.down = nn.Linear(config.hidden_width, config.d_model, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, C) to (B, T, C)."""
        hidden = self.up(x)
        if self.kind == "swiglu":
            gate, hidden = hidden.chunk(2, dim=-1)
            return self.down(F.silu(gate) * hidden)
        if self.kind == "relu_squared":
            return self.down(F.relu(hidden).square())
        if self.kind == "relu":
            return self.down(F.relu(hidden))
        return self.down(F.gelu(hidden, approximate="tanh" if self.kind == "gelu_tanh" else "none"))


def make_norm(config: ModelConfig) -> nn.Module:
    """Return LayerNorm (subtract the mean, divide by the deviation) or RMSNorm (divide only)."""
    if config.norm == "rms":
        return nn.RMSNorm(config.d_model, eps=config.norm_eps)
    return nn.LayerNorm(config.d_model, eps=config.norm_eps, bias=config.bias)


class Block(nn.Module):
    """Attention moves information between positions, the MLP works on each; both are residual."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.pre_norm = config.norm_position == "pre"
        self.attention_norm, self.mlp_norm = make_norm(config), make_norm(config)
        self.attention = MultiHeadAttention(
            config.d_model, config.n_heads, config.n_kv_heads, config.bias, config.qk_norm, config.dropout
        )
        self.mlp = MLP(config)
        self.dropout = nn.Dropout(config.dropout)
        self.shifts = None
        if config.token_shift:
            self.shifts = nn.ModuleList(TokenShift(config.d_model) for _ in range(2))
        if config.value_embeddings:
            width = self.attention.n_kv_heads * self.attention.d_head
            self.value_embedding = nn.Embedding(config.vocab_size, width)

    def forward(self, x, mask=None, rotary=None, cache=None, return_weights=False, token_ids=None):
        """Map (B, T, C) to (B, T, C); with `return_weights`, also return (B, H, T, S).

        `token_ids` (B, T) are needed with value embeddings only.
        """
        values = self.value_embedding(token_ids) if hasattr(self, "value_embedding") else None
        memory = cache.memory if cache else None
        h = self.attention_norm(x) if self.pre_norm else x
        h = self.shifts[0](h, memory, "attention") if self.shifts else h
        attended = self.attention(h, mask, mask is None, rotary, cache, return_weights, values)
        attended, weights = attended if return_weights else (attended, None)
        x = x + self.dropout(attended)
        x = x if self.pre_norm else self.attention_norm(x)
        h = self.mlp_norm(x) if self.pre_norm else x
        h = self.shifts[1](h, memory, "mlp") if self.shifts else h
        x = x + self.dropout(self.mlp(h))
        x = x if self.pre_norm else self.mlp_norm(x)
        return (x, weights) if return_weights else x


class GPT(nn.Module):
    """A decoder-only Transformer: token ids in, logits for the next token out.

    >>> model = GPT(ModelConfig(vocab_size=10, d_model=16, n_layers=1))
    >>> model(torch.tensor([[1, 2, 3]])).shape
    torch.Size([1, 3, 10])

    Source: Radford et al. 2018 and 2019; the parts are named in `ModelConfig`.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.d_model)
        tables = (nn.Embedding(config.vocab_size, config.d_model) for _ in range(config.embedding_shift))
        self.shifted_embeddings = nn.ModuleList(tables)
        if config.positions == "learned":
            self.position_embedding = nn.Embedding(config.context_length, config.d_model)
        elif config.positions == "sinusoidal":
            table = sinusoidal_positions(config.context_length, config.d_model)
            self.register_buffer("position_table", table, persistent=False)
        elif config.positions == "rotary":
            d_head = config.d_model // config.n_heads
            cos, sin = rotary_angles(config.context_length, d_head, config.rotary_base)
            self.register_buffer("rotary_cos", cos, persistent=False)
            self.register_buffer("rotary_sin", sin, persistent=False)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.final_norm = make_norm(config) if config.norm_position == "pre" else nn.Identity()
        self.unembedding = nn.Linear(config.d_model, config.vocab_size, bias=False)
        if config.bigram_table:
            self.bigram_logits = nn.Embedding(config.vocab_size, config.vocab_size)
        self.apply(self._initialize)
        for name, parameter in self.named_parameters():  # keep the residual stream's variance
            if name.endswith(("attention.out.weight", "mlp.down.weight")):
                std = 0.0 if config.zero_init else 0.02 / math.sqrt(2 * config.n_layers)
                nn.init.normal_(parameter, std=std)
            elif name.startswith(("token_embedding", "shifted_embeddings")):
                parameter.data.mul_(config.embedding_std / 0.02)
        if config.tied_embeddings:
            self.unembedding.weight = self.token_embedding.weight
        self.register_load_state_dict_pre_hook(refuse_two_ends)

    @staticmethod
    def _initialize(module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    def embed(self, token_ids: Tensor, start: int = 0, memory: dict | None = None):
        """Return x (B, T, C) with positions added, and (cos, sin) for rotary models else None.

        `start` is the position of the first token; `memory` keeps what the next call needs of
        these tokens (see `shift`). Raises ValueError beyond the context.
        """
        end = start + token_ids.shape[-1]
        if end > self.config.context_length:
            raise ValueError(
                f"{end} tokens do not fit into the context of {self.config.context_length}: "
                "shorten the input, or build the model with a longer context_length"
            )
        x = self.token_embedding(token_ids)
        for n, table in enumerate(self.shifted_embeddings, start=1):
            x = x + shift(table(token_ids), n, memory, f"embedding {n}")
        if self.config.scaled_embeddings:
            x = x * math.sqrt(self.config.d_model)
        rotary = None
        if self.config.positions == "learned":
            x = x + self.position_embedding.weight[start:end]
        elif self.config.positions == "sinusoidal":
            x = x + self.position_table[start:end]
        elif self.config.positions == "rotary":
            rotary = self.rotary_cos[start:end], self.rotary_sin[start:end]
        return self.dropout(x), rotary

    def forward(self, token_ids: Tensor, mask: Tensor | None = None, caches=None) -> Tensor:
        """Return logits (B, T, V) for token_ids (B, T).

        Attention is causal unless a boolean `mask` (True = may look), which then replaces it,
        is given. `caches`, from `make_caches`, holds the positions before these tokens.
        """
        start = caches[0].length if caches else 0
        x, rotary = self.embed(token_ids, start, caches[0].memory if caches else None)
        for i, block in enumerate(self.blocks):
            x = block(x, mask, rotary, caches[i] if caches else None, token_ids=token_ids)
        logits = self.unembedding(self.final_norm(x))
        if self.config.bigram_table:
            logits = logits + self.bigram_logits(token_ids)
        if self.config.logit_cap is not None:
            logits = self.config.logit_cap * torch.tanh(logits / self.config.logit_cap)
        return logits

    @torch.no_grad()
    def attention_maps(self, token_ids: Tensor) -> list[Tensor]:
        """Return one (B, H, T, T) tensor of attention weights for each layer."""
        x, rotary = self.embed(token_ids)
        maps = []
        for block in self.blocks:
            x, weights = block(x, rotary=rotary, return_weights=True, token_ids=token_ids)
            maps.append(weights)
        return maps

    def make_caches(self, batch_size: int) -> list[KVCache]:
        """Return one empty KVCache for each layer, on the model's device and in its dtype."""
        config, weight = self.config, self.token_embedding.weight
        n_kv_heads = config.n_kv_heads or config.n_heads
        shape = (batch_size, n_kv_heads, config.context_length, config.d_model // config.n_heads)
        return [KVCache(*shape, weight.device, weight.dtype) for _ in range(config.n_layers)]

    def n_parameters(self) -> int:
        """Count the parameters; tied ones count once."""
        return sum(parameter.numel() for parameter in self.parameters())
