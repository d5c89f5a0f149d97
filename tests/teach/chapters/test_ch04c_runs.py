"""The runs of chapter 4c: positions are averaged over windows, another base is a change of two tables."""

import torch

from llmcourse.model import GPT, ModelConfig
from llmcourse.positions import rotary_angles
from llmcourse.teach.chapters.ch04c_positions import runs


def small(positions: str, base: float = 1e4) -> GPT:
    torch.manual_seed(0)
    config = ModelConfig(
        50, context_length=runs.LONG, d_model=16, n_heads=2, n_layers=1, positions=positions, rotary_base=base
    )
    return GPT(config).eval()


def test_losses_are_means_over_the_windows_at_each_position():
    model = small("rotary")
    ids = torch.randint(0, 50, (runs.WINDOWS * runs.LONG + 1,))
    windows = ids[:-1].view(runs.WINDOWS, runs.LONG), ids[1:].view(runs.WINDOWS, runs.LONG)
    with torch.no_grad():
        logits = model(windows[0]).log_softmax(-1)
    wanted = -logits.gather(-1, windows[1][..., None])[..., 0].mean(0)
    assert torch.allclose(runs.loss_by_position(model, ids), wanted, atol=1e-5)


def test_another_base_is_the_model_built_with_that_base():
    ids, model = torch.arange(40)[None], small("rotary")
    before = model(ids)
    assert torch.allclose(runs.with_base(model, 1e5)(ids), small("rotary", 1e5)(ids), atol=1e-6)
    assert not torch.equal(model(ids), before)
    assert torch.equal(runs.with_base(model, 1e4)(ids), before)
    assert torch.equal(model.rotary_cos, rotary_angles(runs.LONG, 8)[0])


def test_the_stored_runs_are_complete():
    stored = runs.read_runs()
    bases = {"rotary": {1e4, 1e5, 1e6}}
    assert set(stored) == {(kind, base) for kind in runs.KINDS for base in bases.get(kind, {1e4})}
    assert {losses.shape for losses in stored.values()} == {(3, runs.LONG // runs.PART)}
