"""The figures and helpers of chapter 8b show and count what they are given."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from llmcourse.config import ModelConfig
from llmcourse.finetune.classify import GPTClassifier
from llmcourse.interpret.dictionary import coder_of
from llmcourse.interpret.planted import plant
from llmcourse.interpret.probing import ProbeScores
from llmcourse.model import GPT
from llmcourse.teach.chapters.ch08b_interpretability import cues, figures, methods, stored


@pytest.fixture(autouse=True)
def _closed():
    yield
    widths = [plt.figure(number).get_figwidth() for number in plt.get_fignums()]
    plt.close("all")
    assert max(widths, default=0) <= 6.8


# ---- figures --------------------------------------------------------------------------------


def test_named_heads_stand_at_their_points():
    sharpness, cost = torch.tensor([[0.1, 0.2], [0.3, 0.4]]), torch.tensor([[0.0, 0.01], [0.02, 0.03]])
    axis = figures.sharpness_and_cost(sharpness, cost, torch.zeros(2, 2), [(1, 0)])
    (mark,) = axis.texts
    assert mark.get_text() == "1.0"
    assert mark.xy == pytest.approx((0.3, 0.02))


def test_the_lens_begins_with_the_embedding_at_the_bottom():
    words = [["a", "b", "c"], ["d", "e", " f"]]
    axis = figures.lens_table(["x", "y", "z"], words, torch.rand(2, 3), start=1)
    at = {text.get_text(): text.get_position() for text in axis.texts}
    names = [label.get_text() for label in axis.get_yticklabels()]
    assert names[at["b"][1]] == "embedding"
    assert names[at["␣f"][1]] == "after layer 0"
    assert at["b"][0] == 0


def test_probes_show_the_control_of_the_first_model():
    rows = {
        ("q", kind): [ProbeScores(0.5, known, known - 0.2, known - 0.3, 0.5)] * 2
        for kind, known in (("trained", 0.9), ("untrained", 0.8))
    }
    rows |= {("r", kind): value for (_, kind), value in rows.items()}
    axes = figures.probes(rows)
    lines = {line.get_label(): list(line.get_ydata()) for line in axes[1].lines}
    assert lines["trained, new words"] == pytest.approx([0.6, 0.6])
    assert lines["control task"] == pytest.approx([0.7, 0.7])
    assert [axis.get_title() for axis in axes] == ["q", "r"]


def test_a_grid_has_layers_as_rows():
    axis = figures.head_grid(torch.tensor([[0.0, 1.0, 2.0], [3.0, 4.0, -5.0]]), "effect")
    at = {text.get_text(): text.get_position() for text in axis.texts}
    assert (at["-5.00"], at["2.00"]) == ((2, 1), (2, 0))


def test_false_alarms_stand_on_the_other_side():
    axis = figures.method_scores({"one": methods.Score(right=3, missed=2, false=4)})
    assert sorted(bar.get_width() for bar in axis.patches) == [-4, 2, 3]


def test_curves_of_induction_are_the_rows():
    row = dict(text_loss="2.0", second_time="3.0", induction_score="0.5")
    rows = [dict(seed=seed, step=step) | row for seed in "12" for step in ("0", "50")]
    axes = figures.emergence(rows)
    assert [list(line.get_xdata()) for axis in axes for line in axis.lines] == [[50]] * 6
    assert [axis.lines[1].get_ydata()[0] for axis in axes] == [2.0, 3.0, 0.5]
    history = {50: {"induction": 0.1, "previous token": 0.2, "second time": 4.0}}
    axes = figures.forming(history)
    assert list(axes[0].lines[0].get_ydata()) == [4.0]


def test_the_largest_score_is_marked():
    axes = figures.word_scores(["a", " b"], {"m": torch.tensor([0.1, -0.5]), "n": torch.tensor([0.3, 0.1])})
    assert [axis.get_title(loc="left") for axis in axes] == ["m: largest at ␣b", "n: largest at a"]
    axis = figures.named_units({"features": 9}, {"features": 3}, {"features": 5})
    assert [bar.get_width() for bar in axis.patches] == [9, 3, 5]


# ---- cues -----------------------------------------------------------------------------------


def test_a_cue_stands_at_its_place_and_the_rest_in_order():
    rows, labels = [[1, 2, 3], [4], []], [1, 0, 1]
    new, places = cues.insert_cues(rows, labels, cues=[8, 9], seed=3)
    assert [row[place] for row, place in zip(new, places, strict=True)] == [9, 8, 9]
    assert [row[:p] + row[p + 1 :] for row, p in zip(new, places, strict=True)] == rows
    drawn = {cues.insert_cues([[1, 2, 3]], [0], [8, 9], seed)[1][0] for seed in range(60)}
    assert drawn == {0, 1, 2, 3}


def test_gradient_times_input_is_the_slope_along_the_embeddings():
    """Of a model in which the embeddings are scaled by 1 + t, the slope at t = 0 is the sum of the scores."""
    from llmcourse.interpret.hooks import hooked

    torch.manual_seed(0)
    classifier = GPTClassifier(GPT(ModelConfig(vocab_size=10, d_model=16, n_heads=2, n_layers=1)).double())
    torch.nn.init.normal_(classifier.head.weight)
    classifier = classifier.double().eval()
    ids = torch.tensor([[1, 5, 7]])

    def logit(t):
        with torch.no_grad(), hooked(classifier.body, {"embedding": lambda x: x * (1 + t)}):
            return classifier(ids, torch.ones_like(ids))[0, 1].item()

    scores = cues.gradient_times_input(classifier, [1, 5, 7], target=1)
    assert scores.shape == (3,)
    assert scores.sum().item() == pytest.approx((logit(1e-6) - logit(-1e-6)) / 2e-6, abs=1e-5)


# ---- methods and stored runs ----------------------------------------------------------------


def test_scores_are_counted():
    planted = plant("previous token")
    (truth,) = planted.heads
    wrong = next(iter(planted.others))
    rows = [(planted, {truth}, 1.0), (planted, {wrong}, 0.0), (planted, {truth, wrong}, 0.95)]
    assert methods.score(rows) == methods.Score(circuits=3, right=2, missed=1, false=2, faithful=2)
    assert str(methods.score(rows)) == "right  2, missed  1, false  2; faithful  2 of 3 circuits"


def test_the_sharpest_map_is_named():
    """The head that looks one back is sharp, and so is its twin, which carries nothing."""
    planted = plant("previous token", seed=1)
    twins = {*planted.heads, *(h for h, role in planted.others.items() if role.startswith("looks like"))}
    assert methods.sharpest_maps(planted, planted.texts(20).clean, 2) == twins


def test_methods_of_the_stored_table_have_names():
    rows = stored.table("circuits", "found")
    assert set(methods.NAMES) <= {row["method"] for row in rows}
    totals = methods.total(rows)
    assert totals["restore"].circuits == len({(row["task"], row["seed"]) for row in rows})
    right = stored.column(rows, "right", method="restore")
    assert sum(right) == totals["restore"].right


def test_a_direction_that_is_a_rule_is_named_by_it():
    """States that hold 1 along an axis where a token stands, and noise elsewhere: that axis gets its name."""
    rng = np.random.default_rng(0)
    texts = [[" the" if x < 0.2 else " of" if x < 0.5 else "s" for x in rng.random(400)] for _ in range(2)]
    states = [torch.from_numpy(rng.normal(0, 0.01, (400, 4))).float() for _ in range(2)]
    for text, x in zip(texts, states, strict=True):
        x[:, 2] += torch.tensor([piece == " the" for piece in text]).float()
    found = stored.name_everything({"axes": coder_of(torch.eye(4), states[0], 1)}, states, texts)["axes"]
    (unit,) = [unit for unit in found if unit.unit == 2]
    assert (unit.rule, unit.good) == ("token ' the'", True)
