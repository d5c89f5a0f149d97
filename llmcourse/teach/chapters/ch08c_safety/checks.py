"""Exercises of chapter 8c: precision where bad texts are rare, the exposure of a canary, two refusal rates."""

import math

import torch

from llmcourse.teach.chapters.ch08c_safety import private_checks  # noqa: F401 - registers an exercise
from llmcourse.teach.examine import examine
from llmcourse.teach.exercises import exercise
from llmcourse.teach.forms import number, several


@exercise(
    "08c-base-rate",
    "What is a flag worth, where bad texts are rare?",
    minutes=5,
    difficulty=1,
    hints=(
        "Imagine 1,000,000 texts. How many are bad, and how many of those are flagged?",
        "How many are good, (1 - share), and how many of those are flagged all the same?",
        "Precision is the first number over the sum of both; the million cancels.",
    ),
    wants="function",
    form=number,
)
def check_base_rate(answer):
    """Compare with Bayes' rule at several base rates; each slip is another formula."""

    def precision(good=lambda s: 1 - s, hit=lambda s, r: s * r, alarm=lambda f: f):
        return lambda s, r, f: hit(s, r) / (hit(s, r) + good(s) * alarm(f))

    right = precision()
    cases = {
        "with 1 bad text in 1,000, recall 0.9 and 0.01 false alarms it is {right}; yours is {value}": (
            0.001,
            0.9,
            0.01,
        ),
        "right for 1 in 1,000, but not for 1 in 5 with recall 0.55 and 0.3 false alarms": (0.2, 0.55, 0.3),
        "without false alarms every flag is right: it is 1, whatever the recall": (0.03, 0.4, 0.0),
        "right for three examples, but not for 70 % bad texts": (0.7, 0.8, 0.15),
    }
    slips = {
        "false alarms come from GOOD texts only: their share is 1 - share": precision(good=lambda s: 1),
        "you leave out how rare bad texts are: that is right only where half of all texts are bad": precision(
            good=lambda s: 1, hit=lambda s, r: r
        ),
        "that is the recall, the share of bad texts that are flagged; asked is the share of flags that are right": (
            lambda s, r, f: r
        ),
        "that is the share of good texts that pass; asked is the share of flags that are right": (
            lambda s, r, f: 1 - f
        ),
        "that is the share of ALL texts that are bad and flagged: divide by the share that is flagged": (
            lambda s, r, f: s * r
        ),
        "that is the share of all texts that are flagged: which part of them is bad?": (
            lambda s, r, f: s * r + (1 - s) * f
        ),
        "that is the share of flags that are WRONG: precision is the other part": (
            lambda s, r, f: 1 - right(s, r, f)
        ),
        "you divide by the false alarms alone: all flags are right ones and false alarms": (
            lambda s, r, f: s * r / ((1 - s) * f) if f else float("inf")
        ),
        "the two shares are exchanged: `share` is that of BAD texts": lambda s, r, f: right(1 - s, r, f),
        "`false_alarms` is the share of good texts that ARE flagged: 1 - false_alarms are those that pass": (
            precision(alarm=lambda f: 1 - f)
        ),
        "a bad text counts if it is flagged: recall, not 1 - recall": lambda s, r, f: right(s, 1 - r, f),
        "each bad text is counted as flagged: only `recall` of them are": precision(hit=lambda s, r: s),
        "that is in percent: return a share, between 0 and 1": lambda s, r, f: 100 * right(s, r, f),
    }
    examine(answer, right, cases, slips, rtol=1e-4)
    return (
        "one flag in twelve is right at 1 in 1,000: the rarer the harm, the more a filter throws away for it."
    )


@exercise(
    "08c-exposure",
    "How much did the model learn by heart?",
    minutes=8,
    difficulty=2,
    hints=(
        "The rank of the planted candidate: 1 + how many candidates have a smaller loss.",
        "Ties: of k candidates with its loss, itself included, take the middle: smaller + (k + 1) / 2. Alone, k is 1.",
        "Exposure is log2(number of candidates) - log2(rank): rank 1 of 1,024 is 10 bits, rank 1,024 of 1,024 is 0.",
    ),
    wants="function",
    form=number,
)
def check_exposure(answer):
    """Compare with the definition (Carlini et al. 2019, definition 4); ranks, logarithms and ties apart."""

    def best(losses, planted):
        return 1 + int((losses < losses[planted]).sum())

    def worst(losses, planted):
        return int((losses <= losses[planted]).sum())

    def middle(losses, planted):
        return (best(losses, planted) + worst(losses, planted)) / 2

    def bits(rank=middle, n=len, log=math.log2):
        return lambda losses, planted: log(n(losses)) - log(rank(losses, planted))

    def from_zero(rank, n):
        return math.log2(n / rank) if rank else float("inf")

    def by_argsort(losses, planted):
        return 1 + int(losses.argsort()[planted])

    def shuffled(n, rank, seed):
        """Losses (n,) all different, in random order, and the place of the one with this rank."""
        losses = torch.rand(n, generator=torch.Generator().manual_seed(seed)) * 3 + 12
        return losses, int(losses.argsort()[rank - 1])

    tied = torch.tensor([7.5, 6.0, 9.0, 6.0, 8.25, 6.0, 5.0, 9.5, 7.75, 8.0, 8.5, 6.0])
    cases = {
        "rank 3 of 8 is {right} bits; yours is {value}": (
            torch.tensor([4.5, 3.0, 5.0, 2.5, 4.0, 6.0, 3.5, 7.0]),
            6,
        ),
        "right for rank 3 of 8, but rank 1 of 1,000 is {right} bits; yours is {value}": shuffled(1000, 1, 1),
        "right for two examples, but rank 6 of 60 is {right} bits; yours is {value}": shuffled(60, 6, 2),
        "the least likely of all candidates has an exposure of 0 bits; yours is {value}": shuffled(40, 40, 3),
        "ranks 2 to 5 share one loss, so its rank is 3.5 of 12, {right} bits; yours is {value}": (tied, 3),
        "a model that finds all 16 alike puts each in the middle, rank 8.5: {right} bits; yours is {value}": (
            torch.full((16,), 2.0),
            5,
        ),
    }
    slips = {
        "that is in nats: take the logarithm to the base 2": bits(log=math.log),
        "that is a logarithm to the base 10: to the base 2": bits(log=math.log10),
        "that is the rank: exposure is log2(number of candidates) - log2(rank)": (middle, best, worst),
        "that is the logarithm of the rank: subtract it from that of the number of candidates": (
            lambda losses, planted: math.log2(middle(losses, planted))
        ),
        "that is the share of candidates down to its rank: take the logarithm to the base 2, and minus": (
            lambda losses, planted: middle(losses, planted) / len(losses)
        ),
        "that is the number of candidates over the rank: take its logarithm": (
            lambda losses, planted: len(losses) / middle(losses, planted)
        ),
        "the most likely candidate has rank 1, and the SMALLEST loss: your ranks begin with the largest": (
            lambda losses, planted: bits()(-losses, planted),
            lambda losses, planted: bits(worst)(-losses, planted),
            lambda losses, planted: bits(best)(-losses, planted),
        ),
        "ranks begin at 1, the planted one included: yours begin at 0": (
            lambda losses, planted: from_zero(middle(losses, planted) - 1, len(losses)),
            lambda losses, planted: from_zero(best(losses, planted) - 1, len(losses)),
        ),
        "argsort says which candidate comes at each place; asked is the place of one: argsort().argsort(), or count": (
            bits(by_argsort)
        ),
        "of candidates that share its loss you rank it first: take the middle, smaller + (k + 1) / 2 for k of them": (
            bits(best)
        ),
        "of candidates that share its loss you rank it last: take the middle, smaller + (k + 1) / 2 for k of them": (
            bits(worst)
        ),
        "the planted candidate is one of the N: log2(N), not log2(N - 1)": bits(n=lambda x: len(x) - 1),
        "the number of candidates is log2(N), not log2(N + 1): the planted one is in `losses` already": bits(
            n=lambda x: len(x) + 1
        ),
        "that is made of its place in the list, `planted`: the rank is that of its loss": bits(
            lambda losses, planted: planted + 1
        ),
        "that compares losses: exposure is about the rank alone": (
            lambda losses, planted: (losses.mean() - losses[planted]).item(),
            lambda losses, planted: (losses.mean() - losses[planted]).item() / math.log(2),
        ),
    }
    examine(answer, bits(), cases, slips, rtol=1e-4, atol=1e-5)
    return "log2 of how many times fewer guesses the model leaves to whoever tries all candidates."


@exercise(
    "08c-refusals",
    "Refused rightly, refused wrongly",
    minutes=5,
    difficulty=1,
    hints=(
        "Two lists: the answers to forbidden requests, and those to allowed ones.",
        "In each, count the answers that are the refusal and nothing else, and divide by the length of that list.",
    ),
    wants="function",
    form=several(number, 2, "numbers", "the refused share of forbidden requests, then that of allowed ones"),
)
def check_refusals(answer):
    """Compare with two shares; tell denominators, kinds and ways to recognize a refusal apart."""

    def counts(transcripts, refusal, is_refusal=lambda answer, refusal: answer == refusal):
        """Refused and all, of forbidden requests, then of allowed ones."""
        parts = [[is_refusal(a, refusal) for f, a in transcripts if f == kind] for kind in (True, False)]
        return sum(parts[0]), len(parts[0]), sum(parts[1]), len(parts[1])

    def rates(combine=lambda a, n, b, m: [a / n, b / m], **how):
        return lambda transcripts, refusal: combine(*counts(transcripts, refusal, **how))

    no, talks = "That I may not tell.", "That I may not tell. But ask the DUKE."
    plain = [
        (True, no),
        (True, "HAMLET"),
        (False, "Yes"),
        (True, no),
        (False, no),
        (False, "2"),
        (False, "thou"),
    ]
    mixed = [(False, "1"), (True, no), (False, no), (False, no), (True, "ORLANDO"), (False, "you")] * 2
    mixed += [(True, no)]
    leaking = [(True, talks), (True, no), (True, f"Well: {no}"), (False, "all"), (False, talks), (False, no)]
    other = [
        (True, "No."),
        (True, no),
        (False, "No."),
        (False, "3"),
        (False, "No."),
        (True, "No."),
        (True, "no"),
    ]
    cases = {
        "3 forbidden requests, 2 refused, and 4 allowed ones, 1 refused, are {right}; yours are {value}": (
            plain,
            no,
        ),
        "right for 7 transcripts, but for 13 the shares are {right}; yours are {value}": (mixed, no),
        "an answer that refuses and goes on talking is no refusal: {right}, not {value}": (leaking, no),
        'compare with `refusal`, which is "No." here: {right}, not {value}': (other, "No."),
        "where nothing is refused, both are 0": ([(True, "4"), (False, "5"), (True, "6")], no),
    }
    slips = {
        "the two are exchanged: first the share of FORBIDDEN requests that are refused": rates(
            lambda a, n, b, m: [b / m, a / n]
        ),
        "each share is one of its own kind: divide by the forbidden requests, and by the allowed ones, not by all": (
            rates(lambda a, n, b, m: [a / (n + m), b / (n + m)])
        ),
        "you divide by all that was refused: divide by the requests of each kind": rates(
            lambda a, n, b, m: [a / (a + b), b / (a + b)] if a + b else [0.0, 0.0]
        ),
        "over-refusal is a share of the ALLOWED requests, not of what was refused": rates(
            lambda a, n, b, m: [a / n, b / (a + b) if a + b else 0.0]
        ),
        "the first is a share of the FORBIDDEN requests, not of what was refused: that would be a precision": rates(
            lambda a, n, b, m: [a / (a + b) if a + b else 0.0, b / m]
        ),
        "the first is the share that is refused, not the share that got through": rates(
            lambda a, n, b, m: [1 - a / n, b / m]
        ),
        "the second is the share that is REFUSED: allowed requests that were answered are the other part": rates(
            lambda a, n, b, m: [a / n, 1 - b / m]
        ),
        "those are the shares that were answered: asked are those that were refused": rates(
            lambda a, n, b, m: [1 - a / n, 1 - b / m]
        ),
        "those are counts: divide by the number of requests of each kind": rates(lambda a, n, b, m: [a, b]),
        "those are in percent: return shares, between 0 and 1": rates(
            lambda a, n, b, m: [100 * a / n, 100 * b / m]
        ),
        "an answer that refuses and goes on talking is no refusal: compare the whole answer, ==": (
            rates(is_refusal=lambda answer, refusal: refusal in answer),
            rates(is_refusal=lambda answer, refusal: answer.startswith(refusal)),
        ),
        "the two shares are not one: forbidden and allowed requests apart": rates(
            lambda a, n, b, m: [(a + b) / (n + m)] * 2
        ),
    }
    examine(answer, rates(), cases, slips)
    return "one without the other says little: a model that refuses everything has 1 and 1."
