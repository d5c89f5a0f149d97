"""Shannon's guessing game against a model: its state and score in a plain class, its face in widgets.

Dimensions: N characters of a text, A = 27 symbols.
"""

import math

import numpy as np

from llmcourse.teach.chapters.ch01_background.entropy import ALPHABET, entropy_bounds, guess_ranks, symbol_of


class GuessingGame:
    """The game on one text: the reader guesses symbol after symbol, and so does a model.

    `probabilities` (N, A) are the model's, one row for each character. The first `first` characters
    are shown; characters without a symbol, such as commas, are given away. `guesses` and
    `model_guesses` keep the score, one number for each symbol; `model_bits` its -log2 p.
    Raises ValueError when nothing is left to guess or the rows do not fit the text.

    >>> game = GuessingGame("Ah, so", np.full((6, 27), 1 / 27), first=4)
    >>> game.guess("t"), game.guess("s"), game.guesses, game.shown
    (False, True, [2], 'Ah, s')
    """

    def __init__(self, text: str, probabilities, first: int = 0):
        self.text, self.probabilities, self.position = text, np.asarray(probabilities), first
        if self.probabilities.shape != (len(text), len(ALPHABET)):
            raise ValueError(
                f"probabilities of the shape {self.probabilities.shape} for {len(text)} characters: "
                f"({len(text)}, {len(ALPHABET)}) is needed, one row for each"
            )
        self.tried: list[str] = []
        self.guesses: list[int] = []
        self.model_guesses: list[int] = []
        self.model_bits: list[float] = []
        self._give_away()
        if self.finished:
            raise ValueError(f"first={first} leaves no letter of {len(text)} characters: show fewer")

    def _give_away(self) -> None:
        while not self.finished and symbol_of(self.text[self.position]) is None:
            self.position += 1

    @property
    def finished(self) -> bool:
        """True when the whole text is shown."""
        return self.position >= len(self.text)

    @property
    def shown(self) -> str:
        """The text up to the character that is to be guessed."""
        return self.text[: self.position]

    def guess(self, symbol: str) -> bool:
        """Return True for a hit, which uncovers the character; False for a miss.

        Any case will do; "_" is a space too. Raises ValueError, and counts nothing, for what is
        not in the alphabet, was tried already, or comes after the end.
        """
        symbol = " " if symbol == "_" else symbol.lower()
        if self.finished:
            raise ValueError("the game is over: start a new one with another text")
        if len(symbol) != 1 or symbol not in ALPHABET:
            raise ValueError(f"{symbol!r} is not one of 26 letters and the space: try one of them")
        if symbol in self.tried:
            raise ValueError(f"{symbol!r} was tried for this place already: try another")
        self.tried.append(symbol)
        if symbol != symbol_of(self.text[self.position]):
            return False
        self._uncover(len(self.tried))
        return True

    def give_up(self) -> str:
        """Uncover the character at the price of the worst number of guesses, and return it."""
        if self.finished:
            raise ValueError("the game is over: start a new one with another text")
        character = self.text[self.position]
        self._uncover(len(ALPHABET))
        return character

    def _uncover(self, n_guesses: int) -> None:
        row = self.probabilities[self.position][None]
        true = ALPHABET.index(symbol_of(self.text[self.position]))
        self.guesses.append(n_guesses)
        self.model_guesses.append(int(guess_ranks(row, [true])[0]))
        self.model_bits.append(-math.log2(max(row[0, true], 1e-300)))
        self.position, self.tried = self.position + 1, []
        self._give_away()

    def score(self) -> str:
        """Return the score so far, as two lines of text."""
        n = len(self.guesses)
        if n == 0:
            return "no letter guessed yet"
        lines = []
        for name, ranks in (("you", self.guesses), ("model", self.model_guesses)):
            at_once = sum(rank == 1 for rank in ranks)
            _, high = entropy_bounds(ranks)
            lines.append(
                f"{name:5} {at_once:3} of {n} at once, {sum(ranks) / n:.2f} guesses a letter, "
                f"at most {high:.2f} bits"
            )
        return "\n".join(lines) + f"; by its probabilities {sum(self.model_bits) / n:.2f} bits a letter"


def guessing_panel(game: GuessingGame):
    """Return the game as a box of widgets: the text, a field for one letter, a button, the score."""
    import html

    from ipywidgets import HTML, Button, HBox, Layout, Text, VBox

    text, said, score = HTML(), HTML(), HTML()
    entry = Text(placeholder="a letter, or a space", layout=Layout(width="180px"))
    button = Button(description="show it (27 guesses)", layout=Layout(width="180px"))

    def draw(message: str) -> None:
        hidden = "" if game.finished else " <b>▁</b>"
        text.value = f'<pre style="white-space:pre-wrap">{html.escape(game.shown)}{hidden}</pre>'
        said.value = html.escape(message)
        score.value = f"<pre>{html.escape(game.score())}</pre>"
        if game.finished:
            entry.disabled = button.disabled = True

    def on_entry(change) -> None:
        if not change["new"]:
            return
        try:
            wanted = len(game.guesses)
            hit = game.guess(change["new"][-1])
            message = (
                f"Yes. The model needed {game.model_guesses[wanted]}."
                if hit
                else (f"Not {', '.join(repr(s) for s in game.tried)}.")
            )
        except ValueError as error:
            message = str(error)
        entry.value = ""
        draw(message)

    def on_click(_) -> None:
        draw(f"It was {game.give_up()!r}. The model needed {game.model_guesses[-1]}.")

    entry.observe(on_entry, names="value")
    button.on_click(on_click)
    draw("Which letter comes next?")
    return VBox([text, HBox([entry, button]), said, score])


def explore_guessing(game: GuessingGame) -> None:
    """Let the reader play; the score is kept in `game`."""
    from IPython.display import display

    display(guessing_panel(game))
