"""Pruned models in files: they come back, and their bytes are those of the formula."""

import numpy as np
import pytest
import torch

from llmcourse.compress.prune import apply_masks, magnitude_masks, prunable, two_of_four_masks
from llmcourse.compress.sparse_file import file_sizes, load_sparse, pack_mask, save_sparse, unpack_mask
from llmcourse.model import GPT, ModelConfig


def gpt(seed: int, **shape) -> GPT:
    torch.manual_seed(seed)
    return GPT(ModelConfig(50, **dict(context_length=8, d_model=32, n_heads=2, n_layers=2) | shape))


@pytest.mark.parametrize("shape", [(1,), (7,), (8,), (3, 5), (4, 16)])
def test_masks_are_packed_as_numpy_packs_them(shape):
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 0.5
    packed = pack_mask(mask)
    assert packed.tolist() == np.packbits(mask.numpy().ravel(), bitorder="little").tolist()
    assert torch.equal(unpack_mask(packed, mask.shape), mask)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8, "2:4"])
def test_a_pruned_model_comes_back_and_takes_what_the_formula_says(tmp_path, share):
    model = gpt(0)
    apply_masks(model, two_of_four_masks(model) if share == "2:4" else magnitude_masks(model, share))
    path = tmp_path / "model.safetensors"
    save_sparse(path, model)
    back = load_sparse(path, gpt(1))
    for a, b in zip(model.parameters(), back.parameters(), strict=True):
        assert torch.equal(a.half().float(), b)
    n = sum(w.numel() for w in prunable(model).values())
    kept = sum(int((w != 0).sum()) for w in prunable(model).values())
    others = sum(p.numel() for p in model.parameters()) - n
    header = int.from_bytes(path.read_bytes()[:8], "little") + 8
    assert path.stat().st_size - header == 2 * others + 2 * kept + n // 8


@pytest.mark.parametrize("shape", [dict(d_ff=40), dict(n_layers=1), dict(n_layers=3), dict(d_model=16)])
def test_a_file_of_another_model_is_refused_and_nothing_changes(tmp_path, shape):
    save_sparse(tmp_path / "file", gpt(0))
    model, same = gpt(1, **shape), gpt(1, **shape)
    with pytest.raises(ValueError, match="file does not fit the model"):
        load_sparse(tmp_path / "file", model)
    assert all(map(torch.equal, model.parameters(), same.parameters()))


def test_an_untied_model_comes_back_too(tmp_path):
    model = gpt(0, tied_embeddings=False)
    save_sparse(tmp_path / "file", model)
    back = load_sparse(tmp_path / "file", gpt(1, tied_embeddings=False))
    assert torch.equal(back.unembedding.weight, model.unembedding.weight.half().float())


def test_the_plain_file_does_not_shrink_and_the_others_do(tmp_path):
    before = file_sizes(gpt(0), tmp_path)
    model = gpt(0)
    apply_masks(model, magnitude_masks(model, 0.8))
    after = file_sizes(model, tmp_path)
    assert after["plain"] == before["plain"]
    assert after["sparse"] < before["plain"] < before["sparse"]
    assert after["zlib"] < 0.7 * before["zlib"]


def test_two_ends_never_become_one(tmp_path):
    untied = gpt(0, tied_embeddings=False)
    save_sparse(tmp_path / "untied", untied, torch.float32)
    tied = gpt(1)
    before = {name: p.clone() for name, p in tied.named_parameters()}
    with pytest.raises(ValueError, match="unembedding"):
        load_sparse(tmp_path / "untied", tied)
    assert all(torch.equal(p, before[name]) for name, p in tied.named_parameters())
    back = load_sparse(tmp_path / "untied", gpt(1, tied_embeddings=False))
    assert torch.equal(back(torch.arange(8)[None]), untied(torch.arange(8)[None]))
