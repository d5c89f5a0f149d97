"""Trace the numbers in the text of the notebooks to the lines that hold them.

    python tools/trace_numbers.py        # all chapters; 04a for one

A number in the text must stand, honestly rounded, in an output or in the code of its notebook, in
the definition of its exercise, or in a file or chapter that its cell names. `tests/prose_numbers.tsv`
keeps the line that each number was read from, so that a change on either side is noticed; the few
numbers that need another reason stand in `EXCEPTIONS` of tests/test_prose_numbers.py. Run this after
writing: it keeps what still holds, shows the line that it proposes for each new number (read them: a
number may stand in many lines), and lists the numbers that stand nowhere.

Only numbers of two digits or more have a line, from eleven on also in words. "Two" and 3 stand
everywhere, so tracing them would prove nothing.
"""

import argparse
import csv
import functools
import html
import math
import re
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbval.plugin import get_sanitize_patterns

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TRACES = ROOT / "tests" / "prose_numbers.tsv"
SANITIZER = ROOT / "tests" / "nbval_sanitize.cfg"
COLUMNS = ["notebook", "cell", "number", "times", "where", "line"]

TEENS = [
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
WORDS = dict(zip(TEENS, range(11, 20), strict=True)) | dict(zip(TENS, range(20, 100, 10), strict=True))
SCALES = {"thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12}
SCALE = "|".join(SCALES)
RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
POWER = r"(?:(?P<factor>\d+(?:\.\d+)?)\s?·\s?)?(?P<base>\d+(?:\.\d+)?)(?P<exponent>[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+|\s?\*\*\s?-?\d+)"
DIGITS = r"(?P<digits>\d{1,3}(?:[,_]\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?(?:e[+-]?\d+)?|\.\d+)"
WORD = rf"(?P<word>\b(?i:{'|'.join(WORDS)})\b)"
NUMBER = re.compile(
    rf"(?<![\w.])(?:{POWER}|(?:{DIGITS}|{WORD})(?:(?P<percent>\s?%(?!\()| points?\b)|[ -](?P<scale>{SCALE})\b)?)"
)
ROUGHLY = re.compile(r"\b(?:about|around|roughly|some|nearly|almost|over|than|above|below|under)\W+$")
RANGE = re.compile(r"(?:-| to | and |, )\d[\d.,]*(?:\s?%| points?\b)")  # 57 and 58 %: both are percent

# What looks like a number in the text and is a name, a year or a reference.
NAMES = re.compile(
    r"\]\([^)\s]*\)|https?://\S+|arXiv:\d+\.\d+|\w+#\d+"
    r"|^\s*\d\. |\*(?:Measured|To study):[^*]*\*|\*\*Exercise \S+\*\* \(\d+ minutes, difficulty \d\)"
    r"|(?<![\d.,])0\d[a-e]?\b\w*|\| \d(?:\.\d)?(?:, (?:step|formula) \d)? \|$"
    r"|(?<![\w,.])(?:19[3-9]\d|20[0-2]\d)(?!\d|[.,]\d)"
    r"|(?i:\b(?:chapters?|sections?|sec\.|tables?|figures?|appendix|eq\.|equations?|algorithms?|alg\.) )"
    r"\d[\w.]*(?:(?:\s*[-,]\s*|\s+(?:and|to)\s+)\d[\w.]*)*"
    r"|\b(?:Llama|LLaMA|Python|Qwen3?) \d+(?:\.\d+)?B?(?: \d+B)?\b"
    r"|\b[^\W\d]+[-._]?[A-Za-z]*\d[\w.-]*|\b[A-Z][A-Za-z]*-\d+(?:\.\d+)?\b",
    re.MULTILINE,
)
# What looks like a number in code and is none: formats, places in a list, addresses.
SYNTAX = re.compile(r":[<>^]?[+,]?\d*,?(?:\.\d+)?[a-z%]?\}|(?<=[\w\])])\[-?\d?:?-?\d?\]|arXiv:\S+")


@dataclass(frozen=True)
class Number:
    """A number of a text: `value`, give or take `half` a unit of its last digit."""

    text: str
    start: int
    value: float
    half: float
    decimals: int
    percent: bool

    @property
    def is_traced(self) -> bool:
        """Say whether it is more than a bare digit."""
        return len(self.text.lstrip("0")) > 1


def parse(match: re.Match, text: str) -> Number:
    """Return the number that NUMBER has found in `text`."""
    decimals, half = 0, 0.0
    if match["base"]:
        exponent = match["exponent"].translate(RAISED).strip("* ")
        power = float(match["base"]) ** int(exponent)
        value = float(match["factor"] or 1) * power
        if match["factor"]:
            half = 0.5 * 10.0 ** -len(match["factor"].partition(".")[2]) * power
        elif ROUGHLY.search(text, 0, match.start()):  # about 10¹⁴
            half = value / 2
    else:
        word = match["word"]
        digits = str(WORDS[word.lower()]) if word else re.sub("[,_]", "", match["digits"])
        value, decimals = float(digits), 12 if "e" in digits else len(digits.partition(".")[2])
        half = min(0.5 * 10.0**-decimals, value / 5)  # 0.1 is not 0.051
        if digits.isdigit() and ROUGHLY.search(text, 0, match.start()):  # about 20,000
            half = min(0.5 * 10 ** (len(digits) - len(digits.rstrip("0"))), value / 10)
        if match["scale"]:
            value, half, decimals = value * SCALES[match["scale"]], half * SCALES[match["scale"]], 0
    percent = bool(match["percent"] or RANGE.match(text, match.end()))
    return Number(match.group(), match.start(), value, half, decimals, percent)


def find_numbers(text: str) -> list[Number]:
    """Return the numbers of a Markdown text, without names, years and references.

    >>> [(n.text, n.value) for n in find_numbers("In 2017, GPT-2 read 1.5 million pages: 4·10⁻³, 79 %.")]
    [('1.5 million', 1500000.0), ('4·10⁻³', 0.004), ('79 %', 79.0)]
    """
    text = NAMES.sub(lambda found: re.sub(r"\S", " ", found.group()), text)
    return [parse(match, text) for match in NUMBER.finditer(text)]


@functools.cache
def numbers_of_line(line: str) -> list[Number]:
    """Return the numbers of a line of output, of code or of a table."""
    line = SYNTAX.sub(" ", line)
    return [parse(match, line) for match in NUMBER.finditer(line)]


@functools.cache
def holds(line: str, number: Number) -> bool:
    """Say whether a line holds the number, or one with more digits that rounds to it.

    >>> (number,) = find_numbers("79 %")
    >>> holds("accuracy 0.7923", number), holds("accuracy 79.2%", number), holds("79 films", number)
    (True, True, False)
    """
    speaks_of_percent = re.search(r"%|percent|points", line)
    for other in numbers_of_line(line):
        sizes = [(other.value, other.decimals)]
        if number.percent and not other.percent:
            sizes = [(100 * other.value, other.decimals - 2)] + sizes * bool(speaks_of_percent)
        elif other.percent and not number.percent:
            sizes = [(other.value / 100, other.decimals + 2)]
        for value, decimals in sizes:
            rounds = abs(value - number.value) <= number.half * (1 + 1e-9) and decimals >= number.decimals
            equals = math.isclose(value, number.value, rel_tol=1e-9) and (decimals or not number.decimals)
            if rounds or equals:
                return True
    return False


@functools.cache
def read(path: Path):
    """Return the notebook at `path`."""
    return nbformat.read(path, as_version=4)


def sanitize(text: str) -> str:
    """Return what nbval compares of an output: without the values of its band lines."""
    for pattern, replacement in get_sanitize_patterns(SANITIZER.read_text(encoding="utf-8")):
        text = re.sub(pattern, replacement, text)
    return text


def output_lines(cell) -> list[str]:
    """Return the lines that a cell printed or displayed, without values of bands and hints of exercises."""
    texts = []
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        texts += [output.get("text", ""), data.get("text/markdown", "")]
        if not data.get("text/html", "").startswith("<details"):
            texts.append(html.unescape(re.sub(r"<[^>]+>", " ", data.get("text/html", ""))))
        if not data.get("text/plain", "").startswith("<"):
            texts.append(data.get("text/plain", ""))
    return [line for text in texts for line in sanitize(text).splitlines() if line.strip()]


@functools.cache
def exercise_lines(name: str) -> list[str]:
    """Return what defines an exercise: its hints and its check, and the solutions of its room."""
    for file in (ROOT / "llmcourse" / "teach" / "chapters").glob("*/*checks.py"):
        for part in file.read_text(encoding="utf-8").split("@exercise(")[1:]:
            if part.lstrip().startswith(f'"{name}"'):
                solutions = file.with_name("solutions.py").read_text(encoding="utf-8")
                return (part + solutions).splitlines()
    raise KeyError(f"no exercise is called {name!r}")


@functools.cache
def lines_at(path: Path, where: str) -> list[str]:
    """Return the lines of a place: a cell, "exercise NAME", NOTEBOOK:CELL, or a file of the project."""
    if where.startswith("exercise "):
        return exercise_lines(where.removeprefix("exercise "))
    if "/" in where:
        return (ROOT / where).read_text(encoding="utf-8").splitlines()
    stem, _, name = where.rpartition(":")
    cells = read(path.with_name(f"{stem}.ipynb") if stem else path).cells
    found = [cell for cell in cells if cell.id == name and cell.cell_type == "code"]
    return [line for cell in found for line in output_lines(cell) + cell.source.splitlines()]


@functools.cache
def places(path: Path, cell_id: str) -> list[str]:
    """Return where numbers of a cell of text may stand, the nearest first."""
    cells = read(path).cells
    here = next(i for i, cell in enumerate(cells) if cell.id == cell_id)
    text = cells[here].source
    code = [i for i, cell in enumerate(cells) if cell.cell_type == "code" and cell.id != "set-up"]
    found = [cells[i].id for i in sorted(code, key=lambda i: abs(i - here))]
    for target in re.findall(r"\]\(([^)#\s]+)\)|`([\w/]+\.py)`", text):
        file = (path.parent / target[0] if target[0] else ROOT / target[1]).resolve()
        if not file.is_file() or not file.is_relative_to(ROOT) or file == path:
            continue
        if file.suffix == ".ipynb":
            found += [f"{file.stem}:{cell.id}" for cell in read(file).cells if cell.cell_type == "code"]
        else:  # a card and the tables that it describes
            tables = sorted(file.parent.glob("*.csv")) if file.suffix == ".md" else []
            found += [str(other.relative_to(ROOT)) for other in (file, *tables)]
    return found


def stems(text: str) -> set[str]:
    """Return the beginnings of the longer words of a text."""
    return {word[:5] for word in re.findall(r"[^\W\d_]{4,}", text.lower())}


def propose(path: Path, cell, number: Number, least: float = 0.5) -> tuple[str, str] | None:
    """Return (place, line) for the line that most likely gave the number, or None.

    It is near, or has words in common with what stands around the number; in a recap, which is
    far from everything, only words count.
    """
    start = cell.source.rfind("\n", 0, number.start) + 1
    paragraph = cell.source[start : (cell.source + "\n").index("\n", number.start)]
    at = number.start - start
    words = stems(paragraph[max(0, at - 100) : at + 60])
    exercises = [f"exercise {name}" for name in re.findall(r"\*\*Exercise (\S+)\*\*", paragraph)]
    best, best_score = None, least
    for rank, where in enumerate(exercises + places(path, cell.id)):
        nearness = 0.0 if cell is read(path).cells[-1] else max(0.0, 2 - rank / 4)
        nearness -= ":" in where  # another chapter
        for line in lines_at(path, where):
            if holds(line, number):
                score = len(words & stems(f"{line} {where}")) + nearness
                score += "SCALE" in paragraph and "run.pick(" in line  # the head tells what is picked
                if score > best_score:
                    best, best_score = (where, line), score
    return best


@functools.cache
def shape(line: str) -> str:
    """Return how a line begins, with # for its numbers: the same after another run."""
    return re.sub(r"\d[\d,._]*", "#", " ".join(line.split()))[:60]


@functools.cache
def stands(path: Path, where: str, line: str, number: Number) -> bool:
    """Say whether a traced line is still there and still holds the number; in code, any line will do."""
    return any(line in ("", shape(other)) and holds(other, number) for other in lines_at(path, where))


def read_traces() -> dict[tuple[str, str, str], tuple[int, str, str]]:
    """Return (notebook, cell, number) -> (times in the cell, place, line) as stored."""
    with TRACES.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return {(r["notebook"], r["cell"], r["number"]): (int(r["times"]), r["where"], r["line"]) for r in rows}


def traced_numbers(cell) -> dict[str, tuple[int, Number]]:
    """Return how often each number stands in a cell of text, bare digits left out."""
    numbers = [number for number in find_numbers(cell.source) if number.is_traced]
    counts = Counter(number.text for number in numbers)
    return {number.text: (counts[number.text], number) for number in reversed(numbers)}


def trace(path: Path, stored: dict, exceptions: dict) -> dict:
    """Return the traces of one notebook, and print what is new and what stands nowhere."""
    found = {}
    for cell in (cell for cell in read(path).cells if cell.cell_type == "markdown"):
        for text, (times, number) in traced_numbers(cell).items():
            key = path.stem, cell.id, text
            if key in stored and stands(path, *stored[key][1:], number):
                found[key] = times, *stored[key][1:]
            elif text in exceptions.get(key[:2], {}):
                continue
            elif line := propose(path, cell, number):
                is_code = line[0].startswith("exercise ") or line[0].endswith(".py")
                found[key] = times, line[0], "" if is_code else shape(line[1])
                around = cell.source[max(0, number.start - 40) : number.start + 30].replace("\n", " ")
                print(f"{path.stem} {cell.id}: {text}   ...{around}...")
                print(f"    {line[0]}: {' '.join(line[1].split())[:110]}")
            else:
                print(f"{path.stem} {cell.id}: {text} STANDS NOWHERE")
    return found


def main(prefixes: list[str]) -> None:
    """Trace the chapters that start with one of `prefixes`, and store what was found."""
    sys.path.insert(0, str(TRACES.parent))
    from test_prose_numbers import EXCEPTIONS

    traces = read_traces()
    for path in (path for path in NOTEBOOKS if path.name.startswith(tuple(prefixes) or "")):
        new = trace(path, traces, EXCEPTIONS)
        traces = {key: value for key, value in traces.items() if key[0] != path.stem} | new
    with TRACES.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", quoting=csv.QUOTE_NONE, quotechar=None, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([*key, *value] for key, value in sorted(traces.items(), key=lambda t: t[0][0]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("prefixes", nargs="*", help="such as 04a; all chapters without any")
    main(parser.parse_args().prefixes)
