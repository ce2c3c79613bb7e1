"""Apache Kafka on this machine: one KRaft process (broker and controller), our child, on loopback, with a data folder.

    with Kafka(Path(".local/kafka"), port=9092) as kafka:   # jars by Maven and formatting on first use; data is kept
        ... kafka.bootstrap ...

`stop()` is a clean shutdown, `kill()` is kill -9. `start()` after either, on the same port, keeps every record that was
acknowledged with acks=all: the page cache belongs to the kernel. Only a power cut can lose some, with one broker.

Jars and class archive alone, as `make` does it: `python -m deploy.local.kafka`.
"""

from __future__ import annotations

import asyncio
import base64
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from aiokafka.admin import AIOKafkaAdminClient

from deploy.local import STATE, child

VERSION = "4.1.2"
LOG4J_VERSION = "2.25.4"
LOOPBACK = "127.0.0.1"

# kafka_2.13 brings slf4j-api 1.7 and no binding: without log4j-slf4j-impl (not slf4j2) the broker logs nothing.
DEPENDENCIES = (
    ("org.apache.kafka", "kafka_2.13", VERSION),
    ("org.apache.logging.log4j", "log4j-slf4j-impl", LOG4J_VERSION),
    ("org.apache.logging.log4j", "log4j-core", LOG4J_VERSION),
    ("org.apache.logging.log4j", "log4j-api", LOG4J_VERSION),
)
POM = """<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>local</groupId><artifactId>local-kafka</artifactId><version>1</version><packaging>pom</packaging>
<dependencies>
{}
</dependencies></project>
"""
DEPENDENCY = "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>"

LOG4J = """status = error
appender.file.type = RollingFile
appender.file.name = file
appender.file.fileName = ${sys:kafka.log.file}
appender.file.filePattern = ${sys:kafka.log.file}.%i
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d %p %c: %m%n
appender.file.policies.type = Policies
appender.file.policies.size.type = SizeBasedTriggeringPolicy
appender.file.policies.size.size = 16MB
appender.file.strategy.type = DefaultRolloverStrategy
appender.file.strategy.max = 2
rootLogger.level = WARN
rootLogger.appenderRef.file.ref = file
"""

# One collector thread and the first JIT stage only: ready in 1.4 s instead of 1.9, and no dearer in the first minutes.
JVM = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-Djava.awt.headless=true")

ARCHIVE = "broker.jsa"

LARGEST_RECORD = 10 << 20  # above the largest max.message.bytes in topics/catalogue.py


class BrokerUnavailable(RuntimeError):
    """The broker cannot be started; the text says why and what to do."""


class BrokerDied(BrokerUnavailable):
    """The broker process ended while we waited for it; the text carries the end of its log."""


def jars(
    folder: Path = STATE, name: str = "kafka", dependencies: Sequence[tuple[str, str, str]] = DEPENDENCIES
) -> Path:
    """Folder of the broker's jars below `folder`, or of others; Maven fills it on first use (45 jars, 43 MB)."""
    home = folder / f"{name}-{VERSION}"
    libs = home / "libs"
    if not (home / "complete").exists():
        if shutil.which("mvn") is None:
            raise FileNotFoundError("Maven (mvn) is missing: install the package maven, or run `make setup`")
        home.mkdir(parents=True, exist_ok=True)
        (home / "pom.xml").write_text(POM.format("\n".join(DEPENDENCY.format(*d) for d in dependencies)), "utf-8")
        subprocess.run(
            ["mvn", "-q", "-B", "-Dstyle.color=never", "dependency:copy-dependencies", f"-DoutputDirectory={libs}"],
            cwd=home,
            check=True,
        )
        (home / "complete").touch()
    return libs


def archive_classes() -> None:
    """Run a broker once to keep its loaded classes beside the jars (AppCDS, 50 MB): each later start takes 1.0 s, not 1.8."""
    archive = jars().parent / ARCHIVE
    if not archive.exists():
        with tempfile.TemporaryDirectory() as folder:
            scratch = Path(folder) / ARCHIVE
            kafka = Kafka(Path(folder), jvm=(f"-XX:ArchiveClassesAtExit={scratch}",)).start()
            kafka.stop(grace_s=120)
            shutil.copyfile(scratch, archive.with_suffix(".tmp"))
            archive.with_suffix(".tmp").rename(archive)


def free_port() -> int:
    """A TCP port of loopback that nobody listens on now."""
    with socket.socket() as s:
        s.bind((LOOPBACK, 0))
        return int(s.getsockname()[1])


class Kafka:
    """One broker. `folder` holds all of it: its properties, ports, log and data.

    `port` 0 chooses a free one on first start and keeps it in the folder, as the controller's always is, so clients find
    the broker again after a restart. `config` overrides broker settings, among them those of a cluster of several
    (controller.quorum.voters and the replication factors; node ids must differ).
    """

    def __init__(
        self, folder: Path, *, port: int = 0, node_id: int = 1, heap: str = "256m",
        config: Mapping[str, str] | None = None, jvm: Sequence[str] = (),
    ):  # fmt: skip
        self.folder, self.node_id, self.heap = folder.absolute(), node_id, heap
        self.config = dict(config or {})
        self.process: subprocess.Popen[bytes] | None = None
        self._port, self._jvm = port, tuple(jvm)

    @property
    def ports(self) -> tuple[int, int]:
        """Ports of the broker and of its controller."""
        file = self.folder / "ports"
        if not file.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{self._port or free_port()} {free_port()}", "ascii")
        broker, controller = file.read_text("ascii").split()
        return self._port or int(broker), int(controller)

    @property
    def bootstrap(self) -> str:
        """host:port for clients."""
        return f"{LOOPBACK}:{self.ports[0]}"

    def start(self, timeout_s: float = 60.0) -> Self:
        """Start and return when the broker answers; raises BrokerDied, TimeoutError."""
        self.spawn()
        self.wait_ready(timeout_s)
        return self

    def spawn(self) -> None:
        """Start the process, do not wait. Main thread only (child.spawn)."""
        if self.process is not None and self.process.poll() is None:
            raise RuntimeError(f"the broker in {self.folder} runs already")
        if shutil.which("java") is None:
            raise FileNotFoundError("Java 17 is missing: install openjdk-17-jdk-headless, or run `make setup`")
        self._write_properties()
        self._wait_for_predecessor()
        properties = str(self.folder / "server.properties")
        if not (self.folder / "data" / "meta.properties").exists():
            cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
            # with "=": one id in 64 begins with a hyphen and would be taken for an option
            options = [f"--cluster-id={self.config.get('cluster.id', cluster)}", f"--config={properties}"]
            command = [*self._java("128m"), "kafka.tools.StorageTool", "format", *options]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise BrokerDied(f"the data folder cannot be formatted\n{done.stdout}{done.stderr}")
        self.process = child.spawn([*self._java(self.heap), "kafka.Kafka", properties], self.folder / "broker.out")
        (self.folder / "pid").write_text(str(self.process.pid), "ascii")

    def wait_ready(self, timeout_s: float = 60.0) -> None:
        """Until the broker lists itself in its metadata: an open port alone comes before it takes requests."""
        with ThreadPoolExecutor(1) as pool:  # a loop in a thread of its own: callers may be inside a loop themselves
            pool.submit(asyncio.run, self._wait_ready(timeout_s)).result()

    def stop(self, grace_s: float = 30.0) -> None:
        """SIGTERM: flushes and marks the data as clean, so the next start checks nothing."""
        process, self.process = self.process, None
        if process is not None:
            child.stop(process, grace_s)

    def kill(self) -> None:
        """kill -9, as a crash."""
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.wait()

    def log_tail(self, lines: int = 20) -> str:
        """The end of what the broker said."""
        return "\n".join(child.tail(self.folder / name, lines) for name in ("broker.out", "broker.log"))

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _write_properties(self) -> None:
        broker, controller = self.ports
        values = {
            "process.roles": "broker,controller",
            "node.id": str(self.node_id),
            "controller.quorum.voters": f"{self.node_id}@{LOOPBACK}:{controller}",
            "listeners": f"PLAINTEXT://{LOOPBACK}:{broker},CONTROLLER://{LOOPBACK}:{controller}",
            "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{broker}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": str(self.folder / "data"),
            # one broker: internal topics have one replica, else the first join of a group fails for ever
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            # 50 by default: 50 folders and 100 files for nothing
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.num.partitions": "4",
            "group.initial.rebalance.delay.ms": "0",  # default 3000: every first join waits 3 s
            "auto.create.topics.enable": "false",  # a misspelt topic must fail, not appear with one partition
            "broker.session.timeout.ms": "6000",  # after kill -9 the broker is ready when its old session ends
            "broker.heartbeat.interval.ms": "1000",
            "message.max.bytes": str(LARGEST_RECORD),
            "replica.fetch.max.bytes": str(LARGEST_RECORD),
            "num.network.threads": "2",
            "num.io.threads": "4",
            "log.cleaner.dedupe.buffer.size": "16777216",  # default 128 MiB of heap, allocated at start
            "log.cleaner.backoff.ms": "5000",
            **self.config,
        }
        values.pop("cluster.id", None)  # ours, for the formatting of several brokers
        (self.folder / "server.properties").write_text("".join(f"{k}={v}\n" for k, v in values.items()), "utf-8")
        (self.folder / "log4j2.properties").write_text(LOG4J, "utf-8")

    def _java(self, heap: str) -> list[str]:
        libs = jars()
        archive = libs.parent / ARCHIVE  # of other jars or another Java: the JVM starts without it
        options = self._jvm or ((f"-XX:SharedArchiveFile={archive}",) if archive.exists() else ())
        return [
            "java", *JVM, *options, f"-Xmx{heap}", f"-Dkafka.log.file={self.folder / 'broker.log'}",
            f"-Dlog4j2.configurationFile={self.folder / 'log4j2.properties'}", "-cp", f"{libs}/*",
        ]  # fmt: skip

    def _wait_for_predecessor(self, timeout_s: float = 30.0) -> None:
        """A broker whose parent was killed is still shutting down: it holds the data folder and the port a little longer."""
        deadline = time.monotonic() + timeout_s
        while self._predecessor_lives():
            if time.monotonic() > deadline:
                pid = (self.folder / "pid").read_text("ascii")
                raise BrokerUnavailable(f"another broker (process {pid}) uses {self.folder}: stop it first")
            time.sleep(0.05)
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind((LOOPBACK, self.ports[0]))
            except OSError as error:
                raise BrokerUnavailable(
                    f"port {self.ports[0]} of {LOOPBACK} is taken ({error.strerror}): stop what listens there, or choose "
                    "another port for Kafka (POSTROAD_KAFKA)") from None  # fmt: skip

    def _predecessor_lives(self) -> bool:
        try:
            pid = int((self.folder / "pid").read_text("ascii"))
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return False
        return str(self.folder / "server.properties").encode() in command  # not a stranger who got the number since

    async def _wait_ready(self, timeout_s: float) -> None:
        process = self.process
        if process is None:
            raise RuntimeError("start the broker first")
        deadline = time.monotonic() + timeout_s
        while not await self._answers():
            if process.poll() is not None:
                raise BrokerDied(f"exit status {process.returncode}\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"no broker at {self.bootstrap} after {timeout_s:g} s\n{self.log_tail()}")
            await asyncio.sleep(0.05)

    async def _answers(self) -> bool:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap, request_timeout_ms=2000)
        try:
            _, writer = await asyncio.open_connection(
                LOOPBACK, self.ports[0]
            )  # aiokafka logs every refusal as an error
            writer.close()
            await admin.start()
            return any(broker["node_id"] == self.node_id for broker in (await admin.describe_cluster())["brokers"])
        except Exception:  # whatever it says while it starts, the question is asked again
            return False
        finally:
            await admin.close()


if __name__ == "__main__":
    archive_classes()
