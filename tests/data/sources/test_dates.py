"""Dates and numbers: read back by other code, unique, and decided by their source."""

import datetime

import pytest

from llmcourse.data.sources.dates import (
    LANGUAGES,
    STYLES,
    cldr_version,
    locale_pairs,
    write_date,
    write_number,
)

DAY = datetime.date(1776, 7, 4)


def test_what_the_four_languages_write():
    assert [write_date(DAY, language) for language in LANGUAGES] == [
        "Thursday, July 4, 1776",
        "jeudi 4 juillet 1776",
        "Donnerstag, 4. Juli 1776",
        "1776年7月4日星期四",
    ]
    assert [write_number(1234567.89, language) for language in LANGUAGES] == [
        "1,234,567.89",
        "1\u202f234\u202f567,89",
        "1.234.567,89",
        "1,234,567.89",
    ]
    assert cldr_version().isdigit()


@pytest.mark.parametrize("language", LANGUAGES)
def test_numbers_can_be_read_back(language):
    thousands = {"en": ",", "zh": ",", "fr": "\u202f", "de": "."}[language]
    for pair in locale_pairs(2000, seed=2):
        if pair.origin == "number" and pair.language == language:
            value = float(pair.target.replace(thousands, "").replace(",", "."))
            assert write_number(value, language) == pair.target


def test_english_dates_can_be_read_back():
    formats = {3: "%A, %B %d, %Y", 2: "%B %d, %Y"}
    for pair in locale_pairs(2000, seed=2, styles=STYLES):
        if pair.origin == "date" and pair.language == "en":
            commas = pair.target.count(",") + 1
            day = datetime.datetime.strptime(pair.target, formats[commas]).date()
            assert write_date(day, "en", "full" if commas == 3 else "long") == pair.target


def test_no_source_has_two_translations_and_nothing_comes_twice():
    pairs = locale_pairs(20_000, seed=1, styles=STYLES)
    meaning = {}
    for pair in pairs:
        assert meaning.setdefault((pair.source, pair.language), pair.target) == pair.target
    assert len(meaning) > 0.99 * len(pairs)
    shown = [pair for pair in pairs if pair.origin == "date" and pair.language == "zh"]
    assert len({pair.target for pair in shown}) == len(shown)
    assert {pair.language for pair in pairs} == set(LANGUAGES)
    share = sum(pair.origin == "number" for pair in pairs) / len(pairs)
    assert share == pytest.approx(0.25, abs=0.02)
    assert pairs[:10] != locale_pairs(10, seed=2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: write_date(DAY, "it"), "language='it' is unknown"),
        (lambda: write_number(1.5, "it"), "language='it' is unknown"),
        (lambda: write_date(DAY, "fr", "short"), "style='short' is unknown"),
        (lambda: locale_pairs(100_000), "more than the 73049 dates"),
        (lambda: locale_pairs(9, styles=["short"]), "style='short' is unknown"),
        (lambda: locale_pairs(0), "must be a whole number and at least 1"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
