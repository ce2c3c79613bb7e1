"""What the dashboards show. `$__rate_interval` is Grafana's; variables ($stage, $site, $source) are regular expressions."""

from __future__ import annotations

from deploy.grafana import Dashboard, Panel, Row

STAGE = '{stage=~"$stage"}'
PLACE = '{site=~"$site",source=~"$source"}'
LATE = 300  # seconds, as the alert has it


def rate(metric: str, by: str = "", where: str = "") -> str:
    """Per second."""
    return f"sum{f' by ({by})' if by else ''} (rate({metric}{where}[$__rate_interval]))"


def done(by: str, span: str, where: str = "") -> str:
    """Records per second; of send, which tells attempts, those."""
    return (
        f"sum by ({by}) (rate(postroad_records_total{where}[{span}]) or rate(postroad_performed_total{where}[{span}]))"
    )


def share(part: str, whole: tuple[str, ...], by: str, where: str = "") -> str:
    """Of an hour."""
    sums = " + ".join(f"sum by ({by}) (increase({metric}{where}[1h]))" for metric in whole)
    return f"sum by ({by}) (increase({part}{where}[1h])) / ({sums})"


def top(expr: str, count: int = 10) -> str:
    """The largest alone: a site is a line."""
    return f"topk({count}, {expr})"


ACCEPTED, DELIVERED, DEFERRED, BOUNCED, COMPLAINED = (
    f"postroad_mail_{what}_total" for what in ("accepted", "delivered", "deferred", "bounced", "complained")
)
FOUND = " + ".join(
    f"(sum(increase(postroad_{what}_total[1d])) or vector(0))" for what in ("orphans", "two_ends", "strays")
)

OVERVIEW = Dashboard("overview", "Postroad: overview", (
    Panel("Alerts", "stat", (("", 'count(ALERTS{alertname=~"Postroad.*",alertstate="firing"}) or vector(0)'),), red=1, width=4,
          what="That fire now. Each leads to a page of docs/runbooks."),
    Panel("Processes that do not answer", "stat", (("", 'count(up{job="postroad"} == 0) or vector(0)'),), red=1, width=4),
    Panel("Oldest record", "stat", (("", "max(postroad_oldest_record_age_seconds)"),), "s", red=LATE, width=4,
          what="How long the oldest record has waited for its stage. What waits on purpose lies in tables, and is not in it."),
    Panel("Events that ClickHouse has not yet", "stat", (("", 'sum(postroad_lag{stage="events_sink"})'),), red=100_000, width=4),
    Panel("Dead letters, 24 h", "stat", (("", "sum(increase(postroad_dead_total[1d])) or vector(0)"),), red=1, width=4),
    Panel("Found by the audit, 24 h", "stat", (("", FOUND),), red=1, width=4,
          what="Messages without an end, with two, or never accepted. Must be 0."),
    Panel("What fires", "table", (("", 'ALERTS{alertname=~"Postroad.*",alertstate="firing"}'),), width=24),
    Panel("Mail", "timeseries", (("accepted", rate(ACCEPTED)), ("delivered", rate(DELIVERED)), ("put off", rate(DEFERRED)), ("bounced", rate(BOUNCED))),
          "cps", width=12, what="Accepted, and at their ends, per second. Put off: attempts, not messages."),
    Panel("Delivered, of what was delivered or bounced", "timeseries", (("{{class}}", share(DELIVERED, (DELIVERED, BOUNCED), "class")),),
          "percentunit", width=12, what="By class of tenant, over an hour."),
    Panel("Records by stage", "timeseries", (("{{stage}}", done("stage", "$__rate_interval")),), "cps", width=12),
    Panel("Backlog by stage", "timeseries", (("{{stage}}", "sum by (stage) (postroad_lag)"),), width=12),
))  # fmt: skip

STAGES = Dashboard("stages", "Postroad: stages and lag", (
    Row("Behind"),
    Panel("Backlog", "timeseries", (("{{stage}}", f"sum by (stage) (postroad_lag{STAGE})"),), what="Records not yet committed."),
    Panel("Backlog of the worst partitions", "timeseries", (("{{stage}} {{topic}}[{{partition}}]", top(f"max by (stage, topic, partition) (postroad_lag{STAGE})")),),
          what="One partition alone: one record, one replica, or one tenant or site with very much mail."),
    Panel("Time to work it off", "timeseries", (("{{stage}}", f"sum by (stage) (postroad_lag{STAGE}) / {done('stage', '15m', STAGE)}"),),
          "s", red=600, what="Backlog, at the pace of the last quarter of an hour."),
    Panel("Oldest record", "timeseries", (("{{stage}}", f"max by (stage) (postroad_oldest_record_age_seconds{STAGE})"),), "s", red=LATE),
    Panel("Age of the last commit", "timeseries", (("{{stage}}", f"max by (stage) (postroad_commit_age_seconds{STAGE})"),), "s"),
    Panel("Waits on purpose", "timeseries", (("{{stage}}: {{why}}", f"sum by (stage, why) (postroad_waiting{STAGE})"),),
          what="Partitions. hold, store: ClickHouse or the content store is away; road: broadcasts wait for room; recovery: tables are read."),
    Row("Work"),
    Panel("Records", "timeseries", (("{{stage}}", done("stage", "$__rate_interval", STAGE)),), "cps", what="Of send: attempts."),
    Panel("Records a batch", "timeseries", (("{{stage}}", f"{rate('postroad_records_total', 'stage', STAGE)} / {rate('postroad_batches_total', 'stage', STAGE)}"),)),
    Panel("Replicas that have partitions", "timeseries", (("{{stage}}", f"count by (stage) (count by (stage, instance) (postroad_lag{STAGE}))"),)),
    Row("What went wrong"),
    Panel("Dead letters", "timeseries", (("{{stage}}", f"sum by (stage) (increase(postroad_dead_total{STAGE}[$__rate_interval]))"),)),
    Panel("Held", "timeseries", (("{{stage}}", rate("postroad_held_total", "stage", STAGE)),), "cps", what="Records that had to wait for something outside, per second."),
    Panel("Passed over", "timeseries", (("{{stage}}", rate("postroad_passed_over_total", "stage", STAGE)),), "cps", what="Seen before: after a rebalance or a kill."),
    Panel("Free disk below data_dir", "timeseries", (("{{instance}}", "postroad_disk_free_bytes / postroad_disk_size_bytes"),), "percentunit", width=12),
    Panel("Found by the audit", "timeseries", tuple(
        (name, f"sum(increase(postroad_{metric}_total[1h]))") for name, metric in
        (("without an end", "orphans"), ("two ends", "two_ends"), ("never accepted", "strays"))
    ), width=12, what="Messages within an hour."),
), (("stage", "label_values(postroad_lag, stage)"),))  # fmt: skip

DELIVERY = Dashboard("delivery", "Postroad: delivery by site and source", (
    Row("Sites"),
    Panel("Delivered", "timeseries", (("{{site}}", top(rate(DELIVERED, "site", PLACE))),), "cps"),
    Panel("Put off, of all attempts", "timeseries", (("{{site}}", top(share(DEFERRED, (DELIVERED, BOUNCED, DEFERRED), "site", PLACE))),), "percentunit"),
    Panel("Bounced, of what was delivered or bounced", "timeseries", (("{{site}}", top(share(BOUNCED, (DELIVERED, BOUNCED), "site", PLACE))),), "percentunit", red=0.1),
    Panel("Waiting for a site", "timeseries", (("{{site}}", top('max by (site) (postroad_site_waiting{site=~"$site"})')),)),
    Panel("Called spam, over a day", "timeseries", (
        ("{{site}}", f"sum by (site) (increase({COMPLAINED}{PLACE}[1d])) / sum by (site) (increase({DELIVERED}{PLACE}[1d]))"),), "percentunit", red=0.001),
    Panel("Attempts", "timeseries", (("performed", rate("postroad_performed_total", where='{stage="send"}')), ("flagged", rate("postroad_flagged_total", where='{stage="send"}'))),
          "cps", what="Flagged: begun before a kill, so the MX may have had the mail already."),
    Row("Sources"),
    Panel("Delivered", "timeseries", (("{{source}}", rate(DELIVERED, "source", PLACE)),), "cps"),
    Panel("Bounced, of what was delivered or bounced", "timeseries", (("{{source}}", share(BOUNCED, (DELIVERED, BOUNCED), "source", PLACE)),), "percentunit", red=0.1),
    Panel("Suspended at a site", "timeseries", (("{{source}} at {{site}}", f"max by (site, source) (postroad_source_suspended{PLACE}) > 0"),)),
    Panel("Warm-up: used of the day's allowance", "timeseries", (
        ("{{source}} at {{site}}", top(f"sum by (site, source) (postroad_warmup_used{PLACE}) / sum by (site, source) (postroad_warmup_allowance{PLACE})")),),
        "percentunit", width=12),
    Panel("Warm-up: rests", "timeseries", (("{{source}} at {{site}}", f"max by (site, source) (postroad_warmup_paused{PLACE}) > 0"),), width=12),
), (("site", f"label_values({DELIVERED}, site)"), ("source", f"label_values({DELIVERED}, source)")))  # fmt: skip

SMTP, INBOUND, DOORS = '{stage="smtp"}', '{stage="inbound"}', '{stage=~"smtp|inbound"}'
GATEWAYS = Dashboard("gateways", "Postroad: gateways", (
    Row("Doors"),
    Panel("Doors that answer", "timeseries", (("{{instance}}", 'up{job="postroad",instance=~"(api|smtp|inbound).*"}'),),
          what="1: Prometheus reaches it. In Kubernetes an instance is an address: see Pods there."),
    Panel("Connections", "timeseries", (("{{stage}}", rate("postroad_connections_total", "stage", DOORS)),), "cps"),
    Panel("Connections refused", "timeseries", (("{{stage}}", rate("postroad_refused_connections_total", "stage", DOORS)),), "cps", what="Too many, of all or of one address."),
    Row("SMTP submission"),
    Panel("Mail", "timeseries", (("taken", rate("postroad_accepted_total", where=SMTP)), ("refused", rate("postroad_refused_total", where=SMTP)),
                                 ("put off", rate("postroad_put_off_total", where=SMTP))), "cps"),
    Panel("Sign-ins", "timeseries", (("right", rate("postroad_sign_ins_total", where=SMTP)), ("wrong", rate("postroad_failed_sign_ins_total", where=SMTP))), "cps"),
    Panel("Sessions that failed", "timeseries", (("{{stage}}", rate("postroad_failed_total", "stage", DOORS)),), "cps", what="An error of ours: the log has it."),
    Row("Inbound MX"),
    Panel("Reports", "timeseries", (("taken", rate("postroad_taken_total", where=INBOUND)), ("forged", rate("postroad_forged_total", where=INBOUND))), "cps"),
    Panel("Refused recipients", "timeseries", (("refused", rate("postroad_refused_recipients_total", where=INBOUND)),), "cps"),
    Panel("Days until a certificate ends", "timeseries", (("{{door}} {{instance}}", "(postroad_certificate_end_timestamp_seconds - time()) / 86400"),), "d"),
))  # fmt: skip

DASHBOARDS = (OVERVIEW, STAGES, DELIVERY, GATEWAYS)
