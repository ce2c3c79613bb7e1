"""`make check-doors [PARTS="rest memory"]`: what the front doors must show; `--short`: less of it. Ends with RESULT.

| part | what |
|---|---|
| rest | a process on one core: mails of 2 KB a second, p95 at half of the must |
| peak | 1,700 a second for two processes while the road runs |
| smtp | SMTP submission on kept connections |
| interop | SMTP submission with smtplib, swaks, Go, nodemailer, Jakarta Mail, Postfix |
| limits | the rate of a key over three replicas |
| memory | a hundred uploads of 25 MB at a time |
| webhooks | deliveries a second, and beside 50 dead endpoints |
| faults | REST, SMTP, then notify, killed with -9 under load, again and again; a stranger's key |

Musts that are times are told, not enforced: a shared machine decides them. What is counted is.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

from loadtest.doors import interop, limits, memory, rest, smtp, webhooks

Part = Callable[[bool], dict[str, float]]


def _faults(short: bool) -> dict[str, float]:
    """Of both doors, and of what tells endpoints."""
    found, more, told = rest.faults(short), smtp.faults(short), webhooks.faults(short)
    return found | more | told | {"lost": found["lost"] + more["smtp_lost"] + told["webhooks_lost"]}


PARTS: dict[str, Part] = {
    "rest": rest.run, "peak": lambda short: rest.peak(5.0 if short else 20.0), "memory": memory.run,
    "smtp": smtp.run, "interop": interop.run, "limits": limits.run, "webhooks": webhooks.run, "faults": _faults,
}  # fmt: skip
#: (name, at least or at most, how much, whether it is enforced)
MUSTS = (
    ("rest_per_s", ">=", rest.PER_S_MUST, False), ("rest_p95_ms", "<=", rest.P95_MUST_MS, False),
    ("peak_p95_ms", "<=", rest.PEAK_P95_MUST_MS, False), ("smtp_per_s", ">=", smtp.PER_S_MUST, False), ("smtp_p95_ms", "<=", smtp.P95_MUST_MS, False),
    ("upload_rss_mb", "<=", memory.RSS_MUST_MB, True), ("webhooks_per_s", ">=", webhooks.RATE_MUST, False),
    ("webhook_isolation_ratio", "<=", webhooks.RATIO_MUST, False), ("lost", "<=", 0, True), ("second_mails", "<=", 0, True),
    ("foreign_reads", "<=", 0, True), ("smtp_interop_failed", "<=", 0, True), ("limit_error", "<=", limits.ERROR_MUST, False),
)  # fmt: skip


def main(arguments: list[str]) -> int:
    """Exit status."""
    short, asked = "--short" in arguments, [one for one in arguments if one != "--short"]
    if unknown := [one for one in asked if one not in PARTS]:
        print(f"no part {unknown[0]}: there are {', '.join(PARTS)}", file=sys.stderr)
        return 2
    found: dict[str, float] = {}
    for name in asked or PARTS:
        part = PARTS[name](short)
        print(f"{name}: {', '.join(f'{key} {value:,}' for key, value in part.items())}", flush=True)
        found |= part
    broken = False
    for name, how, limit, enforced in MUSTS:
        if name in found and not (found[name] >= limit if how == ">=" else found[name] <= limit):
            print(f"{name} is {found[name]:,}; it must be {how} {limit:,}{'' if enforced else ' (told, not enforced)'}")
            broken = broken or enforced
    print("RESULT " + json.dumps(found))
    return int(broken)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
