"""The pictures of a model and its training: measured, and what they claim compared with the package."""

import matplotlib.pyplot as plt
import pytest
import torch
from diagram_tools import problems, text_at

from llmcourse.data.batches import pack, pad
from llmcourse.finetune.lora import add_lora
from llmcourse.model import GPT, ModelConfig
from llmcourse.teach.diagrams import training as pictures


@pytest.fixture(autouse=True)
def close():
    plt.switch_backend("Agg")
    yield
    plt.close("all")


PICTURES = {
    "one block": lambda: pictures.transformer(1),
    "three blocks": lambda: pictures.transformer(3),
    "pre-norm": pictures.block,
    "post-norm": lambda: pictures.block(pre_norm=False),
    "two tokens": lambda: pictures.shifted_targets(["a", " b"]),
    "ten tokens": lambda: pictures.shifted_targets([" or"] * 10),
    "packing": lambda: pictures.packing([5, 12, 3, 8, 2], 8),
    "short documents": lambda: pictures.packing([1] * 30, 16),
    "square": lambda: pictures.low_rank(192, 192, 4),
    "tall": lambda: pictures.low_rank(192, 512, 8),
    "wide": lambda: pictures.low_rank(512, 192, 8),
}


@pytest.mark.parametrize("name", PICTURES)
def test_texts_lie_on_the_page_and_apart(name):
    assert problems(PICTURES[name]()) == []


def test_the_parts_stand_in_the_order_in_which_a_model_applies_them():
    names = {
        "token_embedding": "embedding",
        "blocks.0": "block 1",
        "blocks.1": "block 2",
        "final_norm": "norm",
        "unembedding": "unembedding",
    }
    model, order = GPT(ModelConfig(vocab_size=10, d_model=16, n_layers=2)), []
    for name, part in model.named_modules():
        if name in names:
            part.register_forward_hook(lambda *_, name=name: order.append(names[name]))
    model(torch.tensor([[1, 2, 3]]))
    axis = pictures.transformer(2)
    assert sorted(order, key=lambda text: text_at(axis, text)[0]) == order
    assert len(order) == len(names)


@pytest.mark.parametrize("pre_norm", [True, False])
def test_norms_lie_on_the_stream_in_post_norm_only(pre_norm):
    axis = pictures.block(pre_norm)
    stream = text_at(axis, "x")[1]
    norms = [text.get_position()[1] for text in axis.texts if text.get_text() == "norm"]
    assert [y != stream for y in norms] == [pre_norm, pre_norm]


def test_a_target_stands_below_the_input_that_it_follows():
    axis = pictures.shifted_targets(["a", "b", "c"])
    places = [text.get_position() for text in axis.texts if text.get_text() == "b"]
    wanted, given = sorted(places, key=lambda place: place[1])
    assert wanted[0] == pytest.approx(text_at(axis, "a")[0])
    assert given[0] == pytest.approx(text_at(axis, "c")[0])
    with pytest.raises(ValueError, match="2 to 10"):
        pictures.shifted_targets(["a"])


def test_the_step_goes_against_the_gradient():
    axis = pictures.gradient_step([0, 1, 2], [4, 1, 0], at=1, loss=1, gradient=-2, lr=0.2, new_loss=0.36)
    before, after = (line for line in axis.lines if line.get_marker() in ("o", "s"))
    assert after.get_xdata()[0] - before.get_xdata()[0] == pytest.approx(0.4)
    tangent = next(line for line in axis.lines if line.get_linestyle() == "--")
    (x0, x1), (y0, y1) = tangent.get_data()
    assert (y1 - y0) / (x1 - x0) == pytest.approx(-2)


def test_rows_are_those_of_pack_and_of_pad():
    lengths, T = [5, 12, 3, 8, 2], 8
    axis = pictures.packing(lengths, T)
    packed = pack([[1] * (n - 1) for n in lengths], end_id=1)
    rows = -(-len(packed) // T)
    text_at(axis, f"packed: {rows} rows, {100 * len(packed) / (rows * T):.0f} % of them text")
    inputs, _ = pad([[1] * n for n in lengths], T, pad_id=0)
    text_at(axis, f"padded: {len(inputs)} rows, {100 * inputs.float().mean():.0f} % of them text")
    with pytest.raises(ValueError, match="at least 1"):
        pictures.packing([3, 0], T)


def test_the_numbers_of_a_low_rank_pair_are_those_of_lora():
    model = add_lora(GPT(ModelConfig(vocab_size=10, d_model=16, n_heads=2, n_layers=1)), rank=4)
    pair = [p for p in model.blocks[0].mlp.up.parameters() if p.requires_grad]
    (rank, d_in), (d_out, _) = pair[0].shape, pair[1].shape
    axis = pictures.low_rank(d_in, d_out, rank)
    text_at(axis, f"{pair[0].numel():,} + {pair[1].numel():,} numbers, trained")
    with pytest.raises(ValueError, match="smaller side"):
        pictures.low_rank(4, 8, 5)
