"""From a JSON schema to the texts that a model may write: each of them is valid.

Read are: `type`, also a list of them, `enum`, `const`, `anyOf`, `oneOf`, `$ref` to `$defs` or
`definitions` that does not come back to itself, and

    object            properties, required, additionalProperties: false
    array             items, minItems, maxItems
    string            pattern, minLength, maxLength, format: date
    integer           minimum, maximum, exclusiveMinimum, exclusiveMaximum
    number            minimum, maximum
    boolean, null

Titles, descriptions and defaults change nothing. Any other keyword is refused, never passed over.

Valid texts that are not written: a text is what `json.dumps(value, ensure_ascii=False)` writes, with one
space after a comma and a colon, keys in the order of `properties`, and no key that is not among them.
`oneOf` is read where no value can fit two of its options: other types, other constants, or objects
that a required key tells apart.

Source: JSON Schema 2020-12, https://json-schema.org/draft/2020-12/json-schema-validation
"""

import json
from decimal import Decimal
from itertools import combinations
from math import ceil, floor

from llmcourse.decode import json_text
from llmcourse.decode.automaton import Automaton
from llmcourse.decode.json_apart import apart
from llmcourse.decode.regular import parse
from llmcourse.decode.syntax import (
    ANY,
    EMPTY,
    Both,
    Choice,
    Node,
    Repeat,
    Sequence,
    compile_tree,
    literal,
    optional,
)
from llmcourse.support.inputs import whole

KEYWORDS = {
    "object": {"properties", "required", "additionalProperties"},
    "array": {"items", "minItems", "maxItems"},
    "string": {"pattern", "minLength", "maxLength", "format"},
    "integer": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"},
    "number": {"minimum", "maximum"},
    "boolean": set(),
    "null": set(),
}
SILENT = {"title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"}
SILENT |= {"$schema", "$id", "$comment", "$defs", "definitions"}
MAX_DEPTH = 30


def refuse(path: str, what: str):
    """Raise ValueError that names the place in the schema."""
    raise ValueError(f"the schema at {path}: {what}")


class _Reader:
    """Reads one schema after another into trees; `path` is where in the whole one it lies."""

    def __init__(self, schema: dict, separators: tuple[str, str]):
        if [mark.strip(" \t\n\r") for mark in separators] != [",", ":"]:
            raise ValueError(
                f"separators={separators!r}: give a comma and a colon, with white space or without"
            )
        self.root, self.separators = schema, separators
        self.comma, self.colon = map(literal, separators)
        self.named: dict[str, Node | None] = {}  # what a reference stands for; None while it is read

    # ---- any schema -----------------------------------------------------------------------------

    def read(self, schema, path: str, depth: int = 0) -> Node:
        if not isinstance(schema, dict):
            refuse(path, f"{schema!r} is no description; give an object such as {{'type': 'string'}}")
        if depth > MAX_DEPTH:
            refuse(path, f"it is nested more than {MAX_DEPTH} deep")
        if "$ref" in schema:
            return self.reference(schema, path, depth)
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                return self.options(schema, keyword, path, depth)
        kinds = self.kinds(schema, path)
        if "enum" in schema or "const" in schema:
            return self.constants(schema, kinds, path, depth)
        if not kinds:
            refuse(path, f"it has no 'type', so anything would be valid: give one of {', '.join(KEYWORDS)}")
        return Choice(tuple(getattr(self, f"read_{kind}")(schema, path, depth) for kind in kinds))

    def only(self, schema: dict, allowed: set[str], path: str, where: str) -> None:
        for keyword in sorted(schema.keys() - SILENT - allowed):
            known = ", ".join(sorted(allowed)) or "nothing"
            refuse(path, f"the keyword {keyword!r} is not supported {where}; there, {known} can be read")

    def find(self, name: str) -> dict | None:
        found = self.root
        for key in name.removeprefix("#/").split("/"):
            found = found.get(key) if isinstance(found, dict) else None
        return found if isinstance(found, dict) and name.startswith(("#/$defs/", "#/definitions/")) else None

    def reference(self, schema: dict, path: str, depth: int) -> Node:
        self.only(schema, {"$ref"}, path, "beside $ref")
        name = schema["$ref"]
        if not isinstance(name, str) or self.find(name) is None:
            refuse(path, f"{name!r} is not found; a reference is such as '#/$defs/name'")
        if name in self.named and self.named[name] is None:
            refuse(
                path,
                f"{name!r} contains itself, which is not supported: an automaton cannot count how deep it is",
            )
        if name not in self.named:
            self.named[name] = None
            self.named[name] = self.read(self.find(name), name, depth + 1)
        return self.named[name]

    def resolved(self, schema: dict) -> dict:
        while "$ref" in schema:
            schema = self.find(schema["$ref"])
        return schema

    def kinds(self, schema: dict, path: str) -> list[str]:
        """Return the types of a schema without options, after all its keywords were looked at."""
        kinds = schema.get("type", [])
        kinds = kinds if isinstance(kinds, list) else [kinds]
        if unknown := [kind for kind in kinds if kind not in list(KEYWORDS)]:
            refuse(path, f"the type {unknown[0]!r} is not one of {', '.join(KEYWORDS)}")
        allowed = {"type", "enum", "const"}.union(*(KEYWORDS[kind] for kind in kinds))
        self.only(schema, allowed, path, f"with the type {' or '.join(kinds)}" if kinds else "without a type")
        return kinds

    def write(self, value, path: str) -> str:
        try:
            text = json.dumps(value, ensure_ascii=False, separators=self.separators, allow_nan=False)
            text.encode()  # half of a surrogate pair is no character
        except (TypeError, ValueError):
            refuse(path, f"{value!r} is no value of JSON, or cannot be written in UTF-8")
        return text

    def constants(self, schema: dict, kinds: list[str], path: str, depth: int) -> Node:
        values = schema.get("enum", [schema.get("const")])
        if not isinstance(values, list) or not values:
            refuse(path, "enum is a list of at least one value")
        texts = [self.write(value, path) for value in values]
        if "const" in schema and self.write(schema["const"], path) not in texts:
            refuse(path, "const is not in enum")
        if "const" in schema:
            texts = [self.write(schema["const"], path)]
        if kinds:
            rest = {key: schema[key] for key in schema if key not in ("enum", "const")}
            fits = compile_tree(self.read(rest, path, depth))
            if strange := [text for text in texts if not fits.accepts(text)]:
                refuse(
                    path, f"the value {strange[0]} of enum or const is not written so by its other keywords"
                )
        return Choice(tuple(map(literal, texts)))

    def options(self, schema: dict, keyword: str, path: str, depth: int) -> Node:
        self.only(schema, {keyword}, path, f"beside {keyword}")
        options = schema[keyword]
        if not isinstance(options, list) or not options:
            refuse(path, f"{keyword} is a list of at least one schema")
        places = [f"{path}/{keyword}/{i}" for i in range(len(options))]
        trees = [self.read(option, place, depth + 1) for option, place in zip(options, places, strict=True)]
        if keyword == "oneOf":
            for (a, first), (b, second) in combinations(zip(options, places, strict=True), 2):
                if not apart(a, b, self.resolved):
                    refuse(path, f"a value may fit both {first} and {second}; write anyOf if it may")
        return Choice(tuple(trees))

    # ---- each type ------------------------------------------------------------------------------

    def read_null(self, schema, path, depth) -> Node:
        return literal("null")

    def read_boolean(self, schema, path, depth) -> Node:
        return Choice((literal("true"), literal("false")))

    def counts(self, schema: dict, name: str, path: str) -> tuple[int, int | None]:
        try:
            low = whole(schema.get(f"min{name}", 0), f"min{name}", least=0)
            high = schema.get(f"max{name}")
            high = high if high is None else whole(high, f"max{name}", least=0)
        except ValueError as error:
            refuse(path, str(error))
        if high is not None and high < low:
            refuse(path, f"min{name} {low} and max{name} {high} exclude each other")
        return low, high

    def read_string(self, schema, path, depth) -> Node:
        low, high = self.counts(schema, "Length", path)
        trees = []
        if low or high is not None:
            trees.append(Repeat(ANY, low, high))
        if "pattern" in schema:
            try:
                trees.append(parse(schema["pattern"], search=True, ecma=True))
            except ValueError as error:
                refuse(path, f"its pattern: {error}")
        if "format" in schema:
            if schema["format"] != "date":
                refuse(path, f"the format {schema['format']!r} is not supported, only 'date'; use 'pattern'")
            trees.append(json_text.DATE)
        tree = trees.pop() if trees else Repeat(ANY)
        while trees:
            tree = Both(tree, trees.pop())
        return json_text.string(tree)

    def limit(self, schema: dict, name: str, path: str) -> Decimal | None:
        if name not in schema:
            return None
        value = schema[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not -1e300 < value < 1e300:
            refuse(path, f"{name} is {value!r}: give a finite number")
        return Decimal(repr(value))

    def read_integer(self, schema, path, depth) -> Node:
        low, high = self.limit(schema, "minimum", path), self.limit(schema, "maximum", path)
        above, below = (self.limit(schema, f"exclusive{name}", path) for name in ("Minimum", "Maximum"))
        least = [ceil(x) for x in (low,) if x is not None] + [floor(x) + 1 for x in (above,) if x is not None]
        most = [floor(x) for x in (high,) if x is not None] + [ceil(x) - 1 for x in (below,) if x is not None]
        if not least and not most:
            return json_text.INTEGER
        tree = json_text.integer(max(least, default=None), min(most, default=None))
        return tree or refuse(path, "no whole number lies between its limits")

    def read_number(self, schema, path, depth) -> Node:
        for name in ("exclusiveMinimum", "exclusiveMaximum"):
            if name in schema:
                refuse(path, f"{name} is supported for integers alone")
        tree = json_text.number(self.limit(schema, "minimum", path), self.limit(schema, "maximum", path))
        return tree or refuse(path, "no number lies between its limits")

    def read_array(self, schema, path, depth) -> Node:
        low, high = self.counts(schema, "Items", path)
        if high == 0:
            return literal("[]")
        if "items" not in schema:
            refuse(path, "an array without 'items' may hold anything: say what")
        item = self.read(schema["items"], f"{path}/items", depth + 1)
        more = Repeat(Sequence((self.comma, item)), max(low - 1, 0), None if high is None else high - 1)
        some = Sequence((item, more))
        return Sequence((literal("["), some if low else optional(some), literal("]")))

    def read_object(self, schema, path, depth) -> Node:
        if schema.get("additionalProperties", False) is not False:
            refuse(path, "additionalProperties is supported as false alone: other keys are never written")
        properties, required = schema.get("properties", {}), schema.get("required", [])
        if not isinstance(properties, dict) or not isinstance(required, list):
            refuse(path, "properties is an object and required a list of names")
        if missing := [name for name in required if name not in properties]:
            refuse(path, f"the required key {missing[0]!r} is not among its properties: say what it holds")
        keys = [
            Sequence((literal(self.write(name, path)), self.colon, self.read(inner, f"{path}/properties/{name}", depth + 1)))
            for name, inner in properties.items()
        ]  # fmt: skip
        later = [Sequence((self.comma, key)) for key in keys]
        later = [
            tree if name in required else optional(tree) for tree, name in zip(later, properties, strict=True)
        ]
        options: list[Node] = []  # one for each key that may be the first
        for i, name in enumerate(properties):
            options.append(Sequence((keys[i], *later[i + 1 :])))
            if name in required:
                break
        else:
            options.append(EMPTY)
        return Sequence((literal("{"), Choice(tuple(options)), literal("}")))


def schema_tree(schema: dict, separators: tuple[str, str] = (", ", ": ")) -> Node:
    """Return the tree of the texts that a schema allows; `separators` are those of `json.dumps`.

    Raises ValueError, with the place in the schema, for what is not supported and what no text fits.

    >>> schema_tree({"type": "object", "properties": {"id": {"type": "string", "format": "uuid"}}})
    Traceback (most recent call last):
    ValueError: the schema at #/properties/id: the format 'uuid' is not supported, only 'date'; use 'pattern'
    """
    return _Reader(schema, separators).read(schema, "#")


def compile_schema(schema: dict, separators: tuple[str, str] = (", ", ": ")) -> Automaton:
    """Return the automaton of the texts that a schema allows. Raises ValueError as `schema_tree` does.

    >>> line = {"properties": {"speaker": {"enum": ["ROMEO", "JULIET"]}, "line": {"type": "string"}}}
    >>> automaton = compile_schema({"type": "object", "required": ["speaker", "line"], **line})
    >>> automaton.accepts('{"speaker": "JULIET", "line": "O Romeo!"}'), automaton.accepts('{"line": ""}')
    (True, False)
    """
    return compile_tree(schema_tree(schema, separators))
