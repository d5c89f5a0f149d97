"""The tiny language models that chapter 3e searches among, and their stored scores.

`tools/measure_search.py` trains pools of them to the end, so that a search can be repeated by looking up.
"""

import csv
import functools
import random

import torch

from llmcourse.data.batches import TokenBatches
from llmcourse.data.manifest import course_data
from llmcourse.data.sources.characters import Characters, load_characters
from llmcourse.evaluate.likelihood import evaluate_loss
from llmcourse.model import GPT, ModelConfig
from llmcourse.training import train

RUNGS = (1, 3, 9, 27)  # units of training at which a search looks; one unit is 4 steps


@functools.cache
def characters() -> Characters:
    """Return the plays as characters: `train`, `tuning` to choose by, `validation` for one last look."""
    return load_characters(quiet=True)


def draw_settings(rng: random.Random) -> dict:
    """Return random settings of a tiny GPT: learning rate and decay on a logarithmic scale, and a shape."""
    return {
        "lr": 10 ** rng.uniform(-3.5, -1),
        "weight_decay": 10 ** rng.uniform(-3, 0.5),
        "d_model": rng.choice([16, 32]),
        "n_layers": rng.choice([1, 2]),
    }


def train_units(settings: dict, state, units: int, seed: int = 0):
    """Train 4 steps for each unit, on from `state` (None: a new model); return (minus the loss, new state).

    The loss is that of 2,000 characters of the tuning text. A paused run simply waits: `train` is a generator.
    """
    text = characters()
    if state is None:
        torch.manual_seed(seed)
        shape = dict(d_model=settings["d_model"], n_layers=settings["n_layers"], n_heads=2)
        model = GPT(ModelConfig(text.vocab_size, context_length=32, **shape))
        batches = TokenBatches(text.train, batch_size=8, context_length=32, seed=seed)
        rates = dict(lr=settings["lr"], weight_decay=settings["weight_decay"])
        state = model, train(model, batches, steps=10**6, **rates)
    for _ in range(4 * units):
        next(state[1])
    return -evaluate_loss(state[0], text.tuning[:2001]), state


class Pool:
    """Configurations that were trained to the end once: to "train" one is to look its loss up."""

    def __init__(self, losses: list[dict[int, float]]):
        self.losses = losses  # of each configuration, {units of training: loss}

    def draw(self, rng: random.Random) -> int:
        """Return the number of a random configuration."""
        return rng.randrange(len(self.losses))

    def train(self, number: int, done: int | None, units: int) -> tuple[float, int]:
        """Return (minus the loss, units done) after `units` more, as `train_units` does."""
        done = (done or 0) + units
        return -self.losses[number][done], done


def stored_pools() -> list[Pool]:
    """Return the pools of data/search/pools.csv.

    >>> [len(pool.losses) for pool in stored_pools()]
    [40, 40, 40, 40, 40]
    """
    pools: dict[str, dict[str, dict[int, float]]] = {}
    with (course_data() / "search" / "pools.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            pool = pools.setdefault(row["pool"], {})
            pool.setdefault(row["configuration"], {})[int(row["units"])] = float(row["loss"])
    return [Pool(list(pool.values())) for pool in pools.values()]
