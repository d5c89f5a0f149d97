#!/usr/bin/env bash
# tokenizers 0.23.3: a byte-level BPE writes each byte as a printable letter, the byte 0xE9 as "é". Adding "é" as a token, as one
# does for a letter that a small vocabulary splits in two, makes no new token: the letter of the byte
# is in the vocabulary, so its id is taken. The text "é" (bytes C3 A9) is then encoded as the one byte
# E9 and decoded as U+FFFD: the letter is lost. add_tokens returns 1, as for a token that is new.
#
# Guess: a new id at the end, and "é" comes back.
# Seen:  "é": add_tokens says 1, the vocabulary keeps its 256 entries, the text becomes the id of byte E9, U+FFFD
#        "中", which is no byte's letter: 1, 257 entries, decoded "中"
# So: look at the size of the vocabulary; letters from ¡ to ÿ and from Ā to Ń cannot be added to such a one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tokenizers==0.23.3
cat > "$folder/letter.py" <<'PYTHON'
from importlib.metadata import version

from tokenizers import Tokenizer, decoders, models, pre_tokenizers


def make():
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


print("tokenizers", version("tokenizers"))
seen = []
for letter in "é中":
    tokenizer = make()
    before = tokenizer.encode(letter).ids
    added = tokenizer.add_tokens([letter])
    after = tokenizer.encode(letter).ids
    size, text = tokenizer.get_vocab_size(), tokenizer.decode(after, skip_special_tokens=False)
    seen.append((added, size, after == [tokenizer.token_to_id("é")], text))
    print(f"{letter}: {len(before)} ids; add_tokens says {added}; {size} entries; ids {after}, decoded {text!r}")
assert seen == [(1, 256, True, "\ufffd"), (1, 257, False, "中")], "the behaviour has changed"
PYTHON
"$folder/venv/bin/python" "$folder/letter.py"
