"""Model cards: what a card states, which of the needed statements it lacks, and whether its digest is that of the file.

A card is a README beside the weights (Mitchell et al. 2018, "Model Cards for Model Reporting", arXiv:1810.03993).
Those of the course are a table of two columns; those of a hub have lines `name: value` between two lines `---`,
and headings with text below.
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

# What a card must state, and by which names it does so: beginnings of a row's, a line's or a heading's name.
NEEDED = {
    "data": ("data", "training data", "trained on"),
    "licence": ("licence", "license"),
    "metrics": ("validation", "test", "development", "evaluation", "results", "metrics", "model-index", "accuracy"),
    "limits": ("limit", "out-of-scope", "bias", "risks", "intended use"),
    "sha256": ("model.safetensors",),
}  # fmt: skip
PLACEHOLDER = re.compile(r"\[?(more information needed|todo|tbd|n/?a|unknown|-)?\]?", re.IGNORECASE)
CELL = re.compile(r"(?<!\\)\|")  # a bar that is not escaped


def read_card(text: str) -> dict[str, str]:
    """Return what a card states, by name: rows of tables of two columns, front matter, headings, `**name:** value`.

    Names are in small letters; where one comes twice, the last statement that is not empty counts. A list of the
    front matter is joined by commas.

    >>> read_card("---\\nlicense: mit\\n---\\n# Name\\n\\n## Limits\\nEnglish only.\\n\\n| Data | plays |\\n")
    {'license': 'mit', 'name': '', 'limits': 'English only.', 'data': 'plays'}
    """
    stated: dict[str, str] = {}

    def state(name: str, value: str) -> None:
        name, value = name.strip(" *#:`").lower(), " ".join(value.split())
        if name and (value or name not in stated):
            stated[name] = value

    text = text.removeprefix("\ufeff").replace("\r\n", "\n")  # as editors on Windows write
    if front := re.match(r"---\n(.*?)\n---\n?", text, flags=re.DOTALL):
        for name, value in re.findall(
            r"^([\w-]+):[ ]*(.*(?:\n(?:[ ]+|- ).*)*)", front[1], flags=re.MULTILINE
        ):
            state(name, ", ".join(line.strip(" -'\"") for line in value.splitlines() if line.strip()))
        text = text[front.end() :]
    text = re.sub(r"<!--.*?-->|^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)  # comments, code
    for heading in re.finditer(r"^#+ +(.+)\n((?:(?!#+ |\|).*\n?)*)", text, flags=re.MULTILINE):
        state(heading[1], heading[2])
    for name, value in re.findall(r"^[-* ]*\*\*(.+?)\*\*:?(.*)$", text, flags=re.MULTILINE):
        state(name, value)
    for line in text.splitlines():
        cells = CELL.split(line.strip())
        if len(cells) == 4 and not cells[0] and not cells[3] and not re.fullmatch(r"[-: ]*", cells[1]):
            state(cells[1], cells[2])
    return stated


def missing_statements(stated: Mapping[str, str], needed: Mapping[str, tuple] = NEEDED) -> list[str]:
    """Return which of the `needed` statements a card lacks; an empty one, or a placeholder, is none.

    >>> missing_statements({"data": "34 plays", "licence": "[More Information Needed]"})
    ['licence', 'metrics', 'limits', 'sha256']
    """
    said = [name for name, value in stated.items() if not PLACEHOLDER.fullmatch(value)]
    return [what for what, names in needed.items() if not any(name.startswith(names) for name in said)]


def file_digest(path: str | Path) -> str:
    """Return the sha256 of a file, as 64 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_agrees(folder: str | Path) -> bool:
    """Return whether the sha256 that a card states is that of `model.safetensors` beside it.

    Raises ValueError where the card states none: an unchecked file is not the same as a checked one.
    """
    folder = Path(folder)
    stated = read_card((folder / "README.md").read_text(encoding="utf-8")).get("model.safetensors", "")
    digest = re.search(r"\b[0-9a-f]{64}\b", stated.lower())
    if digest is None:
        raise ValueError(f"the card of {folder.name} states no sha256 of model.safetensors: add such a row")
    return digest[0] == file_digest(folder / "model.safetensors")
