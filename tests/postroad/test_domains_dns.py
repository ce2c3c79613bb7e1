"""The name server behind `postroad domains`: a real one on loopback, every kind of answer."""

import socket
import threading
from collections.abc import Iterator

import dns.message
import dns.rdatatype
import dns.rrset
import pytest

from postroad.commands.domains import Dns
from postroad.spf import Temporary

ZONE = {
    ("a.test.", "TXT"): ['"v=spf1 " "mx -all"', '"x"'],
    ("a.test.", "MX"): ["20 b.a.test.", "10 A.a.test."],
    ("null.test.", "MX"): ["0 ."],
    ("rp.a.test.", "CNAME"): ["Host.test."],
}


@pytest.fixture
def ask() -> Iterator[Dns]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))

        def answer() -> None:
            while True:
                try:
                    data, peer = server.recvfrom(4096)
                except OSError:
                    return
                if not data:
                    return
                query = dns.message.from_wire(data)
                name, kind = query.question[0].name.to_text(), dns.rdatatype.to_text(query.question[0].rdtype)
                response = dns.message.make_response(query)
                if name.startswith("fail"):
                    response.set_rcode(2)
                elif (name, kind) in ZONE:
                    response.answer.append(dns.rrset.from_text_list(name, 60, "IN", kind, ZONE[name, kind]))
                elif not any(known == name for known, _ in ZONE):
                    response.set_rcode(3)
                server.sendto(response.to_wire(), peer)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield Dns([f"127.0.0.1:{server.getsockname()[1]}"], 2.0)
        server.sendto(b"", server.getsockname())  # ends the thread
        thread.join(5)


def test_answers(ask: Dns) -> None:
    assert sorted(ask("a.test", "TXT")) == ["v=spf1 mx -all", "x"]  # a server shuffles them
    assert ask("a.test", "MX") == ("A.a.test", "b.a.test")
    assert ask("null.test", "MX") == ()
    assert ask("rp.a.test", "CNAME") == ("host.test",)
    with pytest.raises(Temporary, match="fail"):
        ask("fail.test", "A")


@pytest.mark.parametrize(
    "name", ["none.test", "a.test.", "x" * 70 + ".test", "a..b", "a b.test", "é.test", ".".join(["abcdefg"] * 40)]
)
def test_what_does_not_exist_or_can_be_no_name_has_no_records(ask: Dns, name: str) -> None:
    assert ask(name, "A") == ()
