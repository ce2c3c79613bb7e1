"""How the values of tables are written, so that workers of two releases in a row read each other's: a partition goes to and fro
between them in a rolling upgrade, and back in a roll back.

| a value is | a field is added | an older release | a newer one |
|---|---|---|---|
| JSON: `shape` | by a key, with a default | does not see it | fills in the default |
| packed: `packed` | at the end | ignores the bytes behind its own | finds zeros, which mean "as before" |
| Avro: tables/due.py | by a field with a default | reads it by control.schemas | the same |
| a number, a text | not at all: a table of its own | | |

A value that an older release writes again has lost what only the newer one knows. No field goes away, or changes its meaning.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, TypeVar

V = TypeVar("V")
_number = struct.Struct(">d")


def to_json(value: Any) -> bytes:
    """A value of dictionaries, lists, text and numbers."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def shape(kind: type[V], defaults: Mapping[str, Any] | None = None) -> Callable[[bytes], V]:
    """Back from `to_json` to a TypedDict: the keys that it names and no others; `defaults`: of those added later."""
    fit = fitted(kind, defaults)
    return lambda raw: fit(json.loads(raw))


def fitted(kind: type[V], defaults: Mapping[str, Any] | None = None) -> Callable[[Mapping[str, Any]], V]:
    """The same for a dictionary inside a value."""
    names, filled = frozenset(kind.__annotations__), dict(defaults or {})

    def fit(found: Mapping[str, Any]) -> V:
        value = {name: item for name, item in found.items() if name in names}
        for name in filled.keys() - value:
            value[name] = deepcopy(filled[name])
        return value  # type: ignore[return-value]  # of that shape, as far as whoever wrote it was

    return fit


def packed(kind: Callable[..., V], layout: str) -> tuple[Callable[[V], bytes], Callable[[bytes], V]]:
    """Encoder and decoder of a NamedTuple of fixed size; `layout`: as `struct` has it, big-endian."""
    form = struct.Struct(layout)

    def encode(value: Any) -> bytes:
        return form.pack(*value)

    def decode(raw: bytes) -> V:
        return kind(*form.unpack_from(raw.ljust(form.size, b"\0")))

    return encode, decode


def to_number(value: float) -> bytes:
    """A double, big-endian."""
    return _number.pack(value)


def from_number(raw: bytes) -> float:
    """Back from `to_number`."""
    return float(_number.unpack(raw)[0])


def to_int(value: int) -> bytes:
    """A whole number as decimal digits."""
    return b"%d" % value
