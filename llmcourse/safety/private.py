"""Training with differential privacy: the gradient of each example is clipped, and noise covers the sum.

It stays in the loop of `train`. Batches are drawn by chance (`PoissonBatches`), the loss weighs each
example so that its gradient is at most C long (`private_loss`), and the optimizer adds the noise
(`PrivateOptimizer`). What that gives away is `accountant.epsilon`. An example is one row of a batch.

Dimensions: B examples of a batch, N examples in all, T time.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from llmcourse.data.batches import IGNORE, EndlessBatches
from llmcourse.losses import Loss
from llmcourse.optim import OptimizerList
from llmcourse.support.inputs import LARGEST, number, whole
from llmcourse.support.outputs import wide

ExampleLosses = Callable[..., Tensor]  # (model, batch) -> (B,), each from its own row alone


def row_losses(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Return (B,): the mean cross-entropy of each row over its own targets, in nats per token.

    The mean is taken inside each row. Over the whole batch, the number of targets of one row would
    change the gradient of another, and the bound on what an example can do would not hold. A row
    without targets that count has the loss 0.

    >>> row_losses(nn.Embedding(8, 8), (torch.zeros(2, 3).long(), torch.full((2, 3), -100))).tolist()
    [0.0, 0.0]
    """
    inputs, targets = batch
    logits = wide(model(inputs))  # (B, T, V)
    losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE, reduction="none")
    counted = (targets != IGNORE).sum(dim=-1).clamp(min=1)
    return losses.view(targets.shape).sum(dim=-1) / counted


def _of_one_example(model: nn.Module, example_losses: ExampleLosses) -> Callable:
    """Return a function of (parameters, one row of each part of a batch): its gradient by parameter."""

    def loss(parameters: dict[str, Tensor], *row: Tensor) -> Tensor:
        def call(*inputs: Tensor) -> Tensor:
            return functional_call(model, parameters, inputs)

        return example_losses(call, tuple(part[None] for part in row))[0]

    return grad(loss)


def _over_examples(function: Callable, model: nn.Module, batch: tuple, chunk: int):
    """Map `function` over the rows of a batch, `chunk` at once, with attention as torch can map it."""
    if any(isinstance(part, nn.Dropout) and part.p > 0 and part.training for part in model.modules()):
        raise ValueError(
            "the model has dropout: a gradient would be measured with one mask and used with another, and "
            "not be clipped; build it with dropout=0.0"
        )
    parameters = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    with sdpa_kernel(SDPBackend.MATH):
        return vmap(function, in_dims=(None, *[0] * len(batch)), chunk_size=whole(chunk, "chunk"))(
            parameters, *batch
        )


def example_gradients(
    model: nn.Module, batch: tuple, example_losses: ExampleLosses = row_losses, chunk: int = 16
) -> dict[str, Tensor]:
    """Return the gradient of each example's loss, (B, *shape) for each trainable parameter; tied ones once.

    It is what a loop over the rows would give. torch maps the function that computes one gradient over
    all rows (`torch.func`), `chunk` rows at a time. Raises ValueError for a model with dropout.

    >>> layer = nn.Linear(2, 1, bias=False)
    >>> batch = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.zeros(2)
    >>> example_gradients(layer, batch, lambda model, batch: model(batch[0])[:, 0])["weight"].tolist()
    [[[1.0, 2.0]], [[3.0, 4.0]]]
    """
    return _over_examples(_of_one_example(model, example_losses), model, batch, chunk)


def gradient_norms(
    model: nn.Module, batch: tuple, example_losses: ExampleLosses = row_losses, chunk: int = 16
) -> Tensor:
    """Return (B,): the length of each example's gradient over all trainable parameters together.

    Only `chunk` gradients are in memory at a time. Raises ValueError as `example_gradients` does.
    """
    gradient = _of_one_example(model, example_losses)

    def norm(parameters: dict[str, Tensor], *row: Tensor) -> Tensor:
        return sum(g.float().square().sum() for g in gradient(parameters, *row).values()).sqrt()

    return _over_examples(norm, model, batch, chunk)


def private_loss(
    clip: float, batch_size: float, example_losses: ExampleLosses = row_losses, chunk: int = 16
) -> Loss:
    """Return a loss for `train` in which no example's gradient is longer than `clip`, C.

    Norms come first; then the losses are added up, each times min(1, C / norm), so that the gradient of
    the sum is the sum of the clipped gradients. The count is `batch_size`, the size that a batch has on
    average, whatever the size of this one: who takes part must not change the divisor. What `Step` tells,
    the mean loss of the batch and the norm, is computed without noise and is not private. Train with
    `clip=None`, `accumulate=1` and in float32: rows of several batches could be the same row, and
    a skipped step of float16 tells something. Raises ValueError for a bad argument, and in training for a
    model with dropout.

    Source: Abadi et al. 2016, arXiv:1607.00133, alg. 1; norms first: Lee & Kifer 2020, arXiv:2009.03106.
    """
    clip = number(clip, "clip", 1e-12, LARGEST, "a number above 0, such as 1.0")
    size = number(batch_size, "batch_size", 1e-12, LARGEST, "the expected number of examples in a batch")

    def loss(model: nn.Module, batch: tuple) -> tuple[Tensor, float, Tensor]:
        if len(batch[0]) == 0:  # nobody took part: a step of noise alone
            nothing = sum((0 * p).sum() for p in model.parameters() if p.requires_grad)
            return nothing, size, nothing
        norms = gradient_norms(model, batch, example_losses, chunk)
        weights = (clip / norms.clamp(min=clip)).detach()  # (B,), at most 1
        losses = example_losses(model, batch)
        return (weights * losses).sum(), size, losses.mean() * size

    return loss


class PrivateOptimizer(OptimizerList):
    """An optimizer that adds Gaussian noise to the gradient before each step.

    The deviation is σ·C / L: `noise_multiplier` σ, and the `clip` C and expected `batch_size` L of
    `private_loss`. The generator belongs to the state, so that a run resumes to the bit. Whoever knows
    the seed can take the noise off again: it is for experiments; for data that matter let it be secret,
    and use a library that draws cryptographic noise. Raises ValueError for a bad argument.

    >>> w = nn.Parameter(torch.zeros(1)); w.grad = torch.ones(1)
    >>> PrivateOptimizer(torch.optim.SGD([w], lr=1.0), 0.0, clip=1.0, batch_size=4, seed=0).step(); w.item()
    -1.0

    Source: Abadi et al. 2016, arXiv:1607.00133, alg. 1.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        noise_multiplier: float,
        clip: float,
        batch_size: float,
        seed: int,
    ):
        super().__init__(optimizer)
        sigma = number(noise_multiplier, "noise_multiplier", 0.0, LARGEST, "a number that is not negative")
        clip = number(clip, "clip", 1e-12, LARGEST, "a number above 0, such as 1.0")
        size = number(batch_size, "batch_size", 1e-12, LARGEST, "the expected number of examples in a batch")
        self.deviation = sigma * clip / size
        device = optimizer.param_groups[0]["params"][0].device
        self.generator = torch.Generator(device).manual_seed(whole(seed, "seed", 0))

    @torch.no_grad()
    def step(self) -> None:
        """Add noise to every gradient, and let the optimizer make its step."""
        gradients = [p.grad for g in self.param_groups for p in g["params"] if p.grad is not None]
        for gradient in gradients if self.deviation else ():
            noise = torch.empty_like(gradient).normal_(generator=self.generator)
            gradient.add_(noise, alpha=self.deviation)
        super().step()

    def state_dict(self) -> dict:
        """Return the optimizer's state, and that of the noise."""
        return {**super().state_dict(), "noise": self.generator.get_state()}

    def load_state_dict(self, state: dict) -> None:
        """Go on from `state`. Raises ValueError for one of a run without noise."""
        if "noise" not in state:
            raise ValueError(
                "the saved run had no noise: what it has seen is not private; start another, resume=False"
            )
        super().load_state_dict(state)
        self.generator.set_state(state["noise"].cpu())


class PoissonBatches(EndlessBatches):
    """Endless batches (inputs, targets) in which each row takes part with probability `sampling_rate`.

    `rows` are tensors that begin with the same N, such as `rows_of` returns. A batch has N times
    `sampling_rate` rows on average, sometimes none: the accountant's theorem is about such batches, not
    about shuffled ones of equal size. Batch number `position` depends on the seed and on nothing else:
    setting it resumes exactly. Raises ValueError for parts of unequal length and a rate outside (0, 1].

    >>> batches = PoissonBatches((torch.arange(1000), torch.arange(1000)), sampling_rate=0.1)
    >>> [len(next(batches)[0]) for _ in range(4)]
    [100, 85, 116, 108]
    """

    def __init__(self, rows: Sequence[Tensor], sampling_rate: float, seed: int = 0):
        lengths = {len(part) for part in rows}
        if len(lengths) != 1 or lengths == {0}:
            raise ValueError(f"parts of {sorted(lengths)} rows: each must have the same number, at least one")
        self.rows, self.seed, self.n_rows = tuple(rows), whole(seed, "seed", 0), lengths.pop()
        wanted = "a share above 0 and at most 1, such as 0.01"
        self.sampling_rate = number(sampling_rate, "sampling_rate", 1e-12, 1, wanted)

    def __next__(self) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.position)
        takes_part = torch.rand(self.n_rows, generator=generator) < self.sampling_rate
        self.position += 1
        return tuple(part[takes_part] for part in self.rows)

    def _identity(self) -> dict:
        return {"seed": self.seed, "sampling_rate": self.sampling_rate, "n_rows": self.n_rows}
