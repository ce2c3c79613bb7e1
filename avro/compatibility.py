"""Can a reader with one schema read what was written with another? The rules of schema resolution, Avro 1.12.

`breaks(reader, writer)` lists every reason why not; `BACKWARD_TRANSITIVE` is: none against every released version. Workers of
two releases in a row run side by side, so the one before must read today's records as well: `breaks_the_release_before`.

A symbol that is added to an enum is listed in the enum's attribute `reserved` for one release: readers know it, and nobody can
write it (`written`). A default symbol would do worse: stages pass records on, and the old one would pass on the wrong symbol.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import avro

PROMOTIONS = {
    "int": {"long", "float", "double"},
    "long": {"float", "double"},
    "float": {"double"},
    "string": {"bytes"},
    "bytes": {"string"},
}
NAMED = {"record", "error", "enum", "fixed"}
COMPLEX = {*NAMED, "array", "map"}


def breaks(reader: Any, writer: Any) -> list[str]:
    """Reasons, each with the path of its field, why `reader` cannot read every record of `writer`; none: compatible."""
    return _Comparison().compare(reader, writer, "")


def breaks_with_released(name: str) -> list[str]:
    """Reasons why today's schema `name` cannot read what was written with a released version."""
    return [found for version in avro.released(name) for found in breaks(avro.load(name), version)]


def breaks_the_release_before(name: str) -> list[str]:
    """Reasons why workers of the last release before today's schema `name` cannot read what is written with it."""
    today = avro.load(name)
    before = [version for version in avro.released(name) if bare(version) != bare(today)]
    return breaks(before[-1], written(today)) if before else []


def written(schema: Any) -> Any:
    """What is written with a schema: its enums without their `reserved` symbols, which must be the last ones, so that the
    bytes are the same. Raises ValueError."""
    if isinstance(schema, list):
        return [written(branch) for branch in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("type") == "enum" and (reserved := schema.get("reserved")):
        symbols = schema["symbols"]
        if symbols[-len(reserved) :] != reserved:
            raise ValueError(f"enum {schema['name']}: reserved must be the last symbols, in their order: {reserved}")
        return {**schema, "symbols": symbols[: -len(reserved)]}
    return {key: value if key == "default" else written(value) for key, value in schema.items()}


def bare(schema: Any) -> Any:
    """A schema without its docs."""
    if isinstance(schema, dict):
        return {key: bare(value) for key, value in schema.items() if not (key == "doc" and isinstance(value, str))}
    return [bare(branch) for branch in schema] if isinstance(schema, list) else schema


Names: TypeAlias = dict[str, tuple[Any, str]]  # definition and namespace of a named type, by full name, as they are met


class _Comparison:
    def __init__(self) -> None:
        self.readers: Names = {}
        self.writers: Names = {}
        self.pairs: set[tuple[str, str]] = set()  # records in comparison: a type may hold itself

    def compare(self, reader: Any, writer: Any, path: str, reader_space: str = "", writer_space: str = "") -> list[str]:
        reader, reader_space = _resolve(reader, self.readers, reader_space)
        writer, writer_space = _resolve(writer, self.writers, writer_space)
        spaces = reader_space, writer_space
        if isinstance(writer, list):
            return [found for branch in writer for found in self.compare(reader, branch, path, *spaces)]
        if isinstance(reader, list):
            return self._union(reader, writer, path, *spaces)
        kind, written = reader["type"], writer["type"]
        where = path or "the record"
        if kind != written:
            return [] if kind in PROMOTIONS.get(written, ()) else [f"{where}: {written} became {kind}"]
        if kind in NAMED and not _same_name(reader, writer):
            return [f"{where}: {kind} {writer['name']} became {reader['name']} without an alias"]
        match kind:
            case "record" | "error":
                return self._record(reader, writer, path, *spaces)
            case "array":
                return self.compare(reader["items"], writer["items"], f"{path}[]", *spaces)
            case "map":
                return self.compare(reader["values"], writer["values"], f"{path}{{}}", *spaces)
            case "fixed" if reader["size"] != writer["size"]:
                return [f"{where}: fixed of {writer['size']} bytes became {reader['size']}"]
            case "enum" if "default" not in reader:
                gone = [symbol for symbol in writer["symbols"] if symbol not in reader["symbols"]]
                return [f"{where}: enum {reader['name']} lost {', '.join(gone)} and has no default"] if gone else []
        return []

    def _record(self, reader: Any, writer: Any, path: str, reader_space: str, writer_space: str) -> list[str]:
        pair = reader["name"], writer["name"]
        if pair in self.pairs:
            return []
        self.pairs.add(pair)
        written = {field["name"]: field for field in writer["fields"]}
        found: list[str] = []
        for field in reader["fields"]:
            here = f"{path}.{field['name']}" if path else field["name"]
            source = next(
                (written[name] for name in (field["name"], *field.get("aliases", ())) if name in written), None
            )
            if source is not None:
                found += self.compare(field["type"], source["type"], here, reader_space, writer_space)
            elif "default" not in field:
                found.append(f"{here}: added without a default")
        self.pairs.discard(pair)
        return found

    def _union(self, branches: list[Any], writer: Any, path: str, reader_space: str, writer_space: str) -> list[str]:
        reasons = [self.compare(branch, writer, path, reader_space, writer_space) for branch in branches]
        if not all(reasons):
            return []
        resolved = [_resolve(branch, self.readers, reader_space)[0] for branch in branches]
        for branch, found in zip(resolved, reasons, strict=True):
            if branch["type"] == writer["type"] and (writer["type"] not in NAMED or _same_name(branch, writer)):
                return found  # the branch that was meant says more than that none fits
        return [f"{path or 'the record'}: no branch takes {writer.get('name', writer['type'])}"]


def _resolve(schema: Any, names: Names, namespace: str) -> tuple[Any, str]:
    """The definition behind a name or a nested spelling, as a dictionary or, for a union, a list; and its namespace."""
    while isinstance(schema, dict) and (isinstance(schema["type"], dict | list) or schema["type"] not in COMPLEX):
        schema = schema["type"]  # {"type": "long", "logicalType": ...}
    if isinstance(schema, str):
        return names.get(_full(schema, namespace)) or names.get(schema) or ({"type": schema}, namespace)
    if isinstance(schema, dict) and schema["type"] in NAMED:
        full = _full(schema["name"], schema.get("namespace", namespace))
        names[full] = schema, full.rpartition(".")[0]
        return names[full]
    return schema, namespace


def _full(name: str, namespace: str) -> str:
    return name if "." in name or not namespace else f"{namespace}.{name}"


def _same_name(reader: Any, writer: Any) -> bool:
    """By the unqualified name, as Avro asks and fastavro does."""
    names = {name.rpartition(".")[2] for name in (reader["name"], *reader.get("aliases", ()))}
    return writer["name"].rpartition(".")[2] in names
