"""Scores against sacrebleu, the paired test against sacrebleu's own, baselines against hand-worked cases."""

import random

import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.significance import PairedTest

from llmcourse.evaluate.baselines import Copy, NearestNeighbour, NeighbourOrDictionary, WordDictionary
from llmcourse.evaluate.translation import (
    bleu_from,
    bleu_statistics,
    chrf_from,
    chrf_statistics,
    paired_p_value,
    sentence_chrf,
    signatures,
    translation_scores,
)

WORDS = "le chat noir dort sur la chaise du salon pendant que la pluie tombe , doucement ."
WORDS = WORDS.split(" ")
HAN = "打开文件夹删除服务器新建笔记本，保存名称。"


def texts(language, n, seed, spoil=0.3):
    rng, rows = random.Random(seed), []
    for _ in range(n):
        units = rng.choices(WORDS if language == "fr" else HAN, k=rng.randint(1, 14))
        rows.append(units)
    worse = [[u if rng.random() > spoil else rng.choice(units) for u in units] for units in rows]
    glue = " " if language == "fr" else ""
    return [glue.join(r) for r in worse], [glue.join(r) for r in rows]


@pytest.mark.parametrize("language", ["fr", "zh"])
@pytest.mark.parametrize(("n", "spoil"), [(40, 0.3), (3, 0.9), (1, 0.0)])
def test_sums_of_statistics_are_the_library_s_scores(language, n, spoil):
    h, r = texts(language, n, 1, spoil)
    h[0] = h[0] + " x"
    scores = translation_scores(h, r, language)
    tokenize = "zh" if language == "zh" else "13a"
    assert scores["bleu"] == pytest.approx(BLEU(tokenize=tokenize).corpus_score(h, [r]).score)
    assert bleu_from(bleu_statistics(h, r, language).sum(0)) == pytest.approx(scores["bleu"])
    assert chrf_from(chrf_statistics(h, r).sum(0)) == pytest.approx(CHRF().corpus_score(h, [r]).score)
    each = [CHRF().sentence_score(a, [b]).score for a, b in zip(h, r, strict=True)]
    assert sentence_chrf(h, r) == pytest.approx(np.array(each))


def test_nothing_said_scores_nothing():
    assert translation_scores(["", ""], ["le chat", "dort"], "fr")["bleu"] == 0
    assert bleu_from(bleu_statistics([""], ["le chat dort"], "fr").sum(0)) == 0
    assert sentence_chrf([""], ["le chat"]).tolist() == [0.0]


@pytest.mark.parametrize("language", ["fr", "zh"])
@pytest.mark.parametrize("metric", ["bleu", "chrf"])
def test_the_paired_test_agrees_with_sacrebleu_s(language, metric):
    a, r = texts(language, 120, 5, 0.30)
    b, _ = texts(language, 120, 5, 0.42)
    theirs = BLEU(tokenize="zh" if language == "zh" else "13a") if metric == "bleu" else CHRF()
    name = theirs.name if hasattr(theirs, "name") else metric
    test = PairedTest([("b", b), ("a", a)], {name: theirs}, [r], test_type="ar", n_samples=2000)
    _, results = test()
    expected = next(v for k, v in results.items() if k != "System")[1]
    difference, p = paired_p_value(a, b, r, language, metric)
    assert difference == pytest.approx(
        expected.score - next(v for k, v in results.items() if k != "System")[0].score
    )
    assert p == pytest.approx(expected.p_value, abs=0.03)


def test_equal_systems_do_not_differ_and_the_test_is_symmetric():
    a, r = texts("fr", 60, 7)
    b, _ = texts("fr", 60, 7, 0.6)
    assert paired_p_value(a, a, r, "fr") == (0.0, 1.0)
    one, two = paired_p_value(a, b, r, "fr"), paired_p_value(b, a, r, "fr")
    assert one[0] == pytest.approx(-two[0])
    assert one[1] == pytest.approx(two[1], abs=0.03)


def test_signatures_name_the_chinese_tokenizer():
    assert "tok:zh" in signatures("zh")[0]
    assert "tok:13a" in signatures("fr")[0]


def test_spaces_do_not_count_in_chrf_and_narrow_ones_not_in_bleu():
    scores = translation_scores(["1\u202f234 fichiers ouverts ici"], ["1 234 fichiers ouverts ici"], "fr")
    assert scores["bleu"] == pytest.approx(100)
    assert scores["chrf"] == pytest.approx(100)
    assert scores["exact"] == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: translation_scores(["a"], ["a"], "xx"), "language='xx' is unknown"),
        (lambda: translation_scores(["a"], [], "fr"), "1 hypotheses and 0 references"),
        (lambda: translation_scores("a", ["a"], "fr"), r"a single text is \[text\]"),
        (lambda: paired_p_value(["a"], ["a"], ["a"], "fr", "ter"), "metric='ter' is unknown"),
        (lambda: WordDictionary([], []), "0 sources and 0 targets"),
        (lambda: NearestNeighbour(["a"], ["a", "b"]), "1 sources and 2 targets"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# ---- baselines


PAIRS = [
    ("Open file", "打开文件"),
    ("Open folder", "打开目录"),
    ("Delete file", "删除文件"),
    ("Delete", "删除"),
]


def test_a_dictionary_of_runs_of_characters():
    dictionary = WordDictionary(*zip(*PAIRS, strict=True), joined=True)
    assert dictionary.table == {"open": "打开", "file": "文件", "delete": "删除"} | {
        "folder": "打开目录"  # seen once: of equal pieces, the longest
    }
    assert dictionary.translate(["Open \ue000!", "Rename folder"]) == ["打开\ue000!", "Rename打开目录"]


def test_a_dictionary_keeps_what_it_does_not_know():
    dictionary = WordDictionary(["red wine", "red car", "car"], ["vin rouge", "voiture rouge", "voiture"])
    assert dictionary.translate(["blue car: \ue000"]) == ["blue voiture: \ue000"]
    few = WordDictionary(["red wine", "red car"], ["vin rouge", "voiture rouge"], fewest=2)
    assert set(few.table) == {"red"}


def test_the_nearest_neighbour_is_the_source_itself_where_it_is_known():
    sources, targets = zip(*PAIRS, strict=True)
    memory = NearestNeighbour(sources, targets)
    assert memory.translate(list(sources)) == list(targets)
    assert memory.similarity(list(sources)) == pytest.approx(1)
    assert memory.similarity(["Zebra"]).tolist() == [0.0]
    assert memory.translate(["Open the folder"]) == ["打开目录"]


def test_the_neighbour_answers_where_it_is_near_and_the_dictionary_elsewhere():
    memory, dictionary = (kind(*zip(*PAIRS, strict=True)) for kind in (NearestNeighbour, WordDictionary))
    asked = ["Open the folder", "Rename", "Delete file"]
    for least in (0, 0.5, 1, 1.1):
        out = NeighbourOrDictionary(memory, dictionary, least).translate(asked)
        near = memory.similarity(asked) >= least
        for text, each, found in zip(asked, out, near, strict=True):
            assert each == (memory if found else dictionary).translate([text])[0]


def test_no_text_has_no_translation():
    pairs = tuple(zip(*PAIRS, strict=True))
    memory, dictionary = NearestNeighbour(*pairs), WordDictionary(*pairs)
    for system in (Copy(), memory, dictionary, NeighbourOrDictionary(memory, dictionary)):
        assert system.translate([]) == []
    assert memory.similarity([]).shape == (0,)


def test_copy():
    assert Copy().translate(("a", "")) == ["a", ""]
