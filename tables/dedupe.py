"""ingest: submissions of the last hours by the ids that make them repeats.

Key: tenant, NUL, "s" or "d", NUL, submission id or dedupe id. Value: the messages that came of it. Kept for the tenant's
window.
"""

from __future__ import annotations

from typing import TypedDict

from tables.values import shape, to_json
from topics.state import Table


class Known(TypedDict):
    """A submission that was accepted: its id, and (message id, recipient) of each of its messages."""

    submission_id: str
    messages: list[tuple[str, str]]


DEDUPE: Table[Known] = Table(1, "dedupe", to_json, shape(Known), expires=True)


def by_submission(tenant: str, submission_id: str) -> str:
    """Key of a submission id."""
    return f"{tenant}\0s\0{submission_id}"


def by_dedupe_id(tenant: str, dedupe_id: str) -> str:
    """Key of a dedupe id."""
    return f"{tenant}\0d\0{dedupe_id}"
