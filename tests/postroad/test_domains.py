"""Domains: what is published, what verify says of every fault, and keys that rotate."""

import pytest
from typer.testing import CliRunner

from postroad import cli, dmarc
from postroad.commands import domains as command
from postroad.domains import DomainError, Keys, Platform, activate, new_keys, passes, records, retire, rotate, verify
from postroad.senders import signing_keys
from postroad.spf import Temporary

PLATFORM = Platform("spf.post.test", "bounce.post.test", ("198.51.100.7", "8.8.4.4", "10.0.0.1"))
KEYS = new_keys("s1", (), active=True)
OWN = {"domain": "acme.test", "return_path": "rp.acme.test", "dkim": KEYS}


class Zone(dict):
    """DNS by (name, kind); a value that is an exception is raised. CNAMEs are followed."""

    def __call__(self, name, kind):
        found = self.get((name, kind), ())
        if isinstance(found, Exception):
            raise found
        if not found and kind != "CNAME" and (alias := self(name, "CNAME")):
            return self(alias[0], kind)
        return found


def zone(own=OWN, platform=PLATFORM, **changed):
    published = Zone()
    for record in records(own, platform):
        published[record.name, record.kind] = (record.value,)
    published["spf.post.test", "TXT"] = ("v=spf1 ip4:8.8.4.0/24 -all",)
    published["bounce.post.test", "TXT"] = ("v=spf1 include:spf.post.test -all",)
    published["bounce.post.test", "MX"] = ("mx.post.test",)
    return published


def test_what_is_to_be_published_passes_where_it_is():
    findings = verify(OWN, PLATFORM, zone())
    assert [(finding.level, finding.record) for finding in findings] == [
        ("ok", "DKIM s1r._domainkey.acme.test"), ("ok", "DKIM s1e._domainkey.acme.test"), ("ok", "return path rp.acme.test"),
        ("ok", "SPF rp.acme.test"), ("ok", "DMARC _dmarc.acme.test"),
    ]  # fmt: skip
    assert passes(findings)


def test_records_as_zone_text():
    rsa, ed, cname, spf, policy = records(OWN, PLATFORM)
    strings = rsa.zone_text().partition(" IN TXT ")[2].strip("() ").split('" "')
    assert len(rsa.value) > 255 and max(map(len, strings)) <= 256 and "".join(strings).strip('"') == rsa.value
    assert ed.zone_text() == f's1e._domainkey.acme.test. IN TXT "{ed.value}"'
    assert cname.zone_text() == "rp.acme.test. IN CNAME bounce.post.test."
    assert spf.value == "v=spf1 include:spf.post.test ~all" and policy.value.startswith("v=DMARC1; p=quarantine")
    assert records(OWN, Platform("", "", ("8.8.4.4", "10.0.0.1")))[2].value == "v=spf1 ip4:8.8.4.4 ~all"


RSA, ED, PATH, POLICY = "s1r._domainkey.acme.test", "s1e._domainkey.acme.test", "rp.acme.test", "_dmarc.acme.test"
NO_DMARC = Temporary("no answer")
LOOKUPS = "v=spf1 " + " ".join(f"a:x{n}.post.test" for n in range(10)) + " include:spf.post.test -all"


@pytest.mark.parametrize(
    ("name", "kind", "value", "level", "said"),
    [
        (RSA, "TXT", (), "wrong", "no such record"),
        (RSA, "TXT", ("v=DKIM1; k=rsa; p=AAAA",), "wrong", "another key"),
        (RSA, "TXT", ("v=DKIM1; k=rsa; p=MIIBIjAN",), "wrong", "cut off"),
        (RSA, "TXT", ("a", "b"), "wrong", "2 TXT records"),
        (RSA, "TXT", ("v=DKIM1; k=rsa; p=",), "wrong", "revoked"),
        (RSA, "TXT", ("v=DKIM1; k=rsa",), "wrong", "p= is missing"),
        (RSA, "TXT", ("v=DKIM1\\; k=rsa\\; p=x",), "wrong", "backslashes"),
        (RSA, "TXT", ("hello",), "wrong", "tag=value"),
        (RSA, "TXT", ("k=rsa; v=DKIM1; p=x",), "wrong", "begin with v=DKIM1"),
        (RSA, "TXT", ("v=DKIM1; k=ed25519; p=x",), "wrong", "not the algorithm"),
        (RSA, "TXT", (records(OWN, PLATFORM)[0].value + "; t=y",), "weak", "only tests"),
        (RSA, "TXT", (records(OWN, PLATFORM)[0].value + "; h=sha1",), "wrong", "sha256"),
        (RSA, "TXT", (records(OWN, PLATFORM)[0].value + "; s=tlsrpt",), "wrong", "does not allow mail"),
        (RSA, "TXT", Temporary("no answer"), "unknown", "does not answer"),
        (ED, "TXT", (), "wrong", "no such record"),
        (PATH, "CNAME", (), "wrong", "bounces are lost"),
        (PATH, "CNAME", ("mail.else.test",), "wrong", "CNAME of mail.else.test"),
        (PATH, "CNAME", Temporary("no answer"), "unknown", "does not answer"),
        ("bounce.post.test", "TXT", (), "wrong", "no SPF record"),
        ("bounce.post.test", "TXT", ("v=spf1 -all", "v=spf1 ~all"), "wrong", "2 SPF records"),
        ("bounce.post.test", "TXT", ("v=spf1 ip4:nothing -all",), "wrong", "ip4:nothing"),
        ("bounce.post.test", "TXT", ("v=spf10 -all",), "wrong", "must begin with v=spf1"),
        ("bounce.post.test", "TXT", ("v=spf1 +all",), "wrong", "lets everybody send"),
        ("bounce.post.test", "TXT", (LOOKUPS,), "wrong", "11 DNS look-ups"),
        ("bounce.post.test", "TXT", (LOOKUPS,), "wrong", "10 of its names do not exist"),
        ("bounce.post.test", "TXT", ("v=spf1 -all",), "wrong", "8.8.4.4 (fail): add include:spf.post.test"),
        (POLICY, "TXT", (), "wrong", "no DMARC record"),
        (POLICY, "TXT", ("v=DMARC1; p=none; rua=mailto:a@b.test",), "weak", "p=none"),
        (POLICY, "TXT", ("v=DMARC1; p=rejct",), "wrong", "p='rejct'"),
        (POLICY, "TXT", ("v=DMARC1; p=reject", "v=DMARC1; p=none"), "wrong", "2 DMARC records"),
        (POLICY, "TXT", ("v=DMARC1; p=reject; aspf=s; rua=mailto:a@b.test",), "weak", "aspf=s"),
        (POLICY, "TXT", ("v=DMARC1; p=reject; adkim=s; rua=mailto:a@b.test",), "weak", "adkim=s"),
        (POLICY, "TXT", ("v=DMARC1; p=reject",), "weak", "no rua="),
        (POLICY, "TXT", ("v=DMARC1 p=reject",), "wrong", "no DMARC record"),
        (POLICY, "TXT", NO_DMARC, "unknown", "does not answer"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(name, kind, value, level, said):
    findings = verify(OWN, PLATFORM, Zone({**zone(), (name, kind): value}))
    assert any(finding.level == level and said in finding.text for finding in findings), findings
    assert passes(findings) == (level == "weak")


def test_a_record_under_a_doubled_name_is_found():
    published = zone()
    published[f"{RSA}.acme.test", "TXT"] = published.pop((RSA, "TXT"))
    assert any("leave acme.test out" in finding.text for finding in verify(OWN, PLATFORM, published))


def test_a_return_path_of_another_organisation_does_not_align():
    own = {**OWN, "return_path": "acme.mailer.test"}
    (found,) = [f for f in verify(own, PLATFORM, zone(own)) if f.record.startswith("DMARC")]
    assert (found.level, "another organisation" in found.text) == ("weak", True)


def test_organisations_by_the_tree_walk():
    published = Zone(
        {
            ("_dmarc.acme.test", "TXT"): ("v=DMARC1; p=reject; sp=none",),
            ("_dmarc.co.test", "TXT"): ("v=DMARC1; p=reject; psd=y",),
        }
    )
    assert dmarc.organisation("a.b.acme.test", published) == "acme.test"
    assert dmarc.organisation("news.shop.co.test", published) == "shop.co.test"
    assert dmarc.aligned("b.acme.test", "a.acme.test", False, published)
    assert not dmarc.aligned("b.acme.test", "a.acme.test", True, published)
    assert not dmarc.aligned("one.co.test", "two.co.test", False, published)


@pytest.mark.parametrize(
    "text",
    ["v=DMARC1; p", "v=DMARC1; p=none; p=none", "v=DMARC1; p=none; pct=²", "v=DMARC1; p=none; aspf=x", "v=DMARC1"],
)
def test_dmarc_records_that_receivers_ignore(text):
    with pytest.raises(dmarc.DmarcError):
        dmarc.parse("acme.test", text)


def selectors(own):
    keys = Keys.of(own)
    return [[key["selector"] for key in part] for part in (keys.retired, keys.active, keys.pending)]


def test_keys_rotate():
    own = rotate(OWN, "s1")
    assert selectors(own) == [[], ["s1r", "s1e"], ["s1-2r", "s1-2e"]]
    assert [key.selector for key in signing_keys(own)] == ["s1r", "s1e"]
    with pytest.raises(DomainError, match="activate"):
        rotate(own, "s3")
    own = activate(own)
    assert selectors(own) == [["s1r", "s1e"], ["s1-2r", "s1-2e"], []]
    assert [key.selector for key in signing_keys(own)] == ["s1-2r", "s1-2e"]
    assert verify(own, PLATFORM, zone(own)) and passes(verify(own, PLATFORM, zone(own)))
    own = rotate(own, "s9")
    assert selectors(own) == [["s1r", "s1e"], ["s1-2r", "s1-2e"], ["s9r", "s9e"]]
    own, gone = retire(own)
    assert gone == ["s1r._domainkey.acme.test", "s1e._domainkey.acme.test"]
    assert selectors(own) == [[], ["s1-2r", "s1-2e"], ["s9r", "s9e"]]
    with pytest.raises(DomainError):
        retire(own)
    with pytest.raises(DomainError):
        activate(OWN)


def test_pending_keys_that_are_missing_do_not_stop_the_mail():
    own, published = rotate(OWN, "s2"), zone()
    found = [finding for finding in verify(own, PLATFORM, published) if "s2" in finding.record]
    assert [finding.level for finding in found] == ["weak", "weak"] and passes(verify(own, PLATFORM, published))


def test_the_commands(monkeypatch):
    tenants = {
        "acme": {"tenant": "acme", "name": "Acme"},
        "other": {"tenant": "other", "domains": [{"domain": "other.test"}]},
    }
    published = Zone()

    def write(outputs):
        tenants.update({output.value["tenant"]: output.value for output in outputs})

    monkeypatch.setattr(cli, "_write", write)
    monkeypatch.setattr(command, "in_force", lambda: tenants)
    monkeypatch.setattr(command, "_platform", lambda: PLATFORM)
    monkeypatch.setattr(command, "resolver", lambda: published)

    def run(*arguments):
        done = CliRunner().invoke(cli.app, ["domains", *arguments])
        return done.exit_code, done.output, str(done.exception or "")

    code, shown, _ = run("add", "Acme.Test", "--tenant", "acme", "--selector", "k", "--return-path", "rp.acme.test")
    assert code == 0 and "kr._domainkey.acme.test. IN TXT (" in shown and "rp.acme.test. IN CNAME" in shown
    assert "PRIVATE KEY" not in shown and tenants["acme"]["name"] == "Acme"
    assert "has keys" in run("add", "acme.test", "--tenant", "acme")[2]
    assert "of tenant other" in run("add", "other.test", "--tenant", "acme")[2]
    assert "no tenant 'none'" in run("add", "x.test", "--tenant", "none")[2]
    assert "no selector" in run("add", "x.test", "--tenant", "acme", "--selector", "a b")[2]
    assert "no tenant has the domain" in run("show", "nobody.test")[2]
    assert run("verify", "acme.test")[0] == 1
    published.update(zone(tenants["acme"]["domains"][0]))
    assert run("verify", "acme.test")[0] == 0
    assert run("rotate", "acme.test", "--selector", "n")[0] == 0
    assert "nothing was changed" in run("activate", "acme.test")[2]
    published.update(zone(tenants["acme"]["domains"][0]))
    assert "signing: nr, ne" in run("activate", "acme.test")[1]
    assert "remove from DNS: kr._domainkey.acme.test" in run("retire", "acme.test")[1]
    assert run("show", "acme.test")[1].count("_domainkey") == 2
