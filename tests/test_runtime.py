"""The start of every notebook: reproducible, silent at import, and safe with files."""

import io
import os
import random
import stat
import subprocess
import sys
import time
import types

import pytest
import torch

import llmcourse
from llmcourse import runtime
from llmcourse.runtime import Timer, atomic_write, autocast_dtype, pick_device, set_up, someone_is_watching


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
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(run.stdout.split()) == {"llmcourse"}
    assert run.stderr == ""


def test_importing_the_modules_sets_no_seed_and_reads_no_network():
    code = (
        "import random, sys, torch, socket\n"
        "socket.socket.connect = lambda *a: sys.exit('connected')\n"
        "a, b = random.getstate(), torch.get_rng_state()\n"
        "import llmcourse.training, llmcourse.tokenizer, llmcourse.data.corpora, llmcourse.pretrained\n"
        "assert random.getstate() == a and torch.equal(torch.get_rng_state(), b)\n"
        "assert not {'transformers', 'tensorboard', 'datasets', 'tokenizers', 'IPython'} & set(sys.modules)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
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
            temporary.write_text(text)
            assert not path.exists() or path.read_text() == "first"  # not before the block ends
        assert path.read_text() == text
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
@pytest.mark.parametrize("old", [None, "old"])
def test_an_error_keeps_the_old_file_and_leaves_no_other(tmp_path, error, old):
    path = tmp_path / "file.txt"
    if old:
        path.write_text(old)

    def write():
        with atomic_write(str(path)) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        write()
    assert [file.read_text() for file in tmp_path.iterdir()] == ([old] if old else [])


def test_the_file_has_the_usual_permissions(tmp_path):
    (tmp_path / "plain").write_text("x")
    with atomic_write(tmp_path / "ours") as temporary:
        temporary.write_text("x")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "ours")]
    assert modes[0] == modes[1]
    umask = os.umask(0)
    os.umask(umask)
    assert modes[1] == 0o666 & ~umask  # and the process still has its mask


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
