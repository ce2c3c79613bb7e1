"""The ASGI application: who calls, within which rate, with which body; then the route; then the answer or its problem."""

from __future__ import annotations

import errno
import logging
from collections.abc import AsyncIterator, Iterable
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route as Mounted
from starlette.types import Receive, Scope, Send

from avro.records import ApiKey
from gateway.api import bodies, openapi
from gateway.api.door import Door
from gateway.api.problems import Problem, of_decoding, unauthorized
from gateway.api.routes import Answer, Call, Route, rate_headers
from gateway.identity import Refused
from gateway.inbound import Unavailable
from postroad import keys
from postroad.content import ContentUnavailable

log = logging.getLogger(__name__)

BODY_MAX = 1 << 20  # bytes of a JSON body that is not a mail
BEARER = "bearer "
ANYBODY: ApiKey = {"key_id": "", "tenant": "", "hash": "", "scopes": [], "created_at": 0}

UNAVAILABLE = Problem(503, "unavailable", "it cannot be done now; try again later", headers={"Retry-After": "5"})
FAILED = Problem(500, "failed", "an error of this host; nothing is known of what it did: ask with your Idempotency-Key")

_encode = msgspec.json.Encoder().encode


class Endpoint:
    """One route as Starlette takes it."""

    def __init__(self, door: Door, route: Route) -> None:
        self._door, self._route = door, route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request, limited = Request(scope, receive), dict[str, str]()
        try:
            call = await self._call(request, limited)
            response = _response(await self._route.handler(call), limited)
        except Problem as problem:
            response = shown(problem, limited)
        except (Unavailable, ContentUnavailable) as error:
            log.warning("%s %s: %s", self._route.method, self._route.path, error)
            response = shown(UNAVAILABLE, limited)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            log.error("%s %s: no room for what comes: %s", self._route.method, self._route.path, error.strerror)
            response = shown(UNAVAILABLE, limited)
        except Exception as error:  # the path as it is declared: the one that was asked for may name an address
            log.error("%s %s failed", self._route.method, self._route.path, exc_info=error)
            response = shown(FAILED, limited)
        count = f"{self._route.method} {self._route.path} {response.status_code}"
        self._door.counts[count] = self._door.counts.get(count, 0) + 1
        await response(scope, receive, send)

    async def _call(self, request: Request, limited: dict[str, str]) -> Call:
        """Raises Problem."""
        door, route = self._door, self._route
        if route.scope is None:
            call = Call(door, request, ANYBODY, params=request.path_params)
        else:
            call = Call(door, request, await self._signed_in(request), params=request.path_params)
            verdict = door.limits.take(f"t:{call.tenant}", f"k:{call.key['key_id']}")
            limited.update(rate_headers(verdict))
            if not verdict.passes:
                raise Problem(429, "too-many", "more requests than this key or tenant may send")
            if route.scope and not keys.may(call.key, route.scope):
                raise Problem(403, "forbidden", f"this key has not the scope {route.scope}")
        if route.query is not None:
            try:
                call.query = msgspec.convert(dict(request.query_params), route.query, strict=False)
            except msgspec.ValidationError as error:
                raise of_decoding(error) from None
        if route.body is not None:
            raw = await bodies.small(request, BODY_MAX, door.settings.api_timeout_s)
            call.body = bodies.json(raw, route.body)
        return call

    async def _signed_in(self, request: Request) -> ApiKey:
        presented = request.headers.get("authorization", "")
        if presented[: len(BEARER)].lower() != BEARER:
            raise unauthorized("say who you are: Authorization: Bearer pr_live_...")
        try:
            peer = request.client.host if request.client else ""
            return await self._door.identity.key_of(presented[len(BEARER) :].strip(), peer)
        except Refused as error:
            raise unauthorized(str(error)) from None


def shown(problem: Problem, headers: dict[str, str] | None = None) -> Response:
    """A problem as it is sent."""
    return Response(_encode(problem.body()), problem.status, {**(headers or {}), **problem.headers}, problem.media_type)


def _response(answer: Answer, headers: dict[str, str]) -> Response:
    body, headers = answer.body, {**headers, **answer.headers}
    if body is None:
        return Response(b"", answer.status, headers)
    if isinstance(body, AsyncIterator):
        return StreamingResponse(body, answer.status, headers, answer.media_type)
    return Response(body if isinstance(body, bytes) else _encode(body), answer.status, headers, answer.media_type)


def application(door: Door, routes: Iterable[Route]) -> Starlette:
    """The application of a door."""
    routes = list(routes)
    described = _encode(openapi.describe(routes))

    async def description(request: Request) -> Response:
        return Response(described, media_type="application/json")

    async def alive(request: Request) -> Response:
        return Response(b"ok\n", media_type="text/plain")

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        name = HTTPStatus(error.status_code).phrase
        problem = Problem(
            error.status_code, name.lower().replace(" ", "-"), f"{request.method} {request.url.path[:200]}: {name}"
        )
        return shown(problem, dict(error.headers or {}))

    async def failed(request: Request, error: Exception) -> Response:
        log.error("a request failed", exc_info=error)
        return shown(FAILED)

    mounted: list[Any] = [Mounted(one.path, Endpoint(door, one), methods=[one.method]) for one in routes]
    mounted += [Mounted("/openapi.json", description), Mounted("/healthz", alive)]
    handlers: dict[Any, Any] = {HTTPException: refused, Exception: failed}
    return Starlette(routes=mounted, exception_handlers=handlers)
