"""The sparse autoencoder against numpy, against data whose directions are known, and principal directions against SVD."""

import numpy as np
import pytest
import torch

from llmcourse.interpret.dictionary import (
    SparseAutoencoder,
    both_ways,
    coder_of,
    explained_variance,
    keep_largest,
    principal_directions,
    reconstruction_loss,
    train_dictionary,
)


def sparse_states(n=3000, d_model=24, n_true=32, k=2, seed=0):
    """Return states that are sums of k of n_true directions, and these directions."""
    generator = torch.Generator().manual_seed(seed)
    true = torch.nn.functional.normalize(torch.randn(n_true, d_model, generator=generator), dim=1)
    on = torch.rand(n, n_true, generator=generator).argsort(1) < k
    sizes = 1 + torch.rand(n, n_true, generator=generator)
    return (on * sizes) @ true, true


@pytest.mark.parametrize("k", [1, 3, 7, 20])
def test_the_largest_are_kept(k):
    x = torch.randn(6, 7, generator=torch.Generator().manual_seed(k))
    expected = np.zeros((6, 7), dtype=np.float32)
    for row, values in enumerate(x.numpy()):
        for place in values.argsort()[::-1][:k]:
            expected[row, place] = max(values[place], 0)
    assert np.array_equal(keep_largest(x, k).numpy(), expected)


def test_coding_is_what_the_formula_says():
    torch.manual_seed(0)
    coder = SparseAutoencoder(6, 12, 3)
    coder.prepare(5 + 2 * torch.randn(40, 6))
    x = torch.randn(4, 6)
    standard = (x - coder.mean) / coder.scale
    codes = keep_largest(standard @ coder.encoder.T + coder.encoder_bias, 3)
    assert torch.allclose(coder.encode(x), codes)
    again = codes @ coder.decoder * coder.scale + coder.mean
    assert torch.allclose(coder(x), again, atol=1e-6)
    total, count = reconstruction_loss(coder, x)
    assert total.item() == pytest.approx((((again - x) / coder.scale) ** 2).sum().item(), rel=1e-5)
    assert count == 4


def test_training_finds_the_directions_that_made_the_states():
    states, true = sparse_states()
    coder = train_dictionary(states, n_features=64, k=2, steps=400, batch_size=256, seed=1)
    assert torch.allclose(coder.decoder.norm(dim=1), torch.ones(64), atol=1e-5)
    best = (true @ coder.decoder.T).max(1).values  # cosine with the nearest feature
    random = (true @ torch.nn.functional.normalize(torch.randn(64, 24), dim=1).T).max(1).values
    assert best.median() > 0.9
    assert random.median() < 0.7
    new, _ = sparse_states(seed=0, n=500)
    assert explained_variance(new, coder(new)) > 0.85


def test_the_same_seed_trains_the_same_dictionary():
    states, _ = sparse_states(500)
    one, two = (train_dictionary(states, 16, 2, steps=5, batch_size=32, seed=3) for _ in range(2))
    assert torch.equal(one.decoder, two.decoder)
    assert not any(parameter.requires_grad for parameter in one.parameters())


def test_principal_directions_are_those_of_svd():
    x = torch.randn(50, 5, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [3.0, 1.0, 5.0, 0.5, 2.0]
    )
    found, expected = principal_directions(x), torch.linalg.svd(x - x.mean(0)).Vh
    assert torch.allclose((found * expected).sum(1).abs(), torch.ones(5), atol=1e-4)


def test_an_orthogonal_coder_that_keeps_all_gives_everything_back():
    x = torch.randn(30, 6, generator=torch.Generator().manual_seed(1))
    coder = coder_of(both_ways(principal_directions(x)), x, k=12)
    assert torch.allclose(coder(x), x, atol=1e-5)
    assert explained_variance(x, coder(x)) == pytest.approx(1, abs=1e-6)
    assert explained_variance(x, coder_of(both_ways(torch.eye(6)), x, k=2)(x)) < 0.95


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="choose k from 1 to 4"):
        SparseAutoencoder(8, 4, 5)
    with pytest.raises(ValueError, match="a row for each token"):
        train_dictionary(torch.zeros(2, 3, 4))
    with pytest.raises(ValueError, match="finite numbers"):
        train_dictionary(torch.full((4, 3), float("nan")))


@pytest.mark.parametrize("states", [torch.ones(50, 8), torch.ones(1, 8), torch.ones(0, 8)])
def test_states_that_do_not_differ_are_refused(states):
    for make in (lambda: train_dictionary(states, 16, 4, steps=2), lambda: coder_of(torch.eye(8), states, 2)):
        with pytest.raises(ValueError, match="do not differ"):
            make()
    with pytest.raises(ValueError, match="rows that differ"):
        explained_variance(states, states)


def test_any_precision_of_states_will_do():
    states = torch.randint(-3, 3, (40, 8), generator=torch.Generator().manual_seed(0))
    wanted = train_dictionary(states.float(), 16, 4, steps=3).decoder
    for dtype in (torch.int64, torch.float64, torch.bfloat16):
        assert torch.equal(train_dictionary(states.to(dtype), 16, 4, steps=3).decoder, wanted)
