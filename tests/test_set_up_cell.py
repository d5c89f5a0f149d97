"""The first cell of every notebook: in Colab, after an install that was cut short, and again."""

import builtins
import importlib
import inspect
import subprocess
import sys
import traceback
import types
from importlib import metadata

import pytest
from IPython.core.inputtransformer2 import TransformerManager
from notebook_tools import NOTEBOOKS, code_cells, read
from packaging.requirements import Requirement

from llmcourse import __version__
from llmcourse.monitor import tensorboard as tensorboard_logs
from llmcourse.runtime import leave_tensorflow_out, set_up
from llmcourse.support import machine, versions
from llmcourse.training import Step

CELL = code_cells(read(NOTEBOOKS[0]))[0].source
NEEDED = ["torch>=2.9", 'faker>=30; extra == "colab"', 'nbval>=0.11; extra == "dev"']


class Colab:
    """A session of Colab: runs the cell, and lets pip end in the way that a test asks for."""

    def __init__(self, monkeypatch):
        self.has_course = False  # whether llmcourse.runtime can be imported
        self.packages = {"torch": "2.11.0+cu128"}
        self.requires = None  # None: pip has not come to write the metadata
        self.pip_ends = iter([])
        self.lines = []
        monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
        monkeypatch.setattr(metadata, "requires", self.answer_requires)
        monkeypatch.setattr(metadata, "version", self.answer_version)

    def answer_requires(self, name):
        if self.requires is None:
            raise metadata.PackageNotFoundError(name)
        return self.requires

    def answer_version(self, name):
        if name not in self.packages:
            raise metadata.PackageNotFoundError(name)
        return self.packages[name]

    def run_line_magic(self, name, line, **_):
        self.lines.append(f"%{name} {line}")
        next(self.pip_ends)()  # %pip does not raise when pip fails: only an interrupt does

    def done(self):
        self.has_course, self.requires = True, NEEDED
        self.packages["faker"] = "40.1"

    def failed(self):
        """No network, no git, a full disk: pip prints why, and nothing is there."""

    def without_metadata(self):
        self.has_course = True

    def without_faker(self):
        self.has_course, self.requires = True, NEEDED

    def interrupted(self):
        raise KeyboardInterrupt

    def importing(self, name, *arguments):
        if name.startswith("llmcourse") and not self.has_course:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return builtins.__import__(name, *arguments)

    def run_cell(self):
        code = TransformerManager().transform_cell(CELL)
        names = {"__builtins__": {**vars(builtins), "__import__": self.importing}}
        exec(compile(code, "cell", "exec"), names | {"get_ipython": lambda: self})


@pytest.fixture
def colab(monkeypatch):
    return Colab(monkeypatch)


def test_one_line_installs_the_tag_of_this_version_with_its_extra(colab, capsys):
    colab.pip_ends = iter([colab.done])
    colab.run_cell()
    assert capsys.readouterr().out == "ready: seed 1234, scale laptop\n"
    (line,) = colab.lines
    requirement = Requirement(line.split('"')[1])
    assert (requirement.name, requirement.extras) == ("llmcourse", {"colab"})
    assert requirement.url.endswith(f"/llmcourse@v{__version__}")
    assert line == machine.install_line()  # what the doctor tells to run is what the cell runs


def test_a_second_run_installs_nothing(colab, capsys):
    colab.pip_ends = iter([colab.done])
    colab.run_cell()
    colab.run_cell()
    assert capsys.readouterr().out == "ready: seed 1234, scale laptop\n" * 2
    assert len(colab.lines) == 1


@pytest.mark.parametrize("end", ["failed", "interrupted"])
def test_an_install_that_left_nothing_is_done_by_the_next_run(end, colab, capsys):
    colab.pip_ends = iter([getattr(colab, end), colab.done])
    with pytest.raises((ModuleNotFoundError, KeyboardInterrupt)):
        colab.run_cell()
    assert "ready" not in capsys.readouterr().out
    colab.run_cell()
    assert capsys.readouterr().out == "ready: seed 1234, scale laptop\n"
    assert len(colab.lines) == 2


def test_the_line_that_fails_says_what_to_do(colab):
    """IPython shows the line of the cell, with its comment."""
    colab.pip_ends = iter([colab.failed])
    try:
        colab.run_cell()
    except ModuleNotFoundError as error:
        frames = traceback.extract_tb(error.__traceback__)
        (number,) = [frame.lineno for frame in frames if frame.filename == "cell"]
    assert "run this cell again" in TransformerManager().transform_cell(CELL).splitlines()[number - 1]


@pytest.mark.parametrize(
    ("end", "missing"), [("without_metadata", "not installed whole"), ("without_faker", "faker is missing")]
)
def test_an_install_that_stopped_halfway_is_named_until_it_is_repaired(end, missing, colab, capsys):
    colab.pip_ends = iter([getattr(colab, end)])
    colab.run_cell()
    colab.run_cell()
    out = capsys.readouterr().out
    assert out.count(missing) == 2
    assert (
        out.count(f"NOT ready. Run this, restart the session, and run this cell again: {colab.lines[0]}") == 2
    )
    assert "\nready" not in out
    colab.done()  # the reader ran the line
    colab.run_cell()
    assert capsys.readouterr().out == "ready: seed 1234, scale laptop\n"


def test_a_package_that_is_too_old_is_named(colab, capsys):
    colab.done()
    colab.packages["faker"] = "19.0"
    colab.run_cell()
    out = capsys.readouterr().out
    assert "PROBLEM  faker 19.0 does not fit: pip install 'faker>=30'" in out
    assert "NOT ready" in out


def test_packages_of_other_extras_are_not_missed(colab):
    colab.done()
    assert versions.package_problems() == []
    assert versions.package_problems("dev") == ["nbval is missing: pip install 'nbval>=0.11'"]


def test_without_packaging_the_line_is_still_told(colab, monkeypatch):
    colab.done()
    monkeypatch.setitem(sys.modules, "packaging.requirements", None)
    (problem,) = versions.package_problems()
    assert problem == f"packaging is missing: {machine.install_line()}"


def test_the_line_fits_the_machine(monkeypatch, tmp_path):
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)
    monkeypatch.delenv("COLAB_RELEASE_TAG", raising=False)
    assert machine.install_line() == "make lab"
    monkeypatch.setattr(machine, "checkout", lambda: None)
    assert machine.install_line() == f'{sys.executable} -m pip install "{machine.SOURCE}"'
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release-colab_20260819")  # in a terminal of Colab
    assert machine.install_line() == f'%pip install -q "{machine.SOURCE}"'


def test_tensorflow_stays_out_where_it_is_installed(tmp_path):
    """As in Colab: TensorBoard's own switch, read in tensorboard/compat/__init__.py of 2.18 to 2.21.

    With TensorFlow, importing takes 9 seconds in place of 2, and its file writer holds back records.
    """
    program = f"""
import sys, types

class TensorFlowIsInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "tensorflow":
            raise RuntimeError("TensorFlow was asked for")

sys.meta_path.insert(0, TensorFlowIsInstalled())
{inspect.getsource(leave_tensorflow_out)}
leave_tensorflow_out()
from tensorboard.summary.writer.event_file_writer import EventFileWriter
EventFileWriter({str(tmp_path)!r}).close()
print("written")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, encoding="utf-8")
    assert done.stdout == "written\n", done.stderr


def test_set_up_and_each_use_of_tensorboard_turn_the_switch(monkeypatch, tmp_path):
    monkeypatch.delitem(sys.modules, "tensorboard.compat.notf", raising=False)
    set_up()
    assert not hasattr(importlib.import_module("tensorboard.compat.notf"), "__file__")
    turned = []
    monkeypatch.setattr(tensorboard_logs, "leave_tensorflow_out", lambda: turned.append(1))
    list(tensorboard_logs.log_steps([Step(1, 2.0, 1e-3, 1.0, 8, 0.1)], tmp_path))
    assert len(turned) == 1
    assert tensorboard_logs.read_scalars(tmp_path)["loss/train"] == ([1], [2.0])
    assert len(turned) > 1
