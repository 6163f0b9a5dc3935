"""Words the errors of pydantic as fusionkit's sentences: what should be, what was found, the nearest name.

What should be follows from the JSON schema of the value, so that a range is written once, in the model.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from fusionkit.config.keys import join, unknown_key
from fusionkit.errors import nearest

Schema = Mapping[str, Any]


def mistakes(
    adapter: TypeAdapter[Any], values: Any, prefix: str = "", given: Container[str] = (), *, complete: bool = True
) -> dict[str, str]:
    """Validate ``values`` and return a sentence for each key that is wrong.

    Args:
        adapter: of the model.
        values: plain containers.
        prefix: the dotted key of the values.
        given: dotted keys that may be absent, because their value is filled in later.
        complete: whether the other required keys have to be there.
    """
    try:
        adapter.validate_python(values)
    except ValidationError as error:
        found: dict[str, str] = {}
        whole = adapter.json_schema()
        for one in error.errors(include_url=False, include_context=False):
            key, sentence = _sentence(one["type"], one["loc"], whole, values, prefix)
            if one["type"] != "missing" or (complete and key not in given):
                found.setdefault(key, sentence)
        return found
    return {}


def _sentence(kind: str, place: tuple[int | str, ...], whole: Schema, values: Any, key: str) -> tuple[str, str]:
    """Return the dotted key of a mistake and its sentence; ``place`` may lead below that key, into a union or list."""
    schema = _resolved(whole, whole)
    for part in place:
        tag = schema.get("discriminator", {}).get("mapping", {}).get(part)
        if tag is not None:
            schema = _resolved({"$ref": tag}, whole)
        elif "properties" in schema:
            if part not in schema["properties"] and kind == "extra_forbidden":
                return join(key, part), unknown_key(join(key, part), key, schema["properties"])
            schema = _resolved(schema["properties"].get(part, {}), whole)
            key, values = join(key, part), values.get(part) if isinstance(values, Mapping) else None
        else:  # An item, or a member of a union: the whole value is named.
            kind = ""
            break
    if kind.startswith("union_tag"):
        name = schema["discriminator"]["propertyName"]
        key, values, schema = join(key, name), values.get(name), {"enum": list(schema["discriminator"]["mapping"])}
    if kind == "missing":
        return key, f"{key} should be in the configuration; found nothing."
    wanted = expected(schema, whole).replace("{key}", key)
    guess = nearest(values, map(str, schema.get("enum", ()))) if isinstance(values, str) else ""
    return key, f"{key or 'The configuration'} should be {wanted}; found {values!r}.{guess}"


def _resolved(schema: Schema, whole: Schema) -> Schema:
    while "$ref" in schema:
        schema = whole["$defs"][schema["$ref"].rpartition("/")[2]]
    return schema


def expected(schema: Schema, whole: Schema) -> str:
    """Return what a value of this JSON schema is, in words; ``whole`` holds the definitions it refers to."""
    schema = _resolved(schema, whole)
    if "expected" in schema:
        return str(schema["expected"])
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(expected(one, whole) for one in schema["anyOf"]))
    if "enum" in schema:
        return f"one of {', '.join(map(str, schema['enum']))}"
    if "const" in schema:
        const = schema["const"]
        return str(const).lower() if isinstance(const, bool) else repr(const)
    if schema.get("type") in ("integer", "number"):
        return f"{'an integer' if schema['type'] == 'integer' else 'a number'}{_bounds(schema)}"
    if schema.get("type") == "array":
        items = schema.get("items") or next(iter(schema.get("prefixItems", ())), None)
        return f"a list of which every item is {expected(items, whole)}" if items else "a list"
    if "maxLength" in schema:
        return f"a text of at most {schema['maxLength']} characters"
    return {"string": "a text", "boolean": "true or false", "null": "null"}.get(schema.get("type", ""), "a mapping")


def _bounds(schema: Schema) -> str:
    if "minimum" in schema and "maximum" in schema:
        return f" from {schema['minimum']} to {schema['maximum']}"
    words = {"minimum": "of at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    found = [f"{word} {schema[name]:g}" for name, word in words.items() if name in schema]
    return f" {' and '.join(found)}" if found else ""
