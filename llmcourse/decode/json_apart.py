"""Whether no value fits two JSON schemas, as far as that is easily seen: what `oneOf` needs.

Texts do not tell: {"a": 1, "b": 2} and {"b": 2, "a": 1} are one value, and so are 1 and 1.0.
"""

from collections.abc import Callable


def same_value(a, b) -> bool:
    """Return whether JSON Schema may take two constants for the same: 1 is 1.0, and not true.

    >>> same_value(1, 1.0), same_value(1, True), same_value("a", None)
    (True, False, False)
    """
    if isinstance(a, list | dict) or isinstance(b, list | dict):
        return type(a) is type(b)  # cautious: what they hold is not compared
    return a == b and isinstance(a, bool) == isinstance(b, bool)


def _constants(schema: dict) -> list | None:
    return [schema["const"]] if "const" in schema else schema.get("enum")


def _kinds(schema: dict) -> set[str]:
    kinds = schema.get("type", [])
    kinds = kinds if isinstance(kinds, list) else [kinds]
    return {"number" if kind == "integer" else kind for kind in kinds}


def apart(a: dict, b: dict, resolve: Callable[[dict], dict]) -> bool:
    """Return whether no value can fit both schemas; False where that is not seen.

    They are if their types differ, or their constants, or if both are objects and a key that both
    require has schemas that are apart. `resolve` follows references.

    >>> dog, cat = ({"type": "object", "required": ["is"], "properties": {"is": {"const": x}}} for x in "dc")
    >>> apart(dog, cat, resolve=lambda schema: schema), apart(dog, dog, resolve=lambda schema: schema)
    (True, False)
    """
    a, b = resolve(a), resolve(b)
    left, right = _constants(a), _constants(b)
    if left and right:
        return not any(same_value(x, y) for x in left for y in right)
    if _kinds(a) and _kinds(b) and not _kinds(a) & _kinds(b):
        return True
    if _kinds(a) != {"object"} or _kinds(b) != {"object"}:
        return False
    keys = set(a.get("required", [])) & set(b.get("required", []))
    return any(apart(a["properties"][key], b["properties"][key], resolve) for key in keys)
