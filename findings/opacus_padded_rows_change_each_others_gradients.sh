#!/usr/bin/env bash
# opacus 1.6.0: rows of unequal length, padded, with torch's usual loss: the mean over all targets of the batch that
# count. `grad_sample` is meant to hold the gradient of each example. With loss_reduction="mean" it is multiplied by
# the number of rows, so the gradient of one row depends on how many targets the other rows have.
#
# Guess: grad_sample[0] is the gradient of row 0, whatever lies beside it.
# Seen:  row 0 is the same, 6 targets; beside a row with 6 targets its gradient is 0.652 long, beside one with a
#        single target 1.119, since the sum is divided by 7 and not by 12
#        with the mean taken inside each row first, 0.652 and 0.652
# So: average inside each row, then over the rows; clipping then bounds what one example can do.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 opacus==1.6.0
cat > "$folder/padded.py" <<'PYTHON'
from importlib.metadata import version

import torch
import torch.nn.functional as F
from opacus import GradSampleModule
from torch import nn

V, PAD = 7, -100


def norm_of_row_0(targets_of_row_1, mean_inside_rows):
    torch.manual_seed(0)
    model = GradSampleModule(nn.Sequential(nn.Embedding(V, 4), nn.Linear(4, V)), loss_reduction="mean")
    ids = torch.arange(12).view(2, 6) % V
    targets = (ids + 1) % V
    targets[1, targets_of_row_1:] = PAD
    logits = model(ids).transpose(1, 2)  # (B, V, T)
    loss = F.cross_entropy(logits, targets, ignore_index=PAD)
    if mean_inside_rows:
        each = F.cross_entropy(logits, targets, ignore_index=PAD, reduction="none").sum(1)
        loss = (each / (targets != PAD).sum(1)).mean()
    loss.backward()
    return round(sum(p.grad_sample[0].square().sum() for p in model.parameters()).sqrt().item(), 3)


print("opacus", version("opacus"))
batch = [norm_of_row_0(n, mean_inside_rows=False) for n in (6, 1)]
rows = [norm_of_row_0(n, mean_inside_rows=True) for n in (6, 1)]
print("mean over the batch:", batch, "| mean inside rows:", rows)
assert batch == [0.652, 1.119], "the behaviour has changed"
assert rows == [0.652, 0.652], "the behaviour has changed"
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/padded.py"
