"""Write `records.py`, the Python types of all records, from the schemas: `python -m avro.generate`. A test checks for drift."""

from __future__ import annotations

import textwrap
from typing import Any

import avro

HEAD = '''"""The records of the road as decoded: dictionaries with these keys. Times are UTC in milliseconds since 1970.

Written by `python -m avro.generate` from the schemas; change those. A field with a default may be left out when writing.
"""

from typing import Literal, NotRequired, TypedDict
'''
PRIMITIVE = {
    "string": "str",
    "bytes": "bytes",
    "int": "int",
    "long": "int",
    "double": "float",
    "boolean": "bool",
    "null": "None",
}


def source() -> str:
    """Text of `records.py`."""
    parts: dict[str, str] = {}
    for name in avro.names():
        _type(avro.load(name), parts)
    return HEAD + "".join(parts.values())


def _type(schema: Any, parts: dict[str, str]) -> str:
    """Python's spelling of an Avro type; definitions of named types go to `parts`, each after those that it needs."""
    match schema:
        case str():
            return PRIMITIVE.get(schema) or schema.removeprefix(f"{avro.NAMESPACE}.")
        case list():
            return " | ".join(_type(branch, parts) for branch in sorted(schema, key=lambda branch: branch == "null"))
        case {"type": "array", "items": items}:
            return f"list[{_type(items, parts)}]"
        case {"type": "map", "values": values}:
            return f"dict[str, {_type(values, parts)}]"
        case {"type": "enum", "name": name, "symbols": symbols}:
            parts.setdefault(name, f"\n{name} = Literal[{', '.join(map(repr, symbols))}]\n".replace("'", '"'))
            return str(name)
        case {"type": "record", "name": name, "fields": fields, "doc": doc}:
            if name not in parts:
                lines = "".join(f"    {field['name']}: {_field(field, parts)}\n" for field in fields)
                text = textwrap.fill(f'"""{doc}"""', 116, initial_indent="    ", subsequent_indent="    ")
                parts[name] = f"\n\nclass {name}(TypedDict):\n{text}\n\n{lines}"
            return str(name)
        case {"type": str() as primitive}:
            return PRIMITIVE[primitive]
    raise ValueError(f"no Python type for {schema!r}: name one in avro/generate.py")


def _field(field: dict[str, Any], parts: dict[str, str]) -> str:
    spelled = _type(field["type"], parts)
    return f"NotRequired[{spelled}]" if "default" in field else spelled


if __name__ == "__main__":
    (avro.FOLDER / "records.py").write_text(source(), encoding="utf-8")
