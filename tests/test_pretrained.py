"""Folders of save_model that are damaged, mixed up, or of another program are refused by a sentence."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from llmcourse.pretrained import load_model, save_model
from llmcourse.tokenizer import BPETokenizer
from llmcourse.tune.techniques import make_config, make_model


def tiny_tokenizer(n_merges=4):
    return BPETokenizer.from_merges([(97 + i, 98 + i) for i in range(n_merges)])


V = tiny_tokenizer().vocab_size
X = torch.arange(8)[None]


def our_model(**options):
    torch.manual_seed(0)
    return make_model(
        make_config(**(dict(vocab_size=V, context_length=16, d_model=16, n_layers=2) | options))
    ).eval()


@pytest.fixture
def folder(tmp_path):
    save_model(tmp_path, our_model(), tiny_tokenizer(), torch.float32)
    return tmp_path


def test_a_padded_vocabulary_comes_back(tmp_path):
    """karpathy/build-nanogpt#95: 50,304 rows for 50,257 tokens."""
    model = our_model(vocab_size=320)
    save_model(tmp_path, model, tiny_tokenizer(), torch.float32)
    loaded, tokenizer = load_model(tmp_path)
    assert (loaded.config.vocab_size, tokenizer.vocab_size) == (320, V)
    assert torch.equal(loaded(X), model(X))


@pytest.mark.parametrize("n_merges", [3, 9])
@pytest.mark.parametrize("rows", [V, 320])
def test_another_tokenizer_is_noticed_under_a_padded_vocabulary_too(tmp_path, rows, n_merges):
    save_model(tmp_path, our_model(vocab_size=rows), tiny_tokenizer())
    tiny_tokenizer(n_merges).save(tmp_path / "tokenizer.json")
    with pytest.raises(ValueError, match=f"the tokenizer has {V - 4 + n_merges} tokens and the model {V}"):
        load_model(tmp_path)


def test_what_load_would_refuse_is_not_saved(tmp_path):
    for model, tokenizer, dtype, message in (
        (our_model(vocab_size=V - 1), tiny_tokenizer(), torch.float32, "tokens and the model"),
        (our_model(), tiny_tokenizer(), torch.int8, "kept as floats"),
        (our_model(embedding_std=1e-9), tiny_tokenizer(), torch.float16, "does not survive"),
        (our_model(embedding_std=1e5), tiny_tokenizer(), torch.float16, "does not survive"),
    ):
        with pytest.raises(ValueError, match=message):
            save_model(tmp_path / "new", model, tokenizer, dtype)
        assert not (tmp_path / "new").exists()


def test_a_save_that_fails_leaves_the_old_folder_whole(folder, monkeypatch):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full_disk(self, path):
        raise OSError("no space left on device")

    monkeypatch.setattr(BPETokenizer, "save", full_disk)
    with pytest.raises(OSError, match="no space"):
        save_model(folder, our_model(n_layers=1), tiny_tokenizer())
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_a_file_that_is_cut_short_is_named(folder, kept):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"model\.safetensors is no safetensors file, or cut short"):
        load_model(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("final_norm.weight"), "it lacks final_norm.weight"),
        (lambda state: state.pop("token_embedding.weight"), "it lacks token_embedding.weight"),
        (lambda state: state.update(more=torch.ones(1)), "it has more, which the model lacks"),
        (lambda state: state.update({"final_norm.weight": torch.ones(9)}), "final_norm.weight is"),
        (lambda state: state.update({"final_norm.weight": torch.ones(16).int()}), "is torch.int32 there"),
        (
            lambda state: state.update({"unembedding.weight": torch.ones(V, 16)}),
            "are one tensor in the model, and differ",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named_with_their_file(folder, change, message):
    path = folder / "model.safetensors"
    state = load_file(path)
    change(state)
    save_file(state, path, {"tokens": str(V)})
    with pytest.raises(ValueError, match=rf"model\.safetensors.*{message}"):
        load_model(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Expecting value"),
        ('{"vocab_size": 258', "Expecting ',' delimiter"),
        ("[]", "has no attribute"),
        ("\udcff", "codec can't decode"),
        ('{"d_model": 16}', "vocab_size"),
        ('{"vocab_size": "many"}', "not supported between"),
        ('{"vocab_size": 258, "norm": "batch"}', "norm='batch' is unknown"),
        ('{"vocab_size": 258, "speed": 1}', r"\['speed'\] are no fields of ModelConfig in this version"),
        ('{"model_type": "gpt2", "vocab_size": 258}', "of transformers, read it with from_transformers"),
    ],
)
def test_a_configuration_of_something_else_is_refused(folder, text, message):
    (folder / "config.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=rf"config\.json is no configuration of save_model: .*{message}"):
        load_model(folder)


def test_a_configuration_that_an_editor_marked_or_that_lacks_newer_fields_is_read(folder):
    path = folder / "config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    for name in ("qk_norm", "rotary_scaling", "scaled_embeddings"):
        del content[name]
    path.write_text(json.dumps(content), encoding="utf-8-sig")
    assert torch.equal(load_model(folder)[0](X), our_model()(X))


def test_parts_that_share_memory_or_lie_transposed_are_saved_by_value(tmp_path):
    """safetensors refuses shared memory; two places of one part come back as two equal ones."""
    model = our_model()
    model.blocks[1].mlp = model.blocks[0].mlp
    out = model.blocks[0].attention.out
    out.weight = torch.nn.Parameter(out.weight.detach().T.contiguous().T)
    save_model(tmp_path, model, tiny_tokenizer(), torch.float32)
    assert torch.equal(load_model(tmp_path)[0](X), model(X))
