"""What `set_up(keep=...)` keeps when a machine is lost, and what it says when it cannot."""

import errno
import json
import shutil
import sys
import types
from pathlib import Path

import pytest
import torch

from llmcourse import runtime
from llmcourse.data import manifest
from llmcourse.model import GPT, ModelConfig
from llmcourse.runtime import set_up
from llmcourse.support import keep
from llmcourse.support.files import atomic_write
from llmcourse.teach.progress import progress_file, read_progress, record
from llmcourse.training import train

IDS = torch.randint(50, (40, 9), generator=torch.Generator().manual_seed(0))


class Drive:
    """A stand-in for `google.colab.drive`: a mount is a folder that can be lost, and found again."""

    def __init__(self, root: Path):
        self.mountpoint, self.backend, self.refused, self.calls = root / "drive", root / "cloud", None, 0
        self.backend.mkdir(parents=True)

    def mount(self, mountpoint, force_remount=False):
        self.calls += 1
        assert mountpoint == str(self.mountpoint)
        if self.refused:
            raise self.refused
        self.mountpoint.mkdir(exist_ok=True)
        if list(self.mountpoint.iterdir()) and not (self.mountpoint / "MyDrive").is_symlink():
            raise ValueError("Mountpoint must not already contain files")  # as Colab's own says
        if not (self.mountpoint / "MyDrive").exists():
            (self.mountpoint / "MyDrive").symlink_to(self.backend, target_is_directory=True)

    def lose(self):
        (self.mountpoint / "MyDrive").unlink()


@pytest.fixture
def drive(tmp_path, monkeypatch):
    """Colab, as far as the course sees it."""
    drive = Drive(tmp_path / "content")
    colab = types.ModuleType("google.colab")
    colab.drive = drive
    monkeypatch.setitem(sys.modules, "google", types.ModuleType("google"))
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    monkeypatch.setattr(keep, "DRIVE", drive.mountpoint)
    return drive


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A function that starts a new machine: an empty disk, nothing of the old one."""
    monkeypatch.setattr(runtime, "package_problems", list)  # 80 ms that other tests look at
    count = iter(range(9))

    def start():
        folder = tmp_path / f"machine-{next(count)}"
        folder.mkdir()
        monkeypatch.chdir(folder)
        monkeypatch.setenv("LLMCOURSE_PROGRESS", str(folder / "home" / "progress.json"))
        monkeypatch.setenv("LLMCOURSE_CACHE", str(folder / "cache"))
        monkeypatch.setattr(keep, "_keeper", None)
        return folder

    yield start
    keep.start(None)


def steps(last, **options):
    """Train a small model to step `last` as chapter 3c does; yield (step, loss), return the model."""
    torch.manual_seed(1)
    model = GPT(ModelConfig(vocab_size=50, d_model=8, n_layers=1, n_heads=2, dropout=0.1))
    batches = [(rows[:, :-1], rows[:, 1:]) for rows in IDS.split(4)]
    every = dict(checkpoint="runs/03c/model.pt", checkpoint_every=2, resume=True)
    for step in train(model, batches[:1], steps=last, **every, **options):
        yield step.step, step.loss
    return model


def files(folder: Path) -> dict[str, bytes]:
    """Return what lies below a folder, by name."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_run_goes_on_exactly_when_the_machine_is_lost(drive, machine, capsys):
    """As an uninterrupted run, bit for bit: `train` promises that of a resumed one."""
    machine()
    whole = list(steps(8))
    machine()
    set_up(keep="drive")
    running = steps(8)
    reached = [next(running)[0] for _ in range(5)]  # and never ended: the machine is taken back
    machine()
    capsys.readouterr()
    set_up(keep="drive")
    assert "1 files of earlier runs came from there" in capsys.readouterr().out
    assert list(steps(8)) == whole[4:]  # from the checkpoint of step 4
    assert reached[-1] == 5


def test_each_checkpoint_is_kept_at_once_with_what_lies_beside_it(drive, machine):
    machine()
    set_up(keep="drive")
    (Path("runs") / "03c").mkdir(parents=True)
    there = drive.backend / "llmcourse" / "runs" / "03c"
    for step, _ in steps(6):
        Path("runs/03c/events").write_text(str(step), encoding="utf-8")
        if step == 5:
            checkpoint = torch.load(there / "model.pt", weights_only=True)
            assert checkpoint["parts"]["step"] == 4
            assert (there / "events").read_text(encoding="utf-8") == "3"
    keep._after_cell()  # the rest goes after the cell
    assert files(there) == files(Path("runs/03c"))


def test_a_mount_that_disappears_costs_a_sentence_and_not_the_run(drive, machine, capsys):
    machine()
    whole = list(steps(8))
    machine()
    set_up(keep="drive")
    capsys.readouterr()
    seen = []
    for step, loss in steps(8):
        seen.append((step, loss))
        if step == 4:
            drive.lose()
    record("04a-softmax")
    assert seen == whole
    out = capsys.readouterr().out
    assert out.count("is gone: from now on everything stays on this machine only") == 1
    assert "Run the set-up cell again" in out
    assert list(drive.mountpoint.iterdir()) == []  # nothing was written under the lost mount
    assert torch.load("runs/03c/model.pt", weights_only=True)["parts"]["step"] == 8
    assert list(read_progress()) == ["04a-softmax"]

    set_up(keep="drive")  # mounted again: what was missed goes there
    there = drive.backend / "llmcourse"
    assert files(there / "runs") == files(Path("runs"))
    assert list(json.loads((there / "progress.json").read_text(encoding="utf-8"))) == ["04a-softmax"]


@pytest.mark.parametrize("error", [OSError(errno.ENOTCONN, "Transport endpoint is not connected"),
                                   OSError(errno.ENOSPC, "No space left on device"),
                                   PermissionError(errno.EACCES, "Permission denied")])  # fmt: skip
def test_a_folder_that_stops_taking_files_is_named_once(error, machine, monkeypatch, tmp_path, capsys):
    machine()
    set_up(keep=tmp_path / "kept")
    capsys.readouterr()
    with monkeypatch.context() as broken:
        broken.setattr(keep.shutil, "copyfile", lambda *_: (_ for _ in ()).throw(error))
        assert [step for step, _ in steps(8)] == list(range(1, 9))
    out = capsys.readouterr().out
    assert out.count("NOT kept") == 1
    assert error.strerror in out
    assert str(Path("runs").absolute()) in out
    assert files(tmp_path / "kept" / "runs") == {}  # and no part of a file
    keep._after_cell()
    assert "(kept again)" in capsys.readouterr().out
    assert "03c/model.pt" in files(tmp_path / "kept" / "runs")


def test_a_full_drive_is_seen_before_it_drops_a_file(drive, machine, monkeypatch, capsys):
    """Drive takes files that it has no room for and drops them later: the free space tells before."""
    machine()
    set_up(keep="drive")
    usage = shutil._ntuple_diskusage(15_000_000_000, 15_000_000_000, 0)
    monkeypatch.setattr(keep.shutil, "disk_usage", lambda path: usage)
    list(steps(4))
    assert "takes no more (No space left on device)" in capsys.readouterr().out
    assert files(drive.backend / "llmcourse" / "runs") == {}


@pytest.mark.parametrize("error", [ValueError("mount failed"), RuntimeError("credential propagation"),
                                   NotImplementedError("unsupported")])  # fmt: skip
def test_a_refused_mount_is_said_and_the_course_goes_on(error, drive, machine, capsys):
    machine()
    drive.refused = error
    run = set_up(keep="drive")
    out = capsys.readouterr().out
    assert f"({error})" in out
    assert "stay on this machine only" in out
    assert "ready: seed" in out
    assert run.seed == 1234
    assert len(list(steps(2))) == 2


def test_twice_changes_nothing(drive, machine, capsys):
    machine()
    set_up(keep="drive")
    list(steps(2))
    before = files(Path("runs")), files(drive.backend)
    capsys.readouterr()
    set_up(keep="drive")
    assert "came from there" not in capsys.readouterr().out
    assert (files(Path("runs")), files(drive.backend)) == before
    set_up()  # without: nothing more is copied
    list(steps(4))
    assert files(drive.backend) == before[1]


def test_a_dead_mount_is_mounted_again(drive, machine):
    machine()
    real, forced = drive.mount, []

    def mount(mountpoint, force_remount=False):
        forced.append(force_remount)
        if force_remount:
            real(mountpoint)

    drive.mount = mount
    set_up(keep="drive")
    assert forced == [False, True]
    assert (drive.backend / "llmcourse" / keep.MARK).is_file()


@pytest.mark.parametrize("wrong", ["drive", "Drive", "", "  ", ".", "runs", "runs/kept", True, 3])
def test_a_keep_that_can_mean_no_folder_is_refused_before_anything_changes(wrong, machine, capsys):
    machine()
    state = torch.get_rng_state()
    with pytest.raises(ValueError, match=r"keep=.*folder"):
        set_up(seed=99, keep=wrong)
    assert torch.equal(torch.get_rng_state(), state)
    assert capsys.readouterr().out == ""


def test_a_folder_of_ones_own_works_like_drive(machine, tmp_path):
    machine()
    set_up(keep=str(tmp_path / "synced"))
    list(steps(3))
    machine()
    set_up(keep=tmp_path / "synced")
    assert [step for step, _ in steps(4)] == [4]


def test_a_folder_that_cannot_be_made_is_said(machine, tmp_path, capsys):
    machine()
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    set_up(keep=tmp_path / "file" / "folder")
    out = capsys.readouterr().out
    assert "NOT kept" in out
    assert str(tmp_path / "file" / "folder") in out
    assert "ready" in out


def test_of_two_machines_the_newer_run_wins(machine, tmp_path):
    import os

    first = machine()
    set_up(keep=tmp_path / "kept")
    list(steps(2))
    second = machine()
    set_up(keep=tmp_path / "kept")
    list(steps(6))
    for stale in (first / "runs/03c/model.pt",):
        os.utime(stale, (1e9, 1e9))
    os.chdir(first)
    keep.start(None)
    set_up(keep=tmp_path / "kept")
    assert (first / "runs/03c/model.pt").read_bytes() == (second / "runs/03c/model.pt").read_bytes()


def test_a_run_that_was_started_anew_leaves_nothing_of_the_old_one_there(machine, tmp_path):
    machine()
    set_up(keep=tmp_path / "kept")
    there = tmp_path / "kept" / "runs"
    for name in ("03c/old-events", "03c/model.pt", "03d/adapters"):
        with atomic_write(Path("runs") / name) as path:
            path.write_text(name, encoding="utf-8")
    shutil.rmtree("runs")  # all of it, to make room: what is kept stays kept
    keep._after_cell()
    assert set(files(there)) == {"03c/old-events", "03c/model.pt", "03d/adapters"}
    with atomic_write("runs/03c/new-events") as path:
        path.write_text("new", encoding="utf-8")
    assert set(files(there)) == {"03c/new-events", "03d/adapters"}


def test_progress_of_both_sides_comes_together(machine, tmp_path):
    machine()
    record("04a-softmax")
    set_up(keep=tmp_path / "kept")  # what was solved before is kept at once
    assert list(json.loads((tmp_path / "kept/progress.json").read_text(encoding="utf-8"))) == ["04a-softmax"]
    machine()
    record("04b-heads")
    set_up(keep=tmp_path / "kept")
    record("04b-cache")
    solved = {"04a-softmax", "04b-heads", "04b-cache"}
    assert set(read_progress()) == solved
    for path in (progress_file(), tmp_path / "kept" / "progress.json"):
        assert set(json.loads(path.read_text(encoding="utf-8"))) == solved


@pytest.mark.parametrize("damage", ["{ half a fi", "[1, 2]", "3", "null"])
def test_progress_that_cannot_be_read_is_left_alone(damage, machine, tmp_path):
    machine()
    record("04a-softmax")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "progress.json").write_text(damage, encoding="utf-8")
    set_up(keep=tmp_path / "kept")
    assert (tmp_path / "kept" / "progress.json").read_text(encoding="utf-8") == damage
    assert list(json.loads(progress_file().read_text(encoding="utf-8"))) == ["04a-softmax"]


def test_progress_that_an_editor_saved_is_shared(machine, tmp_path):
    """With a byte order mark, as editors on Windows save it."""
    machine()
    progress_file().parent.mkdir()
    progress_file().write_bytes(b"\xef\xbb\xbf" + b'{"04a-softmax": "2026-09-01"}')
    set_up(keep=tmp_path / "kept")
    assert list(json.loads((tmp_path / "kept" / "progress.json").read_text(encoding="utf-8"))) == [
        "04a-softmax"
    ]


def test_without_a_home_the_runs_are_kept_all_the_same(machine, tmp_path, monkeypatch, capsys):
    machine()
    monkeypatch.delenv("LLMCOURSE_PROGRESS")
    nobody = RuntimeError("Could not determine home directory.")
    monkeypatch.setattr(Path, "expanduser", lambda self: (_ for _ in ()).throw(nobody))
    monkeypatch.setattr(keep, "check", lambda _: tmp_path / "kept")
    set_up(keep=tmp_path / "kept")
    assert "kept in" in capsys.readouterr().out


def test_the_progress_that_is_shared_is_that_of_the_exercises(machine, monkeypatch, tmp_path):
    machine()
    monkeypatch.delenv("LLMCOURSE_PROGRESS")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    record("04a-softmax")
    set_up(keep=tmp_path / "kept")
    assert list(json.loads((tmp_path / "kept" / "progress.json").read_text(encoding="utf-8"))) == [
        "04a-softmax"
    ]


def test_downloads_are_kept_and_come_back_when_they_are_asked_for(machine, tmp_path, monkeypatch):
    machine()
    set_up(keep=tmp_path / "kept")
    manifest.to_cache("little", {"a/text.txt": b"some text"})
    machine()
    assert manifest.from_cache("little") is None
    set_up(keep=tmp_path / "kept")
    assert not manifest.cache_folder().exists()  # not before
    assert manifest.from_cache("little") == {"a/text.txt": b"some text"}
    assert (manifest.cache_folder() / "little" / "a" / "text.txt").is_file()
    (tmp_path / "kept" / "cache" / "little" / "a" / "text.txt").write_bytes(b"damaged")
    machine()
    set_up(keep=tmp_path / "kept")
    assert manifest.from_cache("little") is None


def test_a_cell_ends_with_a_copy_and_only_one(machine, tmp_path, monkeypatch):
    machine()
    callbacks = {"post_run_cell": []}
    events = types.SimpleNamespace(
        callbacks=callbacks, register=lambda name, function: callbacks[name].append(function)
    )
    shell = types.SimpleNamespace(events=events)
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    set_up(keep=tmp_path / "kept")
    set_up(keep=tmp_path / "kept")
    (after,) = callbacks["post_run_cell"]
    Path("runs/05b").mkdir(parents=True)
    Path("runs/05b/events").write_text("of a run without a checkpoint", encoding="utf-8")
    Path("runs/05b/.part").write_text("temporary", encoding="utf-8")
    after(None)
    assert set(files(tmp_path / "kept" / "runs")) == {"05b/events"}
    keep.start(None)
    after(None)  # nothing is kept any more: no error
