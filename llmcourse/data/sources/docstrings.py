"""Long and short: docstrings, whose first sentence says in a few words what the rest says at length.

Packages are read as files (`ast` parses, nothing is imported), pinned by version and hash, so that a
split by package has the same pairs on every machine.
"""

import ast
import re
import sysconfig
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from llmcourse.data.cleaning.dedup import near_groups, normalize
from llmcourse.data.manifest import Files, fetch
from llmcourse.data.summary_text import sentences

SPLIT = {  # chosen by subject before any model was trained: the test has terminals, control, weather, Word, queues
    "train": ("cinder", "cirq", "discord", "ibis", "kornia", "nova", "pyglet", "pymc", "pyro", "pyvista",
              "skrub", "tensorflow_probability", "torchmetrics", "twisted"),
    "validation": ("geopandas", "optuna", "praw"),
    "test": ("celery", "control", "docx", "metpy", "textual"),
}  # fmt: skip
STANDARD = ("argparse.py", "asyncio/*.py", "collections/*.py", "concurrent/*/*.py", "configparser.py", "ctypes/*.py",
            "datetime.py", "_pydatetime.py", "decimal.py", "_pydecimal.py", "difflib.py", "doctest.py", "email/*.py",
            "fractions.py", "heapq.py", "http/*.py", "importlib/*.py", "inspect.py", "logging/*.py", "multiprocessing/*.py",
            "pathlib*.py", "pathlib/*.py", "random.py", "shutil.py", "statistics.py", "string*.py", "subprocess.py",
            "tarfile.py", "tempfile.py", "textwrap.py", "threading.py", "tkinter/*.py", "turtle.py", "typing.py",
            "unittest/*.py", "urllib/*.py", "xml/*/*.py", "zipfile/*.py")  # fmt: skip
TESTS = re.compile(
    r"(^|/)(tests?|testing|_?vendor(ed)?|migrations|examples?)/|(^|/)test_|_test\.py$|conftest"
)
SUMMARY, BODY = (3, 15), (8, 120)  # words
SECTION = re.compile(
    r"(?:\.\. |:\w+[^:\n]*:(?!`)|@\w+|>>> |[-*+•] |\d+[.)] |\||#|```|\$\$)"  # directives, fields, code, lists, tables
    r"|[A-Z][\w -]{2,40}:?\n *[-=~^\"*]{3,}"  # a heading and its line
    r"|(?:Args|Arg|Arguments|Attributes|Examples?|Keyword Args|Notes?|Other Parameters|Parameters|Params|Raises|"
    r"References|Returns?|See Also|Shape|Warnings?|Yields|Usage)\s*:? *(?:\n|$)"
)
FIELD = re.compile(
    r"\n(?=\s*(?:[-*+•] |:\w+[^:\n]*:(?!`)|>>> |@\w+ ))"
)  # fields and lists need no empty line before
NO_DESCRIPTION = re.compile(r"\b(?:todo|fixme|deprecated)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Docstring:
    """What a definition is called and takes, the first sentence of its docstring (target), the rest (source).

    The source is empty where a docstring has one sentence only, and nothing else.
    """

    name: str
    parameters: tuple[str, ...]
    source: str
    target: str
    package: str = ""

    @property
    def signature(self) -> str:
        """The name as it is called, such as "Chart.draw(width, height)"."""
        return f"{self.name}({', '.join(self.parameters)})"


def definitions(code: bytes) -> Iterator[tuple[str, tuple[str, ...], str]]:
    """Yield (name, parameters, docstring) of each function and class of a file; names of methods have the class's.

    Code that this Python cannot parse yields nothing.

    >>> list(definitions(b'class A:\\n    def f(self, x, *, y=0):\\n        "Doc."'))
    [('A.f', ('x', 'y'), 'Doc.')]
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an invalid escape in somebody's string
            tree = ast.parse(code)
    except (SyntaxError, ValueError):
        return
    waiting: list[tuple[ast.AST, str]] = [(tree, "")]
    for node, prefix in waiting:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                name = prefix + child.name
                if text := ast.get_docstring(child):
                    yield name, _parameters(child), text
                if isinstance(child, ast.ClassDef):
                    waiting.append((child, name + "."))
            elif isinstance(child, ast.If | ast.Try | ast.With):
                waiting.append((child, prefix))


def _parameters(node) -> tuple[str, ...]:
    if isinstance(node, ast.ClassDef):
        inits = (n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__")
        node = next(inits, None)
    if node is None:
        return ()
    names = [arg.arg for arg in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    return tuple(name for name in names if name not in ("self", "cls"))


def plain_text(text: str) -> str:
    """Return a text without the marks of reStructuredText, Markdown and Epytext, on one line.

    >>> plain_text("Return a :class:`~a.b.Chart` of ``x``,\\n see L{Plot} or `this <https://a.b>`_.")
    'Return a Chart of x, see Plot or this.'
    """
    text = re.sub(r":[\w:+.-]+:`~?([^`<]*?)\s*(?:<[^`>]*>)?`", lambda m: m[1].rsplit(".", 1)[-1], text)
    text = re.sub(r"`([^`<]+?)\s*<[^`>]+>`_{0,2}", r"\1", text)
    text = re.sub(r"\[([^\]]+)\]\([^)]*\)|\[([^\]]+)\]\[[^\]]*\]", lambda m: m[1] or m[2], text)
    text = re.sub(r"\b[A-Z]\{([^{}]*)\}", r"\1", text)
    text = re.sub(r"\[[\w*]+\]_|https?://\S+", "", text)
    text = re.sub(r"\|(\w[\w. ]*)\|", r"\1", text)
    text = re.sub(r"[`*]+([^`*\n]+)[`*]+_{0,2}", r"\1", text)
    return " ".join(text.translate(str.maketrans("‘’“”–—", "''\"\"--")).split())


def clean(docstring: str, alone: bool = False) -> tuple[str, str] | str:
    """Return (first sentence, prose after it) as they are learnt from, or a few words that say why not.

    The prose goes on up to the first list, code or section such as *Parameters*, and is cut after 120 words.
    Markup is taken off. With `alone`, a sentence with nothing below comes with an empty text.

    >>> clean("Draw the chart.\\n\\nIt is drawn on the canvas, from its lowest layer up.\\n\\nArgs:\\n  x: y")
    ('Draw the chart.', 'It is drawn on the canvas, from its lowest layer up.')
    >>> clean("Draw the chart.")
    'nothing below'
    """
    prose = []
    for paragraph in re.split(r"\n\s*\n", docstring.strip()):
        if SECTION.match(paragraph) or paragraph.startswith((" ", "\t")):
            break
        prose.append(FIELD.split(paragraph)[0])
    if not prose:
        return "no prose"
    summary, *first = sentences(plain_text(prose[0])) or [""]
    body = " ".join(" ".join([*first, plain_text("\n".join(prose[1:]))]).split()[: BODY[1]])
    n_summary, n_body = len(summary.split()), len(body.split())
    if not body and not alone:
        return "nothing below"
    if n_summary < SUMMARY[0]:
        return "first sentence short"
    if n_summary > SUMMARY[1]:
        return "first sentence long"
    if 0 < n_body < BODY[0]:
        return "text short"
    if not (summary + body).isascii():
        return "beyond ASCII"
    if _is_code(summary, 0.1) or _is_code(body, 0.15):
        return "code or formulas"
    if (
        not re.match(r"[A-Za-z][\w.]*(?![\w.(])", summary)
        or summary[-1] in ":,;"
        or NO_DESCRIPTION.search(summary)
    ):
        return "no description"
    return summary, body


def _is_code(text: str, most: float) -> bool:
    """Return whether more than this share of the signs is none of prose."""
    return len(re.findall(r"[^\w\s.,;:'\"()?!-]|_|\d", text)) > most * len(text)


def package_files(package: str, quiet: bool = False) -> Files:
    """Return name -> content of the Python files of a package of the split.

    Where the package is not to be had, modules of Python's standard library stand in, which differ with its
    version. Raises ValueError for a package that the split does not name.
    """
    known = [name for names in SPLIT.values() for name in names]
    if package not in known:
        raise ValueError(f"package={package!r} is none of the split: choose from {sorted(known)}")
    generate = partial(stand_in, known.index(package), len(known))
    return fetch(f"docstrings-{package}", generate=generate, quiet=quiet).files


def load_docstrings(
    package: str, alone: bool = False, quiet: bool = False
) -> tuple[list[Docstring], Counter]:
    """Return (pairs, counts) of one package: those to learn from, and how many were left out and why.

    Counts have "docstrings" (all), "pairs" (kept), "again" (a text or a first sentence that the package had
    before) and the reasons of `clean`. With `alone`, docstrings of a single sentence come too, with an empty
    source: they teach what a name says, and are no task for a summarizer. Tests, examples and what a package took from others are not read.
    Raises ValueError as `package_files` does.
    """
    files = package_files(package, quiet)
    counts, seen, pairs = Counter(), set(), []
    for path in sorted(files):
        if TESTS.search(path):
            continue
        for name, parameters, docstring in definitions(files[path]):
            counts["docstrings"] += 1
            pair = clean(docstring, alone)
            if not isinstance(pair, str):
                keys = {normalize(text) for text in pair if text}
                if keys & seen:
                    pair = "again"
                seen |= keys
            if isinstance(pair, str):
                counts[pair] += 1
            else:
                pairs.append(Docstring(name, parameters, pair[1], pair[0], package))
    counts["pairs"] = len(pairs)
    return pairs, counts


def stand_in(place: int, n: int) -> Files:
    """Return each n-th file of some modules of the standard library, from `place` on."""
    folder = Path(sysconfig.get_path("stdlib"))
    paths = sorted({path for pattern in STANDARD for path in folder.glob(pattern)})
    return {f"generated/{p.relative_to(folder).as_posix()}": p.read_bytes() for p in paths[place::n]}


def split_docstrings(pairs: Iterable[Docstring]) -> dict[str, list[Docstring]]:
    """Return pairs as "train", "validation" and "test", by package; near copies of a training text are left out.

    Two texts are near where they share 0.7 of their runs of three words; where there is no text, the first
    sentence is compared.
    """
    pairs = list(pairs)
    part_of = {name: part for part, names in SPLIT.items() for name in names}
    groups = near_groups([pair.source or pair.target for pair in pairs], n=3)
    trained = {g for g, pair in zip(groups, pairs, strict=True) if part_of[pair.package] == "train"}
    parts: dict[str, list[Docstring]] = {part: [] for part in SPLIT}
    for group, pair in zip(groups, pairs, strict=True):
        part = part_of[pair.package]
        if part == "train" or group not in trained:
            parts[part].append(pair)
    return parts
