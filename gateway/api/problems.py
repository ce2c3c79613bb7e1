"""Errors of REST as RFC 9457 problem+json. The type of a problem is stable and short; `errors` names the fields (RFC 6901 pointers)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec

from postroad.checks import Problem as Broken

MEDIA_TYPE = "application/problem+json"
_AT = re.compile(r"(.*) - at `(?:key in )?\$(.*)`", re.DOTALL)
_FIELD = re.compile(r"(?:unknown|required) field `(.*)`", re.DOTALL)
TEXT_MAX = 500  # characters; what a client sent comes back in it

#: Where the rules of postroad.checks have their field.
FIELDS = {
    "sender": "/from", "sender-domain": "/from", "reply_to": "/reply_to", "subject": "/subject", "parts": "/text", "recipients": "/to",
    "tags": "/tags", "metadata": "/metadata", "times": "/expires_at", "dedupe-id": "/dedupe_id", "attachments": "/attachments",
    "header-size": "/raw", "size": "/attachments", "placeholders": "/text", "own-contents": "/to", "missing-variable": "/to",
}  # fmt: skip


class FieldError(msgspec.Struct):
    """One field that is wrong. `pointer`: as RFC 6901 has it; `detail`: what is wrong and what is wanted."""

    pointer: str
    detail: str


class ProblemBody(msgspec.Struct, omit_defaults=True):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str = ""
    errors: list[FieldError] = []


class Problem(Exception):
    """The answer to a request that is not done."""

    media_type = MEDIA_TYPE

    def __init__(
        self, status: int, kind: str, detail: str, *, errors: list[FieldError] | None = None, headers: Mapping[str, str] | None = None
    ):  # fmt: skip
        super().__init__(detail)
        self.status, self.kind, self.detail, self.errors = status, kind, detail[:TEXT_MAX], errors or []
        self.headers = dict(headers or {})

    def body(self) -> Any:
        """As it is sent."""
        return ProblemBody(
            f"urn:postroad:problem:{self.kind}", HTTPStatus(self.status).phrase, self.status, self.detail, self.errors
        )


def of_field(pointer: str, detail: str, *, status: int = 422, kind: str = "invalid") -> Problem:
    """A field is wrong."""
    return Problem(status, kind, f"{pointer}: {detail}", errors=[FieldError(pointer, detail[:TEXT_MAX])])


def of_rule(broken: Broken) -> Problem:
    """A rule of mail is broken (postroad.checks)."""
    pointer = FIELDS.get(broken.rule, "")
    found = of_field(pointer, broken.text) if pointer else Problem(422, "invalid", broken.text)
    found.kind = broken.rule if re.fullmatch(r"[a-z-]+", broken.rule) else "invalid"
    return found


def of_decoding(error: Exception) -> Problem:
    """A body or a query is not what the route takes."""
    if not isinstance(error, msgspec.ValidationError):
        return Problem(400, "not-json", f"the body is no JSON in UTF-8: {error}")
    text, path = str(error), ""
    if found := _AT.fullmatch(text):
        text, path = found[1], found[2]
    pointer = re.sub(r"\[(\d+|\.\.\.)\]", r"/\1", path).replace(".", "/").replace("///", "/*")
    if field := _FIELD.search(text):
        pointer += "/" + field[1].replace("~", "~0").replace("/", "~1")
    return of_field(pointer or "/", text, kind="wrong-field")


def unauthorized(detail: str) -> Problem:
    """Nobody, or somebody else than it says."""
    return Problem(401, "unauthorized", detail, headers={"WWW-Authenticate": 'Bearer realm="postroad"'})


def not_found(what: str) -> Problem:
    """There is none, or it is another tenant's: the two look the same."""
    return Problem(404, "not-found", f"no such {what}")
