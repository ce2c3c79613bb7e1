"""Records as bytes: Avro, framed as Confluent's serialisers do it or as single objects of the Avro specification.

| framing | bytes before the record | written when |
|---|---|---|
| Confluent | 0x00, id in the registry (4 bytes, big-endian) | a registry is configured |
| single object | 0xC3 0x01, CRC-64-AVRO of the writer's schema (8 bytes, little-endian) | none is |

Both are read, told apart by their first byte. A record of another version of the schema is resolved to ours: of a released
one, of one that the registry has, or of one that was published in control.schemas (topics/writers.py), such as that of a newer
release whose workers run beside ours: docs/decisions/0008-rolling-upgrade.md.

    CodecError
      EncodeError            the value does not fit the schema: a mistake in the code that made it
      DecodeError            these bytes will never be a record of this schema
      UnknownSchema          nobody has asked for this writer's schema yet: `await learn(error.id)`, decode again
      RegistryUnavailable    temporary: try again later
      SchemaRefused          the registry does not take our schema: an incompatible change, nothing can start
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from io import BytesIO
from typing import Any, Protocol

from fastavro import schemaless_reader, schemaless_writer
from fastavro.validation import ValidationError, validate

import avro
from avro.compatibility import written
from topics.schemas import SINGLE_OBJECT, Schema, least_bytes, parse, single_object_header

CONFLUENT = b"\x00"
CONFLUENT_HEADER = 5
SINGLE_OBJECT_HEADER = 10

# A record of two zero bytes becomes a dictionary of 230: 8 MiB of them would take a gigabyte. Larger records than LARGE
# are read with an account of every value in them; a submission to 1,000 recipients with 200 variables each passes.
LARGE = 256 << 10
MAX_READS = 2_000_000
CONFLUENT_MAX = (1 << 32) - 1
ERROR_TEXT = 500  # characters; fastavro quotes the value, which may be a whole attachment


#: What control.schemas has told this process, by single-object header: the bytes before a record name its schema wherever
#: it lies, in a topic or in a table. None: that schema is not valid.
published: dict[bytes, Schema | None] = {}


class CodecError(Exception):
    """Root of what a codec raises."""


class EncodeError(CodecError):
    """The value does not fit the schema; the text names the field where that is known."""


class DecodeError(CodecError):
    """These bytes will never be a record of this schema."""


class UnknownSchema(CodecError):
    """A record refers to a schema that nobody has asked for yet. `id`: of the registry, or the whole header of a single object
    as a number (big-endian), which no registry has."""

    def __init__(self, id: int):
        super().__init__(f"{_called(id)} is not known yet: learn it and decode again")
        self.id = id


class RegistryUnavailable(CodecError):
    """The registry, or Kafka where it stands for one, gave no answer of use; temporary."""


class SchemaRefused(CodecError):
    """The registry does not take our schema."""


class Registry(Protocol):
    """What a codec needs of a schema registry (topics/registry.py has the one over HTTP)."""

    async def schema(self, id: int) -> Schema | None:
        """The schema with this id, None where there is none. Raises RegistryUnavailable, DecodeError for one not in Avro."""

    async def register(self, subject: str, schema: Schema) -> int:
        """Id of `schema` under `subject`, as BACKWARD_TRANSITIVE. Raises RegistryUnavailable, SchemaRefused."""


class Codec:
    """Bytes to dictionaries and back for one schema: a name in avro/, or the schema itself. Times are int milliseconds.

    With a registry, `await register(topic)` comes before the first `encode`. `look` puts into `published` what control.schemas
    has by now (raises RegistryUnavailable); without it, a fingerprint of no released version is a DecodeError.
    """

    def __init__(
        self, schema: str | Schema, registry: Registry | None = None, look: Callable[[], Awaitable[None]] | None = None
    ):
        self.name: str = schema if isinstance(schema, str) else schema["name"]
        self._registry, self._look = registry, look
        self._source = avro.load(schema) if isinstance(schema, str) else schema
        self._schema = parse(self._source)
        to_write = written(self._source)
        self._written = self._schema if to_write == self._source else parse(to_write)
        self._header = single_object_header(self._source)  # of our own records
        self._ready = registry is None
        # writers' schemas by header; None is our own
        self._writers = {single_object_header(old): parse(old) for old in avro.released(self.name)}
        self._writers[self._header] = None

    def encode(self, value: Any) -> bytes:
        """Framed bytes of `value`; fields with a default may be absent, unknown ones are refused. Raises EncodeError."""
        if not self._ready:
            raise EncodeError(
                f"{self.name}: await register(topic) before the first record, its id is part of every one"
            )
        stream = BytesIO()
        stream.write(self._header)
        try:
            schemaless_writer(stream, self._written, value, strict_allow_default=True)
        except Exception as error:  # whatever fastavro raises, the value is the reason
            raise EncodeError(f"{self.name}: {self._explain(value, error)}") from error
        return stream.getvalue()

    def decode(self, raw: bytes) -> Any:
        """The record in `raw`, every field of our schema present. Raises DecodeError, UnknownSchema."""
        if len(raw) > LARGE or not raw.startswith(self._header):
            return self._decode_other(raw)
        stream = BytesIO(raw)
        stream.seek(len(self._header))
        try:
            value = schemaless_reader(stream, self._schema, None)
        except Exception as error:  # whatever fastavro raises, the bytes are the reason
            raise self._undecodable(error) from error
        if stream.tell() != len(raw):
            raise self._trailing(len(raw) - stream.tell())
        return value

    def head(self, last: str) -> Callable[[bytes], Any]:
        """A decoder of a record's fields up to `last` alone, at the price of those; `last` may be a field of a record that is a
        field: "message.message_id". It gives None for a record of another version of the schema, and for a large one; what
        lies behind `last` is not looked at. Raises ValueError for no field, and what fastavro raises for bytes that are no record."""
        schema = parse(_cut(self._source, last))

        def decode(raw: bytes) -> Any:
            header = self._header
            if len(raw) > LARGE or not raw.startswith(header):
                return None
            stream = BytesIO(raw)
            stream.seek(len(header))
            return schemaless_reader(stream, schema, None)

        return decode

    def body(self, raw: bytes | None) -> bytes | None:
        """What follows the header of a record that has our own schema; None for any other, and for a large one."""
        if raw is None or len(raw) > LARGE or not raw.startswith(self._header):
            return None
        return raw[len(self._header) :]

    def of_body(self, body: bytes) -> Any:
        """The record that `body` of some codec of this schema gave. Raises DecodeError."""
        return self.decode(self._header + body)

    async def register(self, topic: str) -> int:
        """Make our schema the latest of `topic` (its full name) and write its id from now on.

        Raises RegistryUnavailable, SchemaRefused.
        """
        if self._registry is None:
            raise ValueError(f"{self.name}: no registry is configured")
        id = await self._registry.register(f"{topic}-value", self._source)
        self._header = CONFLUENT + id.to_bytes(4, "big")
        self._writers[self._header] = None
        self._ready = True
        return id

    async def learn(self, id: int) -> None:
        """Fetch the schema that UnknownSchema asked for. Raises RegistryUnavailable, DecodeError when there is none."""
        if id > CONFLUENT_MAX:
            if self._look is None:
                raise ValueError(f"{self.name}: nobody can ask for {_called(id)}")
            await self._look()
            if id.to_bytes(SINGLE_OBJECT_HEADER, "big") not in published:
                raise DecodeError(f"{self.name}: {_called(id)} is of no version that was released or published")
            return
        if self._registry is None:
            raise ValueError(f"{self.name}: no registry is configured")
        schema = await self._registry.schema(id)
        if schema is None:
            raise DecodeError(f"{self.name}: the registry has no schema with id {id}")
        try:
            least_bytes(schema)
            writer = None if single_object_header(schema) == single_object_header(self._source) else parse(schema)
        except Exception as error:  # what fastavro makes of a broken schema has no common class
            raise DecodeError(f"{self.name}: schema id {id} is not valid: {_text(error)}") from error
        self._writers[CONFLUENT + id.to_bytes(4, "big")] = writer

    def _decode_other(self, raw: bytes) -> Any:
        """A record that is large, or of another framing or version than what we write."""
        header = self._header_of(raw)
        try:
            writer = self._writers[header]
        except KeyError:
            if header not in published:
                raise self._unknown(header) from None
            if (schema := published[header]) is None:
                raise DecodeError(f"{self.name}: the schema published for {header[2:].hex()} is not valid") from None
            writer = self._writers[header] = parse(schema)
        stream = _Counted(raw, len(header)) if len(raw) > LARGE else BytesIO(raw)
        stream.seek(len(header))
        try:
            if writer is None:
                value = schemaless_reader(stream, self._schema, None)
            else:
                value = _fresh(schemaless_reader(stream, writer, self._schema))
        except DecodeError:
            raise
        except Exception as error:  # whatever fastavro raises, the bytes are the reason
            raise self._undecodable(error) from error
        if stream.tell() != len(raw):
            raise self._trailing(len(raw) - stream.tell())
        return value

    def _header_of(self, raw: bytes) -> bytes:
        if raw.startswith(SINGLE_OBJECT):
            header, length = raw[:SINGLE_OBJECT_HEADER], SINGLE_OBJECT_HEADER
        elif raw.startswith(CONFLUENT):
            header, length = raw[:CONFLUENT_HEADER], CONFLUENT_HEADER
        else:
            raise DecodeError(
                f"{self.name}: {f'begins with 0x{raw[:2].hex()}' if raw else 'is empty'}: neither Confluent framing"
                " (0x00 + schema id) nor an Avro single object (0xc301 + fingerprint)"
            )
        if len(header) < length:
            raise DecodeError(f"{self.name}: ends within its header")
        return header

    def _unknown(self, header: bytes) -> CodecError:
        if header.startswith(SINGLE_OBJECT):
            if self._look is not None:
                return UnknownSchema(int.from_bytes(header, "big"))
            return DecodeError(f"{self.name}: fingerprint {header[2:].hex()} is of no released version of {self.name}")
        id = int.from_bytes(header[1:], "big")
        if self._registry is None:
            return DecodeError(f"{self.name}: has schema id {id} of a registry, but no registry is configured")
        return UnknownSchema(id)

    def _undecodable(self, error: Exception) -> DecodeError:
        return DecodeError(f"{self.name}: not a record of its schema: {_text(error)}")

    def _trailing(self, count: int) -> DecodeError:
        return DecodeError(f"{self.name}: {count} bytes follow the record")

    def _explain(self, value: Any, error: Exception) -> str:
        """What fastavro's validation says, for it names the field; else what the writer said."""
        try:
            validate(value, self._written)
        except ValidationError as invalid:
            if invalid.errors:  # one for each branch of a union
                datum, _, field = invalid.errors[0]
                wanted = " or ".join(_kind(one.schema) for one in invalid.errors if one.field == field)
                where = field.removeprefix(f"{avro.NAMESPACE}.") or "the value"
                return f"{where} is {'missing or ' if datum is None else ''}{datum!r:.100}, not {wanted}"
        except Exception as worse:  # a value that is not even a record
            error = worse
        return _text(error)


class _Counted:
    """A stream that gives out a limited number of values."""

    def __init__(self, raw: bytes, start: int):
        self._stream = BytesIO(raw)
        self._left = MAX_READS
        self.seek, self.tell, self._read = self._stream.seek, self._stream.tell, self._stream.read

    def read(self, size: int) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise DecodeError(f"more than {MAX_READS:,} values and lengths in one record")
        return self._read(size)


def _cut(schema: Schema, last: str) -> Schema:
    """`schema` without what follows the field `last`."""
    name, _, inner = last.partition(".")
    for number, field in enumerate(schema["fields"], 1):
        if field["name"] == name:
            kept = field if not inner else {"name": name, "type": _cut(field["type"], inner)}
            return {**schema, "fields": [*schema["fields"][: number - 1], kept]}
    raise ValueError(f"{schema['name']} has no field {name!r}")


def _fresh(value: Any) -> Any:
    """A copy that shares nothing: fastavro puts one and the same default list into every record."""
    if isinstance(value, dict):
        return {key: _fresh(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_fresh(item) for item in value]
    return value


def _kind(schema: Any) -> str:
    return str(schema.get("name", schema["type"]) if isinstance(schema, dict) else schema).removeprefix(
        f"{avro.NAMESPACE}."
    )


def _called(id: int) -> str:
    return (
        f"schema id {id}"
        if id <= CONFLUENT_MAX
        else f"fingerprint {id.to_bytes(SINGLE_OBJECT_HEADER, 'big')[2:].hex()}"
    )


def _text(error: Exception) -> str:
    return (str(error) or type(error).__name__)[:ERROR_TEXT]
