"""The file of tenants that `postroad tenants apply` reads: YAML, checked line by line.

    - tenant: acme
      name: Acme Ltd
      domains:
        - domain: acme.example
          dkim:
            - {selector: s1, algorithm: rsa, private_key_file: acme.pem}   # beside this file; or private_key: PEM text
      quota_per_day: 100000

Every key is a field of avro/Tenant.avsc under its name there, but for `private_key_file`. A domain without `dkim` keeps the keys
that `postroad domains` made for it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias, cast

import yaml
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from avro.records import Tenant
from postroad import addresses

TENANT_ID = re.compile(r"[a-z0-9-]{1,64}")
SELECTOR = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*")
RSA_BITS_MIN = 1024  # RFC 8301 3.2: verifiers take no shorter key
# What a field left out means when fields are compared; the defaults of avro/Tenant.avsc.
HOLD_SCORE, REJECT_SCORE = 5.0, 10.0

Check: TypeAlias = Callable[[yaml.Node], Any]


class TenantsError(ValueError):
    """The file is wrong; the text has a line `file:line: what is wrong, what is wanted` for each fault."""


class _Wrong(Exception):
    """A value is not what its field takes; the text says what it takes."""


def load_tenants(path: Path) -> list[Tenant]:
    """The tenants of a file. Raises TenantsError with every fault in it."""
    reader = _Reader(path)
    tenants = reader.read()
    if reader.faults:
        raise TenantsError(
            "\n".join(f"{path}:{line}: {text}" for line, text in sorted(reader.faults, key=lambda fault: fault[0]))
        )
    return tenants


def keep_keys(loaded: Tenant, in_force: Tenant | None) -> Tenant:
    """A tenant of a file with the DKIM keys that `postroad domains` made: a domain without `dkim` keeps what it has."""
    known = {own["domain"]: own.get("dkim", []) for own in (in_force or loaded).get("domains", [])}
    if "domains" in loaded:
        loaded["domains"] = [{"dkim": known.get(own["domain"], []), **own} for own in loaded["domains"]]
    return loaded


def _scalar(node: yaml.Node) -> Any:
    if not isinstance(node, yaml.ScalarNode):
        return None
    try:
        return yaml.SafeLoader("").construct_object(node)
    except (ValueError, yaml.YAMLError):  # such as a date of the 31st of February
        return None


def _text(node: yaml.Node) -> str:
    value = _scalar(node)
    if not isinstance(value, str) or not value.strip():
        raise _Wrong("wants text (in quotes where YAML sees something else)")
    return value


def _contact(node: yaml.Node) -> str:
    try:
        return addresses.normalise(_text(node)).text
    except addresses.BadAddress as error:
        raise _Wrong(f"wants an address: {error.text}") from None


def _flag(node: yaml.Node) -> bool:
    value = _scalar(node)
    if not isinstance(value, bool):
        raise _Wrong("wants true or false")
    return value


def _number(low: float) -> Check:
    def check(node: yaml.Node) -> float:
        value = _scalar(node)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value < 1e300:
            raise _Wrong(f"wants a number{' of 0 or more' if low == 0 else ''}")
        return float(value)

    return check


def _whole(low: int, bits: int) -> Check:
    def check(node: yaml.Node) -> int:
        value = _scalar(node)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value < 1 << bits:
            raise _Wrong(f"wants a whole number of {low} or more")
        return value

    return check


def _pattern(pattern: re.Pattern[str], wants: str) -> Check:
    def check(node: yaml.Node) -> str:
        value = _scalar(node)
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise _Wrong(f"wants {wants}")
        return value

    return check


def _domain(node: yaml.Node) -> str:
    try:
        return addresses.ascii_domain(_text(node))
    except addresses.BadAddress as error:
        raise _Wrong(f"wants a domain name: {error}") from None


class _Reader:
    """One walk through the file's nodes, which know their lines; goes on after a fault to find them all."""

    def __init__(self, path: Path):
        self.path = path
        self.faults: list[tuple[int, str]] = []
        self._tenants: dict[str, int] = {}
        self._domains: dict[str, int] = {}

    def read(self) -> list[Tenant]:
        try:
            with self.path.open("rb") as stream:
                root = yaml.compose(stream, yaml.SafeLoader)
        except OSError as error:
            raise TenantsError(f"{self.path}: cannot be read: {error.strerror}") from None
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise TenantsError(f"{self.path}:{line}: not YAML: {error.problem}") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise TenantsError(f"{self.path}:1: not YAML in UTF-8: {error}") from None
        except RecursionError:
            raise TenantsError(
                f"{self.path}:1: lists and mappings lie too deep in one another; four deep is enough"
            ) from None
        if root is None:
            raise TenantsError(f"{self.path}:1: empty; wants a list of tenants, each beginning with `- tenant: <id>`")
        return [tenant for node in self._list(root, "the file", "tenants") if (tenant := self._tenant(node))]

    def _fault(self, node: yaml.Node, text: str) -> None:
        self.faults.append((node.start_mark.line + 1, text))

    def _list(self, node: yaml.Node, what: str, of: str) -> list[yaml.Node]:
        if not isinstance(node, yaml.SequenceNode):
            self._fault(node, f"{what} wants a list of {of} (lines that begin with `- `)")
            return []
        return list(node.value)

    def _record(self, node: yaml.Node, what: str, fields: Mapping[str, Check], required: str) -> dict[str, Any]:
        """The values of a mapping that are right; faults for the others, for unknown keys, for a missing `required`."""
        if not isinstance(node, yaml.MappingNode):
            self._fault(node, f"{what} wants `key: value` lines, at least `{required}`")
            return {}
        values: dict[str, Any] = {}
        seen: set[str] = set()
        for key_node, value_node in node.value:
            key = str(key_node.value)
            if key not in fields:
                close = difflib.get_close_matches(key, fields, n=1)
                hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(fields)}"
                self._fault(key_node, f"{what}: no such key {key[:60]!r}; {hint}")
            elif key in seen:
                self._fault(key_node, f"{what}: {key} stands here twice; keep one")
            else:
                seen.add(key)
                try:
                    values[key] = fields[key](value_node)
                except _Wrong as wrong:
                    shown = (
                        ""
                        if key == "private_key" or not isinstance(value_node, yaml.ScalarNode)
                        else value_node.value[:60]
                    )
                    self._fault(value_node, f"{what}: {key}{f' {shown!r}' if shown else ''}: {wrong}")
        if required not in seen:
            self._fault(node, f"{what}: {required} is missing")
        return values

    def _once(self, known: dict[str, int], name: str, node: yaml.Node, what: str) -> None:
        first = known.setdefault(name, node.start_mark.line + 1)
        if first != node.start_mark.line + 1:
            self._fault(node, f"{what} {name} stands in line {first} already; a {what} may be named once")

    def _tenant(self, node: yaml.Node) -> Tenant | None:
        fields: dict[str, Check] = {
            "tenant": _pattern(TENANT_ID, "1 to 64 of a-z, 0-9 and hyphen"),
            "name": _text,
            "contact": _contact,
            "active": _flag,
            "domains": lambda value: [self._domain(item) for item in self._list(value, "domains", "domains")],
            "egress_pool": _text,
            "hold_score": _number(float("-inf")),
            "reject_score": _number(float("-inf")),
            "quota_per_second": _number(0),
            "quota_per_day": _whole(0, 63),
            "quota_waiting_max_s": _whole(0, 63),
            "dedupe_window_s": _whole(0, 63),
            "suppress_after": _whole(1, 31),
            "soft_bounces_after": _whole(0, 31),
            "soft_bounces_days": _whole(0, 31),
        }
        values = self._record(node, "tenant", fields, "tenant")
        if "tenant" in values:
            self._once(self._tenants, values["tenant"], node, "tenant")
        hold, reject = values.get("hold_score", HOLD_SCORE), values.get("reject_score", REJECT_SCORE)
        if hold > reject:
            self._fault(node, f"hold_score {hold:g} is above reject_score {reject:g}: nothing would be held; lower one")
        return cast(Tenant, values) if values else None

    def _domain(self, node: yaml.Node) -> dict[str, Any]:
        fields: dict[str, Check] = {
            "domain": _domain,
            "return_path": _domain,
            "dkim": lambda value: [self._key(item) for item in self._list(value, "dkim", "keys")],
        }
        values = self._record(node, "domain", fields, "domain")
        if "domain" in values:
            self._once(self._domains, values["domain"], node, "domain")
        selectors = [key["selector"].lower() for key in values.get("dkim", ()) if "selector" in key]
        if len(set(selectors)) != len(selectors):
            self._fault(node, "domain: two DKIM keys have the same selector; give each its own")
        return values

    def _key(self, node: yaml.Node) -> dict[str, Any]:
        fields: dict[str, Check] = {
            "selector": _pattern(SELECTOR, "DNS labels, such as s1"),
            "algorithm": _pattern(re.compile("rsa|ed25519"), "rsa or ed25519"),
            "private_key": _text,
            "private_key_file": self._file,
            "active": _flag,
        }
        values = self._record(node, "DKIM key", fields, "selector")
        named = [key.value for key, _ in node.value if key.value.startswith("private_key")] if values else []
        pem = values.pop("private_key_file", None) or values.get("private_key")
        if values and len(named) != 1:
            self._fault(
                node, "DKIM key: wants either private_key (PEM text) or private_key_file (a file beside this one)"
            )
        elif values and "algorithm" not in values:
            if "algorithm" not in (key.value for key, _ in node.value):
                self._fault(node, "DKIM key: algorithm is missing: rsa or ed25519")
        elif pem:
            values["private_key"] = pem
            if problem := key_problem(pem, values["algorithm"]):
                self._fault(node, f"DKIM key: {problem}")
        return values

    def _file(self, node: yaml.Node) -> str:
        try:
            return (self.path.parent / _text(node)).read_text("ascii")
        except (OSError, ValueError) as error:
            raise _Wrong(
                f"wants a PEM file that can be read: {getattr(error, 'strerror', None) or 'not ASCII'}"
            ) from None


def key_problem(pem: str, algorithm: str) -> str:
    """What is wrong with a DKIM private key in PEM, or nothing."""
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return (
            "not a private key in PEM without a password (PKCS #8); make one with `postroad.dkim.generate` or openssl"
        )
    if not isinstance(key, RSAPrivateKey if algorithm == "rsa" else Ed25519PrivateKey):
        return f"the key is not of algorithm {algorithm}; name its own"
    if isinstance(key, RSAPrivateKey) and key.key_size < RSA_BITS_MIN:
        return f"an RSA key of {key.key_size} bits; receivers ask for {RSA_BITS_MIN} or more (RFC 8301), take 2048"
    return ""
