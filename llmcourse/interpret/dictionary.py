"""A dictionary of directions: each state of a layer as the sum of a few out of many (a sparse autoencoder).

A layer has more to say than it has dimensions. If it says only a few things at a time, directions can be learned of
which a few at a time are enough; whether they mean something is another question (`interpret.naming`).

Dimensions: N states (tokens), C width, F features (directions), k features for each state.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from llmcourse.schedules import warmup_linear
from llmcourse.support.inputs import whole
from llmcourse.training import train


class SparseAutoencoder(nn.Module):
    """Codes a state (..., C) in F numbers of which at most k are above 0, and makes the state of them again.

    `decoder` (F, C) holds the directions, each of length 1.

    >>> coder = SparseAutoencoder(d_model=8, n_features=32, k=4)
    >>> codes = coder.encode(torch.randn(5, 8))
    >>> codes.shape, bool(((codes > 0).sum(1) <= 4).all()), coder.decode(codes).shape
    (torch.Size([5, 32]), True, torch.Size([5, 8]))

    Source: Makhzani & Frey 2013, arXiv:1312.5663; for language models Bricken et al. 2023, Cunningham et al. 2023,
    arXiv:2309.08600 (with a penalty for sparsity); the k largest in Gao et al. 2024, arXiv:2406.04093, sec. 2.3.
    """

    def __init__(self, d_model: int, n_features: int, k: int):
        super().__init__()
        if not 1 <= whole(k, "k") <= whole(n_features, "n_features"):
            raise ValueError(f"k={k} features of {n_features}: choose k from 1 to {n_features}, such as 16")
        self.k = k
        directions = nn.functional.normalize(torch.randn(n_features, d_model), dim=1)
        self.decoder, self.encoder = nn.Parameter(directions), nn.Parameter(directions.clone())  # (F, C)
        self.encoder_bias = nn.Parameter(torch.zeros(n_features))
        self.register_buffer("mean", torch.zeros(d_model))
        self.register_buffer("scale", torch.ones(()))

    def encode(self, x: Tensor) -> Tensor:
        """Return codes (..., F) of states (..., C)."""
        return keep_largest((x - self.mean) / self.scale @ self.encoder.T + self.encoder_bias, self.k)

    def decode(self, codes: Tensor) -> Tensor:
        """Return states (..., C) of codes (..., F)."""
        return codes @ self.decoder * self.scale + self.mean

    def forward(self, x: Tensor) -> Tensor:
        """Return what is left of states (..., C) when only k features may tell them."""
        return self.decode(self.encode(x))

    @torch.no_grad()
    def prepare(self, states: Tensor) -> None:
        """Take mean and size from states (N, C), so that a state has a length of about 1.

        Raises ValueError for states that are all the same, and for none.
        """
        if not (states != states[:1]).any():
            raise ValueError(
                f"states of {tuple(states.shape)} that do not differ have no size: give more text"
            )
        self.mean.copy_(states.mean(0))
        self.scale.copy_((states - self.mean).norm(dim=1).mean())

    @torch.no_grad()
    def normalize(self) -> None:
        """Give each direction the length 1 again."""
        self.decoder.copy_(nn.functional.normalize(self.decoder, dim=1))


def keep_largest(x: Tensor, k: int) -> Tensor:
    """Return x (..., F) with the k largest of each row as they are and all else 0; what is below 0 is 0 as well.

    >>> keep_largest(torch.tensor([[3.0, 1.0, 2.0], [-1.0, -2.0, 5.0]]), 2).tolist()
    [[3.0, 0.0, 2.0], [0.0, 0.0, 5.0]]
    """
    values, places = x.topk(min(k, x.shape[-1]), dim=-1)
    return torch.zeros_like(x).scatter(-1, places, values.relu())


def reconstruction_loss(coder: SparseAutoencoder, states: Tensor) -> tuple[Tensor, int]:
    """Return (sum of squared errors, number of states) in units in which a state has a length of about 1."""
    error = (coder(states) - states) / coder.scale
    return error.square().sum(), len(states)


class _Draws:
    """Endless batches of random rows of states (N, C)."""

    def __init__(self, states: Tensor, batch_size: int, seed: int):
        self.states, self.batch_size = states, batch_size
        self.generator = torch.Generator().manual_seed(seed)

    def __iter__(self) -> Iterator[Tensor]:
        return self

    def __next__(self) -> Tensor:
        return self.states[torch.randint(len(self.states), (self.batch_size,), generator=self.generator)]


def train_dictionary(
    states: Tensor,
    n_features: int = 768,
    k: int = 16,
    steps: int = 600,
    batch_size: int = 1024,
    lr: float = 3e-3,
    seed: int = 0,
) -> SparseAutoencoder:
    """Return a sparse autoencoder trained on states (N, C), as `record` gives them, flattened.

    Raises ValueError for states that are no rows of finite numbers, or are all the same.
    """
    states = torch.as_tensor(states).detach().float()
    if states.dim() != 2 or not states.isfinite().all():
        raise ValueError(f"states of {tuple(states.shape)}: give finite numbers (N, C), a row for each token")
    torch.manual_seed(whole(seed, "seed", least=0))
    coder = SparseAutoencoder(states.shape[1], n_features, k)
    coder.prepare(states)
    optimizer = torch.optim.Adam(coder.parameters(), lr=lr)
    how = dict(loss=reconstruction_loss, optimizer=optimizer, schedule=warmup_linear(steps, min(50, steps)))
    for _ in train(coder, _Draws(states, batch_size, seed), steps=steps, **how):
        coder.normalize()
    return coder.eval().requires_grad_(False)


def explained_variance(states: Tensor, again: Tensor) -> float:
    """Return the share of the variance of states (N, C) that is in what was made `again` of them: 1 if all is.

    Raises ValueError for states of another shape, and for states that have no variance.

    >>> x = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    >>> explained_variance(x, x), explained_variance(x, x * 0)
    (1.0, 0.0)
    """
    around = (states - states.mean(0)).square().sum(dtype=torch.float64)
    if states.shape != again.shape or not around > 0:
        raise ValueError(
            f"states of {tuple(states.shape)} with variance {around:.2g}, made again as {tuple(again.shape)}: give "
            "rows that differ, and as many again"
        )
    return 1 - ((states - again).square().sum(dtype=torch.float64) / around).item()


def principal_directions(states: Tensor) -> Tensor:
    """Return (C, C): the principal directions of states (N, C), one a row, the one of most variance first."""
    x = (states - states.mean(0)).double()
    vectors = torch.linalg.eigh(x.T @ x).eigenvectors  # (C, C), the least variance first
    return vectors.flip(1).T.to(states.dtype)


def both_ways(directions: Tensor) -> Tensor:
    """Return (2F, C): each direction and its opposite, since a feature cannot be below 0."""
    return torch.cat([directions, -directions])


def coder_of(directions: Tensor, states: Tensor, k: int) -> SparseAutoencoder:
    """Return a coder that was not trained: it looks along `directions` (F, C) and keeps the k largest."""
    coder = SparseAutoencoder(directions.shape[1], len(directions), k)
    coder.prepare(states)
    with torch.no_grad():
        coder.decoder.copy_(nn.functional.normalize(directions, dim=1))
        coder.encoder.copy_(coder.decoder)
    return coder.eval().requires_grad_(False)
