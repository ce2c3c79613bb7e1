"""How well bounces, replies and complaints are judged: `python -m loadtest.judgement [PART..] [--wrong]`, `make bench-judgement`.

One table of everything that issue 6 asks for, flufl.bounce beside it on the same files; the last line is RESULT with the
figures. Exit status 1 where a must is broken. Without the corpora: nothing to measure, status 0.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from loadtest.judgement import corpora, cross, hostile, never, ours, reasons, recipients, replies, theirs
from loadtest.judgement.recipients import Share

WRONG_MAX = 60  # lines of one list with --wrong
FIGURES = (
    "recipients_flufl", "recipients_sisimai", "reason_macro", "hard_soft", "rfc3464", "arf", "zone_mta", "suppressed_wrongly",
    "hostile_crashes", "hostile_ms_max", "dsn_ms", "reply_us", "seconds",
)  # fmt: skip
ROUNDS = 3


class Must(NamedTuple):
    """A limit of a figure."""

    sign: str
    limit: float

    def holds(self, value: float) -> bool:
        return value >= self.limit if self.sign == ">=" else value <= self.limit


MUSTS = {
    "recipients_flufl": Must(">=", 0.99), "recipients_sisimai": Must(">=", 0.98), "reason_macro": Must(">=", 0.92),
    "hard_soft": Must(">=", 0.98), "rfc3464": Must(">=", 1), "arf": Must(">=", 1), "zone_mta": Must(">=", 0.95),
    "suppressed_wrongly": Must("<=", 0), "hostile_crashes": Must("<=", 0), "hostile_ms_max": Must("<=", 50),
    "dsn_ms": Must("<=", 1), "reply_us": Must("<=", 30),
}  # fmt: skip


class Sheet:
    """The table while it is filled, the figures, and what was wrong."""

    def __init__(self, wrong: bool) -> None:
        self.figures: dict[str, Any] = {}
        self.lists: list[tuple[str, list[str]]] = []
        self._wrong = wrong
        self._table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("what", "ours", "flufl.bounce", "must", ""):
            self._table.add_column(column, overflow="fold")

    def row(self, what: str, said: str, their: str = "", figure: str = "", value: float = 0.0) -> None:
        """One line; `figure` is a name of RESULT, and MUSTS may have a limit for it."""
        must = MUSTS.get(figure)
        if figure:
            self.figures[figure] = round(value, 4)
        ok = "" if must is None else "ok" if must.holds(value) else "BROKEN"
        self._table.add_row(*map(escape, (what, said, their, f"{must.sign} {must.limit:g}" if must else "", ok)))

    def share(self, what: str, mine: Share, their: Share | None = None, figure: str = "") -> None:
        self.row(what, _share(mine), _share(their) if their else "", figure, mine.share)
        self.wrong(what, mine.wrong)

    def wrong(self, what: str, texts: list[str]) -> None:
        if texts:
            self.lists.append((what, texts))

    def show(self, console: Console) -> None:
        console.print(self._table)
        for what, texts in self.lists if self._wrong else ():
            print(f"\n{what}: {len(texts)}")
            for text in texts[:WRONG_MAX]:
                print(f"  {ascii(text)[1:-1]}")

    def broken(self) -> list[str]:
        return [name for name, must in MUSTS.items() if name in self.figures and not must.holds(self.figures[name])]


def _share(one: Share) -> str:
    return f"{one.share:.2%} ({one.right} of {one.of})"


def found(sheet: Sheet) -> None:
    """Recipients, RFC 3464's examples, ARF."""
    for what, cases, figure in (
        ("recipients, flufl", recipients.flufl(), "recipients_flufl"),
        ("recipients, sisimai with DSN fields", recipients.in_dsn_fields(), "recipients_sisimai"),
        ("recipients, sisimai, all", recipients.all_sisimai(), ""),
    ):
        said = theirs.read([case.path for case in cases])
        sheet.share(what, recipients.exact(cases), recipients.exact(cases, said) if said else None, figure)
    sheet.share("RFC 3464's examples: recipient, action, status", recipients.rfc3464(), None, "rfc3464")
    sheet.share("ARF: complaint of its type", recipients.arf(), None, "arf")


def judged(sheet: Sheet) -> None:
    """Reason and class, cross-validated."""
    cases = corpora.judged("sisimai")
    figures = reasons.judge(cross.read(cases), cases)
    said = theirs.read([case.path for case in cases])
    sheet.row(
        "reason, macro", f"{figures.macro:.2%} (of {len(figures.reasons)} reasons)", "", "reason_macro", figures.macro
    )
    sheet.share("reason, micro", figures.micro)
    sheet.share("hard or soft", figures.hard_soft, reasons.theirs_hard_soft(said, cases) if said else None, "hard_soft")
    weak = [f"{name}: {_share(one)}" for name, one in figures.reasons.items() if one.right < one.of]
    sheet.wrong("reasons below 100 %", weak)
    sheet.wrong("reasons confused", [f"{count} x {true} taken for {mine}" for (true, mine), count in figures.confused])


def answered(sheet: Sheet) -> None:
    """SMTP replies."""
    sheet.share("ZoneMTA's samples: try again or not", cross.without_zone_mta(replies.zone_mta), None, "zone_mta")


def spared(sheet: Sheet) -> None:
    """Mail that must suppress nobody."""
    total = 0
    for name, paths, test in never.kinds():
        wrong = never.wrong(name, paths, test, theirs.read(paths))
        total += len(wrong.ours)
        sheet.row(
            f"suppressed by {name}",
            f"{len(wrong.ours)} of {wrong.files}",
            "" if wrong.theirs is None else str(wrong.theirs),
        )
        sheet.wrong(f"suppressed by {name}", wrong.ours)
    files, wrong_spam = never.forged()
    sheet.row("suppressed by spam (its bounces are true ones)", f"{wrong_spam} of {files}")
    sheet.row("suppressed wrongly", str(total), "", "suppressed_wrongly", total)


def survived(sheet: Sheet) -> None:
    """Hostile input."""
    files = hostile.paths()
    figures, said = (
        hostile.measure(files),
        theirs.read([path for path in files if path.is_relative_to(corpora.CORPORA)]),
    )
    crashed = str(sum(bool(one.error) for one in said.values())) if said else ""
    sheet.row(
        f"hostile, {figures.messages:,} messages: crashes",
        str(len(figures.crashes)),
        crashed,
        "hostile_crashes",
        len(figures.crashes),
    )
    slow, name = figures.slowest
    sheet.row("hostile: slowest, ms CPU", f"{slow:.1f} ({name})", f"{max(one.ms for one in said.values()):.1f}" if said else "",
              "hostile_ms_max", slow)  # fmt: skip
    sheet.wrong("hostile: crashes", figures.crashes)


def paced(sheet: Sheet) -> None:
    """CPU."""
    paths = [case.path for case in corpora.cases("sisimai")]
    raws = [path.read_bytes() for path in paths]
    for raw in raws:
        ours.cpu_ms(raw)
    rounds = []
    for _ in range(ROUNDS):
        ours.forget()
        rounds.append([ours.cpu_ms(raw) for raw in raws])
    best = [min(took) for took in zip(*rounds, strict=True)]
    said = [one.ms for one in theirs.read(paths).values()]
    mean, median = statistics.mean(best), statistics.median(best)
    sheet.row("ms CPU of a DSN, mean", f"{mean:.3f}", f"{statistics.mean(said):.3f}" if said else "", "dsn_ms", mean)
    sheet.row("ms CPU of a DSN, median", f"{median:.3f}", f"{statistics.median(said):.3f}" if said else "")
    fresh, again = replies.cpu_us()
    sheet.row("us CPU of a reply never seen", f"{fresh:.1f}", "", "reply_us", fresh)
    sheet.row("us CPU of a reply seen before", f"{again:.2f}")


PARTS: dict[str, Callable[[Sheet], None]] = {
    "recipients": found, "reasons": judged, "replies": answered, "never": spared, "hostile": survived, "speed": paced,
}  # fmt: skip


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.judgement", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--wrong", action="store_true", help="list what was wrong, disagreements with ZoneMTA among it")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}: there are {', '.join(PARTS)}")
    if not corpora.there():
        print(f"skipped: no corpora in {corpora.CORPORA}")
        print(f"RESULT {json.dumps(dict.fromkeys(FIGURES))}")
        return 0
    began, sheet = time.monotonic(), Sheet(options.wrong)
    for name, part in PARTS.items():
        if name in options.parts or not options.parts:
            part(sheet)
    sheet.show(Console(width=None if sys.stdout.isatty() else 160))
    sheet.figures["seconds"] = round(time.monotonic() - began, 1)
    for name in (broken := sheet.broken()):
        print(f"MUST BROKEN {name}: {sheet.figures[name]}, must be {MUSTS[name].sign} {MUSTS[name].limit:g}")
    print(
        f"RESULT {json.dumps({name: sheet.figures.get(name) for name in FIGURES if name in sheet.figures or not options.parts})}"
    )
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
