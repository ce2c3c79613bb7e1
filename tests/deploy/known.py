"""Metrics that alerts and dashboards may ask for, with their labels."""

from __future__ import annotations

from deploy.local import ROOT
from tests.deploy import promql

OF_PROMETHEUS = {"up": set[str](), "ALERTS": {"alertname", "alertstate", "severity", "stage", "site", "source"}}
PLACES = {"stage", "topic", "partition"}
MAIL = {"class", "site", "source"}

# What processes tell today (agents/exporter.py, agents/machine.py): a counter of each name that somebody counts, and gauges.
COUNTED = (
    "records", "batches", "held", "dead", "passed_over", "performed", "crowded", "flagged", "dropped", "cycles", "orphans", "two_ends", "strays", "audit_behind",
    "accepted", "refused", "put_off", "failed", "connections", "refused_connections", "sign_ins", "failed_sign_ins", "taken", "forged", "refused_recipients",
    "adopted", "cancelled", "lost_late", "dropped_batches", "ended", "failed_ticks", "parts", "prepare_timeouts", "webhook_dead",
)  # fmt: skip
TOLD = {
    **{f"postroad_{name}_total": {"stage"} for name in COUNTED},
    "postroad_lag": PLACES, "postroad_waiting": {"stage", "why"},
    "postroad_warmup_used": {"source", "site"}, "postroad_warmup_allowance": {"source", "site"},
    "postroad_disk_free_bytes": set[str](), "postroad_disk_size_bytes": set[str](), "postroad_certificate_end_timestamp_seconds": {"door"},
    "postroad_rebalances_total": {"stage"}, "postroad_recovery_remaining_records": {"stage"}, "postroad_table_keys": {"stage", "partition"},
    "postroad_rocksdb_memory_bytes": {"stage", "partition"}, "postroad_rocksdb_disk_bytes": {"stage", "partition"},
    "postroad_batch_records": {"stage"}, "postroad_batch_duration_seconds": {"stage"},
    "postroad_oldest_record_age_seconds": PLACES, "postroad_commit_age_seconds": PLACES,
    "postroad_mail_accepted_total": {"class"}, "postroad_mail_delivered_total": MAIL, "postroad_mail_deferred_total": MAIL,
    "postroad_mail_bounced_total": MAIL, "postroad_mail_complained_total": MAIL,
    "postroad_source_suspended": {"site", "source"}, "postroad_warmup_paused": {"site", "source"}, "postroad_site_waiting": {"site"},
    "postroad_api_key_end_timestamp_seconds": {"tenant", "key"},
}  # fmt: skip
# What no process tells yet, under the names that alerts and dashboards will find it by. When one is told it moves up.
AWAITED: dict[str, set[str]] = {}
KNOWN = OF_PROMETHEUS | TOLD | AWAITED
OF_EVERY_TARGET = {"job", "instance"}


def faults(expr: str) -> list[str]:
    """What an expression asks for that nobody tells."""
    names = promql.metrics(expr)
    found = [f"no metric {name}" for name in sorted(names - KNOWN.keys())]
    made = {"finding", "le"}  # by label_replace, by histograms
    labels = OF_EVERY_TARGET.union(*(KNOWN.get(name, set()) for name in names))
    found += [f"nothing has the label {label}" for label in sorted(promql.grouped(expr) - labels - made)]
    for name, looked_at in promql.matched(expr):
        wrong = looked_at - KNOWN.get(name, set()) - OF_EVERY_TARGET
        found += [f"{name} has no label {label}" for label in sorted(wrong)]
    return found


def source() -> str:
    """The code of everything that tells metrics."""
    folders = ("agents", "topics", "gateway", "postroad")
    return "\n".join(path.read_text("utf-8") for folder in folders for path in (ROOT / folder).rglob("*.py"))
