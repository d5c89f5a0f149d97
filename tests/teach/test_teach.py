"""Checks, hints, progress and figures, on a toy exercise."""

import html
import json
import math
import os
import re
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from llmcourse import runtime
from llmcourse.cli import main
from llmcourse.teach import exercises, plots, progress
from llmcourse.teach.checks import band, check, verdict
from llmcourse.teach.exercises import (
    Exercise,
    NoSolution,
    NotRight,
    exercise,
    get_exercise,
    get_solution,
    require,
)
from llmcourse.teach.hints import hints, hints_html, show_source, solution_source
from llmcourse.teach.progress import progress_file, read_progress, record
from llmcourse.tokenizer import BPETokenizer, replace_pair

TOY = "99z-double"


def double(x):
    return x * 2 if x < 1e9 and "<b>&" else x


@pytest.fixture(autouse=True)
def own_progress_and_figures(monkeypatch, tmp_path):
    monkeypatch.setenv("LLMCOURSE_PROGRESS", str(tmp_path / "home" / "progress.json"))
    monkeypatch.delenv("LLMCOURSE_BAND_LOG", raising=False)
    plt.switch_backend("Agg")
    yield
    plt.close("all")


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    """Register one exercise for the time of a test."""
    monkeypatch.setattr(exercises, "EXERCISES", dict(exercises.EXERCISES))

    @exercise(TOY, "Double it", 2, 1, ("Use <b> &amp; think", "Write x * 2"), wants="function")
    def check_double(answer):
        require(callable(answer), "give a function of one number")
        require(answer(3) == 6, f"double(3) is 6, yours gives {answer(3)}")
        return "3 becomes 6."

    return check_double


# ---- exercises ------------------------------------------------------------------------------


def test_an_exercise_is_registered_once(toy):
    found = get_exercise(TOY)
    assert isinstance(found, Exercise)
    assert (found.title, found.minutes, found.difficulty, found.check) == ("Double it", 2, 1, toy)
    again = exercise(TOY, "Another", 1, 1, (), wants="value")
    with pytest.raises(ValueError, match=f"two exercises are called '{TOY}'"):
        again(toy)
    assert get_exercise(TOY) is found


@pytest.mark.parametrize("name", ["99z-unknown", "nothing", "", "-"])
def test_an_unknown_exercise_is_an_error(name):
    with pytest.raises(KeyError, match=re.escape(f"no exercise is called '{name}'")):
        get_exercise(name)


def test_require():
    assert require(True, "x") is None
    assert require(torch.tensor(True), "x") is None
    for wrong in (False, 0, torch.tensor(False)):
        with pytest.raises(NotRight, match="too small"):
            require(wrong, "too small")


# ---- verdicts -------------------------------------------------------------------------------


def stub(x): ...


def returns_dots(x):
    return ...


@pytest.mark.parametrize("answer", [None, ..., stub, returns_dots])
def test_an_answer_still_to_be_written_is_not_yet(answer):
    kind, sentence = verdict(TOY, answer)
    assert kind == "not yet"
    assert f"hints('{TOY}')" in sentence


def test_a_right_answer_is_correct():
    assert verdict(TOY, double) == ("correct", "3 becomes 6.")
    assert verdict(TOY, lambda x: x + x) == ("correct", "3 becomes 6.")


def test_a_wrong_answer_is_told_what_is_wrong():
    assert verdict(TOY, lambda x: x * x) == ("wrong", "double(3) is 6, yours gives 9")
    assert verdict(TOY, 6) == ("wrong", "give a function of one number")


def raises_value_error(x):
    raise ValueError("bad x")


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (raises_value_error, "your code raised ValueError: bad x"),
        (lambda: 6, "your code raised TypeError: "),
        (lambda x: x / 0, "your code raised ZeroDivisionError: division by zero"),
        (lambda x: missing, "your code raised NameError: "),  # noqa: F821
    ],
)
def test_code_that_raises_is_wrong_and_does_not_bury_the_notebook(answer, sentence):
    kind, said = verdict(TOY, answer)
    assert kind == "wrong"
    assert said.startswith(sentence)


def test_an_interruption_is_not_an_answer():
    def interrupted(x):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verdict(TOY, interrupted)


def test_check_prints_one_line_and_remembers_only_what_is_correct(capsys):
    check(TOY, ...)
    check(TOY, lambda x: x)
    assert read_progress() == {}
    check(TOY, double)
    check(TOY, double)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{TOY}: not yet - replace the `...`")
    assert lines[1:] == [
        f"{TOY}: not right - double(3) is 6, yours gives 3",
        f"{TOY}: correct! 3 becomes 6.",
        f"{TOY}: correct! 3 becomes 6.",
    ]
    assert read_progress() == {TOY: date.today().isoformat()}


# ---- bands ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "limits", "digits", "line"),
    [
        (1.80, (1.80, 1.95), 2, "1.800, inside 1.80 to 1.95"),
        (1.95, (1.80, 1.95), 2, "1.950, inside 1.80 to 1.95"),
        (1.9500001, (1.80, 1.95), 2, "1.95000, OUTSIDE 1.80 to 1.95"),
        (1.7999, (1.8, 1.9), 1, "1.7999, OUTSIDE 1.8 to 1.9"),
        (-3.0, (1.8, 1.9), 1, "-3.0000, OUTSIDE 1.8 to 1.9"),
        (-0.012, (-0.03, 0.03), 2, "-0.012, inside -0.03 to 0.03"),
        (-0.1, (-0.20, -0.07), 2, "-0.100, inside -0.20 to -0.07"),
        (12, (4, 30), 0, "12.0, inside 4 to 30"),
        (np.float32(0.25), (0, 1), 2, "0.250, inside 0.00 to 1.00"),
        (torch.tensor(0.25), (0, 1), 2, "0.250, inside 0.00 to 1.00"),
    ],
)
def test_a_band_line_shows_value_verdict_and_limits(value, limits, digits, line, capsys):
    band("loss", value, *limits, digits=digits)
    assert capsys.readouterr().out == f"loss: {line}\n"


def test_not_a_number_is_outside(capsys):
    band("loss", math.nan, 0.0, 1.0)
    assert "OUTSIDE" in capsys.readouterr().out


# ---- progress -------------------------------------------------------------------------------


def test_progress_is_kept_where_the_environment_says(monkeypatch, tmp_path):
    assert progress_file() == tmp_path / "home" / "progress.json"
    monkeypatch.setenv("LLMCOURSE_PROGRESS", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert progress_file() == tmp_path / ".llmcourse" / "progress.json"
    monkeypatch.delenv("LLMCOURSE_PROGRESS")
    assert progress_file() == tmp_path / ".llmcourse" / "progress.json"


def test_the_first_day_is_kept():
    record("a")
    first = {"a": "2020-02-02", "other": "2021-01-01"}
    progress_file().write_text(json.dumps(first), encoding="utf-8")
    record("a")
    assert read_progress() == first
    record("b")
    assert read_progress() == {**first, "b": date.today().isoformat()}


def write(content: bytes) -> None:
    progress_file().parent.mkdir(parents=True, exist_ok=True)
    progress_file().write_bytes(content)


DAMAGE = [
    b"{",
    b"[1, 2]",
    b"null",
    b"3",
    b"\xff\xfe\x00",
    b'{"a": ',
    b"\0" * 40,
    b'{"b": "2020-01-01"} {',
    b"[" * 10**5,
]


@pytest.mark.parametrize("damage", DAMAGE, ids=range(len(DAMAGE)))
def test_a_damaged_file_counts_as_empty_and_is_kept_aside(damage, capsys, monkeypatch):
    """QwenLM/qwen-code#11803: a settings file that cannot be read was overwritten by the next save."""
    monkeypatch.setattr(exercises, "rooms", list)
    write(damage)
    assert read_progress() == {}
    assert "cannot be read" in progress.progress_table().splitlines()[-1]
    record("a")
    assert list(read_progress()) == ["a"]
    line = capsys.readouterr().out
    aside = progress_file().with_name("progress.json.damaged")
    assert str(aside) in line
    assert line.count("\n") == 1
    write(b"again")
    record("b")
    assert aside.read_bytes() == damage
    assert aside.with_name("progress.json.damaged-2").read_bytes() == b"again"
    assert sorted(path.name for path in aside.parent.iterdir()) == [
        "progress.json", "progress.json.damaged", "progress.json.damaged-2"
    ]  # fmt: skip
    record("c")
    assert list(read_progress()) == ["b", "c"]


@pytest.mark.parametrize("content", [b"", b" \n", b"{}"])
def test_an_empty_file_is_no_damage(content, capsys):
    write(content)
    record("a")
    assert list(read_progress()) == ["a"]
    assert capsys.readouterr().out == ""
    assert len(list(progress_file().parent.iterdir())) == 1


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
def test_a_file_that_an_editor_has_saved_in_its_way_is_read(encoding):
    """Windows' editors write a byte order mark, PowerShell's `>` UTF-16: JSON is told by its first bytes."""
    record("a"), record("b")
    write(progress_file().read_text(encoding="utf-8").replace("\n", "\r\n").encode(encoding))
    assert list(read_progress()) == ["a", "b"]
    record("c")
    assert list(read_progress()) == ["a", "b", "c"]


def test_what_else_the_file_holds_stays():
    write(json.dumps({"a": 1, "note": {"by": "me"}, "ü": None}).encode())
    record("b")
    today = date.today().isoformat()
    assert json.loads(progress_file().read_bytes()) == {"a": 1, "note": {"by": "me"}, "ü": None, "b": today}


def test_a_file_that_cannot_be_opened_now_is_not_replaced(monkeypatch, capsys):
    """A network drive that fails, or a file of another user: what is there must not be lost."""
    record("a")
    before = progress_file().read_bytes()

    def fails(self):
        raise OSError(5, "Input/output error", str(self))

    with monkeypatch.context() as patch:
        patch.setattr(progress.Path, "read_bytes", fails)
        assert read_progress() == {}
        record("b")
    assert "progress was not saved" in capsys.readouterr().out
    assert progress_file().read_bytes() == before


def test_notebooks_that_record_at_once_lose_nothing():
    """Between reading and writing, another kernel may have added a line: the second write would drop it."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(record, [f"exercise {i}" for i in range(60)]))
    assert len(read_progress()) == 60
    assert [path.name for path in progress_file().parent.iterdir()] == ["progress.json"]


def test_a_lock_that_a_crash_left_does_not_hold_for_ever(monkeypatch, capsys):
    record("a")
    lock = progress_file().with_name(".llmcourse-progress.lock")
    lock.touch()
    os.utime(lock, (0, 0))
    record("b")
    assert list(read_progress()) == ["a", "b"]
    lock.touch()
    monkeypatch.setattr(progress.time, "sleep", lambda seconds: None)
    record("c")  # a fresh one belongs to somebody
    assert "another notebook" in capsys.readouterr().out
    assert list(read_progress()) == ["a", "b"]


@pytest.mark.skipif(os.name == "nt", reason="not on this system: links need a right of their own")
def test_progress_may_be_a_link(monkeypatch, tmp_path):
    (tmp_path / "synced").mkdir()
    (tmp_path / "link.json").symlink_to(tmp_path / "synced" / "mine.json")
    monkeypatch.setenv("LLMCOURSE_PROGRESS", str(tmp_path / "link.json"))
    record("a")
    assert (tmp_path / "link.json").is_symlink()
    assert list(json.loads((tmp_path / "synced" / "mine.json").read_bytes())) == ["a"]


def test_progress_may_lie_in_a_folder_or_below_a_tilde(monkeypatch, tmp_path):
    monkeypatch.setenv("LLMCOURSE_PROGRESS", str(tmp_path))
    record("b")
    assert progress_file() == tmp_path / "progress.json"
    assert list(read_progress()) == ["b"]
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("LLMCOURSE_PROGRESS", "~/mine.json")  # the magic %env leaves the tilde as it is
    assert progress_file() == tmp_path / "mine.json"


def test_without_a_home_the_answer_is_still_right(monkeypatch, capsys):
    """jupyter-on-openshift/jupyterhub-quickstart#21: no HOME, and a user whom the system does not know."""

    def unknown(self):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("LLMCOURSE_PROGRESS")
    monkeypatch.setattr(progress.Path, "expanduser", unknown)
    monkeypatch.setattr(exercises, "rooms", list)
    check(TOY, double)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"{TOY}: correct! 3 becomes 6."
    assert any("progress was not saved: this user has no home folder" in line for line in lines)
    assert read_progress() == {}
    assert main(["progress"]) == 0
    assert "no home folder" in capsys.readouterr().out.splitlines()[-1]


def test_a_place_that_cannot_be_written_loses_the_progress_and_nothing_else(monkeypatch, capsys):
    def read_only(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(progress, "atomic_write", read_only)
    check(TOY, double)
    lines = capsys.readouterr().out.splitlines()
    assert any("progress was not saved" in line and "LLMCOURSE_PROGRESS" in line for line in lines)
    assert lines[-1] == f"{TOY}: correct! 3 becomes 6."
    assert read_progress() == {}


def test_the_table_counts_by_chapter(monkeypatch):
    toys = {
        name: Exercise(name, "t", 1, 1, (), "value", str) for name in ("98y-a", "98y-b", "98y-c", "99z-a")
    }
    monkeypatch.setattr(exercises, "EXERCISES", toys)
    monkeypatch.setattr(exercises, "rooms", list)
    record("98y-b")
    record("98y-gone")  # an exercise that the course no longer has
    rows = [line.split() for line in progress.progress_table().splitlines()]
    assert rows == [["chapter", "solved"], ["98y", "1", "of", "3", "#.."], ["99z", "0", "of", "1", "."]]


# ---- hints ----------------------------------------------------------------------------------


class Folds(HTMLParser):
    """Collects (summary, text) of each fold, and complains about what is not closed."""

    def __init__(self):
        super().__init__()
        self.open, self.found = [], []

    def handle_starttag(self, tag, attributes):
        self.open.append(tag)
        if tag == "details":
            assert attributes == []  # closed until the reader opens it
            self.found.append(["", ""])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.found[-1][0 if self.open[-1] == "summary" else 1] += data


def test_hints_are_escaped_and_folded_one_by_one():
    page, ask = hints_html(TOY).rsplit("\n", 1)
    parser = Folds()
    parser.feed(page)
    assert parser.open == []
    assert parser.found == [["Hint 1 of 2", "Use <b> &amp; think"], ["Hint 2 of 2", "Write x * 2"]]
    assert f'hints("{TOY}", solution=True)' in ask
    assert "return" not in page + ask
    assert hints(TOY).data == hints_html(TOY)


@pytest.fixture
def room(monkeypatch, toy):
    """The module of the toy's room that holds its solution."""
    toy.__module__ = "toy_room.checks"
    solutions = types.ModuleType("toy_room.solutions")
    solutions.SOLUTIONS = {TOY: double}
    monkeypatch.setitem(sys.modules, "toy_room", types.ModuleType("toy_room"))
    monkeypatch.setitem(sys.modules, "toy_room.solutions", solutions)
    return solutions


def test_a_solution_is_shown_when_it_is_asked_for(room):
    source = 'def double(x):\n    return x * 2 if x < 1e9 and "<b>&" else x'
    assert hints(TOY, solution=True).data == f"<pre>{html.escape(source)}</pre>"


def test_a_solution_that_is_a_value_is_shown_as_such(room):
    room.SOLUTIONS[TOY] = {"a": [1, 2]}
    assert solution_source(TOY) == "{'a': [1, 2]}"


def test_a_copy_without_solutions_says_so(room, monkeypatch):
    monkeypatch.setitem(sys.modules, "toy_room.solutions", None)  # an import of it fails
    page = hints(TOY, solution=True).data
    assert f"this copy of the course holds no solution of {TOY}" in page
    with pytest.raises(NoSolution, match=TOY):
        get_solution(TOY)


def test_a_solution_that_lacks_a_library_is_not_taken_for_missing(room, monkeypatch):
    monkeypatch.delitem(sys.modules, "toy_room.solutions")

    def lacking(name):
        raise ModuleNotFoundError("No module named 'nowhere'", name="nowhere")

    monkeypatch.setattr(exercises.importlib, "import_module", lacking)
    with pytest.raises(ModuleNotFoundError, match="nowhere"):
        get_solution(TOY)


def test_an_exercise_wants_a_function_or_a_value():
    with pytest.raises(ValueError, match=r"wants 'text': say 'function' or 'value'"):
        exercise("99z-text", "A text", 1, 1, (), wants="text")


@pytest.mark.parametrize("thing", [replace_pair, BPETokenizer, BPETokenizer.decode])
def test_show_source_shows_the_installed_code(thing):
    text = show_source(thing).data
    head, code = re.fullmatch(r"`(.+)`\n```python\n(.*)\n```", text, re.DOTALL).groups()
    assert head == f"{thing.__module__}.{thing.__qualname__}"
    compile(code, "shown", "exec")  # whole, and not indented
    assert code.splitlines()[0].split("(")[0].rstrip(":").split()[-1] == thing.__name__


# ---- figures --------------------------------------------------------------------------------


def assert_fits(figure):
    figure.canvas.draw()  # warnings, such as a missing glyph, are errors here
    assert figure.get_figwidth() * 100 <= 700


def test_lines_differ_in_colour_and_in_style_and_are_labelled():
    curves = {f"run {i}": ([0, 1, 2], [i, i + 1, i + 2]) for i in range(6)}
    axis = plots.lines(curves, "steps", "loss (nats)", "A title")
    drawn = axis.get_lines()
    assert [line.get_label() for line in drawn] == list(curves)
    assert len({line.get_color() for line in drawn}) == 6
    assert len({str(line._unscaled_dash_pattern) for line in drawn}) == 6
    assert (axis.get_xlabel(), axis.get_ylabel(), axis.get_title()) == ("steps", "loss (nats)", "A title")
    assert [text.get_text() for text in axis.get_legend().get_texts()] == list(curves)
    np.testing.assert_array_equal(drawn[4].get_ydata(), [4, 5, 6])
    assert_fits(axis.figure)
    more = {**curves, "run 6": ([0], [0])}  # after six looks they come again
    assert len(plots.lines(more, "x", "y").get_lines()) == 7


def test_one_line_has_no_legend_and_an_axis_can_be_given():
    figure, axes = plots.new_figure(n_columns=2)
    assert plots.lines({"a": ([1], [2])}, "x", "y", axis=axes[1]) is axes[1]
    assert axes[1].get_legend() is None
    assert not axes[0].spines["top"].get_visible()
    assert_fits(figure)


def test_bars_are_in_order_and_carry_their_values():
    axis = plots.bars({"first": 1.0, "second": 2.345}, "seconds", format="{:.1f}")
    assert [bar.get_width() for bar in axis.patches] == [1.0, 2.345]
    assert [text.get_text() for text in axis.texts] == ["1.0", "2.3"]
    low, high = axis.get_ylim()
    assert low > high  # the first name is on top
    assert [label.get_text() for label in axis.get_yticklabels()] == ["first", "second"]
    assert_fits(axis.figure)


def test_heatmap_shows_the_matrix_with_its_labels():
    matrix = torch.arange(6.0).reshape(2, 3)
    axis = plots.heatmap(matrix, [" a", "b\n", "$c"], ["x", "y"], "t", "keys", "queries", vmin=0, vmax=9)
    (image,) = axis.images
    np.testing.assert_array_equal(image.get_array(), matrix.numpy())
    assert image.get_clim() == (0, 9)
    assert [label.get_text() for label in axis.get_xticklabels()] == ["␣a", "b↵", r"\$c"]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["x", "y"]
    assert_fits(axis.figure)
    assert_fits(plots.heatmap(np.zeros((2, 100))).figure)


@pytest.mark.parametrize(("n_maps", "n_tokens"), [(1, 3), (5, 3), (8, 20)])
def test_attention_figure_has_a_panel_for_each_map(n_maps, n_tokens):
    weights = torch.rand(n_maps, n_tokens, n_tokens, generator=torch.Generator().manual_seed(0))
    titles = [f"head {i}" for i in range(n_maps)]
    figure = plots.attention_figure(weights, [" t\n"] * n_tokens, titles)
    shown = [axis for axis in figure.axes if axis.images]
    assert [axis.get_title() for axis in shown] == titles
    for axis, matrix in zip(shown, weights, strict=True):
        np.testing.assert_array_equal(axis.images[0].get_array(), matrix.numpy())
        assert axis.images[0].get_clim() == (0, 1)  # the same grey means the same weight in each
    assert not any(axis.axison for axis in figure.axes if not axis.images)
    names = [label.get_text() for label in shown[0].get_yticklabels()]
    assert names == (["␣t↵"] * n_tokens if n_tokens <= 16 else [])
    assert_fits(figure)


@pytest.mark.parametrize("token", [" ", "\n", "$x^{", "a$b$c", "\\frac{", "<b>&"])
def test_any_token_can_be_drawn(token):
    axis = plots.heatmap(np.eye(2), [token, "b"], [token, "b"])
    assert_fits(axis.figure)


def test_token_spans_show_each_token_escaped():
    markup = plots.token_spans([" to", "<b>", "&", "\n"]).data
    spans = re.findall(r"<span [^>]*>(.*?)</span>", markup)
    assert spans == ["␣to", "&lt;b&gt;", "&amp;", "↵"]
    assert "<script" not in markup


def test_a_band_does_not_judge_a_larger_scale(monkeypatch, capsys):
    monkeypatch.setattr(runtime, "_scale", "t4")
    band("loss", 0.5, 1.8, 1.9)
    assert capsys.readouterr().out == "loss: 0.500 (the band 1.80 to 1.90 is for SCALE = 'laptop')\n"
