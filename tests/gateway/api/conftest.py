"""REST without Kafka and without a socket: what is written lies in lists, requests go straight into the application."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.accept import Acceptor, ids_of
from gateway.api import all_routes
from gateway.api.app import application
from gateway.api.door import Door
from gateway.idempotency import Idempotency, Memory
from gateway.identity import Identity
from gateway.inbound import Unavailable
from gateway.jobs import Jobs
from gateway.limits import Limits
from gateway.suppressed import Suppressed
from gateway.writer import TooLarge
from postroad import keys
from postroad.content import Contents
from postroad.intake import distinct
from postroad.settings import Settings
from topics.catalogue import (
    BROADCASTS,
    DOMAIN_CLAIMS,
    EVENTS,
    IDEMPOTENT_USES,
    IN_FORCE,
    JOBS,
    KEYS,
    SUBMISSIONS,
    WEBHOOKS,
)
from topics.catalogue import TENANTS as TENANTS_TOPIC
from topics.client import Place
from topics.codec import Codec

NOW = 1_790_000_000_000
TENANTS = {
    name: {"tenant": name, "domains": [{"domain": f"{name}.test", "return_path": f"b.{name}.test"}], "active": True}
    for name in ("acme", "other")
}


class Log:
    """In place of Kafka: every record is encoded, so what does not fit its schema fails."""

    def __init__(self):
        self.records, self.heard, self.away, self.now = defaultdict(list), defaultdict(list), False, NOW

    async def send(self, topic, value, headers=()):
        if self.away:
            raise Unavailable("Kafka is away")
        raw = Codec(topic.schema).encode(value)
        if len(raw) > topic.max_bytes:
            raise TooLarge(f"{len(raw)} bytes")
        return self._append(topic, topic.key(value), Codec(topic.schema).decode(raw), headers)

    async def delete(self, topic, key):
        return self._append(topic, key.decode(), None)

    def _append(self, topic, key, value, headers=()):
        self.now += 1
        record = SimpleNamespace(
            partition=0, offset=len(self.records[topic]), timestamp=self.now, key=key.encode(), headers=list(headers)
        )
        self.records[topic].append((key, value, record))
        for hear in self.heard[topic]:
            hear(record, value)
        return Place(0, record.offset, record.timestamp)

    async def reached(self, partition, offset):
        return None

    def values(self, topic):
        return [value for _, value, _ in self.records[topic]]


class Looked:
    """In place of gateway.lookup: looks in the log."""

    def __init__(self, log):
        self.log = log

    async def submission(self, tenant, message_id):
        for topic in (SUBMISSIONS, BROADCASTS):
            for key, value, record in self.log.records[topic]:
                ids = ids_of(value, Place(0, record.offset, record.timestamp))
                if key == tenant and message_id in ids:
                    return value, distinct(value["recipients"])[ids.index(message_id)]["address"]
        return None

    async def find(self, tenant, submission_id, since):
        return (await self.written(tenant, submission_id, since)).get(submission_id)

    async def written(self, tenant, prefix, since):
        return {
            value["submission_id"]: Place(0, record.offset, record.timestamp)
            for topic in (SUBMISSIONS, BROADCASTS)
            for key, value, record in self.log.records[topic]
            if key == tenant and value["submission_id"].startswith(prefix)
        }

    async def each(self, topic, key, since, take):
        for known, value, record in self.log.records[topic]:
            if known == key and record.timestamp >= since:
                take(value)

    async def events(self, message_id, since):
        return [value for key, value, _ in self.log.records[EVENTS] if key == message_id and value["at"] >= since]


class Reply:
    """An answer."""

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        return json.loads(self.body)


def _follow(known, record, value):
    key = record.key.decode()
    if value is None:
        known.pop(key, None)
    else:
        known[key] = value


class Rig:
    """A door, its log, and a client. `key`, `stranger`: secrets of acme and of other with every scope."""

    def __init__(self, folder, **settings):
        self.log, self.warehouse, self.waited = Log(), None, []
        self.followed, self.tenants, self.webhooks, self.claims, self.dns = (
            {},
            dict(TENANTS),
            {},
            {},
            lambda name, kind: (),
        )
        for topic, known in (
            (KEYS, self.followed),
            (TENANTS_TOPIC, self.tenants),
            (WEBHOOKS, self.webhooks),
            (DOMAIN_CLAIMS, self.claims),
        ):
            self.log.heard[topic].append(partial(_follow, known))
        self.settings = Settings(**{"content_url": (folder / "content").as_uri(), **settings})
        self.contents = Contents(self.settings.content, cache_bytes=0)
        self.folder = folder
        self.key, self.stranger = self.make("acme"), self.make("other")
        self.door = self.replica()
        self.app = application(self.door, all_routes())

    def make(self, tenant, scopes=keys.SCOPES, **more):
        key, secret = keys.make(tenant, scopes, NOW - 1, **more)
        self.followed[key["key_id"]] = key
        return secret

    def replica(self):
        looked, memory = Looked(self.log), Memory()
        self.log.heard[IDEMPOTENT_USES].append(memory.hear)
        door = Door(
            self.settings, self.tenants, self.followed, self.webhooks, self.log, Acceptor(self.log, self.contents), self.contents, looked, self.warehouse,
            self.folder / "spool", Identity(self.followed, self.tenants, ["s" * 40], clock=lambda: self.log.now / 1000, sleep=self.waited.append),
            Limits(lambda subject: 1_000.0, clock=lambda: self.log.now / 1000), now=lambda: self.log.now,
        )  # fmt: skip
        door.jobs, door.suppressions, door.claims, door.dns = (
            Jobs("r1", self.log, self.log),
            Suppressed(),
            self.claims,
            lambda: self.dns,
        )
        door.suppressions.ready = True
        self.log.heard[JOBS].append(door.jobs.hear)
        self.log.heard[IN_FORCE].append(door.suppressions.hear)
        door.idempotency = Idempotency(self.log, self.log, memory, looked.find, door.now)
        return door

    async def ask(self, method, path, body=None, *, key=None, headers=None, raw=None, kind=None, app=None):
        """The answer to a request; `body`: sent as JSON, `raw`: as it is."""
        key = self.key if key is None else key
        sent = raw if raw is not None else b"" if body is None else json.dumps(body).encode()
        given = {"content-type": kind or "application/json", "content-length": str(len(sent))}
        given |= {"authorization": f"Bearer {key}"} if key else {}
        given |= {name.lower(): value for name, value in (headers or {}).items()}
        path, _, query = path.partition("?")
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "path": path, "raw_path": path.encode(),
            "query_string": query.encode(), "root_path": "", "scheme": "http", "client": ("192.0.2.1", 1234), "server": ("test", 80),
            "headers": [(name.encode(), str(value).encode("latin-1")) for name, values in given.items()
                        for value in (values if isinstance(values, list) else [values])],
        }  # fmt: skip
        coming = [{"type": "http.request", "body": sent[at : at + 65536], "more_body": at + 65536 < len(sent)}
                  for at in range(0, max(len(sent), 1), 65536)]  # fmt: skip
        answered: list[dict[str, Any]] = []
        done = asyncio.Event()

        async def receive():
            if not coming:
                await done.wait()  # a client that reads its answer
                return {"type": "http.disconnect"}
            return coming.pop(0)

        async def send(message):
            answered.append(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                done.set()

        await (app or self.app)(scope, receive, send)
        headers = {name.decode(): value.decode() for name, value in answered[0]["headers"]}
        return Reply(answered[0]["status"], headers, b"".join(one.get("body", b"") for one in answered[1:]))


@pytest.fixture
def rig(tmp_path):
    return Rig(tmp_path)


@pytest.fixture
def mail():
    return {"from": "Ann <ann@acme.test>", "to": ["bob@there.test", {"address": "carol@there.test", "name": "Carol"}],
            "subject": "Hello", "text": "Hi", "tags": ["t"], "metadata": {"order": "1"}}  # fmt: skip
