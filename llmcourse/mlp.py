"""What works on each position alone: the MLP of a block, and the norms.

Dimensions: B batch, T time, C width (d_model), F hidden width.
"""

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from llmcourse.config import ModelConfig

ACTIVATIONS = {
    "relu": F.relu,
    "relu_squared": lambda x: F.relu(x).square(),  # Primer, arXiv:2109.08668, sec. 4.2
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "silu": F.silu,  # Marian; "swish" elsewhere
}


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
        hidden = self.up(x)  # (B, T, F); for SwiGLU (B, T, 2F), gates and hidden units side by side
        if self.kind == "swiglu":
            gate, hidden = hidden.chunk(2, dim=-1)
            return self.down(F.silu(gate) * hidden)  # (B, T, C)
        return self.down(ACTIVATIONS[self.kind](hidden))


def make_norm(config: ModelConfig) -> nn.Module:
    """Return LayerNorm (subtract the mean, divide by the deviation) or RMSNorm (divide only)."""
    if config.norm == "rms":
        return nn.RMSNorm(config.d_model, eps=config.norm_eps)
    return nn.LayerNorm(config.d_model, eps=config.norm_eps, bias=config.bias)
