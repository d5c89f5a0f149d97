"""AdamW and Muon by hand, which parameters should decay, and two optimizers that step as one.

Dimensions: N matrices of R rows and C columns.
"""

import torch
from torch import Tensor, nn

from llmcourse.weights import unwrap


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Return two groups for an optimizer: matrices decay; biases and norm gains do not.

    A bias or a gain has no direction that decay could shorten without changing what the layer
    means, so pulling it to zero only hurts.

    >>> [len(group["params"]) for group in parameter_groups(nn.Linear(2, 3), 0.1)]
    [1, 1]
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]


class AdamW(torch.optim.Optimizer):
    """Adam with decoupled weight decay: each step equal to `torch.optim.AdamW`.

    Raises ValueError for a negative learning rate, eps or weight decay, or betas outside [0, 1).

    >>> w = nn.Parameter(torch.tensor([1.0])); w.grad = torch.tensor([0.5])
    >>> AdamW([w], lr=0.1, weight_decay=0.0).step(); round(w.item(), 4)
    0.9

    Source: Kingma & Ba 2014, arXiv:1412.6980, alg. 1; Loshchilov & Hutter 2017,
    arXiv:1711.05101, alg. 2.
    """

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):
        for name, value in (("lr", lr), ("eps", eps), ("weight_decay", weight_decay)):
            if not value >= 0:
                raise ValueError(f"{name}={value}: must not be negative")
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas={betas}: each must be in [0, 1), for example (0.9, 0.95)")
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            lr, eps, (beta1, beta2) = group["lr"], group["eps"], group["betas"]
            for p in (p for p in group["params"] if p.grad is not None):
                state = self.state[p]
                if not state:
                    state["step"] = 0
                    state["mean"], state["square"] = torch.zeros_like(p), torch.zeros_like(p)
                state["step"] += 1
                mean, square, t = state["mean"], state["square"], state["step"]
                mean.lerp_(p.grad, 1 - beta1)  # running mean of the gradient
                square.mul_(beta2).addcmul_(p.grad, p.grad, value=1 - beta2)  # and of its square
                deviation = (square / (1 - beta2**t)).sqrt_().add_(eps)  # both start at 0: correct
                p.mul_(1 - lr * group["weight_decay"])
                p.addcdiv_(mean, deviation, value=-lr / (1 - beta1**t))


def orthogonalize(matrices: Tensor, steps: int = 5, coefficients=(3.4445, -4.775, 2.0315)) -> Tensor:
    """Return matrices (..., R, C) with the same singular vectors and singular values near 1.

    Each step applies s -> a·s + b·s³ + c·s⁵ to every singular value at once, by products of
    matrices alone. The coefficients rise steeply at 0 and end between 0.7 and 1.2, not at 1: fast,
    and near enough. Raises ValueError for fewer than two dimensions.

    >>> orthogonalize(torch.diag(torch.tensor([3.0, 1.0]).double())).diagonal().round(decimals=1).tolist()
    [0.8, 1.1]

    Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks".
    """
    if matrices.dim() < 2:
        raise ValueError(f"shape {tuple(matrices.shape)}: only matrices have singular values")
    a, b, c = coefficients
    wide = matrices.shape[-2] <= matrices.shape[-1]
    x = matrices if wide else matrices.mT  # the smaller product is the cheaper one
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)  # singular values at most 1
    x = x.flatten(end_dim=-3) if x.dim() > 2 else x[None]  # (N, R, C)
    for _ in range(steps):
        gram = x @ x.mT
        gram = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)  # b·G + c·G·G
        x = torch.baddbmm(x, gram, x, beta=a)  # a·X + (b·G + c·G·G)·X, where G = X·Xᵀ
    return (x if wide else x.mT).view(matrices.shape)


class Muon(torch.optim.Optimizer):
    """Momentum, made orthogonal: each step moves a matrix equally far in all its directions.

    For the matrices inside the blocks; embeddings, the unembedding and vectors stay with AdamW
    (see `muon_and_adamw`). Each step is equal to `torch.optim.Muon` (Nesterov momentum; tall
    matrices move sqrt(R / C) further), which works with dtype=torch.bfloat16: the precision of the
    products here. Matrices of one shape are handled together. Raises ValueError for a bad option or a parameter that is no matrix.

    >>> w = nn.Parameter(torch.zeros(2, 2)); w.grad = torch.tensor([[5.0, 0.0], [0.0, 1.0]])
    >>> Muon([w], lr=1.0).step(); (w.diagonal() < -0.6).tolist()  # 5 times the gradient, as far
    [True, True]

    Source: Jordan et al. 2024 (as above); weight decay: Liu et al. 2025, arXiv:2502.16982, eq. 3.
    """

    def __init__(self, params, lr=0.02, momentum=0.95, weight_decay=0.1, dtype=torch.float32):
        for name, value in (("lr", lr), ("weight_decay", weight_decay)):
            if not value >= 0:
                raise ValueError(f"{name}={value}: must not be negative")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum={momentum}: must be in [0, 1), for example 0.95")
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay, dtype=dtype))
        for p in (p for group in self.param_groups for p in group["params"]):
            if p.dim() != 2:
                raise ValueError(f"a parameter of shape {tuple(p.shape)} is no matrix: give it to AdamW")

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            lr, momentum = group["lr"], group["momentum"]
            by_shape: dict[tuple, list] = {}
            for p in (p for p in group["params"] if p.grad is not None):
                mean = self.state[p].setdefault("mean", torch.zeros_like(p))
                mean.lerp_(p.grad, 1 - momentum)
                ahead = p.grad.lerp(mean, momentum)  # Nesterov: where the mean is going
                by_shape.setdefault(tuple(p.shape), []).append((p, ahead))
            for (R, C), pairs in by_shape.items():
                ahead = torch.stack([ahead for _, ahead in pairs]).to(group["dtype"])  # (N, R, C)
                updates = orthogonalize(ahead)
                for (p, _), update in zip(pairs, updates, strict=True):
                    p.mul_(1 - lr * group["weight_decay"])
                    p.add_(update, alpha=-lr * max(1, R / C) ** 0.5)


class OptimizerList:
    """Several optimizers that step as one: what `train(optimizer=...)` needs, and no more."""

    def __init__(self, *optimizers: torch.optim.Optimizer):
        self.optimizers = optimizers

    @property
    def param_groups(self) -> list[dict]:
        """The groups of all, in order; setting a group's "lr" sets it where it is used."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def step(self) -> None:
        """Let each make its step."""
        for optimizer in self.optimizers:
            optimizer.step()

    def state_dict(self) -> dict:
        """Return the states of all."""
        return {"optimizers": [optimizer.state_dict() for optimizer in self.optimizers]}

    def load_state_dict(self, state: dict) -> None:
        """Go on from `state`. Raises ValueError for another number of optimizers."""
        for optimizer, part in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(part)


def muon_and_adamw(
    model: nn.Module,
    muon_lr=0.02,
    adamw_lr=3e-3,
    momentum=0.95,
    betas=(0.9, 0.99),
    weight_decay=0.0,
    dtype=torch.float32,
) -> OptimizerList:
    """Return Muon for the matrices in the model's blocks, AdamW for all else, as one optimizer.

    `weight_decay` is for those matrices and the unembedding; embeddings and vectors do not decay. `dtype` is the precision of Muon's products.
    """
    hidden, others = hidden_and_other_groups(model, weight_decay)
    adamw = torch.optim.AdamW(others, lr=adamw_lr, betas=betas, fused=True)
    return OptimizerList(Muon([hidden], muon_lr, momentum, dtype=dtype), adamw)


def hidden_and_other_groups(model: nn.Module, weight_decay: float) -> tuple[dict, list[dict]]:
    """Return the group of the matrices in a model's blocks, and the groups of all else."""
    model = unwrap(model)
    hidden = [p for name, p in model.named_parameters() if is_hidden_matrix(name, p)]
    unembedding = list(model.unembedding.parameters())  # one matrix; with an adapter, two more
    taken = {id(p) for p in [*hidden, *unembedding]}
    others = [p for p in model.parameters() if id(p) not in taken]
    return {"params": hidden, "weight_decay": weight_decay}, [
        {"params": others, "weight_decay": 0.0},
        {"params": unembedding, "weight_decay": weight_decay},
    ]


def is_hidden_matrix(name: str, parameter: Tensor) -> bool:
    """Return whether a parameter is a matrix that maps features to features in a block, also of an encoder."""
    return (
        name.startswith(("blocks.", "encoder.blocks.")) and parameter.dim() == 2 and "embedding" not in name
    )
