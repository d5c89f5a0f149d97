"""Speculative decoding: guess a few tokens cheaply, and let the model check them all in one pass.

A pass of a small number of rows through the model costs hardly more than one of a single row: it is
reading the weights that takes the time. So a draft proposes tokens, the model reads them at once, and
those are kept that it would have written itself. Greedy text is the same text, and a drawn one has
exactly the model's distribution; only the number of passes changes.

Dimensions: T tokens read in a pass, V vocabulary.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from llmcourse.attention import KVCache
from llmcourse.decode.drafts import Draft, Guess, draw, own_text, propose
from llmcourse.generate import prompt_rows
from llmcourse.model import GPT
from llmcourse.runtime import evaluating
from llmcourse.sampling import check_temperature, next_probabilities
from llmcourse.support.inputs import id_row, whole
from llmcourse.support.outputs import no_nan


def build_decoder(model: GPT, caches: list) -> None:
    """Return a decoder that is quicker than the model, or None where there is none."""


def begin_decoder(model: GPT, token_ids: Tensor) -> None:
    """Return logits and a decoder that has read prompts (B, T), or None where there is nothing quicker."""


with contextlib.suppress(ImportError):  # without fast/ there is none
    from llmcourse.fast.decoding import begin_decoder, build_decoder


def check_greedily(logits: Tensor, guesses: list[Guess]) -> list[int]:
    """Return what the model writes by logits (T, V), greedily: guesses while it agrees, and one token more."""
    best = no_nan(logits).argmax(dim=-1).tolist()
    agreed = 0
    while agreed < len(guesses) and guesses[agreed].token == best[agreed]:
        agreed += 1
    return best[: agreed + 1]


def check_by_chance(p: np.ndarray, guesses: list[Guess], rng: np.random.Generator) -> list[int]:
    """Return tokens distributed as by the model's p (T, V): guesses while they are kept, and one token more.

    A guess x, drawn from q, is kept with probability min(1, p(x) / q(x)). In the place of the first that
    is not, a token is drawn from what p has beyond q, max(0, p - q). So each token comes with probability
    min(p, q) + max(0, p - q) = p.

    Source: Leviathan et al. 2022, arXiv:2211.17192, algorithm 1; Chen et al. 2023, arXiv:2302.01318.
    """
    kept = []
    for row, guess in zip(p, guesses, strict=False):  # p has one row more
        share = guess.q[guess.ids.index(guess.token)]
        if rng.random() * share < row[guess.token]:
            kept.append(guess.token)
            continue
        beyond = row.astype(np.float64)
        beyond[guess.ids] -= guess.q
        beyond = beyond.clip(min=0)
        return [*kept, draw(beyond if beyond.any() else row, rng)]  # nothing: p is q, but for rounding
    return [*kept, draw(p[len(guesses)], rng)]


def reader(model: GPT, token_ids: Tensor) -> Callable[[Tensor, int], Tensor]:
    """Read a beginning (T,); return a function from ids (T,) and their first position to logits (T, V).

    It may go back: what it read at this position and after it before is forgotten.
    """
    if len(token_ids) and (begun := begin_decoder(model, token_ids[None])):
        return begun[1].read
    caches = model.make_caches(1)
    if len(token_ids):
        model(token_ids[None], caches=caches)
    decoder = build_decoder(model, caches)
    if decoder is not None:
        return decoder.read

    def read(ids: Tensor, start: int) -> Tensor:
        for cache in caches:
            cache.length = start
        return model(ids[None], caches=caches)[0]

    return read


@dataclass
class Speculation:
    """What `generate_speculative` wrote: `token_ids` (1, T + new), prompt included, and how.

    `written` is the number of new tokens, `passes` that of the passes through the model after the
    prompt, `proposed` that of the draft's guesses, `accepted` that of those which the model kept.
    """

    token_ids: Tensor
    written: int
    passes: int
    proposed: int
    accepted: int

    @property
    def accepted_share(self) -> float:
        """Share of the guesses that were kept; NaN without a guess."""
        return self.accepted / self.proposed if self.proposed else float("nan")

    @property
    def tokens_a_pass(self) -> float:
        """New tokens for each pass through the model: 1 without a draft; NaN if none was written."""
        return self.written / self.passes if self.passes else float("nan")


def check_drafts(model: GPT, draft) -> list[Draft]:
    """Return `draft` as a list of drafts. Raises ValueError for a model that cannot go back, and another vocabulary."""
    if getattr(model, "cache_type", None) is not KVCache:
        raise ValueError(
            f"a {type(model).__name__} does not forget what it has read: speculation goes back after a wrong "
            "guess, which a GPT with a KVCache can; use generate"
        )
    drafts = list(draft) if isinstance(draft, list | tuple) else [draft]
    for each in drafts:
        if (V := getattr(each, "vocab_size", model.config.vocab_size)) != model.config.vocab_size:
            raise ValueError(
                f"the draft has {V} tokens and the model {model.config.vocab_size}: both must count in the same "
                "vocabulary; encode the draft's text with the model's tokenizer, and give its vocab_size"
            )
    return drafts


@torch.no_grad()
def generate_speculative(
    model: GPT,
    token_ids,
    max_new_tokens: int,
    draft: Draft | Sequence[Draft] = own_text,
    n_draft: int = 3,
    stop_id: int | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    seed: int | None = None,
) -> Speculation:
    """Return the prompt (T,) and its continuation, in fewer passes through the model than tokens.

    `draft` maps the ids so far to candidates for the next one (decode/drafts.py); of several drafts, the
    first that has candidates proposes. It guesses up to `n_draft` tokens for a pass. Without temperature the text is that
    of `generate` (unless two logits are equal but for rounding), with one its distribution is; a seed gives
    other draws than there. Options, and what happens when the context is full, are as in `generate`.
    Raises ValueError for more than one prompt, for a model with other caches, and for a draft that names
    tokens which the model does not have.

    >>> from llmcourse.model import ModelConfig
    >>> model = GPT(ModelConfig(vocab_size=10, d_model=16, n_layers=1))
    >>> written = generate_speculative(model, [1, 2], max_new_tokens=5, temperature=0)
    >>> written.token_ids.shape, written.passes <= 5
    (torch.Size([1, 7]), True)

    Source: Leviathan et al. 2022, arXiv:2211.17192; Chen et al. 2023, arXiv:2302.01318.
    """
    prompts, drafts = prompt_rows(token_ids, model.config.vocab_size), check_drafts(model, draft)
    if len(prompts) != 1:
        raise ValueError(
            f"{len(prompts)} prompts: guesses hold for one text, and rows would go on at different places; "
            "write after one prompt at a time, or use generate"
        )
    n_draft, max_new_tokens = (
        whole(n_draft, "n_draft", least=0),
        whole(max_new_tokens, "max_new_tokens", least=0),
    )
    check_temperature(temperature)
    if stop_id is not None:
        id_row([stop_id], model.config.vocab_size, "stop_id")
    rng = np.random.default_rng(torch.randint(2**62, ()).item() if seed is None else seed)
    device, limit, V = (
        model.token_embedding.weight.device,
        model.config.context_length,
        model.config.vocab_size,
    )
    text, start, read, kept = prompts[0].tolist(), len(prompts[0]), None, []
    begin, passes, proposed, accepted = max(0, start - limit), 0, 0, 0
    with evaluating(model):
        while len(text) < start + max_new_tokens and not (kept and kept[-1] == stop_id):
            if len(text) - begin > limit:
                begin, read = len(text) - (limit // 2 + 1), None
            if read is None:
                read = reader(model, torch.tensor(text[begin:-1], dtype=torch.long, device=device))
            last = len(text) - 1 - begin  # the position of the last token, which was not read yet
            n = min(n_draft, limit - last - 1, start + max_new_tokens - len(text) - 1)
            guesses = propose(drafts, text, n, V, temperature, rng)
            ids = torch.tensor([text[-1], *(guess.token for guess in guesses)], device=device)
            logits = read(ids, last)  # (T, V)
            if temperature < 1e-6:
                kept = check_greedily(logits, guesses)
            else:
                p = next_probabilities(logits, temperature, top_k, top_p, min_p)
                kept = check_by_chance(p.cpu().numpy(), guesses, rng)
            passes, proposed, accepted = passes + 1, proposed + len(guesses), accepted + len(kept) - 1
            kept = kept[: kept.index(stop_id) + 1] if stop_id in kept else kept
            text += kept
    token_ids = torch.tensor(text)[None].to(getattr(token_ids, "device", "cpu"))
    return Speculation(token_ids, len(text) - start, passes, proposed, accepted)
