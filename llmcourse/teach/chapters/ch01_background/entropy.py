"""Models play Shannon's guessing game: letters from tokens, numbers of guesses, bounds on the entropy.

Dimensions: N characters of a text, V tokens, A = 27 symbols: the letters without case, and the space.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence

import numpy as np
import torch

from llmcourse.runtime import evaluating
from llmcourse.teach import plots

ALPHABET = "abcdefghijklmnopqrstuvwxyz "
SHANNON_SENTENCE = (  # Shannon 1951, section 3: 102 symbols with the space at the end
    "There is no reverse on a motorcycle a friend of mine found this out rather dramatically the other day "
)
Predictor = Callable[[Sequence[Sequence[int]]], np.ndarray]  # rows of token ids -> (rows, V) probabilities


def symbol_of(character: str) -> str | None:
    """Return the symbol of the alphabet for a character, None where it has none.

    >>> symbol_of("T"), symbol_of(chr(10)), symbol_of("!")
    ('t', ' ', None)
    """
    if character.isspace():
        return " "
    return character.lower() if character.lower() in ALPHABET else None


def neural_predictor(model, window: int = 64, batch_size: int = 32) -> Predictor:
    """Return a function from rows of token ids to (rows, V): the model's probabilities of what comes next.

    Only the last `window` tokens of each row are read.
    """

    @torch.no_grad()
    def predict(rows):
        device, parts = next(model.parameters()).device, []
        for start in range(0, len(rows), batch_size):
            group = [torch.as_tensor(row[-window:]) for row in rows[start : start + batch_size]]
            ids = torch.nn.utils.rnn.pad_sequence(group, batch_first=True).to(device)
            last = torch.tensor([len(row) - 1 for row in group])
            with evaluating(model):
                logits = model(ids)[torch.arange(len(group)), last]  # what stands after `last` cannot be seen
            parts.append(logits.softmax(-1).cpu().double())
        return torch.cat(parts).numpy()

    return predict


def counted_predictor(ngram) -> Predictor:
    """Return the same function for an `NGramModel`."""
    return lambda rows: np.stack([ngram.next_probabilities(row) for row in rows])


def next_byte_probabilities(predict: Predictor, tokenizer, text: str, context: str = "\n") -> np.ndarray:
    """Return (N, 256): the probability of each next byte of `text`, given all bytes before it.

    A model of tokens becomes a model of bytes by adding up: the next token may have begun at any
    of the last few places, and every token that fits what stands there counts, by its probability
    and by that of a boundary at this place. After a boundary, the text before it is read in its
    usual tokens. Each row sums to 1 and depends on earlier bytes only. One prediction a byte.
    Raises ValueError for a text that is not ASCII, and for an empty `context`.

    Source: the idea: Vieira et al. 2024, arXiv:2412.03719; this version follows one tokenization
    of the past instead of all.
    """
    data = text.encode("utf-8", "surrogatepass")
    if not context or len(data) != len(text):
        raise ValueError(
            f"the context has {len(context)} characters, the text {len(text)} characters in {len(data)} "
            "bytes: give a context of at least one character, and a text of plain ASCII"
        )
    special = set(tokenizer.special_tokens.values())
    pairs = sorted((piece, i) for i, piece in enumerate(tokenizer.token_bytes) if i not in special)
    pieces, order = [piece for piece, _ in pairs], [i for _, i in pairs]
    longest = max(map(len, pieces))
    byte_at = np.array([list(piece.ljust(longest, b"\0")) for piece in pieces])  # (V, longest)
    table = predict([tokenizer.encode(context + text[:k]) for k in range(len(text))])[:, order]
    table = table / table.sum(1, keepdims=True)
    boundary = np.zeros(len(data) + 1)  # how likely a token ended here, and the bytes since then
    boundary[0] = 1.0
    result = np.zeros((len(data), 256))
    for k, byte in enumerate(data):
        first = max(0, k + 1 - longest)
        for i in range(first, k + 1):
            begun = data[i:k]
            fits = slice(bisect_right(pieces, begun), bisect_left(pieces, begun + b"\xff" * (longest + 1)))
            result[k] += boundary[i] * np.bincount(byte_at[fits, k - i], table[i, fits], 256)
            at = bisect_left(pieces, data[i : k + 1])
            if at < len(pieces) and pieces[at] == data[i : k + 1]:
                boundary[k + 1] += boundary[i] * table[i, at]
        boundary[first : k + 2] /= result[k, byte]
        result[k] /= result[k].sum()
    return result


def letter_probabilities(byte_probabilities: np.ndarray) -> np.ndarray:
    """Return (N, A) from (N, 256): each letter without case, any space; other bytes are left out."""
    folded = np.zeros((len(byte_probabilities), len(ALPHABET)))
    for byte in range(128):
        if symbol := symbol_of(chr(byte)):
            folded[:, ALPHABET.index(symbol)] += byte_probabilities[:, byte]
    return folded / folded.sum(1, keepdims=True)


def guess_ranks(probabilities, symbols) -> np.ndarray:
    """Return (N,): the guess at which each true symbol comes, likeliest first; 1 is a hit at once.

    `probabilities` (N, A) and `symbols` (N,), numbers of columns. Ties go to the smaller number.

    >>> guess_ranks([[0.2, 0.5, 0.3]] * 3, [0, 1, 2]).tolist()
    [3, 1, 2]
    """
    p, symbols = np.asarray(probabilities), np.asarray(symbols)
    true = np.take_along_axis(p, symbols[:, None], 1)
    earlier = (p == true) & (np.arange(p.shape[1]) < symbols[:, None])
    return 1 + (p > true).sum(1) + earlier.sum(1)


def entropy_bounds(ranks) -> tuple[float, float]:
    """Return (lower, upper) bounds in bits per symbol on the entropy, from the numbers of guesses.

    With q_i the share of symbols that needed i guesses: the upper bound is the entropy of the q_i,
    the lower one the sum of i (q_i - q_{i+1}) log2 i. The lower bound holds for an ideal guesser,
    whose q_i fall; shares of few symbols are rough. Raises ValueError without ranks, or below 1.

    >>> entropy_bounds([1, 2, 3, 4])
    (2.0, 2.0)

    Source: Shannon 1951, Prediction and Entropy of Printed English, eq. 17.
    """
    ranks = np.asarray(ranks, dtype=np.int64)
    if ranks.size == 0 or ranks.min() < 1:
        raise ValueError(
            f"{ranks.size} ranks, from {ranks.min(initial=1)}: give at least one, counted from 1"
        )
    q = np.bincount(ranks)[1:] / ranks.size
    i = np.arange(1, len(q) + 1)
    lower = float(np.sum(i * (q - np.append(q[1:], 0)) * np.log2(i)))
    upper = float(-np.sum(q[q > 0] * np.log2(q[q > 0])))
    return max(lower, 0.0), max(upper, 0.0)


def guesses_figure(shares: dict, title: str = ""):
    """Draw the shares of symbols that needed 1, 2, ... 5 and more guesses, six for each player; return the axis."""
    axis = plots.new_figure(width=6.0, height=2.5)[1]
    width = 0.8 / len(shares)
    for i, (name, share) in enumerate(shares.items()):
        x = np.arange(6) + (i - (len(shares) - 1) / 2) * width
        axis.bar(x, share, width, label=name, color=plots.COLORS[i], hatch=("", "//", "..", "xx")[i % 4])
    axis.set_xticks(range(6), ["1", "2", "3", "4", "5", "more"])
    axis.set(xlabel="guesses needed", ylabel="share of the symbols", title=title)
    axis.legend(frameon=False)
    return axis
