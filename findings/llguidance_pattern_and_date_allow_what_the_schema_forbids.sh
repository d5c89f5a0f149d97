#!/usr/bin/env bash
# llguidance 1.9.1: a grammar from a JSON schema lets texts through that the schema forbids. A `pattern` is matched against
# the text as it is written, escapes included, and an escaped quote or backslash gets past a class that excludes
# them; `format: date` counts no days of the months.
#
# Guess: what the grammar accepts is valid under the schema (patterns of the value, dates of RFC 3339).
# Seen:  "\"" is accepted for the pattern ^[^"]*$, and 2023-02-29 for a date
# So: validate what was written with jsonschema (and a format checker), also behind a constraint.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet llguidance==1.9.1 jsonschema==4.26.0
cat > "$folder/fits.py" <<'PYTHON'
import json
from importlib.metadata import version

import jsonschema
import llguidance


class Bytes:
    """A tokenizer whose tokens are the bytes, and one end token."""

    eos_token_id, bos_token_id = 256, None
    tokens, special_token_ids = [bytes([b]) for b in range(256)] + [b"<end>"], [256]

    def __call__(self, text):
        return list(text.encode() if isinstance(text, str) else text)


tokenizer = llguidance.LLTokenizer(llguidance.TokenizerWrapper(Bytes()))
print("llguidance", version("llguidance"))
CASES = [({"type": "string", "pattern": '^[^"]*$'}, r'"\""'), ({"type": "string", "format": "date"}, '"2023-02-29"')]
for schema, text in CASES:
    matcher = llguidance.LLMatcher(tokenizer, llguidance.LLMatcher.grammar_from_json_schema(schema))
    assert not matcher.is_error(), matcher.get_error()
    fits = all(matcher.consume_token(byte) for byte in text.encode()) and matcher.is_accepting()
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    valid = jsonschema.Draft202012Validator(schema, format_checker=checker).is_valid(json.loads(text))
    print(f"{json.dumps(schema):50} {text:14} accepted: {fits}  valid: {valid}")
    assert fits and not valid, "the behaviour has changed"
PYTHON
"$folder/venv/bin/python" "$folder/fits.py"
