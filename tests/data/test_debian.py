"""Files out of Debian's packages, against a package that dpkg-deb makes here and an apt-get that is a script."""

import shutil
import subprocess

import pytest

from llmcourse.data import debian, manifest
from llmcourse.data.debian import apt_barrier, apt_descriptions, from_apt
from llmcourse.data.manifest import digest, fetch

SPEC = {"name": "sounds", "version": "1", "files": ["usr/share/sounds/[0-9].wav", "usr/share/sounds/text"]}
WANTED = {"usr/share/sounds/1.wav": b"one", "usr/share/sounds/text": b"said"}
needs_dpkg = pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="dpkg-deb is Debian's")


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """An apt-get that knows the package only after `update` where `stale` lies beside it."""
    root = tmp_path / "root"
    for name, content in {**WANTED, "usr/share/sounds/10.wav": b"ten", "usr/bin/x": b""}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    (root / "DEBIAN").mkdir()
    about = "Package: sounds\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b.org>\nDescription: x\n"
    (root / "DEBIAN" / "control").write_text(about, encoding="utf-8")
    archive = tmp_path / "sounds_1_all.deb"
    subprocess.run(["dpkg-deb", "--build", str(root), str(archive)], check=True, capture_output=True)
    script = tmp_path / "bin" / "apt-get"
    script.parent.mkdir()
    script.write_text(
        f'#!/bin/sh\ncase "$*" in\n*update) rm -f {tmp_path}/stale;;\n'
        f"*download*) [ -e {tmp_path}/stale ] && exit 100; cp {archive} . ;;\nesac\n",
        encoding="utf-8",
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:/usr/bin:/bin")
    monkeypatch.setenv("LLMCOURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return tmp_path


@needs_dpkg
@pytest.mark.parametrize("stale", [False, True])
def test_a_package_gives_the_files_that_match_and_nothing_else(mirror, stale):
    if stale:  # lists that do not know the package: new ones are read
        (mirror / "stale").touch()
    assert from_apt(SPEC) == WANTED


@needs_dpkg
def test_fetch_takes_it_keeps_it_and_refuses_other_bytes(mirror, monkeypatch, capsys):
    entry = dict(title="sounds", licence="free", sha256=digest(WANTED), apt=SPEC, optional=True)
    monkeypatch.setattr(manifest, "load_manifest", lambda: {"little": entry})
    assert (fetch("little").place, fetch("little").place) == ("apt", "cache")
    assert "Debian's package sounds" in capsys.readouterr().out
    entry["sha256"] = "0" * 64
    shutil.rmtree(mirror / "cache")
    with pytest.raises(FileNotFoundError, match="comes with apt, from the package sounds 1 of Debian"):
        fetch("little")
    assert "does not hold the bytes of version 1" in capsys.readouterr().out


def test_without_apt_one_line_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(debian.shutil, "which", lambda tool: None)
    monkeypatch.setenv("LLMCOURSE_CACHE", str(tmp_path))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    assert apt_barrier() == "apt-get and dpkg-deb not found: only Debian, Ubuntu and Colab have them"
    assert from_apt(SPEC) is None
    with pytest.raises(FileNotFoundError, match="apt-get and dpkg-deb not found"):
        fetch("people-words")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(FileNotFoundError, match="HF_HUB_OFFLINE forbids the network"):
        fetch("people-words")


def test_descriptions_come_from_lists_in_english_in_a_folder_of_their_own(tmp_path, monkeypatch):
    script = tmp_path / "apt-get"
    script.write_text(
        '#!/bin/sh\nfor word in "$@"; do case "$word" in Dir::State::Lists=*) lists="${word#*=}";; esac; done\n'
        'case "$*" in *Acquire::Languages=en*update) printf "Package: a" > "$lists/x_Translation-en";; esac\n',
        encoding="utf-8",
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(debian, "apt_barrier", lambda: "")
    assert apt_descriptions() == "Package: a"
    script.write_text("#!/bin/sh\nexit 100\n", encoding="utf-8")
    assert apt_descriptions() is None
    monkeypatch.setattr(debian, "apt_barrier", lambda: "no apt here")
    assert apt_descriptions() is None
