"""The client of a schema registry, against a scripted server; tests/contract/test_registry.py has a real one."""

import asyncio
import json

import pytest
from aiohttp import web

import avro
from topics.codec import DecodeError, RegistryUnavailable, SchemaRefused
from topics.registry import MISSING_S, HttpRegistry

SCHEMA = avro.load("Suppression")


class Server:
    """Answers as `answers` says, by method and path: (status, body); counts and keeps the requests."""

    def __init__(self):
        self.answers, self.requests, self.over = {}, [], asyncio.Event()

    async def answer(self, request):
        self.requests.append((request.method, request.path, await request.text(), request.headers.get("Authorization")))
        status, body = self.answers.get(
            (request.method, request.path), (404, {"error_code": 404, "message": "no such path"})
        )
        if status is None:
            await self.over.wait()
        return web.Response(status=status, text=body if isinstance(body, str) else json.dumps(body))


@pytest.fixture
async def server():
    server = Server()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield server
    server.over.set()
    await runner.cleanup()


NO_SCHEMA = (404, {"error_code": 40403, "message": "Schema not found"})
CONFIG = ("PUT", "/config/t-value")
VERSIONS = ("POST", "/subjects/t-value/versions")


async def test_a_schema_is_fetched_once(server):
    server.answers["GET", "/schemas/ids/3"] = 200, {"schema": json.dumps(SCHEMA)}
    registry = HttpRegistry(server.url + "/")
    assert await registry.schema(3) == await registry.schema(3) == SCHEMA
    assert len(server.requests) == 1


async def test_a_missing_id_is_asked_for_again_after_a_while(server):
    server.answers["GET", "/schemas/ids/3"] = NO_SCHEMA
    now = 100.0
    registry = HttpRegistry(server.url, clock=lambda: now)
    assert await registry.schema(3) is None
    server.answers["GET", "/schemas/ids/3"] = 200, {"schema": json.dumps(SCHEMA)}
    now += MISSING_S - 1
    assert await registry.schema(3) is None
    assert len(server.requests) == 1
    now += 1
    assert await registry.schema(3) == SCHEMA


@pytest.mark.parametrize(
    "answer",
    [
        (500, {"error_code": 50001, "message": "store"}),
        (429, "slow down"),
        (401, "<html>"),
        (404, "<html>"),
        (404, {"error_code": 404}),
        (404, "[]"),
    ],
)
async def test_an_answer_that_says_nothing_about_the_schema_is_temporary(server, answer):
    server.answers["GET", "/schemas/ids/3"] = answer
    with pytest.raises(RegistryUnavailable, match=f"answered {answer[0]}"):
        await HttpRegistry(server.url).schema(3)


async def test_nobody_there_and_no_answer_in_time(server):
    with pytest.raises(RegistryUnavailable, match="does not answer"):
        await HttpRegistry("http://127.0.0.1:9").schema(3)
    server.answers["GET", "/schemas/ids/3"] = None, ""
    with pytest.raises(RegistryUnavailable, match="does not answer"):
        await HttpRegistry(server.url, timeout_s=0.1).schema(3)


async def test_name_and_password_are_sent_and_not_shown(server):
    registry = HttpRegistry(server.url.replace("//", "//ann:secret@"))
    with pytest.raises(RegistryUnavailable) as found:
        await registry.schema(3)
    assert "secret" not in str(found.value)
    assert server.requests[0][3].startswith("Basic ")


@pytest.mark.parametrize(
    "answer",
    [
        {"schema": "{"},
        {"schema": "[" * 100_000},
        {"schema": '"string"'},
        {"schema": 5},
        {},
        {"schema": "{}", "schemaType": "PROTOBUF"},
        {"schema": "{}", "references": [{"name": "x", "subject": "y", "version": 1}]},
    ],
)
async def test_a_schema_that_is_no_avro_record_is_a_decode_error(server, answer):
    server.answers["GET", "/schemas/ids/3"] = 200, answer
    with pytest.raises(DecodeError, match="schema id 3"):
        await HttpRegistry(server.url).schema(3)


async def test_register_sets_compatibility_first(server):
    server.answers = {CONFIG: (200, {}), VERSIONS: (200, {"id": 12})}
    assert await HttpRegistry(server.url).register("t-value", SCHEMA) == 12
    assert [request[:2] for request in server.requests] == [CONFIG, VERSIONS]
    assert json.loads(server.requests[0][2]) == {"compatibility": "BACKWARD_TRANSITIVE"}
    assert json.loads(json.loads(server.requests[1][2])["schema"]) == SCHEMA


async def test_register_where_a_subject_must_have_a_schema_first(server):
    server.answers = {CONFIG: (404, {"error_code": 40401}), VERSIONS: (200, {"id": 12})}
    with pytest.raises(RegistryUnavailable):
        await HttpRegistry(server.url).register("t-value", SCHEMA)
    assert [request[:2] for request in server.requests] == [CONFIG, VERSIONS, CONFIG]


async def test_an_incompatible_schema_is_refused_for_good(server):
    server.answers = {CONFIG: (200, {}), VERSIONS: (409, {"error_code": 409, "message": "reader lacks a default"})}
    with pytest.raises(SchemaRefused, match="t-value: reader lacks a default"):
        await HttpRegistry(server.url).register("t-value", SCHEMA)


async def test_an_answer_without_an_id_is_not_a_success(server):
    server.answers = {CONFIG: (200, {}), VERSIONS: (200, {"id": None})}
    with pytest.raises(RegistryUnavailable):
        await HttpRegistry(server.url).register("t-value", SCHEMA)
