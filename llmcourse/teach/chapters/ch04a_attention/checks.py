"""Exercises of chapter 4a: attention."""

import torch

from llmcourse.attention import causal_mask
from llmcourse.teach.examine import close, compare, examine
from llmcourse.teach.exercises import exercise, require
from llmcourse.teach.forms import number, tensor


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
    wants="function",
    form=tensor,
)
def check_softmax(answer):
    """Compare with torch; large scores; the right axis."""
    generator = torch.Generator().manual_seed(0)
    cases = {
        "the values differ from torch.softmax. Take exp; subtract ONE number from a whole row before it": (
            torch.randn(2, 3, 4, generator=generator),
        ),
        "right for a tensor of 3 dimensions, but not for one of 2": (torch.randn(5, 3, generator=generator),),
        "for the scores 1000 and 1001 yours is wrong: subtract the row's MAXIMUM first": (
            torch.tensor([[1000.0, 1001.0]]),
        ),
        "a row of small scores beside a row of large ones is wrong: subtract EACH row's maximum": (
            torch.tensor([[1000.0, 1001.0], [0.0, 1.0]]),
        ),
    }
    for row in ([0.0, 1000.0], [-1000.0, -1001.0], [-1000.0, 0.0, 1000.0]):
        wanted = torch.tensor([row]).softmax(-1)[0].tolist()
        told = (
            f"for the scores {row} you do not return {wanted}: subtract the row's MAXIMUM, not another number"
        )
        cases[told] = (torch.tensor([row]),)

    def shifted(shift=lambda x: 0, total=lambda x: x.sum(-1, keepdim=True)):
        def weights(x):
            powers = (x - shift(x)).exp()
            return powers / total(powers)

        return weights

    def largest(x):
        return x.amax(-1, keepdim=True)

    def summed_over(total):  # with each way to shift, which the small scores do not tell apart
        return shifted(total=total), shifted(lambda x: x.max(), total), shifted(largest, total)

    slips = {
        "you normalize over dimension 0; each row, the LAST dimension, must sum to 1": (
            lambda x: x.softmax(0),
            *summed_over(lambda x: x.sum(0, keepdim=True)),
        ),
        "you normalize over dimension 1; each row, the LAST dimension, must sum to 1": (
            lambda x: x.softmax(1),
            lambda x: x.softmax(-2),
            *summed_over(lambda x: x.sum(-2, keepdim=True)),
        ),
        "you divide by the sum of ALL entries; each row, the LAST dimension, must sum to 1": (
            summed_over(lambda x: x.sum())
        ),
        "each row must sum to 1, and the division is missing: divide by the row's sum": (
            lambda x: x.exp(),
            lambda x: (x - largest(x)).exp(),
            lambda x: (x - x.max()).exp(),
        ),
        "each row must sum to 1: these are logarithms, so take exp": lambda x: x.log_softmax(-1),
        "the exponential is missing: rows sum to 1 but differ from torch.softmax": (
            lambda x: x / x.sum(-1, keepdim=True)
        ),
        "that is with another base: rows sum to 1 but differ from torch.softmax, which takes exp": (
            lambda x: 2**x / (2**x).sum(-1, keepdim=True)
        ),
        "for the scores 1000 and 1001 you return nan: subtract the row's maximum first": shifted(),
        "a row of small scores beside a row of large ones vanishes: subtract EACH row's maximum": (
            shifted(lambda x: x.max())
        ),
        "you subtract the maximum of a column: subtract ONE number from a whole row": (
            shifted(lambda x: x.amax(0, keepdim=True)),
            shifted(lambda x: x.amax(1, keepdim=True)),
        ),
        "subtract the row's MAXIMUM, not its minimum, its mean or its largest size": (
            shifted(lambda x: x.amin(-1, keepdim=True)),
            shifted(lambda x: x.mean(-1, keepdim=True)),
            shifted(lambda x: x.abs().amax(-1, keepdim=True)),
        ),
        "the largest score gets the smallest weight: the sign is wrong": lambda x: (-x).softmax(-1),
    }
    examine(answer, lambda x: x.softmax(-1), cases, slips, "that of the scores", rtol=1e-4)
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
    wants="value",
    form=number,
)
def check_scale(answer):
    """The root of 256."""
    slips = {
        "256 is the variance; the standard deviation is its square root": 256,
        "1/16 is what attention multiplies by; how far do q·k spread BEFORE that?": 1 / 16,
        "each entry has standard deviation 1; q·k is the sum of 256 products": 1,
        "the sign is wrong: a standard deviation is at least 0": -16,
    }
    compare(answer, 16, slips, "{value} is not the root of a sum of 256 variances of 1", rtol=0, atol=1e-3)
    return "dividing by 16, the root of d, brings the scores back to a standard deviation of 1."


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
    wants="function",
    form=tensor,
)
def check_causal(answer):
    """Zero above the diagonal, rows sum to 1, equal to the reference, batched."""
    generator = torch.Generator().manual_seed(0)
    cases = {
        "zeros and sums are right, the other weights are not": (torch.randn(2, 4, 4, generator=generator),),
        "right for the shape (2, 4, 4), but not for (3, 3): T is scores.shape[-1]": (
            torch.randn(3, 3, generator=generator),
        ),
        "right for the shape (2, 4, 4), but not for (2, 3, 5, 5): T is scores.shape[-1]": (
            torch.randn(2, 3, 5, 5, generator=generator),
        ),
    }

    def masked(x):
        return x.masked_fill(~causal_mask(x.shape[-1]), float("-inf"))

    def hidden(x, diagonal=1, dim=-1, fill=float("-inf"), below=False):
        forbidden = torch.ones(x.shape[-2:]).triu(diagonal).bool()
        return x.masked_fill(forbidden.T if below else forbidden, fill).softmax(dim)

    def look(w, scores):
        if not w.isfinite().all():
            nan = (
                "some weights are nan: is there a row that may look nowhere? Each position must see itself. "
            )
            return nan + "Or do you multiply by inf? 0 * inf is nan: use masked_fill"
        if (ahead := w.triu(1).abs().max().item()) > 0:
            return f"a position still looks ahead, with weight {ahead:.1e}: forbidden scores must be -inf"
        sums = [round(x, 2) for x in w.sum(-1).flatten().tolist()[:4]]
        if not close(w.sum(-1), torch.ones(w.shape[:-1]), 1e-4):
            return f"row sums are {sums}, not 1: set forbidden scores to -inf, then softmax over the last dimension"
        return None

    slips = {
        "a position still looks ahead: nothing is hidden. Forbidden scores must be -inf": lambda x: x.softmax(
            -1
        ),
        "a position still looks ahead, by one place: forbidden is all ABOVE the diagonal": lambda x: hidden(
            x, 2
        ),
        "no position looks at the past: your mask is the wrong way round (tril, not triu)": (
            lambda x: hidden(x, below=True),
            lambda x: x.softmax(-1).triu(),
        ),
        "a position must be allowed to look at itself": (
            lambda x: hidden(x, 0, fill=-1e9),
            lambda x: x.softmax(-1).tril(-1),
        ),
        "a position still looks ahead: forbidden scores must be -inf, not 0, which exp makes 1": (
            lambda x: x.tril().softmax(-1)
        ),
        "your weights hold -inf: these are masked scores, the softmax is missing": masked,
        "each COLUMN sums to 1: the softmax goes over the last dimension, dim=-1": (
            lambda x: masked(x).softmax(-2),
            lambda x: x.softmax(-2).tril(),
        ),
        "row sums are not 1, because you masked AFTER the softmax: set the scores to -inf before it": (
            lambda x: x.softmax(-1).tril()
        ),
        "that is the mask, and its row sums are not 1: use it to hide scores, then take the softmax": (
            lambda x: torch.ones_like(x).tril()
        ),
        "every allowed position gets the same weight: the scores have no effect": lambda x: hidden(0 * x),
    }

    def right(x):
        return masked(x).softmax(-1)

    examine(answer, right, cases, slips, "that of the scores", look, rtol=1e-4)
    for (scores,) in cases.values():
        weights = answer(scores)
        require(not weights.triu(1).any(), look(weights, scores))
    return "zeros above the diagonal, and every row is still a distribution."


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
    wants="function",
    form=tensor,
)
def check_query(answer):
    """The weight on the wanted key must exceed 0.99, for several seeds."""
    for seed, index in ((0, 2), (1, 0), (2, 4)):
        keys = torch.randn(5, 64, generator=torch.Generator().manual_seed(seed))
        q = answer(keys, index)
        require(q.shape == (64,), f"the query should have the shape (64,); yours has {tuple(q.shape)}")
        weights = (keys @ q / 8).softmax(-1)
        require(weights.isfinite().all(), "the scores overflow: a somewhat shorter query is enough")
        require(q.abs().sum() > 0, "your query is 0, and finds nothing: give it the direction of the key")
        away = close(-q / q.norm(), keys[index] / keys[index].norm(), atol=1e-3)
        require(
            not away, f"your query points away from key {index}, and so finds key {int(weights.argmax())}"
        )
        best = int(weights.argmax())
        require(best == index, f"your query finds key {best} instead of key {index}")
        require(
            weights[index] > 0.99,
            f"key {index} gets the weight {weights[index].item():.3f}, which is not yet above 0.99: "
            "what does the length of q do?",
        )
    return "direction chooses the memory, length sets how sharply."
