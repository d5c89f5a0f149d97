#!/usr/bin/env bash
# mup 1.0.0: set_base_shapes multiplies the weight of a MuReadout by the root of the ratio of widths, since a linear layer
# starts narrower where it is wider. A MuSharedReadout shares its weight with an embedding, which does not start narrower:
# the embedding is multiplied too. At 16 times the width of the base it starts 4 times as wide as at the base, so
# that the sizes no longer learn alike, which is what muP is for. Nothing is said.
# Besides, MuAdamW without weight_decay decays nothing, where torch.optim.AdamW decays by 0.01.
#
# Guess: the deviation of an embedding is the one that it was given, as without sharing; decay as torch's default.
# Seen:  0.02 becomes 0.08 shared, and stays 0.02 alone; decay 0.0
# So: draw a shared embedding after set_base_shapes, or call it with rescale_params=False; give weight_decay.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 mup==1.0.0
cat > "$folder/tied.py" <<'PYTHON'
from importlib.metadata import version

import torch
from mup import MuAdamW, MuReadout, MuSharedReadout, set_base_shapes
from torch import nn


class Model(nn.Module):
    def __init__(self, width, shared):
        super().__init__()
        self.embedding = nn.Embedding(1000, width)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.hidden = nn.Linear(width, width, bias=False)
        if shared:
            self.readout = MuSharedReadout(self.embedding.weight, bias=False)
        else:
            self.readout = MuReadout(width, 1000, bias=False)


torch.manual_seed(0)
found = {}
for shared in (True, False):
    model = Model(256, shared)
    set_base_shapes(model, Model(16, shared), delta=Model(32, shared))
    found[shared] = round(model.embedding.weight.std().item(), 3)
    print("mup", version("mup"), "| shared" if shared else "| alone", "| deviation of the embedding", found[shared])
decay = {group["weight_decay"] for group in MuAdamW(model.parameters(), lr=0.01).param_groups}
default = torch.optim.AdamW(model.parameters(), lr=0.01).param_groups[0]["weight_decay"]
print("decay", decay, "| torch's", default)
assert found == {True: 0.08, False: 0.02} and decay == {0.0} and default == 0.01, "the behaviour has changed"
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/tied.py"
