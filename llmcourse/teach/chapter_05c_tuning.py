"""Exercises of chapter 5c: tuning a run (`05c_tuning`)."""

import torch
import torch.nn.functional as F

from llmcourse.data.batches import IGNORE
from llmcourse.model import GPT, ModelConfig
from llmcourse.teach.checks import number, tensor
from llmcourse.teach.exercises import NotRight, exercise, require


def simple_noise_scale(small_square, large_square, small, large):
    """tr(Σ) / |G|² from the mean squared lengths of gradients of two batch sizes."""
    noise_trace = (small_square - large_square) / (1 / small - 1 / large)
    gradient_square = small_square - noise_trace / small
    return noise_trace / gradient_square


@exercise(
    "05c-noise-scale",
    "How much noise is in a gradient?",
    minutes=10,
    difficulty=2,
    hints=(
        "Write the equation |g|² = |G|² + tr(Σ)/B twice, once for each batch size, and subtract: |G|² drops out.",
        "The difference of the two squares is tr(Σ) times (1/small - 1/large).",
        "With tr(Σ) known, put it back into one of the two equations to find |G|².",
    ),
    solution=simple_noise_scale,
)
def check_noise_scale(answer):
    """Plant |G|² and tr(Σ), hand out the two squares, and tell the usual slips apart."""
    gradient, trace, small, large = 3.0, 60.0, 4, 16
    a, b = gradient + trace / small, gradient + trace / large  # 18 and 6.75
    value = number(answer(a, b, small, large))
    slips = {
        "that is tr(Σ): divide it by |G|²": trace,
        "that is |G|²: tr(Σ) is to be divided by it": gradient,
        "the fraction is upside down: tr(Σ) / |G|²": gradient / trace,
        "you take the large batch's square for |G|², but it still holds tr(Σ)/large of noise: subtract it": (
            trace / b
        ),
        "you take the small batch's square for |G|², but it still holds tr(Σ)/small of noise: subtract it": (
            trace / a
        ),
        "the difference of the squares is not tr(Σ) yet: divide it by 1/small - 1/large": (a - b) / gradient,
        "you divide by small and large themselves: the noise falls like 1/B, so it is 1/small - 1/large": (
            (b - a) / (small - large) / gradient
        ),
        "the sign of tr(Σ) is wrong: the SMALL batch has the larger square": -trace / gradient,
        "the two sizes are exchanged: small_square belongs to `small`": (
            (b - a) / (1 / small - 1 / large) / ((small * b - large * a) / (small - large))
        ),
        "that is the ratio of the two squares: solve for tr(Σ) and |G|² first": a / b,
        "that is the square root: the noise scale is a ratio of squares": (trace / gradient) ** 0.5,
    }
    for message, slip in slips.items():
        require(abs(value - slip) > 1e-4 * max(1, abs(slip)), message)
    right = trace / gradient
    require(
        abs(value - right) < 1e-3,
        f"with |G|² = 3 and tr(Σ) = 60, sizes 4 and 16 have the squares 18 and 6.75, and the noise scale is "
        f"20; yours is {value:.4g}",
    )
    for gradient, trace, small, large in ((0.5, 2.0, 1, 256), (7.0, 0.0, 2, 3), (1.0, 900.0, 8, 32)):
        value = number(answer(gradient + trace / small, gradient + trace / large, small, large))
        require(
            abs(value - trace / gradient) < 1e-3 * max(1.0, trace / gradient),
            f"right for sizes 4 and 16, but for {small} and {large}, with |G|² = {gradient} and tr(Σ) = {trace}, "
            f"you return {value:.4g} instead of {trace / gradient:.4g}",
        )
    return "the same as `llmcourse.tuning.noise_scale`: two sizes, two equations, two unknowns."


def accumulate(model, parts):
    """Leave the gradient of the mean loss over all counted targets in .grad; return that loss."""
    counted = sum((targets != -100).sum() for _, targets in parts)
    total = 0.0
    for inputs, targets in parts:
        logits = model(inputs).flatten(0, 1)
        loss = F.cross_entropy(logits, targets.flatten(), ignore_index=-100, reduction="sum") / counted
        loss.backward()
        total += loss.item()
    return total


class _Watched(GPT):
    """A model that remembers how many sequences it was given at once."""

    largest = 0

    def forward(self, token_ids, *arguments, **options):
        """Logits, as GPT."""
        self.largest = max(self.largest, len(token_ids))
        return super().forward(token_ids, *arguments, **options)


def _model_and_parts():
    """A tiny model and three parts with 24, 5 and 7 targets that count."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = _Watched(ModelConfig(11, context_length=8, d_model=8, n_heads=2, n_layers=1)).double()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
        ids = torch.randint(11, (9, 9))
    parts = [(rows[:, :-1].clone(), rows[:, 1:].clone()) for rows in ids.split(3)]
    parts[1][1][:, 2:] = IGNORE
    parts[1][1][0, 0] = IGNORE
    parts[2][1][1:, 2:] = IGNORE
    parts[2][1][0, 3:] = IGNORE
    return model, parts


def _gradient(model) -> torch.Tensor:
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    return torch.cat([g.flatten() for g in gradients])


@exercise(
    "05c-accumulate",
    "Accumulate what equals the large batch",
    minutes=12,
    difficulty=2,
    hints=(
        "First count the targets that are not -100, over ALL parts; each part's loss is divided by this number.",
        'F.cross_entropy(..., ignore_index=-100, reduction="sum") gives the sum over one part.',
        "Call backward() once for each part: gradients add up in .grad by themselves. No zero_grad in between.",
    ),
    solution=accumulate,
)
def check_accumulate(answer):
    """Compare .grad and the loss with one whole batch; tell the usual slips apart."""
    model, parts = _model_and_parts()
    result = answer(model, [(x.clone(), y.clone()) for x, y in parts])
    got, largest = _gradient(model), model.largest
    require(
        not isinstance(result, list | tuple), "return one number, the mean loss over all targets that count"
    )
    value = number(result.detach() if isinstance(result, torch.Tensor) else result)

    def of(combine):
        """The loss and gradient of what `combine` makes of (sums, counts, sizes)."""
        fresh, _ = _model_and_parts()
        losses = [
            F.cross_entropy(fresh(x).flatten(0, 1), y.flatten(), ignore_index=IGNORE, reduction="sum")
            for x, y in parts
        ]
        counts, sizes = [int((y != IGNORE).sum()) for _, y in parts], [y.numel() for _, y in parts]
        loss = combine(losses, counts, sizes)
        loss.backward()
        return loss.item(), _gradient(fresh)

    def same(gradient):
        return torch.allclose(got, gradient, rtol=1e-4, atol=1e-9)

    require(bool(got.abs().sum() > 0), "the gradients are empty: call backward() on the loss of each part")
    loss, right = of(lambda s, n, size: sum(s) / sum(n))
    slips = {
        "you average the means of the parts: a target in a short part then weighs more. Divide each SUM by the "
        "number of targets of all parts": lambda s, n, size: (
            sum(a / b for a, b in zip(s, n, strict=True)) / len(s)
        ),
        "you add up the means of the parts: divide each SUM by the number of targets of all parts": (
            lambda s, n, size: sum(a / b for a, b in zip(s, n, strict=True))
        ),
        "you add up sums: divide by the number of targets that count": lambda s, n, size: sum(s),
        "you divide by all targets; those of -100 do not count": lambda s, n, size: sum(s) / sum(size),
        "you divide by the number of parts: divide by the number of targets that count": (
            lambda s, n, size: sum(s) / len(s)
        ),
        "only the last part is left in .grad: no zero_grad() between the parts, and backward() for each": (
            lambda s, n, size: s[-1] / sum(n)
        ),
        "only the last part is left in .grad, as its own mean: backward() for each part, no zero_grad() between": (
            lambda s, n, size: s[-1] / n[-1]
        ),
        "only the first part is in .grad: call backward() for each": lambda s, n, size: s[0] / sum(n),
    }
    for message, combine in slips.items():
        require(not same(of(combine)[1]), message)
    if not same(right):
        raise NotRight(
            f"the gradient is {(got - right).norm() / right.norm():.0%} of its length away from that of one "
            "large batch"
        )
    require(largest <= 3, "right, but you run all parts at once, which needs the memory of the large batch")
    require(
        abs(value - loss) < 1e-4 * loss,
        f"the gradients are right; the returned loss should be the mean over all targets, {loss:.4f}, not "
        f"{value:.4f}",
    )
    return "the same step as one large batch, in the memory of a small one."


def clip(gradients, max_norm):
    """Return the gradients, shortened together if their joint length is above max_norm."""
    length = sum(gradient.square().sum() for gradient in gradients) ** 0.5
    factor = min(1.0, max_norm / (float(length) + 1e-12))
    return [gradient * factor for gradient in gradients]


@exercise(
    "05c-clip",
    "Shorten a gradient",
    minutes=6,
    difficulty=2,
    hints=(
        "The joint length is the square root of the sum of ALL squares, of all tensors together.",
        "The factor is max_norm / length, but never above 1: a short gradient stays as it is.",
        "Multiply each tensor by the same factor, and return a list.",
    ),
    solution=clip,
)
def check_clip(answer):
    """Compare with torch's clip_grad_norm_; tell the usual slips apart."""
    generator = torch.Generator().manual_seed(0)
    gradients = [torch.randn(shape, generator=generator) * 2 for shape in ((3, 4), (5,), (2, 2, 2))]

    def ask(scale, max_norm):
        result = answer([g * scale for g in gradients], max_norm)
        require(
            isinstance(result, list | tuple) and len(result) == len(gradients),
            f"return a list of {len(gradients)} tensors, one for each gradient",
        )
        result = [tensor(r) for r in result]
        for mine, given in zip(result, gradients, strict=True):
            require(
                mine.shape == given.shape,
                f"a tensor of {tuple(given.shape)} came back as {tuple(mine.shape)}",
            )
        return torch.cat([r.flatten() for r in result])

    flat = torch.cat([g.flatten() for g in gradients])
    length = flat.norm()
    got = ask(1.0, 2.0)
    sums = sum(g.norm() for g in gradients)
    slips = {
        "nothing was shortened: the joint length is above max_norm": flat,
        "you shorten each tensor by its own length: one factor for ALL, or the direction changes": torch.cat(
            [(g * min(1.0, 2.0 / g.norm())).flatten() for g in gradients]
        ),
        "you cut off single numbers; that changes the direction. Multiply all by one factor": flat.clamp(
            -2, 2
        ),
        "that gives length 1: the factor is max_norm / length": flat / length,
        "you add the lengths of the tensors; the joint length is the root of the sum of all squares": (
            flat * 2 / sums
        ),
        "the root is missing: the length is the ROOT of the sum of squares": flat * 2 / length**2,
        "you divide by max_norm: the factor is max_norm / length": flat / 2,
        "you divide by the sum of absolute values: the length is the root of the sum of squares": (
            flat * 2 / flat.abs().sum()
        ),
        "you divide by the largest entry: the length is the root of the sum of squares": (
            flat * 2 / flat.abs().max()
        ),
    }
    for message, slip in slips.items():
        require(not torch.allclose(got, slip, rtol=1e-3, atol=1e-6), message)
    require(
        torch.allclose(got, flat * 2 / length, rtol=1e-3),
        f"the joint length should be 2 afterwards, in the same direction; yours is {got.norm():.3f}",
    )
    short = ask(0.01, 2.0)
    require(
        torch.allclose(short, flat * 0.01, rtol=1e-3),
        "a gradient shorter than max_norm must stay as it is; yours is changed: the factor is never above 1",
    )
    require(
        bool(ask(0.0, 2.0).isfinite().all()), "a gradient of zeros gives NaN: you divide by a length of 0"
    )
    return "the same as torch.nn.utils.clip_grad_norm_: the length is bounded, the direction kept."
