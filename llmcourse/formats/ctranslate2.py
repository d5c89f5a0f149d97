"""Weights in CTranslate2's file, model.bin, read without that library; Whisper's, under the names of transformers."""

import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

VERSION = 6
TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}


class _Reader:
    """Little-endian numbers and texts, one after the other."""

    def __init__(self, path: Path):
        self.path, self.data, self.at = path, path.read_bytes(), 0

    def take(self, n: int) -> memoryview:
        if self.at + n > len(self.data):
            raise ValueError(
                f"{self.path} is cut short: {len(self.data)} bytes, and one more part ends at {self.at + n}; "
                "copy it again"
            )
        self.at += n
        return memoryview(self.data)[self.at - n : self.at]

    def number(self, form: str) -> int:
        return struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))[0]

    def text(self) -> str:
        return bytes(self.take(self.number("H"))[:-1]).decode("utf-8")


def read_variables(path: str | Path) -> dict[str, np.ndarray]:
    """Return the arrays of a file of CTranslate2 by their names.

    Raises FileNotFoundError when it is missing, ValueError when it is cut short or of another version.

    Source: `ModelSpec._serialize` of CTranslate2 4 (binary version 6).
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no file: give the model.bin of a converted model")
    read = _Reader(path)
    if (version := read.number("I")) != VERSION:
        raise ValueError(f"{path} begins with {version}, not {VERSION}: it is no model.bin of CTranslate2 4")
    read.text(), read.number("I")  # the kind of model, and its revision
    arrays = {}
    for _ in range(read.number("I")):
        name = read.text()
        shape = [read.number("I") for _ in range(read.number("B"))]
        kind = read.number("B")
        if kind not in TYPES:
            raise ValueError(f"{path}: {name} has the type {kind}; read are {sorted(TYPES)}, not bfloat16")
        arrays[name] = np.frombuffer(read.take(read.number("I")), TYPES[kind]).reshape(shape)
    return arrays


def whisper_state(arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """Return the weights, float32, under the names of `WhisperForConditionalGeneration`.

    There the queries, keys and values of self-attention, and the keys and values of cross-attention, are one
    matrix; here each is its own. Keys have no bias in Whisper: theirs is stored as zeros.
    """
    state: dict[str, Tensor] = {}
    parts = {
        "self_attention/linear_0": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "self_attention/linear_1": ("self_attn.out_proj",),
        "self_attention/layer_norm": ("self_attn_layer_norm",),
        "attention/linear_0": ("encoder_attn.q_proj",),
        "attention/linear_1": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
        "attention/linear_2": ("encoder_attn.out_proj",),
        "attention/layer_norm": ("encoder_attn_layer_norm",),
        "ffn/linear_0": ("fc1",),
        "ffn/linear_1": ("fc2",),
        "ffn/layer_norm": ("final_layer_norm",),
        "conv1": ("conv1",),
        "conv2": ("conv2",),
        "layer_norm": ("layer_norm",),
        "embeddings": ("embed_tokens",),
        "position_encodings": ("embed_positions",),
    }
    ends = {"gamma": "weight", "beta": "bias", "encodings": "weight"}
    for name, array in arrays.items():
        side, *middle, end = name.split("/")
        layer = middle.pop(0).replace("layer_", "layers.") + "." if middle and middle[0][6:].isdigit() else ""
        if (targets := parts.get("/".join(middle))) is None:
            continue  # a setting, such as the number of heads
        pieces = torch.tensor(array.astype(np.float32)).chunk(len(targets))
        for target, piece in zip(targets, pieces, strict=True):
            if not (end == "bias" and target.endswith("k_proj")):
                state[f"model.{side}.{layer}{target}.{ends.get(end, end)}"] = piece
    return state
