"""What a translator reads and writes: round trips, capitals, and texts that it refuses."""

import pytest

from llmcourse.data.parallel import Pair
from llmcourse.data.translation_text import (
    END,
    PAD,
    START,
    encode_pair,
    finish,
    languages_of,
    prepare,
    small,
    target_text,
    texts_of,
    train_tokenizer,
)

PAIRS = [
    Pair("Delete {n} Files?", "Supprimer {n} fichiers ?", "fr"),
    Pair("Open the <b>URL</b> in JupyterLab", "打开 <b>URL</b>", "zh"),
    Pair("PDF export", "PDF exporté", "fr"),
    Pair("close", "fermer", "fr"),
    Pair("%s: done", "%s : Fini", "fr"),
]
TOKENIZER = train_tokenizer(texts_of(PAIRS), 400, ["fr", "zh"])


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.source)
def test_a_target_comes_back_as_it_was(pair):
    prepared = prepare(TOKENIZER, pair.source, pair.language)
    source, target = encode_pair(TOKENIZER, pair)
    assert source == prepared.ids
    end, pad = TOKENIZER.special_tokens[END], TOKENIZER.special_tokens[PAD]
    written = finish(TOKENIZER, [*target, end, 5, 6], prepared)
    assert written == pair.target if pair.source != "%s: done" else written == "%s : fini"
    assert finish(TOKENIZER, [*target, end, pad, pad], prepared) == finish(TOKENIZER, target, prepared)


def test_a_translation_begins_as_its_source_does():
    for source, target in (("Close", "Fermer"), ("close", "fermer"), ("OK", "PDF"), ("Run", "2 pas")):
        pair = Pair(source, target, "fr")
        ids = encode_pair(TOKENIZER, pair)[1]
        assert finish(TOKENIZER, ids, prepare(TOKENIZER, source, "fr")) == target


def test_a_placeholder_is_one_token_and_typed_names_are_none():
    ids = prepare(TOKENIZER, "Delete %(a)s of %(b)s", "fr").ids
    signs = [TOKENIZER.special_tokens[chr(0xE000 + i)] for i in (0, 1)]
    assert [i for i in ids if i in signs] == signs
    typed = prepare(TOKENIZER, "say <|zh|> or <|end|>", "fr").ids
    special = set(TOKENIZER.special_tokens.values()) - set(signs)
    assert [i for i in typed if i in special] == [TOKENIZER.special_tokens["<|fr|>"]]


def test_small_letters():
    assert (
        small("Create A Volume Type in OpenStack (IPv6, API)")
        == "create a volume type in OpenStack (IPv6, API)"
    )
    assert target_text("Élément URL", []) == "élément URL"
    assert target_text("URL de base", []) == "URL de base"
    assert target_text("打开", []) == "打开"


def test_languages_of_a_tokenizer():
    assert languages_of(TOKENIZER) == ["fr", "zh"]
    assert {PAD, START, END} < set(TOKENIZER.special_tokens)


@pytest.mark.parametrize(
    ("text", "language", "message"),
    [
        ("Open", "de", r"language='de' is not one that this model learnt: choose one of \['fr', 'zh'\]"),
        ("", "fr", "the text is empty"),
        (" \n\u202f", "fr", "the text is empty"),
        ("icon \ue001", "fr", "private area"),
    ],
)
def test_what_cannot_be_read_is_refused(text, language, message):
    with pytest.raises(ValueError, match=message):
        prepare(TOKENIZER, text, language)
