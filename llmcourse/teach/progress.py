"""Which exercises are solved: one small local file, no account, no network."""

import json
import os
from datetime import date
from pathlib import Path

from llmcourse.runtime import atomic_write


def progress_file() -> Path:
    """Return where progress is kept: LLMCOURSE_PROGRESS, or ~/.llmcourse/progress.json."""
    return Path(os.environ.get("LLMCOURSE_PROGRESS") or Path.home() / ".llmcourse" / "progress.json")


def read_progress() -> dict[str, str]:
    """Return solved exercises with the date of the first correct answer; damaged files count as empty."""
    try:
        content = json.loads(progress_file().read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError, UnicodeDecodeError):
        return {}
    return content if isinstance(content, dict) else {}


def record(name: str) -> None:
    """Remember that the exercise `name` is solved. A read-only home loses this and nothing else."""
    solved = read_progress()
    if name in solved:
        return
    try:
        with atomic_write(progress_file()) as temporary:
            temporary.write_text(json.dumps({**solved, name: date.today().isoformat()}, indent=1) + "\n")
    except OSError as error:
        print(f"(progress was not saved: {error}; set LLMCOURSE_PROGRESS to a file you can write)")


def progress_table() -> str:
    """Return one line per chapter: solved and all exercises.

    >>> "04a" in progress_table()
    True
    """
    from llmcourse.teach.exercises import all_exercises

    solved = read_progress()
    chapters: dict[str, list[str]] = {}
    for exercise in all_exercises():
        chapters.setdefault(exercise.name.split("-")[0], []).append(exercise.name)
    lines = ["chapter  solved"]
    for chapter, names in chapters.items():
        done = sum(name in solved for name in names)
        lines.append(f"{chapter:7}  {done} of {len(names)}  {'#' * done}{'.' * (len(names) - done)}")
    return "\n".join(lines)
