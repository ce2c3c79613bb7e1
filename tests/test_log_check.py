"""What greps the logs of the test run finds what is planted, in every form, and nothing where nothing is. Names of files end in no .log: these
would be found themselves when the run is over."""

import base64
import json
import time
from urllib.parse import quote

import log_check
import pytest

from postroad import dkim, keys
from postroad.webhooks import signing

LINE = {
    "timestamp": "2026-01-01T00:00:00Z",
    "level": "info",
    "logger": "a",
    "event": "READY: ingest to ***@accept.test",
    "process": "worker",
}
SUBJECT = "Subject that no log has"
PEM = dkim.generate("ed25519")[0]


def planted(tmp_path, text, known=()):
    """Faults of a log of three lines with `text` in the middle one."""
    path = tmp_path / "worker-0"
    lines = [json.dumps(LINE), json.dumps({**LINE, "event": f"a line: {text} and on"}), json.dumps(LINE)]
    path.write_text("\n".join(lines) + "\n")
    return log_check.faults([path], known, is_json=[path])


@pytest.mark.parametrize("text", [
    "ann@accept.test", "<ann@accept.test>", "to=ann@accept.test", "'ann@accept.test'", "müller@bücher.test", "x***@accept.test", "ann%40accept.test",
    keys.make("acme", ["send"], 0)[1], signing.new_secret("hmac"), PEM, PEM.splitlines()[1], "Authorization: Bearer " + "a1" * 10,
])  # fmt: skip
def test_what_looks_like_an_address_or_a_secret_is_found(tmp_path, text):
    found = planted(tmp_path, text)
    assert found and all("worker-0:2 has " in one for one in found)


@pytest.mark.parametrize("form", [
    str, quote, lambda text: quote(text, safe=""), repr, lambda text: base64.b64encode(text.encode()).decode(), lambda text: f"x{text}y",
    json.dumps,
])  # fmt: skip
@pytest.mark.parametrize("text", [SUBJECT, "ü ann@nowhere.invalid", '"quoted local"@[10.0.0.1]', "Größe: ein Thema"])
def test_what_is_known_is_found_in_every_form(tmp_path, form, text):
    assert planted(tmp_path, form(text), [text])


def test_what_is_masked_is_not_found(tmp_path):
    assert not planted(
        tmp_path, "***@accept.test pr_live_abcdefghij012345*** mail.scored[1]@55 Bearer *** whsec_***", [SUBJECT]
    )


@pytest.mark.parametrize("line", ["Traceback (most recent call last):", "[]", '{"event": "x"}', '{"event": '])
def test_a_line_that_is_no_event_is_found(tmp_path, line):
    path = tmp_path / "worker-0"
    path.write_text(f"{json.dumps(LINE)}\n{line}\n")
    assert log_check.faults([path], is_json=[path]) and not log_check.faults([path])


def test_the_line_that_a_kill_has_cut_is_none(tmp_path):
    path = tmp_path / "worker-0"
    path.write_text(f'{json.dumps(LINE)}\n{{"event": "R')
    assert not log_check.faults([path], is_json=[path])


def test_data_of_kafka_and_rocksdb_is_no_log(tmp_path):
    for name in ("a/00000000000000000000.log", "b/000004.log", "worker-0.log", "c/broker.log"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    assert [path.name for path in log_check.logs_below(tmp_path)] == ["broker.log", "worker-0.log"]


def test_a_large_log_takes_no_time(tmp_path):
    path = tmp_path / "worker-0"
    path.write_text("a" * 10**6 + "\n" + f"{json.dumps(LINE)}\n" * 5_000)
    began = time.process_time()
    assert not log_check.faults([path], [f"recipient-{number}@accept.test" for number in range(500)])
    assert time.process_time() - began < 5
