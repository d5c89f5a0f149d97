"""The texts of the course, clean and split by document."""

import hashlib
import html
import io
import random
import re
from dataclasses import dataclass

from llmcourse.data.manifest import Files, fetch
from llmcourse.data.sources.web import unix_lines

SPEAKERS = ("KING", "QUEEN", "DUKE", "NURSE", "FOOL", "CAPTAIN")
SUBJECTS = ("the night", "my lord", "your honour", "this sword", "our love", "the crown")
# `_Exit_`, `*Exit*`, `_[Aside]_`, and also `[Aside]_`, which forgets a mark; never beyond a paragraph.
WORDS = r"((?:[^_*\[\]\n]|\n(?!\n))+)"
STAGE_DIRECTION = re.compile(rf"(?<![_*])[_*]+\[?{WORDS}\]?[_*]+|\[{WORDS}\]?[_*]+")
VERBS = ("brings", "hides", "fears", "commands", "forgives", "betrays")


@dataclass(frozen=True)
class Play:
    """One document: its title, its genre (the folder it came from), and its plain text."""

    title: str
    genre: str
    text: str


def plain_text(markdown: str) -> str:
    """Return a play as plain text: `NAME:` before a speech, `[...]` around a stage direction.

    >>> plain_text("## ACT I" + chr(10) * 2 + "**HAMLET**  " + chr(10) + "To be" + chr(10))
    'ACT I\\n\\nHAMLET:\\nTo be\\n'
    """
    text = re.sub(r"^#+ +", "", unix_lines(markdown), flags=re.MULTILINE)
    text = re.sub(r"^\*\*(.+?)\*\* *$", r"\1:", text, flags=re.MULTILINE)
    text = html.unescape(re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", text))
    text = STAGE_DIRECTION.sub(r"[\1\2]", text)
    text = re.sub(r"(?<![ \t])[ \t]+$", "", text, flags=re.MULTILINE)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def stand_in_plays(n_plays: int = 38, n_speeches: int = 2000, seed: int = 0) -> Files:
    """Return generated plays: enough for every notebook to run, and no more than that."""
    rng = random.Random(seed)
    files = {}
    for number in range(1, n_plays + 1):
        speeches = [f"# Stand-in play {number}\n\n## ACT I"]
        for _ in range(n_speeches):
            words = [rng.choice(SUBJECTS), rng.choice(VERBS), rng.choice(SUBJECTS)]
            speeches.append(f"**{rng.choice(SPEAKERS)}**  \n{' '.join(words).capitalize()}.")
        files[f"generated/stand-in-play-{number:02d}.md"] = "\n\n".join(speeches).encode()
    return files


def _split_hub_text(files: Files, n_parts: int = 38) -> Files:
    import pyarrow.parquet as parquet

    # In one thread: those of read_table may still run when Python ends, and then the process aborts.
    readers = [parquet.ParquetFile(io.BytesIO(content)) for content in files.values()]
    tables = [reader.read(use_threads=False) for reader in readers]
    text = "".join(row for table in tables for row in table.column("text").to_pylist())
    speeches = re.sub(r"^(.+):$", r"**\1**", text, flags=re.MULTILINE).split("\n\n")
    size = -(-len(speeches) // n_parts)
    parts = [speeches[start : start + size] for start in range(0, len(speeches), size)]
    return {
        f"hub/tiny-shakespeare-part-{number:02d}.md": "\n\n".join(part).encode()
        for number, part in enumerate(parts, start=1)
    }


def load_plays(quiet: bool = False) -> list[Play]:
    """Return the plays, sorted by title, as plain text; says in one line where they came from."""
    data = fetch("shakespeare", generate=stand_in_plays, quiet=quiet)
    files = data.files
    if any(name.endswith(".parquet") for name in files):
        files = _split_hub_text(files)
    plays = []
    for name, content in files.items():
        *_, genre, file_name = name.split("/")
        text = plain_text(content.decode("utf-8"))
        title = file_name.removesuffix(".md").replace("-", " ").title().replace(" For ", " for ")
        if content.startswith(b"# "):
            title = text.split("\n", 1)[0]
        plays.append(Play(title, genre, text))
    return sorted(plays, key=lambda play: play.title)


def split_by_title(
    plays: list[Play], n_validation: int = 2, n_test: int = 2
) -> tuple[list[Play], list[Play], list[Play]]:
    """Return (train, validation, test), whole plays each.

    The order of the titles' hashes decides, so no seed is needed, and adding a play moves at
    most two others. Raises ValueError when nothing would be left to train on.
    """
    if n_validation + n_test >= len(plays):
        raise ValueError(
            f"{len(plays)} plays cannot give {n_validation} for validation and {n_test} for test "
            "and keep some for training: ask for fewer"
        )
    order = sorted(plays, key=lambda play: hashlib.sha256(play.title.encode()).hexdigest())
    cut = n_test + n_validation
    return order[cut:], order[n_test:cut], order[:n_test]
