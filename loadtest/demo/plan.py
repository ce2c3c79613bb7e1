"""What the demo sends: 2,000 submissions of all kinds, the same for the same seed, each with the ends its messages may have.

An end is "kind" or "kind/reason" as in the events. A kind of submission is one function here and one line in KINDS.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from avro.records import Attachment, Recipient, RecipientKind, Submission
from loadtest.demo.tenants import BOOKS, LETTER, SENDER, WORKS
from postroad.scoring import GTUBE

SEED = 20_260
ATTACHMENT_BYTES = 3_000_000
LATER_S = 10.0
SOON_EXPIRED_S = 5.0  # of what no site will ever take
SUPPRESSED = 20  # addresses on each list

WILLING = (
    "accept.test",
    "shop.test",
    "verein.test",
    "news.many.test",
    "starttls.test",
    "bank.test",
    "half.test",
    "implicit.test",
)
NAMES = ("Zoë Krüger", "山田 太郎", "Łukasz Żak", "Ægir Þórsson", "Иван Петров", "Ana-María Núñez", "O'Brien, Pat", "")
WORDS = [
    "harbour",
    "lamp",
    "parcel",
    "window",
    "river",
    "order",
    "shelf",
    "letter",
    "garden",
    "copper",
    "evening",
    "station",
    "paper",
    "bridge",
    "quiet",
    "market",
    "season",
    "Größe",
    "café",
    "naïve",
    "Straße",
    "œuvre",
    "smörgås",
    "注文",
    "заказ",
]  # reads better whole
MALFORMED = (
    "no-at-sign", "two@@accept.test", "nobody@", "@accept.test", "white space@accept.test", "dot..dot@accept.test",
    "someone@[127.0.0.11]", "someone@localhost", f"{'x' * 65}@accept.test", "someone@-accept.test",
)  # fmt: skip
UNDECODABLE = (
    b"",
    b'{"tenant": "harbour-books"}',
    b"\xc3\x01" + bytes(8) + b"of no schema",
    b"\x00\x00\x00\x00\x07Confluent",
)

LISTED: tuple[tuple[RecipientKind, ...], ...] = (("to", "to", "cc"), ("to", "cc", "bcc"), ("to", "cc", "cc", "bcc"))

DELIVERED = frozenset({"delivered"})


@dataclass(frozen=True)
class Planned:
    """One record for mail.submissions. `raw`: its bytes, where it is none that decodes; `ends`: what may become of the
    message of each recipient (by address as written), or of all others ("*"); no ends at all: a dead letter. Times are
    seconds from when it is written; `by_reference`: the attachments go to the blob store first."""

    kind: str
    key: bytes
    submission: Submission | None = None
    raw: bytes = b""
    ends: Mapping[str, frozenset[str]] = field(default_factory=dict)
    send_in_s: float = 0.0
    expires_in_s: float = 0.0
    by_reference: bool = False
    waits: bool = False  # on purpose: not counted where the demo tells how fast the road is


class _Maker:
    """Makes submissions; the position of each in the plan is a number from 0 to 1."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)
        self.number = 0

    def place(self) -> float:
        """Anywhere."""
        return self.random.random()

    def local(self, name: str = "reader") -> str:
        """A local part that nobody else has."""
        self.number += 1
        return f"{name}{self.number}"

    def anyone(self) -> str:
        """A recipient whose site takes mail."""
        return f"{self.local()}@{self.random.choice(WILLING)}"

    def text(self, words: int = 60) -> str:
        """Lines of words, some of which are not ASCII."""
        chosen = self.random.choices(WORDS, k=words)
        return "\n".join(" ".join(chosen[at : at + 12]) for at in range(0, words, 12))

    def submission(self, kind: str, recipients: list[Recipient], tenant: str = BOOKS) -> Submission:
        """A plain mail; kinds change it."""
        self.number += 1
        return {
            "tenant": tenant, "submission_id": f"{kind}-{self.number}", "sender": {"address": SENDER[tenant], "name": "Post Road"},
            "recipients": recipients, "subject": " ".join(self.random.choices(WORDS, k=5)), "text": self.text(),
            "tags": [kind],
        }  # fmt: skip

    def planned(self, kind: str, submission: Submission, ends: frozenset[str] = DELIVERED, **more: object) -> Planned:
        """The same end for every recipient."""
        return Planned(kind, submission["tenant"].encode(), submission, ends={"*": ends}, **more)  # type: ignore[arg-type]  # fields of Planned

    def to(self, kind: str, address: str, tenant: str = BOOKS) -> Submission:
        """A plain mail to one recipient."""
        return self.submission(kind, [{"address": address, "name": self.random.choice(NAMES)}], tenant)


Placed = Iterator[tuple[float, Planned]]


def _plain(m: _Maker, kind: str) -> Placed:
    yield m.place(), m.planned(kind, m.to(kind, m.anyone(), m.random.choice((BOOKS, WORKS))))


def _html(m: _Maker, kind: str) -> Placed:
    one = m.to(kind, m.anyone(), m.random.choice((BOOKS, WORKS)))
    link = '<a href="https://harbourbooks.example/order">your order</a>'
    one["html"] = f"<html><body><h1>{one['subject']}</h1><p>{m.text(120)}</p><p>See {link}.</p></body></html>"
    one["reply_to"] = [{"address": "help@harbourbooks.example", "name": "Help"}]
    one["headers"] = [{"name": "X-Order", "value": f"№ {m.number}"}]
    one["metadata"] = {"order": str(m.number)}
    yield m.place(), m.planned(kind, one)


def _several(m: _Maker, kind: str) -> Placed:
    kinds = m.random.choice(LISTED)
    recipients: list[Recipient] = [{"address": m.anyone(), "name": m.random.choice(NAMES), "kind": k} for k in kinds]
    yield m.place(), m.planned(kind, m.submission(kind, recipients))


def _variables(m: _Maker, kind: str) -> Placed:
    recipients: list[Recipient] = [
        {"address": m.anyone(), "variables": {"name": m.random.choice(NAMES), "copies": str(n)}} for n in range(4)
    ]
    recipients.append({"address": f"{m.local('forgotten')}@accept.test"})
    one = m.submission(kind, recipients)
    one |= {"stream": "broadcast", "subject": "{{name}}, your {{copies}} copies", "html": "<p>{{name}}: {{copies}}</p>"}
    ends = {"*": DELIVERED, recipients[-1]["address"]: frozenset({"rejected/missing-variable"})}
    yield m.place(), Planned(kind, one["tenant"].encode(), one, ends=ends)


def _broadcast(m: _Maker, kind: str) -> Placed:
    one = m.submission(kind, [{"address": m.anyone()} for _ in range(8)], WORKS)
    unsubscribe = "<https://stadtwerk.example/unsubscribe?list=water>"
    one |= {"stream": "broadcast", "headers": [{"name": "List-Unsubscribe", "value": unsubscribe}]}
    yield m.place(), m.planned(kind, one)


def _international(m: _Maker, kind: str) -> Placed:
    address = m.random.choice(
        (f"{m.local()}@bücher.test", f"{m.local('jürgen')}@accept.test", f"{m.local('用户')}@BÜCHER.test")
    )
    one = m.to(kind, address, WORKS)
    one["sender"]["name"] = "Stadtwerk Köln · Kundendienst"
    yield m.place(), m.planned(kind, one)


def _eml(m: _Maker, kind: str) -> Placed:
    mails = sorted((Path(__file__).parent / "mails").glob("*.eml"))
    one = m.to(kind, m.anyone())
    yield m.place(), m.planned(kind, _raw(one, m.random.choice(mails).read_bytes()))


def _raw(one: Submission, mail: bytes) -> Submission:
    return {
        "tenant": one["tenant"], "submission_id": one["submission_id"], "sender": one["sender"],
        "recipients": [{"address": recipient["address"]} for recipient in one["recipients"]], "raw": mail, "tags": one["tags"],
    }  # fmt: skip


def _attachment(m: _Maker, kind: str) -> Placed:
    one = m.to(kind, m.anyone())
    data = m.random.randbytes(ATTACHMENT_BYTES)
    file: Attachment = {"filename": "Prüfbericht 2026.pdf", "content_type": "application/pdf", "content": data}
    one["attachments"] = [file]
    yield m.place(), m.planned(kind, one, by_reference=kind == "attachment by reference")


def _send_at(m: _Maker, kind: str) -> Placed:
    yield m.place(), m.planned(kind, m.to(kind, m.anyone()), send_in_s=LATER_S, waits=True)


def _at(
    domain: str, ends: frozenset[str] = DELIVERED, local: str = "reader", **more: object
) -> Callable[[_Maker, str], Placed]:
    """Mail to one domain."""

    def make(m: _Maker, kind: str) -> Placed:
        yield m.place(), m.planned(kind, m.to(kind, f"{m.local(local)}@{domain}"), ends, **more)

    return make


def _never(domain: str, local: str = "reader") -> Callable[[_Maker, str], Placed]:
    """Mail that no site will ever take. Early in the plan, since what DNS does not answer waits for half a minute."""

    def make(m: _Maker, kind: str) -> Placed:
        one = m.to(kind, f"{m.local(local)}@{domain}")
        yield m.place() * 0.02, m.planned(kind, one, frozenset({"expired"}), expires_in_s=SOON_EXPIRED_S)

    return make


def _bounced_before(m: _Maker, kind: str) -> Placed:
    address = f"{m.local('unknown')}@unknown.test"
    yield m.place() * 0.02, m.planned(kind, m.to(kind, address), frozenset({"bounced/user-unknown"}))
    ends = frozenset({"dropped/suppressed"})  # by the bounce of the first, which has come long before
    yield 0.98 + m.place() * 0.02, m.planned(kind, m.to(kind, address), ends, send_in_s=LATER_S)


def _suppressed(m: _Maker, kind: str) -> Placed:
    mine, everybody = suppressed()
    yield m.place(), m.planned(kind, m.to(kind, m.random.choice(mine + everybody)), frozenset({"dropped/suppressed"}))


def suppressed() -> tuple[list[str], list[str]]:
    """The addresses that harbour-books, and that nobody, may write to."""
    return [f"gone{n}@accept.test" for n in range(SUPPRESSED)], [f"never{n}@bank.test" for n in range(SUPPRESSED)]


def _malformed(m: _Maker, kind: str) -> Placed:
    yield m.place(), m.planned(kind, m.to(kind, m.random.choice(MALFORMED)), frozenset({"rejected/bad-address"}))


def _unknown_domain(m: _Maker, kind: str) -> Placed:
    domain = m.random.choice((f"{m.local('no-such-name')}.test", "nomail.test"))
    yield m.place(), m.planned(kind, m.to(kind, f"reader@{domain}"), frozenset({"rejected/no-such-domain"}))


def _gtube(m: _Maker, kind: str) -> Placed:
    one = m.to(kind, m.anyone())
    one["text"] = f"{m.text(20)}\n{GTUBE}\n"
    yield m.place(), m.planned(kind, one, frozenset({"rejected/content"}))


def _unknown_tenant(m: _Maker, kind: str) -> Placed:
    one = m.to(kind, m.anyone())
    one["tenant"] = "nobody"
    yield m.place(), m.planned(kind, one, frozenset({"rejected/unknown-tenant"}))


def _wrong_key(m: _Maker, kind: str) -> Placed:
    one = m.to(kind, m.anyone())
    yield m.place(), Planned(kind, b"not the tenant", one, ends={"*": frozenset({"rejected/bad-key"})})


def _foreign_sender(m: _Maker, kind: str) -> Placed:
    one = m.to(kind, m.anyone())
    one["sender"] = {"address": SENDER[LETTER]}
    yield m.place(), m.planned(kind, one, frozenset({"rejected/sender-domain"}))


def _same_id(m: _Maker, kind: str) -> Placed:
    first, at = m.to(kind, m.anyone()), m.place() * 0.9
    yield at, m.planned(kind, first)
    yield at + 0.1, m.planned(kind, first.copy(), frozenset({"rejected/duplicate"}))


def _dedupe_reject(m: _Maker, kind: str) -> Placed:
    first, second, at = m.to(kind, m.anyone()), m.to(kind, m.anyone()), m.place() * 0.9
    first["dedupe_id"] = second["dedupe_id"] = f"once-{m.number}"
    yield at, m.planned(kind, first)
    yield at + 0.1, m.planned(kind, second, frozenset({"rejected/duplicate"}))


def _dedupe_replace(m: _Maker, kind: str) -> Placed:
    first, second, at = m.to(kind, m.anyone()), m.to(kind, m.anyone()), m.place() * 0.9
    first["dedupe_id"] = second["dedupe_id"] = f"newest-{m.number}"
    second["dedupe_policy"] = "replace"
    yield at, m.planned(kind, first, frozenset({"cancelled"}), send_in_s=LATER_S)
    yield at + 0.1, m.planned(kind, second)


def _quota(m: _Maker, kind: str) -> Placed:
    yield m.place(), m.planned(kind, m.to(kind, m.anyone(), LETTER), waits=True)


def _undecodable(m: _Maker, kind: str) -> Placed:
    yield m.place(), Planned(kind, BOOKS.encode(), raw=m.random.choice((*UNDECODABLE, m.random.randbytes(300))))


def _nobody(m: _Maker, kind: str) -> Placed:
    yield m.place(), Planned(kind, BOOKS.encode(), m.submission(kind, []))


KINDS: tuple[tuple[str, int, Callable[[_Maker, str], Placed]], ...] = (
    ("plain text", 534, _plain),
    ("html and text", 300, _html),
    ("to, cc and bcc", 60, _several),
    ("variables", 30, _variables),
    ("broadcast", 20, _broadcast),
    ("UTF-8 and IDN", 80, _international),
    ("raw .eml", 40, _eml),
    ("attachment of 3 MB", 6, _attachment),
    ("attachment by reference", 6, _attachment),
    ("send_at in 10 s", 60, _send_at),
    ("quota of the tenant", 200, _quota),
    ("greylisting site", 40, _at("university.test", waits=True)),
    ("slow site", 40, _at("slow.test", waits=True)),
    ("site of 2 connections", 60, _at("limited.test", waits=True)),
    ("connection dropped in DATA", 30, _at("dropper.test", waits=True)),
    ("unknown user", 50, _at("unknown.test", frozenset({"bounced/user-unknown"}), "unknown")),
    ("bounced before", 5, _bounced_before),
    ("mailbox full", 40, _at("full.test", frozenset({"bounced/mailbox-full"}), "full")),
    ("mailbox busy for ever", 15, _never("full.test", "busy")),
    ("nothing listens", 15, _never("refusing.test")),
    ("host that never answers", 6, _never("blackhole.test")),
    ("MX without address", 5, _never("dangling.test")),
    ("name server that fails", 3, _never("servfail.test")),
    ("suppressed", 50, _suppressed),
    ("malformed address", 40, _malformed),
    ("unknown domain", 40, _unknown_domain),
    ("null MX", 30, _at("nullmx.test", frozenset({"rejected/null-mx"}))),
    ("GTUBE", 15, _gtube),
    ("unknown tenant", 15, _unknown_tenant),
    ("key of another", 5, _wrong_key),
    ("sender of another tenant", 10, _foreign_sender),
    ("same submission twice", 30, _same_id),
    ("dedupe_id, reject", 20, _dedupe_reject),
    ("dedupe_id, replace", 15, _dedupe_replace),
    ("undecodable bytes", 12, _undecodable),
    ("no recipient", 3, _nobody),
)  # kind, how often, what: 2,000 submissions


def make(seed: int = SEED) -> list[Planned]:
    """The plan, in the order in which it is to be written."""
    maker = _Maker(seed)
    placed = [item for kind, times, one in KINDS for _ in range(times) for item in one(maker, kind)]
    placed.sort(key=lambda item: item[0])
    return [planned for _, planned in placed]
