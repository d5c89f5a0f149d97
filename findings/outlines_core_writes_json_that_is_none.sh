#!/usr/bin/env bash
# outlines-core 0.2.14: build_regex_from_schema puts a string's `pattern` between quotes as it stands, so what the pattern
# allows and JSON must escape, a quote or a backslash, is written bare; and a property whose name holds a quote is
# not escaped either. Some keywords change nothing: `uniqueItems`, `multipleOf`, and `type` beside `enum`.
#
# Guess: every text that fits the expression is JSON, and valid under the schema; a keyword that is not read is refused.
# Seen:  {"type":"string","pattern":"^a.$"} fits "a"", which json.loads refuses; {"type":"integer","multipleOf":5} fits 7
# So: parse and validate what was written with json and jsonschema, also behind a constraint.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet outlines-core==0.2.14 jsonschema==4.26.0
cat > "$folder/fits.py" <<'PYTHON'
import json
import re
from importlib.metadata import version

import jsonschema
from outlines_core.json_schema import build_regex_from_schema

print("outlines-core", version("outlines-core"))
CASES = [  # (schema, a text)
    ({"type": "string", "pattern": "^a.$"}, '"a""'),
    ({"type": "object", "properties": {'a"b': {"type": "null"}}, "required": ['a"b']}, '{"a"b":null}'),
    ({"type": "integer", "multipleOf": 5}, "7"),
    ({"type": "array", "items": {"type": "integer"}, "uniqueItems": True}, "[1,1]"),
    ({"type": "string", "enum": ["a", 1]}, "1"),
]
for schema, text in CASES:
    fits = re.fullmatch(build_regex_from_schema(json.dumps(schema)), text) is not None
    try:
        valid = jsonschema.Draft202012Validator(schema).is_valid(json.loads(text))
    except json.JSONDecodeError:
        valid = "no JSON"
    print(f"{json.dumps(schema):75} {text:14} fits: {fits}  valid: {valid}")
    assert fits and valid is not True, "the behaviour has changed"
PYTHON
"$folder/venv/bin/python" "$folder/fits.py"
