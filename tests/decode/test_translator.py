"""A translator against its parts: batches, one by one, through a folder, and texts that it refuses."""

import pytest
import torch

from llmcourse.data.parallel import Pair
from llmcourse.data.translation_text import encode_pair, finish, texts_of, train_tokenizer
from llmcourse.decode.translator import Translator, WithFallback, load_translator
from llmcourse.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from llmcourse.evaluate.baselines import Copy, WordDictionary
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


def test_confidence_is_what_torch_says_of_each_pair_alone(translator):
    written = ["Fermer {a} et {b}", "Ouvrir", "Supprimer tous les <b>fichiers</b> du dossier", ""]
    expected = []
    for text, translation in zip(TEXTS, written, strict=True):
        source, target = encode_pair(translator.tokenizer, Pair(text, translation, "fr"))
        read, said = [translator.start_id, *target], [*target, translator.end_id]
        logits = translator.model(torch.tensor([source]), torch.tensor([read]))[0]
        expected.append(-torch.nn.functional.cross_entropy(logits, torch.tensor(said)).item())
    for batch_size in (1, 3, 64):
        found = translator.confidence(TEXTS, written, "fr", batch_size)
        assert found == pytest.approx(expected, abs=1e-5)
    assert translator.confidence([], [], "fr") == []
    begins_alike = ["! " * 200, "! " * 300]  # longer than the context: both are cut
    a, b = translator.confidence(["Open"] * 2, begins_alike, "fr")
    assert a == pytest.approx(b, abs=1e-5)


def test_the_fallback_answers_where_the_model_is_not_sure(translator):
    sources, targets = ["close {}", "open", "delete"], ["fermer {}", "ouvrir", "supprimer"]
    dictionary = WordDictionary(sources, targets)
    written = translator.translate(TEXTS, "fr")
    confidence = translator.confidence(TEXTS, written, "fr")
    never, always = -float("inf"), float("inf")
    assert WithFallback(translator, {"fr": dictionary}, never).translate(TEXTS, "fr") == written
    looked_up = WithFallback(translator, {"fr": dictionary}, always).translate(TEXTS, "fr")
    assert looked_up[0] == "fermer {a} and {b}"  # placeholders come back
    assert WithFallback(translator, {"fr": Copy()}, always).translate(TEXTS, "fr") == TEXTS
    between = sorted(confidence)[2]  # two texts are below it
    out, sure = WithFallback(translator, {"fr": dictionary}, between).choose(TEXTS, written, "fr")
    assert sure == [c >= between for c in confidence]
    assert sum(sure) == 2
    assert out == [w if s else d for w, s, d in zip(written, sure, looked_up, strict=True)]


def test_a_missing_fallback_or_translation_is_named(translator):
    with pytest.raises(ValueError, match=r"language='zh' has no fallback here: choose one of \['fr'\]"):
        WithFallback(translator, {"fr": Copy()}).translate(["Open"], "zh")
    with pytest.raises(ValueError, match="2 texts but 1 translations"):
        translator.confidence(["Open", "Close"], ["Ouvrir"], "fr")
