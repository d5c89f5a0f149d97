#!/usr/bin/env bash
# torch 2.13.0: a model whose output matrix is its embedding (tied weights) loads a state in which the two differ, as that of
# a model trained untied, or one with an adapter merged into the output only. load_state_dict copies
# both into the one tensor, one after the other: the last of them in the order of the modules stays, in both places.
# It returns "All keys matched", and strict=True says nothing.
#
# Guess: an error, or a word on keys that do not agree.
# Seen:  <All keys matched successfully>; the embedding holds the values saved for the output
# So: compare the entries of shared parameters before loading (named_parameters(remove_duplicate=False) tells which are shared).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
cat > "$folder/tied.py" <<'PYTHON'
import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, tied):
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.output = nn.Linear(3, 5, bias=False)
        if tied:
            self.output.weight = self.embedding.weight


torch.manual_seed(0)
saved = Model(tied=False).state_dict()
model = Model(tied=True)
answer = model.load_state_dict(saved, strict=True)
lost = not torch.equal(model.embedding.weight, saved["embedding.weight"])
kept = torch.equal(model.embedding.weight, saved["output.weight"])
print("torch", torch.__version__.split("+")[0])
print(answer, "| embedding as saved:", not lost, "| embedding is the saved output:", kept)
assert str(answer) == "<All keys matched successfully>" and lost and kept, "the behaviour has changed"
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/tied.py"
