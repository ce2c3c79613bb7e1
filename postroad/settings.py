"""Every setting of an installation: from the environment (`POSTROAD_<NAME>`), then one TOML file, then the default.

The file is `./postroad.toml` when it is there, or what `POSTROAD_CONFIG` names. An unknown or wrong setting, in either
place, is a `SettingsError` that names it and says what is allowed. `postroad settings` lists them all.
"""

from __future__ import annotations

import difflib
import os
import re
import socket
import tomllib
from collections.abc import Mapping
from functools import lru_cache
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import quote

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
)
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings import SettingsError as SourceError

from postroad.addresses import normalise
from postroad.checks import SIZE_MAX
from postroad.egress import Pool, Source
from postroad.ledger import Allowed
from postroad.masking import Masking, Policy
from postroad.reputation import HOUR_MS, Thresholds
from postroad.retry import RetrySchedule
from postroad.returnpath import SECRET_MIN, ReturnPaths
from postroad.shaping.limits import Limits
from postroad.smtp_timeouts import SmtpTimeouts
from postroad.webhooks.guard import Rules

PREFIX = "POSTROAD_"
CONFIG = "POSTROAD_CONFIG"
READY_FILE = "POSTROAD_READY_FILE"  # where a worker says that it has its partitions: from the supervisor, not a setting
NOT_SETTINGS = frozenset({CONFIG, READY_FILE})
DEFAULT_FILE = "postroad.toml"


class SettingsError(ValueError):
    """A setting is unknown or wrong; the text has one line for each of them."""


def _host_port(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError("must be host:port with a port from 1 to 65535")
    return value


def _bootstrap(value: str) -> str:
    return ",".join(_host_port(part.strip()) for part in value.split(","))


def _optional_host_port(value: str) -> str:
    return _host_port(value) if value else value


def _secret(value: SecretStr) -> SecretStr:
    if len(value) < SECRET_MIN:
        raise ValueError(f"must have {SECRET_MIN} characters or more, such as `openssl rand -hex 16` prints")
    return value


def _of_tenant(address: str, info: ValidationInfo) -> str:
    if bool(address) != bool(info.data.get("notices_tenant")):
        raise ValueError("notices_tenant and notices_from are set together")
    return normalise(address).text if address else ""


def _hashable(policy: Policy, info: ValidationInfo) -> Policy:
    if policy == "hash" and not info.data.get("analytics_address_secret"):
        raise ValueError("hash wants analytics_address_secret, or anybody could try addresses out")
    return policy


def _words(value: Any) -> Any:
    return [word.strip() for word in value.split(",") if word.strip()] if isinstance(value, str) else value


def _addresses(values: list[str]) -> list[str]:
    return [normalise(value).text.lower() for value in values]


def _domains(values: list[str]) -> list[str]:
    return [normalise(f"postmaster@{value}").ascii_domain for value in values]


def _networks(values: list[str]) -> list[str]:
    return [str(ip_network(value)) for value in values]


HostPort = Annotated[str, AfterValidator(_host_port)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seconds = Positive
Count = Annotated[int, Field(ge=1)]
Secrets = Annotated[list[Annotated[SecretStr, AfterValidator(_secret)]], NoDecode, BeforeValidator(_words)]
HostPorts = Annotated[list[HostPort], NoDecode, BeforeValidator(_words)]
SecondsList = Annotated[list[Seconds], NoDecode, BeforeValidator(_words)]
Share = Annotated[float, Field(ge=0, lt=1)]
Rate = Annotated[float, Field(gt=0, le=1)]
FilePath = Annotated[Path | None, BeforeValidator(lambda value: value or None)]


class _Part(BaseModel):
    """A table of the TOML file."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class EgressSource(_Part):
    """An address that mail leaves from and the name it gives in EHLO."""

    name: Annotated[str, Field(min_length=1)]
    address: str = ""
    ehlo: str = ""
    weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0


class ClickhouseReader(_Part):
    """Who sees the rows of one tenant in the local ClickHouse."""

    tenant: Annotated[str, Field(min_length=1)]
    password_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


def _guarded(readers: dict[str, ClickhouseReader], info: ValidationInfo) -> dict[str, ClickhouseReader]:
    if readers and not info.data.get("clickhouse_http_secret"):
        raise ValueError("readers want clickhouse_http_secret, or one would see all rows without his name")
    if "default" in readers:
        raise ValueError("`default` is who sees all rows, with clickhouse_http_secret")
    return readers


def _some_weight(sources: list[EgressSource]) -> list[EgressSource]:
    if not any(source.weight for source in sources):
        raise ValueError("a pool needs a source with a weight above 0")
    return sources


class Settings(BaseSettings):
    """The settings. Sizes in MiB or bytes and times in seconds or hours, as the name says."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True, env_ignore_empty=False)

    kafka: Annotated[str, AfterValidator(_bootstrap)] = Field(
        "127.0.0.1:9092", description="Kafka brokers, host:port separated by commas")  # fmt: skip
    schema_registry: str = Field(
        "", pattern=r"^(https?://.+)?$",
        description="URL of a registry with Confluent's REST API; empty: single-object encoding")  # fmt: skip
    topic_prefix: str = Field(
        "", pattern=r"^[A-Za-z0-9._-]{0,100}$", description="in front of every topic and group name")  # fmt: skip
    partitions: int = Field(4, ge=1, le=4096, description="of every keyed topic; for life, choose once")
    replication_factor: int = Field(1, ge=1, le=16, description="replicas of every topic; 3 on a cluster")
    kafka_session_timeout_s: Seconds = Field(
        10.0, description="a worker silent for so long loses its partitions, seconds")  # fmt: skip
    delivery_timeout_s: Seconds = Field(
        60.0, description="a worker whose output cannot be stored for so long ends itself, seconds")  # fmt: skip
    broadcast_road_max: Count = Field(
        500, description="broadcast submissions wait in their topic while so many messages are on the road behind ingest")  # fmt: skip
    stall_timeout_s: Seconds = Field(
        60.0, description="a worker that does nothing for so long though there is work ends itself, seconds")  # fmt: skip
    grace_s: Seconds = Field(
        30.0, description="what has begun may end for so long when a worker is told to stop; its supervisor waits longer, seconds")  # fmt: skip
    instance_id: str = Field(
        "", pattern=r"^[A-Za-z0-9._-]{0,200}$",
        description="static member name, unique per replica (StatefulSet ordinal): fast restarts; empty: none")  # fmt: skip

    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="lines that processes log to stderr: json, text for people, or auto: text on a terminal, else json")  # fmt: skip
    log_level: Literal["info", "warning", "error"] = Field(
        "info", description="least of their lines; of libraries warning at least")  # fmt: skip

    data_dir: Path = Field(
        Path(".local/data"),
        description="folder of RocksDB, chdb and the local blob store, one per worker; `up` keeps kafka/ and logs/ beside it",
    )
    cache_entries: int = Field(20_000, ge=0, description="values of a stage kept decoded, per partition")
    rocksdb_cache_mib: int = Field(8, ge=1, description="block cache per stage and partition, MiB")
    rocksdb_write_buffer_mib: int = Field(4, ge=1, description="each of two write buffers per stage and partition, MiB")
    content_url: str = Field(
        "", description="blob store for bodies, one for all workers: file:///, s3://, gs:// or az:// URL; empty: data_dir/content")  # fmt: skip
    content_inline_max: int = Field(
        32_768, ge=0, le=256 << 10, description="bodies up to so many bytes travel inside the record")  # fmt: skip

    clickhouse: str = Field(
        "", pattern=r"^((clickhouses?|chdb)://.+)?$",
        description="clickhouse://user:password@host:port/database (native protocol), or chdb:///folder, of one process; empty: chdb in data_dir")  # fmt: skip
    clickhouse_cluster: str = Field(
        "", pattern=r"^[A-Za-z0-9._-]{0,100}$",
        description="name of the cluster that `clickhouse` is a host of: tables replicated and sharded; empty: one server")  # fmt: skip
    events_days: Count = Field(
        90, description="`postroad analytics retain` drops days of events that are older, days; rollups stay")  # fmt: skip
    analytics_address_secret: Secrets = Field(
        [], description="what hashed addresses are keyed with, the first one: keep it, or counts of people begin anew")  # fmt: skip
    analytics_addresses: Annotated[Policy, AfterValidator(_hashable)] = Field(
        "plain", description="recipients in ClickHouse: plain, hash (wants analytics_address_secret) or none; of what comes from then on")  # fmt: skip
    clickhouse_http: Annotated[str, AfterValidator(_optional_host_port)] = Field(
        "127.0.0.1:8123", description="host:port where chdb answers ClickHouse's HTTP interface; empty: nowhere")  # fmt: skip
    clickhouse_http_secret: Secrets = Field(
        [], description="password of user `default` there, who sees all rows; empty: everybody on this machine does")  # fmt: skip
    clickhouse_readers: Annotated[dict[str, ClickhouseReader], AfterValidator(_guarded)] = Field(
        {}, description="who else may read there, of one tenant: name: {tenant, password_sha256}; `postroad analytics reader` makes one")  # fmt: skip

    metrics: Annotated[str, AfterValidator(_optional_host_port)] = Field(
        "", description="host:port where a worker answers Prometheus; empty: nowhere")  # fmt: skip

    tracing_endpoint: str = Field(
        "", pattern=r"^(https?://.+)?$",
        description="URL of an OpenTelemetry collector (OTLP over HTTP), such as http://127.0.0.1:4318; empty: nothing is traced")  # fmt: skip
    trace_sample: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(
        {"default": 0.01},
        description="share of a tenant's submissions that are traced at most, by tenant; `default`: of those not named, 0 without it")  # fmt: skip

    dns_servers: HostPorts = Field(
        [], description="resolvers, host:port, in the environment separated by commas; empty: the system's")  # fmt: skip
    dns_timeout_s: Seconds = Field(5.0, description="of one look-up with its repeats; later: put off, seconds")
    smtp_port: int = Field(25, ge=1, le=65535, description="of receiving MX hosts")
    smtp_timeout_scale: float = Field(
        1.0, gt=0, le=10, description="times the time-outs of RFC 5321 4.5.3.2")  # fmt: skip
    size_max: int = Field(SIZE_MAX, ge=1024, description="largest message as built, bytes")
    send_concurrency: int = Field(200, ge=1, le=4096, description="deliveries at a time, per worker")

    shaping: FilePath | None = Field(
        None, description="TOML file of limits per site, source and tenant, over those that are shipped; `postroad shaping check`")  # fmt: skip
    ehlo: str = Field(default_factory=socket.getfqdn, description="EHLO name of egress sources without their own")
    egress: dict[str, Annotated[list[EgressSource], AfterValidator(_some_weight)]] = Field(
        {"default": [EgressSource(name="default")]},
        description='egress pools: [[egress.default]] name = "a", address = "192.0.2.1", ehlo = "a.example.com", weight = 1',
    )

    spf_include: str = Field(
        "", pattern=r"^([A-Za-z0-9_-]+\.)*[A-Za-z0-9_-]*$",
        description="name of the SPF record with our addresses, which tenants' domains include")  # fmt: skip
    return_path_host: str = Field(
        "", pattern=r"^([A-Za-z0-9_-]+\.)*[A-Za-z0-9_-]*$",
        description="host that takes bounces: tenants' return path domains are CNAMEs of it")  # fmt: skip
    return_path_secret: Secrets = Field(
        [], description="signs return paths, the same for all workers; several: the first signs, all are believed; empty: anybody can forge them")  # fmt: skip
    return_path_unsigned: bool = Field(
        False, description="believe bounces to return paths without a signature, for a week after an upgrade")  # fmt: skip

    feedback_id: str = Field(
        "postroad", pattern=r"^[A-Za-z0-9._-]{1,60}$", description="this installation's name in Feedback-ID, its last part")  # fmt: skip
    feedback_addresses: Annotated[list[str], NoDecode, BeforeValidator(_words), AfterValidator(_addresses)] = Field(
        [], description="addresses that feedback loops send complaints to, in the environment separated by commas")  # fmt: skip
    inbound: Annotated[str, AfterValidator(_optional_host_port)] = Field(
        "", description="host:port where `postroad gateway inbound` takes bounces and complaints; `up` starts it; empty: nowhere")  # fmt: skip
    inbound_domains: Annotated[list[str], NoDecode, BeforeValidator(_words), AfterValidator(_domains)] = Field(
        [], description="domains that it takes bounces for, besides the tenants' return path domains")  # fmt: skip
    inbound_host: str = Field(
        "", pattern=r"^([A-Za-z0-9_-]+\.)*[A-Za-z0-9_-]*$", description="name in its greeting; empty: return_path_host, or ehlo")  # fmt: skip
    inbound_certificate: FilePath | None = Field(
        None, description="PEM file of its certificate chain; empty: self-signed, made in data_dir")  # fmt: skip
    inbound_key: FilePath | None = Field(None, description="PEM file of the key; empty: in the file of the certificate")
    inbound_size_max: int = Field(10 << 20, ge=64 << 10, description="largest mail that it takes, bytes")
    inbound_connections: Count = Field(500, description="its connections at a time")
    inbound_peer_connections: Count = Field(20, description="the same of one address (IPv6: of one /64)")
    inbound_peer_per_minute: Count = Field(
        600, description="mails a minute of one address, and four times as many connections"
    )
    inbound_recipients: Count = Field(100, description="recipients of one mail")
    inbound_timeout_s: Seconds = Field(
        300.0, description="a peer that sends no whole command, or mail, for so long is let go, seconds")  # fmt: skip

    expires_hours: Positive = Field(
        72.0, description="a message is tried for so long, hours; submissions may ask for less"
    )
    retry_delays_s: SecondsList = Field(
        [300, 900, 3_600, 7_200, 14_400], min_length=1,
        description="waits between tries, seconds; the last one repeats")  # fmt: skip
    greylist_s: SecondsList = Field(
        [60, 270, 600], min_length=1,
        description="the same after replies that say greylisted")  # fmt: skip
    retry_jitter: Share = Field(0.1, description="share of a wait by which it varies either way, from 0 to below 1")

    api: Annotated[str, AfterValidator(_optional_host_port)] = Field(
        "", description="host:port where `postroad gateway api` answers REST; `up` starts it; empty: nowhere")  # fmt: skip
    api_certificate: FilePath | None = Field(
        None, description="PEM file of its certificate chain, for https; empty: http, for loopback or behind a proxy with TLS")  # fmt: skip
    api_key: FilePath | None = Field(None, description="PEM file of the key; empty: in the file of the certificate")
    api_proxies: str = Field(
        "", description="addresses of proxies whose X-Forwarded-For is believed, separated by commas; empty: nobody's")  # fmt: skip
    api_tenant_per_second: Positive = Field(5_000.0, description="requests a second of one tenant, over all replicas")
    api_key_per_second: Positive = Field(5_000.0, description="the same of one key that has no rate of its own")
    api_timeout_s: Seconds = Field(
        30.0, description="a client that sends nothing of its request for so long is let go, seconds")  # fmt: skip
    api_token_secret: Secrets = Field(
        [], description="signs OAuth2 tokens, the same for all replicas; several: the first signs, all are believed; empty: no tokens")  # fmt: skip
    api_token_s: Seconds = Field(3_600.0, description="life of an OAuth2 token, seconds")

    submission: Annotated[str, AfterValidator(_optional_host_port)] = Field(
        "", description="host:port where `postroad gateway smtp` takes mail after STARTTLS, 587 by rule; `up` starts it; empty: nowhere")  # fmt: skip
    submission_tls: Annotated[str, AfterValidator(_optional_host_port)] = Field(
        "", description="the same where connections begin with TLS, 465 by rule; empty: nowhere")  # fmt: skip
    submission_host: str = Field(
        "", pattern=r"^([A-Za-z0-9_-]+\.)*[A-Za-z0-9_-]*$", description="name in its greeting; empty: ehlo")  # fmt: skip
    submission_certificate: FilePath | None = Field(
        None, description="PEM file of its certificate chain; empty: self-signed, made in data_dir, which clients refuse unless told not to")  # fmt: skip
    submission_key: FilePath | None = Field(
        None, description="PEM file of the key; empty: in the file of the certificate")  # fmt: skip
    submission_connections: Count = Field(1_000, description="its connections at a time")
    submission_peer_connections: Count = Field(200, description="the same of one address (IPv6: of one /64)")
    submission_sender_per_second: Positive = Field(
        1_000.0, description="mails a second of one sender address of a tenant, over all replicas")  # fmt: skip
    submission_timeout_s: Seconds = Field(
        300.0, description="a client that sends no whole command, or mail, for so long is let go, seconds")  # fmt: skip

    notices_tenant: str = Field(
        "", max_length=64, description="tenant as whom tenants' contacts are written to, when a webhook of theirs was disabled; empty: they are not")  # fmt: skip
    notices_from: Annotated[str, AfterValidator(_of_tenant)] = Field(
        "", description="address that such mail is from, of a domain of notices_tenant")  # fmt: skip

    webhook_http: bool = Field(False, description="webhooks may be http, without TLS: for demo and tests")
    webhook_networks: Annotated[list[str], NoDecode, BeforeValidator(_words), AfterValidator(_networks)] = Field(
        [], description="networks that are not public and that webhooks may reach all the same, such as 10.1.0.0/16, separated by commas")  # fmt: skip
    webhook_timeout_s: Seconds = Field(
        15.0, description="of one try of a webhook, from the name look-up to the end of the answer, seconds")  # fmt: skip
    webhook_secret_key: Secrets = Field(
        [], description="seals the secrets of webhooks in control.webhooks, the same for gateways, workers and commands; several: the first seals, all open; empty: plain text")  # fmt: skip

    audit_transit_s: Seconds = Field(
        600.0, description="a message that takes no step for so long, and does not wait, is told as lost, seconds")  # fmt: skip
    audit_sending_s: Seconds = Field(
        7200.0, description="the same for one that was routed: as long as an attempt may take, seconds")  # fmt: skip

    reputation_pool: str = Field(
        "", description="egress pool for mail whose sender, or whose own pool, is on hold by its reputation; empty: none")  # fmt: skip
    reputation_complaint_warn: Rate = Field(
        0.001, description="complaints of delivered mails from which on warn; 1: never"
    )
    reputation_complaint_hold: Rate = Field(0.003, description="the same for hold")
    reputation_bounce_warn: Rate = Field(0.05, description="bounces of mails sent from which on warn; 1: never")
    reputation_bounce_hold: Rate = Field(0.10, description="the same for hold")
    reputation_sample: Count = Field(100, description="mails, decayed, before a rate says anything")
    reputation_half_life_hours: Positive = Field(24.0, description="what is so old counts half, hours")
    reputation_hold_hours: Positive = Field(
        24.0, description="longest hold, then on warn and judged by what comes, hours"
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment before what `read` passes in, which is the TOML file; no .env, no secrets folder."""
        return env_settings, init_settings

    def limits(self) -> Limits:
        """What holds where no shaping file says anything."""
        return Limits(
            timeouts=SmtpTimeouts(scale=self.smtp_timeout_scale),
            retry=RetrySchedule(tuple(self.retry_delays_s), self.retry_jitter, tuple(self.greylist_s)),
        )

    def pools(self) -> dict[str, Pool]:
        """The egress pools by name."""
        return {
            name: Pool(name, tuple(Source(s.name, s.address, s.ehlo or self.ehlo, s.weight) for s in sources))
            for name, sources in self.egress.items()
        }

    def return_paths(self) -> ReturnPaths:
        """What signs and reads return paths. Without a secret the name of the installation is one that workers share and
        nobody needs to guess: enough for one machine that takes no mail from outside."""
        secrets = [secret.get_secret_value().encode() for secret in self.return_path_secret]
        known = secrets or [f"no secret of {self.topic_prefix}".encode()]
        return ReturnPaths(known, unsigned=self.return_path_unsigned)

    def masking(self) -> Masking:
        """How addresses are kept in ClickHouse."""
        secrets = [secret.get_secret_value() for secret in self.analytics_address_secret]
        return Masking(self.analytics_addresses, secrets[0] if secrets else "")

    def allowed(self) -> Allowed:
        """How long a message may stay in its state before the audit tells it."""
        return Allowed(
            transit_ms=round(self.audit_transit_s * 1000),
            sending_ms=round(self.audit_sending_s * 1000),
            expires_ms=round(self.expires_hours * 3_600_000),
        )

    def webhook_rules(self) -> Rules:
        """Where webhooks may go, and how long a try takes."""
        keys = tuple(key.get_secret_value() for key in self.webhook_secret_key)
        return Rules(
            tuple(self.webhook_networks), self.webhook_http, self.webhook_timeout_s, tuple(self.dns_servers), keys
        )

    def thresholds(self) -> Thresholds:
        """At which rates a reputation takes its steps."""
        return Thresholds(
            self.reputation_complaint_warn, self.reputation_complaint_hold, self.reputation_bounce_warn, self.reputation_bounce_hold,
            self.reputation_sample, round(self.reputation_half_life_hours * HOUR_MS), round(self.reputation_hold_hours * HOUR_MS),
        )  # fmt: skip

    def installation(self) -> dict[str, Any]:
        """The arguments of topics.installation.Installation, which this package, without Kafka, cannot name."""
        return {
            "bootstrap": self.kafka, "prefix": self.topic_prefix, "partitions": self.partitions,
            "replication_factor": self.replication_factor, "registry_url": self.schema_registry,
            "data_dir": self.data_dir, "instance_id": self.instance_id,
            "session_s": self.kafka_session_timeout_s, "delivery_s": self.delivery_timeout_s,
            "stall_s": self.stall_timeout_s, "grace_s": self.grace_s, "road_max": self.broadcast_road_max,
        }  # fmt: skip

    @property
    def warehouse(self) -> str:
        """URL where ClickHouse answers queries; empty: nowhere."""
        if self.clickhouse or not self.clickhouse_http:
            return self.clickhouse
        secret = self.clickhouse_http_secret
        user = f"default:{quote(secret[0].get_secret_value(), safe='')}@" if secret else ""
        return f"http://{user}{self.clickhouse_http}"

    @property
    def content(self) -> str:
        """URL of the blob store."""
        return self.content_url or (self.data_dir.absolute() / "content").as_uri()


class Listed(NamedTuple):
    """One line of `postroad settings`, ready to show: passwords are masked."""

    name: str
    value: str
    default: str
    source: str
    description: str


def read(file: Path | None = None) -> Settings:
    """The settings from the environment and `file` (default: see above); raises SettingsError with every fault."""
    table, origin = _table(file)
    faults = [_unknown(name, f"{origin}: {name}") for name in table if name not in Settings.model_fields]
    for variable in os.environ:
        name = variable.removeprefix(PREFIX).lower()
        if variable.startswith(PREFIX) and variable not in NOT_SETTINGS and name not in Settings.model_fields:
            faults.append(_unknown(name, variable))
    try:
        settings = Settings(**{name: value for name, value in table.items() if name in Settings.model_fields})
    except SourceError as error:  # an environment variable that should be JSON
        found = re.search(r'field "(\w+)"', str(error))
        name = found[1] if found else ""
        faults.append(
            f"{PREFIX}{name.upper()}: must be JSON ({Settings.model_fields[name].description})" if name else str(error)
        )
    except ValidationError as error:
        faults += [_fault(item, origin) for item in error.errors()]
    if faults:
        raise SettingsError("\n".join(faults))
    return settings


@lru_cache(maxsize=1)
def load() -> Settings:
    """`read()`, once per process; `load.cache_clear()` after a change of the environment."""
    return read()


def listing(settings: Settings, file: Path | None = None) -> list[Listed]:
    """Every setting with its value and where that came from."""
    table, origin = _table(file)
    lines = []
    for name, field in Settings.model_fields.items():
        source = PREFIX + name.upper() if _variable(name) else origin if name in table else "default"
        default = _shown(field.get_default(call_default_factory=True))
        lines.append(Listed(name, _shown(getattr(settings, name)), default, source, field.description or ""))
    return lines


def _table(file: Path | None) -> tuple[Mapping[str, Any], str]:
    named = file or (Path(os.environ[CONFIG]) if os.environ.get(CONFIG) else None)
    path = named or Path(DEFAULT_FILE)
    if named is None and not path.exists():
        return {}, ""
    try:
        return tomllib.loads(path.read_text("utf-8")), str(path)
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror}); {CONFIG} must name a TOML file") from None
    except (
        ValueError,
        RecursionError,
    ) as error:  # not TOML, not UTF-8, a number of 5,000 digits, a list in a list in a list...
        raise SettingsError(f"{path}: not TOML: {error}") from None


def _variable(name: str) -> str | None:
    """The environment variable that sets `name`; pydantic takes either case."""
    return next((key for key in os.environ if key.upper() == PREFIX + name.upper()), None)


def _unknown(name: str, where: str) -> str:
    close = difflib.get_close_matches(name, Settings.model_fields, n=1)
    hint = f"did you mean {close[0]}?" if close else "`postroad settings` lists them all"
    return f"{where}: no such setting; {hint}"


def _fault(item: Any, origin: str) -> str:
    """One line for one of pydantic's errors: where it stands, its value, what is wrong, what is meant."""
    name, *inner = item["loc"]
    variable = _variable(str(name))
    where = variable or f"{origin}: {name}"
    path = "" if str(name).endswith("_secret") else "".join(f".{part}" for part in inner)
    told = item["type"] != "extra_forbidden" and not str(name).endswith(("_secret", "_readers"))
    value = f" = {_shown(item['input'])}" if told else ""
    message = "no such key" if item["type"] == "extra_forbidden" else item["msg"].removeprefix("Value error, ")
    return f"{where}{path}{value}: {message} ({name}: {Settings.model_fields[name].description})"


def _shown(value: Any) -> str:
    """Text for people; the password of a URL is masked."""
    if isinstance(value, BaseModel):
        text = value.model_dump_json(exclude_none=True)
    elif isinstance(value, dict):
        text = ", ".join(f"{key}: {_shown(item)}" for key, item in value.items())
    elif isinstance(value, list):
        text = ", ".join(map(_shown, value))
    else:
        text = str(value)
    return without_password(text)


def without_password(text: str) -> str:
    """With the passwords of URLs masked."""
    return re.sub(r"(://[^/:@\s]*):[^@\s]*@", r"\1:***@", text)
