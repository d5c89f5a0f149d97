#!/usr/bin/env bash
# TensorBoard 2.21.0: a run that crashed after step 7 and goes on from step 5, with a restart mark (SessionLog.START,
# what `purge_step=5` of a SummaryWriter writes), is shown by the server's own reader with both versions of
# steps 5 to 7: a zigzag. It takes the first START of a run for the beginning, not for a restart, so
# the mark works only if the first part had one as well (`purge_step=0`).
# The older reader in the same package, EventAccumulator, which scripts use, purges at the first mark.
#
# Guess: both give steps 1 to 8.
# Seen:  plugin_event_accumulator, one mark:   1 2 3 4 5 6 7 5 6 7 8
#        plugin_event_accumulator, two marks:  1 2 3 4 5 6 7 8
#        event_accumulator, one mark:          1 2 3 4 5 6 7 8
# So: give every SummaryWriter of a run that may be resumed a purge_step, the first one too.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tensorboard==2.21.0 numpy==2.3.5 setuptools==80.9.0
cat > "$folder/restart.py" <<'PYTHON'
import logging
import sys
import time
from importlib.metadata import version

from tensorboard.backend.event_processing import event_accumulator, plugin_event_accumulator
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.event_file_writer import EventFileWriter

logging.disable()


def part(folder, first, last, mark):
    writer = EventFileWriter(folder, filename_suffix=f".{first}")
    if mark is not None:
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        writer.add_event(event_pb2.Event(wall_time=time.time(), step=mark, session_log=start))
    for step in range(first, last + 1):
        value = summary_pb2.Summary.Value(tag="loss", simple_value=1 / step)
        event = event_pb2.Event(wall_time=time.time(), step=step)
        event.summary.value.append(value)
        writer.add_event(event)
    writer.close()
    time.sleep(1.1)  # the files of a run are read in the order of the seconds in their names


def steps(folder, reader):
    accumulator = reader.EventAccumulator(folder)
    accumulator.Reload()
    events = accumulator.Scalars("loss") if reader is event_accumulator else accumulator.Tensors("loss")
    return [event.step for event in events]


one, two = sys.argv[1] + "/one", sys.argv[1] + "/two"
part(one, 1, 7, mark=None), part(one, 5, 8, mark=5)
part(two, 1, 7, mark=0), part(two, 5, 8, mark=5)
print("tensorboard", version("tensorboard"))
seen = {
    "plugin_event_accumulator, one mark:": steps(one, plugin_event_accumulator),
    "plugin_event_accumulator, two marks:": steps(two, plugin_event_accumulator),
    "event_accumulator, one mark:": steps(one, event_accumulator),
}
for name, values in seen.items():
    print(name, *values)
whole = list(range(1, 9))
assert list(seen.values()) == [[1, 2, 3, 4, 5, 6, 7, 5, 6, 7, 8], whole, whole], "the behaviour has changed"
PYTHON
"$folder/venv/bin/python" "$folder/restart.py" "$folder"
