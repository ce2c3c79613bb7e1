"""Warm-up: how many messages a new source may send to a site on each day of its plan."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import NamedTuple

from postroad.shaping.limits import split

# 50, 100, 500, 1,000 and on, as SendGrid's schedule begins (twilio.com/docs/sendgrid, warm-up); then by a fifth or so a day:
# Google asks for a slow increase (support.google.com/mail/answer/81126), and 40 days is what Mailgun's and SendGrid's plans take.
DAYS = (
    50, 100, 500, 1_000, 1_500, 2_000, 2_500, 3_000, 4_000, 5_000,
    6_000, 7_000, 8_500, 10_000, 12_000, 14_000, 17_000, 20_000, 24_000, 28_000,
    33_000, 40_000, 47_000, 55_000, 65_000, 75_000, 90_000, 105_000, 125_000, 150_000,
    175_000, 205_000, 240_000, 285_000, 335_000, 395_000, 465_000, 550_000, 650_000, 770_000,
)  # fmt: skip
BOUNCES_MAX = 0.05  # hard bounces of what was sent: above a twentieth, providers take a list for bought
COMPLAINTS_MAX = 0.003  # Google's and Yahoo's sender requirements of 2024: never 0.3 %
SAMPLE_MIN = 100  # messages before a rate says something
EPOCH = datetime.date(1970, 1, 1)


class Progress(NamedTuple):
    """For people: day `day` of `days` (from 1; 0: not begun), what the site may get that day, what it has got."""

    day: int
    days: int
    allowance: int | None
    used: int

    def __str__(self) -> str:
        if self.allowance is None:
            return "warm"
        return f"day {self.day} of {self.days}, {self.used:,} of {self.allowance:,}"


@dataclass(frozen=True, slots=True)
class Plan:
    """`days`: messages to each site on the first, second, ... UTC day from `start`; behind the last the source is warm."""

    start: datetime.date
    days: tuple[int, ...] = DAYS
    bounces_max: float = BOUNCES_MAX
    complaints_max: float = COMPLAINTS_MAX

    def number(self, day: int) -> int:
        """Which day of the plan it is, from 0; below 0 before it. `day`: UTC days since 1970, as postroad.limits.DayUse."""
        return day - (self.start - EPOCH).days

    def allowance(self, day: int, shard: int = 0, shards: int = 1) -> int | None:
        """Messages that a shard of a site may get on a day; None: as many as the limits let through. 0 before the start."""
        number = self.number(day)
        if number < 0:
            return 0
        return split(self.days[number], shard, shards) if number < len(self.days) else None

    def paused(self, sent: int, bounced: int, complained: int) -> str:
        """Why the source rests, in words, by what it has sent lately; empty where it may go on."""
        if sent < SAMPLE_MIN:
            return ""
        if bounced > self.bounces_max * sent:
            return f"{bounced / sent:.2%} bounced, above {self.bounces_max:.2%}"
        if complained > self.complaints_max * sent:
            return f"{complained / sent:.2%} complained, above {self.complaints_max:.2%}"
        return ""

    def progress(self, day: int, used: int) -> Progress:
        """Of one site on a day."""
        number = min(max(self.number(day) + 1, 0), len(self.days))
        return Progress(number, len(self.days), self.allowance(day), used)
