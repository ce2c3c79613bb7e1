"""What a route is: a function with the types of its body, its query and its answer, from which OpenAPI is made (openapi.py)."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from starlette.requests import Request

from avro.records import ApiKey
from gateway.limits import Verdict

if TYPE_CHECKING:
    from gateway.api.door import Door

PAGE, PAGE_MAX = 100, 1_000


class Answer(NamedTuple):
    """What a route answers: `body` a struct or what msgspec encodes, bytes as they are, or chunks; None: nothing."""

    body: Any = None
    status: int = 200
    headers: Mapping[str, str] = {}
    media_type: str = "application/json"


@dataclass(slots=True)
class Call:
    """One request on its way through a route."""

    door: Door
    request: Request
    key: ApiKey
    body: Any = None
    query: Any = None
    params: dict[str, str] = field(default_factory=dict)

    @property
    def tenant(self) -> str:
        """Who calls."""
        return self.key["tenant"]

    @property
    def peer(self) -> str:
        """From where."""
        return self.request.client.host if self.request.client else ""


Handler = Callable[[Call], Awaitable[Answer]]


@dataclass(frozen=True)
class Route:
    """One route. `scope`: what a key needs for it, "" for nothing, None where no key is asked for; `body`: of JSON, read before the
    handler is called; `media`: types of bodies that the handler reads by itself; `answers`: the type of each success; `own_problem`: how it writes problems where it has a form of its own."""

    method: str
    path: str
    handler: Handler
    scope: str | None
    summary: str
    body: Any = None
    query: type | None = None
    media: Mapping[str, Any] = field(default_factory=dict)
    answers: Mapping[int, Any] = field(default_factory=dict)
    problems: tuple[int, ...] = ()
    answer_media: str = "application/json"
    own_problem: Any = None


class Routes:
    """Routes of a module, in the order in which they are looked at."""

    def __init__(self) -> None:
        self.all: list[Route] = []

    def add(
        self, method: str, path: str, scope: str | None, *, body: Any = None, query: type | None = None, status: int = 200,
        answer: Any = None, media: Mapping[str, Any] | None = None, problems: tuple[int, ...] = (), answer_media: str = "application/json", own_problem: Any = None,
    ) -> Callable[[Handler], Handler]:  # fmt: skip
        """Decorator."""

        def bind(handler: Handler) -> Handler:
            summary = (handler.__doc__ or "").strip().partition("\n\n")[0].replace("\n    ", " ")
            self.all.append(
                Route(method, path, handler, scope, summary, body, query, media or {}, {status: answer}, problems, answer_media, own_problem)
            )  # fmt: skip
            return handler

        return bind


def rate_headers(verdict: Verdict) -> dict[str, str]:
    """RateLimit as draft-ietf-httpapi-ratelimit-headers has it; Retry-After where it did not pass."""
    wait = max(1, math.ceil(verdict.wait_s))
    found = {"RateLimit": f'"default";r={verdict.left};t={wait}'}
    return found if verdict.passes else found | {"Retry-After": str(wait)}
