"""`postroad bounces`: its JSON is an interface (one object per file and line), its exit status tells of files that cannot be read."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from postroad.cli import app

DSN = b"""From: MAILER-DAEMON@mx.there.test
To: b+x@bounces.acme.test
Subject: Undelivered Mail Returned to Sender
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary="b"

--b

Your message could not be delivered.
--b
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.there.test

Final-Recipient: rfc822; gone@there.test
Action: failed
Status: 5.1.1
Diagnostic-Code: smtp; 550 5.1.1 <gone@there.test>: no such user here

--b
Content-Type: message/rfc822

From: news@acme.test
To: gone@there.test
Subject: hello

hello
--b--
"""
PERSON = {"address", "class", "reason", "status", "reply_code", "action", "rule", "confidence"}


@pytest.fixture
def run():
    return lambda *arguments, given=None: CliRunner().invoke(app, ["bounces", *map(str, arguments)], input=given)


def test_one_object_per_file_and_line(run, tmp_path):
    dsn, mail = tmp_path / "dsn.eml", tmp_path / "mail.eml"
    dsn.write_bytes(DSN)
    mail.write_bytes(b"From: r@there.test\nSubject: lunch?\n\nAt one?\n")
    done = run("explain", dsn, mail, "--json")
    assert done.exit_code == 0
    bounce, other = map(json.loads, done.stdout.splitlines())
    assert bounce.keys() == {"file", "kind", "recipients"}
    assert (bounce["file"], bounce["kind"]) == (str(dsn), "bounce")
    (person,) = bounce["recipients"]
    assert person.keys() == PERSON
    assert (person["address"], person["class"], person["reason"]) == ("gone@there.test", "hard", "user-unknown")
    assert (person["status"], person["reply_code"], person["action"]) == ("5.1.1", 550, "failed")
    assert person["rule"] and 0 < person["confidence"] <= 1
    assert other == {"file": str(mail), "kind": "other", "recipients": []}


@pytest.mark.parametrize("before", [b"", b"From MAILER-DAEMON@mx.there.test  Wed Jul 24 04:53:42 2002\n"])
def test_standard_input_and_the_line_of_an_mbox(run, before):
    done = run("explain", "-", "--json", given=before + DSN)
    found = json.loads(done.stdout)
    assert found["file"] == "-" and found["recipients"][0]["address"] == "gone@there.test"


def test_what_cannot_be_read_is_told_and_the_rest_is_done(run, tmp_path):
    (tmp_path / "dsn.eml").write_bytes(DSN)
    done = run("explain", tmp_path / "none.eml", tmp_path, tmp_path / "dsn.eml", "--json")
    assert done.exit_code == 1
    assert [json.loads(line)["kind"] for line in done.stdout.splitlines()] == ["bounce"]
    assert "none.eml: No such file" in done.stderr and f"{tmp_path}: Is a directory" in done.stderr


@pytest.mark.parametrize(
    "raw", [b"", b"\n", b"\0\xff" * 500, DSN.replace(b"gone@there.test", b"\x1b[31m\xff@there.test")]
)
def test_no_bytes_break_it_or_reach_the_terminal(run, tmp_path, raw):
    path = tmp_path / "\x1b[31mname.eml"
    path.write_bytes(raw)
    assert json.loads(run("explain", path, "--json").stdout)["file"] == str(path)
    shown = run("explain", path)
    assert shown.exit_code == 0 and "\x1b[31m" not in shown.stdout


def test_for_people_it_says_what_the_reason_means(run, tmp_path):
    (tmp_path / "dsn.eml").write_bytes(DSN)
    shown = run("explain", tmp_path / "dsn.eml").stdout
    assert "dsn.eml: bounce" in shown and "gone@there.test" in shown and "no such mailbox" in shown


@pytest.mark.parametrize(
    ("reply", "kind", "outcome", "person"),
    [
        ("550 5.1.1 no such user here", "bounce", "hard", ("hard", "user-unknown", "5.1.1", 550, "failed")),
        ("550-5.1.1 no such\n550 5.1.1 user here", "bounce", "hard", ("hard", "user-unknown", "5.1.1", 550, "failed")),
        ("452 4.2.2 mailbox full", "delay", "deferral", ("soft", "mailbox-full", "4.2.2", 452, "delayed")),
        ("250 2.0.0 queued", "other", "delivered", ("undetermined", "delivered", "2.0.0", 250, "delivered")),
        ("5.1.1 no such user here", "bounce", "hard", ("hard", "user-unknown", "5.1.1", 0, "failed")),
    ],
)
def test_replies(run, reply, kind, outcome, person):
    done = run("explain-reply", reply, "--json")
    found = json.loads(done.stdout)
    assert (found["reply"], found["kind"], found["outcome"]) == (reply, kind, outcome)
    (said,) = found["recipients"]
    assert said.keys() == PERSON
    assert tuple(said[name] for name in ("class", "reason", "status", "reply_code", "action")) == person


@pytest.mark.parametrize("reply", ["", " ", "550", "999 what", "\0\x1b[31m", "nothing at all"])
def test_any_reply_has_an_answer(run, reply):
    assert json.loads(run("explain-reply", reply, "--json").stdout)["recipients"][0]["class"] != "hard"
    shown = run("explain-reply", reply)
    assert shown.exit_code == 0 and "\x1b[31m" not in shown.stdout


def test_a_phase_that_is_none_is_refused(run):
    assert run("explain-reply", "550 no", "--phase", "lunch").exit_code == 2
    assert run("explain-reply", "550 no", "--phase", "mail").exit_code == 0


def test_a_dsn_and_a_reply_with_the_same_text_agree(run):
    dsn = json.loads(run("explain", "-", "--json", given=DSN).stdout)["recipients"][0]
    reply = json.loads(run("explain-reply", "550 5.1.1 <gone@there.test>: no such user here", "--json").stdout)[
        "recipients"
    ][0]
    assert {name: dsn[name] for name in ("class", "reason", "rule", "confidence")} == {
        name: reply[name] for name in ("class", "reason", "rule", "confidence")
    }


def test_it_loads_no_kafka():
    program = (
        "import sys; from postroad.commands import bounces; bounces.explained(b''); bounces.explained_reply('550 no'); "
        "print([name for name in sys.modules if name.split('.')[0] in ('aiokafka', 'faust', 'topics', 'agents', 'rocksdict')])"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"
