"""Metrics against scikit-learn, sacrebleu, rouge-score, jiwer, and definitions written out."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve
from sklearn.metrics import accuracy_score, classification_report, f1_score, log_loss

from llmcourse.evaluate.metrics import (
    CharacterTokenizer,
    bleu,
    cer,
    classification_scores,
    expected_calibration_error,
    fit_temperature,
    reliability,
    rouge,
    wer,
)

HYPOTHESES = [
    "the queen gives the letter to a page of the duke",
    "to be or not to be , that is a question",
    "nothing will come of nothing at all",
]
REFERENCES = [
    "the queen gives the letter to the young page of the duke",
    "to be or not to be , that is the question",
    "nothing will come of nothing",
]


# ---- labels ---------------------------------------------------------------------------------


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("seed", range(3))
def test_scores_equal_scikit_learn(n_classes, seed):
    rng = np.random.default_rng(seed)
    labels, predicted = rng.integers(n_classes, size=(2, 200))
    scores = classification_scores(predicted, labels)
    report = classification_report(labels, predicted, output_dict=True, zero_division=0)
    assert scores["accuracy"] == pytest.approx(accuracy_score(labels, predicted))
    assert scores["macro_f1"] == pytest.approx(report["macro avg"]["f1-score"])
    assert scores["majority"] == pytest.approx(np.bincount(labels).max() / 200)
    assert ("f1" in scores) == (n_classes == 2)
    if n_classes == 2:
        assert scores["precision"] == pytest.approx(report["1"]["precision"])
        assert scores["recall"] == pytest.approx(report["1"]["recall"])
        assert scores["f1"] == pytest.approx(f1_score(labels, predicted))


def test_scores_by_hand_of_lists_tensors_and_a_class_never_said():
    scores = classification_scores([1, 1, 0, 1], torch.tensor([1, 0, 0, 1]))
    assert scores["precision"] == pytest.approx(2 / 3)
    assert scores["recall"] == 1.0
    never = classification_scores([0, 0, 0], [0, 0, 1])
    assert (never["precision"], never["recall"], never["f1"]) == (0, 0, 0)
    assert never["accuracy"] == never["majority"] == pytest.approx(2 / 3)
    assert classification_scores([True, False], [True, False])["f1"] == 1.0


def test_an_unreadable_answer_is_wrong_and_no_class_of_its_own():
    """scikit-learn/scikit-learn#30334 asks for `labels=[1]`: an answer of -1 is neither a hit nor a class."""
    for unreadable in (-1, None):
        scores = classification_scores([1, 0, unreadable, 1], [1, 0, 1, 0])
        assert (scores["accuracy"], scores["precision"], scores["recall"]) == (0.5, 0.5, 0.5)
        theirs = f1_score([1, 0, 1, 0], [1, 0, -1, 1], labels=[0, 1], average="macro")
        assert scores["macro_f1"] == pytest.approx(theirs)
    assert classification_scores([-1, 1, -1], [-1, 1, 1])["accuracy"] == pytest.approx(2 / 3)  # a label here
    nothing = classification_scores([None, None], [1, 0])
    assert nothing == {name: 0.5 if name == "majority" else 0.0 for name in nothing}


@pytest.mark.parametrize(
    ("predicted", "labels"),
    [
        ([2, 0, 1, 1], [0, 0, 1, 1]),  # a class that the labels lack
        ([0, 0, 0, 0], [0, 2, 1, 1]),  # classes that are never said
        ([0, 0], [0, 0]),
        ([1, 1], [0, 0]),
        ([5, 3, 3], [3, 5, 7]),
        (["cat", "dog", "cat"], ["cat", "cat", "bird"]),
        ([True, False, True], [1, 0, 0]),
    ],
)
def test_classes_that_one_side_lacks_count_as_in_scikit_learn(predicted, labels):
    scores = classification_scores(predicted, labels)
    assert scores["accuracy"] == pytest.approx(accuracy_score(labels, predicted))
    theirs = f1_score(labels, predicted, average="macro", zero_division=0)
    assert scores["macro_f1"] == pytest.approx(theirs)
    if set(labels) <= {0, 1}:
        assert scores["f1"] == pytest.approx(
            f1_score(labels, predicted, labels=[1], average="macro", zero_division=0)
        )


@pytest.mark.parametrize(
    ("predicted", "labels", "message"),
    [
        ([0.7, 0.2], [1, 0], r"predicted\[0\] is 0.7"),
        ([1, math.nan], [1, 0], r"predicted\[1\] is nan"),
        ([1, 0], [None, 0], r"labels\[0\] is None"),
        (["1", "0"], [1, 0], "texts and numbers"),
        ("10", "10", "give a row"),
    ],
)
def test_what_is_no_class_is_refused(predicted, labels, message):
    with pytest.raises(ValueError, match=message):
        classification_scores(predicted, labels)


@pytest.mark.parametrize(("a", "b"), [([], []), ([1], [1, 0]), ([[1]], [[1]])])
def test_rows_that_do_not_match_are_refused(a, b):
    with pytest.raises(ValueError, match="give two rows of equal length"):
        classification_scores(a, b)
    with pytest.raises(ValueError, match="give two rows of equal length"):
        expected_calibration_error(a, b)


# ---- probabilities --------------------------------------------------------------------------


def some_probabilities(n=500, seed=0):
    rng = np.random.default_rng(seed)
    p = rng.random(n)
    return p, (rng.random(n) < p**2).astype(int)


@pytest.mark.parametrize("n_bins", [1, 5, 10, 17])
def test_reliability_equals_scikit_learn(n_bins):
    p, y = some_probabilities()
    rows = reliability(p, y, n_bins)
    theirs_y, theirs_p = calibration_curve(y, p, n_bins=n_bins)
    assert [r[0] for r in rows] == pytest.approx(theirs_p)
    assert [r[1] for r in rows] == pytest.approx(theirs_y)
    assert sum(r[2] for r in rows) == len(p)


@pytest.mark.parametrize("n_bins", [1, 4, 15])
def test_calibration_error_is_the_weighted_gap(n_bins):
    p, y = some_probabilities(seed=n_bins)
    total = 0.0
    for b in range(n_bins):
        inside = [(c, o) for c, o in zip(p, y, strict=True) if b / n_bins <= c < (b + 1) / n_bins]
        if inside:
            confidence, right = (sum(column) / len(inside) for column in zip(*inside, strict=True))
            total += len(inside) / len(p) * abs(confidence - right)
    assert expected_calibration_error(p, y, n_bins) == pytest.approx(total)


def test_calibration_error_at_the_edges():
    assert expected_calibration_error([1.0, 1.0], [1, 0]) == 0.5
    assert expected_calibration_error([0.0], [1]) == 1.0
    assert reliability([0.0, 1.0], [0, 1], n_bins=10) == [(0.0, 0.0, 1), (1.0, 1.0, 1)]


@pytest.mark.parametrize("n_bins", [3, 7, 10, 29, 100])
def test_a_confidence_at_a_border_belongs_to_the_bin_that_begins_there(n_bins):
    """b / n is at least b / n: 0.29 * 100 is 28.999... in floating point, and must not decide it."""
    borders = np.arange(n_bins) / n_bins
    rows = reliability([*borders, 1.0], [1] * (n_bins + 1), n_bins)
    assert [row[2] for row in rows] == [1] * (n_bins - 1) + [2]


def test_an_accuracy_is_made_of_0_and_1():
    for correct in ([2, 1], [0.5, 1], [-1, 1]):
        with pytest.raises(ValueError, match=r"correct|give 1 where"):
            expected_calibration_error([0.5, 0.5], correct)


@pytest.mark.parametrize("bad", [[1.2, 0.5], [-0.1, 0.5], [math.nan, 0.5]])
def test_what_is_no_probability_is_refused(bad):
    with pytest.raises(ValueError, match="give probabilities, not logits"):
        reliability(bad, [1, 0])


@pytest.mark.parametrize("true_temperature", [0.3, 1.0, 4.0])
def test_temperature_finds_the_one_that_was_used(true_temperature):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 3)) * 2
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = np.array([rng.choice(3, p=row) for row in p])
    found = fit_temperature(logits * true_temperature, labels)
    assert found == pytest.approx(true_temperature, rel=0.05)


def test_temperature_has_the_smallest_loss_of_a_fine_grid():
    rng = np.random.default_rng(1)
    logits, labels = torch.tensor(rng.normal(size=(300, 2)) * 5), rng.integers(2, size=300)
    logits[range(300), labels] += 2.0

    def loss(temperature):
        return log_loss(labels, (logits / temperature).softmax(1).numpy())

    found = fit_temperature(logits, torch.tensor(labels))
    grid = np.geomspace(0.02, 50, 400)
    assert loss(found) <= min(map(loss, grid)) + 1e-9


def test_logits_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="logits must be finite"):
        fit_temperature([[math.inf, 0.0]], [0])


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        ([], [], "logits must be finite"),
        ([[0.0, 0.0]] * 3, [0, 1, 1], "no temperature changes anything"),
        ([[1.0], [2.0]], [0, 0], "no temperature changes anything"),
        ([[1.0, 2.0], [3.0]], [0, 0], "logits must be finite"),
        ([[1.0, 2.0]], [-100], r"labels\[0\] is -100: give classes from 0 to 1"),
        ([[1.0, 2.0]], [0, 1], "2 labels for 1 rows"),
        (torch.full((2, 2), math.nan), [0, 1], "logits must be finite"),
    ],
)
def test_logits_that_have_no_temperature_are_refused(logits, labels, message):
    with pytest.raises(ValueError, match=message):
        fit_temperature(logits, labels)


# ---- texts ----------------------------------------------------------------------------------


def bleu_by_hand(hypotheses, references):
    """BLEU of texts that are split at spaces: Papineni et al. 2002, sec. 2.3."""
    shared, given, lengths = Counter(), Counter(), [0, 0]
    for hypothesis, reference in zip(hypotheses, references, strict=True):
        h, r = hypothesis.split(), reference.split()
        lengths = [lengths[0] + len(h), lengths[1] + len(r)]
        for n in range(1, 5):
            ours, theirs = (Counter(tuple(w[i : i + n]) for i in range(len(w) - n + 1)) for w in (h, r))
            shared[n] += (ours & theirs).total()
            given[n] += ours.total()
    penalty = math.exp(min(0, 1 - lengths[1] / lengths[0]))
    return 100 * penalty * math.prod(shared[n] / given[n] for n in range(1, 5)) ** 0.25


@pytest.mark.parametrize("n", [1, 2, 3])
def test_bleu_equals_the_definition_to_1e_9(n):
    expected = bleu_by_hand(HYPOTHESES[:n], REFERENCES[:n])
    assert bleu(HYPOTHESES[:n], REFERENCES[:n]) == pytest.approx(expected, abs=1e-9)


def test_bleu_takes_the_better_of_several_references_and_not_the_mean():
    other = [["a page is sent", REFERENCES[0]], [REFERENCES[1]], ["quite another text", REFERENCES[2], "x"]]
    assert bleu(HYPOTHESES, other) >= bleu(HYPOTHESES, REFERENCES)
    assert bleu(REFERENCES, other) == pytest.approx(100)


def rouge_by_hand(hypothesis, reference):
    h, r = hypothesis.replace(",", " ").split(), reference.replace(",", " ").split()

    def f1(shared, a, b):
        return 2 * shared / (a + b) if shared else 0.0

    scores = {}
    for n in (1, 2):
        ours, theirs = (Counter(tuple(w[i : i + n]) for i in range(len(w) - n + 1)) for w in (h, r))
        scores[f"rouge{n}"] = f1((ours & theirs).total(), ours.total(), theirs.total())
    table = np.zeros((len(h) + 1, len(r) + 1), dtype=int)
    for i in range(len(h)):
        for j in range(len(r)):
            longer = max(table[i, j + 1], table[i + 1, j])
            table[i + 1, j + 1] = table[i, j] + 1 if h[i] == r[j] else longer
    return scores | {"rougeL": f1(int(table[-1, -1]), len(h), len(r))}


def test_rouge_equals_the_definition_to_1e_9():
    each = [rouge_by_hand(h, r) for h, r in zip(HYPOTHESES, REFERENCES, strict=True)]
    scores = rouge(HYPOTHESES, REFERENCES)
    for name, value in scores.items():
        assert value == pytest.approx(sum(row[name] for row in each) / 3, abs=1e-9)
    assert list(scores) == ["rouge1", "rouge2", "rougeL"]


def errors_by_hand(hypothesis, reference):
    row = list(range(len(hypothesis) + 1))
    for i, unit in enumerate(reference, start=1):
        above, row = row, [i]
        for j, other in enumerate(hypothesis, start=1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (unit != other)))
    return row[-1]


def test_error_rates_equal_the_definition_over_all_texts_together():
    pairs = list(zip(HYPOTHESES, REFERENCES, strict=True))
    words = sum(errors_by_hand(h.split(), r.split()) for h, r in pairs)
    assert wer(HYPOTHESES, REFERENCES) == pytest.approx(words / sum(len(r.split()) for r in REFERENCES))
    characters = sum(errors_by_hand(h, r) for h, r in pairs)
    assert cer(HYPOTHESES, REFERENCES) == pytest.approx(characters / sum(map(len, REFERENCES)))


def test_error_rates_are_not_symmetric_and_may_exceed_1():
    assert wer(["a b c d"], ["a"]) == 3.0
    assert wer(["a"], ["a b c d"]) == 0.75
    assert wer([""], ["a b"]) == 1.0


@pytest.mark.parametrize("score", [wer, cer])
def test_references_without_anything_to_hear_are_refused(score):
    with pytest.raises(ValueError, match="an error rate needs at least one"):
        score(["something"], ["  "])


WHITE = [
    " ",
    "  ",
    "\t",
    "\n",
    "\r\n",
    "\N{NO-BREAK SPACE}",
    "\N{IDEOGRAPHIC SPACE}",
    " \n ",
    "\N{THIN SPACE}",
]


@pytest.mark.parametrize("white", WHITE, ids=ascii)
@pytest.mark.parametrize("score", [wer, cer])
def test_white_space_of_any_kind_separates_words(score, white):
    """jitsi/jiwer#129: by itself, jiwer splits at blanks, and takes "the" + line break + "cat" for a word."""
    spoken = white.join(["", "the", "cat", "sat", ""])
    assert score([spoken], ["the cat sat"]) == score(["the cat sat"], [spoken]) == 0.0
    assert score([spoken], ["the cat"]) == score(["the cat sat"], ["the cat"])


@pytest.mark.parametrize("score", [wer, cer, lambda h, r: 1 - rouge(h, r, "zh")["rouge1"]])
def test_a_letter_is_the_same_in_either_normal_form(score):
    """Unicode Standard Annex 15: canonically equivalent texts are the same text."""
    composed, decomposed = "caf\N{LATIN SMALL LETTER E WITH ACUTE}", "cafe\N{COMBINING ACUTE ACCENT}"
    assert composed != decomposed
    assert score([composed], [decomposed]) == score([decomposed], [composed]) == 0.0
    assert bleu([f"a b c d {composed}"], [f"a b c d {decomposed}"]) == pytest.approx(100)


def test_silence_costs_what_is_said_into_it():
    """jitsi/jiwer#98: an empty reference among others; its words are extra ones."""
    assert wer(["", "a b"], ["", "a b"]) == cer(["", "a b"], ["", "a b"]) == 0.0
    assert wer(["a b c", "a b"], ["", "a b"]) == 1.5
    assert wer(["", ""], ["a b", "c"]) == 1.0


def test_bleu_of_texts_shorter_than_four_words_is_0_by_definition():
    """mjpost/sacrebleu#114; with one longer text among them, the runs of four come from there."""
    assert bleu(["你好"], ["你好"], "zh") == bleu(["yes"], ["yes"]) == bleu([""], ["a"]) == 0.0
    assert bleu(["你好", "今天天气很好"], ["你好", "今天天气很好"], "zh") == pytest.approx(100)


def test_rouge_of_other_alphabets_needs_the_other_tokenizer():
    for truth, other in (("Größe", "Grüße"), ("мир", "дом"), ("हिन्दी", "हिन्दू")):
        assert rouge([other], [truth], "zh")["rouge1"] == 0.0
        assert rouge([truth], [truth], "zh")["rouge1"] == 1.0


def test_chinese_needs_its_own_words():
    text, near = "今天天气很好，我们一起去公园散步。", "今天天气不错，我们一起去公园走走。"
    assert bleu([text], [text], "zh") == pytest.approx(100)
    assert rouge([text], [text], "zh")["rougeL"] == 1.0
    assert rouge([text], [text])["rougeL"] == 0.0  # the trap that the chapter shows
    spaced = [" ".join(CharacterTokenizer().tokenize(t)) for t in (near, text)]
    assert rouge([near], [text], "zh")["rougeL"] == pytest.approx(rouge_by_hand(*spaced)["rougeL"])
    assert 0 < bleu([near], [text], "zh") < 100
    assert bleu([near], [text]) == 0
    assert (wer([near], [text]), cer([near], [text])) == (1.0, pytest.approx(4 / 17))


def test_the_chinese_tokenizer_keeps_words_of_other_scripts():
    words = CharacterTokenizer().tokenize("Llama-3 的Über_Modell，写 2 首诗！")
    assert words == ["llama", "3", "的", "über", "modell", "写", "2", "首", "诗"]
    english = "The Duke's page: 7 letters"
    assert rouge([english], ["the dukes page"], "zh") == pytest.approx(rouge([english], ["the dukes page"]))


@pytest.mark.parametrize("score", [bleu, rouge, wer, cer])
@pytest.mark.parametrize(
    ("hypotheses", "references", "message"),
    [
        (["a"], ["a", "b"], "1 hypotheses and 2 references"),
        ([], [], "at least one"),
        ("a text", ["a text"], r"a single text is \[text\]"),
        (["a text"], "a text", r"a single text is \[text\]"),
        (b"a text", ["a text"], r"a single text is \[text\]"),
        (["a", None], ["a", "b"], r"hypotheses\[1\] is None"),
        (["a", "b"], ["a", None], r"references\[1\] is None"),
        ([3], ["a"], r"hypotheses\[0\] is 3"),
        ([["a"]], ["a"], r"hypotheses\[0\] is \['a'\]"),
        ({"a"}, ["a"], "give a row"),
        (["a"], [[]], "give|there must be as many"),
        (["a"], [[None]], "references"),
    ],
)
def test_texts_that_do_not_match_are_refused(score, hypotheses, references, message):
    with pytest.raises(ValueError, match=message):
        score(hypotheses, references)


@pytest.mark.parametrize("score", [bleu, rouge])
def test_an_unknown_language_is_refused(score):
    with pytest.raises(ValueError, match="language='de' is unknown"):
        score(["a"], ["a"], "de")
