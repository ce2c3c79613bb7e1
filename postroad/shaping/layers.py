"""The tables of shaping.toml as they are read: checked, and one file laid over another key by key."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias

from postroad.shaping import fields
from postroad.shaping.automatic import Rule
from postroad.shaping.reading import Fault, Reader, ShapingError
from postroad.smtp_timeouts import SmtpTimeouts

SIZE_MAX = 1 << 20  # bytes or characters of a file
ATTEMPT_MAX_S = 7200  # that the time-outs of a place may add up to (`SmtpTimeouts.longest`; 5,400 as built in)
_TOP = ("default", "site", "source", "tenant", "rule", "warmup")
Table: TypeAlias = "dict[str, Value]"


class Value(NamedTuple):
    """What a key says, and which file has it from."""

    value: Any
    origin: str


class Layers:
    """The tables of all files, laid over each other key by key."""

    def __init__(self) -> None:
        self.tables: dict[tuple[str, ...], Table] = {}
        self.rules: list[tuple[Rule, str]] = []  # those of a later file come first
        self.off: set[str] = set()

    def lay(self, path: tuple[str, ...], values: Mapping[str, Any], origin: str) -> None:
        """Put values over those that are there."""
        below = self.tables.setdefault(path, {})
        for key, value in values.items():
            if isinstance(value, dict) and key in below:
                value = {**below[key].value, **value}
            below[key] = Value(value, origin)


def read(text: str, origin: str, layers: Layers) -> None:
    """Lay a file over the others. Raises ShapingError with every fault of it."""
    if len(text) > SIZE_MAX:
        raise ShapingError(origin, [Fault(0, f"is longer than {SIZE_MAX:,} characters")])
    try:
        content = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: not TOML, a number of 5,000 digits
        raise ShapingError(origin, [_not_toml(error, text)]) from None
    reader = Reader(text)
    for key in content:
        if key not in _TOP:
            hint = fields.did_you_mean(key, _TOP) or f"; tables are {', '.join(f'[{name}]' for name in _TOP)}"
            reader.fault((key,), f"is no table of this file{hint}")
    _read_places(content, origin, layers, reader)
    for name, table in reader.tables(content.get("warmup", {}), ("warmup",)).items():
        layers.lay(("warmup", name), reader.table(table, fields.WARMUP, ("warmup", name)), origin)
        if "start" not in table:
            reader.fault(("warmup", name), "wants a start: start = 2026-11-30")
    _read_rules(content.get("rule", []), origin, layers, reader)
    _check_hosts(layers, reader)
    _check_timeouts(layers, reader)
    if reader.faults:
        raise ShapingError(origin, reader.faults)


def _not_toml(error: Exception, content: str) -> Fault:
    """With the line, which tomllib puts into its text alone."""
    problem, _, place = str(error).rpartition(" (at ")
    line = place.removeprefix("line ").partition(",")[0]
    if line.isdigit():
        return Fault(int(line), f"not TOML: {problem}")
    return Fault(content.count("\n") + 1 if problem else 0, f"not TOML: {problem or str(error)[:200]}")


def _read_places(content: dict[str, Any], origin: str, layers: Layers, reader: Reader) -> None:
    default = content.get("default", {})
    if isinstance(default, dict):
        layers.lay(("default",), reader.table(default, fields.DEFAULT, ("default",)), origin)
    else:
        reader.fault(("default",), "wants a table: [default]")
    _read_nested("site", fields.SITE, "source", fields.PLACE, content, origin, layers, reader)
    _read_nested("tenant", fields.TENANT, "site", fields.TENANT, content, origin, layers, reader)
    for name, table in reader.tables(content.get("source", {}), ("source",)).items():
        layers.lay(("source", name), reader.table(table, fields.PLACE, ("source", name)), origin)


def _read_nested(
    kind: str, keys: Mapping[str, fields.Check], inner: str, inner_keys: Mapping[str, fields.Check],
    content: dict[str, Any], origin: str, layers: Layers, reader: Reader,
) -> None:  # fmt: skip
    for name, table in reader.tables(content.get(kind, {}), (kind,)).items():
        path = (kind, name)
        own = {key: value for key, value in table.items() if key != inner}
        layers.lay(path, reader.table(own, {**keys, inner: fields.text}, path), origin)
        for within, values in reader.tables(table.get(inner, {}), (*path, inner)).items():
            place = (*path, inner, within)
            layers.lay(place, reader.table(values, inner_keys, place), origin)


def _read_rules(items: Any, origin: str, layers: Layers, reader: Reader) -> None:
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        reader.fault(("rule",), "wants tables: [[rule]]")
        return
    rules: dict[str, Rule] = {}
    named = set()
    for number, item in enumerate(items):
        path = ("rule", number)
        found = reader.table(item, fields.RULE, path)
        wanted = ("name",) if item.get("off") is True else ("name", "reply", "action")
        for key in wanted:
            if key not in item:
                reader.fault(path, f"wants {key}")
        name = found.get("name")
        if name is None:
            continue
        if name in named:
            reader.fault((*path, "name"), f"= {name!r} is the name of another rule of this file")
        named.add(name)
        if not found.get("off") and all(key in found for key in wanted):
            rules[name] = _rule(found)
    layers.rules = [(rule, origin) for rule in rules.values()] + [
        each for each in layers.rules if each[0].name not in named
    ]


def _rule(found: dict[str, Any]) -> Rule:
    names = {"reply": "patterns", "window": "window_s", "duration": "for_s"}
    values = {names.get(key, key): value for key, value in found.items() if key != "off"}
    for key in ("phases", "sites"):
        values[key] = frozenset(values.get(key, ()))
    return Rule(**values)


def _check_hosts(layers: Layers, reader: Reader) -> None:
    """A host leads to one site."""
    owner = {path[1].lower(): path[1] for path in layers.tables if path[0] == "site"}
    for path, table in layers.tables.items():
        for host in table["hosts"].value if "hosts" in table else ():
            if owner.setdefault(host, path[1]) != path[1]:
                reader.fault((*path, "hosts"), f"has {host}, which is of site {owner[host]}")


def _check_timeouts(layers: Layers, reader: Reader) -> None:
    """No attempt may take longer than the worker waits for one before it counts as hung."""
    said = {path: item.value for path, table in layers.tables.items() if (item := table.get("timeouts"))}
    sites = {path[1] for path in said if path[0] == "site"} | {""}
    sources = {path[-1] for path in said if path[-2:-1] == ("source",)} | {""}
    told = set()
    for site in sorted(sites):
        for source in sorted(sources):
            places = [("default",), ("site", site), ("source", source), ("site", site, "source", source)]
            found = [path for path in places if path in said]
            merged = {key: value for path in found for key, value in said[path].items()}
            longest = replace(SmtpTimeouts(), **merged).longest
            if longest > ATTEMPT_MAX_S and found[-1] not in told:
                told.add(found[-1])
                why = f"let one attempt take {longest:,.0f} s; together they may be {ATTEMPT_MAX_S:,} s: shorten some of them"
                reader.fault((*found[-1], "timeouts"), why)
