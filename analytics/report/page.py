"""The page: headline figures in plain words, then a section for each question. Everything from data goes through analytics/report/text.py."""

from __future__ import annotations

import html
from pathlib import Path

from analytics.report.facts import DAY, ENDS, Facts
from analytics.report.html import Markup, paragraph
from analytics.report.sections import SECTIONS
from analytics.report.text import count, lasting, moment, percent, shown, span, told

STYLE = Path(__file__).parent / "style.css"
NOTABLE, NOTABLY = 10, 1.5  # messages that a site must have lost, and times the share of all, to be named
# Nothing may be loaded or run, whatever a stranger wrote into a reply.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def page(facts: Facts) -> str:
    """The whole page. The same facts give the same text."""
    whose = f"tenant {facts.tenant}" if facts.tenant else "all tenants"
    title = f"Mail report, {whose}, {moment(facts.since)} to {moment(facts.until)} UTC"
    body = "\n".join(section(facts) for section in SECTIONS)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{html.escape(shown(title))}</title>
<style>
{STYLE.read_text(encoding="utf-8")}</style>
</head>
<body>
<main>
<h1>Mail report: {"tenant " + told(facts.tenant) if facts.tenant else "all tenants"}</h1>
<p class="quiet">{moment(facts.since)} to {moment(facts.until)} UTC ({span(facts.until - facts.since)}, whole hours)</p>
{_headline(facts)}
{body}
</main>
</body>
</html>
"""


def _headline(facts: Facts) -> str:
    if not facts.ended and not facts.total("accepted"):
        return paragraph("No mail was accepted or ended in this time.")
    delivered, bounced = facts.total("delivered"), facts.total("bounced")
    complained = facts.total("complained")
    books = facts.conservation[0] if facts.conservation else {}
    tiles = [
        (count(facts.total("accepted")), "messages accepted"),
        (percent(delivered, facts.ended), f"delivered, of {count(facts.ended)} that ended"),
        (percent(bounced, facts.ended), f"bounced: {count(bounced)} messages"),
        (f"{10_000 * complained / delivered:.1f}" if delivered else "–", f"complaints for 10,000 delivered: {count(complained)}"),
    ]  # fmt: skip
    if facts.latency:
        every = facts.latency[0]
        tiles.append(
            (
                lasting(every["p50_ms"]),
                f"from accepted to delivered, the median; 95 % within {lasting(every['p95_ms'])}",
            )
        )
    if books:
        tiles.append((count(books["in_flight"]), "accepted in this time and still in flight"))
    return (
        '<ul class="tiles">' + "".join(f"<li><b>{html.escape(value)}</b><span>{html.escape(words)}</span></li>" for value, words in tiles)
        + "</ul>" + paragraph(_in_words(facts))
    )  # fmt: skip


def _in_words(facts: Facts) -> Markup:
    """What an analyst would say first."""
    said = []
    if facts.ended:
        others = [f"{count(facts.total(end))} {end}" for end in ENDS[1:] if facts.total(end)]
        of_others = f"; {', '.join(others)}" if others else ""
        said.append(
            f"Of {count(facts.ended)} messages that ended, {count(facts.total('delivered'))} were delivered{of_others}."
        )
        failed = [
            row for row in facts.ends_by_reason if row["kind"] not in ("delivered", "cancelled") and row["reason"]
        ]
        if failed:
            first = failed[0]
            said.append(
                f"The most frequent reason why mail did not arrive was {told(first['reason'], 60)} ({count(first['messages'])})."
            )
    if lost := _worst_site(facts):
        said.append(lost)
    if facts.total("deferred"):
        per = "day" if facts.step == DAY else "hour" if facts.step < DAY / 4 else "six hours"
        peak = max(facts.volumes, key=lambda row: (row["deferred"], row["at"]))
        said.append(
            f"Sites put off most mail in the {per} from {moment(peak['at'])}: {count(peak['deferred'])} messages."
        )
    return Markup(" ".join(said))


def _worst_site(facts: Facts) -> str:
    """The site that cost most messages beyond what it would at the share of all."""
    rows = [row for row in facts.ends_by_site if row["site"]]
    ended, lost = sum(row["ended"] for row in rows), sum(row["ended"] - row["delivered"] for row in rows)
    if len(rows) < 2 or not lost:
        return ""
    worst = max(rows, key=lambda row: (row["ended"] - row["delivered"] - row["ended"] * lost / ended, row["site"]))
    missing = worst["ended"] - worst["delivered"]
    if missing < NOTABLE or missing * ended < NOTABLY * lost * worst["ended"]:
        return ""
    share = percent(missing, worst["ended"])
    return f"{told(worst['site'], 60)} stands out among sites: {share} of {count(worst['ended'])} messages did not arrive there."
