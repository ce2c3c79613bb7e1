"""OpenAPI 3.1 from the code: valid, complete, and what it allows is answered as it says (schemathesis)."""

import asyncio
import re

import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, Phase, given, settings, strategies
from jsonschema_rs import Draft202012Validator
from schemathesis.specs.openapi.checks import positive_data_acceptance

from gateway.api import all_routes, openapi


def _resolved(schema, components):
    if isinstance(schema, dict):
        if "$ref" in schema:
            return schema["$ref"].removeprefix("#/components/schemas/") in components
        return all(_resolved(one, components) for one in schema.values())
    return all(_resolved(one, components) for one in schema) if isinstance(schema, list) else True


def test_every_route_is_described_with_a_summary_and_all_references_lead_somewhere():
    described = openapi.describe(all_routes())
    for route in all_routes():
        operation = described["paths"][route.path.replace(":path", "")][route.method.lower()]
        assert operation["summary"].endswith(".") and "\n" not in operation["summary"], route.path
        named = {one["name"] for one in operation.get("parameters", ()) if one["in"] == "path"}
        assert named == set(re.findall(r"\{(\w+)(?::path)?\}", route.path))
    assert _resolved(described, described["components"]["schemas"])
    for schema in described["components"]["schemas"].values():
        Draft202012Validator({**schema, "components": described["components"]})
    ids = [one["operationId"] for path in described["paths"].values() for one in path.values()]
    assert len(ids) == len(set(ids))


@pytest.fixture
async def server(rig):
    """The door at a port of its own."""
    server = uvicorn.Server(uvicorn.Config(rig.app, port=0, lifespan="off", log_level="warning", ws="none"))
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.005)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    await task


def _ask_all(url, key, examples):
    """Requests that the document allows, and some that it does not; a failed check is an exception."""
    asked = 0

    @settings(max_examples=examples, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(data=strategies.data())
    def ask(operation, data):
        nonlocal asked
        asked += 1
        case = data.draw(operation.as_strategy())
        # a schema does not say what a mail is: whose domain it comes from, which addresses are some
        case.call_and_validate(
            base_url=url, headers={"Authorization": f"Bearer {key}"}, excluded_checks=[positive_data_acceptance]
        )

    for found in schemathesis.openapi.from_url(f"{url}/openapi.json").get_all_operations():
        ask(found.ok())
    return asked


class NoRows:
    """A ClickHouse in which nothing has happened yet."""

    def query(self, sql, params=None):
        return self

    def dicts(self):
        return []


async def test_what_the_document_allows_is_answered_as_it_says(rig, server):
    rig.door.limits._rate_of, rig.door.warehouse = lambda subject: None, NoRows()
    asked = await asyncio.to_thread(_ask_all, server, rig.key, 4)
    assert asked > 100
