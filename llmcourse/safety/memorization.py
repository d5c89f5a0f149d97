"""Memorization, measured with canaries: secrets planted in the training text, and how well they are known.

A secret is drawn from a space of equally likely ones, so that a model which learned the language alone
cannot know it. `exposure` says how many bits of the choice the model gives away.

Dimensions: R candidates of a space, N canaries, S tokens of a secret.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import skewnorm

from llmcourse.decode.beam import beam_search
from llmcourse.decode.readers import Reader
from llmcourse.evaluate.likelihood import multiple_choice
from llmcourse.model import GPT
from llmcourse.support.inputs import id_row, number, number_row, whole
from llmcourse.support.outputs import wide

DIGITS = "0123456789"
PAIRS = "".join(a + b for a in DIGITS for b in DIGITS)  # each two digits side by side, somewhere in it


class Canary(NamedTuple):
    """A line with a secret in it, and how often it was planted: 0 is a control."""

    prefix: str
    secret: str
    times: int

    @property
    def line(self) -> str:
        """The line as it stands in the text."""
        return f"{self.prefix}{self.secret}."


def make_canaries(times: Sequence[int], seed: int, n_digits: int = 4) -> list[Canary]:
    """Return one canary for each number of `times`, "The number of Kavo Remi is 4091.", all names unlike.

    The digits are drawn evenly, so a space holds 10^n_digits candidates. Raises ValueError for a
    number of times below 0.

    >>> [canary.line for canary in make_canaries([0, 4], seed=0)]
    ['The number of Tone Kada is 1869.', 'The number of Nozo Pinu is 2860.']
    """
    rng, names, canaries = np.random.default_rng(seed), set(), []
    for i, n in enumerate(times):
        while (name := " ".join(_word(rng) for _ in range(2))) in names:
            pass
        names.add(name)
        secret = "".join(DIGITS[d] for d in rng.integers(10, size=whole(n_digits, "n_digits")))
        canaries.append(Canary(f"The number of {name} is ", secret, whole(n, f"times[{i}]", 0)))
    return canaries


def _word(rng: np.random.Generator) -> str:
    """Return a name of two syllables that means nothing."""
    return "".join(rng.choice(list("bdfgklmnprstvz")) + rng.choice(list("aeiou")) for _ in "12").title()


def plant(texts: Sequence[str], canaries: Sequence[Canary], seed: int) -> list[str]:
    """Return `texts` with the line of each canary put between them, as often as it says, at random places.

    >>> "The number of X is 12." in plant(["one", "two"], [Canary("The number of X is ", "12", 1)], seed=0)
    True
    """
    lines = [canary.line for canary in canaries for _ in range(canary.times)]
    places = np.random.default_rng(seed).permutation(len(texts) + len(lines))
    planted: list[str | None] = [None] * len(places)
    for place, line in zip(places, lines, strict=False):
        planted[place] = line
    rest = iter(texts)
    return [next(rest) if text is None else text for text in planted]


def exposure(rank: float, n: int) -> float:
    """Return log2 R - log2 rank in bits: `rank` of a secret, from 1, among the `n` = R candidates.

    0 bits if the model thinks every other candidate likelier; all log2 R bits if it thinks none likelier.
    A model that knows nothing gives 1.44 bits on average, not 0 (`chance_exposure`). Raises ValueError
    for a rank outside 1-R.

    >>> exposure(1, 1024), exposure(512, 1024), exposure(1024, 1024)
    (10.0, 1.0, 0.0)

    Source: Carlini et al. 2019, arXiv:1802.08232, sec. 4, definition 4.
    """
    n = whole(n, "n")
    rank = number(rank, "rank", 1, n, f"a rank from 1, the likeliest, to {n}")
    return math.log2(n) - math.log2(rank)


def chance_exposure(n: int) -> float:
    """Return the mean exposure of a secret that was never seen: all ranks from 1 to `n` equally likely.

    >>> round(chance_exposure(10_000), 3), round(1 / math.log(2), 3)
    (1.442, 1.443)
    """
    n = whole(n, "n")
    return math.log2(n) - math.lgamma(n + 1) / math.log(2) / n


def rank_of(losses, index: int) -> float:
    """Return the rank of a candidate by its loss, 1 for the smallest; ties share the middle of their ranks.

    So a model that gives all the same loss puts each in the middle. Taking the first of a tie, as sorting
    does, would call everything memorized. Raises ValueError for NaN, and for a place that is not there.

    >>> rank_of([0.1, 0.5, 0.5, 0.5, 0.9], 3), rank_of([0.2] * 9, 0)
    (3.0, 5.0)
    """
    losses = number_row(losses, "losses")
    if not 0 <= (index := whole(index, "index", 0)) < len(losses):
        raise ValueError(f"index={index}: there are {len(losses)} candidates, the first is 0")
    lower, equal = (losses < losses[index]).sum(), (losses == losses[index]).sum()
    return float(lower + (equal + 1) / 2)


def candidate_losses(
    model: GPT, prefix: Sequence[int], candidates: Sequence[Sequence[int]], batch_size: int = 500
) -> np.ndarray:
    """Return (R,) losses in nats of candidates, rows of token ids, behind the ids of a prefix: sums over tokens.

    Raises ValueError as `evaluate.likelihood.multiple_choice` does.
    """
    groups = [
        candidates[i : i + batch_size] for i in range(0, len(candidates), whole(batch_size, "batch_size"))
    ]
    return np.concatenate([-multiple_choice(model, [prefix], [group])[0][0].numpy() for group in groups])


def space_losses(model: GPT, prefix: Sequence[int], slots: Sequence[Sequence[int]]) -> np.ndarray:
    """Return the loss of every candidate of a space, (R,) in nats, the last slot running fastest.

    `slots` are the token ids that each place of the secret may hold: four lists of the ids of ten
    digits span R = 10,000 candidates. All of them share their beginnings, so the model reads each
    beginning once, with a cache: 1,111 tokens behind the prefix, and not 40,000. The result is that of
    `candidate_losses`. Raises ValueError for a place without a token, an id that the model has not, and
    for what does not fit into the context.
    """
    if not slots or not all(len(slot) for slot in slots):
        raise ValueError("a place of the secret has no token: give the ids that each place may hold")
    if len(prefix) + len(slots) - 1 > model.config.context_length or not len(prefix):
        raise ValueError(
            f"a prefix of {len(prefix)} tokens and {len(slots)} more: give at least one, and at most "
            f"{model.config.context_length + 1} together"
        )
    vocab = model.config.vocab_size
    prefix = id_row(prefix, vocab, "prefix")
    slots = [id_row(slot, vocab, f"slots[{i}]") for i, slot in enumerate(slots)]
    device, reader = next(model.parameters()).device, Reader(model, n_rows=1)
    new = torch.as_tensor(prefix, dtype=torch.long, device=device)[None]  # (beginnings, T)
    losses = torch.zeros(1, dtype=torch.float64)
    for i, slot in enumerate(slots):
        ids, n = torch.as_tensor(slot, dtype=torch.long, device=device), len(new)
        log_p = wide(reader.read(new)).log_softmax(-1)[:, ids]  # (beginnings, ids)
        losses = (losses[:, None] - log_p.cpu().double()).flatten()
        if i + 1 < len(slots):
            reader.reorder([row for row in range(n) for _ in slot])
            new = ids.repeat(n)[:, None]
    return losses.numpy()


def digit_ids(tokenizer, prefix: str, n_digits: int) -> tuple[list[int], list[list[int]]]:
    """Return the ids of a prefix, and `slots` for a secret of digits behind it, as `space_losses` takes them.

    Raises ValueError for a tokenizer that joins digits, or the first one with the prefix.
    """
    ids, digits = tokenizer.encode(prefix), [tokenizer.encode(d) for d in DIGITS]
    for text in dict.fromkeys(PAIRS[i : i + whole(n_digits, "n_digits")] for i in range(len(PAIRS))):
        line = tokenizer.encode(prefix + text)
        if max(map(len, digits)) > 1 or line != [*ids, *(digits[int(d)][0] for d in text)]:
            raise ValueError(
                f"{prefix + text!r} is {tokenizer.tokens(line)}: each digit must be one token; "
                "end the prefix with a space, or use a tokenizer without merges of digits"
            )
    return ids, [[digit[0] for digit in digits]] * whole(n_digits, "n_digits")


def canary_exposures(model: GPT, tokenizer, canaries: Sequence[Canary]) -> np.ndarray:
    """Return (N,): the exposure of each canary of digits in bits, exact: every candidate is ranked."""
    found = []
    for canary in canaries:
        prefix, slots = digit_ids(tokenizer, canary.prefix, len(canary.secret))
        losses = space_losses(model, prefix, slots)
        found.append(exposure(rank_of(losses, int(canary.secret)), len(losses)))
    return np.array(found)


def sampled_exposure(loss: float, losses) -> float:
    """Return the exposure of a secret in bits from its loss, and the `losses` of a sample of candidates.

    For a space too large to rank. A skew normal distribution is fitted to the sample by its mean, deviation
    and skewness; the exposure is -log2 of the share of it that lies below `loss`. So it can exceed what
    ranking the sample could show, log2 of its size, as far as the fit can be trusted. Raises ValueError
    for fewer than 30 losses, or all the same. Infinite where the share is too small for a float.

    >>> losses = np.random.default_rng(0).normal(20.0, 2.0, 1000)
    >>> round(sampled_exposure(20.0, losses), 1), round(sampled_exposure(10.0, losses))
    (1.0, 20)

    Source: Carlini et al. 2019, arXiv:1802.08232, sec. 4.3; the fit: Azzalini 1985, by moments.
    """
    losses, loss = number_row(losses, "losses"), number(loss, "loss")
    mean, deviation = losses.mean(), losses.std()
    if len(losses) < 30 or deviation == 0:
        raise ValueError(f"{len(losses)} losses of deviation {deviation:.3g}: give at least 30 that differ")
    skewness = float(np.clip(((losses - mean) ** 3).mean() / deviation**3, -0.99, 0.99))
    root = abs(skewness) ** (2 / 3)
    delta = math.copysign(math.sqrt(math.pi / 2 * root / (root + ((4 - math.pi) / 2) ** (2 / 3))), skewness)
    scale = deviation / math.sqrt(1 - 2 * delta**2 / math.pi)
    shape, place = delta / math.sqrt(1 - delta**2), mean - scale * delta * math.sqrt(2 / math.pi)
    return max(0.0, -float(skewnorm.logcdf(loss, shape, place, scale)) / math.log(2))


def extract(model: GPT, tokenizer, canary: Canary, n_beams: int = 1) -> str:
    """Return what the model writes where the secret stood, as many tokens: by beam search, 1 beam is greedy."""
    prefix, slots = digit_ids(tokenizer, canary.prefix, len(canary.secret))
    [[best]] = beam_search(model, [prefix], max_new_tokens=len(slots), n_beams=n_beams)
    return tokenizer.decode(best.token_ids)
