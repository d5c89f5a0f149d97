"""Imports run downwards only, and a module stays readable."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "llmcourse"
FLOORS = [  # a module may import modules of its own floor or below, never above
    [
        "inputs",
        "machine",
        "keep",
        "runtime",
        "positions",
        "attention",
        "config",
        "optim",
        "schedules",
        "losses",
        "bpe",
        "words",
        "onigmo",
        "tokenizer",
        "tokenizer_files",
        "ngrams",
        "metrics",
        "significance",
        "search",
        "weights",
        "data.manifest",
    ],
    [
        "model",
        "data.batches",
        "data.characters",
        "data.corpora",
        "data.reviews",
        "data.web",
        "data.pii",
        "data.cleaning",
        "data.dedup",
        "data.dirty",
        "checkpoint",
        "resume",
        "evaluation",
    ],
    [
        "generate",
        "decode",
        "training",
        "folders",
        "pretrained",
        "encoders",
        "classify",
        "tensorboard_logs",
        "curves",
        "probes",
    ],
    ["finetune", "compress", "recipes", "tuning", "diagnose"],
    ["teach", "cli"],
]
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def floor_of(name: str) -> int:
    for number, names in enumerate(FLOORS):
        if any(name == known or name.startswith(known + ".") for known in names):
            return number
    raise AssertionError(f"llmcourse.{name} has no floor: add it to FLOORS, as low as it can stand")


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_run_downwards_only(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("llmcourse."):
            module = node.module.removeprefix("llmcourse.")
            is_package = (PACKAGE / module.replace(".", "/")).is_dir()
            names = [f"{module}.{alias.name}" for alias in node.names] if is_package else [module]
        elif isinstance(node, ast.Import):
            names = [a.name.removeprefix("llmcourse.") for a in node.names if a.name.startswith("llmcourse.")]
        for name in names:
            assert floor_of(name) <= floor_of(name_of(path)), f"{name_of(path)} imports {name} from above"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_module_and_its_functions_fit(path):
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 300, "a module is 60-250 lines; a few more are borne"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 115, f"{node.name} does not fit on one screen"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_public_names_have_docstrings(path):
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{name_of(path)}.{node.name}"
