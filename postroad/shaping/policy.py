"""shaping.toml: limits, rules and warm-up plans of an installation, laid over the shipped default.toml.

    [default]                                   # every site
    connections = 5
    [site."example"]                            # one operator's hosts are one site, whatever they are called
    hosts = ["*.example.net", "mx.example.com"]
    tls = "required"
    retry = {delays = ["10m", "1h"], jitter = 0.1}
    retry_broadcast = {delays = ["1h", "4h"]}   # of that stream; what it does not say is as in retry
    [source."a"]                                # an egress source, at every site
    messages_per_day = 10_000
    [site."example".source."a"]                 # that source at that site
    [tenant."acme".site."example"]              # a tenant, of all sources together
    messages_per_hour = 500
    [[rule]]                                    # automatic.py
    [warmup."b"]                                # warmup.py

What a later of default, site, source, source at a site says holds; a site is a name of the file, or as postroad.site has it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from postroad.shaping import fields
from postroad.shaping.automatic import Rule, rules_about
from postroad.shaping.layers import SIZE_MAX, Layers, read
from postroad.shaping.limits import BUILT_IN, SHARDS_MAX, Limits, TenantLimits
from postroad.shaping.reading import Fault, ShapingError, shown
from postroad.shaping.warmup import Plan

__all__ = ["Limits", "Policy", "Resolved", "ShapingError", "TenantLimits", "Watched", "load", "parse"]

SHIPPED = Path(__file__).with_name("default.toml")
LOOK_S = 1.0  # between two looks at the file
# Keys of the file that have another name in Limits.
_NAMES = {
    "new_connections_per_minute": "new_per_minute", "messages_per_second": "per_second", "messages_per_hour": "per_hour",
    "messages_per_day": "per_day", "idle": "idle_s", "broken_tls": "broken_tls_s",
}  # fmt: skip
_RETRY_NAMES = {"delays": "delays_s", "greylist": "greylist_s"}
BASE = "built in, or a setting"

log = logging.getLogger(__name__)


class Resolved(NamedTuple):
    """One key of the limits of a place. `where`: file and table that say so, or "built in"."""

    key: str
    value: Any
    where: str


class Policy:
    """One version of everything that the files say. Never changes; every look-up is a few dictionary look-ups."""

    def __init__(self, layers: Layers, base: Limits) -> None:
        """By `parse`. `base`: what no file says."""
        self._tables, self._base = layers.tables, base
        self.rules: tuple[Rule, ...] = tuple(rule for rule, _ in layers.rules)
        self.rule_origins: dict[str, str] = {rule.name: origin for rule, origin in layers.rules}
        self._sources = {path[-1] for path in self._tables if len(path) > 1 and path[-2] == "source"}
        self._tenants = {path[1] for path in self._tables if path[0] == "tenant"}
        self._sites = {path[-1] for path in self._tables if len(path) > 1 and path[-2] == "site"}
        self._names = {name.lower(): name for name in self._sites}  # of a site, by what its hosts are called
        for path, table in layers.tables.items():
            if "hosts" in table:
                self._names.update(dict.fromkeys(table["hosts"].value, path[1]))
        says = sorted(
            (list(path), key, repr(item.value)) for path, table in self._tables.items() for key, item in table.items()
        )
        text = json.dumps([says, [repr(_plain(rule)) for rule in self.rules], repr(base)])
        self.version = hashlib.sha256(text.encode()).hexdigest()[:12]
        self._limits: Callable[[str, str], Limits] = lru_cache(maxsize=4096)(self._resolve)
        self._rules: Callable[[str], tuple[Rule, ...]] = lru_cache(maxsize=4096)(
            lambda site: rules_about(self.rules, site)
        )

    def site_of(self, site: str) -> str:
        """The file's name for a site, by this name or by that of one of its MX hosts; one that it does not know, as it is."""
        return self.named(site) or site

    def named(self, site: str) -> str | None:
        """The same; None of one that it does not know."""
        if site in self._sites:
            return site
        host = site.lower().rstrip(".")
        if name := self._names.get(host):
            return name
        while host:
            if name := self._names.get(f"*.{host}"):
                return name
            host = host.partition(".")[2]
        return None

    def limits(self, site: str, source: str = "") -> Limits:
        """The limits of a source at a site. Of a site that no file names, those of any such site."""
        name = self.site_of(site)
        return self._limits(name if name in self._sites else "", source if source in self._sources else "")

    def tenant(self, tenant: str, site: str) -> TenantLimits | None:
        """What one tenant may at a site; None: no limits of its own."""
        found: dict[str, Any] = {}
        for path in (("tenant", tenant), ("tenant", tenant, "site", self.site_of(site))):
            found.update({_NAMES.get(key, key): item.value for key, item in self._tables.get(path, {}).items()})
        return TenantLimits(**found) if any(value is not None for value in found.values()) else None

    def rules_of(self, site: str) -> tuple[Rule, ...]:
        """The rules that look at replies of a site."""
        return self._rules(self.site_of(site))

    @property
    def warming(self) -> dict[str, Plan]:
        """The plans of the file, by source."""
        names = [path[1] for path in self._tables if path[0] == "warmup"]
        return {name: plan for name in names if (plan := self.warmup(name)) is not None}

    def warmup(self, source: str) -> Plan | None:
        """The plan of a source that is new; None: it is warm."""
        table = self._tables.get(("warmup", source))
        if table is None:
            return None
        values = {key: item.value for key, item in table.items()}
        above = values.pop("paused_above", {})
        return Plan(**values, **{f"{key}_max": value for key, value in above.items()})

    def explain(self, site: str, source: str = "") -> list[Resolved]:
        """Every key of `limits` in the words of the file, with the table that it is from."""
        limits, found = self.limits(site, source), self._merged(self.site_of(site), source)
        lines = []
        for key in (*fields.PLACE, "shards"):
            value = getattr(limits, _NAMES.get(key, key))
            named = found.get(key)
            if key in ("timeouts", "retry", "retry_broadcast"):
                inner = fields.TIMEOUTS if key == "timeouts" else fields.RETRY
                unsaid = "as retry" if key == "retry_broadcast" else BASE
                for name in inner:
                    own = named is not None and name in named[0]
                    item = getattr(value or limits.retry, _RETRY_NAMES.get(name, name))
                    lines.append(Resolved(f"{key}.{name}", item, named[1][name] if named and own else unsaid))
                continue
            where = named[1][""] if named else BASE
            if key == "shards" and named and named[0] != value:
                where += f", which says {named[0]}: no more than a limit that is shared"
            lines.append(Resolved(key, value, where))
        return lines

    def _merged(self, site: str, source: str) -> dict[str, tuple[Any, dict[str, str]]]:
        """Key -> value, and where it (of a table within: each of its keys) is from."""
        merged: dict[str, tuple[Any, dict[str, str]]] = {}
        for path in (("default",), ("site", site), ("source", source), ("site", site, "source", source)):
            for key, (value, origin) in self._tables.get(path, {}).items():
                where = f"{origin} [{shown(path)}]"
                if isinstance(value, dict):
                    below = merged.get(key, ({}, {}))
                    merged[key] = {**below[0], **value}, {**below[1], **dict.fromkeys(value, where)}
                else:
                    merged[key] = value, {"": where}
        return merged

    def _resolve(self, site: str, source: str) -> Limits:
        limits = self._unsharded(site, source)
        # One shard count for all that share the site's queue, such that nobody is left with a share of nothing.
        places = [self._unsharded(site, each) for each in ("", *self._sources)]
        tenants = [limit for name in self._tenants if (limit := self.tenant(name, site)) is not None]
        least = min([place.smallest for place in places] + [tenant.smallest for tenant in tenants])
        return replace(limits, shards=min(places[0].shards, least, SHARDS_MAX))

    def _unsharded(self, site: str, source: str) -> Limits:
        values = {
            _NAMES.get(key, key): value for key, (value, _) in self._merged(site, source).items() if key != "hosts"
        }
        if "timeouts" in values:
            values["timeouts"] = replace(self._base.timeouts, **values["timeouts"])
        retry = self._base.retry
        for key in ("retry", "retry_broadcast"):  # the second is laid over the first
            if key in values:
                own = {_RETRY_NAMES.get(key, key): value for key, value in values[key].items()}
                values[key] = replace(retry, **own)
            retry = values.get("retry", retry)
        return replace(self._base, **values)


def _plain(rule: Rule) -> tuple[Any, ...]:
    """A rule as a text that is the same in every process."""
    return (
        rule.name, rule.patterns, rule.action, sorted(rule.phases), sorted(rule.sites), rule.threshold, rule.window_s,
        rule.factor, rule.for_s,
    )  # fmt: skip


def parse(text: str, origin: str, base: Limits = BUILT_IN) -> Policy:
    """The policy of a file's text over the shipped one; `base`: what neither says. Raises ShapingError with every fault."""
    layers = Layers()
    read(SHIPPED.read_text("utf-8"), "default.toml", layers)
    read(text, origin, layers)
    return Policy(layers, base)


def load(path: Path | None, base: Limits = BUILT_IN) -> Policy:
    """The policy of a file; None: the shipped one. Raises ShapingError, also where it cannot be read."""
    if path is None:
        return parse("", "", base)
    try:
        with path.open("rb") as file:
            raw = file.read(SIZE_MAX + 1)
    except OSError as error:
        raise ShapingError(str(path), [Fault(0, f"cannot be read: {error.strerror}")]) from None
    if len(raw) > SIZE_MAX:
        raise ShapingError(str(path), [Fault(0, f"is longer than {SIZE_MAX:,} bytes")])
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ShapingError(str(path), [Fault(line, "is not UTF-8, which TOML is")]) from None
    return parse(text, str(path), base)


class Watched:
    """The policy of a file as it is now. A file that is wrong is told once; what was right stays in force."""

    def __init__(
        self,
        path: Path | None,
        base: Limits = BUILT_IN,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises ShapingError where the file is wrong from the start. `clock`: seconds."""
        self._path, self._base, self._clock = path, base, clock
        self._seen = self._stamp()
        self._looked_at = clock()
        self._policy = load(path, base)

    @property
    def policy(self) -> Policy:
        """The one in force; looks at the file at most once a second."""
        if self._path is not None and (now := self._clock()) - self._looked_at >= LOOK_S:
            self._looked_at = now
            self._look()
        return self._policy

    def _look(self) -> None:
        stamp = self._stamp()
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            policy = load(self._path, self._base)
        except ShapingError as error:
            log.error("shaping stays at version %s: %s", self._policy.version, error)
            return
        if policy.version != self._policy.version:
            log.info("shaping changes from version %s to %s", self._policy.version, policy.version)
        self._policy = policy

    def _stamp(self) -> tuple[int, int, int] | None:
        """What changes with the file, also where another takes its place."""
        if self._path is None:
            return None
        try:
            stat = self._path.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_size, stat.st_ino
