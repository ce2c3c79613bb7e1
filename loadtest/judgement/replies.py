"""SMTP replies: the samples of ZoneMTA's rules, whether to try again, and the CPU of one judgement."""

from __future__ import annotations

import time

from loadtest.judgement import corpora, ours
from loadtest.judgement.recipients import Share, share
from postroad import bounces
from postroad.reply import Reply

ROUNDS = 5


def parsed(text: str) -> Reply:
    """As send has it from the wire: "550-5.1.1 ..." and "550 5.1.1 ..." alike."""
    code = text[:3]
    return Reply.parse(int(code), text[4:]) if code.isdigit() else Reply(0, "", text)


def zone_mta() -> Share:
    """Agreement on defer (tried again) or reject, after RCPT; only samples that match the rule they stand at."""
    right = {}
    rows = [row for row in corpora.lines("smtp-replies/zone-mta/samples.jsonl") if row["rule_matches"]]
    for number, row in enumerate(rows):
        verdict = bounces.classify(parsed(row["reply"]), "rcpt")
        action = "defer" if verdict.outcome == "deferral" else "reject"
        said = f"#{number} {action} ({verdict.reason}, {verdict.rule}), there {row['action']} ({row['category']}): {row['reply']}"
        right[said] = action == row["action"]
    return share(right)


def cpu_us() -> tuple[float, float]:
    """Microseconds of CPU for one judgement of a reply never seen, and of one just seen: best mean of some rounds."""
    rows = corpora.lines("bounces/sisimai/replies.jsonl") + corpora.lines("smtp-replies/zone-mta/samples.jsonl")
    texts = list(dict.fromkeys(row["reply"] for row in rows if row["reply"][:3].isdigit()))
    replies = [parsed(text) for text in texts]
    for reply in replies:
        bounces.judge(reply.code, reply.enhanced, reply.text)
    fresh: list[float] = []
    again: list[float] = []
    for _ in range(ROUNDS):
        ours.forget()
        for took in (fresh, again):
            began = time.process_time()
            for reply in replies:
                bounces.judge(reply.code, reply.enhanced, reply.text)
            took.append((time.process_time() - began) / len(replies) * 1e6)
    return min(fresh), min(again)
