"""Exercises of chapter 5d: right answers in other words, and the wrong ones that learners give."""

import numpy as np
import pytest
import torch

from llmcourse.teach.chapter_05d import AGAINST, SIGNS, WORDS, recognize, sees_future
from llmcourse.teach.checks import verdict
from llmcourse.teach.clinic import BUGS
from llmcourse.teach.patients import HEALTHY, ROUNDS

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
        "missing_causal_mask",
        "looks into the future",
    ],
    "targets not shifted": [
        "targets are not shifted",
        "it copies its input",
        "labels off by one",
        "no shift",
    ],
    "label leak": [
        "the label leaks into the input",
        "Leak",
        "target in the input",
        "it sees only the next token",
        "a leak from the future",
    ],
    "softmax over the wrong axis": ["softmax dim", "wrong axis", "softmax over queries", "softmax(dim=-2)"],
    "learning rate too low": [
        "lr too small",
        "learning rate / 100",
        "LR too low",
        "too small a learning rate",
    ],
    "learning rate too high": ["lr x 100", "learning rate too large", "LR too big", "too high learning rate"],
    "gradients not reset": [
        "no zero_grad",
        "zero_grad missing",
        "gradients accumulate",
        "forgot to clear the grads",
    ],
    "float16 underflow": ["fp16", "underflow", "gradient underflow in half precision", "no loss scaling"],
    "evaluation mode forgotten": ["model.eval() missing", "dropout on in validation", "eval mode", "no eval"],
    "weight tying broken": [
        "weights not tied",
        "broken tying",
        "the output layer is frozen",
        "untied embedding",
    ],
    "initialization too large": ["bad init", "initialisation too big", "init scale", "wrong initialization"],
    "data not shuffled": ["no shuffling", "unshuffled data", "sorted data", "data in order"],
    "tokenizer mismatch": ["different tokenizer", "other alphabet", "wrong vocabulary", "token ids differ"],
    "weight decay too strong": ["too much weight decay", "decay on norms", "wd: weight decay 10"],
    "too little text": ["overfitting", "too little data", "not enough data", "it memorizes the text"],
    HEALTHY: ["healthy", "nothing wrong", "nothing is wrong", "fine", "OK"],
}


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in SAID.items() for text in texts])
def test_an_illness_is_known_by_other_words(name, text):
    assert recognize(text) == name


def test_the_tables_cover_every_illness():
    everyone = {*BUGS, HEALTHY}
    assert set(WORDS) == set(SIGNS) == set(SAID) == everyone
    assert set(AGAINST) | {guess for guesses in AGAINST.values() for guess in guesses} <= everyone
    assert all(recognize(name) == name for name in everyone)


@pytest.mark.parametrize("text", ["", "flu", "bad luck", "too small batch", "cosmic rays", "42"])
def test_what_names_nothing_is_not_recognized(text):
    assert recognize(text) is None


@pytest.mark.parametrize("name", NAMES)
def test_right_answers_in_other_forms(name):
    truth = ROUNDS[NAMES[name]]
    assert verdict(name, dict(truth))[0] == "correct"
    assert verdict(name, list(truth.values()))[0] == "correct"
    assert verdict(name, tuple(truth.values()))[0] == "correct"
    for i in range(3):
        spoken = {letter.lower(): SAID[illness][i] for letter, illness in truth.items()}
        assert verdict(name, spoken)[0] == "correct", spoken


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


@pytest.mark.parametrize("answer", [sees_future, with_numpy, as_tensor, loop_over_positions])
def test_right_probes(answer):
    assert verdict("05d-causality", answer)[0] == "correct"


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


WRONG = {
    plain_plus_one: "use % model.config.vocab_size",
    vocabulary_of_the_notebook: "use % model.config.vocab_size",
    takes_the_place_for_a_row: "your code raised IndexError",
    changes_its_input: "work on a clone",
    forgets_eval: "call model.eval()",
    leaves_eval: "put it back",
    includes_place: "compare those before it",
    everything: "compare those before it",
    only_behind: "compare those before it",
    only_neighbour: "ALL positions before",
    no_absolute_value: "absolute",
    takes_the_mean: "largest absolute change",
    choices_only: "faint leak",
    too_early: "up to place - 1",
    changes_nothing: "ANOTHER id",
    always_place_six: "not for place 3",
}


@pytest.mark.parametrize(("answer", "telling"), WRONG.items(), ids=lambda x: getattr(x, "__name__", ""))
def test_wrong_probes_are_told_apart(answer, telling):
    kind, sentence = verdict("05d-causality", answer)
    assert kind == "wrong"
    assert telling in sentence, sentence
