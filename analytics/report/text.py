"""Numbers and strangers' text for people. Whoever wrote a site, a reason or a reply, it ends as text on one line."""

from __future__ import annotations

import html
from datetime import datetime, timedelta

CUT = 160  # characters of a stranger's text


def shown(text: str, most: int = CUT) -> str:
    """One line without control characters, turned directions and lone surrogates; cut to `most` characters."""
    line = "".join(c if c.isprintable() else " " if c.isspace() else "\ufffd" for c in text[: 2 * most]).strip()
    return line if len(line) <= most else line[: most - 1] + "…"


def told(text: str, most: int = CUT) -> str:
    """The same in HTML, apart from the direction of what stands beside it."""
    return f"<bdi>{html.escape(shown(text, most))}</bdi>"


def count(number: float) -> str:
    """12,345."""
    return f"{number:,.0f}"


def short(number: float) -> str:
    """950, 1.2k, 34k, 5.6M: for axes."""
    for size, letter in ((1_000_000_000, "G"), (1_000_000, "M"), (1000, "k")):
        if abs(number) >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.3g}"


def percent(part: float, whole: float) -> str:
    """96.8 %; a dash where there is no whole, and never 100 % or 0 % of what is not quite."""
    if not whole:
        return "–"
    share = 100 * part / whole
    if 0 < share < 0.05:
        return "< 0.1\u202f%"
    if 99.95 <= share < 100:
        return "> 99.9\u202f%"
    return f"{share:.1f}\u202f%" if 0 < share < 100 else f"{share:.0f}\u202f%"


def lasting(ms: float) -> str:
    """250 ms, 1.4 s, 3.5 min, 2.1 h."""
    for below, size, unit in ((1000, 1, "ms"), (60_000, 1000, "s"), (3_600_000, 60_000, "min")):
        if ms < below:
            return f"{ms / size:.3g}\u202f{unit}"
    return f"{ms / 3_600_000:.3g}\u202fh"


def moment(at: datetime) -> str:
    """31 Jan 2026, 14:00."""
    return f"{at.day} {at:%b %Y, %H:%M}"


def span(window: timedelta) -> str:
    """24 hours, 30 days."""
    hours = round(window / timedelta(hours=1))
    if hours % 24 == 0 and hours > 24:
        return f"{hours // 24} days"
    return f"{hours} hours" if hours > 1 else "1 hour"
