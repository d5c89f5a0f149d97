"""Loss, perplexity and bits per byte against one forward pass for each token, and closed forms."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from llmcourse.evaluate.likelihood import (
    bits_per_byte,
    evaluate_loss,
    multiple_choice,
    ngram_overlap,
    perplexity,
)
from llmcourse.losses import mean_loss
from llmcourse.model import GPT, ModelConfig

V, T = 11, 8


@pytest.fixture(scope="module")
def model() -> GPT:
    torch.manual_seed(0)
    shape = dict(context_length=T, d_model=16, n_heads=2, n_layers=2, dropout=0.3)
    model = GPT(ModelConfig.gpt2(V, **shape)).eval()  # learned positions: the place matters
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)  # far from uniform, so that each context counts
    return model


def row(n: int) -> torch.Tensor:
    return torch.randint(0, V, (n,), generator=torch.Generator().manual_seed(n))


@torch.no_grad()
def loss_token_by_token(model, ids, stride) -> float:
    """Score token t on its own, after the first window of T that holds it among its targets."""
    losses = []
    for t in range(1, len(ids)):
        window = max(0, -(-(t - T) // stride))  # the smallest k with k * stride + T >= t
        context = ids[window * stride : t]
        losses.append(F.cross_entropy(model(context[None])[0, -1], ids[t]))
    return torch.stack(losses).double().mean().item()


@pytest.mark.parametrize("n", [2, 3, T, T + 1, T + 2, 2 * T, 2 * T + 1, 50])
@pytest.mark.parametrize("stride", [None, 1, 3, T - 1, T])
def test_loss_equals_scoring_each_token_on_its_own(model, n, stride):
    ids = row(n)
    expected = loss_token_by_token(model, ids, stride or T)
    for batch_size in (1, 2, 32):
        assert evaluate_loss(model, ids, stride, batch_size) == pytest.approx(expected, abs=1e-5)


@torch.no_grad()
def test_losses_of_a_model_in_bfloat16_are_those_of_its_logits_in_double(model):
    """In bfloat16 itself a sum near 10 nats is a multiple of 1/16: different options would tie."""
    narrow, ids = copy.deepcopy(model).bfloat16(), row(T + 1)
    logits = narrow(ids[None, :-1])[0].double()
    expected = F.cross_entropy(logits, ids[1:]).item()
    assert evaluate_loss(narrow, ids) == pytest.approx(expected, abs=1e-6)
    assert mean_loss(narrow, (ids[None, :-1], ids[None, 1:])).item() == pytest.approx(expected, abs=1e-6)
    sums, _ = multiple_choice(narrow, [ids[:3]], [[[k] for k in range(V)]])
    wanted = narrow(ids[None, :3])[0, -1].double().log_softmax(-1)
    torch.testing.assert_close(sums[0], wanted, rtol=0, atol=1e-6)


def test_windows_without_overlap_equal_a_plain_loop(model):
    ids = row(60)
    losses = []
    with torch.no_grad():
        for start in range(0, 59, T):
            chunk = ids[start : start + T + 1]
            losses.append(F.cross_entropy(model(chunk[None, :-1])[0], chunk[1:], reduction="none"))
    assert evaluate_loss(model, ids) == pytest.approx(torch.cat(losses).mean().item(), abs=1e-5)


def test_stride_1_gives_each_token_all_the_context_that_fits(model):
    ids = row(30)
    with torch.no_grad():
        losses = [F.cross_entropy(model(ids[None, max(0, t - T) : t])[0, -1], ids[t]) for t in range(1, 30)]
    expected = torch.stack(losses).mean().item()
    assert evaluate_loss(model, ids, stride=1) == pytest.approx(expected, abs=1e-5)
    assert abs(evaluate_loss(model, ids) - expected) > 1e-2  # so the stride did something


@pytest.mark.parametrize("training", [True, False])
def test_the_training_flag_is_restored_and_dropout_is_off(model, training):
    ids = row(40)
    model.train(training)
    first = evaluate_loss(model, ids)
    assert all(module.training == training for module in model.modules())
    assert evaluate_loss(model, ids) == first
    model.eval()
    assert evaluate_loss(model, ids) == first


def test_evaluation_leaves_no_gradients_and_no_trace_in_the_generator(model):
    model.train()
    state = torch.get_rng_state()
    evaluate_loss(model, row(40))
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_numpy_ids_give_the_same_loss(model):
    ids = row(40)
    expected = evaluate_loss(model, ids)
    assert evaluate_loss(model, ids.numpy().astype(np.uint16)) == expected
    assert evaluate_loss(model, ids.tolist()) == expected


class Uniform(nn.Module):
    """Gives each token the same probability."""

    def __init__(self, vocab_size: int):
        super().__init__()
        self.config = ModelConfig(vocab_size, context_length=T)
        self.weight = nn.Parameter(torch.zeros(vocab_size))

    def forward(self, ids):
        return self.weight.expand(*ids.shape, -1)


@pytest.mark.parametrize("vocab_size", [2, 16, 50257])
def test_a_uniform_model_hesitates_among_all_tokens(vocab_size):
    ids = torch.arange(40) % vocab_size
    loss = evaluate_loss(Uniform(vocab_size), ids, stride=5)
    assert loss == pytest.approx(math.log(vocab_size), rel=1e-6)
    assert perplexity(loss) == pytest.approx(vocab_size, rel=1e-4)
    assert bits_per_byte(loss, n_tokens=1, n_bytes=1) == pytest.approx(math.log2(vocab_size), rel=1e-6)
    assert bits_per_byte(loss, n_tokens=39, n_bytes=78) == pytest.approx(math.log2(vocab_size) / 2, rel=1e-6)


def test_bits_per_byte_do_not_depend_on_the_tokenizer():
    # The same probability of the same text, spelt as bytes or as tokens of 4 bytes.
    as_bytes = bits_per_byte(math.log(256), n_tokens=100, n_bytes=100)
    as_tokens = bits_per_byte(math.log(256**4), n_tokens=25, n_bytes=100)
    assert as_bytes == pytest.approx(8)
    assert as_tokens == pytest.approx(8)


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_tokens_are_refused(model, n):
    with pytest.raises(ValueError, match=f"{n} tokens hold nothing to predict"):
        evaluate_loss(model, row(n))


@pytest.mark.parametrize("stride", [0, -1, T + 1, 2.5, math.nan])
def test_a_stride_that_repeats_or_skips_tokens_is_refused(model, stride):
    with pytest.raises(ValueError, match=f"stride={stride} must be between 1 and the context of {T}"):
        evaluate_loss(model, row(20), stride=stride)


def test_a_text_without_bytes_is_refused():
    with pytest.raises(ValueError, match="n_bytes=0"):
        bits_per_byte(1.0, n_tokens=1, n_bytes=0)


# ---- multiple choice ------------------------------------------------------------------------


def some_items(n=6, k=3, longest=T):
    generator = torch.Generator().manual_seed(7)

    def ids(length):
        return torch.randint(V, (int(length),), generator=generator).tolist()

    sizes = torch.randint(1, longest + 1, (n, k), generator=generator)
    contexts = [ids(length) for length in torch.randint(1, 3 * T, (n,), generator=generator)]
    return contexts, [[ids(length) for length in row] for row in sizes]


@torch.no_grad()
def log_likelihood(model, context, option):
    """One forward pass for each token of the option."""
    model.eval()
    total, row = 0.0, list(context)
    for token in option:
        total += model(torch.tensor([row]))[0, -1].log_softmax(-1)[token].item()
        row.append(token)
    return total


def test_choices_equal_scoring_each_token_on_its_own(model):
    contexts, options = some_items(longest=4)
    contexts = [context[:4] for context in contexts]  # all fits: 4 + 4 tokens
    sums, lengths = multiple_choice(model, contexts, options)
    assert lengths.tolist() == [[len(option) for option in row] for row in options]
    for i, (context, row) in enumerate(zip(contexts, options, strict=True)):
        expected = [log_likelihood(model, context, option) for option in row]
        assert sums[i].tolist() == pytest.approx(expected, abs=1e-4)


def test_an_option_of_one_token_is_the_models_own_probability(model):
    context = row(T).tolist()
    sums, _ = multiple_choice(model, [context], [[[token] for token in range(V)]])
    with torch.no_grad():
        expected = model.eval()(torch.tensor([context]))[0, -1].log_softmax(-1)
    assert torch.allclose(sums[0].float(), expected, atol=1e-5)
    assert sums.exp().sum().item() == pytest.approx(1, abs=1e-5)


def test_what_does_not_fit_is_cut_from_the_left_for_all_options_alike(model):
    context, options = row(5 * T).tolist(), [[1, 2, 3], [4]]
    sums, _ = multiple_choice(model, [context], [options])
    kept = context[-(T + 1 - 3) :]
    expected = [log_likelihood(model, kept, option) for option in options]
    assert sums[0].tolist() == pytest.approx(expected, abs=1e-4)
    whole = row(T).tolist()  # an option that fills the context leaves one token before it
    sums, _ = multiple_choice(model, [context], [[whole]])
    assert sums.item() == pytest.approx(log_likelihood(model, context[-1:], whole), abs=1e-4)


def test_the_order_of_options_and_items_changes_nothing_but_the_order(model):
    contexts, options = some_items()
    sums, _ = multiple_choice(model, contexts, options)
    turned, _ = multiple_choice(model, contexts[::-1], [r[::-1] for r in options[::-1]])
    assert torch.allclose(turned.flip(0, 1), sums, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_choices_leave_the_model_as_it_was(model, training):
    model.train(training)
    contexts, options = some_items()
    first, _ = multiple_choice(model, contexts, options)
    assert torch.equal(multiple_choice(model, contexts, options)[0], first)  # no dropout
    assert model.training == training
    assert all(parameter.grad is None for parameter in model.parameters())
    model.eval()


@pytest.mark.parametrize(
    ("contexts", "options", "message"),
    [
        ([[1]], [[[1]], [[2]]], "1 contexts with 2 rows"),
        ([[1], [2]], [[[1], [2]], [[1]]], r"rows of \[1, 2\] options"),
        ([[]], [[[1]]], "contexts from 0"),
        ([[1]], [[[]]], "options of 0 to 0 tokens"),
        ([[1]], [[list(range(T + 1))]], f"an option has 1 to {T} tokens"),
    ],
)
def test_items_that_cannot_be_scored_are_refused(model, contexts, options, message):
    with pytest.raises(ValueError, match=message):
        multiple_choice(model, contexts, options)


# ---- contamination --------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 5, 9])
def test_overlap_equals_looking_for_each_n_gram_as_text(n):
    rng = np.random.default_rng(n)
    items = [[f"w{i}" for i in rng.integers(4, size=length)] for length in (1, 2, 4, 7, 12)]
    documents = [[f"w{i}" for i in rng.integers(4, size=length)] for length in (3, 40, 0, 25)]
    texts = [f" {' '.join(document)} " for document in documents]
    shares = []
    for item in items:
        size = min(n, len(item))
        grams = [f" {' '.join(item[i : i + size])} " for i in range(len(item) - size + 1)]
        shares.append(np.mean([any(gram in text for text in texts) for gram in grams]))
    assert ngram_overlap(items, documents, n) == pytest.approx(shares)


def test_a_planted_item_is_found_and_not_across_two_documents():
    item = ["shall", "i", "compare", "thee", "to", "a", "summer's", "day"]
    assert ngram_overlap([item], [["so", *item, "so"]], 8) == [1.0]
    assert ngram_overlap([item], [item[:4], item[4:]], 8) == [0.0]
    assert ngram_overlap([item, item[:3]], [item[:4]], 8) == [0.0, 1.0]


def test_documents_are_read_once_and_ids_will_do():
    documents = ([i, i + 1, i + 2] for i in range(10))
    assert ngram_overlap([[3, 4], [4, 3]], documents, 2) == [1.0, 0.0]
    assert ngram_overlap([], [[1]], 2) == []


@pytest.mark.parametrize("form", [torch.tensor, np.array, tuple, iter], ids=lambda form: form.__name__)
def test_ids_in_any_form_are_found_in_documents(form):
    """Two tensors of the same id are not the same key: a leak was reported as 0.0."""
    assert ngram_overlap([form([1, 2, 3])], [form([0, 1, 2, 3])], 2) == [1.0]
    assert ngram_overlap([[1, 2, 3]], iter([form([0, 1, 2])]), 2) == [0.5]


def test_a_text_is_no_row_of_words():
    for items, documents in (
        ("to be", [["to"]]),
        (["to be"], [["to"]]),
        ([["to"]], "to"),
        ([["to"]], ["to be"]),
    ):
        with pytest.raises(ValueError, match="give a row"):
            ngram_overlap(items, documents, 2)


def test_equal_options_are_a_tie_wherever_they_stand(model):
    sums, _ = multiple_choice(model, [[1, 2, 3]], [[[4, 5], [6], [4, 5], [4, 5, 6]]])
    assert sums[0, 0].item() == pytest.approx(sums[0, 2].item(), abs=1e-6)
    alone, _ = multiple_choice(model, [[1, 2, 3]], [[[4, 5]]])
    assert sums[0, 0].item() == pytest.approx(alone.item(), abs=1e-5)


@pytest.mark.parametrize(
    ("contexts", "options"), [([], []), ([[1]], [[]]), ([[1]], []), ([[1]], [[[1]], [[2]]])]
)
def test_items_without_options_are_refused(model, contexts, options):
    with pytest.raises(ValueError, match="give the same number of options"):
        multiple_choice(model, contexts, options)


@pytest.mark.parametrize(("items", "n"), [([[1]], 0), ([[1], []], 2)])
def test_n_grams_that_do_not_exist_are_refused(items, n):
    with pytest.raises(ValueError, match="must be at least 1, and each item must hold a word"):
        ngram_overlap(items, [[1]], n)
