#!/usr/bin/env bash
# transformers 5.0.0 says, in its metadata (`torch` and `accelerate` extras) and in the version check that it makes by
# itself, that accelerate 1.1.0 is enough. pip is content and so is the check; then `from transformers import
# Trainer` fails on a name that accelerate does not have, and a newer one imports but cannot train.
#
# Guess: the stated minimum runs.
# Seen:  accelerate 1.1.1: importing Trainer fails; 1.2.0: imports, train() fails; 1.3.0: trains.
# So: a project that uses the Trainer states accelerate>=1.3 itself.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip="$folder/venv/bin/pip install --quiet"
$pip torch==2.13.0 transformers==5.0.0 numpy==2.4.6 huggingface-hub==1.3.4
cat > "$folder/train.py" <<'PYTHON'
import sys
from importlib.metadata import version

import torch

try:
    from transformers import Trainer, TrainingArguments
except (ImportError, RuntimeError) as error:
    print(version("accelerate"), "import fails:", str(error).strip().splitlines()[-1][:75])
    sys.exit()


class Line(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.slope = torch.nn.Linear(1, 1)

    def forward(self, x, labels):
        return {"loss": ((self.slope(x) - labels) ** 2).mean()}


rows = [{"x": torch.ones(1), "labels": torch.ones(1)}] * 4
options = TrainingArguments(sys.argv[1], max_steps=2, report_to=[], use_cpu=True, disable_tqdm=True)
try:
    Trainer(Line(), options, train_dataset=rows).train()
except Exception as error:
    print(version("accelerate"), "train() fails:", type(error).__name__, str(error)[:100])
else:
    print(version("accelerate"), "trains")
PYTHON
$folder/venv/bin/python - <<'PYTHON'
from importlib.metadata import requires
print("stated:", *[line for line in requires("transformers") if line.startswith("accelerate") and '"accelerate"' in line])
PYTHON
for old in 1.1.1 1.2.0 1.3.0; do
    $pip accelerate==$old
    "$folder/venv/bin/python" -W ignore "$folder/train.py" "$folder/out" 2>/dev/null | grep "^$old" | tee -a "$folder/seen"
done
grep -q "^1.1.1 import fails" "$folder/seen" && grep -q "^1.2.0 train() fails" "$folder/seen" &&
    grep -qx "1.3.0 trains" "$folder/seen" || { echo "the behaviour has changed"; exit 1; }
