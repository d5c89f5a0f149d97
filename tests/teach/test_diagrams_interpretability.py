"""The schematic pictures of chapter 8b: texts lie apart, and say what hooks and heads are called."""

import pytest
from diagram_tools import problems, text_at

from llmcourse.config import ModelConfig
from llmcourse.interpret.hooks import site_names
from llmcourse.model import GPT
from llmcourse.teach.chapters.ch08b_interpretability import figures

SITES = dict(embedding="embedding", heads="blocks.{i}.attention.heads", mlp="blocks.{i}.mlp.out")
SITES |= dict(residual="blocks.{i}.residual", norm="final_norm")


@pytest.mark.parametrize(("n_layers", "n_heads"), [(2, 3), (1, 2), (2, 2)])
def test_the_stream_has_each_head_and_names_that_exist(n_layers, n_heads):
    axis = figures.residual_stream(SITES, n_layers, n_heads)
    assert problems(axis) == []
    texts = {text.get_text() for text in axis.texts}
    assert {f"{i}.{h}" for i in range(n_layers) for h in range(n_heads)} <= texts
    model = GPT(ModelConfig(vocab_size=10, d_model=16, n_heads=2, n_layers=n_layers))
    assert {text for text in texts if "." in text and text[0] == "b"} | {"embedding"} <= {*site_names(model)}


def test_induction_copies_what_stood_behind_the_first_one():
    axis = figures.induction([" Ham", "let", " and", " the", " Ham"], 0, 4, ["0.1", "1.2"])
    assert problems(axis) == []
    below = text_at(axis, "let")
    assert text_at(axis, "behind\n␣Ham")[0] == below[0]  # the note stands over the follower
    assert text_at(axis, "next:\nlet")[1] > below[1]
