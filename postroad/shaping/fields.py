"""The keys of shaping.toml, and what each takes."""

from __future__ import annotations

import datetime
import difflib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, TypeAlias, get_args

from avro.records import SmtpPhase
from postroad.shaping.automatic import ACTIONS, FACTOR_MIN, FOR_MAX_S, THRESHOLD_MAX
from postroad.shaping.limits import DAY_S, SHARDS_MAX, Tls
from postroad.shaping.patterns import Pattern, PatternError
from postroad.smtp_timeouts import SmtpTimeouts

COUNT_MAX = 1_000_000_000
UNLIMITED = "unlimited"
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": DAY_S}
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)\s*(ms|s|m|h|d)", re.ASCII)
_HOSTS = re.compile(r"(\*\.)?([a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}\.?", re.IGNORECASE | re.ASCII)


Check: TypeAlias = Callable[[Any], Any]


class Wrong(ValueError):
    """A value is not what its key takes; the text says what it takes."""


def whole(least: int, most: int = COUNT_MAX) -> Check:
    """A whole number."""

    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise Wrong(f"wants a whole number from {least} to {most:,}")
        return value

    return check


def number(least: float, most: float) -> Check:
    """A number."""

    def check(value: Any) -> float:
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
            or not least <= value <= most
        ):
            raise Wrong(f"wants a number from {least:g} to {most:g}")
        return float(value)

    return check


def or_unlimited(check: Check) -> Check:
    """None for the word "unlimited"."""

    def checked(value: Any) -> Any:
        try:
            return None if value == UNLIMITED else check(value)
        except Wrong as wrong:
            raise Wrong(f'{wrong}, or "{UNLIMITED}"') from None

    return checked


def duration(least: float, most: float) -> Check:
    """Seconds: a number, or text with a unit."""

    def check(value: Any) -> float:
        seconds = value
        if isinstance(value, str) and (found := _DURATION.fullmatch(value.strip())):
            seconds = float(found[1]) * _UNITS[found[2]]
        is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        if not is_number or not math.isfinite(seconds) or not least <= seconds <= most:
            raise Wrong(
                f'wants a time from {least:g} to {most:g} seconds: a number, or text such as "90s", "5m", "2h", "3d"'
            )
        return float(seconds)

    return check


def flag(value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise Wrong("wants true or false")
    return value


def word(allowed: tuple[str, ...]) -> Check:
    """One of some words."""

    def check(value: Any) -> str:
        if not isinstance(value, str) or value not in allowed:
            raise Wrong(f"wants one of {', '.join(allowed)}{did_you_mean(value, allowed)}")
        return value

    return check


def text(value: Any) -> str:
    """A name."""
    if not isinstance(value, str) or not value.strip() or len(value) > 200 or not value.isprintable():
        raise Wrong("wants text of 1 to 200 characters")
    return value


def each(check: Check, most: int = 1000) -> Check:
    """A list (one alone stands for itself), as a tuple."""

    def checked(value: Any) -> tuple[Any, ...]:
        items = value if isinstance(value, list) else [value]
        if not 1 <= len(items) <= most:
            raise Wrong(f"wants a list of 1 to {most} items")
        return tuple(check(item) for item in items)

    return checked


def hosts(value: Any) -> str:
    """`*.example.com`: that name and all below it; `mx.example.com`: that one."""
    if not isinstance(value, str) or len(value) > 253 or not _HOSTS.fullmatch(value):
        raise Wrong('wants names of MX hosts, such as "*.example.com" (with all below it) or "mx.example.com"')
    return value.lower().rstrip(".")


def pattern(value: Any) -> Pattern:
    """A pattern of a reply."""
    try:
        return Pattern(text(value))
    except PatternError as error:
        raise Wrong(f"{error} (patterns: postroad/shaping/patterns.py)") from None


def date(value: Any) -> datetime.date:
    """A day, UTC."""
    if isinstance(value, str):
        try:
            value = datetime.date.fromisoformat(value)
        except ValueError:
            pass
    if not isinstance(value, datetime.date) or isinstance(value, datetime.datetime):
        raise Wrong("wants a date such as 2026-11-30")
    return value


def table(keys: Mapping[str, Check]) -> Check:
    """A table within; its faults are told by `read`, this says only what it is."""

    def check(value: Any) -> Any:
        if not isinstance(value, dict):
            raise Wrong(f"wants a table with some of {', '.join(keys)}")
        return value

    check.keys = keys  # type: ignore[attr-defined]  # read by `Reader.table`
    return check


_SECONDS = duration(0.001, 7 * DAY_S)
TIMEOUTS = {each.name: duration(0.01, 3600) for each in fields(SmtpTimeouts) if each.name != "scale"}
RETRY = {"delays": each(_SECONDS, 100), "greylist": each(_SECONDS, 100), "jitter": number(0, 0.99)}
RATES = {
    "connections": whole(1, 10_000),
    "messages_per_second": number(0.000_1, 1_000_000),
    "messages_per_hour": or_unlimited(whole(1)),
    "messages_per_day": or_unlimited(whole(1)),
}
TENANT = {
    **RATES,
    "connections": or_unlimited(RATES["connections"]),
    "messages_per_second": or_unlimited(RATES["messages_per_second"]),
}
PLACE = {
    **RATES,
    "new_connections_per_minute": whole(1, 1_000_000),
    "messages_per_connection": whole(1, 1_000_000),
    "idle": duration(0.01, 3600),
    "tls": word(get_args(Tls)),
    "verify": flag,
    "broken_tls": duration(0, 365 * DAY_S),
    "timeouts": table(TIMEOUTS),
    "retry": table(RETRY),
    "retry_broadcast": table(RETRY),
}
SITE = {**PLACE, "shards": whole(1, SHARDS_MAX), "hosts": each(hosts)}
DEFAULT = {**PLACE, "shards": SITE["shards"]}
RULE = {
    "name": text,
    "off": flag,
    "reply": each(pattern, 50),
    "sites": each(text),
    "phases": each(word(get_args(SmtpPhase))),
    "threshold": whole(1, THRESHOLD_MAX),
    "window": duration(1, FOR_MAX_S),
    "action": word(ACTIONS),
    "factor": number(FACTOR_MIN, 0.99),
    "duration": duration(1, FOR_MAX_S),
}
PAUSED = {"bounces": number(0, 1), "complaints": number(0, 1)}
WARMUP = {"start": date, "days": each(whole(1), 400), "paused_above": table(PAUSED)}


def did_you_mean(value: Any, allowed: Any) -> str:
    """A hint, or nothing."""
    close = difflib.get_close_matches(str(value)[:100], list(allowed), n=1)
    return f"; did you mean {close[0]}?" if close else ""
