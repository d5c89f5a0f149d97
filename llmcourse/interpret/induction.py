"""Induction heads, as they come: texts that repeat, how well a model copies, and the run stored with the course.

Dimensions: B rows, T time, V vocabulary, C width, H heads.
"""

import json
from collections.abc import Sequence

import torch
from safetensors import safe_open
from torch import Tensor

from llmcourse.config import ModelConfig
from llmcourse.data.batches import Batch, EndlessBatches, TokenBatches
from llmcourse.data.manifest import course_data
from llmcourse.interpret.heads import head_scores
from llmcourse.model import GPT
from llmcourse.runtime import evaluating
from llmcourse.support.inputs import whole

PARTS = dict(d_model=64, n_heads=4, n_layers=2, d_ff=8, mlp="gelu", tied_embeddings=False)


def small_model(vocab_size: int, context_length: int = 64, **changes) -> GPT:
    """Return a model in which induction heads can form and little else: two layers, and an MLP of eight units."""
    return GPT(ModelConfig(vocab_size, context_length, **{**PARTS, **changes}))


def repeated_rows(
    symbols: Sequence[int] | Tensor, n: int, length: int, generator: torch.Generator, periods: tuple[int, int]
) -> Tensor:
    """Return rows (n, length) of random `symbols` that repeat themselves after a number of them.

    That number is drawn for each row, from the first of `periods` to the last. Nothing but what stood there before
    tells what comes next.

    >>> repeated_rows([7, 8, 9], 1, 6, torch.Generator().manual_seed(3), (3, 3)).tolist()
    [[9, 8, 7, 9, 8, 7]]
    """
    low, high = periods
    if not 1 <= low <= high:
        raise ValueError(
            f"periods={periods}: give the smallest and the largest, at least 1, such as (16, 32)"
        )
    period = torch.randint(low, high + 1, (n, 1), generator=generator)
    drawn = torch.as_tensor(symbols)[torch.randint(len(symbols), (n, high), generator=generator)]
    return drawn.gather(1, torch.arange(length)[None] % period)  # (n, length)


class RepeatedBatches(EndlessBatches):
    """Endless batches of (inputs, targets), each (B, T), of `repeated_rows`; with `text`, half of it.

    A row repeats itself after an eighth to a half of its length: it is the short rows that are learned first. `text` is a `TokenBatches` of B/2 rows a batch. Batch number
    `position` depends on the seed and on nothing else.

    >>> inputs, targets = next(RepeatedBatches(range(8), batch_size=2, context_length=16))
    >>> inputs.shape, bool((inputs[:, 1:] == targets[:, :-1]).all())
    (torch.Size([2, 16]), True)
    """

    def __init__(
        self,
        symbols: Sequence[int] | Tensor,
        batch_size: int,
        context_length: int,
        seed: int = 0,
        text: TokenBatches | None = None,
    ):
        self.symbols, self.seed, self.text = torch.as_tensor(symbols), seed, text
        self.batch_size, self.context_length = (
            whole(batch_size, "batch_size"),
            whole(context_length, "context_length"),
        )
        if text is not None and (2 * text.batch_size, text.context_length) != (batch_size, context_length):
            raise ValueError(
                f"text gives {text.batch_size} rows of {text.context_length}: half of {batch_size} rows of "
                f"{context_length} are needed"
            )

    def __next__(self) -> Batch:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.position)
        T, n = self.context_length, self.batch_size // (1 if self.text is None else 2)
        rows = repeated_rows(self.symbols, n, T + 1, generator, (max(1, T // 8), T // 2))
        inputs, targets = rows[:, :-1], rows[:, 1:]
        if self.text is not None:
            self.text.position = self.position
            more = next(self.text)
            inputs, targets = torch.cat([more[0], inputs]), torch.cat([more[1], targets])
        self.position += 1
        return inputs, targets

    def _identity(self) -> dict:
        return {"seed": self.seed, "batch_size": self.batch_size, "context_length": self.context_length}


@torch.no_grad()
def copying_losses(model: GPT, halves: Tensor) -> tuple[float, float]:
    """Return the losses in nats per token in the first and the second `halves` (B, T/2) of the same halves twice.

    A model that copies has less to guess the second time. Of the second half the first token is left out: at
    it nobody can know that something begins anew.

    Source: Olsson et al. 2022, arXiv:2209.11895 (loss on repeated random sequences, in-context score).
    """
    half = halves.shape[1]
    if half < 2:
        raise ValueError(f"halves of {half} tokens: the first of each is not counted, give at least 2")
    rows = torch.cat([halves, halves], dim=1).to(model.token_embedding.weight.device)
    with evaluating(model):
        log_p = model(rows[:, :-1]).float().log_softmax(-1)
    losses = -log_p.gather(2, rows[:, 1:, None])[:, :, 0]  # (B, T - 1): of token 1 at index 0
    return losses[:, : half - 1].mean().item(), losses[:, half:].mean().item()


def best_heads(model: GPT, halves: Tensor) -> dict[str, tuple[float, tuple[int, int]]]:
    """Return for "previous token" and "induction" the largest score of a head, and the head (layer, head).

    The scores are those of `head_scores` on the `halves` (B, T/2), each twice in a row.
    """
    scores = head_scores(model, torch.cat([halves, halves], dim=1))
    found = {}
    for name in ("previous token", "induction"):
        place = divmod(int(scores[name].argmax()), scores[name].shape[1])
        found[name] = scores[name].max().item(), place
    return found


def load_induction_run() -> tuple[dict[int, GPT], str]:
    """Return the models of the stored run by their number of steps, and the alphabet: id i is its character i.

    Made by `tools/build_induction.py`; seed 1 of `runs.csv` beside it.
    """
    path = course_data() / "induction" / "checkpoints.safetensors"
    models: dict[int, GPT] = {}
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["about"])
        for step in about["steps"]:
            model = GPT(ModelConfig(**about["config"]))
            names = [name for name in file.keys() if name.startswith(f"{step}.")]  # noqa: SIM118
            state = {name.partition(".")[2]: file.get_tensor(name).float() for name in names}
            model.load_state_dict(state)
            models[step] = model.eval()
    return models, about["alphabet"]


def rank_heads(scores: Tensor, at_least: float) -> list[tuple[int, int]]:
    """Return the heads (layer, head) whose score in (L, H) is `at_least` so much, the largest first.

    >>> rank_heads(torch.tensor([[0.1, 0.6], [0.9, 0.2]]), 0.5)
    [(1, 0), (0, 1)]
    """
    H = scores.shape[1]
    order = scores.flatten().argsort(descending=True).tolist()
    return [divmod(i, H) for i in order if scores.flatten()[i] >= at_least]


def other_sets(
    places: Sequence[tuple[int, int]], n: int, draws: int, generator: torch.Generator
) -> list[tuple[tuple[int, int], ...]]:
    """Return the different ones among `draws` random sets of `n` of the heads `places`: what removing chosen heads is compared with.

    >>> other_sets([(0, 0), (0, 1), (1, 0)], 3, draws=5, generator=torch.Generator())
    [((0, 0), (0, 1), (1, 0))]
    """
    drawn = [torch.randperm(len(places), generator=generator)[:n].tolist() for _ in range(draws)]
    return sorted({tuple(sorted(places[i] for i in some)) for some in drawn if len(some) == n})
