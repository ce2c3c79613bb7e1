"""`postroad domains`: keys and DNS records of the domains that tenants send from.

    postroad domains add acme.example --tenant acme --return-path bounce.acme.example
    postroad domains verify acme.example                     # exit status 1 when mail would not pass
    postroad domains rotate|activate|retire acme.example     # new keys; they sign; the old ones go

Keys go to control.tenants, as `postroad tenants apply` writes it. The first keys of a domain sign at once: unverifiable is no worse
than unsigned, and nothing is left to be forgotten. Of two who change one tenant at the same moment the later wins.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import dns.exception
import dns.name
import dns.resolver
import typer

from avro.records import SenderDomain, Tenant
from postroad import addresses, domains, settings
from postroad.commands.printing import safe
from postroad.dns import EDNS_PAYLOAD
from postroad.dns import _server as nameserver
from postroad.domains import DomainError, Platform
from postroad.spf import Ask, Kind, Temporary
from postroad.tenants import SELECTOR

if TYPE_CHECKING:
    from collections.abc import Callable

app = typer.Typer(no_args_is_help=True, help="Sender domains: DKIM keys, DNS records, and whether they are right.")
Domain = Annotated[str, typer.Argument(help="The domain in From.")]
Selector = Annotated[
    str, typer.Option(help="Begin of the selectors: r (RSA) and e (Ed25519) follow; default: prYYYYMM.")
]
_MARKS = {"ok": "ok     ", "weak": "weak   ", "wrong": "WRONG  ", "unknown": "UNKNOWN"}


class Dns:
    """spf.Ask over the configured name servers; remembers each answer for the life of a command."""

    def __init__(self, servers: list[str], timeout_s: float) -> None:
        self._resolver = dns.resolver.Resolver(configure=not servers)
        if servers:
            self._resolver.nameservers = [nameserver(each) for each in servers]
        self._resolver.lifetime = timeout_s
        self._resolver.use_edns(0, 0, EDNS_PAYLOAD)
        self._known: dict[tuple[str, Kind], tuple[str, ...]] = {}

    def __call__(self, name: str, kind: Kind) -> tuple[str, ...]:
        """As spf.Ask."""
        if (name, kind) not in self._known:
            self._known[name, kind] = self._ask(name, kind)
        return self._known[name, kind]

    def _ask(self, name: str, kind: Kind) -> tuple[str, ...]:
        try:
            found = self._resolver.resolve(f"{name.rstrip('.')}.", kind, raise_on_no_answer=False, search=False)
        except (dns.resolver.NXDOMAIN, dns.name.LabelTooLong, dns.name.EmptyLabel, dns.name.NameTooLong):
            return ()  # what can be no name does not exist
        except (dns.exception.DNSException, OSError, EOFError, UnicodeError) as error:
            raise Temporary(f"{name} {kind}: {type(error).__name__}") from None
        rows = list(found) if found.rrset is not None else []
        if kind == "TXT":
            return tuple(b"".join(row.strings).decode("latin-1") for row in rows)
        if kind == "MX":
            rows.sort(key=lambda row: row.preference)
            hosts = (row.exchange.to_text(omit_final_dot=True) for row in rows)
            return tuple(host for host in hosts if host not in ("", "."))
        return tuple(row.to_text().rstrip(".").lower() for row in rows)


def resolver() -> Ask:
    """DNS as the settings say."""
    known = settings.load()
    return Dns(known.dns_servers, known.dns_timeout_s)


@app.command()
def add(
    domain: Domain,
    tenant: Annotated[str, typer.Option(help="Whose domain it is.")],
    selector: Selector = "",
    return_path: Annotated[str, typer.Option(help="Domain for bounces, such as bounce.DOMAIN; a CNAME of ours.")] = "",
) -> None:
    """Make DKIM keys for a domain and print the DNS records to publish."""
    from postroad.cli import CommandError

    name = addresses.ascii_domain(domain)
    path = addresses.ascii_domain(return_path) if return_path else ""
    everyone = in_force()
    if (owner := everyone.get(tenant)) is None:
        raise CommandError(
            f"no tenant {tenant!r}: `postroad tenants apply` makes one, `postroad tenants list` shows all"
        )
    taken = next(
        (t["tenant"] for t in everyone.values() if any(own["domain"] == name for own in t.get("domains", []))), ""
    )
    if taken not in ("", tenant):
        raise CommandError(f"{name} is a domain of tenant {taken}; a domain has one")
    new: SenderDomain = {"domain": name}
    own = next((own for own in owner.get("domains", []) if own["domain"] == name), new)
    if own.get("dkim"):
        raise CommandError(
            f"{name} has keys: `postroad domains rotate {name}` makes new ones, `show` prints their records"
        )
    made: SenderDomain = {
        "domain": name,
        "return_path": path or own.get("return_path", ""),
        "dkim": domains.new_keys(_selector(selector), (), active=True),
    }
    _store(owner, made)
    _print_records(made)


@app.command()
def show(domain: Domain) -> None:
    """Print the DNS records of a domain, to publish."""
    _, own = _find(domain)
    _print_records(own)


@app.command()
def verify(domain: Domain) -> None:
    """Ask DNS for a domain's records and say what is wrong; exit status 1 when mail would not pass."""
    _, own = _find(domain)
    findings = domains.verify(own, _platform(), resolver())
    for finding in findings:
        print(safe(f"{_MARKS[finding.level]} {finding.record}: {finding.text}"))
    if not domains.passes(findings):
        print(f"mail from {own['domain']} would not pass everywhere")
        raise typer.Exit(1)


@app.command()
def rotate(domain: Domain, selector: Selector = "") -> None:
    """Make new keys, which do not sign yet, and print their records."""
    own = _change(domain, lambda own: domains.rotate(own, _selector(selector)))
    _print_records(own)
    print(f"publish those that will sign, then `postroad domains activate {own['domain']}`")


@app.command()
def activate(
    domain: Domain,
    force: Annotated[bool, typer.Option("--force", help="Though DNS does not have them.")] = False,
) -> None:
    """Let the new keys sign, if DNS has them; the old ones stay published for mail under way."""
    from postroad.cli import CommandError

    _, own = _find(domain)
    for key in () if force else domains.Keys.of(own).pending:
        for finding in domains.verify_key(key, own["domain"], resolver(), signs=True):
            if finding.level in ("wrong", "unknown"):
                raise CommandError(f"{finding.record}: {finding.text}; nothing was changed")
    changed = _change(domain, domains.activate)
    keys = domains.Keys.of(changed)
    print(f"signing: {', '.join(key['selector'] for key in keys.active)}")
    if keys.retired:
        print(
            f"`postroad domains retire {changed['domain']}` in a week or later, when no mail signed by the old keys is under way"
        )


@app.command()
def retire(domain: Domain) -> None:
    """Forget the keys that signed before the active ones, and say which records may go."""
    gone: list[str] = []

    def cut(own: SenderDomain) -> SenderDomain:
        changed, names = domains.retire(own)
        gone.extend(names)
        return changed

    _change(domain, cut)
    print("\n".join(f"remove from DNS: {name} TXT" for name in gone))


def _selector(given: str) -> str:
    from postroad.cli import CommandError

    selector = given or f"pr{datetime.fromtimestamp(time.time(), UTC):%Y%m}"
    if not SELECTOR.fullmatch(selector + "r"):
        raise CommandError(f"{selector!r} is no selector: DNS labels of a-z, 0-9 and hyphen, such as s1")
    return selector


def _platform() -> Platform:
    known = settings.load()
    sources = [source.address for pool in known.pools().values() for source in pool.sources if source.address]
    return Platform(known.spf_include, known.return_path_host, tuple(dict.fromkeys(sources)))


def in_force() -> dict[str, Tenant]:
    """The tenants of control.tenants by id."""
    from postroad.cli import _client
    from topics.catalogue import TENANTS

    async def read() -> dict[str, Tenant]:
        async with _client() as client:
            found = {record.key: value async for record, value in client.read(TENANTS)}
        return {value["tenant"]: value for value in found.values() if value is not None}

    return asyncio.run(read())


def _find(domain: str) -> tuple[Tenant, SenderDomain]:
    from postroad.cli import CommandError

    name = addresses.ascii_domain(domain)
    for tenant in in_force().values():
        for own in tenant.get("domains", []):
            if own["domain"] == name:
                return tenant, own
    raise CommandError(f"no tenant has the domain {name}: `postroad domains add {name} --tenant TENANT`")


def _change(domain: str, change: Callable[[SenderDomain], SenderDomain]) -> SenderDomain:
    from postroad.cli import CommandError

    tenant, own = _find(domain)
    try:
        changed = change(own)
    except DomainError as error:
        raise CommandError(str(error)) from None
    _store(tenant, changed)
    return changed


def _store(tenant: Tenant, own: SenderDomain) -> None:
    from postroad.cli import _write
    from topics.catalogue import TENANTS

    listed = tenant.get("domains", [])
    kept = [own if each["domain"] == own["domain"] else each for each in listed]
    changed: Tenant = {**tenant, "domains": kept if own in kept else [*kept, own]}
    _write([TENANTS.send(changed)])


def _print_records(own: SenderDomain) -> None:
    platform = _platform()
    for record in domains.records(own, platform):
        print(f"; {record.why}\n{record.zone_text()}")
        if record.kind == "TXT":
            print(f";   as one value: {record.value}")
        print()
    if not platform.spf_include and not platform.public():
        print("; SPF: spf_include is not set, so it names none of our addresses yet")
    if own.get("return_path") and not platform.return_path_host:
        print(f"; return path: return_path_host is not set; {own['return_path']} needs an MX record that leads to us")
