"""Shannon's guessing game: bytes from tokens against enumeration, bounds against closed forms, the widget."""

import math

import numpy as np
import pytest
import torch

from llmcourse.evaluate.likelihood import evaluate_loss, token_losses
from llmcourse.model import GPT, ModelConfig
from llmcourse.ngrams import NGramModel
from llmcourse.teach.chapters.ch01_background import entropy, guess
from llmcourse.teach.chapters.ch01_background.entropy import (
    ALPHABET,
    entropy_bounds,
    guess_ranks,
    letter_probabilities,
    symbol_of,
)
from llmcourse.teach.chapters.ch01_background.guess import GuessingGame, explore_guessing, guessing_panel
from llmcourse.teach.chapters.ch01_background.published import models_figure, read_published
from llmcourse.tokenizer import BPETokenizer


@pytest.fixture(scope="module")
def tokenizer() -> BPETokenizer:
    return BPETokenizer.train(["the cat sat on the mat. that cat then sat there."] * 3, vocab_size=275)


@pytest.fixture(scope="module")
def model(tokenizer) -> GPT:
    torch.manual_seed(0)
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size, context_length=32, d_model=16, n_heads=2, n_layers=1
    )
    model = GPT(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
    return model


# ---- from tokens to bytes -------------------------------------------------------------------


def begins_with(start: bytes, pieces: dict[bytes, float]) -> float:
    """The probability that a text of independent tokens begins with `start`: every split is tried."""
    total = 0.0
    for piece, p in pieces.items():
        if piece.startswith(start):
            total += p
        elif piece and start.startswith(piece):
            total += p * begins_with(start[len(piece) :], pieces)
    return total


def test_bytes_of_independent_tokens_equal_the_sum_over_all_splits(tokenizer):
    weights = np.random.default_rng(0).random(tokenizer.vocab_size) ** 4
    special = set(tokenizer.special_tokens.values())
    pieces = {
        b: w for i, (b, w) in enumerate(zip(tokenizer.token_bytes, weights, strict=True)) if i not in special
    }
    norm = sum(pieces.values())
    pieces = {piece: w / norm for piece, w in pieces.items()}
    text = "that cat then"
    p = entropy.next_byte_probabilities(lambda rows: np.tile(weights, (len(rows), 1)), tokenizer, text)
    for k in range(len(text)):
        before, now = text[:k].encode(), text[: k + 1].encode()
        expected = begins_with(now, pieces) / (begins_with(before, pieces) if k else 1.0)
        assert p[k, now[-1]] == pytest.approx(expected, rel=1e-9), k
    assert any(len(piece) > 2 for piece in pieces)


def test_rows_sum_to_one_and_know_nothing_of_later_bytes(tokenizer, model):
    predict = entropy.neural_predictor(model, window=16)
    one = entropy.next_byte_probabilities(predict, tokenizer, "the cat sat")
    two = entropy.next_byte_probabilities(predict, tokenizer, "the cat ran")
    np.testing.assert_allclose(one.sum(1), 1, rtol=1e-12)
    np.testing.assert_allclose(one[:9], two[:9], atol=1e-9)
    assert one.shape == (11, 256)


def test_a_tokenizer_of_bytes_gives_the_model_itself(model):
    tokenizer = BPETokenizer.from_merges([], special_tokens=["<|endoftext|>"])
    ngram = NGramModel(list(b"the cat sat on the mat "), tokenizer.vocab_size, 3)
    text = "cat the"
    p = entropy.next_byte_probabilities(entropy.counted_predictor(ngram), tokenizer, text, context="the ")
    for k in range(len(text)):
        expected = ngram.next_probabilities(list(b"the ") + list(text[:k].encode()))[:256]
        np.testing.assert_allclose(p[k], expected / expected.sum(), rtol=1e-9)


def test_the_neural_predictor_is_the_model_whatever_stands_beside_it(model):
    rows = [[1, 2, 3], [4], list(range(20)), [5, 6]]
    p = entropy.neural_predictor(model, window=8, batch_size=3)(rows)
    for row, probabilities in zip(rows, p, strict=True):
        with torch.no_grad():
            expected = model(torch.tensor([row[-8:]]))[0, -1].softmax(-1).numpy()
        np.testing.assert_allclose(probabilities, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "context"), [("naïve", "\n"), ("plain", ""), ("研究", "a"), ("half \ud83d", "a")]
)
def test_text_that_does_not_fit_is_refused(tokenizer, text, context):
    with pytest.raises(ValueError, match="plain ASCII"):
        entropy.next_byte_probabilities(lambda rows: np.ones((len(rows), 275)), tokenizer, text, context)


def test_letters_fold_case_and_spaces_and_leave_the_rest_out():
    p = np.zeros((1, 256))
    p[0, list(b"aA \nz!")] = [0.1, 0.2, 0.1, 0.1, 0.3, 0.2]
    folded = letter_probabilities(p)
    assert folded.shape == (1, 27)
    np.testing.assert_allclose(folded[0, [0, 25, 26]], np.array([0.3, 0.3, 0.2]) / 0.8)
    assert folded.sum() == pytest.approx(1)
    assert [symbol_of(c) for c in "aZ \t,é研"] == ["a", "z", " ", " ", None, None, None]


def test_the_sentence_has_the_published_number_of_symbols():
    symbols = [symbol_of(c) for c in entropy.SHANNON_SENTENCE]
    assert None not in symbols
    assert len(symbols) == sum(row["symbols"] for row in read_published("shannon_guesses")) == 102


# ---- numbers of guesses ---------------------------------------------------------------------


def test_ranks_are_places_in_the_sorted_order():
    p = np.random.default_rng(1).random((50, 27))
    symbols = np.random.default_rng(2).integers(0, 27, 50)
    expected = [list(np.argsort(-row, kind="stable")).index(s) + 1 for row, s in zip(p, symbols, strict=True)]
    assert guess_ranks(p, symbols).tolist() == expected
    assert guess_ranks(np.ones((3, 4)), [0, 2, 3]).tolist() == [1, 3, 4]  # ties: each place once


@pytest.mark.parametrize("n", [1, 2, 7, 27])
def test_bounds_meet_for_equally_likely_symbols(n):
    assert entropy_bounds(list(range(1, n + 1)) * 3) == pytest.approx((math.log2(n), math.log2(n)))


def test_bounds_of_a_worked_example():
    """Shares 1/2, 1/4, 1/4: upper 1.5; lower 2 (1/4 - 1/4) log 2 + 3 (1/4) log 3."""
    low, high = entropy_bounds([1, 1, 2, 3])
    assert high == pytest.approx(1.5)
    assert low == pytest.approx(0.75 * math.log2(3))


def test_bounds_hold_for_an_ideal_guesser():
    """The entropy of a source with memory lies between them when each distribution is known."""
    rng = np.random.default_rng(0)
    table = rng.dirichlet(np.full(6, 0.5), size=4)  # the distribution in each of four states
    states = rng.integers(0, 4, 200_000)
    symbols = (table[states].cumsum(1) > rng.random((len(states), 1))).argmax(1)
    entropy_of_source = np.mean([-np.sum(row * np.log2(row)) for row in table])
    low, high = entropy_bounds(guess_ranks(table[states], symbols))
    assert low < entropy_of_source < high


@pytest.mark.parametrize("ranks", [[], [0, 1], [-1]])
def test_ranks_that_are_none_are_refused(ranks):
    with pytest.raises(ValueError, match="counted from 1"):
        entropy_bounds(ranks)


# ---- the game -------------------------------------------------------------------------------


def new_game(text="To be, or", first=3):
    p = np.full((len(text), 27), 0.5 / 26)
    p[:, ALPHABET.index("e")] = 0.5
    return GuessingGame(text, p, first)


def test_a_whole_game_with_its_score():
    game = new_game()
    assert (game.shown, game.finished) == ("To ", False)
    assert game.score() == "no letter guessed yet"
    assert [game.guess(s) for s in ("a", "E", "B")] == [False, False, True]
    assert game.guess("e")
    assert game.shown == "To be,"  # the comma was given
    assert game.guess("_")
    assert game.give_up() == "o"
    assert game.guess("R")
    assert game.finished
    assert game.shown == game.text
    assert game.guesses == [3, 1, 1, 27, 1]
    assert game.model_guesses == [3, 1, 27, 15, 18]  # e first, then the alphabet, the space last
    assert sum(game.model_bits) == pytest.approx(1 + 4 * math.log2(52))
    you, model = game.score().splitlines()
    assert you.startswith("you     3 of 5 at once, 6.60 guesses a letter, at most ")
    assert model.endswith(f"{(1 + 4 * math.log2(52)) / 5:.2f} bits a letter")


@pytest.mark.parametrize(
    ("symbol", "match"), [("", "not one of"), ("ab", "not one of"), ("!", "not one of"), ("é", "not")]
)
def test_a_guess_outside_the_alphabet_counts_nothing(symbol, match):
    game = new_game()
    with pytest.raises(ValueError, match=match):
        game.guess(symbol)
    assert (game.tried, game.guesses) == ([], [])


def test_a_guess_twice_or_after_the_end_counts_nothing():
    game = new_game("a bc", first=2)
    game.guess("x")
    with pytest.raises(ValueError, match="tried for this place already"):
        game.guess("X")
    assert game.tried == ["x"]
    assert game.guess("b")
    assert game.guess("c")
    for move in (lambda: game.guess("c"), game.give_up):
        with pytest.raises(ValueError, match="the game is over"):
            move()
    assert game.guesses == [2, 1]


def test_a_game_that_cannot_be_played_is_refused():
    with pytest.raises(ValueError, match=r"\(9, 27\) is needed"):
        GuessingGame("To be, or", np.ones((9, 26)))
    with pytest.raises(ValueError, match="leaves no letter"):
        new_game("so!", first=2)
    with pytest.raises(ValueError, match="leaves no letter"):
        new_game("", first=0)


def test_a_symbol_of_probability_zero_does_not_break_the_score():
    game = GuessingGame("ab", np.eye(27)[[0, 0]])
    assert game.guess("a")
    assert game.guess("b")
    assert math.isfinite(sum(game.model_bits))


def test_the_panel_plays_the_game():
    game = new_game()
    panel = guessing_panel(game)
    text, (entry, button), said, score = panel.children[0], panel.children[1].children, *panel.children[2:]
    assert "To " in text.value
    entry.value = "e"
    assert (entry.value, said.value) == ("", "Not &#x27;e&#x27;.")
    entry.value = "b"
    assert said.value == "Yes. The model needed 3."
    assert "0 of 1 at once" in score.value
    entry.value = "é"
    assert "try one of them" in said.value
    button.click()
    assert "It was &#x27;e&#x27;" in said.value
    for symbol in " or":
        entry.value = symbol
    assert game.finished
    assert entry.disabled
    assert button.disabled


def test_html_in_a_text_is_shown_as_text():
    panel = guessing_panel(new_game("a<b>c d", first=5))
    assert "a&lt;b&gt;c" in panel.children[0].value


def test_explore_shows_the_panel(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    explore_guessing(new_game())
    assert len(shown) == 1
    assert guess.ALPHABET == ALPHABET


# ---- published figures, and the loss of each token ------------------------------------------


def test_every_published_row_has_a_source_and_fits_the_rule_of_six():
    rows = read_published("language_models")
    assert len(rows) == len({row["model"] for row in rows}) == 23
    assert all(row["source"] and row["where"] for row in rows)
    assert all(row["active_parameters"] <= row["parameters"] for row in rows)
    assert [row["year"] for row in rows] == sorted(row["year"] for row in rows)
    for row in rows:
        if row["training_flop"] and row["tokens"]:
            ratio = row["training_flop"] / (6 * row["active_parameters"] * row["tokens"])
            usual = {"T5-11B": 0.5, "Gopher": 1.14}.get(row["model"], 1.0)  # the card says why
            assert ratio == pytest.approx(usual, rel=0.05), row["model"]


def test_all_published_tables_can_be_read_and_name_their_source():
    for name in ("entropy_of_english", "scaling_laws", "shannon_guesses"):
        assert all(row["source"] and row["where"] for row in read_published(name))
    assert all(row["low"] <= row["high"] for row in read_published("entropy_of_english"))
    with pytest.raises(FileNotFoundError, match="'entropy_of_english', 'language_models'"):
        read_published("no such table")


def test_the_published_law_prefers_chinchilla_to_gopher():
    for row in read_published("scaling_laws"):
        loss = {
            D: row["E"] + row["A"] / N ** row["alpha"] + row["B"] / D ** row["beta"]
            for N, D in ((280e9, 300e9), (70e9, 1.4e12))
        }
        assert loss[1.4e12] < loss[300e9]


def test_the_figures_hold_every_known_model_and_every_player():
    import matplotlib.pyplot as plt

    plt.switch_backend("Agg")
    rows = [row | {"published": bool(row["training_flop"])} for row in read_published("language_models")]
    axes = models_figure(rows, {"GPT-3": (0, 5)}, star="GPT-3")
    assert [len(axis.lines) for axis in axes] == [
        sum(row["tokens"] is not None for row in rows) + 3,
        sum(row["training_flop"] is not None for row in rows),
    ]
    sparse = next(row for row in rows if row["model"] == "Kimi K2")  # a mixture: few parameters work at once
    assert (sparse["active_parameters"], sparse["tokens"]) in [
        (line.get_xdata()[0], line.get_ydata()[0]) for line in axes[0].lines
    ]
    axis = entropy.guesses_figure({"a": np.full(6, 1 / 6), "b": np.eye(6)[0]}, "two")
    assert len(axis.patches) == 12
    plt.close("all")


@pytest.mark.parametrize("stride", [None, 5])
def test_token_losses_are_one_number_for_each_token_but_the_first(model, stride):
    ids = torch.randint(0, 270, (100,), generator=torch.Generator().manual_seed(0))
    losses = token_losses(model, ids, stride)
    assert losses.shape == (99,)
    assert losses.mean().item() == pytest.approx(evaluate_loss(model, ids, stride), rel=1e-5)
    with torch.no_grad():
        first = model(ids[None, :5])[0].log_softmax(-1)[range(5), ids[1:6]]
    np.testing.assert_allclose(-first, losses[:5], atol=1e-5)
