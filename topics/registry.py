"""A schema registry over Confluent's REST API (Confluent, Apicurio's /apis/ccompat/v7, Karapace, Redpanda)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import aiohttp
from yarl import URL

from topics.codec import DecodeError, RegistryUnavailable, SchemaRefused
from topics.schemas import Schema

CONTENT_TYPE = "application/vnd.schemaregistry.v1+json"
COMPATIBILITY = "BACKWARD_TRANSITIVE"
NO_SUBJECT, NO_SCHEMA = (
    40401,
    40403,
)  # error_code; a bare 404 comes from a wrong address and says nothing about a schema
MISSING_S = 60.0  # an id that is not there is asked for again after so long
MISSING_MAX = 10_000


class HttpRegistry:
    """The registry at `url`; name and password may be part of it. Schemas never change, so each is fetched once."""

    def __init__(self, url: str, *, timeout_s: float = 5.0, clock: Callable[[], float] = time.monotonic):
        self.url = url.rstrip("/")
        self.shown = str(URL(self.url).with_user(None))  # in errors: without name and password
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._clock = clock
        self._schemas: dict[int, Schema] = {}
        self._missing: dict[int, float] = {}  # id: when to ask again; oldest first

    async def schema(self, id: int) -> Schema | None:
        """The schema with this id, None where there is none. Raises RegistryUnavailable, DecodeError for one not in Avro."""
        if id in self._schemas:
            return self._schemas[id]
        if self._missing.get(id, 0.0) > self._clock():
            return None
        status, answer = await self._ask("GET", f"/schemas/ids/{id}")
        if status == 404 and answer.get("error_code") == NO_SCHEMA:
            self._missing.pop(id, None)
            if len(self._missing) >= MISSING_MAX:
                del self._missing[next(iter(self._missing))]
            self._missing[id] = self._clock() + MISSING_S
            return None
        if status != 200:
            raise self._unexpected(status, answer)
        self._schemas[id] = self._avro(id, answer)
        return self._schemas[id]

    async def register(self, subject: str, schema: Schema) -> int:
        """Id of `schema` under `subject`, as BACKWARD_TRANSITIVE. Raises RegistryUnavailable, SchemaRefused."""
        body = {"schema": json.dumps(schema)}
        early = await self._set_compatibility(subject)
        status, answer = await self._ask("POST", f"/subjects/{subject}/versions", body)
        if status in (409, 422):
            raise SchemaRefused(f"{self.shown} does not take our schema of {subject}: {answer.get('message', status)}")
        if status != 200 or not isinstance(answer.get("id"), int):
            raise self._unexpected(status, answer)
        if not early and not await self._set_compatibility(subject):
            raise RegistryUnavailable(f"{self.shown} forgot {subject}")
        return int(answer["id"])

    async def _set_compatibility(self, subject: str) -> bool:
        """False where the registry wants a subject to have a schema first."""
        status, answer = await self._ask("PUT", f"/config/{subject}", {"compatibility": COMPATIBILITY})
        if status == 404 and answer.get("error_code") == NO_SUBJECT:
            return False
        if status != 200:
            raise self._unexpected(status, answer)
        return True

    async def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        """Status and JSON object of the answer, {} where it is none. A session each time: it is asked a few times a day."""
        try:
            async with (
                aiohttp.ClientSession(
                    timeout=self._timeout, headers={"Accept": f"{CONTENT_TYPE}, application/json"}
                ) as session,
                session.request(method, self.url + path, json=body, headers={"Content-Type": CONTENT_TYPE}) as response,
            ):
                text = await response.text()
        except (aiohttp.ClientError, OSError, UnicodeDecodeError) as error:  # a time-out is an OSError
            raise RegistryUnavailable(f"{self.shown} does not answer: {error or type(error).__name__}") from error
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError):
            answer = None
        return response.status, answer if isinstance(answer, dict) else {}

    def _avro(self, id: int, answer: dict[str, Any]) -> Schema:
        if answer.get("schemaType", "AVRO") != "AVRO":
            raise DecodeError(f"schema id {id} is not Avro but {answer['schemaType']}")
        if answer.get("references"):
            raise DecodeError(f"schema id {id} refers to other subjects, which is not supported")
        try:
            schema = json.loads(answer["schema"])
        except (KeyError, TypeError, ValueError, RecursionError):
            raise DecodeError(f"schema id {id} is not JSON") from None
        if not isinstance(schema, dict):
            raise DecodeError(f"schema id {id} is not of a record")
        return schema

    def _unexpected(self, status: int, answer: dict[str, Any]) -> RegistryUnavailable:
        text = answer.get("message", "no message")
        return RegistryUnavailable(f"{self.shown} answered {status} ({text}): are address, name and password right?")
