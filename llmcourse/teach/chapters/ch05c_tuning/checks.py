"""Exercises of chapter 5c: tuning a run (`05c_tuning`)."""

import torch
import torch.nn.functional as F

from llmcourse.data.batches import IGNORE
from llmcourse.model import GPT, ModelConfig
from llmcourse.teach.examine import close, compare, examine
from llmcourse.teach.exercises import exercise, require
from llmcourse.teach.forms import number, several, tensor


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
    wants="function",
    form=number,
)
def check_noise_scale(answer):
    """Plant |G|² and tr(Σ), hand out the two squares, and tell the usual slips apart."""

    def planted(gradient, trace, small, large):
        return gradient + trace / small, gradient + trace / large, small, large

    def trace(a, b, n, m):
        return (a - b) / (1 / n - 1 / m)

    def length(a, b, n, m):
        return (m * b - n * a) / (m - n)

    def right(*given):
        return trace(*given) / length(*given)

    slips = {
        "that is tr(Σ): divide it by |G|²": trace,
        "that is |G|²: tr(Σ) is to be divided by it": length,
        "the fraction is upside down: tr(Σ) / |G|²": lambda *given: length(*given) / trace(*given),
        "you take the large batch's square for |G|², but it still holds tr(Σ)/large of noise: subtract it": (
            lambda a, b, n, m: trace(a, b, n, m) / b
        ),
        "you take the small batch's square for |G|², but it still holds tr(Σ)/small of noise: subtract it": (
            lambda a, b, n, m: trace(a, b, n, m) / a
        ),
        "the difference of the squares is not tr(Σ) yet: divide it by 1/small - 1/large": (
            lambda a, b, n, m: (a - b) / length(a, b, n, m)
        ),
        "you divide by small and large themselves: the noise falls like 1/B, so it is 1/small - 1/large": (
            lambda a, b, n, m: (b - a) / (n - m) / length(a, b, n, m)
        ),
        "the sign of tr(Σ) is wrong: the SMALL batch has the larger square": lambda *given: -right(*given),
        "the two sizes are exchanged: small_square belongs to `small`": lambda a, b, n, m: right(a, b, m, n),
        "that is the ratio of the two squares: solve for tr(Σ) and |G|² first": lambda a, b, n, m: a / b,
        "that is the square root: the noise scale is a ratio of squares": lambda *given: (
            abs(right(*given)) ** 0.5
        ),
        "tr(Σ)/B is subtracted with the wrong B: small_square holds tr(Σ)/small": (
            lambda a, b, n, m: trace(a, b, n, m) / (a - trace(a, b, n, m) / m)
        ),
    }
    cases = {
        "with |G|² = 3 and tr(Σ) = 60, sizes 4 and 16 have the squares 18 and 6.75, and the noise scale is 20; yours is "
        "{value}": planted(3.0, 60.0, 4, 16)
    }
    for gradient, noise, n, m in ((0.5, 2.2, 1, 256), (7.0, 0.0, 2, 3), (1.0, 900.0, 8, 32)):
        told = f"right for sizes 4 and 16, but for {n} and {m}, with |G|² = {gradient} and tr(Σ) = {noise}, you return "
        cases[told + "{value} instead of {right}"] = planted(gradient, noise, n, m)
    examine(answer, right, cases, slips, rtol=1e-3, atol=1e-4)
    return "the same as `llmcourse.tune.noise_scale.noise_scale`: two sizes, two equations, two unknowns."


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
    wants="function",
    form=number,
)
def check_accumulate(answer):
    """Compare .grad and the loss with one whole batch, of three parts and of two; tell the usual slips apart."""
    _check_parts(answer, 3)
    _check_parts(answer, 2)
    return "the same step as one large batch, in the memory of a small one."


def _check_parts(answer, n_parts):
    model, parts = _model_and_parts()
    parts = parts[:n_parts]
    value = answer(model, parts)
    got, largest = _gradient(model), model.largest
    counts, sizes = [int((y != IGNORE).sum()) for _, y in parts], [y.numel() for _, y in parts]

    def of(weights):
        """The gradient and the loss if the sum over each part gets this weight."""
        fresh, _ = _model_and_parts()
        logits = [fresh(x).flatten(0, 1) for x, _ in parts]
        sums = (
            F.cross_entropy(x, y.flatten(), ignore_index=IGNORE, reduction="sum")
            for x, (_, y) in zip(logits, parts, strict=True)
        )
        total = sum(weight * loss for weight, loss in zip(weights, sums, strict=True))
        total.backward()
        return _gradient(fresh), total.item()

    whole, none = 1 / sum(counts), [0] * (n_parts - 1)
    slips = {
        "you average the means of the parts: a target in a short part then weighs more. Divide each SUM by the "
        "number of targets of all parts": [1 / n / n_parts for n in counts],
        "you add up the means of the parts: divide each SUM by the number of targets of all parts": (
            [1 / n for n in counts]
        ),
        "you add up sums: divide by the number of targets that count": [1] * n_parts,
        "you divide by all targets; those of -100 do not count": [1 / sum(sizes)] * n_parts,
        "each part's sum is divided by all ITS targets; those of -100 do not count": [1 / n for n in sizes],
        "you divide by the number of parts: divide by the number of targets that count": [1 / n_parts]
        * n_parts,
        "only the last part is left in .grad: no zero_grad() between the parts, and backward() for each": (
            [*none, whole]
        ),
        "only the last part is left in .grad, as its own mean: backward() for each part, no zero_grad() between": (
            [*none, 1 / counts[-1]]
        ),
        "only the first part is in .grad: call backward() for each": [whole, *none],
        "the first part counts too often: call backward() once for each part, on its own loss": (
            [(n_parts - i) * whole for i in range(n_parts)]
        ),
        "the sign is wrong: .grad holds the gradient of the loss, not minus it": [-whole] * n_parts,
    }
    right, loss = of([whole] * n_parts)
    require(got.abs().sum() > 0, "the gradients are empty: call backward() on the loss of each part")
    if not close(got, right, 1e-4, 1e-9):
        said = next((s for s, weights in slips.items() if close(got, of(weights)[0], 1e-4, 1e-9)), None)
        away = f"{(got - right).norm() / right.norm():.0%} of its length away from that of one large batch"
        require(False, said or f"for {n_parts} parts the gradient is {away}")
    require(largest <= 3, "right, but you run all parts at once, which needs the memory of the large batch")
    told = (
        "the gradients are right; the returned loss should be the mean over all targets, {right}, not {value}"
    )
    compare(value, loss, {}, told, rtol=1e-4)


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
    wants="function",
    form=several(tensor, what="tensors, one for each gradient"),
)
def check_clip(answer):
    """Compare with torch's rule for the joint length; tell the usual slips apart."""
    generator = torch.Generator().manual_seed(0)
    gradients = [torch.randn(shape, generator=generator) * 2 for shape in ((3, 4), (5,), (2, 2, 2))]

    def sized(gradients, max_norm):
        result = answer(gradients, max_norm)
        number_of = f"return a list of {len(gradients)} tensors, one for each gradient"
        require(len(result) == len(gradients), f"{number_of}, not {len(result)}")
        for mine, given in zip(result, gradients, strict=True):
            back = f"a tensor of {tuple(given.shape)} came back as {tuple(mine.shape)}"
            require(mine.shape == given.shape, back)
        return result

    def each(change):
        return lambda gradients, max_norm: [change(g, max_norm) for g in gradients]

    def by(factor):  # of all numbers as one row
        def function(gradients, max_norm):
            shared = factor(torch.cat([g.flatten() for g in gradients]), max_norm)
            return [g * shared for g in gradients]

        return function

    def shorten(length):  # never lengthen, whatever the length is
        return by(lambda x, m: min(1.0, m / max(float(length(x)), 1e-12)))

    slips = {
        "nothing was shortened: the joint length is above max_norm": by(lambda x, m: 1),
        "you shorten each tensor by its own length: one factor for ALL, or the direction changes": (
            each(lambda g, m: g * min(1.0, m / max(float(g.norm()), 1e-12))),
            each(lambda g, m: g * m / g.norm()),
        ),
        "you cut off single numbers; that changes the direction. Multiply all by one factor": (
            each(lambda g, m: g.clamp(-m, m)),
            each(lambda g, m: g.clamp(max=m)),
        ),
        "that gives length 1: the factor is max_norm / length": by(lambda x, m: 1 / x.norm()),
        "you add the lengths of the tensors; the joint length is the root of the sum of all squares": (
            lambda g, m: [y * min(1.0, m / max(1e-12, float(sum(x.norm() for x in g)))) for y in g],
            lambda g, m: [y * m / sum(x.norm() for x in g) for y in g],
        ),
        "the root is missing: the length is the ROOT of the sum of squares": (
            shorten(lambda x: x.square().sum()),
            by(lambda x, m: m / x.square().sum()),
        ),
        "you divide by max_norm: the factor is max_norm / length": by(lambda x, m: 1 / m),
        "you multiply by max_norm alone: the factor is max_norm / length": by(lambda x, m: m),
        "you divide by the sum of absolute values: the length is the root of the sum of squares": (
            shorten(lambda x: x.abs().sum()),
            by(lambda x, m: m / x.abs().sum()),
        ),
        "you divide by the largest entry: the length is the root of the sum of squares": (
            shorten(lambda x: x.abs().max()),
            by(lambda x, m: m / x.abs().max()),
        ),
        "you divide by the mean length: the length is the root of the SUM of squares": (
            shorten(lambda x: x.square().mean().sqrt()),
            by(lambda x, m: m / x.square().mean().sqrt()),
        ),
        "a gradient shorter than max_norm must stay as it is, and yours is lengthened: the factor is never above 1": (
            by(lambda x, m: m / x.norm()),
            by(lambda x, m: m / (x.norm() + 1e-9)),
        ),
        "a gradient of zeros gives NaN: you divide by a length of 0": by(
            lambda x, m: torch.minimum(x.norm(), torch.tensor(m)) / x.norm()
        ),
    }
    cases = {
        "the joint length should be 2 afterwards, in the same direction": (gradients, 2.0),
        "a gradient shorter than max_norm must stay as it is": ([g * 0.01 for g in gradients], 2.0),
        "right for three tensors and max_norm = 2, but not for two and 0.5": (gradients[1:], 0.5),
        "a gradient of zeros must stay as it is": ([g * 0.0 for g in gradients], 2.0),
    }
    examine(sized, shorten(torch.norm), cases, slips, rtol=1e-3, atol=1e-6)
    return "the same as torch.nn.utils.clip_grad_norm_: the length is bounded, the direction kept."
