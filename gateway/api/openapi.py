"""OpenAPI 3.1 from the routes: what they take and answer is what their structs say."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any

import msgspec

from gateway.api.problems import MEDIA_TYPE, ProblemBody
from gateway.api.routes import Route

REFERENCE = "#/components/schemas/{name}"
ALWAYS = (401, 403, 429)
_PARAMETER = re.compile(r"\{(\w+)(?::\w+)?\}")


def describe(routes: Sequence[Route]) -> dict[str, Any]:
    """The document."""
    types = list(dict.fromkeys(_types(routes)))
    schemas, components = msgspec.json.schema_components(types, ref_template=REFERENCE)
    known = dict(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(_PARAMETER.sub(r"{\1}", route.path), {})[route.method.lower()] = _operation(
            route, known, components
        )
    return {
        "openapi": "3.1.0",
        "info": {"title": "Postroad", "version": "1", "description": "Mail by REST. Times are RFC 3339, errors RFC 9457."},
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "pr_live_..., or a token for it"}},
        },
        "security": [{"key": []}],
        "paths": paths,
    }  # fmt: skip


def _types(routes: Iterable[Route]) -> Iterable[Any]:
    yield ProblemBody
    for route in routes:
        yield from (
            one
            for one in (route.body, route.own_problem, *route.media.values(), *route.answers.values())
            if one is not None
        )


def _operation(route: Route, known: dict[Any, Any], components: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {"summary": route.summary, "operationId": route.handler.__name__}
    if route.scope is None:
        made["security"] = []
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PARAMETER.findall(route.path)
    ]
    if route.query is not None:
        (_,), found = msgspec.json.schema_components([route.query], ref_template=REFERENCE)
        fields = found[route.query.__name__]
        parameters += [
            {"name": name, "in": "query", "required": name in fields.get("required", []), "schema": schema}
            for name, schema in fields["properties"].items()
        ]
        components.update({name: schema for name, schema in found.items() if name != route.query.__name__})
    if parameters:
        made["parameters"] = parameters
    media = dict(route.media) or ({"application/json": route.body} if route.body is not None else {})
    if media:
        made["requestBody"] = {
            "required": True, "content": {kind: {"schema": known[one]} if one is not None else {} for kind, one in media.items()},
        }  # fmt: skip
    made["responses"] = _responses(route, known)
    return made


def _responses(route: Route, known: dict[Any, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for status, one in route.answers.items():
        answer: dict[str, Any] = {"description": HTTPStatus(status).phrase}
        if one is not None:
            answer["content"] = {route.answer_media: {"schema": known[one]}}
        elif route.answer_media != "application/json":
            answer["content"] = {route.answer_media: {}}
        found[str(status)] = answer
    takes = (400, 408, 413, 415, 422) if route.media else (400, 408, 413, 422) if route.body or route.query else (400,)
    for status in sorted({*takes, *route.problems, *(ALWAYS if route.scope is not None else ()), 503}):
        content = {MEDIA_TYPE: {"schema": known[ProblemBody]}}
        if route.own_problem is not None:
            content["application/json"] = {"schema": known[route.own_problem]}
        found[str(status)] = {"description": HTTPStatus(status).phrase, "content": content}
    return found
