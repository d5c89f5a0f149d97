"""The start of every notebook: reproducible, silent at import, and safe with files."""

import contextlib
import errno
import io
import os
import random
import re
import stat
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

import llmcourse
from llmcourse import runtime
from llmcourse.runtime import Timer, autocast_dtype, pick_device, set_up, someone_is_watching
from llmcourse.support import files
from llmcourse.support.files import atomic_write


@pytest.fixture(autouse=True)
def restored_threads_and_randomness():
    threads, python, state = torch.get_num_threads(), random.getstate(), torch.get_rng_state()
    yield
    torch.set_num_threads(threads)
    random.setstate(python)
    torch.set_rng_state(state)


# ---- set_up ---------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_numbers():
    def draw(seed):
        set_up(seed=seed)
        return random.random(), torch.rand(4).tolist(), torch.nn.Linear(3, 3).weight.tolist()

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


def test_set_up_says_what_it_decided(capsys):
    run = set_up(seed=5, threads=1)
    assert capsys.readouterr().out == "ready: seed 5, scale laptop\n"
    assert (run.seed, run.threads, run.scale) == (5, 1, "laptop")
    assert run.device == torch.device("cpu")
    assert run.dtype == torch.float32
    assert torch.get_num_threads() == 1
    assert run.pick(laptop=10, t4=1000) == 10
    torch.set_num_threads(2)
    assert set_up(threads=None).threads == 2


def test_the_default_needs_no_gpu_even_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert set_up().device == torch.device("cpu")


def test_t4_picks_the_gpu_and_the_larger_value(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))  # a T4
    run = set_up(scale="t4")
    assert run.device.type == "cuda"
    assert run.dtype == torch.float16
    assert run.pick(laptop=10, t4=1000) == 1000


def test_a_run_has_a_folder_that_a_second_try_finds(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runtime, "someone_is_watching", lambda: True)
    run = set_up()
    folder = run.folder("03c")
    assert str(folder) == os.path.join("runs", "03c")
    folder.mkdir(parents=True)
    (folder / "model.pt").write_text("step 500", encoding="utf-8")
    assert (run.folder("03c") / "model.pt").read_text(encoding="utf-8") == "step 500"
    assert not run.folder("03d").exists()
    assert not (run.folder("03c", anew=True) / "model.pt").exists()
    larger = runtime.Runtime(1, 1, "t4", run.device, run.dtype)
    assert larger.folder("03c") != folder  # a model of another size


def test_a_program_gets_an_empty_folder_and_leaves_the_readers_alone(monkeypatch, tmp_path):
    """So that nbval trains, whatever a reader's own run has left in runs/."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "03c").mkdir(parents=True)
    monkeypatch.setattr(runtime, "someone_is_watching", lambda: False)
    run = set_up()
    first, second = run.folder("03c"), run.folder("03c", anew=True)
    assert list(first.iterdir()) == list(second.iterdir()) == []
    assert first != second
    assert (tmp_path / "runs" / "03c").is_dir()


def test_a_folder_that_cannot_be_emptied_says_what_may_hold_it(monkeypatch, tmp_path):
    """On Windows, TensorBoard holds the event files that it shows."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "03c").mkdir(parents=True)
    monkeypatch.setattr(runtime, "someone_is_watching", lambda: True)
    refuse = PermissionError(13, "used by another process")
    monkeypatch.setattr(runtime.shutil, "rmtree", lambda *_, **__: (_ for _ in ()).throw(refuse))
    with pytest.raises(OSError, match=r"03c could not be emptied .*another process.*restart the kernel"):
        set_up().folder("03c", anew=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": "huge"}, r"scale='huge' is unknown: choose one of \('laptop', 't4'\)"),
        ({"threads": 0}, "threads=0: at least 1 is needed"),
        ({"threads": -2}, "threads=-2"),
        ({"scale": "t4"}, "needs a GPU and none was found"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_changes(options, message, monkeypatch, capsys):
    monkeypatch.setattr(runtime, "pick_device", lambda: torch.device("cpu"))
    state = torch.get_rng_state()
    with pytest.raises(ValueError, match=message):
        set_up(seed=99, **options)
    assert torch.equal(torch.get_rng_state(), state)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(1, 1, "cuda"), (1, 0, "cuda"), (0, 1, "mps"), (0, 0, "cpu")]
)
def test_pick_device(monkeypatch, cuda, mps, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(cuda))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: bool(mps))
    assert pick_device().type == expected


def test_autocast_dtype(monkeypatch):
    assert autocast_dtype(torch.device("cpu")) == torch.float32
    for capability, dtype in (((7, 5), torch.float16), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, c=capability: c)
        assert autocast_dtype(torch.device("cuda")) == dtype


def test_timer_measures_seconds():
    with Timer() as timer:
        time.sleep(0.02)
    assert 0.019 < timer.seconds < 5


# ---- import ---------------------------------------------------------------------------------


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys; before = set(sys.modules); import llmcourse; print(*set(sys.modules) - before)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    assert set(run.stdout.split()) == {"llmcourse"}
    assert run.stderr == ""


def test_importing_the_modules_sets_no_seed_and_reads_no_network():
    code = (
        "import random, sys, torch, socket\n"
        "socket.socket.connect = lambda *a: sys.exit('connected')\n"
        "a, b = random.getstate(), torch.get_rng_state()\n"
        "import llmcourse.training, llmcourse.tokenizer, llmcourse.data.sources.plays, llmcourse.pretrained\n"
        "assert random.getstate() == a and torch.equal(torch.get_rng_state(), b)\n"
        "assert not {'transformers', 'tensorboard', 'datasets', 'tokenizers', 'IPython'} & set(sys.modules)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8")
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_the_version_is_that_of_the_package():
    from importlib import metadata

    assert llmcourse.__version__ == metadata.version("llmcourse")


# ---- files ----------------------------------------------------------------------------------


def test_atomic_write_makes_folders_and_replaces(tmp_path):
    path = tmp_path / "a" / "b" / "file.txt"
    for text in ("first", "second"):
        with atomic_write(path) as temporary:
            assert temporary.parent == path.parent
            temporary.write_text(text, encoding="utf-8")
            assert (
                not path.exists() or path.read_text(encoding="utf-8") == "first"
            )  # not before the block ends
        assert path.read_text(encoding="utf-8") == text
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
@pytest.mark.parametrize("old", [None, "old"])
def test_an_error_keeps_the_old_file_and_leaves_no_other(tmp_path, error, old):
    path = tmp_path / "file.txt"
    if old:
        path.write_text(old, encoding="utf-8")

    def write():
        with atomic_write(str(path)) as temporary:
            temporary.write_text("half", encoding="utf-8")
            raise error

    with pytest.raises(error):
        write()
    assert [file.read_text(encoding="utf-8") for file in tmp_path.iterdir()] == ([old] if old else [])


def test_the_file_has_the_usual_permissions(tmp_path):
    (tmp_path / "plain").write_text("x", encoding="utf-8")
    with atomic_write(tmp_path / "ours") as temporary:
        temporary.write_text("x", encoding="utf-8")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "ours")]
    assert modes[0] == modes[1]
    umask = os.umask(0)
    os.umask(umask)
    assert modes[1] == 0o666 & ~umask  # and the process still has its mask


def put(path, text="new"):
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


POSIX = pytest.mark.skipif(os.name == "nt", reason="not on this system: links, pipes and permissions")


@POSIX
def test_a_link_stays_and_its_target_is_replaced(tmp_path):
    """imbue-ai/mngr#1238, jupyter/notebook#67: a settings file that is linked into a synced folder."""
    (tmp_path / "synced").mkdir()
    target, link, chain = tmp_path / "synced" / "file.json", tmp_path / "link.json", tmp_path / "chain.json"
    link.symlink_to(Path("synced") / "file.json")  # relative to the link
    chain.symlink_to(link)
    for path, text in ((link, "dangling"), (link, "through one"), (chain, "through two")):
        with atomic_write(path) as temporary:
            assert temporary.parent == target.parent  # beside the file: the link may lead to another disk
            temporary.write_text(text, encoding="utf-8")
        assert target.read_text(encoding="utf-8") == text
    assert link.is_symlink()
    assert chain.is_symlink()
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["chain.json", "file.json", "link.json", "synced"]
    (tmp_path / "folder").symlink_to(tmp_path / "synced", target_is_directory=True)
    put(tmp_path / "folder" / "file.json", "by the folder")
    assert target.read_text(encoding="utf-8") == "by the folder"


@POSIX
@pytest.mark.parametrize(
    "name", ["x" * 255, "x" * 250 + ".json", "ü" * 127, "x." + "y" * 253, ".hidden", "no ending"]
)
def test_any_name_that_the_system_takes_can_be_written(tmp_path, name):
    """A name may have 255 bytes; one that is made from it by adding has more."""
    for text in ("first", "second"):
        put(tmp_path / name, text)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_the_temporary_name_keeps_the_ending(tmp_path):
    """numpy.save and matplotlib look at it: `save` of a name without .npy would write beside the file."""
    with atomic_write(tmp_path / "a.npy") as temporary:
        np.save(temporary, np.arange(3))
    assert np.load(tmp_path / "a.npy").tolist() == [0, 1, 2]
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ["checkpoint", "checkpoint.pt", ".hidden", "two.dots.pt", "a.", "a" * 255])
def test_torch_can_save_under_any_name(tmp_path, name):
    """torch names its archive by what stands before the last point, and refuses to name it nothing."""
    with atomic_write(tmp_path / name) as temporary:
        torch.save({"step": 1}, temporary)
    assert torch.load(tmp_path / name) == {"step": 1}


@POSIX
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o755, 0o444])
def test_the_permissions_of_an_existing_file_stay(tmp_path, mode):
    path = tmp_path / "private"
    path.write_text("old", encoding="utf-8")
    path.chmod(mode)
    if os.access(path, os.W_OK):  # root may write a file that is read-only
        with atomic_write(path) as temporary:
            assert stat.S_IMODE(temporary.stat().st_mode) & 0o077 == 0  # nobody reads along meanwhile
            temporary.write_text("new", encoding="utf-8")
        assert path.read_text(encoding="utf-8") == "new"
    else:
        with pytest.raises(PermissionError, match="read-only"):
            put(path)
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_read_only_file_is_left_alone(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("old", encoding="utf-8")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(PermissionError, match=r"read-only.*file"):
        put(path)
    assert [p.read_text(encoding="utf-8") for p in tmp_path.iterdir()] == ["old"]


@POSIX
def test_what_is_no_file_is_refused_before_the_work_begins(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "to-folder").symlink_to(tmp_path / "folder")
    (tmp_path / "to-itself").symlink_to(tmp_path / "to-itself")
    os.mkfifo(tmp_path / "pipe")
    before = sorted(tmp_path.iterdir())
    for name, error, words in (
        ("folder", IsADirectoryError, "give the name of a file in it"),
        ("to-folder", IsADirectoryError, "give the name of a file in it"),
        ("to-itself", OSError, "no plain file"),
        ("pipe", OSError, "no plain file"),
        ("x" * 256, OSError, "too long"),
    ):
        began = False
        with pytest.raises(error, match=words), atomic_write(tmp_path / name):
            began = True
        assert not began
    assert sorted(tmp_path.iterdir()) == before
    device = os.stat(os.devnull)
    with pytest.raises(OSError, match="no plain file"):
        put(os.devnull)  # as root, a rename would put a file in its place
    assert stat.S_ISCHR(device.st_mode) == stat.S_ISCHR(os.stat(os.devnull).st_mode) is True


def test_a_folder_that_cannot_be_written_is_named_by_the_file(tmp_path, monkeypatch):
    def denied(self, *_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "touch", denied)
    with pytest.raises(PermissionError, match=re.escape(f"'{tmp_path / 'file.json'}'")):
        put(tmp_path / "file.json")


def test_a_disk_without_permissions_is_no_reason_to_lose_a_run(tmp_path, monkeypatch):
    """microsoft/WSL#41519: chmod on /mnt/c without mount metadata is "not permitted"."""

    def not_permitted(self, *_, **__):
        raise PermissionError(errno.EPERM, "Operation not permitted", str(self))

    monkeypatch.setattr(Path, "chmod", not_permitted)
    for text in ("first", "second"):
        put(tmp_path / "file", text)
        assert (tmp_path / "file").read_text(encoding="utf-8") == text


@pytest.mark.parametrize(("failures", "pauses"), [(1, (0.0, 0.0)), (2, (0.0, 0.0)), (3, (0.0, 0.0)), (1, ())])
def test_a_file_that_another_program_holds_is_waited_for(tmp_path, monkeypatch, failures, pauses):
    """On Windows, a virus scanner or an open TensorBoard makes `replace` fail with "Access is denied"."""
    monkeypatch.setattr(files, "PAUSES", pauses)
    replace, tries = Path.replace, []

    def held(self, target):
        tries.append(target)
        if len(tries) <= failures:
            raise PermissionError(errno.EACCES, "Access is denied", str(self))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", held)
    (tmp_path / "file").write_text("old", encoding="utf-8")
    if failures <= len(pauses):
        put(tmp_path / "file")
    else:
        with pytest.raises(PermissionError) as caught:
            put(tmp_path / "file")
        assert "close the program that holds" in caught.value.__notes__[0]
    content = [path.read_text(encoding="utf-8") for path in tmp_path.iterdir()]
    assert content == ["new" if failures <= len(pauses) else "old"]


@contextlib.contextmanager
def little_room(n_bytes: int):
    """No file may grow beyond `n_bytes`: the error of a full disk, and torch sees it so (POSIX)."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


WRITERS = {
    "torch": lambda path: torch.save(torch.zeros(100_000), path),
    "safetensors": lambda path: safetensors.torch.save_file({"a": torch.zeros(100_000)}, path),
    "numpy": lambda path: np.save(path, np.zeros(100_000)),
    "a text": lambda path: path.write_text("text " * 100_000, encoding="utf-8"),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_is_named_whatever_the_writer_says(tmp_path, writer):
    """pytorch/pytorch#156955: "unexpected pos" of torch's writer names neither the disk nor a remedy."""
    path = tmp_path / "file.npy"
    path.write_text("old", encoding="utf-8")
    full = pytest.raises(OSError, match="free some space on the disk of")
    with little_room(65_536), full as caught, atomic_write(path) as temporary:
        WRITERS[writer](temporary)
    assert str(path) in str(caught.value)
    assert caught.value.__cause__ is not None
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_while_there_is_room_is_not_taken_for_a_full_disk(tmp_path):
    with pytest.raises(RuntimeError, match="unexpected pos"), atomic_write(tmp_path / "file"):
        raise RuntimeError("unexpected pos 64 vs 0")
    assert list(tmp_path.iterdir()) == []


def test_writers_at_the_same_time_do_not_mix(tmp_path):
    path = tmp_path / "file"
    with atomic_write(path) as one, atomic_write(path) as other:
        one.write_text("1" * 1000, encoding="utf-8")
        other.write_text("2" * 500, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == "1" * 1000
    assert list(tmp_path.iterdir()) == [path]


# ---- figures --------------------------------------------------------------------------------


@pytest.mark.parametrize("chosen", ["Agg", "agg", "svg", "pdf", "module://matplotlib.backends.backend_agg"])
def test_a_notebook_shows_figures_whatever_the_environment_says(monkeypatch, chosen):
    """stefan-jansen/machine-learning-for-trading#482: MPLBACKEND=Agg, and all figures are gone."""
    monkeypatch.setenv("MPLBACKEND", chosen)
    used = []
    monkeypatch.setitem(sys.modules, "matplotlib", types.SimpleNamespace(use=used.append))
    monkeypatch.setitem(sys.modules, "IPython", kernel())
    set_up()
    assert os.environ["MPLBACKEND"] == runtime.INLINE
    assert used == [runtime.INLINE]
    monkeypatch.delitem(sys.modules, "matplotlib")
    monkeypatch.setenv("MPLBACKEND", chosen)
    set_up()  # not imported yet: it will ask the environment
    assert os.environ["MPLBACKEND"] == runtime.INLINE


@pytest.mark.parametrize("chosen", ["module://ipympl.backend_nbagg", "TkAgg", "", runtime.INLINE])
def test_a_backend_that_shows_figures_is_left_alone(monkeypatch, chosen):
    monkeypatch.setenv("MPLBACKEND", chosen)
    monkeypatch.setitem(sys.modules, "IPython", kernel())
    set_up()
    assert os.environ["MPLBACKEND"] == chosen


@pytest.mark.parametrize("ipython", [None, types.SimpleNamespace(get_ipython=lambda: None)])
def test_a_script_keeps_its_backend(monkeypatch, ipython):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    set_up()
    assert os.environ["MPLBACKEND"] == "Agg"


def test_a_hidden_gpu_is_named(monkeypatch):
    monkeypatch.setattr(runtime, "pick_device", lambda: torch.device("cpu"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(ValueError, match="CUDA_VISIBLE_DEVICES='' may hide one"):
        set_up(scale="t4")


# ---- is anyone there ------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self):
        return True


def kernel(**attributes):
    """A stand-in for IPython whose shell runs in a kernel with these attributes."""
    shell = types.SimpleNamespace(kernel=types.SimpleNamespace(**attributes))
    return types.SimpleNamespace(get_ipython=lambda: shell)


def test_nobody_watches_without_a_terminal(monkeypatch):
    monkeypatch.setitem(sys.modules, "IPython", None)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert someone_is_watching() is False
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert someone_is_watching() is True


def test_a_notebook_driven_by_a_program_has_nobody_watching(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())  # the kernel decides, not the terminal it began in
    for attributes, expected in (
        ({"_allow_stdin": True}, True),
        ({"_allow_stdin": False}, False),
        ({}, False),
    ):
        monkeypatch.setitem(sys.modules, "IPython", kernel(**attributes))
        assert someone_is_watching() is expected


def test_ipython_in_a_terminal_or_only_imported_asks_the_terminal(monkeypatch):
    for shell in (None, types.SimpleNamespace()):
        fake = types.SimpleNamespace(get_ipython=lambda shell=shell: shell)
        monkeypatch.setitem(sys.modules, "IPython", fake)
        monkeypatch.setattr(sys, "stderr", io.StringIO())
        assert someone_is_watching() is False
        monkeypatch.setattr(sys, "stderr", Terminal())
        assert someone_is_watching() is True
