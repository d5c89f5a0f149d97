#!/usr/bin/env bash
# tiktoken 0.12.0 and tokenizers 0.23.3 read one pattern in two ways. In the pattern of GPT-4 (cl100k_base), `\p{N}{1,3}+`
# means "one to three digits, given back to nobody". Split(Regex(...)) of tokenizers uses Onigmo, in
# whose syntax a + after {1,3} repeats it: a number of any length is one piece. Nothing is said. A tokenizer.json made
# by copying tiktoken's pattern so gives other ids for every number of four digits or more.
#
# Guess: the same pieces, or an error about a syntax that is not known.
# Seen:  tiktoken: 123 45 | tokenizers: 12345 | tokenizers with {1,3} alone: 123 45
# So: write `\p{N}{1,3}` without the plus for tokenizers.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tokenizers==0.23.3 tiktoken==0.12.0
cat > "$folder/digits.py" <<'PYTHON'
from importlib.metadata import version

import tiktoken
from tokenizers import Regex, pre_tokenizers


def of_tokenizers(pattern, text):
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    return [piece for piece, _ in split.pre_tokenize_str(text)]


def of_tiktoken(pattern, text):
    longer = [b"12", b"45", b"123", b"1234", b"12345"]  # a table that would take the number whole
    ranks = {token: rank for rank, token in enumerate([bytes([i]) for i in range(256)] + longer)}
    encoding = tiktoken.Encoding("digits", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    return [encoding.decode([i]) for i in encoding.encode(text)]


possessive, plain = r"\p{N}{1,3}+", r"\p{N}{1,3}"
seen = of_tiktoken(possessive, "12345"), of_tokenizers(possessive, "12345"), of_tokenizers(plain, "12345")
print("tokenizers", version("tokenizers"), "tiktoken", version("tiktoken"))
for who, what in zip(("tiktoken:", "tokenizers:", "tokenizers without the plus:"), seen):
    print(who, *what)
assert seen == (["123", "45"], ["12345"], ["123", "45"]), "the behaviour has changed"
PYTHON
"$folder/venv/bin/python" "$folder/digits.py"
