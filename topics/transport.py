"""The batch transport as Faust finds it: `faust.App(broker="kafkabatch://host:port", **settings(...))`.

Registered under the entry point group `faust.transports` by this project's installation, and here for a checkout that is
run from its folder.
"""

from __future__ import annotations

from typing import Any

from faust.transport.drivers import TRANSPORTS
from faust.transport.drivers import aiokafka as stock

from topics.consumer import Consumer
from topics.producer import Producer

SCHEME = "kafkabatch"
PRODUCER_BATCH_BYTES = 512 * 1024  # at most max.message.bytes of every topic written to: a refusal is judged per batch


class Transport(stock.Transport):
    """Faust's aiokafka transport with our consumer and producer."""

    Consumer = Consumer
    Producer = Producer


TRANSPORTS.setdefault(SCHEME, f"{__name__}:Transport")


def settings(session_s: float = 10.0) -> dict[str, Any]:
    """What an App on this transport wants. `session_s`: seconds until a silent worker's partitions go to another one; it
    stays below the request time-out, or Faust refuses to start."""
    return {
        "broker_max_poll_records": 2000,
        "broker_commit_interval": 0.25,  # what is finished but not committed counts as road (topics/road.py)
        "broker_session_timeout": session_s,
        # members learn of a rebalance by their next heartbeat, and the road stands still until the last one has
        "broker_heartbeat_interval": min(1.0, session_s / 5),
        "broker_rebalance_timeout": 2 * session_s,
        # 1000 s by default: a stage that holds its partitions for longer would leave the group; topics/stall.py watches
        "broker_max_poll_interval": 7 * 86_400.0,
        "broker_request_timeout": max(15.0, 1.5 * session_s),
        "consumer_auto_offset_reset": "earliest",
        "producer_acks": -1,
        "producer_linger": 0,  # batches are already built: lingering only adds latency
        "producer_max_batch_size": PRODUCER_BATCH_BYTES,
        "producer_request_timeout": 30.0,  # stock 1200 s: how long an unknown topic is waited for
        "stream_wait_empty": True,  # Consumer.wait_empty
        "stream_recovery_delay": 0.0,
        "topic_disable_leader": True,
        "topic_allow_declare": True,
        "web_enabled": False,  # its /table views would serve table data
        "worker_redirect_stdouts": False,
        "autodiscover": False,
        "set_as_current": False,
    }
