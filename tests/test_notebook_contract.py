"""What every notebook promises; CONTRIBUTING.md says why."""

import ast
import base64
import importlib.util
import re
import struct
import sys

import nbformat
import pytest
from notebook_tools import IGNORED, NOTEBOOKS, ROOT, code_cells, compared, printed, read, tags

sys.path.insert(0, str(ROOT / "tools"))
import study_minutes

SETUP = code_cells(read(NOTEBOOKS[0]))[0].source
COLAB = "https://colab.research.google.com/github/llmcourse/llmcourse/blob/main/"
GITHUB = "https://github.com/llmcourse/llmcourse/blob/main/"
BADGE = COLAB + "notebooks/{}"
NOTHING = "`SCALE` changes nothing in this chapter."
MOVES = 'On a GPU, `SCALE = "t4"` moves the training there; nothing becomes bigger.'
BIGGER = 'On a GPU, `SCALE = "t4"` makes '
ADDRESS = re.compile(r"0x[0-9a-f]{6,}")
ABSOLUTE = re.compile(r"(?<![\w.:/])/(?:home|root|work|tmp|Users|usr|opt|content)/|[A-Z]:\\\\")

pytestmark = pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])


def text_outputs(cell):
    for output in cell.outputs:
        yield output.get("text", "")
        for kind, content in output.get("data", {}).items():
            if kind.startswith("text/"):
                yield content


def test_is_a_valid_notebook_with_slugs_as_ids(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    assert [i for i in ids if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", i)] == []


def test_was_run_from_top_to_bottom(path):
    counts = [cell.execution_count for cell in code_cells(read(path))]
    assert counts == list(range(1, len(counts) + 1))


def test_stores_no_error_no_stderr_no_address_no_absolute_path(path):
    for cell in code_cells(read(path)):
        for output in cell.outputs:
            assert output.output_type != "error", cell.id
            assert output.get("name") != "stderr", cell.id
        for text in text_outputs(cell):
            assert not ADDRESS.search(text), (cell.id, text[:200])
            assert not ABSOLUTE.search(text), (cell.id, text[:200])


def test_metadata_holds_tags_and_nothing_else(path):
    notebook = read(path)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    for cell in notebook.cells:
        assert set(cell.metadata) <= {"tags"}, cell.id
        for output in cell.get("outputs", []):
            assert not output.get("metadata"), cell.id
            assert "application/vnd.jupyter.widget-view+json" not in output.get("data", {}), cell.id


def test_enough_cells_are_compared(path):
    notebook = read(path)
    cells = code_cells(notebook)
    ignored = [cell for cell in cells if IGNORED in tags(cell)]
    printing = [cell for cell in cells if printed(cell)]
    assert len(compared(notebook)) >= 5
    assert len(compared(notebook)) >= 0.6 * len(printing)
    assert len(ignored) <= len(cells) / 3, [cell.id for cell in ignored]


def test_no_cell_hides_its_value_with_a_semicolon(path):
    """nbval runs cells outside IPython's history, where the semicolon hides nothing."""
    assert [cell.id for cell in code_cells(read(path)) if cell.source.rstrip().endswith(";")] == []


def test_live_cells_store_nothing(path):
    for cell in code_cells(read(path)):
        if "live" in tags(cell):
            assert cell.outputs == [], cell.id
            assert IGNORED in tags(cell), cell.id


def test_set_up_is_the_same_everywhere(path):
    first = code_cells(read(path))[0]
    assert first.id == "set-up"
    assert first.source == SETUP


def test_head_says_what_scale_changes_here(path):
    """`run.pick` makes something bigger: its numbers stand in the sentence; `run.device` only moves."""
    notebook = read(path)
    code = "\n".join(cell.source for cell in code_cells(notebook)[1:])
    (sentence,) = re.findall(r"^\*(.*`SCALE.*)\*$", notebook.cells[0].source, flags=re.MULTILINE)
    picks = re.findall(r"run\.pick\(laptop=([^,]+), t4=([^)]+)\)", code)
    assert len(picks) == code.count("run.pick")
    if not picks:
        assert sentence == (MOVES if "run.device" in code else NOTHING)
        return
    assert sentence.startswith(BIGGER)
    named = {int(number.replace(",", "")) for number in re.findall(r"\d[\d,]*", sentence.replace("t4", ""))}
    assert named == {int(n) for pair in picks for n in pair if n.isdigit()}  # rates are no sizes


def test_head_has_title_badge_and_measured_cost(path):
    head = read(path).cells[0].source
    assert head.startswith("# ")
    assert BADGE.format(path.name) in head
    assert re.search(r"^\*Measured: \d+ s .* GB of memory.*\*$", head, flags=re.MULTILINE)
    assert len(re.findall(r"^\d\. ", head, flags=re.MULTILINE)) in (3, 4, 5), "three to five goals"


def test_head_states_minutes_of_study_that_are_about_right(path):
    notebook = read(path)
    (minutes,) = study_minutes.STATED.findall(notebook.cells[0].source)
    estimate = study_minutes.study_minutes(notebook)
    assert abs(int(minutes) - estimate) <= max(5, 0.1 * estimate), "run tools/study_minutes.py"


def test_imports_of_the_package_are_there(path):
    for cell in code_cells(read(path)):
        source = re.sub(r"^\s*[%!].*$", "", cell.source, flags=re.MULTILINE)
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "llmcourse":
                module = importlib.import_module(node.module)
                for alias in node.names:
                    found = hasattr(module, alias.name) or importlib.util.find_spec(
                        f"{node.module}.{alias.name}"
                    )
                    assert found, f"{cell.id}: {node.module} has no {alias.name}"


def test_ends_with_a_recap_of_every_goal(path):
    notebook = read(path)
    goals = re.findall(r"^\d\. ", notebook.cells[0].source, flags=re.MULTILINE)
    last = notebook.cells[-1].source
    assert "## What you have seen" in last
    recap = last.split("## What you have seen")[1]
    assert len(re.findall(r"^\d\. ", recap, flags=re.MULTILINE)) >= len(goals) - 1
    assert "**Next:**" in recap


def test_is_small(path):
    notebook = read(path)
    assert path.stat().st_size <= 300_000
    assert 15 <= len(notebook.cells) <= 62
    long = {c.id: n for c in code_cells(notebook) if (n := len(c.source.splitlines())) > 25}
    assert long == {}


def test_figures_are_at_most_700_pixels_wide(path):
    for cell in code_cells(read(path)):
        for output in cell.outputs:
            if png := output.get("data", {}).get("image/png"):
                width, _ = struct.unpack(">II", base64.b64decode(png)[16:24])
                assert width <= 700, (cell.id, width)


def links(cell) -> list[str]:
    """Return the targets of all links of a cell, without what stands after #."""
    return re.findall(r"\]\(([^)#\s]+)", cell.source)


def test_links_inside_the_repository_are_alive(path):
    """Also those that name the repository by its address, for copies that have no neighbours."""
    for cell in read(path).cells:
        if cell.cell_type == "markdown":
            for target in links(cell):
                inside = target.removeprefix(COLAB).removeprefix(GITHUB)
                if inside != target:
                    assert (ROOT / inside).exists(), (cell.id, target)
                elif not target.startswith(("http", "mailto")):
                    assert (path.parent / target).resolve().is_relative_to(ROOT), target
                    assert (path.parent / target).exists(), (cell.id, target)


def test_links_that_a_copy_in_drive_needs_have_an_address_too(path):
    """A notebook saved to Drive has neither neighbours nor `../data`: the next one, and each card."""
    notebook = read(path)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for target in links(cell):
                if target.startswith("../"):
                    assert GITHUB + target.removeprefix("../") in links(cell), (cell.id, target)
    following = re.findall(r"\]\(([^)#\s]+)", notebook.cells[-1].source.split("**Next:**")[1])
    first = next(target for target in following if target.endswith(".ipynb"))
    assert BADGE.format(first) in following


def test_widgets_stand_below_a_static_figure(path):
    cells = code_cells(read(path))
    for cell in cells:
        if "explore_" in cell.source and "live" in tags(cell):
            before = cells[: cells.index(cell)]
            assert any("image/png" in o.get("data", {}) for c in before for o in c.outputs), cell.id
