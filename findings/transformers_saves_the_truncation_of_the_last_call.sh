#!/usr/bin/env bash
# transformers 5.23.0: a call of a fast tokenizer with truncation leaves its length in the Rust object,
# and save_pretrained writes it into tokenizer.json. Read by transformers, the file is as before: each call
# sets truncation anew. Read by `tokenizers` (Tokenizer.from_file, other programs, a data pipeline), every text is cut
# to the length of whatever call came last, without a word.
#
# Guess: tokenizer.json is the same before and after a call.
# Seen:  truncation in the file: none before the call, max_length 4 after it; Tokenizer.from_file then gives 4
#        ids for 7 words, AutoTokenizer 7. Padding of a call is written too.
# So: call tokenizer.backend_tokenizer.no_truncation() and no_padding() before saving, or save before the first call.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet transformers==5.23.0 tokenizers==0.23.3
cat > "$folder/truncation.py" <<'PYTHON'
import json
import sys
from importlib.metadata import version
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

words = "one two three four five six seven"
vocabulary = {word: i for i, word in enumerate(["[UNK]", "[PAD]", *words.split()])}
engine = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
engine.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=engine, unk_token="[UNK]", pad_token="[PAD]")
seen = []
for name in ("before", "after"):
    folder = Path(sys.argv[1]) / name
    tokenizer.save_pretrained(folder)
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    length = (content["truncation"] or {}).get("max_length")
    padded = content["padding"] is not None
    here = len(Tokenizer.from_file(str(folder / "tokenizer.json")).encode(words).ids)
    there = len(AutoTokenizer.from_pretrained(folder)(words)["input_ids"])
    seen.append((length, padded, here, there))
    print(f"{name} the call: max_length {length}, padding {padded}; tokenizers {here} ids, transformers {there}")
    tokenizer([words, "one"], truncation=True, max_length=4, padding=True)
print("transformers", version("transformers"), "tokenizers", version("tokenizers"))
assert seen == [(None, False, 7, 7), (4, True, 4, 7)], "the behaviour has changed"
PYTHON
"$folder/venv/bin/python" "$folder/truncation.py" "$folder" 2> "$folder/log" || { cat "$folder/log"; exit 1; }
