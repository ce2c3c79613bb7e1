"""Schemas as the codec needs them: their fingerprints, what fastavro reads and writes with, which writers' are refused."""

from __future__ import annotations

from typing import Any, TypeAlias

from fastavro import parse_schema
from fastavro.schema import fingerprint, to_parsing_canonical_form

Schema: TypeAlias = dict[str, Any]

SINGLE_OBJECT = b"\xc3\x01"


def single_object_header(schema: Schema) -> bytes:
    """The ten bytes before a single object of `schema`. fastavro spells the fingerprint in little-endian hex."""
    return SINGLE_OBJECT + bytes.fromhex(fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO"))


def parse(schema: Schema) -> Any:
    """A schema as fastavro wants it, with plain ints for times and bytes for the defaults of bytes."""
    parsed = parse_schema(_without_logical_types(schema))
    _defaults_to_bytes(parsed)
    return parsed


def _without_logical_types(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {key: _without_logical_types(value) for key, value in schema.items() if key != "logicalType"}
    if isinstance(schema, list):
        return [_without_logical_types(branch) for branch in schema]
    return schema


def _defaults_to_bytes(parsed: Any) -> None:
    """fastavro hands out, and writes, defaults as JSON has them: text for bytes, which its writer then refuses."""
    if isinstance(parsed, dict):
        if parsed.get("type") == "bytes" and isinstance(parsed.get("default"), str):
            parsed["default"] = parsed["default"].encode("latin-1")
        for value in parsed.values():
            _defaults_to_bytes(value)
    elif isinstance(parsed, list):
        for value in parsed:
            _defaults_to_bytes(value)


def least_bytes(schema: Schema) -> int:
    """Bytes of the shortest record of a writer's schema. Raises ValueError for what a few bytes could make endless: a type
    inside itself (fastavro recurses on the C stack) and arrays of items without bytes.
    """
    return _smallest(schema, {}, "")


def _smallest(schema: Any, sizes: dict[str, int | None], namespace: str) -> int:
    match schema:
        case list():
            return 1 + min((_smallest(branch, sizes, namespace) for branch in schema), default=0)
        case {"type": "record" | "error", "name": str(name), "fields": list(fields)}:
            namespace = name.rpartition(".")[0] or schema.get("namespace", namespace)
            full = name if "." in name or not namespace else f"{namespace}.{name}"
            sizes[full] = None
            sizes[full] = size = sum(_smallest(field["type"], sizes, namespace) for field in fields)
            return size
        case {"type": "array", "items": items}:
            if _smallest(items, sizes, namespace) == 0:
                raise ValueError("it has an array of items without bytes")
            return 1
        case {"type": "map", "values": values}:
            _smallest(values, sizes, namespace)
            return 1
        case {"type": "fixed", "name": str(name), "size": int(size)}:
            namespace = name.rpartition(".")[0] or schema.get("namespace", namespace)
            sizes[name if "." in name or not namespace else f"{namespace}.{name}"] = size
            return size
        case {"type": "enum"}:
            return 1
        case {"type": inner}:
            return _smallest(inner, sizes, namespace)
        case str(name):
            known = sizes.get(name if "." in name or not namespace else f"{namespace}.{name}", sizes.get(name, 1))
            if known is None:
                raise ValueError(f"it has {name} inside itself")
            return 0 if name == "null" else known
    raise ValueError(f"it has no valid type: {schema!r:.100}")
