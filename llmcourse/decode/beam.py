"""Beam search: go on with several beginnings, and return the end that is likeliest as a whole.

Greedy decoding takes the likeliest token, and never learns that another one would have led further.

Dimensions: B sources or prompts, N beams, V vocabulary.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from llmcourse.decode.readers import Reader, SourceReader
from llmcourse.encoder_decoder import EncoderDecoder
from llmcourse.generate import Process, processed, prompt_batch
from llmcourse.model import GPT
from llmcourse.runtime import evaluating
from llmcourse.seq2seq import source_rows
from llmcourse.support.inputs import id_row, number, whole
from llmcourse.support.outputs import wide

NEVER = float("-inf")
ENDINGS = (False, True, "never")


class Hypothesis(NamedTuple):
    """What was written after a source or prompt, the stop id with it where it ended."""

    token_ids: list[int]
    score: float  # log_probability / len(token_ids) ** length_penalty
    log_probability: float  # in nats, of all its tokens together


class Beam(NamedTuple):
    """A beginning, as the token that it ends with and the beam before."""

    before: "Beam | None"
    token_id: int
    log_probability: float


def tokens_of(beam: Beam | None) -> list[int]:
    """Return the tokens of a beam, the first one first.

    >>> tokens_of(Beam(Beam(None, 5, -0.1), 7, -0.3))
    [5, 7]
    """
    tokens = []
    while beam is not None:
        tokens.append(beam.token_id)
        beam = beam.before
    return tokens[::-1]


class Search:
    """The search of one source: its N beams, and the N best hypotheses that ended."""

    def __init__(self, n_beams: int, max_new_tokens: int, length_penalty: float, early_stopping):
        self.n_beams, self.max_new_tokens = n_beams, max_new_tokens
        self.length_penalty, self.early_stopping = length_penalty, early_stopping
        self.beams: list[Beam | None] = [None]
        self.ended: list[Hypothesis] = []
        self.closed = False

    def advance(
        self, candidates: list[tuple[float, int, int]], length: int, stop_id: int | None
    ) -> list[int]:
        """Take the 2·N best continuations (log-probability, beam, token); return the beams that go on.

        A candidate that ends is kept only from among the N best: the others are there so that N beams
        remain when all of those end.
        """
        beams, parents, ended = [], [], []
        for rank, (log_probability, parent, token_id) in enumerate(candidates):
            beam = Beam(self.beams[parent], token_id, log_probability)
            if token_id == stop_id or length == self.max_new_tokens:
                if rank < self.n_beams:
                    ended.append(
                        Hypothesis(beam, log_probability / length**self.length_penalty, log_probability)
                    )
            elif len(beams) < self.n_beams:
                beams.append(beam), parents.append(parent)
        self.ended = sorted(self.ended + ended, key=lambda h: -h.score)[: self.n_beams]
        self.beams = beams
        self.closed = not beams or (len(self.ended) == self.n_beams and not self.can_improve(length))
        return parents

    def can_improve(self, length: int) -> bool:
        """Return whether the best beam may still become better than the worst of N hypotheses."""
        if self.early_stopping is True:
            return False
        if self.early_stopping == "never" and self.length_penalty > 0:
            length = self.max_new_tokens
        return self.beams[0].log_probability / length**self.length_penalty > self.ended[-1].score


@torch.no_grad()
def beam_search(
    model: GPT,
    token_ids,
    max_new_tokens: int,
    n_beams: int = 4,
    stop_id: int | None = None,
    start_id: int | None = None,
    source_mask: Tensor | None = None,
    length_penalty: float = 1.0,
    min_new_tokens: int = 0,
    early_stopping: bool | str = False,
    n_best: int = 1,
    process: Process | None = None,
) -> list[list[Hypothesis]]:
    """Return the `n_best` hypotheses that were found for each prompt or source, the best first.

    They are fewer only where there are not so many sequences.

    For a GPT `token_ids` are prompts of equal length, as for `generate`; for an EncoderDecoder they
    are sources, with `source_mask`, as for `generate_target`, and each target begins behind `start_id`.

    At each step all continuations of the N beams are compared by the sum of their log-probabilities
    and the best N go on. One that wrote `stop_id`, or is `max_new_tokens` long, has ended; its score is

        log-probability / length ** length_penalty, the length with the stop id, without prompt or start_id.

    0 compares log-probabilities, which favours short ones: with many beams the likeliest is often empty,
    the stop id alone (Stahlberg & Byrne 2019, arXiv:1908.10090). 1 is their mean over the tokens, above 1
    favours long ones. Before `min_new_tokens` tokens stand there, `stop_id` may not come. A search is over

    - `early_stopping=False`: when N have ended, and the best beam, if it ended now, would not score
      better than the worst of them. With a penalty above 0 that is a guess: it might improve later;
    - `"never"`: when it could not improve even if all its tokens up to `max_new_tokens` were certain;
    - `True`: when N have ended.

    `process(token_ids, log_probabilities)` may change the log-probabilities (R, V) of the R = B·N
    beams; it gets the ids so far, with prompt or `start_id`. These are the definitions of transformers,
    whose `generate(num_beams=N)` finds the same. Raises ValueError for options that mean nothing.

    >>> from llmcourse.model import ModelConfig
    >>> model = GPT(ModelConfig(vocab_size=10, d_model=16, n_layers=1))
    >>> [[best, second]] = beam_search(model, [1, 2], max_new_tokens=3, n_beams=2, n_best=2)
    >>> len(best.token_ids), best.score >= second.score
    (3, True)

    Source: Graves 2012, arXiv:1211.3711, sec. 3.1; the penalty, in this form, is that of fairseq and transformers.
    """
    vocab_size, limit = model.config.vocab_size, model.config.context_length
    n_beams, max_new_tokens = whole(n_beams, "n_beams"), whole(max_new_tokens, "max_new_tokens")
    min_new_tokens, n_best = whole(min_new_tokens, "min_new_tokens", 0), whole(n_best, "n_best")
    length_penalty = number(length_penalty, "length_penalty", -100, 100, "a number, such as 0, 0.6 or 1")
    if n_best > n_beams:
        raise ValueError(f"n_best={n_best}, of n_beams={n_beams}: at most as many are kept; search with more")
    if repr(early_stopping) not in map(repr, ENDINGS):  # 1 is no True here
        raise ValueError(f"early_stopping={early_stopping!r} is unknown: choose one of {ENDINGS}")
    if stop_id is not None:
        id_row([stop_id], vocab_size, "stop_id")
    reader, begun = begin(model, token_ids, start_id, source_mask)
    if begun.shape[1] + max_new_tokens - 1 > limit:
        raise ValueError(
            f"{begun.shape[1]} tokens and max_new_tokens={max_new_tokens} do not fit into the context of "
            f"{limit}: give fewer"
        )
    searches = [Search(n_beams, max_new_tokens, length_penalty, early_stopping) for _ in begun]
    with evaluating(model):
        run(reader, begun, searches, stop_id, min_new_tokens, process)
    return [
        [
            hypothesis._replace(token_ids=tokens_of(hypothesis.token_ids))
            for hypothesis in search.ended[:n_best]
        ]
        for search in searches
    ]


def begin(model: GPT, token_ids, start_id, source_mask) -> tuple[Reader, Tensor]:
    """Return a reader with one row for each prompt or source, and what it has yet to read (B, T)."""
    device = next(model.parameters()).device
    if not isinstance(model, EncoderDecoder):
        if start_id is not None or source_mask is not None:
            raise ValueError(
                "start_id and source_mask belong to an EncoderDecoder: a GPT goes on behind its prompt"
            )
        prompts = prompt_batch(token_ids, model.config.vocab_size).to(device)
        return Reader(model, len(prompts)), prompts
    if start_id is None:
        raise ValueError("start_id is missing: give the id that stands before each target, as in training")
    id_row([start_id], model.config.vocab_size, "start_id")
    vocab_size = model.config.source_vocab_size or model.config.vocab_size
    source, mask = source_rows(token_ids, source_mask, vocab_size)
    with evaluating(model):
        memory = model.encode(source.to(device), None if mask is None else mask.to(device))
    return SourceReader(model, memory), torch.full((len(source), 1), start_id, device=device)


def run(reader: Reader, begun: Tensor, searches: list[Search], stop_id, min_new_tokens: int, process) -> None:
    """Continue all searches, token by token, until each is closed."""
    new, length, places = begun, 0, list(range(len(searches)))  # which prompt each open search has
    scores = torch.zeros(len(searches), 1)  # (open searches, beams)
    while places:
        log_p = wide(reader.read(new)).log_softmax(dim=-1)  # (R, V)
        V, length = log_p.shape[-1], length + 1
        if stop_id is not None and length <= min_new_tokens:
            log_p[:, stop_id] = NEVER
        if process is not None:
            log_p = processed(process, written(begun, searches, places), log_p)
        sums = scores.to(log_p)[:, :, None] + log_p.view(*scores.shape, V)  # (open, beams, V)
        n_beams = searches[0].n_beams
        best = sums.flatten(1).topk(min(2 * n_beams, sums[0].numel()))  # (open, 2·N)
        rows, tokens, next_scores, still = [], [], [], []
        for i, (values, indices) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True)):
            if math.isnan(values[0]):
                raise ValueError(
                    "the model puts out NaN: load a checkpoint from before its training diverged"
                )
            search, width = searches[places[i]], scores.shape[1]
            candidates = [(p, *divmod(at, V)) for p, at in zip(values, indices, strict=True) if p > NEVER]
            parents = search.advance(candidates, length, stop_id)
            if search.closed:
                continue
            missing = n_beams - len(parents)  # fewer beginnings than beams: the first stands in
            still.append(places[i])
            rows += [i * width + parent for parent in parents + parents[:1] * missing]
            tokens += [beam.token_id for beam in search.beams + search.beams[:1] * missing]
            next_scores.append([beam.log_probability for beam in search.beams] + [NEVER] * missing)
        if not still:
            return
        reader.reorder(rows)
        new = torch.tensor(tokens, device=begun.device)[:, None]
        scores, places = torch.tensor(next_scores, dtype=log_p.dtype), still


def written(begun: Tensor, searches: list[Search], places: list[int]) -> Tensor:
    """Return the ids (R, T) of the beams of the open searches, from the beginning."""
    rows = []
    for place in places:
        beams = searches[place].beams
        beams = beams if beams == [None] else beams + beams[:1] * (searches[place].n_beams - len(beams))
        rows += [begun[place].tolist() + tokens_of(beam) for beam in beams]
    return torch.tensor(rows, device=begun.device)
