"""Exercises of chapter 5d: name the illness, and write a probe."""

from functools import partial

import torch
from torch import nn

from llmcourse.model import GPT, ModelConfig
from llmcourse.teach.chapters.ch05d_failure_clinic.illnesses import AGAINST, SIGNS, recognize
from llmcourse.teach.chapters.ch05d_failure_clinic.patients import HEALTHY, ROUNDS
from llmcourse.teach.examine import close
from llmcourse.teach.exercises import exercise, require
from llmcourse.teach.forms import by_name, number, shown


def check_round(round_name: str, given: dict) -> str:
    """Compare a dictionary from letter to illness with the round; say what speaks against a guess."""
    truth = ROUNDS[round_name]
    letters = ", ".join(truth)
    missing = [letter for letter in truth if given.get(letter) in (None, ..., "")]
    require(not missing, f"name an illness for {', '.join(missing)} too (or 'healthy')")
    right, wrong = [], []
    for letter, illness in truth.items():
        guess = recognize(given[letter])
        if guess == illness:
            right.append(letter)
        elif guess is None:
            wrong.append(f"{letter}: {shown(given[letter])} is none of the illnesses in the list above")
        else:
            reason = AGAINST.get(illness, {}).get(guess, SIGNS[guess])
            wrong.append(
                f"{letter} is not {guess!r}: {reason}" if guess != HEALTHY else f"{letter}: {reason}"
            )
    praise = f"{' and '.join(right)} {'is' if len(right) == 1 else 'are'} right. " if right else ""
    require(not wrong, praise + ". ".join(wrong))
    return f"{letters}: all four are named. Run the cell below: what was done to them, and the rule."


@exercise(
    "05d-too-good",
    "Who cheats, and how?",
    minutes=6,
    difficulty=2,
    hints=(
        "Three of the four can look at tokens that they should not know. The fourth need not: its task is too easy.",
        "Compare the two rows 'logit change': does only the next token count, or do later ones too?",
        "Among those for which later tokens count, look at the sums of the attention rows.",
    ),
    wants="value",
    form=partial(by_name, names=tuple(ROUNDS["too good"]), example="no causal mask"),
)
def check_too_good(answer):
    """Round 1: losses below the healthy range."""
    return check_round("too good", answer)


@exercise(
    "05d-stuck",
    "Why do they not learn?",
    minutes=6,
    difficulty=2,
    hints=(
        "Learning needs a gradient, a step, and a weight that moves. Look for the one that is missing.",
        "In one patient all steps are tiny; in one the gradient is mostly zero; in one a parameter never moved.",
        "The one that is left learned first, and lost it again: what pulls on all weights at every step?",
    ),
    wants="value",
    form=partial(by_name, names=tuple(ROUNDS["stuck"]), example="no causal mask"),
)
def check_stuck(answer):
    """Round 2: losses that stay high."""
    return check_round("stuck", answer)


@exercise(
    "05d-restless",
    "Which of them is healthy?",
    minutes=6,
    difficulty=2,
    hints=(
        "One patient is healthy: inside the grey range, with ordinary lab values.",
        "Look at each value at the time when it is first wrong: before training, in the gradient, or in the weights?",
        "A gradient that is longer than the batch's own has something in it from earlier batches.",
    ),
    wants="value",
    form=partial(by_name, names=tuple(ROUNDS["restless"]), example="no causal mask"),
)
def check_restless(answer):
    """Round 3: large losses or gradients."""
    return check_round("restless", answer)


@exercise(
    "05d-elsewhere",
    "Fine in training, bad elsewhere",
    minutes=6,
    difficulty=2,
    hints=(
        "All four have a good training loss. Compare it with the validation loss, and that with ln V = 4.2.",
        "One validation loss is not even the same when it is measured again.",
        "Two see a training text unlike the validation text: one because it is short, one because of its order.",
    ),
    wants="value",
    form=partial(by_name, names=tuple(ROUNDS["fine in training"]), example="no causal mask"),
)
def check_elsewhere(answer):
    """Round 4: validation unlike training."""
    return check_round("fine in training", answer)


class _Peeking(nn.Module):
    """Logits of a causal model, plus a little of the one-hot token `distance` places later."""

    def __init__(self, model: nn.Module, distance: int, strength: float, only: int | None = None):
        super().__init__()
        self.model, self.config, self.distance, self.strength = model, model.config, distance, strength
        self.only = slice(None) if only is None else slice(only, only + 1)  # see this token only

    def forward(self, token_ids):
        """Return logits (B, T, V)."""
        later = nn.functional.one_hot(token_ids, self.config.vocab_size).float().roll(-self.distance, dims=1)
        later[:, -self.distance :] = 0
        seen = torch.zeros_like(later)
        seen[..., self.only] = later[..., self.only]
        return self.model(token_ids) + self.strength * seen


class _Pairs(nn.Embedding):
    """The smallest causal model: logits by the token at the place itself."""

    def __init__(self, vocab_size: int):
        super().__init__(vocab_size, vocab_size)
        self.config = ModelConfig(vocab_size, context_length=12, d_model=8)
        nn.init.normal_(self.weight, std=0.1)


def _within_vocabulary(answer):
    """Return `answer`, which then explains an id that the model does not have."""

    def probe(model, token_ids, place):
        try:
            return answer(model, token_ids, place)
        except (IndexError, RuntimeError) as error:
            beyond = any(said in str(error) for said in ("out of range in self", "smaller than num_classes"))
            require(not beyond, "this model does not have the id you wrote: use % model.config.vocab_size")
            raise

    return probe


@exercise(
    "05d-causality",
    "Write the probe that finds cheats",
    minutes=10,
    difficulty=3,
    hints=(
        "Copy the ids (clone), and change the column `place` to another id, such as (id + 1) % model.config.vocab_size.",
        "Run the model on both in eval mode, or dropout will differ between the two.",
        "Compare logits, not the likeliest tokens, at positions BEFORE `place` only: [:, :place].",
    ),
    wants="function",
    form=number,
    keeps="its input",
)
def check_causality(answer):
    """Causal models give 0, models that peek do not; the input and the model's mode stay as they were."""
    answer = _within_vocabulary(answer)
    torch.manual_seed(0)
    causal = GPT(ModelConfig(11, context_length=12, d_model=16, n_layers=1, dropout=0.3)).eval()
    ids = torch.randint(11, (3, 12))
    ids[:, 6] = torch.tensor([1, 4, 8])
    value = answer(causal, ids, 6)
    with torch.no_grad():
        other = ids.clone()
        other[:, 6] = (other[:, 6] + 1) % 11
        change = (causal(other) - causal(ids)).abs().amax(dim=(0, 2))
    require(
        value < change[6] / 2 or value < 1e-6,
        "a causal model gives more than 0: from `place` on logits may change; compare those before it",
    )
    require(abs(value) < 1e-6, f"a causal model must give 0, yours gives {value:.3g}")
    require(
        not causal.training, "you left a model in training that was in evaluation mode: put back what it was"
    )
    value = answer(causal.train(), ids, 6)
    require(value < 1e-6, "with dropout a causal model gives more than 0: call model.eval() first")
    require(causal.training, "you left a model that was training in evaluation mode: put it back")
    causal.eval()
    require(
        answer(_Peeking(causal, 1, 2.0), ids, 6) > 1e-6,
        "a model that sees the next token gets 0: change the token at `place` to ANOTHER id, and look at "
        "all positions before it, up to place - 1",
    )
    tries = [
        ids[:1] * 0 + i % 11 for i in range(66)
    ]  # an id that is set or drawn is once the one that stands there
    missed = sum(answer(_Peeking(_Pairs(11), 1, 20.0), row, 6) < 1e-6 for row in tries)
    require(
        not missed,
        f"in {missed} of 66 tries nothing changed: the new id may be the one that stands there already. Take one that "
        "is another for sure, such as (id + 1) % model.config.vocab_size",
    )
    for sentence, (model, rows, place, wanted) in _peeking(_Pairs(11), ids).items():
        value = answer(model, rows, place)
        require(
            close(value, wanted, rtol=0.006, atol=0),
            f"{sentence}; it is {wanted} here, and you return {value:.3g}",
        )
    return "0 for a causal model, and any peeking shows, however faint or far. Run it before a long training."


def _peeking(causal: nn.Module, ids: torch.Tensor) -> dict[str, tuple]:
    """Return models that peek, each in a way of its own, by what is missed: with rows, place and right value."""
    faint = "a faint leak is missed or rounded: compare logits, not likeliest tokens, do not round, and set no threshold"
    next_one = _Peeking(causal, 1, 2.0)
    rows = {
        f"a change in row {row} alone: change `place` in EVERY row, and compare all rows": (
            _Peeking(causal, 1, -2.0, only=token),
            ids,
            6,
            2.0,
        )
        for row, token in enumerate(ids[:, 6].tolist())
    }
    return {
        "take the largest absolute change of a single logit": (next_one, ids, 6, 2.0),
        faint: (_Peeking(causal, 1, -0.0123), ids, 6, 0.0123),
        f"{faint} at all": (_Peeking(causal, 1, -4.3e-4), ids, 6, 4.3e-4),
        f"{faint}, however low": (_Peeking(causal, 1, -3.7e-5), ids, 6, 3.7e-5),
        **rows,
        "a model that sees three tokens ahead: use ALL positions before `place`": (
            _Peeking(causal, 3, 2.0),
            ids,
            6,
            2.0,
        ),
        "a model that sees six tokens ahead: use ALL positions, from 0": (
            _Peeking(causal, 6, 2.0),
            ids,
            6,
            2.0,
        ),
        "a logit that can only fall: take the absolute value of the change": (
            _Peeking(causal, 1, 2.0, only=1),
            ids[:1],
            6,
            2.0,
        ),
        "right for place 6, but not for place 3": (next_one, ids, 3, 2.0),
        "right for place 6, but not for the last place": (next_one, ids, 11, 2.0),
        "right for three rows, but not for one": (next_one, ids[1:2], 6, 2.0),
        "right for 11 ids, but not for 3": (_Peeking(_Pairs(3), 1, 2.0), ids % 3, 6, 2.0),
    }
