"""Pictures of smaller weights: what they say is true, and no text lies where it cannot be read."""

import numpy as np
import pytest
from diagram_tools import problems

from llmcourse.teach.diagrams.compression import kept_of_four, shared_scales

ROW = [0.31, -0.12, 0.05, -0.27, 0.18, 0.09, -0.44, 0.11, 2.10, 0.35, -0.08, 0.62]


def rounded(bits, group):
    """(codes, scales) of ROW, by numpy."""
    groups = np.array(ROW).reshape(-1, group)
    scales = np.abs(groups).max(1) / (2 ** (bits - 1) - 1)
    return np.rint(groups / scales[:, None]).astype(int).flatten().tolist(), scales.tolist()


@pytest.mark.parametrize("group", [3, 4, 6, 12])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_weights_and_their_codes_stand_below_each_other(bits, group):
    codes, scales = rounded(bits, group)
    axis = shared_scales(ROW, codes, scales, bits)
    assert problems(axis) == []
    place = {t.get_text(): t.get_position()[0] for t in axis.texts}
    assert f"codes, {bits} bits" in place
    assert place["2.10"] in [t.get_position()[0] for t in axis.texts if t.get_text() == f"{codes[8]:+d}"]
    assert sum(t.get_text().startswith("scale ") for t in axis.texts) == 12 // group


@pytest.mark.parametrize(
    ("weights", "codes", "scales"),
    [(ROW, [0] * 12, [1.0] * 5), (ROW, [0] * 11, [1.0]), ([], [], []), ([0.1] * 13, [0] * 13, [1.0]), (ROW, [0] * 12, [])],
)  # fmt: skip
def test_a_row_that_does_not_split_is_refused(weights, codes, scales):
    with pytest.raises(ValueError, match="in equal groups"):
        shared_scales(weights, codes, scales, 4)


@pytest.mark.parametrize("n", [4, 8, 12])
def test_the_kept_and_their_places_are_what_is_stored(n):
    order = np.abs(np.array(ROW[:n])).reshape(-1, 4).argsort(1)[:, 2:]
    kept = np.zeros((n // 4, 4), dtype=bool)
    np.put_along_axis(kept, order, True, axis=1)
    axis = kept_of_four(ROW[:n], kept.flatten().tolist())
    assert problems(axis) == []
    written = [t.get_text() for t in axis.texts]
    for weight, keep in zip(ROW[:n], kept.flatten(), strict=True):
        assert written.count(f"{weight:.2f}") == 1 + keep
    places = [text for text in written if len(text) == 1]
    assert sorted(places) == sorted(str(i) for i in np.nonzero(kept)[1])


@pytest.mark.parametrize("kept", [[True] * 4, [True, True, False], [True, True, False, False] * 4, []])
def test_another_pattern_is_refused(kept):
    with pytest.raises(ValueError, match="two of every four"):
        kept_of_four([0.1] * len(kept), kept)
