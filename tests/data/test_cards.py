"""Model cards: the reader against cards in several forms, and every card that the course ships against its file."""

import subprocess

import pytest
from notebook_tools import ROOT

from llmcourse.data.cards import NEEDED, digest_agrees, file_digest, missing_statements, read_card

CARDS = sorted((ROOT / "data" / "checkpoints").glob("*/README.md"))
WHOLE = "| Data | plays |\n| Licence | MIT |\n| Test | 3.6 |\n| Limits | English |\n| model.safetensors | sha256 x |\n"


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.parent.name)
def test_every_card_of_the_course_states_what_it_must_and_its_digest_is_right(path):
    stated = read_card(path.read_text(encoding="utf-8"))
    assert missing_statements(stated) == []
    assert stated["licence"] == "Apache-2.0"
    assert digest_agrees(path.parent)


def test_there_are_cards():
    assert len(CARDS) >= 8


@pytest.mark.parametrize("row", WHOLE.splitlines(), ids=lambda row: row.split("|")[1].strip())
def test_a_row_that_is_taken_away_is_missed(row):
    assert missing_statements(read_card(WHOLE)) == []
    (missed,) = missing_statements(read_card(WHOLE.replace(row + "\n", "")))
    name = row.split("|")[1].strip().lower()
    assert any(name.startswith(n) for n in NEEDED[missed])
    (emptied,) = missing_statements(read_card(WHOLE.replace(row, row.replace(row.split("|")[2], " "))))
    assert emptied == missed


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("| Data | a \\| b |", "data", "a \\| b"),
        ("|Data|plays|", "data", "plays"),
        ("---\nlicense: mit\ntags:\n- a\n- b\n---\n", "tags", "a, b"),
        ("---\r\nlicense: mit\r\n---\r\n", "license", "mit"),
        ("---\nlicense: 'mit'\n---\n", "license", "mit"),
        ("- **License:** Apache-2.0\n", "license", "Apache-2.0"),
        ("**Limits**: English\n", "limits", "English"),
        ("# Model\n\n## Limits\n\nEnglish,\nof 1600\n## Next\n", "limits", "English, of 1600"),
        ("## Limits\n<!-- what it cannot -->\n", "limits", ""),
    ],
)
def test_statements_are_found_in_each_form(text, name, value):
    assert read_card(text)[name] == value


def test_what_states_nothing():
    assert read_card("") == {}
    assert read_card("| | |\n|---|---|\n") == {}
    assert read_card("a | b\n") == {}
    assert read_card("```python\n# limits\nx = 1\n```\n") == {}  # a comment in code is no heading
    assert "ask" not in read_card("text\n---\nask: me\n---\n")  # lines in the middle are no front matter
    assert read_card("| Data | plays |\n## Data\n\n") == {"data": "plays"}  # an empty one takes nothing back


@pytest.mark.parametrize("value", ["", "[More Information Needed]", "TODO", "tbd", "N/A", "-", "unknown"])
def test_a_placeholder_states_nothing(value):
    assert "licence" in missing_statements({"license": value})


def test_a_file_that_was_changed_is_noticed(tmp_path):
    weights, card = tmp_path / "model.safetensors", tmp_path / "README.md"
    weights.write_bytes(b"weights")
    digest = subprocess.run(["sha256sum", weights], capture_output=True, encoding="utf-8", check=True).stdout
    assert file_digest(weights) == digest.split()[0].lstrip("\\")
    card.write_text(f"| model.safetensors | 7 bytes, sha256 {file_digest(weights)} |\n", encoding="utf-8")
    assert digest_agrees(tmp_path)
    weights.write_bytes(b"weighty")
    assert not digest_agrees(tmp_path)
    card.write_text("| model.safetensors | 7 bytes |\n", encoding="utf-8")
    with pytest.raises(ValueError, match="states no sha256"):
        digest_agrees(tmp_path)


def test_a_card_that_windows_wrote_is_read_alike(tmp_path):
    text = "---\nlicense: mit\n---\n" + WHOLE
    assert read_card("\ufeff" + text.replace("\n", "\r\n")) == read_card(text)
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    digest = file_digest(tmp_path / "model.safetensors")
    for row in (f"\ufeff| model.safetensors | {digest} |\n", f"| model.safetensors | {digest.upper()} |\n"):
        (tmp_path / "README.md").write_text(row, encoding="utf-8")
        assert digest_agrees(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"others")
    assert not digest_agrees(tmp_path)
