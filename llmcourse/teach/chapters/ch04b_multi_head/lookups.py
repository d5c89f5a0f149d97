"""The task of `04b_multi_head`: four lookups in a row of symbols, by one layer of attention.

Dimensions: B rows, T places (10), C width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmcourse.attention import MultiHeadAttention

LENGTH, N_SYMBOLS = 10, 16
FIRST_SCORED = 4  # from here on all four places exist and differ


class FourLookups(nn.Module):
    """For each place of (B, T) symbols, the scores (B, T, 4, N_SYMBOLS) of the four answers.

    >>> FourLookups(n_heads=4)(torch.zeros(2, LENGTH, dtype=torch.long)).shape
    torch.Size([2, 10, 4, 16])
    """

    def __init__(self, n_heads: int, d_model: int = 32):
        super().__init__()
        self.symbols = nn.Embedding(N_SYMBOLS, d_model)
        self.places = nn.Embedding(LENGTH, d_model)
        self.attention = MultiHeadAttention(d_model, n_heads)
        self.answers = nn.Linear(d_model, 4 * N_SYMBOLS)

    def forward(self, x: Tensor) -> Tensor:
        x = self.symbols(x) + self.places.weight  # (B, T, C)
        return self.answers(self.attention(x)).unflatten(-1, (4, N_SYMBOLS))


def make_rows(n_rows: int) -> tuple[Tensor, Tensor]:
    """Return random rows (B, T), and the symbols 1, 2 and 3 places back and the first, (B, T, 4)."""
    x = torch.randint(N_SYMBOLS, (n_rows, LENGTH))
    first = x[:, :1].expand(-1, LENGTH)
    return x, torch.stack([x.roll(1, 1), x.roll(2, 1), x.roll(3, 1), first], dim=-1)


def train_lookups(n_heads: int, seed: int, steps: int = 400) -> FourLookups:
    """Return a model trained on `steps` batches of 64 new rows, from this seed."""
    torch.manual_seed(seed)
    model = FourLookups(n_heads)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(steps):
        x, y = make_rows(64)
        scores = model(x)[:, FIRST_SCORED:]
        F.cross_entropy(scores.flatten(0, 2), y[:, FIRST_SCORED:].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


@torch.no_grad()
def accuracies(model: FourLookups) -> Tensor:
    """Return the share of right answers to each of the four questions, on 1,000 new rows."""
    x, y = make_rows(1000)
    return (model(x).argmax(-1) == y)[:, FIRST_SCORED:].float().mean((0, 1))
