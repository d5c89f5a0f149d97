"""Random JSON schemas of the subset that the course reads, and values near them."""

import random

CHARACTERS = [
    "a",
    "b",
    "z",
    "7",
    " ",
    '"',
    "\\",
    "/",
    "\n",
    "\t",
    "\x00",
    "\x1f",
    "\x7f",
    "é",
    "\u2028",
    "😀",
]
NAMES = ["speaker", "line", "n", 'a "b"', "é", "tags", ""]
PATTERNS = [
    "^[a-z]{1,3}$",
    "a",
    "^a|b$",
    "^(yes|no)",
    r"[0-9]+\n",
    r'^[^"\\]*$',
    r'"|\\',
    "^[é-😀]?$",
    r"\d-\d",
]
CONSTANTS = [
    None,
    True,
    False,
    0,
    1,
    -7,
    2.5,
    "",
    "a",
    'x"\n\\',
    "é😀",
    [],
    {},
    [1, "a"],
    {"b": 1, "a": [None]},
]


def some(rng: random.Random, schema: dict, **keywords) -> dict:
    """Return the schema with some of the keywords."""
    return schema | {name: value for name, value in keywords.items() if rng.random() < 0.5}


def random_string(rng: random.Random) -> dict:
    low = rng.randint(0, 3)
    kind = rng.randrange(6)
    if kind == 0:
        return {"type": "string", "format": "date"}
    if kind < 3:
        return {"type": "string", "pattern": rng.choice(PATTERNS)}
    if kind == 3:
        return {"type": "string", "pattern": rng.choice(PATTERNS), "maxLength": rng.randint(4, 9)}
    return some(rng, {"type": "string"}, minLength=low, maxLength=low + rng.randint(0, 4))


def random_number(rng: random.Random) -> dict:
    kind = rng.choice(["integer", "number"])
    low = rng.choice([0, -3, 1, 7, -120, 99, 1000, 0.5, -2.25, 10.125, 1e-3, -1e3])
    span = rng.choice([1, 5, 10, 98, 2.5, 1e4])
    names = ["minimum", "maximum"]
    if kind == "integer" and rng.random() < 0.3:
        names = ["exclusiveMinimum", "exclusiveMaximum"]
    return some(rng, {"type": kind}, **{names[0]: low, names[1]: low + 1 + span})


def random_schema(rng: random.Random, depth: int = 3) -> dict:
    """Return a schema; objects say that there are no other keys, so that both readings are one."""
    kind = rng.choice("snbecud" if depth == 0 else "snbecudaaooooftr")
    if kind == "s":
        return random_string(rng)
    if kind == "n":
        return random_number(rng)
    if kind == "b":
        return {"type": rng.choice(["boolean", "null"]), "title": "nothing"}
    if kind == "e":
        return {"enum": rng.sample(CONSTANTS, rng.randint(1, 4))}
    if kind == "c":
        return {"const": rng.choice(CONSTANTS)}
    if kind == "u":
        return {"type": rng.sample(["string", "integer", "null", "boolean"], 2), "description": "one of two"}
    if kind == "d":
        return {"type": "string", "enum": rng.sample(["", "a", "b", 'x"', "é"], 2), "maxLength": 2}
    if kind == "a":
        low = rng.randint(0, 2)
        array = {"type": "array", "items": random_schema(rng, depth - 1)}
        return some(rng, array, minItems=low, maxItems=low + rng.randint(0, 2))
    if kind == "f":
        return {"anyOf": [random_schema(rng, depth - 1) for _ in range(rng.randint(1, 3))]}
    if kind == "t":
        first, second = random_object(rng, depth), random_object(rng, depth)
        for name, schema in (("one", first), ("two", second)):
            schema["properties"]["kind"] = {"const": name}
            schema["required"] = [*schema["required"], "kind"]
        return {"oneOf": [first, second, {"type": "null"}]}
    if kind == "r":
        return {"$ref": f"#/$defs/{rng.choice(['short', 'pair'])}"}
    return random_object(rng, depth)


def random_object(rng: random.Random, depth: int) -> dict:
    names = rng.sample(NAMES, rng.randint(0, 4))
    properties = {name: random_schema(rng, depth - 1) for name in names}
    required = [name for name in names if rng.random() < 0.6]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def with_definitions(schema: dict) -> dict:
    """Return the schema with what its references name."""
    pair = {"type": "array", "items": {"$ref": "#/$defs/short"}, "minItems": 2, "maxItems": 2}
    return schema | {"$defs": {"short": {"type": "string", "maxLength": 3}, "pair": pair}}


def random_text(rng: random.Random) -> str:
    if rng.random() < 0.2:
        month, day = rng.randint(0, 13), rng.choice([0, 1, 28, 29, 30, 31, 32])
        return f"{rng.choice(['1900', '2000', '2023', '2024', '0001', '0400'])}-{month:02}-{day:02}"
    if rng.random() < 0.2:
        return rng.choice(["yes", "no", "abc", "7-7", "12\n", "b", "ab"])
    return "".join(rng.choices(CHARACTERS, k=rng.randint(0, 5)))


def random_value(schema: dict, root: dict, rng: random.Random, wrong: float):
    """Return a value that follows the schema, but for accidents, which come with the probability `wrong`."""
    if rng.random() < wrong:
        return rng.choice(
            [*CONSTANTS, random_text(rng), rng.randint(-1100, 1100), rng.randint(-2000, 2000) / 16 + 1 / 32]
        )
    if "$ref" in schema:
        return random_value(root["$defs"][schema["$ref"].split("/")[-1]], root, rng, wrong)
    if "const" in schema or "enum" in schema:
        return rng.choice(schema.get("enum", [schema.get("const")]))
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema:
            return random_value(rng.choice(schema[keyword]), root, rng, wrong)
    kind = schema["type"] if isinstance(schema["type"], str) else rng.choice(schema["type"])
    if kind == "object":
        kept = [name for name in schema["properties"] if name in schema["required"] or rng.random() < 0.5]
        kept = [name for name in kept if rng.random() > wrong / 3]
        return {name: random_value(schema["properties"][name], root, rng, wrong) for name in kept}
    if kind == "array":
        low = schema.get("minItems", 0)
        size = max(
            0,
            rng.randint(low, schema.get("maxItems", low + 2)) + rng.choice([-1, 1]) * (rng.random() < wrong),
        )
        return [random_value(schema["items"], root, rng, wrong) for _ in range(size)]
    if kind == "string":
        return random_text(rng)
    if kind in ("integer", "number"):
        low = schema.get("minimum", schema.get("exclusiveMinimum", -50))
        high = schema.get("maximum", schema.get("exclusiveMaximum", low + 100))
        value = rng.choice([low, high, rng.uniform(low - 1, high + 1)])
        return round(value) if kind == "integer" or value == int(value) else round(value, 3)
    return {"boolean": rng.random() < 0.5, "null": None}[kind]
