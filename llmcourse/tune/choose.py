"""Choose an open model: which rows of the table meet a need, and why the others do not."""

from collections.abc import Iterable
from dataclasses import dataclass

from llmcourse.support.inputs import number, whole
from llmcourse.tune.model_memory import (
    PRECISIONS,
    bytes_per_token,
    cache_bytes,
    seconds_per_token,
    weight_bytes,
)
from llmcourse.tune.open_models import TASKS, OpenModel, parameter_parts


@dataclass(frozen=True)
class Need:
    """What a project asks of a model. Raises ValueError for a task, a precision or a limit that cannot be.

    Without `bandwidth` the time of a token is not looked at; `seconds` is the most that one may take.
    """

    task: str
    language: str = ""  # a code such as "zh", or a direction such as "en>zh"; "" takes any
    commercial: bool = False  # whether the licence must allow commercial use without asking
    gigabytes: float = 1e6  # of memory for weights and cache
    precision: str = "bfloat16"
    tokens: int = 256  # of the longest text
    seconds: float = 1e6  # for each token that is written
    bandwidth: float | None = None  # bytes a second, as `measure_bandwidth` returns it

    def __post_init__(self):
        if self.task not in TASKS or self.precision not in PRECISIONS:
            raise ValueError(
                f"task={self.task!r}, precision={self.precision!r}: choose from {TASKS} and {tuple(PRECISIONS)}"
            )
        for name in ("gigabytes", "seconds"):
            number(getattr(self, name), name, 1e-9, wanted="a limit above 0")
        whole(self.tokens, "tokens")
        if self.bandwidth is not None:
            number(self.bandwidth, "bandwidth", 1, wanted="bytes a second, as measured, or None")


def speaks(model: OpenModel, language: str) -> bool:
    """Return whether the card names the language, or "many", which still has to be looked up.

    A direction such as "en>zh" is met by a model of exactly that direction, and by one of many languages.
    """
    return not language or model.languages == "many" or language in model.languages.split()


def memory_bytes(model: OpenModel, precision: str, tokens: int) -> int:
    """Return the bytes of the weights and of the cache of one text, as long as the model reads at most."""
    return weight_bytes(model, precision) + cache_bytes(model, min(tokens, model.positions))


def token_seconds(model: OpenModel, need: Need) -> float | None:
    """Return the least seconds for a token, or None for an encoder, or where no bandwidth was measured."""
    if need.bandwidth is None or not model.decoder_layers:
        return None
    read = bytes_per_token(model, need.precision, min(need.tokens, model.positions))
    return seconds_per_token(read, need.bandwidth)


def reasons_against(model: OpenModel, need: Need) -> list[str]:
    """Return what speaks against a model, one short sentence each; an empty list where nothing does.

    >>> from llmcourse.tune.open_models import read_models
    >>> gpt2 = read_models()[0]
    >>> reasons_against(gpt2, Need("text", language="zh", tokens=2000))
    ['no zh', 'reads 1024 tokens']
    """
    found = [] if model.task == need.task else [f"is for {model.task}"]
    if not speaks(model, need.language):
        found.append(f"no {need.language}")
    if need.commercial and model.commercial != "yes":
        found.append(f"licence: {model.licence}")
    if need.tokens > model.positions:
        found.append(f"reads {model.positions} tokens")
    if (needed := memory_bytes(model, need.precision, need.tokens)) > need.gigabytes * 1e9:
        found.append(f"{needed / 1e9:.1f} GB")
    if (seconds := token_seconds(model, need)) is not None and seconds > need.seconds:
        found.append(f"{1000 * seconds:.0f} ms a token")
    return found


def choose(models: Iterable[OpenModel], need: Need) -> list[OpenModel]:
    """Return the models that nothing speaks against, the one with most parameters first.

    >>> from llmcourse.tune.open_models import read_models
    >>> need = Need("translation", language="en>zh", commercial=True)
    >>> [model.short_name for model in choose(read_models(), need)]
    ['m2m100_418M', 'opus-mt-en-zh']
    """
    fit = [model for model in models if not reasons_against(model, need)]
    return sorted(fit, key=lambda model: -sum(parameter_parts(model).values()))
