"""The memory that an open model needs, and the bytes that it reads for each token that it writes.

Bytes are counted from a configuration, without the model: weights in several precisions, the cache of
keys and values, and training with AdamW.
"""

from collections.abc import Callable

import torch

from llmcourse.support.inputs import number, whole
from llmcourse.tune.costs import best_seconds, training_memory
from llmcourse.tune.open_models import DECODERS, OpenModel, as_config, matrix_weights, parameter_parts

PRECISIONS = {"float32": 32, "bfloat16": 16, "int8": 8, "int4": 4}  # bits of a weight
GROUP = 64  # weights that share a scale of 16 bits, in int8 and int4
ADAMW_BYTES = 16  # of a parameter in float32: weight, gradient, and two running means


def weight_bytes(model: OpenModel, precision: str = "bfloat16") -> int:
    """Return the bytes of the weights in memory.

    In int8 and int4 the matrices inside the layers are rounded, 64 neighbours sharing a scale of two
    bytes; embedding, output matrix, norms and biases stay in bfloat16. Raises ValueError for another
    precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision={precision!r}: choose one of {tuple(PRECISIONS)}")
    parts = parameter_parts(model)
    return _bytes(parts["matrices"], sum(parts.values()) - parts["matrices"], precision)


def _bytes(matrices: int, others: int, precision: str) -> int:
    bits = PRECISIONS[precision]
    if bits >= 16:
        return (matrices + others) * bits // 8
    return matrices * bits // 8 + 2 * matrices // GROUP + 2 * others


def cache_bytes(model: OpenModel, tokens: int, batch_size: int = 1, number_bytes: int = 2) -> int:
    """Return the bytes of the keys and values of `tokens` tokens of each text in a batch.

    For each token and layer a key and a value of `head_dim` numbers for each head that has its own:
    fewer than the queries' where heads share them. A decoder that reads from an encoder also keeps
    those of its source: all frames of a recognizer, as many tokens as it wrote in translation. An
    encoder alone keeps none. Raises ValueError for a text that is longer than the model reads.

    Source: Ainslie et al. 2023, arXiv:2305.13245, sec. 2.2.
    """
    tokens = whole(tokens, "tokens")
    if tokens > model.positions:
        raise ValueError(
            f"tokens={tokens}: {model.short_name} reads at most {model.positions}; cut the text, or choose "
            "another model"
        )
    kept = tokens
    if model.encoder_layers:  # nothing more where there is no decoder
        kept += model.source_positions or tokens
    each = 2 * model.decoder_layers * model.kv_heads * model.head_dim * whole(number_bytes, "number_bytes")
    return each * kept * whole(batch_size, "batch_size")


def training_bytes(model: OpenModel, batch_size: int = 1, tokens: int = 512) -> dict[str, int]:
    """Return the bytes of training all weights with AdamW in float32: {"weights and states", "activations"}.

    Activations are counted for decoders only (`tune.costs.training_memory`); 0 says: not counted.
    """
    activations = 0
    if model.model_type in DECODERS:
        asked = dict(batch_size=batch_size, context_length=min(whole(tokens, "tokens"), model.positions))
        activations = training_memory(as_config(model), **asked)["activations"]
    return {
        "weights and states": ADAMW_BYTES * sum(parameter_parts(model).values()),
        "activations": activations,
    }


def bytes_per_token(model: OpenModel, precision: str = "bfloat16", tokens: int = 512) -> int:
    """Return the bytes that one more token reads: the decoder's layers, the output matrix and the cache.

    The input embedding is a look-up of one row, so it counts only where it is the output matrix too; an
    encoder's layers have been read before. Raises ValueError for an encoder alone, which writes nothing.
    """
    if not model.decoder_layers:
        raise ValueError(f"{model.short_name} is an encoder: it reads a text at once, and writes no token")
    matrices = matrix_weights(model, decoder_only=True)
    read = _bytes(matrices, model.vocabulary * model.d_model, precision)
    return read + cache_bytes(model, tokens)


def seconds_per_token(read: int, bandwidth: float) -> float:
    """Return the least seconds of a token that reads so many bytes, at `bandwidth` bytes a second.

    Writing one text at a time does about two operations for each weight that it reads, so that it waits
    for memory, not for arithmetic. What the program does beside it comes on top.

    >>> seconds_per_token(read=1_000_000_000, bandwidth=20e9)
    0.05

    Source: Pope et al. 2022, arXiv:2211.05102, sec. 2.
    """
    return whole(read, "read") / number(bandwidth, "bandwidth", 1, wanted="bytes a second, as measured")


def memory_reader(n_bytes: int) -> tuple[Callable[[], None], int]:
    """Return a function that multiplies a matrix of `n_bytes` by a vector, and how many bytes a call reads.

    That is what writing one text does with each weight. A small matrix is read several times in a call,
    since one time would be too short for the clock. Raises ValueError for less than 16 kB.

    >>> read, n_bytes = memory_reader(2**20)
    >>> read(), n_bytes // 2**20
    (None, 64)
    """
    columns = 1024
    n_bytes = whole(n_bytes, "n_bytes", least=4 * columns * 4)
    rows = n_bytes // (4 * columns)
    matrix, vector = torch.ones(rows, columns), torch.ones(columns)
    out, repeats = torch.empty(rows), max(1, 2**26 // n_bytes)

    def read() -> None:
        for _ in range(repeats):
            torch.mv(matrix, vector, out=out)

    return read, repeats * matrix.nbytes


def measure_bandwidth(n_bytes: int = 2**28, tries: int = 8) -> float:
    """Return the bytes a second at which this machine reads a matrix that is to be multiplied.

    The best of several tries is the machine's; the others were disturbed. A matrix that fits into the
    processor's cache is read faster than one that does not, so give the size that you mean.
    """
    read, n_read = memory_reader(n_bytes)
    return n_read / best_seconds({"read": read}, tries)["read"]
