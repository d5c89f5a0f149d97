"""Exercises of chapter 5d: right answers in other words, and the wrong ones that learners give."""

import re
import types

import numpy as np
import pytest
import torch
from answers import assert_right, assert_wrong, numbered

from llmcourse.monitor.planted_bugs import BUGS
from llmcourse.teach.chapters.ch05d_failure_clinic.illnesses import AGAINST, SIGNS, WORDS, recognize
from llmcourse.teach.chapters.ch05d_failure_clinic.patients import HEALTHY, ROUNDS
from llmcourse.teach.chapters.ch05d_failure_clinic.reveal import reveal
from llmcourse.teach.chapters.ch05d_failure_clinic.solutions import sees_future
from llmcourse.teach.checks import verdict

RIGHT, WRONG = {}, {}
NAMES = {
    "05d-too-good": "too good",
    "05d-stuck": "stuck",
    "05d-restless": "restless",
    "05d-elsewhere": "fine in training",
}
SAID = {
    "no causal mask": [
        "the causal mask is missing",
        "No mask",
        "attention is not masked",
        "looks into the future",
        "forgot the causal mask",
        "it attends to future tokens",
        "bidirectional attention",
        "the model looks ahead",
        "sees later tokens",
        "mask removed",
        "causal attention is off",
        "encoder-style attention, no mask",
        "attention without a mask",
        "the mask was forgotten",
        "no casual mask",
    ],
    "targets not shifted": [
        "targets are not shifted",
        "it copies its input",
        "labels off by one",
        "no shift",
        "inputs used as targets",
        "target = input",
        "targets = inputs",
        "the targets are the inputs",
        "target equals input",
        "labels are the inputs",
        "inputs are the targets",
        "y = x",
        "same inputs and targets",
        "targets are the same as the inputs",
        "target is the input itself",
        "predicts the current token",
        "it predicts itself",
        "input as target",
        "the input is used as the target",
        "input = target",
        "inputs and targets are identical",
        "learns the identity",
        "targets identical to inputs",
        "x and y are the same",
        "label equals input",
        "the label is the token itself",
        "targets without shift",
        "unshifted targets",
        "the targets equal the inputs",
        "input tokens are used as labels",
    ],
    "label leak": [
        "the label leaks into the input",
        "Leak",
        "target in the input",
        "it sees only the next token",
        "a leak from the future",
        "label leakage",
        "leaked labels",
        "the answer is in the input",
        "next token in the features",
        "feature rolled the wrong way",
        "targets leak",
        "the next token is visible",
        "peeks at the next token",
        "the label is in the input",
        "data leakage",
        "target leakage",
    ],
    "softmax over the wrong axis": [
        "softmax dim",
        "wrong axis",
        "softmax over queries",
        "softmax(dim=-2)",
        "softmax on the wrong dimension",
        "attention rows don't sum to 1",
        "softmax along columns",
        "wrong softmax",
        "softmax over the wrong dim",
    ],
    "learning rate too low": [
        "lr too small",
        "learning rate / 100",
        "LR too low",
        "too small a learning rate",
        "low learning rate",
        "lr is tiny",
        "step size too small",
        "learning rate is much too low",
        "small lr",
        "the learning rate is too little",
        "learning-rate 100 times too small",
    ],
    "learning rate too high": [
        "lr x 100",
        "learning rate too large",
        "LR too big",
        "too high learning rate",
        "high lr",
        "step size too large",
        "learning rate 100 times too high",
        "lr = 0.3",
        "too large a step",
    ],
    "gradients not reset": [
        "no zero_grad",
        "zero_grad missing",
        "gradients accumulate",
        "forgot to clear the grads",
        "missing optimizer.zero_grad()",
        "gradients are not zeroed",
        "gradient accumulation",
        "gradients never cleared",
        "old gradients are kept",
        "gradients add up",
        "forgot zero grad",
        "grads not zeroed",
        "gradients not set to zero",
    ],
    "float16 underflow": [
        "fp16",
        "underflow",
        "gradient underflow in half precision",
        "no loss scaling",
        "half precision",
        "float16 without loss scaling",
        "gradients underflow to zero",
        "fp16 gradients underflow",
        "missing grad scaler",
    ],
    "evaluation mode forgotten": [
        "model.eval() missing",
        "dropout on in validation",
        "eval mode",
        "no eval",
        "forgot model.eval()",
        "dropout active during validation",
        "model left in training mode",
        "evaluated in train mode",
        "forgot evaluation mode",
        "eval() was not called",
    ],
    "weight tying broken": [
        "weights not tied",
        "broken tying",
        "the output layer is frozen",
        "untied embedding",
        "broken weight sharing",
        "weights are not shared",
        "output layer not trained",
        "the output weights never move",
        "unshared embedding",
        "weight sharing broken",
        "tied weights broken",
        "the unembedding is not in the optimizer",
        "head is not updated",
    ],
    "initialization too large": [
        "bad init",
        "initialisation too big",
        "init scale",
        "wrong initialization",
        "initial weights too large",
        "weights start too large",
        "starting weights too big",
        "init std too large",
        "too large initialization",
    ],
    "data not shuffled": [
        "no shuffling",
        "unshuffled data",
        "sorted data",
        "data in order",
        "not shuffled",
        "data is sorted by length",
        "shuffle missing",
        "the batches are in order",
        "sequential data",
    ],
    "tokenizer mismatch": [
        "different tokenizer",
        "other alphabet",
        "wrong vocabulary",
        "token ids differ",
        "tokenizers differ",
        "validation encoded with another alphabet",
        "vocabulary mismatch",
        "wrong encoding",
        "tokeniser mismatch",
        "different vocab in validation",
        "evaluation data has another vocabulary",
    ],
    "weight decay too strong": [
        "too much weight decay",
        "decay on norms",
        "wd: weight decay 10",
        "regularization too strong",
        "weight decay too high",
        "L2 too large",
        "too much regularisation",
    ],
    "too little text": [
        "overfitting",
        "too little data",
        "not enough data",
        "it memorizes the text",
        "overfit",
        "small training set text",
        "training data too small",
        "too few data",
        "memorization",
        "the data set is too small",
        "it learned the text by heart",
        "the text repeats",
        "short text",
        "tiny dataset",
        "too small a dataset",
    ],
    HEALTHY: [
        "healthy",
        "nothing wrong",
        "nothing is wrong",
        "fine",
        "OK",
        "no illness",
        "no disease",
        "not ill",
        "is healthy",
        "no problem",
        "it is fine",
        "all good",
        "no bug",
        "nothing",
        "normal",
        "no issue",
        "helthy",
        "no error",
        "without illness",
        "none",
        "not sick",
        "perfectly healthy",
        "the healthy one",
        "it's healthy",
        "nothing is the matter",
    ],
}


@pytest.mark.parametrize("name", SAID)
def test_an_illness_is_known_by_other_words(name):
    assert {text: recognize(text) for text in SAID[name]} == dict.fromkeys(SAID[name], name)


def test_the_tables_cover_every_illness():
    everyone = {*BUGS, HEALTHY}
    assert set(WORDS) == set(SIGNS) == set(SAID) == everyone
    assert set(AGAINST) | {guess for guesses in AGAINST.values() for guess in guesses} <= everyone
    assert all(recognize(name) == name for name in everyone)


@pytest.mark.parametrize(
    "text",
    ["", "flu", "bad luck", "too small batch", "cosmic rays", "42", "unhealthy", "not healthy", "{}", "..."],
)
def test_what_names_nothing_is_not_recognized(text):
    assert recognize(text) is None


def round_answers(truth):
    """Right answers to a round in several forms, and in other words."""
    names = list(truth.values())
    forms = [truth, names, tuple(names), truth.values(), list(truth.items()), np.array(names)]
    own = [{k.lower(): SAID[name][i % len(SAID[name])] for k, name in truth.items()} for i in range(8)]
    return [*forms, types.MappingProxyType(truth), *own]


for name, key in NAMES.items():
    RIGHT[name] = round_answers(ROUNDS[key])
    first, *rest = ROUNDS[key]
    others = dict(zip(ROUNDS[key], reversed(ROUNDS[key].values()), strict=True))
    WRONG[name] = {
        "one name": ("give a dictionary", "label leak"),
        "too few names": ("give a dictionary", ["label leak"]),
        "the letters": ("is none of the illnesses", dict.fromkeys(ROUNDS[key], "A")),
        "a letter missing": (f"for {first} too", {letter: ROUNDS[key][letter] for letter in rest}),
        "a letter still open": (f"for {first} too", {**ROUNDS[key], first: ...}),
        "unknown": (f"{first}: 'flu' is none of the illnesses", {**ROUNDS[key], first: "flu"}),
        "all the same": ("is not", dict.fromkeys(ROUNDS[key], "label leak")),
        "the other way round": ("", others),
        "numbers": ("is none of the illnesses", [1, 2, 3, 4]),
    }


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_dictionary_is_told_so(name):
    for answer in ("label leak", 3, ["label leak"], {1, 2}, torch.ones(4)):
        kind, sentence = verdict(name, answer)
        assert (kind, "give a dictionary" in sentence) == ("wrong", True), answer


@pytest.mark.parametrize("name", NAMES)
def test_missing_and_unknown_names_are_told_so(name):
    truth = ROUNDS[NAMES[name]]
    *first, last = truth
    kind, sentence = verdict(name, {letter: truth[letter] for letter in first})
    assert kind == "wrong"
    assert f"for {last} too" in sentence
    kind, sentence = verdict(name, {**truth, last: ...})
    assert f"for {last} too" in sentence
    kind, sentence = verdict(name, {**truth, last: "flu"})
    assert kind == "wrong"
    assert f"{last}: 'flu' is none of the illnesses" in sentence
    assert sentence.startswith(f"{' and '.join(first)} are right. ")


@pytest.mark.parametrize(("illness", "guess"), [(a, b) for a in AGAINST for b in AGAINST[a]])
def test_a_plausible_guess_meets_its_own_evidence(illness, guess):
    name = next(n for n, r in NAMES.items() if illness in ROUNDS[r].values())
    truth = ROUNDS[NAMES[name]]
    letter = next(letter for letter, real in truth.items() if real == illness)
    kind, sentence = verdict(name, {**truth, letter: guess})
    assert kind == "wrong"
    assert AGAINST[illness][guess] in sentence


@pytest.mark.parametrize("name", NAMES)
def test_any_wrong_name_is_answered_and_never_accepted(name):
    truth = ROUNDS[NAMES[name]]
    for letter, illness in truth.items():
        for guess in {*BUGS, HEALTHY} - {illness}:
            kind, sentence = verdict(name, {**truth, letter: guess})
            assert kind == "wrong"
            assert letter in sentence
            assert illness not in sentence.replace(guess, "")  # the right name is not given away


# ---- the probe ------------------------------------------------------------------------------


def changed_at(token_ids, place, vocab_size):
    changed = token_ids.clone()
    changed[:, place] = (changed[:, place] + 1) % vocab_size
    return changed


def with_numpy(model, token_ids, place):
    was = model.training
    model.eval()
    with torch.no_grad():
        a = model(token_ids).numpy()
        b = model(changed_at(token_ids, place, model.config.vocab_size)).numpy()
    model.train(was)
    return np.abs(a - b)[:, :place].max()


def as_tensor(model, token_ids, place):
    return torch.tensor(sees_future(model, token_ids, place))


def loop_over_positions(model, token_ids, place):
    was, largest = model.training, 0.0
    model.eval()
    other = changed_at(token_ids, place, model.config.vocab_size)
    with torch.no_grad():
        for t in range(place):
            largest = max(largest, (model(other)[:, t] - model(token_ids)[:, t]).abs().max().item())
    model.train(was)
    return largest


def varied(new=lambda old, V: (old + 1) % V, rows=slice(None), after=None, shown=lambda x: x):
    """The solution with one part changed."""

    def probe(model, token_ids, place):
        was, changed = model.training, token_ids.clone()
        changed[rows, place] = new(changed[rows, place], model.config.vocab_size)
        model.eval()
        with torch.no_grad():
            difference = (model(changed) - model(token_ids))[:, :place].abs().max().item()
        model.train(was if after is None else after)
        return shown(difference)

    return probe


def logits(model, token_ids):
    was = model.training
    model.eval()
    with torch.no_grad():
        result = model(token_ids)
    model.train(was)
    return result


def difference(model, ids, place):
    return logits(model, changed_at(ids, place, 11)) - logits(model, ids)


def changes_its_input(model, token_ids, place):
    before = logits(model, token_ids)
    token_ids[:, place] = (token_ids[:, place] + 1) % 11
    return (logits(model, token_ids) - before)[:, :place].abs().max()


def forgets_eval(model, token_ids, place):
    with torch.no_grad():
        return (model(changed_at(token_ids, place, 11)) - model(token_ids))[:, :place].abs().max()


def leaves_eval(model, token_ids, place):
    model.eval()
    with torch.no_grad():
        return (model(changed_at(token_ids, place, 11)) - model(token_ids))[:, :place].abs().max()


def includes_place(model, token_ids, place):
    return difference(model, token_ids, place)[:, : place + 1].abs().max()


def everything(model, token_ids, place):
    return difference(model, token_ids, place).abs().max()


def only_behind(model, token_ids, place):
    return difference(model, token_ids, place)[:, place:].abs().max()


def only_neighbour(model, token_ids, place):
    return difference(model, token_ids, place)[:, place - 1].abs().max()


def no_absolute_value(model, token_ids, place):
    return difference(model, token_ids, place)[:, :place].max()


def takes_the_mean(model, token_ids, place):
    return difference(model, token_ids, place)[:, :place].abs().mean()


def choices_only(model, token_ids, place):
    a, b = logits(model, token_ids).argmax(-1), logits(model, changed_at(token_ids, place, 11)).argmax(-1)
    return 2.0 * (a != b)[:, :place].any().float()


def too_early(model, token_ids, place):
    return difference(model, token_ids, place)[:, : place - 1].abs().max()


def changes_nothing(model, token_ids, place):
    return (logits(model, token_ids.clone()) - logits(model, token_ids))[:, :place].abs().max()


def always_place_six(model, token_ids, place):
    return difference(model, token_ids, 6)[:, : min(place, 6)].abs().max()


def plain_plus_one(model, token_ids, place):
    changed = token_ids.clone()
    changed[:, place] += 1
    return (logits(model, changed) - logits(model, token_ids))[:, :place].abs().max()


def vocabulary_of_the_notebook(model, token_ids, place):
    return (logits(model, changed_at(token_ids, place, 69)) - logits(model, token_ids))[:, :place].abs().max()


def takes_the_place_for_a_row(model, token_ids, place):
    changed = token_ids.clone()
    changed[place] = 0
    return (logits(model, changed) - logits(model, token_ids))[:, :place].abs().max()


RIGHT["05d-causality"] = [
    sees_future,
    with_numpy,
    as_tensor,
    loop_over_positions,
    varied(new=lambda old, V: (old - 1) % V),
    varied(new=lambda old, V: (old + torch.randint(1, V, old.shape)) % V),
    varied(new=lambda old, V: torch.where(old == 0, 1, 0)),
    varied(shown=lambda x: torch.tensor([x]).bfloat16()),
]
WRONG["05d-causality"] = numbered(
    [
        (varied(shown=lambda x: round(x, 2)), "do not round"),
        (varied(shown=lambda x: x if x > 1e-3 else 0.0), "set no threshold"),
        (varied(shown=lambda x: x if x > 1e-4 else 0.0), "set no threshold"),
        (varied(rows=slice(0, 1)), "EVERY row"),
        (varied(rows=slice(-1, None)), "change `place` in EVERY row"),
        (varied(new=lambda old, V: 0), "may be the one that stands there"),
        (varied(new=lambda old, V: V - 1), "may be the one that stands there"),
        (varied(new=lambda old, V: V - 1 - old), "may be the one that stands there"),
        (varied(new=lambda old, V: torch.randint(V, old.shape)), "may be the one that stands there"),
        (varied(new=lambda old, V: torch.randint(V, ())), "may be the one that stands there"),
        (varied(after=True), "put back what it was"),
        (varied(after=False), "put it back"),
        (varied(shown=lambda x: 1.01 * x), "largest absolute change"),
        (plain_plus_one, "use % model.config.vocab_size"),
        (vocabulary_of_the_notebook, "use % model.config.vocab_size"),
        (takes_the_place_for_a_row, "your code raised IndexError"),
        (changes_its_input, "work on a clone"),
        (forgets_eval, "call model.eval()"),
        (leaves_eval, "put it back"),
        (includes_place, "compare those before it"),
        (everything, "compare those before it"),
        (only_behind, "compare those before it"),
        (only_neighbour, "ALL positions before"),
        (no_absolute_value, "absolute"),
        (takes_the_mean, "largest absolute change"),
        (choices_only, "faint leak"),
        (too_early, "up to place - 1"),
        (changes_nothing, "ANOTHER id"),
        (always_place_six, "not for place 3"),
    ]
)


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers(name):
    assert_right(name, RIGHT[name])


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers_hear_what_is_wrong(name):
    assert_wrong(name, WRONG[name])


# ---- after the guessing ---------------------------------------------------------------------


def test_reveal_opens_the_patients_that_are_named_right():
    given = {"I": "zero_grad", "J": ..., "K": "label leak", " l": "initialization too large"}
    page = reveal("restless", given).data
    assert re.findall(r"<summary>Patient (\w)", page) == ["I", "L"]
    assert "def no_zero_grad" in page
    assert "J, K: not named yet" in page
    assert 'reveal("restless")' in page
    assert "healthy" not in page


@pytest.mark.parametrize("answer", [..., {}, "IJKL", {"I": None, "J": None}, 7])
def test_reveal_gives_nothing_away_to_who_is_still_guessing(answer):
    page = reveal("restless", answer).data
    assert "<details>" not in page
    assert "I, J, K, L: not named yet" in page
    assert not any(name in page for name in ROUNDS["restless"].values())


def test_reveal_shows_all_when_it_is_asked_to():
    page = reveal("restless").data
    assert page.count("<details>") == 4
    assert "<details open" not in page
    assert "not named yet" not in page
