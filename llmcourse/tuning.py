"""Measurements that help to tune a run: learning-rate sweep, gradient noise scale, layers at the start.

Dimensions: B batch (sequences), T time, C width.
"""

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmcourse.data.batches import IGNORE
from llmcourse.evaluation import evaluating, wide
from llmcourse.model import GPT
from llmcourse.training import Batch, train
from llmcourse.weights import unwrap


@dataclass(frozen=True)
class Sweep:
    """One training run whose learning rate rises at each step: `losses` at `rates`, in nats per token."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]

    def smoothed(self, decades: float = 0.5) -> np.ndarray:
        """Return the losses, each a mean that forgets what is more than about `decades` back.

        The window is a stretch of rates, not of steps, so sweeps of different length compare.
        """
        per_decade = (len(self.rates) - 1) / math.log10(self.rates[-1] / self.rates[0])
        keep = 1 - 1 / max(1.0, decades / 2 * per_decade)
        mean, weight, means = 0.0, 0.0, []
        for loss in self.losses:
            mean, weight = keep * mean + (1 - keep) * loss, keep * weight + (1 - keep)
            means.append(mean / weight)
        return np.array(means)

    def lowest(self) -> float:
        """Return the rate at which the smoothed loss is lowest."""
        return self.rates[int(self.smoothed().argmin())]

    def steepest(self) -> float:
        """Return the rate before the lowest loss at which the smoothed loss falls fastest per decade."""
        smoothed = self.smoothed()
        end = max(2, int(smoothed.argmin()) + 1)
        slope = np.gradient(smoothed[:end], np.log10(self.rates[:end]))
        return self.rates[int(slope.argmin())]


def sweep_rates(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    low: float = 1e-5,
    high: float = 1.0,
    steps: int = 100,
    stop: float = 2.0,
    **options,
) -> Sweep:
    """Return the losses of a short run whose rate rises from `low` to `high`, by one factor a step.

    It trains a copy: `model` stays as it is. It ends early where the loss exceeds `stop` times the
    lowest so far, or is not finite. `options` go to `train`, as in the run that you plan. Raises
    ValueError unless 0 < low < high and steps >= 3.

    Source: Smith 2015, arXiv:1506.01186, sec. 3.3, whose rate rises by a constant amount; a
    constant factor, as here, is what libraries made of it.
    """
    if not 0 < low < high or steps < 3:
        raise ValueError(f"low={low}, high={high}, steps={steps}: give 0 < low < high and at least 3 steps")
    rates, losses = [], []
    growth = math.log(high / low) / (steps - 1)
    options = {"lr": low, "schedule": lambda step: math.exp(growth * step), "steps": steps, **options}
    try:
        for step in train(copy.deepcopy(model), batches, **options):
            rates.append(step.lr)
            losses.append(step.loss)
            if step.loss > stop * min(losses):
                break
    except FloatingPointError:  # the sweep has found where training breaks
        if len(losses) < 3:
            raise
    return Sweep(tuple(rates), tuple(losses))


@dataclass(frozen=True)
class NoiseScale:
    """Squared length of the true gradient and total variance of one example's gradient, estimated.

    Both are unbiased, so `gradient_square` can come out negative where the gradient is small.
    """

    gradient_square: float
    noise_trace: float

    @property
    def scale(self) -> float:
        """tr(Σ) / |G|²: the batch size at which noise and gradient are equally long.

        Infinity where the estimated gradient is not positive. A ratio is not unbiased: average
        the two numbers over many batches first, then divide.
        """
        return self.noise_trace / self.gradient_square if self.gradient_square > 0 else math.inf


def noise_scale(small_square: float, large_square: float, small: int, large: int) -> NoiseScale:
    """Return the NoiseScale from mean squared lengths of gradients of batches of two sizes.

    A gradient over B examples has the expected square |G|² + tr(Σ)/B: two sizes, two unknowns.
    Raises ValueError unless 1 <= small < large.

    >>> round(noise_scale(small_square=4 + 12 / 2, large_square=4 + 12 / 6, small=2, large=6).scale, 6)
    3.0

    Source: McCandlish et al. 2018, arXiv:1812.06162, eq. 2.9 and app. A.1.
    """
    if not 1 <= small < large:
        raise ValueError(f"small={small} and large={large}: give 1 <= small < large")
    gradient_square = (large * large_square - small * small_square) / (large - small)
    noise_trace = (small_square - large_square) / (1 / small - 1 / large)
    return NoiseScale(gradient_square, noise_trace)


def mean_loss(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy of `model` over all targets that count, in nats."""
    device = next(model.parameters()).device
    logits = wide(model(inputs.to(device)))  # (B, T, V)
    return F.cross_entropy(logits.flatten(0, 1), targets.to(device).flatten(), ignore_index=IGNORE)


def measure_noise_scale(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    small: int = 8,
    loss: Callable[[nn.Module, Tensor, Tensor], Tensor] = mean_loss,
) -> NoiseScale:
    """Return the NoiseScale of `model` on one large batch, cut into parts of `small` examples.

    An example is a row of `inputs` (B, ...) and `targets`; `loss` must be a mean over examples.
    The large gradient is the mean of the small ones, so one pass gives both. The model's own
    gradients are left alone. Raises ValueError unless B is at least 2 parts, and whole parts.
    """
    if len(inputs) % small or len(inputs) < 2 * small:
        raise ValueError(
            f"{len(inputs)} examples are not 2 or more parts of {small}: choose `small` as a divisor, "
            "at most half of the batch"
        )
    parameters = [p for p in model.parameters() if p.requires_grad]
    total, squares, count = 0.0, 0.0, len(inputs) // small
    for x, y in zip(inputs.split(small), targets.split(small), strict=True):
        parts = torch.autograd.grad(loss(model, x, y), parameters)
        gradient = torch.cat([part.flatten() for part in parts]).cpu().double()
        squares += gradient.square().sum().item() / count
        total = total + gradient / count
    return noise_scale(squares, total.square().sum().item(), small, len(inputs))


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
        if not (writes and model.config.zero_init):
            nn.init.normal_(module.weight, std=residual if writes else std)
    return model


def layer_spread(model: GPT, inputs: Tensor, targets: Tensor) -> tuple[list[float], list[float]]:
    """Return (activations, gradients): two lists with one number for each layer, from one batch (B, T).

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
            loss = mean_loss(model, inputs, targets)
    finally:
        for hook in hooks:
            hook.remove()
    sizes = [len(list(block.parameters())) for block in model.blocks]
    gradients = torch.autograd.grad(loss, [p for block in model.blocks for p in block.parameters()])
    norms, start = [], 0
    for size in sizes:
        norms.append(torch.stack([g.norm() for g in gradients[start : start + size]]).norm().item())
        start += size
    return spreads, norms
