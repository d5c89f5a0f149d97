"""Constrained decoding: in each state of an automaton, which tokens may come next.

The automaton reads bytes and a model writes tokens, so each token's bytes are walked through the
automaton. A token may come if it does not get stuck: from every other state a text can be completed.
The end token may come exactly where the text is complete. No other special token may.

What is written always fits. It is not drawn from the model's distribution over the texts that fit: a
mask looks at the next token alone, and a token that is likely now may leave only what is unlikely later
(Park et al. 2024, arXiv:2405.21047). The probability that the masks leave, multiplied over the steps, is
the weight that makes up for it. Any tokens whose bytes fit may come, also where `encode` would cut the
same text otherwise.

Dimensions: B rows, T time, V vocabulary, S states.
"""

from collections.abc import Callable
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from llmcourse.decode.automaton import STUCK, Automaton
from llmcourse.decode.regular import compile_regular
from llmcourse.support.inputs import id_row, whole
from llmcourse.tokenizer import END_OF_TEXT, BPETokenizer

ENDED = -2  # the end token has been written
MAX_CACHED = 1 << 24  # numbers of all rows kept, 64 MB


class Constraint:
    """Lets a model write only what an automaton accepts; `pattern` is one, or a regular expression.

    `end` is the name of the special token after the text. Raises ValueError when the tokenizer lacks it,
    or a byte that the texts need: then a model could come to where no token may follow. With all bytes it
    cannot: a state that is not accepting has a byte that leads on, and that byte is a token.

    >>> tokenizer = BPETokenizer.train(["to be or not to be"] * 3, vocab_size=265)
    >>> constraint = Constraint("to (be|bet)", tokenizer)
    >>> tokenizer.tokens(constraint.allowed(tokenizer.encode("to b")).nonzero()[:, 0].tolist())
    ['e']
    >>> tokenizer.tokens(constraint.allowed(tokenizer.encode("to be")).nonzero()[:, 0].tolist())
    ['t', '<|endoftext|>']

    Source: Willard and Louf 2023, arXiv:2307.09702, sec. 3.
    """

    def __init__(self, pattern: Automaton | str, tokenizer: BPETokenizer, end: str = END_OF_TEXT):
        self.automaton = pattern if isinstance(pattern, Automaton) else compile_regular(pattern)
        self.tokenizer = tokenizer
        if end not in tokenizer.special_tokens:
            raise ValueError(
                f"the tokenizer has no special token {end!r}, only {sorted(tokenizer.special_tokens)}: name "
                "the one that ends a text, or add one, tokenizer.with_special_tokens([...])"
            )
        self.end_id = tokenizer.special_tokens[end]
        self._special = set(tokenizer.special_tokens.values())
        ids = [i for i, token in enumerate(tokenizer.token_bytes) if token and i not in self._special]
        ids.sort(key=lambda i: -len(tokenizer.token_bytes[i]))  # the longest first: see `next_states`
        tokens = [tokenizer.token_bytes[i] for i in ids]
        known = set(tokens)
        needed = np.flatnonzero((self.automaton.table != STUCK).any(axis=0))
        if lacking := [byte for byte in needed.tolist() if bytes([byte]) not in known]:
            raise ValueError(
                f"the tokenizer has no token for the byte {lacking[0]:#04x} alone, and {len(lacking) - 1} "
                "others that the texts may need: take a byte-level one with all 256, or exclude these "
                "characters from the expression"
            )
        self._ids = np.array(ids)
        lengths = np.array([len(token) for token in tokens])
        longer = [int((lengths > j).sum()) for j in range(lengths.max(initial=0))]
        self._columns = [np.array([token[j] for token in tokens[:n]]) for j, n in enumerate(longer)]
        self._rows: dict[int, np.ndarray] = {}
        self._distances: np.ndarray | None = None

    # ---- one text -------------------------------------------------------------------------------

    def next_states(self, state: int) -> np.ndarray:
        """Return the state after each token, (V,), from `state` on: STUCK for those that may not come.

        All tokens walk at once, byte by byte; because the longest come first, those that have a j-th
        byte are the first ones. A row is computed when its state is first met, and kept.
        """
        if state not in self._rows:
            if (len(self._rows) + 1) * self.tokenizer.vocab_size > MAX_CACHED:
                self._rows.clear()
            at = np.full(len(self._ids), state)
            for column in self._columns:
                at[: len(column)] = self.automaton.table[at[: len(column)], column]
            row = np.full(self.tokenizer.vocab_size, STUCK, dtype=np.int32)
            row[self._ids] = at
            self._rows[state] = row
        return self._rows[state]

    def advance(self, state: int, token_id: int) -> int:
        """Return the state after one more token: one of the automaton, ENDED, or STUCK if it does not fit."""
        if token_id == self.end_id:
            return ENDED if state == ENDED or self._accepts(state) else STUCK
        if state < 0 or token_id in self._special:
            return STUCK
        return self.automaton.walk(state, self.tokenizer.token_bytes[token_id])

    def state(self, ids) -> int:
        """Return the state after the written `ids` (without the prompt)."""
        return reduce(self.advance, id_row(ids, self.tokenizer.vocab_size).tolist(), 0)

    def _accepts(self, state: int) -> bool:
        return state >= 0 and bool(self.automaton.accepting[state])

    def is_complete(self, ids) -> bool:
        """Return whether the written `ids` are a whole text; if not, it was cut off, or does not fit."""
        state = self.state(ids)
        return state == ENDED or self._accepts(state)

    def forced(self, ids) -> str:
        """Return the text that must follow `ids`: it could be written without asking the model.

        >>> tokenizer = BPETokenizer.from_merges([])
        >>> Constraint("(line|list) ends", tokenizer).forced(tokenizer.encode("lin"))
        'e ends'
        """
        state = self.state(ids)
        return "" if state < 0 else self.automaton.forced(state).decode(errors="ignore")

    def allowed(self, ids, tokens_left: int | None = None) -> Tensor:
        """Return which tokens may follow the written `ids`: (V,) of truth values.

        With `tokens_left`, only those after which the text can be completed with the tokens that then
        are left. Raises ValueError if `ids` do not fit, or if that many tokens do not suffice.
        """
        return self._mask(self.state(ids), ids, tokens_left)

    def _mask(self, state: int, ids, tokens_left: int | None) -> Tensor:
        if state == STUCK:
            raise ValueError(
                f"the text {self.tokenizer.decode(ids)[-60:]!r} does not fit: was everything after the prompt "
                "written under this constraint, and is the prompt's length right?"
            )
        mask = np.zeros(self.tokenizer.vocab_size, dtype=bool)
        if state != ENDED:
            row = self.next_states(state)
            mask = row != STUCK
            if tokens_left is not None:
                self._check_room(state, tokens_left)
                mask &= self.distances()[row] < tokens_left
        mask[self.end_id] = state == ENDED or self._accepts(state)
        return torch.from_numpy(mask)

    # ---- a batch, while it is written ---------------------------------------------------------

    def after(
        self, prompt_length: int, max_new_tokens: int | None = None
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the function `process(token_ids, logits)` for text that begins after the prompt.

        It maps ids (B, T), prompt included, and logits (B, V) to logits with -inf for what may not come.
        Each row has its own state. With `max_new_tokens`, every row is complete after that many.
        Raises ValueError for a row that does not fit.

        >>> tokenizer = BPETokenizer.from_merges([])
        >>> process = Constraint("[ab]+", tokenizer).after(prompt_length=1)
        >>> process(torch.tensor([[7]]), torch.zeros(1, 257)).isfinite().nonzero()[:, 1].tolist()
        [97, 98]
        """
        prompt_length = whole(prompt_length, "prompt_length", least=0)
        if max_new_tokens is not None:
            self._check_room(0, whole(max_new_tokens, "max_new_tokens", least=0))
        states: dict[tuple, int] = {}  # of the rows of the last call, which grow by a token, in any order

        def process(token_ids: Tensor, logits: Tensor) -> Tensor:
            rows = [tuple(row) for row in token_ids[:, prompt_length:].tolist()]
            now = {
                row: self.advance(states[row[:-1]], row[-1])
                if row and row[:-1] in states
                else self.state(row)
                for row in rows
            }
            states.clear()
            states.update(now)
            left = None if max_new_tokens is None else max_new_tokens - len(rows[0])
            masks = torch.stack([self._mask(now[row], row, left) for row in rows])  # (B, V)
            if (padding := logits.shape[-1] - masks.shape[-1]) < 0:
                raise ValueError(
                    f"logits have {logits.shape[-1]} columns and the tokenizer {masks.shape[-1]} tokens: the "
                    "model and the tokenizer do not belong together"
                )
            masks = torch.nn.functional.pad(masks, (0, padding))  # rows of a padded vocabulary
            return logits.masked_fill(~masks.to(logits.device), float("-inf"))

        return process

    # ---- how far it is ----------------------------------------------------------------------------

    def distances(self) -> np.ndarray:
        """Return how many tokens at least complete a text from each state, (S + 1,); the last is STUCK's.

        The shortest ways of all states at once, backwards from the accepting ones.
        """
        if self._distances is None:
            sources: list[list[int]] = [[] for _ in range(len(self.automaton))]
            for state in range(len(self.automaton)):
                for target in np.unique(self.next_states(state)).tolist():
                    if target != STUCK:
                        sources[target].append(state)
            distances = np.full(len(self.automaton) + 1, np.iinfo(np.int64).max)
            level = np.flatnonzero(self.automaton.accepting).tolist()
            distances[level] = 0
            while level:
                level = [s for target in level for s in self._nearer(sources[target], distances, target)]
            self._distances = distances
        return self._distances

    @staticmethod
    def _nearer(sources: list[int], distances: np.ndarray, target: int):
        for source in sources:
            if distances[source] > distances[target] + 1:
                distances[source] = distances[target] + 1
                yield source

    def _check_room(self, state: int, tokens: int) -> None:
        least = int(self.distances()[state])
        if tokens < least:
            raise ValueError(f"{tokens} tokens do not suffice: the shortest text that fits needs {least}")
