"""The model: a block, and a stack of blocks, of the parts that a `ModelConfig` names.

Dimensions: B batch, T time, C width (d_model), V vocabulary.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmcourse.attention import KVCache, MultiHeadAttention
from llmcourse.config import CHOICES as CHOICES
from llmcourse.config import ModelConfig as ModelConfig
from llmcourse.positions import TokenShift, rotary_angles, shift, sinusoidal_positions
from llmcourse.runtime import evaluating
from llmcourse.weights import refuse_two_ends


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
        heads = dict(n_heads=config.n_heads, n_kv_heads=config.n_kv_heads, d_head=config.d_head)
        parts = dict(bias=config.bias, qk_norm=config.qk_norm, norm_eps=config.norm_eps)
        self.attention = MultiHeadAttention(config.d_model, **heads, **parts, dropout=config.dropout)
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
        h = self.shifts[0](h, memory, "attention", mask) if self.shifts else h
        attended = self.attention(h, mask, mask is None, rotary, cache, return_weights, values)
        attended, weights = attended if return_weights else (attended, None)
        x = x + self.dropout(attended)
        x = x if self.pre_norm else self.attention_norm(x)
        h = self.mlp_norm(x) if self.pre_norm else x
        h = self.shifts[1](h, memory, "mlp", mask) if self.shifts else h
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
            turns = dict(base=config.rotary_base, scaling=config.rotary_scaling)
            cos, sin = rotary_angles(config.context_length, config.head_width, **turns)
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

    def embed(self, token_ids: Tensor, start: int = 0, memory: dict | None = None, mask=None):
        """Return x (B, T, C) with positions added, and (cos, sin) for rotary models else None.

        `start` is the position of the first token; `memory` keeps what the next call needs of
        these tokens, and `mask` says what a shift must not cross (see `shift`). Raises ValueError
        beyond the context.
        """
        end = start + token_ids.shape[-1]
        if end > self.config.context_length:
            raise ValueError(
                f"{end} tokens do not fit into the context of {self.config.context_length}: "
                "shorten the input, or build the model with a longer context_length"
            )
        x = self.token_embedding(token_ids)
        for n, table in enumerate(self.shifted_embeddings, start=1):
            x = x + shift(table(token_ids), n, memory, f"embedding {n}", mask)
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
        is given; shifts do not cross what it hides. `caches`, from `make_caches`, holds the
        positions before these tokens.
        """
        start = caches[0].length if caches else 0
        x, rotary = self.embed(token_ids, start, caches[0].memory if caches else None, mask)
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
        """Return one (B, H, T, T) tensor of attention weights for each layer, without dropout."""
        maps = []
        with evaluating(self):
            x, rotary = self.embed(token_ids)
            for block in self.blocks:
                x, weights = block(x, rotary=rotary, return_weights=True, token_ids=token_ids)
                maps.append(weights)
        return maps

    def make_caches(self, batch_size: int) -> list[KVCache]:
        """Return one empty KVCache for each layer, on the model's device and in its dtype."""
        config, weight = self.config, self.token_embedding.weight
        n_kv_heads = config.n_kv_heads or config.n_heads
        shape = (batch_size, n_kv_heads, config.context_length, config.head_width)
        return [KVCache(*shape, weight.device, weight.dtype) for _ in range(config.n_layers)]

    def n_parameters(self) -> int:
        """Count the parameters; tied ones count once."""
        return sum(parameter.numel() for parameter in self.parameters())
