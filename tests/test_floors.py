"""Imports run downwards only, and a module stays readable."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "llmcourse"
FLOORS = [  # a folder may import from its own floor or below, never above; "" is what lies in none
    ["support"],
    ["", "formats", "data"],
    ["fast", "evaluate", "decode"],
    ["tune", "monitor", "finetune", "compress", "interpret", "speech", "safety"],
    ["teach", "cli"],
]
TO_FAST = {
    "attention": "fast.attention",
    "generate": "fast.decoding",
    "losses": "fast.cross_entropy",
    "seq2seq": "fast.cross_decoding",
}  # the core's only steps upwards
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def floor_of(name: str) -> int:
    folder = name.partition(".")[0] if "." in name or name in ("cli", "teach") else ""
    for number, folders in enumerate(FLOORS):
        if folder in folders:
            return number
    raise AssertionError(f"llmcourse/{folder} has no floor: add it to FLOORS, as low as it can stand")


def imports(path: Path, everywhere: bool) -> set[str]:
    """Return the modules of the package that a module imports; at its top only unless `everywhere`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set()
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "llmcourse":
            module = node.module.removeprefix("llmcourse").lstrip(".")
            is_package = (PACKAGE / module.replace(".", "/")).is_dir()
            found |= (
                {f"{module}.{alias.name}".lstrip(".") for alias in node.names} if is_package else {module}
            )
        elif isinstance(node, ast.Import):
            found |= {
                a.name.removeprefix("llmcourse.") for a in node.names if a.name.startswith("llmcourse.")
            }
    return found - {"__version__"}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_run_downwards_only(path):
    name = name_of(path)
    for other in imports(path, everywhere=True):
        allowed = floor_of(other) <= floor_of(name) or TO_FAST.get(name) == other
        assert allowed, f"{name} imports {other} from above"


def test_no_module_reaches_itself():
    graph = {name_of(path): imports(path, everywhere=False) for path in MODULES}
    tuple(TopologicalSorter(graph).static_order())  # raises CycleError, and names the circle


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
