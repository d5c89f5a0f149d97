"""AdamW by hand, and which parameters should decay."""

import torch
from torch import nn


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
            if value < 0:
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
