"""Random weights at the start, and what passes through the layers with them."""

import math

import torch
from torch import nn

from llmcourse.losses import Loss, mean_loss, next_token_loss
from llmcourse.model import GPT
from llmcourse.runtime import evaluating
from llmcourse.weights import unwrap


@torch.no_grad()
def initialize(model: GPT, std: float = 0.02, residual_scaling: bool = True) -> GPT:
    """Draw the weights of all linear layers and embeddings anew from N(0, std²); return the model.

    With `residual_scaling`, the matrices that write into the residual stream get std / √(2L) for
    L layers, as in GPT-2. Biases, gains and what starts at 0 (`zero_init`) stay as they are.
    Draws from torch's global generator. Raises ValueError for std <= 0.

    Source: Radford et al. 2019, *Language Models are Unsupervised Multitask Learners*, sec. 2.3.
    """
    if std <= 0:
        raise ValueError(f"std={std}: must be above 0, for example 0.02 or 1/√d_model")
    residual = std / math.sqrt(2 * model.config.n_layers) if residual_scaling else std
    for name, module in unwrap(model).named_modules():
        if not isinstance(module, nn.Linear | nn.Embedding) or name == "bigram_logits":
            continue
        writes = name.endswith(("attention.out", "mlp.down"))
        if not (writes and getattr(model.config, "zero_init", False)):
            nn.init.normal_(module.weight, std=residual if writes else std)
    return model


def activation_and_gradient_norms(
    model: GPT, batch, loss: Loss = next_token_loss
) -> tuple[list[float], list[float]]:
    """Return (activations, gradients): two lists with one number for each layer, from one batch.

    The first is the standard deviation of what the block hands on, the second the length of the
    gradient of the mean loss with respect to that block's parameters, both without dropout. The
    model's own gradients are left alone.
    """
    spreads: list[float] = []
    hooks = [
        block.register_forward_hook(lambda _, __, output: spreads.append(output.detach().std().item()))
        for block in model.blocks
    ]
    try:
        with evaluating(model):
            mean = mean_loss(model, batch, loss)
    finally:
        for hook in hooks:
            hook.remove()
    sizes = [len(list(block.parameters())) for block in model.blocks]
    gradients = torch.autograd.grad(mean, [p for block in model.blocks for p in block.parameters()])
    norms, start = [], 0
    for size in sizes:
        norms.append(torch.stack([g.norm() for g in gradients[start : start + size]]).norm().item())
        start += size
    return spreads, norms
