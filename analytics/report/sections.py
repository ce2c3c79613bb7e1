"""The sections of the page, in their order. Each takes the facts and gives HTML, and says so where there is nothing to tell."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from analytics.report import charts
from analytics.report.facts import ENDS, Facts
from analytics.report.html import Column, Markup, legend, paragraph, picture, table
from analytics.report.text import count, lasting, moment, percent

NOT_ROUTED = "(ended before its site was known)"
END_WORDS = tuple((end, end) for end in ENDS if end != "delivered")


def unusual(facts: Facts) -> str:
    if not facts.anomalies:
        said = "No hour was far from the same hour of the four weeks before it, where there is a week of mail to compare with."
        return _section("What is unusual", paragraph(said))
    rows = sorted(
        facts.anomalies, key=lambda row: (-abs(row["messages"] - row["usual"]), row["hour"], row["site"], row["kind"])
    )
    return _section(
        "What is unusual",
        paragraph(
            "Hours in which a site's figure was more than twice or less than half of the mean of the same hour in the four weeks before. "
            "The greatest differences first."
        ),
        table(
            "Unusual hours",
            [Column("Hour, UTC"), Column("Site"), Column("What"), Column("Messages", True), Column("Usual", True)],
            [
                (moment(row["hour"]), row["site"], row["kind"], count(row["messages"]), count(row["usual"]))
                for row in rows
            ],
        ),
    )


def volumes(facts: Facts) -> str:
    drawn = picture(
        "volumes", "Volumes and ends over time",
        "Messages accepted, delivered, ended otherwise and put off in each step of the time; the table below has the figures.",
        lambda new, width: charts.volumes(facts, new, width),
        legend(("accepted", "accepted"), ("delivered", "delivered"), *_that_occur(facts), ("deferred", "put off (deferred)"), line="accepted"),
    )  # fmt: skip
    if not drawn:
        return _section("Volumes and ends over time", paragraph("Nothing was accepted, put off or ended."))
    kinds = ("accepted", "deferred", *(end for end in ENDS if facts.total(end)))
    rows = [(moment(row["at"]), *(count(row[kind]) for kind in kinds)) for row in facts.volumes]
    named = {"deferred": "Put off"}
    columns = [Column("From, UTC"), *(Column(named.get(kind, kind.capitalize()), True) for kind in kinds)]
    as_table = table("Messages in each step", columns, rows, most=len(rows))
    return _section(
        "Volumes and ends over time", drawn, f"<details><summary>The figures as a table</summary>{as_table}</details>"
    )


def sites(facts: Facts) -> str:
    rows = facts.ends_by_site
    if not rows:
        return _section("Sites", paragraph("Nothing ended."))
    bounds = ["0", *(f"{bound:.0%}".replace("%", "") for bound in charts.HEAT_BOUNDS)]
    classes = [f"{low} to {high} %" for low, high in pairwise(bounds)] + [f"{bounds[-1]} % and more"]
    return _section(
        "Sites",
        paragraph("A site is one operator of mailboxes: all MX hosts that it runs."),
        picture(
            "sites", "Sites", "Messages that ended at the greatest sites, and the share that was not delivered.",
            lambda new, width: charts.sites(facts, new, width),
        ),
        picture(
            "heat", "Not delivered, by site and time",
            "The share of messages that bounced or expired at each of the greatest sites over time, in five classes.",
            lambda new, width: charts.heat(facts, new, width),
            legend(*((f"heat-{number}", words) for number, words in enumerate(classes)), ("heat-none", f"under {charts.HEAT_FROM} messages")),
        ),
        table(
            "How mail ended, by site",
            [Column("Site"), Column("Ended", True), Column("Delivered", True), Column("Share", True), Column("Bounced", True),
             Column("Expired", True), Column("Other", True)],
            [
                (row["site"] or NOT_ROUTED, count(row["ended"]), count(row["delivered"]), percent(row["delivered"], row["ended"]),
                 count(row["bounced"]), count(row["expired"]), count(row["dropped"] + row["rejected"] + row["cancelled"]))
                for row in rows
            ],
        ),
    )  # fmt: skip


def reasons(facts: Facts) -> str:
    drawn = picture(
        "reasons", "Why messages did not arrive", "Messages by the reason of their end; bounced, dropped, rejected, expired or cancelled.",
        lambda new, width: charts.reasons(facts, new, width), legend(*_that_occur(facts)),
    )  # fmt: skip
    parts = [drawn or paragraph("Every message that ended was delivered." if facts.ended else "Nothing ended.")]
    for caption, found, number in (
        ("Bounces, with one reply of each", facts.bounce_reasons, "messages"),
        ("What sites put off, with one reply of each", facts.deferrals, "deferrals"),
    ):
        if found:
            columns = [
                Column("Site"),
                Column("Reason"),
                Column("Code"),
                Column(number.capitalize(), True),
                Column("A reply"),
            ]
            rows = [
                (row["site"], row["reason"], str(row.get("enhanced_code") or row.get("reply_code") or ""), count(row[number]), row["example"])
                for row in found
            ]  # fmt: skip
            parts.append(table(caption, columns, rows))
    return _section("Reasons", *parts)


def latency(facts: Facts) -> str:
    if not facts.latency:
        return _section("Time to delivery", paragraph("Nothing was delivered."))
    marks = ("p50_ms", "p95_ms", "p99_ms", "max_ms")
    return _section(
        "Time to delivery",
        paragraph("From accepted to the site's 250, retries and waiting for limits included. p95: 95 % took at most so long."),
        picture(
            "latency", "Time to delivery", "Share of deliveries by how long they took, with the median and the 95th and 99th percentile.",
            lambda new, width: charts.latency(facts, new, width),
        ),
        table(
            "Time to delivery, by site",
            [Column("Site"), Column("Delivered", True), Column("Median", True), Column("p95", True), Column("p99", True), Column("Longest", True)],
            [
                ("(all sites)" if number == 0 else row["site"], count(row["messages"]), *(lasting(row[mark]) for mark in marks))
                for number, row in enumerate(facts.latency)
            ],
        ),
    )  # fmt: skip


def reputation(facts: Facts) -> str:
    rows = [row for row in facts.sources if row["delivered"] or row["bounced"] or row["deferred"]]
    if not rows:
        return _section("Reputation of sources", paragraph("No source sent anything."))
    by_source = dict[str, dict[str, Any]]()
    for row in rows:
        into = by_source.setdefault(
            row["source"], {"source": row["source"], "delivered": 0, "bounced": 0, "deferred": 0, "complained": 0}
        )
        for kind in ("delivered", "bounced", "deferred", "complained"):
            into[kind] += row[kind]
    greatest = sorted(by_source.values(), key=lambda row: (-row["delivered"], row["source"]))
    met = sorted(rows, key=lambda row: (-(row["bounced"] + row["deferred"]), row["source"], row["site"]))
    columns = [
        Column("Delivered", True),
        Column("Bounced", True),
        Column("Put off", True),
        Column("Complaints", True),
        Column("Met, %", True),
    ]
    return _section(
        "Reputation of sources",
        paragraph("How sites answer each egress source (an address and its HELO name). Bounced: of delivered and bounced. Put off: of all answers."),
        picture(
            "sources", "Sources", "Bounced and put off, in percent, and complaints for 10,000 delivered, for each source.",
            lambda new, width: charts.sources(greatest, new, width),
        ),
        table(
            "Where sources met most bounces and deferrals",
            [Column("Source"), Column("Site"), *columns],
            [(row["source"], row["site"], *_answers(row)) for row in met if row["bounced"] + row["deferred"]],
        ),
    )  # fmt: skip


def _answers(row: dict[str, Any]) -> list[str]:
    bad = row["bounced"] + row["deferred"]
    return [count(row[kind]) for kind in ("delivered", "bounced", "deferred", "complained")] + [
        percent(bad, bad + row["delivered"])
    ]


def conservation(facts: Facts) -> str:
    total = facts.conservation[0] if facts.conservation else None
    if total is None or not (total["accepted"] or total["not_accepted"]):
        return _section("Conservation", paragraph("Nothing was accepted."))
    if total["two_ends"] or total["not_accepted"]:
        verdict = Markup(
            f'<span class="bad">The books do not balance</span>: {count(total["two_ends"])} messages have two ends, '
            f"{count(total['not_accepted'])} ended but were never accepted. <code>postroad audit</code> names them."
        )
    else:
        verdict = Markup(
            f'<span class="good">The books balance</span>: each of the {count(total["accepted"])} messages accepted in this time has one end '
            f"({count(total['ended'])}) or is still in flight ({count(total['in_flight'])})."
        )
    return _section(
        "Conservation",
        paragraph(verdict),
        picture(
            "conservation", "Conservation by tenant", "Messages accepted in the time by tenant: delivered, ended otherwise and in flight.",
            lambda new, width: charts.conservation(facts, new, width),
            legend(("delivered", "delivered"), ("rejected", "ended otherwise"), ("in-flight", "in flight")),
        ),
        table(
            "What became of what was accepted, by tenant",
            [Column("Tenant"), Column("Accepted", True), Column("Ended", True), Column("In flight", True), Column("Delivered", True),
             Column("Two ends", True), Column("Never accepted", True)],
            [
                ("(all tenants)" if number == 0 else row["tenant"],
                 *(count(row[kind]) for kind in ("accepted", "ended", "in_flight", "delivered", "two_ends", "not_accepted")))
                for number, row in enumerate(facts.conservation)
            ],
        ),
    )  # fmt: skip


def _that_occur(facts: Facts) -> list[tuple[str, str]]:
    return [(role, words) for role, words in END_WORDS if facts.total(role)]


def _section(title: str, *parts: str) -> str:
    return f"<section>\n<h2>{title}</h2>\n{chr(10).join(part for part in parts if part)}\n</section>"


SECTIONS: tuple[Callable[[Facts], str], ...] = (unusual, volumes, sites, reasons, latency, reputation, conservation)
