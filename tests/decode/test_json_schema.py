"""The automaton of a schema accepts the texts whose values `jsonschema` calls valid."""

import datetime
import json
import random
import re
from decimal import Decimal
from itertools import product

import pytest
from jsonschema import Draft202012Validator, FormatChecker
from jsonschema_specifications import REGISTRY
from random_languages import sample
from random_schemas import random_schema, random_value, with_definitions

from llmcourse.decode import syntax
from llmcourse.decode.json_apart import apart
from llmcourse.decode.json_schema import KEYWORDS, SILENT, compile_schema
from llmcourse.decode.json_text import DATE, integer, number, string
from llmcourse.decode.regular import parse
from llmcourse.decode.syntax import ANY, Repeat, compile_tree


def valid(schema: dict, value) -> bool:
    return Draft202012Validator(schema, format_checker=FormatChecker()).is_valid(value)


def write(value, **options) -> str:
    return json.dumps(value, ensure_ascii=False, **options)


@pytest.mark.parametrize("block", range(10))
def test_random_schemas_accept_the_values_that_are_valid(block):
    """Both ways: what `json.dumps` writes of a value is accepted if, and only if, the value is valid."""
    counts = {True: 0, False: 0}
    for seed in range(30 * block, 30 * block + 30):
        rng = random.Random(seed)
        schema = with_definitions(random_schema(rng))
        automaton = compile_schema(schema)
        for wrong in (0.0, 0.0, 0.05, 0.1, 0.3):
            value = random_value(schema, schema, rng, wrong)
            expected = valid(schema, value)
            assert automaton.accepts(write(value)) == expected, (seed, schema, value)
            counts[expected] += 1
    assert min(counts.values()) > 20


def test_what_random_schemas_accept_is_valid_and_written_as_said():
    for seed in range(1000, 1120):
        rng = random.Random(seed)
        schema = with_definitions(random_schema(rng))
        separators = rng.choice([(", ", ": "), (",", ":")])
        automaton = compile_schema(schema, separators)
        for _ in range(8):
            text = sample(automaton, rng).decode()
            value = json.loads(text)
            assert valid(schema, value), (seed, schema, text)
            if not re.search(r"\d[.eE]|-0", text):  # a number may be written in several ways
                assert write(value, separators=separators) == text


def test_numbers_within_limits_are_exactly_those():
    spelled = map("".join, (c for n in range(1, 6) for c in product("-0.159", repeat=n)))
    texts = [text for text in spelled if re.fullmatch(r"-?(0|[1-9]\d*)(\.\d+)?", text)]
    limits = [
        "0",
        "1",
        "0.5",
        "-0.15",
        "1.05",
        "9.9",
        "-9",
        "10.01",
        "-15.5",
        "55",
        "0.0015",
        "-1",
        "1E+1",
        "1E-2",
    ]
    rng = random.Random(0)
    for _ in range(60):
        low, high = (None if rng.random() < 0.2 else Decimal(rng.choice(limits)) for _ in "ab")
        if (tree := number(low, high)) is None:
            assert low > high
            continue
        automaton = compile_tree(tree)
        for text in texts if low is not None or high is not None else []:
            inside = (low is None or Decimal(text) >= low) and (high is None or Decimal(text) <= high)
            assert automaton.accepts(text) == inside, (low, high, text)


def test_whole_numbers_within_limits_are_exactly_those():
    rng = random.Random(1)
    for _ in range(80):
        low, high = (
            None if rng.random() < 0.2 else rng.choice([rng.randint(-12, 12), rng.randint(-1200, 1200)])
            for _ in "ab"
        )
        if (tree := integer(low, high)) is None:
            assert low > high
            continue
        automaton = compile_tree(tree)
        for n in range(-1500, 1500):
            assert automaton.accepts(str(n)) == ((low is None or n >= low) and (high is None or n <= high))
        assert not any(map(automaton.accepts, ["-0", "01", "-01", "1.0", "1e1", ""]))


def test_a_number_has_one_point_and_a_finite_value():
    automaton = compile_schema({"type": "number"})
    for text in ("3.5.5.5", "1e999", "01", ".5", "5.", "+1", "NaN", "Infinity", "1e", "--1", ""):
        assert not automaton.accepts(text), text
    for text in ("3.5", "-0", "0.50", "1e-07", "1E+20", "12345678901234567890"):
        assert automaton.accepts(text), text


def test_dates_are_those_of_the_calendar():
    automaton = compile_tree(DATE)
    for year in (1, 4, 99, 100, 400, 999, 1000, 1600, 1616, 1700, 1900, 2000, 2023, 2024, 2100, 9996, 9999):
        for month, day in product(range(14), range(33)):
            try:
                datetime.date(year, month, day)
            except ValueError:
                assert not automaton.accepts(f"{year:04}-{month:02}-{day:02}")
            else:
                assert automaton.accepts(f"{year:04}-{month:02}-{day:02}")
    assert not automaton.accepts("0000-01-01")


def test_every_character_has_the_spelling_of_json_dumps():
    one = compile_tree(string(ANY))
    for point in [*range(0x300), *range(0xD7F0, 0xE010), 0xFFFF, 0x1F600]:
        character = chr(point)
        spelled = write(character)
        assert one.accepts(spelled) == (not 0xD800 <= point <= 0xDFFF)
        assert not one.accepts(spelled[:-1] + spelled[1:])
        if len(spelled) > 3:
            assert not one.accepts(f'"{character}"')
    for text in ('""', '"\\u0041"', '"\\/"'):  # none, and second spellings of a character
        assert not one.accepts(text)
    assert compile_tree(string(Repeat(ANY, 2, 2))).accepts('"\\n\\u0000"')  # a length counts characters


def test_keys_come_in_their_order_and_optional_ones_may_be_left_out():
    schema = {"type": "object", "properties": {name: {"type": "null"} for name in "abcd"}, "required": ["c"]}
    automaton = compile_schema(schema)
    for size in range(5):
        for names in product("abcd", repeat=size):
            text = "{" + ", ".join(f'"{name}": null' for name in names) + "}"
            assert automaton.accepts(text) == (list(names) == sorted(set(names)) and "c" in names)


@pytest.mark.parametrize(
    ("schema", "place", "word"),
    [
        ({"type": "array", "items": {"type": "null"}, "uniqueItems": True}, "#", "'uniqueItems' is not supported"),
        ({"type": "integer", "multipleOf": 2}, "#", "'multipleOf' is not supported"),
        ({"type": "object", "properties": {"a": {"type": "string", "maximum": 3}}}, "#/properties/a", "'maximum' is not"),
        ({"type": "object", "properties": {"a": {"type": "strin"}}}, "#/properties/a", "'strin' is not one of"),
        ({"type": "object", "properties": {"a": {}}}, "#/properties/a", "has no 'type'"),
        ({"type": "object", "properties": {"a": True}}, "#/properties/a", "no description"),
        ({"type": "object", "patternProperties": {}}, "#", "'patternProperties'"),
        ({"type": "object", "additionalProperties": True}, "#", "false alone"),
        ({"type": "object", "required": ["a"]}, "#", "required key 'a'"),
        ({"properties": {"a": {"type": "null"}}}, "#", "'properties' is not supported without a type"),
        ({"type": {"enum": ["a"]}}, "#", "is not one of"),
        ({"type": "array"}, "#", "without 'items'"),
        ({"type": "array", "items": {"type": "null"}, "minItems": 3, "maxItems": 2}, "#", "exclude each other"),
        ({"type": "string", "minLength": -1}, "#", "minLength=-1 must be a whole number"),
        ({"type": "string", "maxLength": 2.5}, "#", "maxLength=2.5 must be a whole number"),
        ({"type": "string", "format": "email"}, "#", "format 'email'"),
        ({"type": "string", "pattern": "(?=a)"}, "#", "lookaround"),
        ({"type": "string", "pattern": "a(b$)"}, "#", "anchor"),
        ({"type": "number", "exclusiveMinimum": 0}, "#", "exclusiveMinimum"),
        ({"type": "integer", "minimum": 3, "maximum": 2}, "#", "no whole number"),
        ({"type": "integer", "minimum": 0.2, "maximum": 0.8}, "#", "no whole number"),
        ({"type": "number", "minimum": 3, "maximum": 2}, "#", "no number"),
        ({"type": "number", "minimum": True}, "#", "minimum is True"),
        ({"type": "number", "maximum": float("nan")}, "#", "maximum is nan"),
        ({"type": "number", "maximum": None}, "#", "maximum is None"),
        ({"anyOf": [{"type": "null"}], "type": "null"}, "#", "'type' is not supported beside anyOf"),
        ({"anyOf": []}, "#", "at least one schema"),
        ({"anyOf": [{"type": "null"}, {"not": {}}]}, "#/anyOf/1", "'not' is not supported"),
        ({"allOf": [{"type": "null"}]}, "#", "'allOf' is not supported"),
        ({"oneOf": [{"type": "integer"}, {"const": 1.0}]}, "#", "may fit both #/oneOf/0 and #/oneOf/1"),
        ({"oneOf": [{"type": "integer", "maximum": 3}, {"type": "number"}]}, "#", "may fit both"),
        ({"enum": []}, "#", "at least one value"),
        ({"enum": ["a", 1], "type": "string"}, "#", "the value 1 of enum"),
        ({"enum": ["abc", "a"], "type": "string", "maxLength": 1}, "#", 'the value "abc" of enum'),
        ({"const": 2, "enum": [1]}, "#", "const is not in enum"),
        ({"const": float("inf")}, "#", "no value of JSON"),
        ({"const": "\ud800"}, "#", "cannot be written in UTF-8"),
        ({"$ref": "#/$defs/a"}, "#", "not found"),
        ({"$ref": "https://json-schema.org/draft"}, "#", "not found"),
        ({"$ref": "#"}, "#", "not found"),
        ({"$ref": "#/$defs/a", "maxLength": 3, "$defs": {"a": {"type": "string"}}}, "#", "beside \\$ref"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/a"}}}}, "#/\\$defs/a/items", "contains itself"),
        ([], "#", "no description"),
    ],
)  # fmt: skip
def test_what_is_not_read_is_named_with_its_place(schema, place, word):
    with pytest.raises(ValueError, match=rf"the schema at {place}: .*{word}"):
        compile_schema(schema)


def test_no_keyword_of_the_standard_is_passed_over():
    """Each keyword of the meta-schema, beside each type, is read, said to be silent, or refused by name."""
    draft = "https://json-schema.org/draft/2020-12/meta/"
    vocabularies = (
        "core",
        "applicator",
        "unevaluated",
        "validation",
        "format-annotation",
        "content",
        "meta-data",
    )
    standard = {name for part in vocabularies for name in REGISTRY.contents(draft + part)["properties"]}
    assert len(standard) > 55
    for kind, own in KEYWORDS.items():
        schema = {"type": kind, "items": {"type": "null"}} if kind == "array" else {"type": kind}
        for name in standard - SILENT - own - {"type", "enum", "const"}:
            with pytest.raises(ValueError, match=re.escape(name)):
                compile_schema(schema | {name: 1})


def test_definitions_may_be_shared_but_what_they_make_must_not_grow_beyond_all_bounds(monkeypatch):
    monkeypatch.setattr(syntax, "MAX_STATES", 5_000)
    four = {"type": "array", "minItems": 4, "maxItems": 4}
    definitions = {f"d{i}": four | {"items": {"$ref": f"#/$defs/d{i + 1}"}} for i in range(10)}
    definitions["d10"] = {"type": "null"}
    inside = [[None] * 4] * 4
    assert compile_schema({"$ref": "#/$defs/d8", "$defs": definitions}).accepts(write(inside))
    with pytest.raises(ValueError, match="make the counts smaller"):
        compile_schema({"$ref": "#/$defs/d0", "$defs": definitions})


def test_options_of_one_are_told_apart_or_refused():
    def same(schema):
        return schema

    person = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    thing = {
        "type": "object",
        "properties": {"name": {"type": "null"}, "n": {"type": "integer"}},
        "required": ["name"],
    }
    assert apart(person, thing, same)  # the name is a text or null
    assert not apart(person, thing | {"required": ["n"]}, same)  # {"name": "x", "n": 1} may fit both
    assert apart({"enum": [1, "a"]}, {"enum": [True, "b"]}, same)
    assert not apart({"enum": [1, "a"]}, {"const": 1.0}, same)
    assert not apart({"const": {"a": 1}}, {"const": {"b": 1}}, same)  # not looked into
    for schema in (
        {"oneOf": [person, thing]},
        {"oneOf": [{"type": "string"}, {"type": ["null", "integer"]}]},
    ):
        assert compile_schema(schema)


def test_separators_are_white_space_around_a_comma_and_a_colon():
    schema = {"type": "array", "items": {"const": {"a": [1, 2]}}}
    value = [{"a": [1, 2]}] * 2
    for separators in ((",", ":"), (", ", ": "), (" ,\n", "\t:")):
        assert compile_schema(schema, separators).accepts(write(value, separators=separators))
    with pytest.raises(ValueError, match="give a comma and a colon"):
        compile_schema(schema, (";", ":"))


def test_patterns_are_searched_for_as_the_standard_says():
    for pattern in ("a", "^a", "a$", "^a|b$", "^(a|b)$", "^a.c$", r"^\w+$"):
        automaton = compile_schema({"type": "string", "pattern": pattern})
        for text in ("a", "ba", "ab", "b", "abc", "a\nc", "xaz", "", "a-b", "éa", "a\u2028c"):
            expected = bool(
                re.search(pattern.replace("$", r"\Z").replace(".", "[^\n\r\u2028\u2029]"), text, re.ASCII)
            )
            assert automaton.accepts(write(text)) == expected, (pattern, text)
    assert compile_tree(string(parse(r"[\n\x00-\x02]"))).accepts('"\\u0001"')
