"""A translator against its parts: batches, one by one, through a folder, and texts that it refuses."""

import pytest
import torch

from llmcourse.data.parallel import Pair
from llmcourse.data.translation_text import encode_pair, finish, texts_of, train_tokenizer
from llmcourse.decode.translator import Translator, load_translator
from llmcourse.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from llmcourse.pretrained import save_model
from llmcourse.seq2seq import generate_target

PAIRS = [
    Pair("Delete {n} Files?", "Supprimer {n} fichiers ?", "fr"),
    Pair("Open the folder", "打开目录", "zh"),
    Pair("Close", "Fermer", "fr"),
]
TEXTS = ["Close {a} and {b}", "Open", "Delete the folder in which <b>all</b> files are", "close"]


@pytest.fixture(scope="module")
def translator():
    torch.manual_seed(3)
    tokenizer = train_tokenizer(texts_of(PAIRS), 330, ["fr", "zh"])
    config = EncoderDecoderConfig(tokenizer.vocab_size, context_length=40, d_model=16, n_heads=2, n_layers=1)
    return Translator(EncoderDecoder(config).eval(), tokenizer)


def test_batches_of_any_size_give_what_each_text_gives_alone(translator):
    alone = []
    for text in TEXTS:
        prepared = translator.prepare(text, "fr")
        longest = translator.longest(len(prepared.ids))
        ids = generate_target(
            translator.model, [prepared.ids], longest, translator.start_id, translator.end_id
        )
        alone.append(finish(translator.tokenizer, ids[0].tolist(), prepared))
    assert translator.translate(TEXTS, "fr", batch_size=1) == alone
    assert translator.translate([], "fr") == []


def test_it_comes_back_from_a_folder(translator, tmp_path):
    save_model(tmp_path, translator.model, translator.tokenizer, torch.float32)
    again = load_translator(tmp_path)
    assert again.translate(TEXTS, "zh") == translator.translate(TEXTS, "zh")


def test_a_pair_is_encoded_as_it_is_asked(translator):
    source, target = encode_pair(translator.tokenizer, PAIRS[0])
    assert translator.prepare(PAIRS[0].source, "fr").ids == source
    assert finish(translator.tokenizer, target, translator.prepare(PAIRS[0].source, "fr")) == PAIRS[0].target


@pytest.mark.parametrize(
    ("text", "language", "message"),
    [
        ("Open", "de", "language='de' is not one that this model learnt"),
        ("", "fr", "the text is empty"),
        (
            "a b " * 40,
            "fr",
            r"has \d+ tokens with its language, and this model reads 40: translate it sentence",
        ),
    ],
)
def test_what_it_cannot_read_is_refused(translator, text, language, message):
    with pytest.raises(ValueError, match=message):
        translator.translate([text], language)


def test_one_text_instead_of_a_list_is_refused(translator):
    with pytest.raises(ValueError, match=r"a single text is \[text\]"):
        translator.translate("Open", "fr")
