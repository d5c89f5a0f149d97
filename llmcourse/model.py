"""The model: a block, and a stack of blocks, of the parts that a `ModelConfig` names.

Dimensions: B batch, T time, C width (d_model), V vocabulary.
"""

import math
from functools import partial

import torch
from torch import Tensor, nn

from llmcourse.attention import KVCache, MultiHeadAttention
from llmcourse.config import ModelConfig
from llmcourse.mlp import MLP, make_norm
from llmcourse.positions import rotary_angles, sinusoidal_positions
from llmcourse.runtime import evaluating
from llmcourse.weights import refuse_two_ends


class Block(nn.Module):
    """Attention moves information between positions, the MLP works on each; both are residual."""

    attention_type, causal = MultiHeadAttention, True  # what another kind of block replaces

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.pre_norm = config.norm_position == "pre"
        self.attention_norm, self.mlp_norm = make_norm(config), make_norm(config)
        heads = dict(n_heads=config.n_heads, n_kv_heads=config.n_kv_heads, d_head=config.d_head)
        parts = dict(bias=config.bias, qk_norm=config.qk_norm, norm_eps=config.norm_eps)
        self.attention = self.attention_type(config.d_model, **heads, **parts, dropout=config.dropout)
        self.mlp = MLP(config)
        self.dropout = nn.Dropout(config.dropout)

    def add(self, part, norm: nn.Module, x: Tensor) -> Tensor:
        """Return x plus what `part` makes of it; the norm stands before the part, or after the sum."""
        if self.pre_norm:
            return x + self.dropout(part(norm(x)))
        return norm(x + self.dropout(part(x)))

    def forward(self, x: Tensor, mask=None, rotary=None, cache: KVCache | None = None) -> Tensor:
        """Map (B, T, C) to (B, T, C); causal, unless there is a `mask`, which replaces it."""
        is_causal = self.causal and mask is None
        attend = partial(self.attention, mask=mask, is_causal=is_causal, rotary=rotary, cache=cache)
        x = self.add(attend, self.attention_norm, x)
        return self.add(self.mlp, self.mlp_norm, x)

    def attention_weights(self, x: Tensor, rotary=None, mask=None) -> Tensor:
        """Return the weights (B, H, T, T) with which attention mixes, from what comes in, x (B, T, C)."""
        h = self.attention_norm(x) if self.pre_norm else x
        return self.attention.weights(h, mask, self.causal and mask is None, rotary)


class GPT(nn.Module):
    """A decoder-only Transformer: token ids in, logits for the next token out.

    `unembedding` makes the logits (`lm_head` elsewhere).

    >>> model = GPT(ModelConfig(vocab_size=10, d_model=16, n_layers=1))
    >>> model(torch.tensor([[1, 2, 3]])).shape
    torch.Size([1, 3, 10])

    Source: Radford et al. 2018 and 2019; the parts are named in `ModelConfig`.
    """

    config_type, block_type, cache_type = ModelConfig, Block, KVCache  # what another kind of GPT replaces

    def __init__(self, config: ModelConfig):
        super().__init__()
        if type(config) is not self.config_type:
            kinds = type(self).__name__, self.config_type.__name__, type(config).__name__
            raise ValueError("a {} is built from a {}, not from a {}".format(*kinds))
        self.config = config
        self.make_parts(config)
        self.initialize()
        if config.tied_embeddings:
            self.unembedding.weight = self.token_embedding.weight
        self.register_load_state_dict_pre_hook(refuse_two_ends)

    def make_parts(self, config: ModelConfig) -> None:
        """Make the layers, in the order in which tokens pass them."""
        self.token_embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.make_positions(config)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(self.block_type(config) for _ in range(config.n_layers))
        self.final_norm = make_norm(config) if config.norm_position == "pre" else nn.Identity()
        self.unembedding = nn.Linear(config.d_model, config.vocab_size, bias=False)

    def make_positions(self, config: ModelConfig) -> None:
        """Make the tables of positions: one to be learned, one of sines, or cosines and sines of angles."""
        T, tables = config.context_length, {}
        if config.positions == "learned":
            self.position_embedding = nn.Embedding(T, config.d_model)
        elif config.positions == "sinusoidal":
            tables["position_table"] = sinusoidal_positions(T, config.d_model)
        elif config.positions == "rotary":
            angles = rotary_angles(T, config.head_width, config.rotary_base, scaling=config.rotary_scaling)
            tables["rotary_cos"], tables["rotary_sin"] = angles
        for name, table in tables.items():
            self.register_buffer(name, table, persistent=False)

    def initialize(self) -> None:
        """Draw the weights from N(0, 0.02²), and from less for what adds to the stream 2 L times (GPT-2)."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        for layer in (layer for block in self.blocks for layer in (block.attention.out, block.mlp.down)):
            nn.init.normal_(layer.weight, std=0.02 / math.sqrt(2 * len(self.blocks)))

    def embed(self, token_ids: Tensor, start: int | Tensor = 0):
        """Return x (B, T, C) with positions added, and (cos, sin) for rotary models else None.

        `start` is the position of the first token, or (B,) those of each row's first token, below 0
        where a row begins with padding. Raises ValueError beyond the context.
        """
        return self.add_positions(self.token_embedding(token_ids), start)  # (B, T) -> (B, T, C)

    def add_positions(self, x: Tensor, start: int | Tensor):
        """Return what `embed` returns, from the embeddings x (B, T, C) of the tokens."""
        T, rotary = x.shape[1], None
        end = int(start.max() if isinstance(start, Tensor) else start) + T
        if end > self.config.context_length:
            raise ValueError(
                f"{end} tokens do not fit into the context of {self.config.context_length}: "
                "shorten the input, or build the model with a longer context_length"
            )
        at = slice(end - T, end)  # the rows of a table of positions
        if isinstance(start, Tensor):
            at = (start[:, None] + torch.arange(T, device=x.device)).clamp(min=0)  # (B, T)
        if self.config.scaled_embeddings:
            x = x * math.sqrt(self.config.d_model)
        if self.config.positions == "learned":
            x = x + self.position_embedding.weight[at]  # (B, T, C) + (T, C), or + (B, T, C)
        elif self.config.positions == "sinusoidal":
            x = x + self.position_table[at]
        elif self.config.positions == "rotary":
            rotary = self.rotary_cos[at], self.rotary_sin[at]  # (T, D/2) each
            if isinstance(start, Tensor):
                rotary = tuple(table[:, None] for table in rotary)  # (B, 1, T, D/2): for all heads
        return self.dropout(x), rotary

    def forward(self, token_ids: Tensor, mask: Tensor | None = None, caches=None, start=None) -> Tensor:
        """Return logits (B, T, V) for token_ids (B, T).

        Attention is causal unless a boolean `mask` (True = may look), which then replaces it,
        is given. `caches`, from `make_caches`, holds the positions before these tokens; the first
        token stands behind them, or at `start`, as in `embed`.
        """
        if start is None:
            start = caches[0].length if caches else 0
        x, rotary = self.embed(token_ids, start)  # (B, T, C)
        for i, block in enumerate(self.blocks):
            x = block(x, mask, rotary, caches[i] if caches else None)
        return self.unembedding(self.final_norm(x))  # (B, T, V)

    @torch.no_grad()
    def attention_maps(self, token_ids: Tensor, mask: Tensor | None = None) -> list[Tensor]:
        """Return one (B, H, T, T) tensor of attention weights for each layer, without dropout."""
        maps = []
        with evaluating(self):
            x, rotary = self.embed(token_ids)
            for block in self.blocks:
                maps.append(block.attention_weights(x, rotary, mask))
                x = block(x, mask, rotary)
        return maps

    def make_caches(self, batch_size: int) -> list[KVCache]:
        """Return one empty cache for each layer, on the model's device and in its dtype."""
        config, weight = self.config, self.token_embedding.weight
        shape = (batch_size, config.n_kv_heads or config.n_heads, config.context_length, config.head_width)
        return [self.cache_type(*shape, weight.device, weight.dtype) for _ in range(config.n_layers)]

    def n_parameters(self) -> int:
        """Count the parameters; tied ones count once."""
        return sum(parameter.numel() for parameter in self.parameters())
