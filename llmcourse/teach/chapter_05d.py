"""Exercises of chapter 5d: name the illness, and write a probe."""

import re
from collections.abc import Mapping

import torch
from torch import nn

from llmcourse.model import GPT, ModelConfig
from llmcourse.teach.checks import number
from llmcourse.teach.clinic import BUGS
from llmcourse.teach.exercises import exercise, require
from llmcourse.teach.patients import HEALTHY, ROUNDS

WORDS = {  # the first pattern that is found in an answer names it; the special ones come first
    HEALTHY: r"healthy|nothing( is)? wrong|^(ok|okay|fine|none|well|normal|no bug)$",
    "evaluation mode forgotten": r"\beval|dropout",
    "gradients not reset": r"zero[ _]?grad|grad\w*.*(not|never|without|left|accumul|pil)|"
    r"(not|never|forgot\w*|missing|no) .*(reset|clear|zero).*grad|accumulat",
    "float16 underflow": r"underflow|fp16|float16|half|loss scal|scaler",
    "weight decay too strong": r"decay|regulari[sz]",
    "learning rate too low": r"(learning rate|\blr\b|step).*(low|small|tiny|slow|/ ?100|1/100|0\.01)|"
    r"(low|small|tiny|slow)( an?)? (learning rate|lr\b|step)",
    "learning rate too high": r"(learning rate|\blr\b|step).*(high|large|big|fast|[x×*] ?100|100)|"
    r"(high|large|big)( an?)? (learning rate|lr\b|step)",
    "softmax over the wrong axis": r"softmax|axis|\bdim",
    "no causal mask": r"mask|causal|^(?!.*leak).*\bfuture",
    "targets not shifted": r"shift|copies|copying|off[ -]by[ -]one|identity|own target",
    "label leak": r"leak|roll|answer|target.* in.* input|sees? (only )?the next",
    "weight tying broken": r"\bt(ying|ied|ie)\b|unti|embedding.*(frozen|not|copy|still)|frozen|output layer",
    "initialization too large": r"\binit|starting weights",
    "data not shuffled": r"shuffl|\bsort|order",
    "tokenizer mismatch": r"tokeni[sz]er|alphabet|vocab|encod|\bids?\b",
    "too little text": r"overfit|memori[sz]|by heart|(little|few|small|less|more|not enough).*(text|data)|too few",
}
SIGNS = {  # what would be seen if the guess were right
    HEALTHY: "a healthy run stays in the grey range, and its lab values are close to the healthy column",
    "no causal mask": "without a mask, logits change when tokens two or more places later are changed",
    "targets not shifted": "then the first choice would be the token just read, nearly always",
    "label leak": "a leaked label shows when the NEXT token is changed, and not for later ones",
    "softmax over the wrong axis": "then the rows of attention would not sum to 1",
    "learning rate too low": "then a step would change the weights by a tenth of a percent at most",
    "float16 underflow": "then most of the gradient within the blocks would be exactly zero",
    "weight tying broken": "then one parameter would not have moved at all in the whole run",
    "weight decay too strong": "then the gains of the norms would have fallen far below 1",
    "learning rate too high": "then the matrices would have grown more than ten times as long",
    "gradients not reset": "then the gradient used would be longer than the one computed anew",
    "initialization too large": "then the UNTRAINED loss would be far above ln V = 4.2",
    "evaluation mode forgotten": "then the validation loss, measured again, would not be the same",
    "data not shuffled": "then nearly all rows would begin where the last one ended",
    "tokenizer mismatch": "then validation tokens would cost far more by the frequencies of training",
    "too little text": "then the training loss would be far below the validation loss, with no other cause",
}
AGAINST = {  # illness: {plausible guess: the evidence that speaks against it}
    "softmax over the wrong axis": {
        "no causal mask": "yes, the future is seen; but why? The attention rows do not sum to 1, and a missing mask leaves them at 1",
    },
    "label leak": {
        "no causal mask": "a missing mask shows ALL later tokens; here a change of a token two or more places later does nothing",
    },
    "no causal mask": {
        "label leak": "the answer is in the input, yes; but tokens two or more places later count too: what lets attention see them?",
    },
    "float16 underflow": {
        "learning rate too low": "steps change the weights by percents, as in a healthy run; look at the zeros in the gradient",
    },
    "weight decay too strong": {
        "learning rate too low": "steps are as large as in a healthy run; look at the gains of the norms",
    },
    "weight tying broken": {
        "learning rate too low": "steps are as large as in a healthy run; look at the LEAST moved parameter",
    },
    "learning rate too high": {
        "gradients not reset": "the gradient used is the batch's own, ratio 1.00; look at how the matrices grew",
    },
    "initialization too large": {
        "learning rate too high": "the loss is far too high BEFORE the first step, when no learning rate has acted yet",
    },
    "evaluation mode forgotten": {
        "too little text": "training loss and validation loss are close; measure the validation loss twice",
        HEALTHY: "its curves look healthy, yes; but its validation loss is another one when measured again",
    },
    "tokenizer mismatch": {
        "too little text": "the validation loss is above ln V = 4.2: worse than knowing nothing, which learning by heart does not explain",
    },
    "data not shuffled": {
        "too little text": "the gap looks like it; but see where the rows begin. The training text is special, not short",
    },
}


def recognize(answer: str) -> str | None:
    """Return the illness that a text names, or None; wording is free.

    >>> recognize("They forgot zero_grad()"), recognize("lr x 100"), recognize("flu")
    ('gradients not reset', 'learning rate too high', None)
    """
    text = " ".join(str(answer).lower().replace("-", " ").replace("_", " ").split())
    if text in (*BUGS, HEALTHY):
        return text
    return next((name for name, pattern in WORDS.items() if re.search(pattern, text)), None)


def check_round(round_name: str, answer) -> str:
    """Compare a dictionary from letter to illness with the round; say what speaks against a guess."""
    truth = ROUNDS[round_name]
    letters = ", ".join(truth)
    if isinstance(answer, list | tuple) and len(answer) == len(truth):
        answer = dict(zip(truth, answer, strict=True))
    require(
        isinstance(answer, Mapping),
        f'give a dictionary with the letters {letters}, such as {{"{next(iter(truth))}": "no causal mask", ...}}',
    )
    given = {str(key).strip().upper(): value for key, value in answer.items()}
    missing = [letter for letter in truth if letter not in given or given[letter] in (None, ..., "")]
    require(not missing, f"name an illness for {', '.join(missing)} too (or 'healthy')")
    right, wrong = [], []
    for letter, illness in truth.items():
        guess = recognize(given[letter])
        if guess == illness:
            right.append(letter)
        elif guess is None:
            wrong.append(f"{letter}: {given[letter]!r} is none of the illnesses in the list above")
        else:
            reason = AGAINST.get(illness, {}).get(guess, SIGNS[guess])
            wrong.append(
                f"{letter} is not {guess!r}: {reason}" if guess != HEALTHY else f"{letter}: {reason}"
            )
    praise = f"{' and '.join(right)} {'is' if len(right) == 1 else 'are'} right. " if right else ""
    require(not wrong, praise + ". ".join(wrong))
    return f"{letters}: all four are named. Unfold the cell below: what was done to them, and the rule."


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
    solution=ROUNDS["too good"],
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
    solution=ROUNDS["stuck"],
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
    solution=ROUNDS["restless"],
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
    solution=ROUNDS["fine in training"],
)
def check_elsewhere(answer):
    """Round 4: validation unlike training."""
    return check_round("fine in training", answer)


@torch.no_grad()
def sees_future(model, token_ids, place):
    """Largest change of a logit before `place` when the token at `place` is changed."""
    was_training = model.training
    model.eval()
    changed = token_ids.clone()
    changed[:, place] = (changed[:, place] + 1) % model.config.vocab_size
    difference = (model(changed) - model(token_ids)).abs()[:, :place].max().item()
    model.train(was_training)
    return difference


class _Peeking(nn.Module):
    """Logits of a causal model, plus a little of the one-hot token `distance` places later."""

    def __init__(self, model: GPT, distance: int, strength: float, only: int | None = None):
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


def _within_vocabulary(answer):
    """Return `answer`, which then explains an id that the model does not have."""

    def probe(model, token_ids, place):
        try:
            return answer(model, token_ids, place)
        except IndexError as error:
            beyond = "out of range in self" in str(error)  # what torch's embedding says
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
    solution=sees_future,
)
def check_causality(answer):
    """Causal models give 0, models that peek do not; the input and the model's mode stay as they were."""
    answer = _within_vocabulary(answer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        causal = GPT(ModelConfig(11, context_length=12, d_model=16, n_layers=1, dropout=0.3))
        ids = torch.randint(11, (3, 12))
        before = ids.clone()
        value = number(answer(causal.eval(), ids, 6))
        require(torch.equal(ids, before), "your function changed its input: work on a clone")
        with torch.no_grad():
            other = ids.clone()
            other[:, 6] = (other[:, 6] + 1) % 11
            change = (causal(other) - causal(ids)).abs().amax(dim=(0, 2))
        require(
            value < change[6] / 2 or value < 1e-6,
            "a causal model gives more than 0: from `place` on logits may change; compare those before it",
        )
        require(abs(value) < 1e-6, f"a causal model must give 0, yours gives {value:.3g}")
        value = number(answer(causal.train(), ids, 6))
        require(value < 1e-6, "with dropout a causal model gives more than 0: call model.eval() first")
        require(causal.training, "you left a model that was training in evaluation mode: put it back")
        causal.eval()
        value = number(answer(_Peeking(causal, 1, 2.0), ids, 6))
        require(
            value > 1e-6,
            "a model that sees the next token gets 0: change the token at `place` to ANOTHER id, and look at "
            "all positions before it, up to place - 1",
        )
        require(
            abs(value - 2.0) < 1e-3,
            f"a logit changes by 2 in this example, and you return {value:.3g}: take the largest absolute "
            "change of a single logit",
        )
        value = number(answer(_Peeking(causal, 3, 2.0), ids, 6))
        require(value > 1e-6, "a model that sees three tokens ahead gets 0: use ALL positions before `place`")
        value = number(answer(_Peeking(causal, 1, -0.01), ids, 6))
        require(value > 1e-6, "a faint leak is missed: compare logits, not likeliest tokens; do not round")
        falling = _Peeking(causal, 1, 2.0, only=ids[0, 6].item())  # its logit can only fall
        value = number(answer(falling, ids[:1], 6))
        require(value > 1e-6, "a logit that falls is missed: take the absolute value of the change")
        value = number(answer(_Peeking(causal, 1, 2.0), ids, 3))
        require(value > 1e-6, "right for place 6, but not for place 3")
    return "0 for a causal model, and any peeking shows, however faint or far. Run it before a long training."
