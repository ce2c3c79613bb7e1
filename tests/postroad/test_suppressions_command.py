"""`postroad suppressions`: what it writes, what it shows, what it refuses."""

import csv
import io
import json
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from postroad import cli, suppression
from postroad.commands import suppressions as commands
from topics.catalogue import IN_FORCE, SUPPRESSIONS
from topics.codec import Codec

runner = CliRunner()
NOW = 1_700_000_000_000
SAID = Codec("Suppression")


class Kafka:
    """In place of topics.client.Client: what was written, and what lies in mail.suppressed."""

    def __init__(self):
        self.written, self.listed = [], []

    async def __aenter__(self):
        return self

    async def __aexit__(self, *exc):
        pass

    async def send(self, output):
        assert output.topic is SUPPRESSIONS and output.key == output.value["recipient"].lower().encode()
        self.written.append(SAID.decode(SAID.encode(output.value)))

    async def read(self, topic, broken):
        assert topic is IN_FORCE
        for key, value in self.listed:
            yield SimpleNamespace(key=key), value

    def put(self, tenant, recipient, *said):
        """As suppress does with what was said."""
        listed = None
        for each in said:
            entry = {"recipient": recipient, "tenant": tenant, "at": NOW - 5, "evidence": "e", **each}
            listed = suppression.apply(listed, entry, suppression.Rules())
        self.listed.append((f"{tenant}\0{recipient}".encode(), suppression.in_force(tenant, recipient, listed)))


@pytest.fixture
def kafka(monkeypatch):
    kafka = Kafka()

    def write(outputs):
        kafka.written += [SAID.decode(SAID.encode(output.value)) for output in outputs]

    monkeypatch.setattr(cli, "_client", lambda: kafka)
    monkeypatch.setattr(cli, "_write", write)
    monkeypatch.setattr(commands, "_now", lambda: NOW)
    return kafka


def run(*arguments, status=0, input=None):
    result = runner.invoke(cli.app, ["suppressions", *map(str, arguments)], input=input)
    assert (result.exit_code == status and result.exception is None) or status, result.output
    return result


def refused(*arguments):
    result = runner.invoke(cli.app, ["suppressions", *map(str, arguments)])
    assert isinstance(result.exception, cli.CommandError), result.output
    return str(result.exception)


def test_add_and_remove(kafka):
    run(
        "add",
        "Ann@Bücher.test",
        "--tenant",
        "acme",
        "--reason",
        "complaint",
        "--expires",
        "30d",
        "--detail",
        "by phone",
        "--by",
        "jo",
    )
    run("remove", "r@there.test", "s@there.test", "--by", "jo")
    first, second, third = kafka.written
    assert first == {
        "recipient": "Ann@xn--bcher-kva.test", "tenant": "acme", "action": "add", "reason": "complaint", "at": NOW,
        "evidence": f"jo {NOW}", "detail": "by phone", "expires_at": NOW + 30 * 86_400_000, "source": "cli", "by": "jo",
        "cause": "", "message_id": "",
    }  # fmt: skip
    assert [(e["recipient"], e["tenant"], e["action"], e["source"]) for e in (second, third)] == [
        ("r@there.test", "", "remove", "cli"), ("s@there.test", "", "remove", "cli"),
    ]  # fmt: skip
    assert suppression.check(second) == "r@there.test", "an operator's removal from the global list is taken"


@pytest.mark.parametrize("arguments", [
    ["--tenant", "acme", "--global"], ["--tenant", "Acme"], ["--tenant", "x" * 65], ["--expires", "yesterday"],
    ["--expires", "2001-01-01"], ["--expires", "0d"], ["--detail", "x" * 501], ["--detail", "a\x1b[2J"], ["--by", "a\nb"],
])  # fmt: skip
def test_what_is_wrong_writes_nothing(kafka, arguments):
    assert len(refused("add", "r@there.test", *arguments)) < 300
    assert kafka.written == []


def test_one_bad_address_writes_none(kafka):
    result = runner.invoke(cli.app, ["suppressions", "add", "r@there.test", "nobody"])
    assert result.exit_code == 1 and kafka.written == []


def listed(kafka):
    kafka.put("acme", "b@there.test", {"reason": "complaint", "cause": "abuse", "source": "classify"})
    kafka.put("acme", "a@there.test", {"reason": "hard_bounce", "detail": "550 \x1b[2J=1", "at": NOW - 100_000_000})
    kafka.put("", "a@there.test", {"reason": "manual", "source": "cli", "by": "jo"})
    kafka.put("acme", "over@there.test", {"reason": "manual", "expires_at": NOW})
    kafka.put("acme", "gone@there.test", {"reason": "manual"})
    kafka.listed.append((b"acme\0gone@there.test", None))
    kafka.put("other", "x@notthere.test", {"reason": "unsubscribe"})


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ([], ["/a@there.test", "acme/a@there.test", "acme/b@there.test", "other/x@notthere.test"]),
        (["--tenant", "acme"], ["acme/a@there.test", "acme/b@there.test"]),
        (["--global"], ["/a@there.test"]),
        (["--reason", "complaint"], ["acme/b@there.test"]),
        (["--address", "A@There.test"], ["/a@there.test", "acme/a@there.test"]),
        (["--address", "@there.test", "--tenant", "acme"], ["acme/a@there.test", "acme/b@there.test"]),
        (["--since", "2023-11-14"], ["/a@there.test", "acme/b@there.test", "other/x@notthere.test"]),
        (["--tenant", "nobody"], []),
    ],
)
def test_list_and_export_filter(kafka, tmp_path, arguments, found):
    listed(kafka)
    told = [json.loads(line) for line in run("list", "--json", *arguments).stdout.splitlines()]
    assert [f"{one['tenant']}/{one['recipient']}" for one in told] == found
    run("export", tmp_path / "out.csv", *arguments)
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        assert [f"{row['tenant']}/{row['recipient']}" for row in csv.DictReader(file)] == found


def test_a_list_for_people_has_no_power_over_the_terminal(kafka):
    listed(kafka)
    shown = run("list").output
    assert "\x1b" not in shown and "(global)" in shown and "complaint abuse" in shown


def test_an_export_is_imported_elsewhere(kafka, tmp_path):
    listed(kafka)
    text = run("export").stdout
    assert len(list(csv.reader(io.StringIO(text)))) == 5
    (tmp_path / "all.csv").write_text(text, "utf-8")
    assert "added: 4; lines that are wrong: 0" in run("import", tmp_path / "all.csv").output
    assert [(e["tenant"], e["recipient"], e["reason"]) for e in kafka.written] == [
        ("", "a@there.test", "manual"), ("acme", "a@there.test", "hard_bounce"), ("acme", "b@there.test", "complaint"),
        ("other", "x@notthere.test", "unsubscribe"),
    ]  # fmt: skip


FILE = "email,created,ip\na@x.test,1699999000,192.0.2.1\nnobody,1,\nb@x.test,1699999000,\n"


def test_import_tells_bad_lines_and_takes_the_others(kafka, tmp_path):
    (tmp_path / "spam.csv").write_text(FILE, "utf-8")
    result = run("import", tmp_path / "spam.csv", "--tenant", "acme", status=1)
    assert [e["recipient"] for e in kafka.written] == ["a@x.test", "b@x.test"]
    assert "added: 2; lines that are wrong: 1" in result.output and f"{tmp_path / 'spam.csv'}:3: " in result.output


def test_a_dry_run_writes_nothing(kafka, tmp_path):
    (tmp_path / "spam.csv").write_text(FILE, "utf-8")
    assert (
        "would add: 2; lines that are wrong: 1"
        in run("import", tmp_path / "spam.csv", "--global", "--dry-run", status=1).output
    )
    assert kafka.written == []


def test_import_of_standard_input_and_of_many(kafka):
    lines = "".join(f"a{n}@x.test,1699999000\n" for n in range(2 * commands.BATCH + 5))
    result = run("import", "-", "--global", input="email,created\n" + lines)
    assert "added: 2,005; lines that are wrong: 0" in result.output
    assert len({e["recipient"] for e in kafka.written}) == 2005 and {e["tenant"] for e in kafka.written} == {""}


def test_what_is_no_list_is_refused(kafka, tmp_path):
    blocks = tmp_path / "suppression_blocks.csv"
    blocks.write_text("status,reason,email,created\n5.7.1,spam,a@x.test,1\n", "utf-8")
    assert "no suppressions" in refused("import", blocks, "--tenant", "acme")
    blocks.write_text("\x1b[2J,y\n1,2\n", "utf-8")
    assert "\x1b" not in refused("import", blocks, "--tenant", "acme")
    assert kafka.written == []
