"""A summarizer against its parts: batches, one by one, through a folder, and definitions that it refuses."""

import pytest
import torch

from llmcourse.data.sources.docstrings import Docstring
from llmcourse.data.summary_text import (
    encode_pair,
    finish,
    name_words,
    source_text,
    target_text,
    train_tokenizer,
)
from llmcourse.decode.repeats import no_repeat
from llmcourse.decode.summarizer import Summarizer, load_summarizer
from llmcourse.pointer import PointerConfig, PointerGenerator
from llmcourse.pretrained import save_model
from llmcourse.seq2seq import generate_target

DEFINITIONS = [
    Docstring("Chart.draw", ("line_width",), "The chart is drawn on the canvas.", "Draw the chart."),
    Docstring("HTTPClient", (), "It connects, and keeps what it got. A second call is fast.", "A client."),
    Docstring("close", (), "", "Close it."),
    Docstring("", (), "Only a text stands here, and nothing is called.", "Text."),
]


@pytest.fixture(scope="module")
def summarizer():
    torch.manual_seed(3)
    tokenizer = train_tokenizer(DEFINITIONS, 330)
    shape = dict(context_length=12, source_context_length=60, d_model=16, n_heads=2, n_layers=1)
    return Summarizer(PointerGenerator(PointerConfig(tokenizer.vocab_size, **shape)).eval(), tokenizer)


def test_batches_give_what_each_definition_gives_alone(summarizer):
    alone = []
    for definition in DEFINITIONS:
        ids = generate_target(
            summarizer.model,
            summarizer.prepare(definition),
            12,
            summarizer.start_id,
            summarizer.end_id,
            process=no_repeat(2),
        )
        alone.append(finish(summarizer.tokenizer, ids[0].tolist()))
    assert summarizer.summarize(DEFINITIONS) == alone
    assert [finish(summarizer.tokenizer, ids) for ids in summarizer.write(DEFINITIONS, batch_size=1)] == alone
    assert summarizer.summarize([]) == []


def test_it_comes_back_from_a_folder(summarizer, tmp_path):
    save_model(tmp_path, summarizer.model, summarizer.tokenizer, torch.float32)
    assert load_summarizer(tmp_path).summarize(DEFINITIONS) == summarizer.summarize(DEFINITIONS)


def test_a_pair_is_encoded_as_it_is_asked(summarizer):
    source, target = encode_pair(summarizer.tokenizer, DEFINITIONS[0], 60)
    assert summarizer.prepare(DEFINITIONS[0]) == source
    assert finish(summarizer.tokenizer, target) == "Draw the chart."
    assert len(encode_pair(summarizer.tokenizer, DEFINITIONS[0], 5)[0]) == 5


def test_copying_has_a_row_for_each_token_that_is_written(summarizer):
    source, written, copying = summarizer.copying(DEFINITIONS[1])
    assert "".join(source) == " " + source_text(DEFINITIONS[1])
    assert copying.weights.shape == (1, len(written), len(source))
    torch.testing.assert_close(copying.weights.sum(-1), torch.ones(1, len(written)))
    [ids] = summarizer.write([DEFINITIONS[1]])
    assert written == summarizer.tokenizer.tokens([*ids, summarizer.end_id][:12])


def test_a_long_text_is_refused_or_read_from_its_beginning(summarizer):
    long = Docstring("draw", (), "word " * 100, "")
    with pytest.raises(
        ValueError, match=r"'draw' with its text has \d+ tokens, and this model reads 60: give a shorter"
    ):
        summarizer.summarize([long])
    shorter = Docstring("draw", (), "word " * 60, "")
    assert summarizer.summarize([long], cut=True) == summarizer.summarize([shorter], cut=True)


def test_a_definition_without_a_word_is_refused(summarizer):
    with pytest.raises(ValueError, match="name='_' with an empty text: give a name, or at least a word"):
        summarizer.summarize([Docstring("_", (), "  \n ", "")])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("getHTTPResponse", "get http response"),
        ("a_b2", "a b 2"),
        ("__init__", "init"),
        ("A.bC", "a b c"),
        ("", ""),
    ],
)
def test_names_become_words(name, words):
    assert name_words(name) == words


def test_targets_lose_only_their_stop_and_what_a_place_gave_them(summarizer):
    assert target_text("Return\n the NumPy Array...") == "return the NumPy array"
    assert finish(summarizer.tokenizer, []) == ""
    assert finish(summarizer.tokenizer, summarizer.tokenizer.encode(" is it?")) == "Is it?"
