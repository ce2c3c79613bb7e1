"""Golden records: `python -m avro.samples` writes `golden/` anew from the schemas.

| file | what |
|---|---|
| <Schema>.<case>.json | the record as decoded; bytes as {"base64": "..."} |
| <Schema>.<case>.single.bin | it as an Avro single object |
| <Schema>.<case>.confluent.bin | it in Confluent framing, with schema id 1 |

Cases: `full` sets every field, `minimal` leaves every default as it is.
"""

from __future__ import annotations

import base64
import json
from io import BytesIO
from pathlib import Path
from typing import Any

from fastavro import parse_schema, schemaless_writer
from fastavro.schema import fingerprint, to_parsing_canonical_form

import avro
from avro.compatibility import written

GOLDEN = avro.FOLDER / "golden"
CASES = ("full", "minimal")
CONFLUENT_ID = 1
NOON_MS = 1_700_000_000_000


def sample(schema: dict[str, Any], case: str) -> Any:
    """A record of `schema` with every field, always the same."""
    return _value(written(schema), case == "full", "", 0, {})


def read(name: str, case: str) -> Any:
    """A golden record as decoded."""
    return json.loads(_path(name, case, "json").read_text(encoding="utf-8"), object_hook=_untagged)


def encoded(name: str, case: str, framing: str) -> bytes:
    """A golden record as bytes; framing: single, confluent."""
    return _path(name, case, f"{framing}.bin").read_bytes()


def write() -> None:
    """Replace everything in `golden/`."""
    GOLDEN.mkdir(exist_ok=True)
    for old in GOLDEN.iterdir():
        old.unlink()
    for name in avro.names():
        schema = avro.load(name)
        crc = bytes.fromhex(fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO"))
        for case in CASES:
            value, body = sample(schema, case), BytesIO()
            schemaless_writer(body, parse_schema(schema), value, strict=True)
            text = json.dumps(value, default=_tagged, ensure_ascii=False, indent=1)
            _path(name, case, "json").write_text(text + "\n", encoding="utf-8")
            _path(name, case, "single.bin").write_bytes(b"\xc3\x01" + crc + body.getvalue())
            _path(name, case, "confluent.bin").write_bytes(b"\0" + CONFLUENT_ID.to_bytes(4, "big") + body.getvalue())


def _path(name: str, case: str, kind: str) -> Path:
    return GOLDEN / f"{name}.{case}.{kind}"


def _tagged(value: bytes) -> dict[str, str]:
    return {"base64": base64.b64encode(value).decode()}


def _untagged(found: dict[str, Any]) -> Any:
    return base64.b64decode(found["base64"]) if found.keys() == {"base64"} else found


def _value(schema: Any, full: bool, name: str, place: int, types: dict[str, Any]) -> Any:
    """`name`: of the field; `place`: number of the item, so that a union shows several branches; `types`: met so far."""
    match schema:
        case list():
            branches = [branch for branch in schema if branch != "null"]
            return _value(branches[place % len(branches)], full, name, place, types) if full else None
        case {"type": "record", "name": kind, "fields": fields}:
            types[f"{avro.NAMESPACE}.{kind}"] = types[kind] = schema
            return {field["name"]: _field(field, full, place, types) for field in fields}
        case {"type": "enum", "name": kind, "symbols": symbols}:
            types[f"{avro.NAMESPACE}.{kind}"] = types[kind] = schema
            return symbols[-1 - place % len(symbols)] if full else symbols[0]
        case {"type": "array", "items": items}:
            return [_value(items, full, name, number, types) for number in range(2 if full else 0)]
        case {"type": "map", "values": values}:
            return {key: _value(values, full, name, 0, types) for key in (["ключ", "key"] if full else [])}
        case {"type": "long", "logicalType": "timestamp-millis"}:
            return NOON_MS + 123 + place if full else NOON_MS
        case {"type": inner}:
            return _value(inner, full, name, place, types)
        case str() if schema in types:
            return _value(types[schema], full, name, place, types)
    return {
        "string": f"{name} {place} – ž 漢 🙂" if full else name,
        "bytes": b"\x00\xff\r\n" + name.encode() if full else b"",
        "int": -(1 << 31) + place if full else 0,
        "long": (1 << 62) + place if full else 0,
        "double": 1.5 + place if full else 0.0,
        "boolean": full,
    }[schema]


def _field(field: dict[str, Any], full: bool, place: int, types: dict[str, Any]) -> Any:
    value = _value(field["type"], full, field["name"], place, types)  # always, for the types that it defines
    if full or "default" not in field:
        return value
    return field["default"].encode("latin-1") if field["type"] == "bytes" else field["default"]


if __name__ == "__main__":
    write()
