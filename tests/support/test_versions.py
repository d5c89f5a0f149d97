"""Versions that are planted: each state, and what is said to do; and those of this machine, against pip's own words."""

import re
import subprocess
import sys
import tomllib
from importlib import metadata

import pytest
from notebook_tools import ROOT
from packaging.requirements import Requirement
from packaging.version import Version

from llmcourse.support import versions
from llmcourse.support.versions import WRONG, Row, version_rows, version_table


def row_of(line, installed, tested=None, running=None) -> Row:
    name = Requirement(line).name
    given = [{name: version} if version else {} for version in (installed, tested, running)]
    (row,) = version_rows("colab", [line], *given)
    return row


@pytest.mark.parametrize(
    ("line", "installed", "tested", "running", "state", "words"),
    [
        ("torch>=2.9", "2.13.0+cpu", "2.13.0", "2.13.0+cpu", "tested", ""),
        ("torch>=2.9", "2.9", None, None, "other", ""),
        ("torch>=2.9", "2.13.0+cpu", "2.13.0+cpu", None, "tested", ""),
        ("torch>=2.9", "unknown", "2.13.0", None, "unreadable", "pip install 'torch>=2.9' --force-reinstall"),
        ("torch>=2.9", "2.9-x-y", None, None, "unreadable", "its version '2.9-x-y' is no number"),
        ("torch>=2.9", "2.13.0", "2.13.0", "unknown", "tested", ""),  # what runs does not say
        ("torch>=2.9", "2.13.0", "a night's", None, "other", ""),
        ("torch>=2.9", "2.8.1", "2.13.0", None, "too old", "pip install 'torch>=2.9'"),
        ("torch>=2.9", None, "2.13.0", None, "missing", "pip install 'torch>=2.9'"),
        ("torch>=2.9", "2.10", "2.9", None, "other", "newer than tested"),  # 10 is more than 9
        ("torch>=2.9", "2.9.1", "2.13.0", None, "other", "older than tested"),
        ("torch>=2.9", "2.13.0", "2.13.0", "2.9.0", "restart", "restart the kernel: it still runs 2.9.0"),
        ("torch>=2.9", "3.0.dev1", None, None, "other", ""),  # a night's build is newer
        ("numpy>=2,<3", "3.1", None, None, "too new", "pip install 'numpy<3,>=2'"),
        ("numpy>=2,<3", "1.26", None, None, "too old", "pip install 'numpy<3,>=2'"),
        ("numpy==2.*", "3.0", None, None, "too new", "pip install 'numpy==2.*'"),
        ("numpy!=2.1", "2.1", None, None, "excluded", "pip install 'numpy!=2.1'"),
        ("numpy>=2,!=2.1", "2.1", None, None, "excluded", "pip install"),
        ("numpy", "0.1", None, None, "other", ""),
        ('faker>=30; extra == "colab"', "40", "40.0", None, "tested", ""),
    ],
)
def test_each_state_says_what_to_do(line, installed, tested, running, state, words):
    row = row_of(line, installed, tested, running)
    assert (row.state, row.installed, row.tested) == (state, installed, tested)
    assert (words in row.to_do) if words else row.to_do == ""


@pytest.mark.parametrize(("extra", "names"), [("colab", ["a", "b"]), ("dev", ["a", "c"]), ("", ["a"])])
def test_packages_of_other_extras_and_the_course_itself_have_no_row(extra, names):
    lines = [
        "a>=1",
        'b; extra == "colab"',
        'c; extra == "dev"',
        'd; python_version < "3"',
        'llmcourse[colab]; extra == "dev"',
    ]
    assert [row.name for row in version_rows(extra, lines, {}, {}, {})] == names


def test_this_machine_is_told_as_pip_tells_it():
    rows = {row.name.lower(): row for row in version_rows()}
    pip = [sys.executable, "-m", "pip", "list", "--format", "freeze", "--disable-pip-version-check"]
    listed = subprocess.run(pip, capture_output=True, encoding="utf-8", check=True).stdout
    by_pip = {re.sub(r"[._]", "-", n).lower(): v for n, v in re.findall(r"^([\w.-]+)==(\S+)", listed, re.M)}
    assert {name: row.installed for name, row in rows.items()} == {name: by_pip.get(name) for name in rows}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = [*project["dependencies"], *project["optional-dependencies"]["colab"]]
    assert sorted(rows) == sorted(Requirement(line).name.lower() for line in declared)
    assert not [row for row in rows.values() if row.state in WRONG]


def test_what_is_tested_is_what_constraints_name(monkeypatch, tmp_path):
    found = versions.tested_versions()
    assert Version(found["torch"]) >= Version("2.9")
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert [f"{name}=={version}" for name, version in found.items()] == lines[1:]
    monkeypatch.setattr(versions, "checkout", lambda: tmp_path)  # no constraints.txt in it
    assert versions.tested_versions() == {}
    monkeypatch.setattr(versions, "checkout", lambda: None)  # an installed copy, as in Colab
    assert versions.tested_versions() == {}
    assert {row.state for row in version_rows()} <= {"other", "restart", *WRONG}


def test_a_module_that_pip_replaced_under_a_running_kernel(monkeypatch):
    monkeypatch.setattr(versions.metadata, "version", lambda name: "99.0")
    import torch

    (row,) = version_rows("", ["torch>=2.9"], tested={})
    assert (row.state, row.to_do) == ("restart", f"restart the kernel: it still runs {torch.__version__}")
    (row,) = version_rows("", ["a-package-nobody-imported"], tested={})
    assert row.state == "other"


def test_the_table_has_one_line_a_row_and_stands_in_columns():
    rows = version_rows("", ["torch>=2.9", "scikit-learn>=1.5"], {"torch": "2.8"}, {"torch": "2.13.0"}, {})
    head, first, second = version_table(rows).splitlines()
    assert first.split() == ["torch", "2.8", ">=2.9", "2.13.0", "pip", "install", "'torch>=2.9'"]
    assert second.split()[:4] == ["scikit-learn", "-", ">=1.5", "-"]
    assert {line.index(word) for line, word in zip((head, first), ("supported", ">=2.9"), strict=True)} == {
        second.index(">=1.5")
    }
    assert version_table([]).split() == ["package", "installed", "supported", "tested", "what", "to", "do"]


def test_without_an_installation_the_reason_comes_out(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(versions.metadata, "requires", missing)
    with pytest.raises(metadata.PackageNotFoundError):
        version_rows()
    (problem,) = versions.package_problems()
    assert "not installed whole" in problem
