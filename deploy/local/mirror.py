"""MirrorMaker 2 on this machine: one process that copies the topics of an installation from one cluster into another.

    with Mirror(folder, source=a.bootstrap, target=b.bootstrap) as mirror: ...

Names stay as they are (IdentityReplicationPolicy). Topics and changelogs are copied, each partition in its order; consumer offsets are not: the
target sets its own (`postroad region take-over`). What it needs to remember lies in the target, so that nothing is written into the source.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.local import child
from deploy.local.kafka import JVM, LARGEST_RECORD, LOG4J, LOG4J_VERSION, VERSION, jars

#: 62 jars, 36 MB, fetched when a mirror is first started.
DEPENDENCIES = (
    ("org.apache.kafka", "connect-mirror", VERSION),
    ("org.apache.kafka", "connect-runtime", VERSION),
    *(("org.apache.logging.log4j", name, LOG4J_VERSION) for name in ("log4j-slf4j-impl", "log4j-core", "log4j-api")),
)
MAIL, TABLES = ("mail\\..*", "control\\..*"), ("postroad-.*-changelog",)
INTERNAL = (
    "offset.storage",
    "status.storage",
    "config.storage",
    "checkpoints.topic",
    "heartbeats.topic",
    "offset-syncs.topic",
)


class Mirror:
    """One mirror of the topics that `topics` names (regular expressions); `name` tells several into one cluster apart. `replication_factor`:
    of what it creates in the target."""

    def __init__(
        self, folder: Path, source: str, target: str, *, name: str = "", topics: Sequence[str] = (*MAIL, *TABLES),
        replication_factor: int = 1,
    ):  # fmt: skip
        self.folder, self.process = folder.absolute(), None
        a, b = f"{name}a", f"{name}b"
        self.properties = {
            "clusters": f"{a}, {b}", f"{a}.bootstrap.servers": source, f"{b}.bootstrap.servers": target,
            f"{a}->{b}.enabled": "true", f"{b}->{a}.enabled": "false", f"{a}->{b}.topics": ",".join(topics), "tasks.max": "2",
            "replication.policy.class": "org.apache.kafka.connect.mirror.IdentityReplicationPolicy",
            "offset-syncs.topic.location": "target", "refresh.topics.interval.seconds": "5",
            # settings of topics are the target's own: submissions keep the time that they have in the source
            "sync.topic.configs.enabled": "false", "sync.topic.acls.enabled": "false", "sync.group.offsets.enabled": "false",
            "emit.checkpoints.enabled": "false", "emit.heartbeats.enabled": "false", "offset.flush.interval.ms": "1000",
            f"{b}.producer.max.request.size": str(LARGEST_RECORD), f"{a}.consumer.max.partition.fetch.bytes": str(LARGEST_RECORD),
            f"{a}.consumer.fetch.max.wait.ms": "50", "replication.factor": str(replication_factor),
            **{f"{what}.replication.factor": str(replication_factor) for what in INTERNAL},
            "offset.storage.partitions": "1", "status.storage.partitions": "1", "dedicated.mode.enable.internal.rest": "false",
        }  # fmt: skip

    process: subprocess.Popen[bytes] | None

    def start(self) -> Self:
        """The process; it copies some seconds later."""
        self.folder.mkdir(parents=True, exist_ok=True)
        values, log4j = self.folder / "mm2.properties", self.folder / "log4j2.properties"
        values.write_text(
            "".join(f"{key} = {value}\n".replace("\\", "\\\\") for key, value in self.properties.items()), "utf-8"
        )
        log4j.write_text(LOG4J, "utf-8")
        libs = jars(name="mirror", dependencies=DEPENDENCIES)
        self.process = child.spawn(
            ["java", *JVM, "-Xmx384m", f"-Dkafka.log.file={self.folder / 'mirror.log'}", f"-Dlog4j2.configurationFile={log4j}",
             "-cp", f"{libs}/*", "org.apache.kafka.connect.mirror.MirrorMaker", str(values)],
            self.folder / "mirror.out",
        )  # fmt: skip
        return self

    def stop(self, grace_s: float = 15.0) -> None:
        """SIGTERM: what it has read is written."""
        process, self.process = self.process, None
        if process is not None:
            child.stop(process, grace_s)

    def kill(self) -> None:
        """kill -9."""
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.wait()

    def said(self, lines: int = 20) -> str:
        """The end of its logs."""
        return "\n".join(child.tail(self.folder / name, lines) for name in ("mirror.out", "mirror.log"))

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
