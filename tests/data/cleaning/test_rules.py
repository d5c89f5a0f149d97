"""Rules for text: each with a text that breaks it alone, and personal data with its decoys."""

import random
import unicodedata
from collections import Counter
from itertools import pairwise

import pytest

from llmcourse.data import manifest
from llmcourse.data.cleaning import rules as cleaning
from llmcourse.data.cleaning.pii import Span, find_pii, luhn_valid, mask_pii
from llmcourse.data.cleaning.rules import (
    drop_lines,
    language_of,
    load_toxicity,
    most_common_run,
    precision_recall,
    quality_problems,
    repeated_lines,
)

GOOD = (
    "The river that runs through the old town has been with its people for more than a thousand years. "
    "Traders came to the market with salt, cloth and iron, and the bridge was the only one for many miles. "
    "When the railway opened in 1870, most of them moved away, but the market is still held every week. "
)


def test_good_text_passes():
    assert quality_problems(GOOD) == []


@pytest.mark.parametrize(
    ("problem", "broken"),
    [
        ("too short", "The end of the story, and that is all."),
        ("too long", GOOD * 2),
        ("odd word lengths", GOOD + "a b c d e f g h i j " * 40),
        ("symbols", GOOD + "# " * 20),
        ("not words", GOOD + " ".join(str(i * 1237) for i in range(40))),
        ("bullets", "\n".join(f"- {line} and the rest of it" for line in GOOD.split(". "))),
        ("cut off", "\n".join(f"{line}..." for line in GOOD.split(". "))),
        ("no common words", " ".join(w for w in GOOD.split() if w.lower() not in cleaning.GOPHER_WORDS) * 2),
        ("repetition", GOOD + "buy now " * 40),
    ],
)
def test_each_rule_sees_its_own_fault(problem, broken):
    found = quality_problems(broken, max_words=80 if problem == "too long" else 100_000)
    assert problem in found
    if problem not in ("symbols", "odd word lengths"):  # these two bring others with them
        assert found == [problem]


@pytest.mark.parametrize("n_words", [49, 50])
def test_the_limit_itself_is_enough(n_words):
    text = " ".join((GOOD * 2).split()[:n_words])
    assert ("too short" in quality_problems(text)) == (n_words < 50)


def test_the_empty_text_is_short_and_nothing_else_breaks():
    assert quality_problems("") == ["too short", "no common words"]


def test_the_commonest_run_by_counting():
    words = [choice * 3 for choice in random.Random(3).choices("abc", k=60)]
    counts = Counter(pairwise(words))
    expected = max(counts.values()) * 6 / (60 * 3)
    assert most_common_run(words) == pytest.approx(expected)
    assert most_common_run(["all", "words", "differ", "here"]) == 0


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("en", "It was the best of times, and it was the worst of times for that city."),
        ("fr", "La maison est dans une rue qui mène à la gare, et le jardin est derrière."),
        ("de", "Der Zug ist nicht pünktlich, und die Leute auf dem Bahnsteig warten mit Geduld."),
        ("es", "El perro del vecino es grande y se come las flores que los niños plantan para su madre."),
        ("ru", "Он не знал, что это будет последняя ночь в городе, и смотрел на огни с моста."),
        ("bg", "Това е къщата на моя приятел и тя се намира до реката, от която не се вижда морето."),
        ("zh", "预训练是指在大量数据上训练模型，使其具备一定的泛化能力。"),
        ("ja", "これは日本語の文章です。漢字とひらがながあります。"),
        ("ko", "이것은 한국어 문장입니다."),
        ("", "3.14159 2.71828 1.41421"),
        ("", ""),
    ],
)
def test_languages(code, text):
    assert language_of(text) == code
    assert language_of(unicodedata.normalize("NFD", text)) == code  # è and 이 in their parts


def test_repeated_lines_count_documents_and_not_lines():
    texts = ["menu\nfirst\nmenu", "menu\nsecond", " menu \nthird", "again\nagain\nagain"]
    assert repeated_lines(texts, min_documents=3) == {"menu"}
    assert drop_lines("menu\nfirst\n menu\n\nlast", {"menu"}) == "first\n\nlast"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("mail ann.lee+news@mail.example.co.uk, please", "EMAIL"),
        ("call +44(0)1144960510 today", "PHONE"),
        ("call +49 (0) 4115 781565 today", "PHONE"),
        ("call (029)2018969 today", "PHONE"),
        ("call 0909 8790578 today", "PHONE"),
        ("call 555-867-5309 today", "PHONE"),
        ("call 001-267-953-7510x123 today", "PHONE"),
        ("card 4111 1111 1111 1111 was used", "CARD"),
        ("card 378282246310005 was used", "CARD"),
        ("from 192.168.0.1 again", "IP"),
    ],
)
def test_personal_data_is_found_whole(text, kind):
    (span,) = find_pii(text)
    first, last = text.split()[0], text.split()[-1]
    assert span.kind == kind
    assert mask_pii(text).replace(",", "").split()[:2] == [first, f"[{kind}]"]
    assert last in mask_pii(text)


@pytest.mark.parametrize(
    "text",
    [
        "ISBN 978-0-253-28029-9 and ISBN 0-8021-4132-3",
        "started on 1975-04-14, in the war of 1914-1918",
        "pi is 3.14159265358979, the version 1.2.3",
        "1,234,567 people, 12 of 100",
        "the number 4111 1111 1111 1112 has a wrong check sum",
        "not an address: a@b or @name, 256.300.1.2",
        "arXiv:1305.3647 and 10.1000/182",
    ],
)
def test_decoys_are_left_alone(text):
    assert find_pii(text) == []


def test_spans_are_in_order_and_do_not_overlap():
    text = "a@b.org, 192.168.0.1, +1 555 010 9999, 4111111111111111, c@d.com"
    spans = find_pii(text)
    assert [span.kind for span in spans] == ["EMAIL", "IP", "PHONE", "CARD", "EMAIL"]
    assert all(a.end <= b.start for a, b in pairwise(spans))
    assert mask_pii(mask_pii(text)) == mask_pii(text)
    assert spans[0] == Span("EMAIL", 0, 7)


def test_the_check_sum_notices_every_wrong_digit():
    from faker import Faker

    fake = Faker()
    fake.seed_instance(0)
    for _ in range(100):
        number = fake.credit_card_number()
        assert luhn_valid(number)
        place = random.Random(number).randrange(len(number))
        changed = number[:place] + str((int(number[place]) + 1) % 10) + number[place + 1 :]
        assert not luhn_valid(changed)


def test_toxicity_orders_texts_and_has_a_stand_in(monkeypatch):
    texts = ["The cat sat on the mat.", "You stupid idiot."]
    low, high = load_toxicity(quiet=True)(texts)
    assert low < 0.5 < high
    assert load_toxicity(quiet=True)([]) == []
    monkeypatch.setattr(cleaning, "fetch", lambda *a, **k: manifest.DataSet("toxicity", "generated", "", {}))
    assert load_toxicity(quiet=True)([*texts, "你是idiot吗"]) == [0.0, 1.0, 1.0]


@pytest.mark.filterwarnings("error")
def test_another_version_of_scikit_learn_gives_the_same_scores_without_a_word(monkeypatch):
    import sklearn.base

    texts = ["The cat sat on the mat.", "You stupid idiot.", "A big fat pain."]
    expected = load_toxicity(quiet=True)(texts)
    monkeypatch.setattr(sklearn.base, "__version__", "0.0")
    assert load_toxicity(quiet=True)(texts) == expected


@pytest.mark.parametrize(
    ("found", "true", "expected"),
    [
        ({1, 2}, {2, 3, 4}, (0.5, 1 / 3)),
        (set(), {1}, (1.0, 0.0)),
        ({1}, set(), (0.0, 1.0)),
        ({1}, {1}, (1, 1)),
    ],
)
def test_precision_and_recall(found, true, expected):
    assert precision_recall(found, true) == pytest.approx(expected)
