"""Exercises of chapter 4a: attention."""

import torch

from llmcourse.attention import causal_mask
from llmcourse.teach.checks import tensor
from llmcourse.teach.exercises import exercise, require


def softmax(scores):
    """Softmax over the last dimension that survives large scores."""
    shifted = scores - scores.max(dim=-1, keepdim=True).values
    exponentials = shifted.exp()
    return exponentials / exponentials.sum(dim=-1, keepdim=True)


@exercise(
    "04a-softmax",
    "Write a softmax that does not overflow",
    minutes=6,
    difficulty=1,
    hints=(
        "exp(1000) is infinite in float32, and inf / inf is nan.",
        "softmax does not change when the same number is subtracted from all scores of a row.",
        "Subtract each row's maximum: scores.max(dim=-1, keepdim=True).values.",
    ),
    solution=softmax,
)
def check_softmax(answer):
    """Compare with torch; large scores; the right axis."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 3, 4, generator=generator)
    weights = tensor(answer(scores.clone()))
    require(
        weights.shape == scores.shape,
        f"return a tensor of the scores' shape, {tuple(scores.shape)}; yours is {tuple(weights.shape)}",
    )
    expected = scores.softmax(-1)
    for axis in (0, 1):
        require(
            not torch.allclose(weights, scores.softmax(axis)),
            f"you normalize over dimension {axis}; each row, the LAST dimension, must sum to 1",
        )
    require(
        abs(weights.sum() - 1) > 1e-4,
        "you divide by the sum of ALL entries; each row, the LAST dimension, must sum to 1",
    )
    sums = weights.sum(-1)
    require(
        torch.allclose(sums, torch.ones_like(sums)),
        f"each row must sum to 1; one of yours sums to {sums.flatten()[0].item():.3f}",
    )
    require(
        torch.allclose(weights, expected, atol=1e-6),
        "rows sum to 1 but differ from torch.softmax. Take exp; subtract ONE number from a whole row before it",
    )
    large = tensor(answer(torch.tensor([[1000.0, 1001.0]])))
    require(
        torch.isfinite(large).all(),
        "for the scores 1000 and 1001 you return nan: subtract the row's maximum first",
    )
    mixed = tensor(answer(torch.tensor([[1000.0, 1001.0], [0.0, 1.0]])))
    require(
        torch.allclose(mixed[1], scores.new_tensor([0.0, 1.0]).softmax(-1), atol=1e-6),
        "a row of small scores beside a row of large ones vanishes: subtract EACH row's maximum",
    )
    for row in ([1000.0, 1001.0], [0.0, 1000.0], [-1000.0, -1001.0], [-1000.0, 0.0, 1000.0]):
        wanted = torch.tensor([row]).softmax(-1)
        require(
            torch.allclose(tensor(answer(torch.tensor([row]))), wanted, atol=1e-3),
            f"for the scores {row} you do not return {wanted[0].tolist()}: subtract the row's MAXIMUM, "
            "not its minimum, its mean or a constant",
        )
    return "it equals torch.softmax, and shifting all scores by 1000 changes nothing."


@exercise(
    "04a-scale",
    "How far do dot products spread?",
    minutes=3,
    difficulty=1,
    hints=(
        "The variance of a sum of independent terms is the sum of their variances.",
        "q·k has 256 terms, each with variance 1. The standard deviation is the root of the variance.",
    ),
    solution=16,
)
def check_scale(answer):
    """The root of 256."""
    require(answer != 256, "256 is the variance; the standard deviation is its square root")
    require(answer != 1 / 16, "1/16 is what attention multiplies by; how far do q·k spread BEFORE that?")
    require(answer != 1, "each entry has standard deviation 1; q·k is the sum of 256 products")
    require(abs(answer - 16) < 1e-3, f"{answer} is not the root of a sum of 256 variances of 1")
    return "dividing by 16, the root of d, brings the scores back to a standard deviation of 1."


def causal_weights(scores):
    """Attention weights of scores (..., T, T) when no position may look ahead."""
    allowed = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    return scores.masked_fill(~allowed, float("-inf")).softmax(dim=-1)


@exercise(
    "04a-causal",
    "Hide the future",
    minutes=8,
    difficulty=2,
    hints=(
        "Row i is the query at position i: it may look at columns 0 to i, itself included.",
        "torch.ones(T, T).tril() is 1 on and below the diagonal.",
        "Set forbidden scores to -inf BEFORE the softmax; then each row still sums to 1.",
    ),
    solution=causal_weights,
)
def check_causal(answer):
    """Zero above the diagonal, rows sum to 1, equal to the reference, batched."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 4, 4, generator=generator)
    weights = tensor(answer(scores.clone()))
    require(
        weights.shape == scores.shape,
        f"the shape should stay {tuple(scores.shape)}; yours is {tuple(weights.shape)}",
    )
    require(
        not torch.isinf(weights).any(),
        "your weights hold -inf: these are masked scores, the softmax is missing",
    )
    require(
        torch.isfinite(weights).all(),
        "some weights are nan: is there a row that may look nowhere? Each position must see itself. "
        "Or do you multiply by inf? 0 * inf is nan: use masked_fill",
    )
    above = weights.triu(diagonal=1).abs().max().item()
    below = weights.tril(diagonal=-1).abs().max().item()
    require(below > 0, "no position looks at the past: your mask is the wrong way round (tril, not triu)")
    require(
        above == 0,
        f"a position still looks ahead, with weight {above:.1e}: forbidden scores must be -inf, not 0",
    )
    columns = weights.sum(-2)
    require(
        not torch.allclose(columns, torch.ones_like(columns), atol=1e-5),
        "each COLUMN sums to 1: the softmax goes over the last dimension, dim=-1",
    )
    sums = weights.sum(-1)
    require(
        torch.allclose(sums, torch.ones_like(sums)),
        f"row sums are {[round(s, 2) for s in sums[0].tolist()]}, not 1. If you masked AFTER the softmax: "
        "set the scores to -inf before it",
    )
    require((weights.diagonal(dim1=-2, dim2=-1) > 0).all(), "a position must be allowed to look at itself")
    expected = scores.masked_fill(~causal_mask(4), float("-inf")).softmax(-1)
    require(
        torch.allclose(weights, expected, atol=1e-6), "zeros and sums are right, the other weights are not"
    )
    for shape in ((3, 3), (2, 3, 5, 5)):
        scores = torch.randn(shape, generator=generator)
        expected = scores.masked_fill(~causal_mask(shape[-1]), float("-inf")).softmax(-1)
        right = tensor(answer(scores.clone())).allclose(expected, atol=1e-6)
        require(right, f"right for the shape (2, 4, 4), but not for {shape}: T is scores.shape[-1]")
    return "zeros above the diagonal, and every row is still a distribution."


def query_for(keys, index):
    """A query that finds one key: that key, made long."""
    return 20 * keys[index] / keys[index].norm()


@exercise(
    "04a-query",
    "Ask for one memory",
    minutes=8,
    difficulty=3,
    hints=(
        "The weight is large where q·k is much larger than all other dot products.",
        "Random keys in many dimensions are nearly orthogonal: the key itself is a good direction.",
        "The length of q sets the sharpness: a longer query makes the softmax pick harder.",
    ),
    solution=query_for,
)
def check_query(answer):
    """The weight on the wanted key must exceed 0.99, for several seeds."""
    for seed, index in ((0, 2), (1, 0), (2, 4)):
        keys = torch.randn(5, 64, generator=torch.Generator().manual_seed(seed))
        q = tensor(answer(keys.clone(), index))
        require(q.shape == (64,), f"the query should have the shape (64,); yours has {tuple(q.shape)}")
        weights = (keys @ q / 8).softmax(-1)
        require(torch.isfinite(weights).all(), "the scores overflow: a somewhat shorter query is enough")
        best = int(weights.argmax())
        require(best == index, f"your query finds key {best} instead of key {index}")
        require(
            weights[index] > 0.99,
            f"key {index} gets the weight {weights[index].item():.3f}, which is not yet above 0.99: "
            "what does the length of q do?",
        )
    return "direction chooses the memory, length sets how sharply."
