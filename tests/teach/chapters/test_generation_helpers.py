"""What chapter 6c counts and draws, against the model's own numbers and by what the figures show."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from llmcourse.evaluate.diversity import distinct_n, repetition, self_bleu
from llmcourse.evaluate.likelihood import evaluate_loss
from llmcourse.model import GPT, ModelConfig
from llmcourse.ngrams import NGramModel
from llmcourse.sampling import keep_top_k
from llmcourse.teach.chapters.ch06c_generation import figures, measures
from llmcourse.tokenizer import BPETokenizer

V = 300
TOKENIZER = BPETokenizer.train(["the night is long and the king is dead"] * 3, vocab_size=V)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def model():
    torch.manual_seed(0)
    return GPT(ModelConfig(V, context_length=32, d_model=16, n_layers=1)).eval()


def ids(B=3, T=6, seed=0):
    return torch.randint(V, (B, T), generator=torch.Generator().manual_seed(seed))


def test_surprise_is_the_loss_of_what_follows_the_prompt():
    gpt, prompts, rows = model(), ids(T=1), ids(T=8, seed=1)
    wanted = np.mean([evaluate_loss(gpt, torch.cat(pair)) for pair in zip(prompts, rows, strict=True)])
    assert measures.surprise(gpt, prompts, rows) == pytest.approx(wanted, rel=1e-5)
    ngrams = NGramModel(ids(1, 200)[0], V, order=2)
    by_hand = [-np.log(ngrams.next_probabilities([*p, *row[:i]])[row[i]])
               for p, row in zip(prompts.tolist(), rows.tolist(), strict=True) for i in range(8)]  # fmt: skip
    assert measures.surprise(ngrams, prompts, rows) == pytest.approx(np.mean(by_hand))


def test_numbers_are_those_of_the_package():
    judge, prompts, rows = NGramModel(ids(1, 200)[0], V, order=2), ids(), ids(T=8, seed=1) % 256
    texts = [TOKENIZER.decode(row) for row in rows]
    wanted = (
        distinct_n(rows, 2),
        repetition(rows, 3),
        self_bleu(texts),
        measures.surprise(judge, prompts, rows),
    )
    assert measures.numbers(judge, TOKENIZER, prompts, rows) == wanted


def test_passes_count_what_speculation_did():
    certain = measures.passes(model(), ids(2), 9, seed=0, temperature=0, n_draft=0)
    assert certain.tokens_a_pass == 1
    assert certain.kept_share == 0

    def nothing_is_likely(token_ids):
        return {0: 1.0}

    drafted = measures.passes(model(), ids(2), 9, seed=0, draft=nothing_is_likely, n_draft=3)
    assert 1 <= drafted.tokens_a_pass < 4
    assert 0 <= drafted.kept_share < 1
    assert drafted.seconds > 0
    prices = measures.prices(model(), ids(1)[0], [1, 3])
    assert list(prices) == [1, 3]
    assert min(prices.values()) > 0


def test_a_guess_is_kept_or_replaced_so_that_the_models_distribution_comes():
    p = np.array([0.5, 0.2, 0.2, 0.1])
    tried = measures.keep_or_replace(p, {0: 1, 1: 3}, 20_000, seed=0)
    assert tried.q.tolist() == [0.25, 0.75, 0, 0]
    assert tried.kept == pytest.approx(0.25 + 0.2, abs=0.015)  # the sum of min(p, q); 4 standard deviations
    assert tried.written == pytest.approx(p, abs=0.015)
    assert measures.distance(tried.q, p) == pytest.approx(1 - 0.45)
    assert measures.distance(p, p) == 0


def test_kept_by_counts_what_a_rule_leaves():
    assert figures.kept_by(lambda scores: keep_top_k(scores, 5), torch.randn(V)) == 5


def test_figures_show_what_they_are_given():
    p = torch.tensor([0.1, 0.6, 0.3])
    axis = figures.shares({"here": p})
    assert axis.lines[0].get_ydata() == pytest.approx([0.6, 0.9, 1.0])
    axis = figures.temperatures(p.log(), ["a", "b", "c"], (1.0, 0.5), n=2)
    heights = [bar.get_height() for bar in axis.patches]
    assert heights[:3] == pytest.approx([0.6, 0.3, 0.1])
    assert sum(heights[3:]) == pytest.approx(1)
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["b", "c", "1 others"]
    axes = figures.cuts({"here": p, "there": p}, {"top-k 2": {"here": 2, "there": 3}}, n=3)
    assert [axis.lines[0].get_xdata()[0] for axis in axes] == [2.5, 3.5]
    axis = figures.plane({"T 1": (0.5, 4.0), "us": (0.8, 5.0)}, {"T 1": "temperature"}, "us")
    assert {line.get_label() for line in axis.lines} == {"temperature", "us"}
    axis = figures.padded([["a"], ["b", "c"]])
    assert [text.get_text() for text in axis.texts] == ["a", "0", "b", "0", "c", "1"]
    axis = figures.drafted(
        np.array([0.3, 0.7]), np.array([0.5, 0.5]), np.array([0.31, 0.69]), ["a", "b"], n=2
    )
    assert [bar.get_height() for bar in axis.patches] == pytest.approx([0.7, 0.3, 0.5, 0.5, 0.69, 0.31])
    axis = figures.speculation({"speed": {0: 1.0, 2: 1.5}})
    assert axis.lines[0].get_ydata() == pytest.approx([1.0, 1.5])
    axis = figures.chosen({"x": p, "y": p}, 0.2)
    assert [set(line.get_ydata()) == {0.2} for line in axis.lines] == [False, False, True]
