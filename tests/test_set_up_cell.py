"""The set-up of a notebook: what it does beside the seed."""

import importlib
import inspect
import subprocess
import sys

from llmcourse import tensorboard_logs
from llmcourse.runtime import leave_tensorflow_out, set_up
from llmcourse.training import Step


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
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
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
