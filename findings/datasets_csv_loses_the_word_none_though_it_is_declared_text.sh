#!/usr/bin/env bash
# datasets 5.2.0: load_dataset("csv") hands the file to pandas, which takes a list of words for missing values: None, null, NA,
# nan and others. So a cell that holds the word None comes back as None, the missing value, in quotes as without, and
# also where `features` declares the column as a string. Neither the writer (Dataset.to_csv) nor the reader says a word.
#
# Guess: with the column declared as string, each text comes back as it was written.
# Seen:  "None", "null", "NA" and "nan" become missing with and without features; "none", "Nan" and "nil" come back
#        keep_default_na=False keeps all of them; from JSON lines all come back without an option
# So: give keep_default_na=False to load_dataset("csv"), or keep texts in JSON lines or Parquet.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet datasets==5.2.0 numpy==2.4.6
cat > "$folder/none.py" <<'PYTHON'
import sys
from importlib.metadata import version

import datasets

datasets.disable_progress_bars()
words = ["None", "null", "NA", "nan", "none", "Nan", "nil"]
place, cache = sys.argv[1] + "/answers", sys.argv[1] + "/cache"
table = datasets.Dataset.from_dict({"answer": words})
table.to_csv(place + ".csv")
table.to_json(place + ".jsonl")
quoted = sys.argv[1] + "/quoted.csv"
with open(quoted, "w", encoding="utf-8") as file:
    file.write("\n".join(['"answer"', *(f'"{word}"' for word in words)]) + "\n")
text = datasets.Features({"answer": datasets.Value("string")})


def read(kind, path, **options):
    back = datasets.load_dataset(kind, data_files=path, split="train", cache_dir=cache, **options)
    return list(back["answer"])


print("datasets", version("datasets"), "pandas", version("pandas"))
seen = {
    "csv": read("csv", place + ".csv"),
    "csv, features": read("csv", place + ".csv", features=text),
    "csv in quotes, features": read("csv", quoted, features=text),
    "csv, keep_default_na=False": read("csv", place + ".csv", keep_default_na=False),
    "json": read("json", place + ".jsonl"),
}
for name, values in seen.items():
    print(f"{name}: {values}")
lost = [None] * 4 + words[4:]
assert list(seen.values()) == [lost, lost, lost, words, words], "the behaviour has changed"
PYTHON
HF_DATASETS_OFFLINE=1 "$folder/venv/bin/python" -W ignore "$folder/none.py" "$folder"
