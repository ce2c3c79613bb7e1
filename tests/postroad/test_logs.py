"""What a process writes to its log: one event a line whatever is in it, nothing of people or keys, and no flood."""

import base64
import io
import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote

import jwt
import log_check
import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroad import dkim, keys, logs
from postroad.log_masking import SEEN_MAX, TEXT_MAX, Mask, secrets_of
from postroad.log_repeats import BURST, Repeats
from postroad.settings import Settings
from postroad.webhooks import signing

ROOT = Path(logs.__file__).parents[1]
KEY, SECRET = keys.make("acme", ["send"], 0)
PEM, _ = dkim.generate("ed25519")
RSA, _ = dkim.generate("rsa")
HOOK = signing.new_secret("hmac")
TOKEN = jwt.encode({"sub": "k", "tenant": "acme"}, "s" * 40, "HS256")
ADDRESSES = [
    "ann@there.test",
    "o'brien@there.test",
    "b+ann=there.test@acme.test",
    '"ann b"@there.test',
    r'"a\"b c"@there.test',
    "müller@bücher.test",
    "用户@例子.test",
    "ann@xn--bcher-kva.test",
    "ann%there.test@relay.test",
    "ann!#$&*/?^_`{|}~@there.test",
    "ann@[127.0.0.1]",
    "ann@127.0.0.1",
    "a" * 64 + "@there.test",
]


@pytest.fixture
def lines():
    """A logger that writes JSON, and what it has written."""
    made = []

    def make(*known, as_json=True, repeats=None):
        stream, log = io.StringIO(), logging.getLogger(f"agents.test-{len(made)}")
        handler = logs.Handler(stream)
        handler.setFormatter(logs.formatter(Mask(known), as_json))
        if repeats is not None:
            handler.addFilter(repeats)
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False  # pytest would have its own look
        made.append((log, handler))
        return log, lambda: stream.getvalue().split("\n")[:-1]

    yield make
    for log, handler in made:
        log.removeHandler(handler)
        log.propagate = True


def events(written):
    return [json.loads(line) for line in written()]


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("text", ["%s", "to <%s>: no", "to=%s, next", "'%s'", "mailto:%s?subject=x", "%r", "a,%s;b", "RCPT TO:<%s> 550 5.1.1"])  # fmt: skip
def test_of_an_address_the_domain_stays(lines, address, text):
    log, written = lines()
    log.warning(text, address)
    local, _, domain = address.rpartition("@")
    (event,) = events(written)
    assert local not in event["event"] and local.strip('"') not in event["event"], event
    assert f"***@{domain.strip('[]')}" in event["event"].replace("[", "")


@pytest.mark.parametrize("encoded", [quote("ann@there.test", safe=""), quote(quote("ann@there.test", safe=""), safe=""),
                                     "ann=40there.test", "ann&#64;there.test", r"ann\u0040there.test", "ann＠there.test"])  # fmt: skip
def test_an_address_is_masked_however_its_at_is_written(encoded):
    assert "ann" not in Mask().text(f"GET /v1/suppressions/{encoded}?limit=5 failed")


@pytest.mark.parametrize("text", [
    "mail.submissions[3]@55: cannot be read", "control.tenants@17: kept", "waited timeout=40.5 s", "lag 40 of mail.scored@12.",
    "at 50%40 x", "@property", "a @ b", "the shaping file has 3 rules", "return_path_secret is not set: set one secret for all workers",
    "the token is over", "basic authentication failed",
])  # fmt: skip
def test_what_is_neither_an_address_nor_a_key_stays(text):
    assert Mask().text(text) == text


@pytest.mark.parametrize(
    "secret", [SECRET, HOOK, TOKEN, *PEM.split("\n")[1:2], *RSA.split("\n")[1:3], "hunter2hunter2"]
)
@pytest.mark.parametrize("text", [
    "Authorization: Bearer {}", "{{'authorization': 'Bearer {}'}}", "(b'authorization', b'Bearer {}')", "password={}", "'secret': '{}'",
    "clickhouse://default:{}@10.0.0.1:9000/postroad", "AUTH PLAIN {}", 'private_key: "{}"',
])  # fmt: skip
def test_a_secret_is_masked_where_it_is_named(text, secret):
    masked = Mask().text(text.format(secret))
    assert secret[-20:] not in masked and secret[-8:] not in masked


@pytest.mark.parametrize("secret", [SECRET, SECRET[:-12], HOOK, TOKEN, PEM, PEM[:-40], repr(PEM), json.dumps(PEM), RSA, repr(RSA),
                                    "".join(PEM.split("\n")[1:-2])])  # fmt: skip
def test_a_secret_of_a_known_form_is_masked_wherever_it_stands(secret):
    masked = Mask().text(f"could not use {secret}: no")
    body = [part for part in secret.replace("\\n", "\n").split("\n") if "-----" not in part and len(part) > 8]
    assert all(part[-12:] not in masked for part in body), masked
    assert masked.startswith("could not use ")


def test_the_id_of_a_key_stays():
    assert Mask().text(f"key {SECRET} is over") == f"key pr_live_{KEY['key_id']}*** is over"


def test_the_secrets_of_the_settings_are_masked_wherever_they_stand(monkeypatch):
    monkeypatch.setenv("POSTROAD_RETURN_PATH_SECRET", "0123456789abcdef-return, another-of-sixteen-or-more")
    monkeypatch.setenv("POSTROAD_CLICKHOUSE", "clickhouse://writer:pass%2Fword@10.0.0.1:9000/postroad")
    known = set(secrets_of(Settings()))
    assert {"0123456789abcdef-return", "another-of-sixteen-or-more", "pass%2Fword", "pass/word"} <= known
    assert Mask(known).text("x0123456789abcdef-returny pass/word") == "x***y ***"


def test_values_that_name_themselves_go_whole():
    told = {
        "event": "e",
        "subject": "Your order",
        "more": 3,
        "recipient": "x",
        "nested": {"html": "<p>", "api_key": b"k", "n": [1, "ann@there.test"]},
    }
    assert Mask()(None, "", told) == {
        "event": "e", "subject": "***", "more": 3, "recipient": "***", "nested": {"html": "***", "api_key": "***", "n": [1, "***@there.test"]},
    }  # fmt: skip


@pytest.mark.parametrize("as_json", [True, False])
def test_what_is_logged_forges_no_line(lines, as_json):
    log, written = lines(as_json=as_json)
    forged = '\n{"event": "forged", "level": "critical"}\r\n\u2028\u0085\x1b[2J\x00\ud800 end'
    log.warning("peer said %s", forged)
    (line,) = written()
    assert line.isprintable() and "end" in line
    if as_json:
        assert json.loads(line)["event"] == f"peer said {forged}"


def test_an_exception_is_structured_and_masked(lines):
    log, written = lines()
    try:
        try:
            body = "of a mail"  # noqa: F841  # a local is not told
            raise ValueError("no mail to ann@there.test\nforged")
        except ValueError as error:
            raise KeyError(SECRET) from error
    except KeyError:
        log.exception("a try failed")
    (event,) = events(written)
    assert [(one["exc_type"], one["exc_value"]) for one in event["exception"]] == [
        ("KeyError", f"'pr_live_{KEY['key_id']}***'"),
        ("ValueError", "no mail to ***@there.test\nforged"),
    ]
    assert event["exception"][0]["frames"][0]["name"] == "test_an_exception_is_structured_and_masked"
    assert "of a mail" not in json.dumps(event)


def test_a_traceback_for_people_is_drawn_in(lines):
    log, written = lines(as_json=False)
    try:
        raise ValueError("x\n2026-01-01 forged ann@there.test")
    except ValueError:
        log.exception("failed")
    first, *rest = written()
    assert "failed" in first and all(line.startswith(" | ") for line in rest)
    assert rest[-1] == " | 2026-01-01 forged ***@there.test"


@pytest.mark.parametrize("value", ["x" * 3_000_000, "a@" * 500_000, '"' * 200_000 + "@b.test", "=40" * 300_000, "password" * 100_000,
                                   "://" * 300_000, "-----BEGIN PRIVATE KEY-----" * 50_000, "M" * 10**6, "eyJ" * 300_000, "ann " * 10**6 + "ann@there.test",
                                   "pr_live_" * 100_000, "\\" * 10**6, "authorization: " * 100_000, "ann@there.test " * 100_000])  # fmt: skip
def test_a_huge_value_is_cut_and_takes_no_time(lines, value):
    log, written = lines()
    began = time.process_time()
    log.warning("got %s", value)
    assert time.process_time() - began < 1.0
    (event,) = events(written)
    assert len(event["event"]) < TEXT_MAX + 100 and f"{len(value) + 4:,} characters" in event["event"]
    assert "ann@" not in event["event"] and len(value) > SEEN_MAX


def test_a_line_that_cannot_be_written_is_told_without_its_values(lines, capsys):
    log, written = lines()
    log.warning("%d of them", "ann@there.test")
    (event,) = events(written)
    assert event["event"] == "a log line could not be written" and event["error"] == "TypeError"
    assert "ann" not in "".join(written()) and capsys.readouterr().err == ""


TEXTS = st.text(st.characters(codec="utf-8"), max_size=60)


@given(
    before=TEXTS, after=TEXTS, local=st.from_regex(r"\A[a-z0-9._+-]{3,30}\Z"), form=st.sampled_from(["%s", "%r", "%a"])
)
def test_no_address_comes_through_whatever_stands_around_it(before, after, local, form):
    stream, address = io.StringIO(), f"{local}@there.test"
    handler = logs.Handler(stream)
    handler.setFormatter(logs.formatter(Mask()))
    handler.handle(
        logging.LogRecord("x", logging.WARNING, "x.py", 1, f"{form}", (f"{before} {address} {after}",), None)
    )
    event = json.loads(stream.getvalue())["event"]
    assert stream.getvalue().count("\n") == 1 and address not in event


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_one_line_of_a_kind_and_then_how_many_more(lines):
    clock = Clock()
    repeats = Repeats(clock, period_s=3600.0)
    log, written = lines(repeats=repeats)
    for offset in range(1000):
        log.warning("%s@%d to dead letters", "ingest", offset, extra={"kind": "ingest DecodeError"})
    log.warning("%s@%d to dead letters", "ingest", 7, extra={"kind": "ingest ValueError"})
    assert [(e["event"], e.get("more")) for e in events(written)] == [
        ("ingest@0 to dead letters", None),
        ("ingest@7 to dead letters", None),
    ]
    clock.now = 3600.0
    repeats.tell()
    assert (events(written)[2]["event"], events(written)[2]["more"]) == ("ingest@999 to dead letters", 999)
    repeats.tell()
    assert len(written()) == 3
    clock.now = 7201.0
    log.warning("%s@%d to dead letters", "ingest", 2000, extra={"kind": "ingest DecodeError"})
    assert len(written()) == 4, "a quiet period is over"
    repeats._timer.cancel() if repeats._timer else None


def test_a_text_of_whatever_logger_goes_out_some_times_and_is_then_counted(lines):
    log, written = lines(repeats=Repeats(period_s=0.3))
    for number in range(BURST + 5):
        log.error("broker %d is away", number)
    log.error("something else")
    assert len(written()) == BURST + 1
    deadline = time.monotonic() + 5
    while len(written()) == BURST + 1 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert (events(written)[-1]["event"], events(written)[-1]["more"]) == (f"broker {BURST + 4} is away", 5)


def test_what_is_counted_is_told_when_the_process_ends(lines):
    repeats = Repeats()
    log, written = lines(repeats=repeats)
    for _ in range(3):
        log.error("gone", extra={"kind": "a"})
    log.handlers[0].close()
    assert [event.get("more") for event in events(written)] == [None, 2]
    repeats._timer.cancel() if repeats._timer else None


PROCESS = """
import asyncio, logging, os, sys, threading, warnings
from postroad import logs
from postroad.settings import load
logs.set_up("api", load())
logging.getLogger("agents.x").info("info of ours")
logging.getLogger("aiokafka.x").info("info of a library")
logging.getLogger("agents.stage_app").info("[^--StageApp]: Starting...")
logging.getLogger("uvicorn.error").error("library for ann@there.test")
async def main():
    async def one(stage):
        logs.in_stage(stage)
        await asyncio.sleep(0)
        await asyncio.create_task(two(stage))
    async def two(stage):
        logging.getLogger("topics.x").warning("of %s", stage)
    await asyncio.gather(one("route"), one("send"))
    logging.getLogger("topics.x").warning("of none")
asyncio.run(main())
warnings.warn("a warning")
thread = threading.Thread(target=lambda: 1 / 0)
thread.start(); thread.join()
raise RuntimeError("the end of bob@there.test")
"""


def run(code, **settings):
    env = {**{k: v for k, v in os.environ.items() if not k.startswith("POSTROAD_")}, **settings}
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)


def test_a_process_says_everything_in_json_on_stderr(tmp_path):
    done = run(PROCESS)
    assert done.returncode == 1 and done.stdout == ""
    (tmp_path / "stderr").write_text(done.stderr)
    assert not log_check.faults([tmp_path / "stderr"], is_json=[tmp_path / "stderr"])
    told = [json.loads(line) for line in done.stderr.splitlines()]
    assert [(one["level"], one["logger"], one.get("stage")) for one in told] == [
        ("info", "agents.x", None),
        ("error", "uvicorn.error", None),
        ("warning", "topics.x", "route"),
        ("warning", "topics.x", "send"),
        ("warning", "topics.x", None),
        ("warning", "py.warnings", None),
        ("critical", "postroad.logs", None),
        ("critical", "postroad.logs", None),
    ]
    assert {one["process"] for one in told} == {"api"} and len({one["pid"] for one in told}) == 1
    assert all(one["timestamp"].endswith("Z") for one in told)
    assert [one["exception"][0]["exc_type"] for one in told[-2:]] == ["ZeroDivisionError", "RuntimeError"]


def test_level_and_text_for_people(tmp_path):
    done = run(PROCESS, POSTROAD_LOG_FORMAT="text", POSTROAD_LOG_LEVEL="error")
    assert "info of ours" not in done.stderr and "of none" not in done.stderr
    assert "library for ***@there.test" in done.stderr and "{" not in done.stderr.splitlines()[0]


def test_a_setting_that_is_no_format_is_refused():
    done = run(
        "from postroad.cli import main; import sys; sys.argv[1:] = ['settings']; main()", POSTROAD_LOG_FORMAT="xml"
    )
    assert done.returncode == 1 and "POSTROAD_LOG_FORMAT" in done.stderr


def test_a_last_word_of_a_process_with_a_log_is_a_line_of_it():
    code = """
import sys
from postroad import cli, logs
from postroad.settings import load
def fails():
    logs.set_up("worker", load())
    raise cli.CommandError("no way to ann@there.test")
cli.app = fails
cli.main()
"""
    done = run(code)
    assert done.returncode == 1 and json.loads(done.stderr)["event"] == "no way to ***@there.test"


def test_base64_of_a_sign_in_is_masked():
    given_in = base64.b64encode(f"\0apikey\0{SECRET}".encode()).decode()
    assert given_in[-10:] not in Mask().text(f"client said b'AUTH PLAIN {given_in}'")
