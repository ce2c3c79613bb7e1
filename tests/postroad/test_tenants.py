"""The file of tenants: what is right becomes records, every fault is told with its line."""

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from postroad.tenants import TenantsError, load_tenants


def pem(key) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def write(folder: Path, text: str) -> Path:
    path = folder / "tenants.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def faults(folder: Path, text: str) -> list[str]:
    path = write(folder, text)
    with pytest.raises(TenantsError) as caught:
        load_tenants(path)
    return [line.removeprefix(f"{path}:") for line in str(caught.value).splitlines()]


def test_a_complete_tenant(tmp_path):
    (tmp_path / "acme.pem").write_text(pem(rsa.generate_private_key(65537, 2048)))
    inline = json.dumps(pem(ed25519.Ed25519PrivateKey.generate()))
    path = write(tmp_path, f"""
- tenant: acme
  name: Acme Ltd
  active: false
  domains:
    - domain: Bücher.Example.
      return_path: bounce.acme.example
      dkim:
        - {{selector: s1, algorithm: rsa, private_key_file: acme.pem}}
        - {{selector: s2, algorithm: ed25519, private_key: {inline}}}
  quota_per_day: 1000
  hold_score: -1
- tenant: other
""")  # fmt: skip
    acme, other = load_tenants(path)
    assert other == {"tenant": "other"}
    assert (acme["active"], acme["quota_per_day"], acme["hold_score"]) == (False, 1000, -1.0)
    (domain,) = acme["domains"]
    assert domain["domain"] == "xn--bcher-kva.example"
    assert [key["selector"] for key in domain["dkim"]] == ["s1", "s2"]
    assert all("BEGIN PRIVATE KEY" in key["private_key"] and "private_key_file" not in key for key in domain["dkim"])


def test_every_fault_is_told_with_its_line(tmp_path):
    found = faults(tmp_path, """\
- tenant: Acme!
  quota_per_dya: 3
- tenant: b
  active: perhaps
  quota_per_day: -1
  quota_per_second: .inf
  suppress_after: 0
- tenant: b
  hold_score: 11
- name: no id
- just text
- tenant: c
  tenant: d
  domains: acme.example
""")  # fmt: skip
    expected = [
        (1, "'Acme!'"), (2, "did you mean quota_per_day?"), (4, "true or false"), (5, "whole number of 0"), (6, "number of 0"),
        (7, "whole number of 1"), (8, "stands in line 3 already"), (8, "above reject_score 10"), (10, "tenant is missing"),
        (11, "key: value"), (13, "twice"), (14, "list of domains"),
    ]  # fmt: skip
    assert [int(line.split(":")[0]) for line in found] == [line for line, _ in expected]
    for text, (_, part) in zip(found, expected, strict=True):
        assert part in text


def test_domains_and_keys(tmp_path):
    (tmp_path / "short.pem").write_text(pem(rsa.generate_private_key(65537, 1024)).replace("A", "B"))
    (tmp_path / "ed.pem").write_text(pem(ed25519.Ed25519PrivateKey.generate()))
    found = faults(tmp_path, """\
- tenant: a
  domains:
    - domain: acme
    - domain: ok.example
      dkim:
        - {selector: s1, algorithm: rsa, private_key_file: ed.pem}
        - {selector: s2, algorithm: rsa, private_key_file: absent.pem}
        - {selector: S1, algorithm: rsa, private_key: secret-not-pem}
        - {selector: s4, algorithm: dsa, private_key_file: ed.pem}
        - {selector: s5, algorithm: rsa}
        - {selector: s6, algorithm: rsa, private_key_file: short.pem}
        - {selector: s7, private_key_file: ed.pem}
- tenant: b
  domains: [{domain: OK.example}]
""")  # fmt: skip
    assert [int(line.split(":")[0]) for line in found] == [3, 4, 6, 7, 8, 9, 10, 11, 12, 14]
    assert "secret-not-pem" not in "\n".join(found)
    assert "same selector" in found[1] and "not of algorithm rsa" in found[2] and "No such file" in found[3]
    assert "either private_key" in found[6] and "algorithm is missing" in found[8] and "line 4 already" in found[9]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tenant: a",
        "- tenant: [",
        "a: &a [*a]",
        "- &x {tenant: *x}",
        "- tenant: !!python/object:os.system x",
        "\t- x",
        "- 2024-02-31",
        "[" * 20_000,
        "{a: " * 5_000,
        "- tenant: a\n  quota_per_day: " + "9" * 5_000,
        "- tenant: a\n  quota_per_second: 1e400",
        "- tenant: a\n  quota_per_day: -1",
        "- [a]: b",
        "- ? {a: b}\n  : c",
        "- " + "x" * 200_000 + ": 1",
    ],
)
def test_hostile_files_are_an_error_with_a_line(tmp_path, text):
    assert all(line.split(":")[0].isdigit() for line in faults(tmp_path, text))


def test_bytes_that_are_not_text(tmp_path):
    path = tmp_path / "t.yaml"
    path.write_bytes(b"- tenant: \xff\xfe")
    with pytest.raises(TenantsError):
        load_tenants(path)
    with pytest.raises(TenantsError, match="cannot be read"):
        load_tenants(tmp_path / "absent.yaml")
