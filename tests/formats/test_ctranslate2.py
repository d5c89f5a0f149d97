"""CTranslate2's files: a small Whisper written in its form comes back as the model that it was."""

import struct

import numpy as np
import pytest
import torch
from small_whisper import small_whisper

from llmcourse.formats.ctranslate2 import read_variables, whisper_state


def variables(model) -> dict[str, np.ndarray]:
    """The weights under CTranslate2's names, as its converter for Whisper lays them out."""
    found = {}

    def put(name, *layers, end="gamma beta"):
        weight, bias = end.split()
        found[f"{name}/{weight}"] = torch.cat([layer.weight for layer in layers])
        zeros = [layer.bias if layer.bias is not None else torch.zeros(len(layer.weight)) for layer in layers]
        found[f"{name}/{bias}"] = torch.cat(zeros)

    for side, part in (("encoder", model.model.encoder), ("decoder", model.model.decoder)):
        for i, layer in enumerate(part.layers):
            own, at, line = layer.self_attn, f"{side}/layer_{i}", "weight bias"
            put(f"{at}/self_attention/layer_norm", layer.self_attn_layer_norm)
            put(f"{at}/self_attention/linear_0", own.q_proj, own.k_proj, own.v_proj, end=line)
            put(f"{at}/self_attention/linear_1", own.out_proj, end=line)
            if side == "decoder":
                cross = layer.encoder_attn
                put(f"{at}/attention/layer_norm", layer.encoder_attn_layer_norm)
                put(f"{at}/attention/linear_0", cross.q_proj, end=line)
                put(f"{at}/attention/linear_1", cross.k_proj, cross.v_proj, end=line)
                put(f"{at}/attention/linear_2", cross.out_proj, end=line)
            put(f"{at}/ffn/layer_norm", layer.final_layer_norm)
            put(f"{at}/ffn/linear_0", layer.fc1, end=line)
            put(f"{at}/ffn/linear_1", layer.fc2, end=line)
        put(f"{side}/layer_norm", part.layer_norm)
        found[f"{side}/position_encodings/encodings"] = part.embed_positions.weight
    put("encoder/conv1", model.model.encoder.conv1, end="weight bias")
    put("encoder/conv2", model.model.encoder.conv2, end="weight bias")
    found["decoder/embeddings/weight"] = model.model.decoder.embed_tokens.weight
    arrays = {name: tensor.detach().numpy() for name, tensor in found.items()}
    return arrays | {"decoder/num_heads": np.array(2, dtype=np.int16)}


def as_file(arrays, version=6) -> bytes:
    def text(x):
        return struct.pack("<H", len(x) + 1) + x.encode() + b"\0"

    out = struct.pack("<I", version) + text("WhisperSpec") + struct.pack("<II", 3, len(arrays))
    for name, array in arrays.items():
        kind = {"float32": 0, "int16": 2, "float16": 4}[array.dtype.name]
        out += text(name) + struct.pack("<B", array.ndim) + struct.pack(f"<{array.ndim}I", *array.shape)
        out += struct.pack("<BI", kind, array.nbytes) + array.tobytes()
    return out + struct.pack("<I", 0)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_whisper_in_that_form_gives_the_same_logits(tmp_path, dtype):
    model, other = small_whisper(), small_whisper()
    with torch.no_grad():
        for p in [*model.parameters(), *other.parameters()]:
            p.copy_(torch.randn_like(p) * 0.2)
    model.half().float()  # so that float16 holds it exactly
    arrays = {k: v if v.dtype == np.int16 else v.astype(dtype) for k, v in variables(model).items()}
    (tmp_path / "model.bin").write_bytes(as_file(arrays))
    state = whisper_state(read_variables(tmp_path / "model.bin"))
    lost = other.load_state_dict(state, strict=False)
    assert lost.unexpected_keys == []
    assert lost.missing_keys == ["proj_out.weight"]  # tied to the embedding
    sound, ids = torch.randn(2, 8, 40), torch.tensor([[1, 5, 7], [1, 2, 3]])
    with torch.no_grad():
        wanted = model(input_features=sound, decoder_input_ids=ids).logits
        torch.testing.assert_close(other(input_features=sound, decoder_input_ids=ids).logits, wanted)


def test_what_is_no_such_file_is_refused(tmp_path):
    path, whole = tmp_path / "model.bin", as_file({"a/weight": np.zeros((2, 3), np.float32)})
    with pytest.raises(FileNotFoundError, match=r"model\.bin is no file"):
        read_variables(path)
    path.write_bytes(whole)
    assert read_variables(path)["a/weight"].shape == (2, 3)
    path.write_bytes(whole[:-20])
    with pytest.raises(ValueError, match="cut short"):
        read_variables(path)
    path.write_bytes(as_file({}, version=5))
    with pytest.raises(ValueError, match="begins with 5, not 6"):
        read_variables(path)
