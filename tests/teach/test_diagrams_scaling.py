"""Pictures of sizes: what they say is true, and no text lies where it cannot be read."""

import pytest
from diagram_tools import problems

from llmcourse.teach.diagrams.scaling import read_for_a_token, widths


@pytest.mark.parametrize(("base", "width", "ratio"), [(64, 256, "4"), (32, 48, "1.5"), (128, 8192, "64")])
def test_the_factors_are_those_of_the_ratio(base, width, ratio):
    axis = widths(base, width)
    assert problems(axis) == []
    written = [text.get_text() for text in axis.texts]
    assert f"rate × 1/{ratio}, deviation × 1/√{ratio}" in written
    assert {f"width {base}", f"width {width}", f"logits × 1/{ratio}", "as it is"} <= set(written)


@pytest.mark.parametrize(("base", "width"), [(64, 64), (64, 32), (0, 8)])
def test_only_a_wider_model_has_a_picture(base, width):
    with pytest.raises(ValueError, match="must be above"):
        widths(base, width)


@pytest.mark.parametrize("n", [1, 2, 4])
def test_bars_are_as_long_as_what_is_read(n):
    parts = {"layers": 1.2, "output matrix": 0.31, "cache of 4,096": 0.004}
    axis = read_for_a_token({f"in {16 // (i + 1)} bits": parts for i in range(n)})
    assert problems(axis) == []
    lengths = [patch.get_width() for patch in axis.patches]
    assert len(lengths) == 3 * n
    assert lengths[1] / lengths[0] == pytest.approx(0.31 / 1.2)
    assert [text.get_text() for text in axis.texts].count("0.00 GB") == n


def test_the_largest_of_all_settings_sets_the_scale():
    axis = read_for_a_token({"a": {"x": 2.0}, "b": {"x": 1.0}})
    first, second = (patch.get_width() for patch in axis.patches)
    assert first == pytest.approx(2 * second)


@pytest.mark.parametrize("n", [0, 5])
def test_as_many_settings_as_have_room(n):
    with pytest.raises(ValueError, match="one to four"):
        read_for_a_token({str(i): {"x": 1.0} for i in range(n)})
