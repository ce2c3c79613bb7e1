"""The pictures of the report. Each takes the facts and a maker of figures (analytics/report/svg.py), its width in pixels, and gives a
figure, or None where there is nothing to draw. Legends are the page's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from analytics.report.facts import DAY, ENDS, Facts
from analytics.report.svg import colour
from analytics.report.text import count, lasting, percent, short, shown

New = Callable[[float, float], Figure]
SITES, REASONS, SOURCES, TENANTS = 12, 12, 12, 10  # that a picture shows
NARROW = 500
ROW = 22  # pixels of a bar and what is around it
HEAT_FROM = 10  # messages of a cell, under which a share says nothing
HEAT_BOUNDS = (0.01, 0.02, 0.05, 0.20)  # shares not delivered
UNDELIVERED = tuple(end for end in ENDS if end != "delivered")
_LATENCIES = (10, 100, 1000, 10_000, 60_000, 600_000, 3_600_000, 36_000_000, 360_000_000)


def volumes(facts: Facts, new: New, width: float) -> Figure | None:
    """Three panels over time: accepted and delivered, the other ends, what was put off."""
    if not any(any(row[kind] for kind in ("accepted", "deferred", *ENDS)) for row in facts.volumes):
        return None
    figure = new(width, 470)
    first, second, third = figure.subplots(3, 1, sharex=True, height_ratios=(5, 3, 2))
    at, wide = _times(facts), facts.step / DAY
    edges = [*at, at[-1] + wide]
    per = {1: "an hour", 6: "per 6 hours"}.get(round(facts.step / DAY * 24), "a day")
    first.set_title(f"Accepted and delivered, messages {per}")
    first.stairs([row["delivered"] for row in facts.volumes], edges, fill=True, color=colour("delivered"))
    first.stairs(
        [row["accepted"] for row in facts.volumes], edges, color=colour("accepted"), linewidth=1.4, baseline=None
    )
    second.set_title(f"Other ends, messages {per}")
    bottom = np.zeros(len(at))
    for end in UNDELIVERED:
        heights = np.array([row[end] for row in facts.volumes], float)
        if heights.any():
            second.bar(at, heights, wide * 0.86, bottom, align="edge", color=colour(end))
            bottom += heights
    third.set_title(f"Put off by sites, messages {per}")
    third.bar(at, [row["deferred"] for row in facts.volumes], wide * 0.86, align="edge", color=colour("deferred"))
    for axes in (first, second, third):
        _counts(axes)
    _time_axis(third, edges, width)
    return figure


def sites(facts: Facts, new: New, width: float) -> Figure | None:
    """Messages that ended and the share that was not delivered, the greatest sites first."""
    rows = [row for row in facts.ends_by_site if row["site"]][:SITES]
    if not rows:
        return None
    figure = new(width, 40 + ROW * len(rows))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1, 1) if width < NARROW else (3, 2))
    names = [shown(row["site"], 14 if width < NARROW else 30) for row in rows]
    _bars(left, names, [row["ended"] for row in rows], "delivered", short, "Ended, messages")
    lost = [row["ended"] - row["delivered"] for row in rows]
    labels = [percent(part, row["ended"]) for part, row in zip(lost, rows, strict=True)]
    shares = [part / row["ended"] for part, row in zip(lost, rows, strict=True)]
    _bars(right, names, shares, "bounced", labels, "Not delivered, %")
    return figure


def heat(facts: Facts, new: New, width: float) -> Figure | None:
    """Each of the greatest sites over time: which share of what ended there was not delivered, in five classes."""
    names = [row["site"] for row in facts.ends_by_site if row["site"]][:SITES]
    if not names or not facts.deliverability:
        return None
    figure = new(width, 62 + ROW * len(names))
    axes = figure.subplots()
    axes.set_title("Not delivered, by site and time")
    wide, place = facts.step / DAY, {name: number for number, name in enumerate(names)}
    cells = dict[tuple[int, str], list[tuple[float, float]]]()
    for row in facts.deliverability:
        if row["site"] in place:
            cells.setdefault((place[row["site"]], heat_class(row)), []).append((date2num(row["at"]), wide * 0.94))
    for (line, role), spans in sorted(cells.items()):
        axes.broken_barh(spans, (line - 0.44, 0.88), facecolor=colour(role), linewidth=0)
    _names(axes, [shown(name, 14 if width < NARROW else 30) for name in names])
    at = _times(facts)
    _time_axis(axes, [*at, at[-1] + wide], width)
    return figure


def heat_class(row: dict[str, Any]) -> str:
    """The colour of a site's step."""
    ended = row["delivered"] + row["bounced"] + row["expired"]
    if ended < HEAT_FROM:
        return "heat-none"
    return f"heat-{sum((row['bounced'] + row['expired']) / ended >= bound for bound in HEAT_BOUNDS)}"


def reasons(facts: Facts, new: New, width: float) -> Figure | None:
    """Why messages did not arrive; the colour is the end."""
    rows = [row for row in facts.ends_by_reason if row["kind"] != "delivered"][:REASONS]
    if not rows:
        return None
    figure = new(width, 40 + ROW * len(rows))
    axes = figure.subplots()
    names = [shown(row["reason"] or row["kind"], 18 if width < NARROW else 40) for row in rows]
    _bars(axes, names, [row["messages"] for row in rows], [row["kind"] for row in rows], count, "Messages")
    return figure


def latency(facts: Facts, new: New, width: float) -> Figure | None:
    """How long deliveries took, four bars an octave of time; lines at the median, 95 and 99 %."""
    if not facts.distribution or not facts.latency:
        return None
    figure = new(width, 250)
    axes = figure.subplots()
    edges, shares = spread(facts.distribution)
    axes.stairs(shares, edges, fill=True, color=colour("delivered"))
    axes.set_xscale("log")
    axes.set_title("Deliveries by time since accepted, %")
    axes.set_ylim(0, max(shares) * 1.18)
    for number, name in enumerate(("p50", "p95", "p99")):
        value = facts.latency[0][f"{name}_ms"]
        if edges[0] <= value <= edges[-1]:
            axes.axvline(value, color=colour("ink"), linewidth=1, ymax=0.98 - 0.1 * number)
            right = np.log(value / edges[0]) < 0.7 * np.log(edges[-1] / edges[0])
            axes.annotate(
                f"{name} {lasting(value)}", (value, 0.98 - 0.1 * number), xycoords=("data", "axes fraction"), va="top",
                xytext=(4 if right else -4, 0), textcoords="offset points", ha="left" if right else "right",
            )  # fmt: skip
    ticks = [tick for tick in _LATENCIES if edges[0] <= tick <= edges[-1]] or [round(edges[0]), round(edges[-1])]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: lasting(value)))
    axes.set_xlabel("from accepted to delivered (logarithmic)")
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.grid(axis="y")
    return figure


def spread(distribution: Sequence[dict[str, Any]]) -> tuple[list[float], list[float]]:
    """Edges (ms) of bars of a quarter of an octave, and the percent of all deliveries in each; deliveries of a bin lie evenly in it."""
    bins = [(max(row["from_ms"], 1), max(row["below_ms"], 2), row["deliveries"]) for row in distribution]
    known, below = list[float](), list[float]()
    reached = 0
    for begin, end, found in bins:
        known += [begin, end]
        below += [reached, reached + found]
        reached += found
    first, last = np.floor(4 * np.log2(bins[0][0])), np.ceil(4 * np.log2(bins[-1][1]))
    edges = 2 ** (np.arange(first, last + 1) / 4)
    shares = np.diff(np.interp(edges, known, below)) / reached * 100
    return [float(edge) for edge in edges], [float(share) for share in shares]


def sources(rows: Sequence[dict[str, Any]], new: New, width: float) -> Figure | None:
    """How sites answer each egress source; `rows` are sums by source."""
    rows = rows[:SOURCES]
    if not rows:
        return None
    gap = "\n" if width < NARROW else " "  # a title is as wide as its panel
    figure = new(width, 56 + ROW * len(rows))
    panels = figure.subplots(1, 3, sharey=True)
    names = [shown(row["source"], 10 if width < NARROW else 24) for row in rows]
    for axes, kind, of, times, title in (
        (panels[0], "bounced", ("delivered", "bounced"), 100, f"Bounced,{gap}%"),
        (panels[1], "deferred", ("delivered", "bounced", "deferred"), 100, f"Put off,{gap}%"),
        (panels[2], "complained", ("delivered",), 10_000, f"Complaints{gap}per 10,000"),
    ):
        shares = [times * row[kind] / max(1, sum(row[name] for name in of)) for row in rows]
        _bars(axes, names, shares, kind, lambda share: f"{share:.1f}" if share else "0", title)
    return figure


def conservation(facts: Facts, new: New, width: float) -> Figure | None:
    """What was accepted in the window by tenant: delivered, ended otherwise, in flight."""
    rows = [row for row in facts.conservation[1:] if row["accepted"]][:TENANTS]
    if not rows:
        return None
    figure = new(width, 40 + ROW * len(rows))
    axes = figure.subplots()
    names = [shown(row["tenant"], 14 if width < NARROW else 30) for row in rows]
    begun = np.zeros(len(rows))
    for role, values in (
        ("delivered", [row["delivered"] for row in rows]),
        ("rejected", [max(0, row["ended"] - row["delivered"]) for row in rows]),
        ("in-flight", [row["in_flight"] for row in rows]),
    ):
        axes.barh(range(len(rows)), values, 0.68, begun, color=colour(role))
        begun += np.array(values)
    _names(axes, names)
    _ended_with(axes, begun, [count(row["accepted"]) for row in rows])
    axes.set_title("Accepted, messages")
    return figure


def _times(facts: Facts) -> list[float]:
    return [float(date2num(row["at"])) for row in facts.volumes]


def _counts(axes: Axes) -> None:
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10], integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axes.set_ylim(0, None if axes.dataLim.ymax > 0 else 1)
    axes.grid(axis="y")


def _time_axis(axes: Axes, edges: Sequence[float], width: float) -> None:
    axes.set_xlim(edges[0], edges[-1])
    locator = AutoDateLocator(minticks=3, maxticks=6 if width < NARROW else 9)
    formatter = ConciseDateFormatter(
        locator, formats=["%Y", "%b", "%-d %b", "%H:%M", "%H:%M", "%H:%M"],
        zero_formats=["", "%Y", "%-d %b", "%-d %b", "%H:%M", "%H:%M"], show_offset=False,
    )  # fmt: skip
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(formatter)
    axes.set_xlabel("time, UTC")


def _names(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    for label in axes.get_yticklabels():
        label.set_color(colour("ink"))


def _bars(
    axes: Axes,
    names: Sequence[str],
    values: Sequence[float],
    roles: str | Sequence[str],
    labels: Callable[[float], str] | Sequence[str],
    title: str,
) -> None:
    """Bars with their values at their ends, in place of an axis."""
    colours = colour(roles) if isinstance(roles, str) else [colour(role) for role in roles]
    axes.barh(range(len(names)), values, 0.68, color=colours)
    _names(axes, names)
    _ended_with(axes, values, [labels(value) for value in values] if callable(labels) else labels)
    axes.set_title(title)


def _ended_with(axes: Axes, values: Sequence[float] | np.ndarray[Any, Any], labels: Sequence[str]) -> None:
    for line, (value, label) in enumerate(zip(values, labels, strict=True)):
        axes.annotate(label, (value, line), (3, 0), textcoords="offset points", va="center", color=colour("muted"))
    axes.set_xlim(0, max([*values, 0]) * 1.25 or 1)
    axes.xaxis.set_major_locator(NullLocator())
    axes.spines["bottom"].set_visible(False)
    axes.axvline(0, color=colour("rule"), linewidth=1)
