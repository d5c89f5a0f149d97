"""Open models in a table, and the number of parameters that each configuration asks for.

The table has what a choice needs: task, languages, licence, and the sizes in the file config.json.
Dimensions: V vocabulary, C width (d_model), H heads, D head width, F hidden width of an MLP, L layers.
"""

import csv
from dataclasses import dataclass, fields
from pathlib import Path

from llmcourse.config import ModelConfig
from llmcourse.data.manifest import course_data
from llmcourse.support.inputs import whole
from llmcourse.tune.costs import count_parameters, six_n

TASKS = ("text", "encoder", "translation", "speech")
DECODERS = ("gpt2", "llama", "qwen2", "qwen3")
ENCODERS = {"bert": 2, "xlm-roberta": 1}  # how many kinds of segments have an embedding
PAIRS = ("marian", "m2m_100", "whisper")  # an encoder, and a decoder that reads from it
COMMERCIAL = ("yes", "no", "ask")


@dataclass(frozen=True)
class OpenModel:
    """One row of the table: what its card says, and the sizes of its configuration.

    `languages` are codes, a direction such as "en>zh", or "many"; `commercial` says whether the licence
    allows commercial use: "yes", "no", or "ask" where it depends or nothing is granted. Raises ValueError
    for a value that is not of its kind.
    """

    name: str  # as on the hub
    task: str  # one of TASKS
    model_type: str  # the family, as config.json names it
    languages: str
    n_languages: int
    licence: str  # as the card states it
    commercial: str
    forbids: str  # in a few words; the licence itself decides
    encoder_layers: int
    decoder_layers: int
    d_model: int
    heads: int
    kv_heads: int  # heads of keys and values
    head_dim: int
    d_ff: int
    vocabulary: int
    tied: bool  # whether the output matrix is the embedding
    positions: int  # the longest text
    source_positions: int  # frames that a recognizer's encoder gives; 0 elsewhere
    mel_bins: int  # of a recognizer's input; 0 elsewhere
    config_source: str
    licence_source: str
    read: str  # the day on which the sources were read

    def __post_init__(self):
        if self.model_type not in (*DECODERS, *ENCODERS, *PAIRS):
            known = ", ".join((*DECODERS, *ENCODERS, *PAIRS))
            raise ValueError(f"model_type={self.model_type!r} of {self.name}: only {known} are counted here")
        if self.task not in TASKS or self.commercial not in COMMERCIAL:
            raise ValueError(
                f"task={self.task!r}, commercial={self.commercial!r} of {self.name}: "
                f"choose from {TASKS} and {COMMERCIAL}"
            )
        for size in ("d_model", "heads", "kv_heads", "head_dim", "d_ff", "vocabulary", "positions"):
            whole(getattr(self, size), f"{size} of {self.name}")
        for layers in ("encoder_layers", "decoder_layers"):
            whole(getattr(self, layers), f"{layers} of {self.name}", least=0)
        whole(self.encoder_layers + self.decoder_layers, f"the layers of {self.name}")

    @property
    def short_name(self) -> str:
        """The name without its owner."""
        return self.name.rpartition("/")[2]


def read_models(path: str | Path | None = None) -> list[OpenModel]:
    """Return the rows of a table of models, by default the course's `data/models/models.csv`.

    Raises ValueError for a row that `OpenModel` refuses, or that lacks a column.

    >>> [model.short_name for model in read_models() if model.task == "speech"]
    ['whisper-tiny', 'whisper-small', 'whisper-large-v3-turbo']
    """
    path = course_data() / "models" / "models.csv" if path is None else Path(path)
    models = []
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            for field in fields(OpenModel):
                if row.get(field.name) is None:
                    raise ValueError(f"{path.name} has a row without {field.name}: {row}")
                if field.type is int:
                    row[field.name] = int(row[field.name] or 0)
                elif field.type is bool:
                    if row[field.name] not in ("yes", "no"):
                        raise ValueError(
                            f"{row['name']}: {field.name} is {row[field.name]!r}: write yes or no"
                        )
                    row[field.name] = row[field.name] == "yes"
            models.append(OpenModel(**row))
    return models


def as_config(model: OpenModel) -> ModelConfig:
    """Return the configuration of a decoder as one of the course's, whose costs `tune.costs` counts.

    Raises ValueError for a model that is no decoder alone.
    """
    if model.model_type not in DECODERS:
        raise ValueError(f"{model.name} is a {model.model_type}: only {DECODERS} are decoders alone")
    sizes = dict(
        context_length=model.positions,
        d_model=model.d_model,
        n_heads=model.heads,
        n_layers=model.decoder_layers,
        d_ff=model.d_ff,
        tied_embeddings=model.tied,
    )
    if model.model_type == "gpt2":
        return ModelConfig.gpt2(model.vocabulary, **sizes)
    grouped = dict(n_kv_heads=model.kv_heads, d_head=model.head_dim, qk_norm=model.model_type == "qwen3")
    return ModelConfig.llama(model.vocabulary, **sizes, **grouped)


def matrix_weights(model: OpenModel, decoder_only: bool = False) -> int:
    """Return how many weights the matrices inside the layers have: what quantization makes smaller.

    With `decoder_only`, of the decoder's layers alone: what writing reads for each token.
    """
    if model.model_type in DECODERS:
        return six_n(as_config(model)) // 6
    attention, mlp = 4 * model.d_model**2, 2 * model.d_model * model.d_ff
    encoder = model.encoder_layers * (attention + mlp)
    decoder = model.decoder_layers * (2 * attention + mlp)  # the second attention reads the source
    return decoder if decoder_only else encoder + decoder


def parameter_parts(model: OpenModel) -> dict[str, int]:
    """Return the number of parameters of each part; their sum is that of the class in transformers.

    The class is the one with an output matrix for models that write, and the bare encoder, with its
    pooler, for encoders. Tables of sines that are kept as weights (Marian, Whisper's encoder) count.

    >>> gpt2 = read_models()[0]
    >>> sum(parameter_parts(gpt2).values())
    124439808
    """
    if model.model_type in DECODERS:
        parts = count_parameters(as_config(model))
        output = parts.pop("unembedding")
        biases = 0
        if model.model_type == "qwen2":  # queries, keys and values have a bias there
            biases = model.decoder_layers * (model.heads + 2 * model.kv_heads) * model.head_dim
        matrices = matrix_weights(model)
        embedding = parts["token embedding"]
        rest = sum(parts.values()) - embedding - matrices + biases
        return {"embedding": embedding, "matrices": matrices, "output": output, "rest": rest}
    C, F = model.d_model, model.d_ff
    layers, attentions = (
        model.encoder_layers + model.decoder_layers,
        model.encoder_layers + 2 * model.decoder_layers,
    )
    # in a layer: four biases of an attention, two of an MLP, and a norm (gain and bias) after each part
    vectors = attentions * 4 * C + layers * (F + C) + (attentions + layers) * 2 * C
    return {
        "embedding": model.vocabulary * C,
        "matrices": matrix_weights(model),
        "output": 0 if model.tied else model.vocabulary * C,
        "rest": vectors + _family_parts(model, attentions),
    }


def _family_parts(model: OpenModel, attentions: int) -> int:
    """Return the parameters that only the family of this model has: positions, norms, pooler, convolutions."""
    C, T, norm = model.d_model, model.positions, 2 * model.d_model
    if model.model_type in ENCODERS:
        segments = ENCODERS[model.model_type] * C
        return T * C + segments + norm + C * C + C  # positions, segments, their norm, the pooler
    if model.model_type == "marian":
        return 2 * T * C  # a table of sines on each side
    if model.model_type == "m2m_100":
        return 2 * norm  # one after each stack; its sines are no weights
    convolutions = 3 * C * model.mel_bins + C + 3 * C * C + C
    return (model.source_positions + T) * C + 2 * norm + convolutions - attentions * C  # keys have no bias
