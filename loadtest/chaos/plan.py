"""What the chaos sends: submissions of 20 tenants, made one at a time from a seed, as many as have so many messages.

Most go to willing sites under 20 domains, so that every partition has work; the rest come to every other kind of end. Under
faults an end may differ from the one that a kind is made for (no DNS until it expired), so nothing here says which it is: what
must hold is that there is exactly one. A kind of submission is one function here and one line in KINDS.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

from avro.records import Recipient, Submission
from loadtest.demo.plan import MALFORMED, NAMES, WORDS

TENANTS = tuple(f"tenant-{n:02}" for n in range(20))
STRANGER = "nobody"
DOMAINS = tuple(f"d{n}.many.test" for n in range(20))
OTHERS = ("shop.test", "verein.test", "starttls.test", "bank.test", "half.test", "implicit.test")
SHARE_OF_OTHERS = 0.12  # of willing recipients
BROADCAST_MAX = 50
OVERSIZE = 40_000  # bytes of text, which then lies in the blob store
SOON_S = (3.0, 20.0)
HELD_S = 30.0  # of what is to be replaced before it leaves
EXPIRED_S = 15.0  # of what no site will ever take
REPEATED = (60, 300)  # submissions between a first and its repeat
PARAGRAPHS = 64


class Planned(NamedTuple):
    """One record for mail.submissions, `place` its number in the plan, from 0. Times are seconds from when it is written, 0 for none.
    Its recipients are distinct, so it has as many messages."""

    place: int
    kind: str
    submission: Submission
    send_in_s: float = 0.0
    expires_in_s: float = 0.0

    @property
    def messages(self) -> int:
        return len(self.submission["recipients"])


def sender(tenant: str) -> str:
    """The address that a tenant writes from."""
    return f"news@{tenant}.example"


def gone(n: int) -> str:
    """An address on the list of tenant number `n`, and of no other."""
    return f"gone{n}@{DOMAINS[n]}"


NEVER = tuple(f"never{n}@bank.test" for n in range(20))  # on the list of all tenants


class _Maker:
    def __init__(self, seed: int):
        self.dice = random.Random(seed)
        self.number = 0
        self.paragraphs = [
            "\n".join(" ".join(self.dice.choices(WORDS, k=12)) for _ in range(5)) for _ in range(PARAGRAPHS)
        ]

    def next(self) -> int:
        self.number += 1
        return self.number

    def anyone(self) -> str:
        """A recipient whose site takes mail, whom nobody else has."""
        others = self.dice.random() < SHARE_OF_OTHERS
        return f"reader{self.next()}@{self.dice.choice(OTHERS if others else DOMAINS)}"

    def submission(self, kind: str, recipients: list[Recipient], tenant: str = "") -> Submission:
        tenant = tenant or self.dice.choice(TENANTS)
        number = self.next()
        return {
            "tenant": tenant, "submission_id": f"{kind}-{number}", "sender": {"address": sender(tenant), "name": "Post Road"},
            "recipients": recipients, "subject": f"{self.dice.choice(WORDS)} {number}",
            "text": self.dice.choice(self.paragraphs) + f"\n{number}\n", "tags": [kind],
        }  # fmt: skip

    def to(self, kind: str, *addresses: str, tenant: str = "") -> Submission:
        return self.submission(kind, [{"address": one} for one in addresses], tenant)


#: A submission, and those that come later and repeat it.
Drawn = list[Planned]


def _plain(m: _Maker, kind: str) -> Drawn:
    number = m.dice.choice((1, 1, 1, 2, 3))
    return [Planned(0, kind, m.to(kind, *(m.anyone() for _ in range(number))))]


def _send_at(m: _Maker, kind: str) -> Drawn:
    return [Planned(0, kind, m.to(kind, m.anyone()), send_in_s=round(m.dice.uniform(*SOON_S), 1))]


def _broadcast(m: _Maker, kind: str) -> Drawn:
    number, own = m.dice.randint(2, BROADCAST_MAX), m.dice.random() < 0.5
    recipients: list[Recipient] = [{"address": m.anyone()} for _ in range(number)]
    one = m.submission(kind, recipients)
    one["stream"] = "broadcast"
    one["headers"] = [{"name": "List-Unsubscribe", "value": f"<https://{one['tenant']}.example/unsubscribe>"}]
    if own:
        one["subject"] = "{{name}}, your {{copies}} copies"
        for n, recipient in enumerate(recipients):
            recipient["variables"] = {"name": m.dice.choice(NAMES), "copies": str(n)}
        if m.dice.random() < 0.2:
            del recipients[-1]["variables"]
    return [Planned(0, kind, one)]


def _oversize(m: _Maker, kind: str) -> Drawn:
    """Half of them one content for many."""
    many = m.dice.random() < 0.5
    one = m.to(kind, *(m.anyone() for _ in range(m.dice.randint(2, 20) if many else 1)))
    one["stream"] = "broadcast" if many else "transactional"
    text = one["text"] or ""
    one["text"] = text * (OVERSIZE // len(text.encode()) + 1)
    return [Planned(0, kind, one)]


def _at(local: str, *domains: str, expires_in_s: float = 0.0, again: int = 0) -> Callable[[_Maker, str], Drawn]:
    """Mail to one of `domains`; with `again` to one of so many addresses, which come again and again."""

    def draw(m: _Maker, kind: str) -> Drawn:
        number = m.dice.randrange(again) if again else m.next()
        return [Planned(0, kind, m.to(kind, f"{local}{number}@{m.dice.choice(domains)}"), expires_in_s=expires_in_s)]

    return draw


def _no_domain(m: _Maker, kind: str) -> Drawn:
    return [
        Planned(0, kind, m.to(kind, f"reader@{m.dice.choice(('nomail.test', f'none{m.dice.randrange(500)}.test'))}"))
    ]


def _suppressed(m: _Maker, kind: str) -> Drawn:
    if m.dice.random() < 0.5:
        return [Planned(0, kind, m.to(kind, m.dice.choice(NEVER)))]
    number = m.dice.randrange(len(TENANTS))
    return [Planned(0, kind, m.to(kind, gone(number), tenant=TENANTS[number]))]


def _malformed(m: _Maker, kind: str) -> Drawn:
    return [Planned(0, kind, m.to(kind, m.dice.choice(MALFORMED), m.anyone()))]


def _stranger(m: _Maker, kind: str) -> Drawn:
    return [Planned(0, kind, m.to(kind, m.anyone(), tenant=STRANGER))]


def _same_id(m: _Maker, kind: str) -> Drawn:
    one = m.to(kind, m.anyone())
    return [Planned(0, kind, one), Planned(0, kind, one)]


def _dedupe_id(m: _Maker, kind: str) -> Drawn:
    tenant, replaces = m.dice.choice(TENANTS), "replace" in kind
    first, second = m.to(kind, m.anyone(), tenant=tenant), m.to(kind, m.anyone(), tenant=tenant)
    first["dedupe_id"] = second["dedupe_id"] = f"once-{m.next()}"
    if replaces:
        second["dedupe_policy"] = "replace"
    return [Planned(0, kind, first, send_in_s=HELD_S if replaces else 0.0), Planned(0, kind, second)]


KINDS: tuple[tuple[str, int, Callable[[_Maker, str], Drawn]], ...] = (
    ("plain", 560, _plain),
    ("broadcast", 28, _broadcast),
    ("send-at", 30, _send_at),
    ("oversize", 8, _oversize),
    ("greylist", 36, _at("reader", "greylist.test", "university.test")),
    ("dropper", 30, _at("reader", "dropper.test")),
    ("unknown-user", 36, _at("unknown", "unknown.test", again=400)),
    ("mailbox-full", 22, _at("full", "full.test")),
    ("mailbox-busy", 6, _at("busy", "full.test", expires_in_s=EXPIRED_S)),
    ("nothing-listens", 12, _at("reader", "refusing.test", expires_in_s=EXPIRED_S)),
    ("null-mx", 15, _at("reader", "nullmx.test")),
    ("no-domain", 15, _no_domain),
    ("suppressed", 22, _suppressed),
    ("bad-address", 12, _malformed),
    ("unknown-tenant", 8, _stranger),
    ("same-id", 12, _same_id),
    ("dedupe-reject", 10, _dedupe_id),
    ("dedupe-replace", 12, _dedupe_id),
)  # kind, how often among submissions, what


def plan(messages: int, seed: int) -> Iterator[Planned]:
    """Submissions with exactly `messages` messages, in the order in which they are to be written; the same for a seed."""
    maker, left, index = _Maker(seed), messages, 0
    kinds, weights = [(kind, draw) for kind, _, draw in KINDS], [weight for _, weight, _ in KINDS]
    later: list[tuple[int, int, Planned]] = []
    while left > 0:
        if later and later[0][0] <= index:
            one = heapq.heappop(later)[2]
        else:
            kind, draw = maker.dice.choices(kinds, weights)[0]
            one, *repeats = draw(maker, kind)
            for n, repeat in enumerate(repeats):
                heapq.heappush(later, (index + maker.dice.randint(*REPEATED), index + n, repeat))
        if one.messages > left:
            one.submission["recipients"] = one.submission["recipients"][:left]
        yield one._replace(place=index)
        left, index = left - one.messages, index + 1
