"""Named queries: queries/*.sql, each with a header that says what it answers, its parameters, columns and an example.

    run(warehouse, "ends_by_site", tenant="shop", since=datetime(2026, 1, 31, tzinfo=UTC))

Parameters that many have: `tenant` (default: all), `since` (default: seven days ago), `until` (default: no end). Times are
whole seconds; since is within, until is not.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from analytics.clickhouse import Warehouse
from analytics.sql import Rows, parameters, statements

FOLDER = Path(__file__).parent / "queries"
WINDOW = timedelta(days=7)


def names() -> list[str]:
    """Names of all queries, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.sql"))


def _text(name: str) -> str:
    if name not in names():
        raise ValueError(f"no query {name!r}; there are: {', '.join(names())}")
    return (FOLDER / f"{name}.sql").read_text(encoding="utf-8")


def describe(name: str) -> str:
    """The header of a query. Raises ValueError for an unknown name."""
    lines = _text(name).splitlines()
    return "\n".join(line[2:].strip() for line in lines if line.startswith("--"))


def summary(name: str) -> str:
    """What a query answers, in a sentence."""
    words = " ".join(describe(name).partition("Parameters:")[0].split())
    return re.split(r"(?<=\.) ", words.removeprefix(f"{name.capitalize()}: "))[0].rstrip(".")


def sql(name: str) -> str:
    """The statement of a query, with its parameters as `{name:Type}`. Raises ValueError for an unknown name."""
    return statements(_text(name))[0]


def read_params(name: str, given: Sequence[str]) -> dict[str, Any]:
    """Parameters written as `name=value`, as the query's types take them; items of an array are divided by commas.

    Raises ValueError for an unknown query or parameter, and for a value that is none of its type.
    """
    wanted, found = parameters(sql(name)), dict[str, Any]()
    for pair in given:
        key, equals, text = pair.partition("=")
        if not equals or key not in wanted:
            known = ", ".join(sorted(wanted))
            raise ValueError(
                f"{pair[:60]!r}: a parameter of {name} is written NAME=VALUE, where NAME is one of {known}"
            )
        found[key] = _value(key, wanted[key], text)
    return found


def _value(name: str, kind: str, text: str) -> Any:
    if kind.startswith("Array("):
        return [_value(name, kind[6:-1], item) for item in text.split(",")] if text else []
    try:
        return int(text) if "Int" in kind else float(text) if kind.startswith("Float") else text
    except ValueError:
        raise ValueError(f"parameter {name}: {text[:60]!r} is not a value of type {kind}") from None


def run(warehouse: Warehouse, name: str, **params: Any) -> Rows:
    """The answer of a named query. A time may be an ISO 8601 text with its zone.

    Raises ValueError for an unknown name, a parameter that the query has not, lacks or cannot take.
    """
    statement = sql(name)
    wanted = parameters(statement)
    defaults: dict[str, Any] = {
        "tenant": "", "site": "", "tag": "", "since": datetime.now(UTC) - WINDOW, "until": datetime.fromtimestamp(2**32 - 1, UTC),
    }  # fmt: skip
    given = {
        key: moment(value) if "DateTime" in wanted.get(key, "") and isinstance(value, str) else value
        for key, value in params.items()
    }
    asked = {key: value for key, value in defaults.items() if key in wanted} | given
    since, until = asked.get("since"), asked.get("until")
    if isinstance(since, datetime) and isinstance(until, datetime) and since.tzinfo and until.tzinfo and since > until:
        raise ValueError(f"since, {since:%Y-%m-%d %H:%M}, is after until, {until:%Y-%m-%d %H:%M}")
    return warehouse.query(statement, asked)


def moment(text: str) -> datetime:
    """A time in ISO 8601; a date alone is its midnight, UTC. Raises ValueError."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a time: write one as 2026-01-31T10:00:00Z") from None
    return found.replace(tzinfo=UTC) if len(text) == len("2026-01-31") else found
