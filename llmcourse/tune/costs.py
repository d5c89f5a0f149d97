"""What a model costs: parameters, operations, memory, and the share of the machine that is used.

Dimensions: B batch, T time (context_length), C width (d_model), H heads, D head width, F hidden
width of an MLP, V vocabulary, L layers.
"""

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from llmcourse.config import ModelConfig
from llmcourse.tune.techniques import TechniqueConfig

FLOAT_BYTES = 4  # float32


def _kv_width(config: ModelConfig) -> int:
    """Return the width of all keys of one position side by side."""
    return config.head_width * (config.n_kv_heads or config.n_heads)


def _layer_matrices(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """Return (inputs, outputs) of the four matrices of one block."""
    C, F, HD = config.d_model, config.hidden_width, config.n_heads * config.head_width
    return {
        "qkv": (C, HD + 2 * _kv_width(config)),
        "out": (HD, C),
        "up": (C, 2 * F if config.mlp == "swiglu" else F),
        "down": (F, C),
    }


def count_parameters(config: ModelConfig) -> dict[str, int]:
    """Return the number of parameters of each part; their sum is `GPT(config).n_parameters()`.

    A tied unembedding counts 0: its weights are those of the token embedding. "More tables" are
    those of `embedding_shift`, `value_embeddings` and `bigram_table`.

    >>> count_parameters(ModelConfig(vocab_size=10, d_model=16, n_heads=2, n_layers=1))["attention"]
    1024
    """
    config = TechniqueConfig.of(config)
    C, L, V = config.d_model, config.n_layers, config.vocab_size
    sizes = {
        name: inputs * outputs + (outputs if config.bias else 0)
        for name, (inputs, outputs) in _layer_matrices(config).items()
    }
    norm = C * (2 if config.norm == "layer" and config.bias else 1)
    head_norms = 2 * config.head_width if config.qk_norm else 0
    n_norms = 2 * L + (1 if config.norm_position == "pre" else 0)
    tables = config.embedding_shift * C + config.value_embeddings * L * _kv_width(config)
    tables += config.bigram_table * V
    return {
        "token embedding": V * C,
        "position embedding": config.context_length * C if config.positions == "learned" else 0,
        "attention": L * (sizes["qkv"] + sizes["out"]),
        "mlp": L * (sizes["up"] + sizes["down"]),
        "norms": n_norms * norm + L * head_norms,
        "token shift": 2 * L * C if config.token_shift else 0,
        "more tables": V * tables,
        "unembedding": 0 if config.tied_embeddings else V * C,
    }


def flops_per_token(
    config: ModelConfig, backward: bool = True, causal: bool = False, context_length: int | None = None
) -> float:
    """Return the floating-point operations of matrix products for one token of a full context.

    A matrix with `inputs` rows and `outputs` columns costs 2 · inputs · outputs: a multiplication
    and an addition for each weight. Attention compares each query with T keys and mixes T values,
    2 · T · H · D each; with `causal` only the (T + 1) / 2 that it may see, on average. The backward
    pass costs twice the forward pass: one product for the inputs' gradient, one for the weights'.
    Norms, activations, softmax, rotation and the lookup of embeddings are not counted.

    The default equals `torch.utils.flop_counter.FlopCounterMode` with attention computed by
    SDPBackend.MATH (torch 2.13 counts 0 for the fused attention of CPUs).

    >>> flops_per_token(ModelConfig(vocab_size=10, d_model=16, n_heads=2, n_layers=1), backward=False)
    15168

    Source: Kaplan et al. 2020, arXiv:2001.08361, table 1; Chowdhery et al. 2022,
    arXiv:2204.02311, app. B.
    """
    T = config.context_length if context_length is None else context_length
    C = config.d_model
    weights = sum(inputs * outputs for inputs, outputs in _layer_matrices(config).values())
    keys = (T + 1) / 2 if causal else T
    attention = 4 * keys * config.n_heads * config.head_width  # scores, then the weighted mean
    forward = config.n_layers * (2 * weights + attention) + 2 * C * config.vocab_size
    return 3 * forward if backward else forward


def six_n(config: ModelConfig) -> int:
    """Return 6N, the rule of thumb for `flops_per_token`: N counts the matrices inside the blocks.

    It leaves out attention's own products and the unembedding: little in a large model, much in
    a small one.

    Source: Kaplan et al. 2020, arXiv:2001.08361, sec. 2.1.
    """
    return 6 * config.n_layers * sum(i * o for i, o in _layer_matrices(config).values())


def _kept_floats(config: ModelConfig) -> tuple[int, int]:
    """Return the numbers that the backward pass needs, for each token: (of one block, of the rest)."""
    config = TechniqueConfig.of(config)
    C, F, V, H = config.d_model, config.hidden_width, config.vocab_size, config.n_heads
    HD, kv_width, rotary = H * config.head_width, _kv_width(config), config.positions == "rotary"
    # its input and its output, and a deviation (LayerNorm: a mean too); RMSNorm also the normed x
    norm = 2 * C + 2 if config.norm == "layer" else 3 * C + 1
    attention = HD + H  # the output, and one log-sum a head
    if not (rotary and config.value_embeddings) or config.qk_norm:
        attention += HD + 2 * kv_width  # q, k, v in one piece
    attention += kv_width if config.value_embeddings else 0  # the new values
    attention += HD + kv_width if rotary or config.qk_norm else 0  # q and k, turned or normed
    if config.qk_norm:
        attention += HD + kv_width + H + kv_width // config.head_width
    if rotary or config.qk_norm:
        attention += HD  # the output once more, heads side by side: another order in memory
    mlp = {"relu": F, "swiglu": 4 * F}.get(config.mlp, 2 * F)  # ReLU needs its output only
    shifts = 2 * C if config.token_shift else 0
    final = norm if config.norm_position == "pre" else C
    logits = V if config.logit_cap is None else 2 * V  # log-probabilities
    return 2 * norm + attention + mlp + shifts, final + logits + 2  # two ids of 8 bytes


def training_memory(
    config: ModelConfig,
    batch_size: int,
    *,
    context_length: int | None = None,
    optimizer_states: int = 2,
    checkpointing: bool = False,
) -> dict[str, int]:
    """Return the bytes of a training step in float32: weights, gradients, optimizer, activations.

    `optimizer_states` are the numbers kept for each parameter: 2 for AdamW, 1 for momentum.
    Activations are what the backward pass needs, with fused attention and without dropout;
    with `checkpointing`, the input of each block, and all of one block. For a moment a
    step needs more: the logits and their gradient, and whatever one operation makes.
    Raises ValueError for a batch that is empty.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: must be at least 1")
    parameters = sum(count_parameters(config).values())
    tokens = batch_size * (config.context_length if context_length is None else context_length)
    block, rest = _kept_floats(config)
    kept = config.n_layers * block + rest
    if checkpointing:
        kept = config.n_layers * config.d_model + block + rest
    return {
        "weights": FLOAT_BYTES * parameters,
        "gradients": FLOAT_BYTES * parameters,
        "optimizer": FLOAT_BYTES * parameters * optimizer_states,
        "activations": FLOAT_BYTES * tokens * kept,
    }


def kept_bytes(compute: Callable[[], Tensor], model: nn.Module) -> int:
    """Return the bytes that autograd keeps between `compute()` and its backward pass.

    Each piece of memory counts once, though several operations may keep a view of it; the
    parameters and buffers of `model` do not count.
    """
    known = {t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()]}
    storages = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            storages[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = compute()  # holds the graph, so that no address is used twice
    total = sum(storage.nbytes() for storage in storages.values())
    del result
    return total


def best_seconds(works: dict[str, Callable[[], object]], tries: int = 6) -> dict:
    """Return the shortest wall-clock seconds of each function in `works`, by its name.

    They take turns, so that a disturbance hits all alike; the best of several tries had none.
    Raises ValueError for fewer than one try.

    >>> sorted(best_seconds({"short": lambda: None, "long": lambda: sum(range(10_000))}))
    ['long', 'short']
    """
    if tries < 1:
        raise ValueError(f"tries={tries}: at least 1 is needed")
    best = dict.fromkeys(works, float("inf"))
    for _ in range(tries):
        for name, work in works.items():
            began = time.perf_counter()
            work()
            best[name] = min(best[name], time.perf_counter() - began)
    return best


def measure_matmul_peak(
    size: int = 1024, dtype: torch.dtype = torch.float32, seconds: float = 0.5, device="cpu"
) -> float:
    """Return the best speed of a (size, size) matrix product, in FLOP/s, over about `seconds`.

    The best of several tries is the machine's; the others were disturbed. Raises ValueError for
    a size below 1.
    """
    if size < 1:
        raise ValueError(f"size={size}: must be at least 1; 512 to 4096 is usual")
    a = torch.randn(size, size, device=device).to(dtype)
    b = torch.randn(size, size, device=device).to(dtype)
    out = a @ b  # the first call prepares
    wait = torch.cuda.synchronize if out.is_cuda else (lambda: None)
    best, calls, began = float("inf"), 1, time.perf_counter()
    while (now := time.perf_counter()) - began < seconds or best == float("inf"):
        for _ in range(calls):
            torch.mm(a, b, out=out)
        wait()
        elapsed = time.perf_counter() - now
        best = min(best, elapsed / calls)
        if elapsed < 0.005:  # too short for the clock: more calls between two looks
            calls *= 2
    return 2 * size**3 / best


def model_flops_utilization(
    tokens_per_second: float, config: ModelConfig, peak: float, causal: bool = False
) -> float:
    """Return the share of `peak` (FLOP/s) that training at `tokens_per_second` makes use of.

    Operations done twice, as with activation checkpointing, count once: the measure is of the
    model, not of the machine's effort. Raises ValueError for a peak that is not positive.

    >>> config = ModelConfig(vocab_size=10, d_model=16, n_heads=2, n_layers=1)
    >>> round(model_flops_utilization(1e6, config, peak=1e11), 3)
    0.455

    Source: Chowdhery et al. 2022, arXiv:2204.02311, app. B.
    """
    if peak <= 0:
        raise ValueError(f"peak={peak}: must be positive, in FLOP/s, as measure_matmul_peak returns it")
    return tokens_per_second * flops_per_token(config, causal=causal) / peak
