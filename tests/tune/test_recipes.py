"""Recipes: nanoGPT's documented numbers, what a change changes, and that a run is what train does."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from llmcourse.data.batches import TokenBatches
from llmcourse.optim import Muon, OptimizerList
from llmcourse.schedules import warmup_cosine
from llmcourse.training import train
from llmcourse.tune.recipes import FAST, NANOGPT, PLAIN, STRONG, Recipe, train_recipe

IDS = torch.randint(20, (3000,), generator=torch.Generator().manual_seed(0))
TINY = PLAIN.change(d_model=16, n_heads=2, n_layers=1, context_length=16, steps=6, warmup_steps=2)


def losses(recipe, seed=3):
    return [step.loss for step in train_recipe(recipe, recipe.build(20, seed), IDS, seed)]


def test_the_recipe_is_the_documented_one():
    # nanoGPT README: --block_size=64 --batch_size=12 --n_layer=4 --n_head=4 --n_embd=128 --max_iters=2000
    # --dropout=0.0; config/train_shakespeare_char.py: lr 1e-3, beta2 0.99, warmup 100; min_lr 1e-4
    assert (NANOGPT.batch_size, NANOGPT.steps, NANOGPT.lr, NANOGPT.betas) == (12, 2000, 1e-3, (0.9, 0.99))
    factors = NANOGPT.factors()
    assert (factors(99), round(factors(2000), 9)) == (1.0, 0.1)
    theirs = GPT2LMHeadModel(GPT2Config(vocab_size=65, n_positions=64, n_embd=128, n_layer=4, n_head=4))
    biases = sum(p.numel() for name, p in theirs.named_parameters() if name.endswith("bias"))
    assert NANOGPT.build(65, 0).n_parameters() == theirs.num_parameters() - biases


@pytest.mark.parametrize("recipe", [FAST, STRONG])
def test_the_fence_holds_for_our_recipes(recipe):
    model = recipe.build(80, 0)
    assert model.n_parameters() < NANOGPT.build(80, 0).n_parameters()
    assert model.config.context_length == NANOGPT.config["context_length"]
    assert not model.config.bigram_table


def test_a_change_goes_to_the_run_or_to_the_model_and_leaves_the_original():
    changed = NANOGPT.change(steps=10, n_layers=1, qk_norm=True)
    assert (changed.steps, changed.config["n_layers"], changed.config["qk_norm"]) == (10, 1, True)
    assert (NANOGPT.steps, NANOGPT.config["n_layers"]) == (2000, 4)
    with pytest.raises(TypeError, match="no_such_part"):
        NANOGPT.change(no_such_part=1).build(20, 0)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "stable_decay"])
def test_schedules_start_with_the_warmup_and_end_where_they_should(schedule):
    factors = Recipe(schedule=schedule, steps=100, warmup_steps=0 if schedule == "constant" else 10).factors()
    assert factors(10) == 1.0
    assert factors(100) == (1.0 if schedule == "constant" else 0.0)
    with pytest.raises(ValueError, match="schedule='step' is unknown"):
        Recipe(schedule="step")


def test_following_is_train_with_the_recipe_s_numbers():
    recipe = TINY.change(schedule="cosine", lr=2e-3)
    model = recipe.build(20, 3)
    schedule = warmup_cosine(6, 2)
    expected = train(
        model, TokenBatches(IDS, 12, 16, seed=3), steps=6, lr=2e-3, betas=(0.9, 0.99), schedule=schedule
    )
    assert losses(recipe) == [step.loss for step in expected]


def test_one_rate_for_all_equals_two_equal_rates_where_everything_decays_alike():
    recipe = TINY.change(weight_decay=0.0)
    torch.testing.assert_close(losses(recipe), losses(recipe.change(hidden_lr=recipe.lr)), rtol=1e-5, atol=0)
    assert losses(recipe.change(hidden_lr=1e-5))[-1] != losses(recipe)[-1]


def test_a_muon_recipe_trains_with_muon_and_repeats():
    seen = []
    original = Muon.step

    def spy(self):
        seen.append(len(self.param_groups[0]["params"]))
        return original(self)

    recipe = TINY.change(muon_lr=0.02)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Muon, "step", spy)
        first = losses(recipe)
    assert seen == [4] * 6
    assert first == losses(recipe)
    assert isinstance(OptimizerList(Muon([torch.nn.Parameter(torch.eye(2))])).param_groups, list)


def test_two_batches_a_step_read_as_much_as_one_of_twice_the_size():
    for recipe in (TINY.change(accumulate=2), TINY.change(batch_size=2 * TINY.batch_size)):
        *_, last = train_recipe(recipe, recipe.build(20, 3), IDS, 3)
        assert last.tokens == 6 * 2 * TINY.batch_size * 16


def test_products_in_bfloat16_change_the_losses_a_little():
    exact, rounded = (
        losses(TINY.change(muon_lr=0.02)),
        losses(TINY.change(muon_lr=0.02, dtype=torch.bfloat16)),
    )
    assert exact != rounded
    assert rounded == pytest.approx(exact, abs=0.02)
