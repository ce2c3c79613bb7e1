"""Settings: where they come from, and what a wrong one says."""

from pathlib import Path

import pytest

from postroad.settings import SettingsError, listing, load, read


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch, tmp_path):
    """No variable and no file of the machine that runs the tests."""
    import os

    for name in [name for name in os.environ if name.startswith("POSTROAD_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    load.cache_clear()
    yield
    load.cache_clear()


def faults() -> list[str]:
    with pytest.raises(SettingsError) as caught:
        read()
    return str(caught.value).splitlines()


def test_defaults_work_without_a_file():
    settings = read()
    assert settings.kafka == "127.0.0.1:9092"
    assert settings.content.startswith("file:///") and settings.content.endswith("/.local/data/content")
    assert settings.warehouse == "http://127.0.0.1:8123"
    (source,) = settings.pools()["default"].sources
    assert (source.name, source.address, source.ehlo) == ("default", "", settings.ehlo)


def test_the_environment_comes_before_the_file(monkeypatch, tmp_path):
    (tmp_path / "postroad.toml").write_text('partitions = 8\ntopic_prefix = "t."\n')
    monkeypatch.setenv("POSTROAD_PARTITIONS", "2")
    assert (read().partitions, read().topic_prefix) == (2, "t.")
    assert {line.name: line.source for line in listing(read()) if line.source != "default"} == {
        "partitions": "POSTROAD_PARTITIONS",
        "topic_prefix": "postroad.toml",
    }
    other = tmp_path / "other.toml"
    other.write_text("partitions = 3")
    monkeypatch.setenv("POSTROAD_CONFIG", str(other))
    assert (read().partitions, read().topic_prefix) == (2, "")


def test_shaping_and_pools_from_the_file(tmp_path):
    (tmp_path / "postroad.toml").write_text("""
shaping = "shaping.toml"
retry_delays_s = [60, 600]
smtp_timeout_scale = 0.5
[[egress.bulk]]
name = "a"
address = "192.0.2.1"
ehlo = "a.example"
[[egress.bulk]]
name = "b"
weight = 0
""")
    settings = read()
    assert settings.shaping == Path("shaping.toml")
    assert settings.limits().retry.delays_s == (60, 600)
    assert settings.limits().timeouts.of("banner") == 150
    bulk = settings.pools()["bulk"]
    assert [(s.name, s.address, s.weight) for s in bulk.sources] == [("a", "192.0.2.1", 1), ("b", "", 0)]


@pytest.mark.parametrize("name", ["shaping", "api_certificate", "inbound_key", "submission_certificate"])
def test_an_empty_file_is_none(monkeypatch, name):
    monkeypatch.setenv(f"POSTROAD_{name.upper()}", "")
    assert getattr(read(), name) is None


def test_lists_are_separated_by_commas(monkeypatch):
    monkeypatch.setenv("POSTROAD_DNS_SERVERS", "127.0.0.1:5353, 127.0.0.2:53")
    monkeypatch.setenv("POSTROAD_GREYLIST_S", "1,2.5")
    assert read().dns_servers == ["127.0.0.1:5353", "127.0.0.2:53"]
    assert read().greylist_s == [1, 2.5]


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("POSTROAD_KAFA", "x", "no such setting; did you mean kafka?"),
        ("POSTROAD_WHATEVER_THIS_IS", "x", "no such setting; `postroad settings`"),
        ("POSTROAD_PARTITIONS", "many", "= many: Input should be a valid integer"),
        ("POSTROAD_PARTITIONS", "0", "greater than or equal to 1"),
        ("POSTROAD_KAFKA", "localhost", "must be host:port"),
        ("POSTROAD_KAFKA", "a:1,b:99999", "from 1 to 65535"),
        ("POSTROAD_DNS_SERVERS", "127.0.0.1", "must be host:port"),
        ("POSTROAD_EGRESS", "{", "must be JSON"),
        ("POSTROAD_EGRESS", '{"a": [{"nam": "b", "name": "a"}]}', "no such key"),
        ("POSTROAD_SITES", "{}", "no such setting"),  # it was one until issue 5
        ("POSTROAD_EGRESS", '{"default": []}', "a source with a weight above 0"),
        ("POSTROAD_CLICKHOUSE", "mysql://x", "should match pattern"),
        ("POSTROAD_TOPIC_PREFIX", "a b", "should match pattern"),
        ("POSTROAD_EXPIRES_HOURS", "inf", "finite number"),
        ("POSTROAD_RETRY_JITTER", "1", "less than 1"),
        ("POSTROAD_RETRY_DELAYS_S", "5,inf", "finite number"),
        ("POSTROAD_KAFKA_SESSION_TIMEOUT_S", "nan", "finite number"),
    ],
)
def test_a_wrong_variable_is_named(monkeypatch, variable, value, said):
    monkeypatch.setenv(variable, value)
    (line,) = faults()
    assert line.startswith(variable) and said in line


def test_every_fault_of_file_and_environment_is_named(monkeypatch, tmp_path):
    (tmp_path / "postroad.toml").write_text('partitons = 4\nsmtp_port = 0\n[[egress.a]]\nname = "b"\nweight = "x"\n')
    monkeypatch.setenv("POSTROAD_SIZE_MAX", "big")
    found = faults()
    assert len(found) == 4
    assert "postroad.toml: partitons: no such setting; did you mean partitions?" in found
    assert any(line.startswith("postroad.toml: smtp_port = 0:") for line in found)
    assert any(line.startswith("postroad.toml: egress.a.0.weight = x:") for line in found)
    assert any(line.startswith("POSTROAD_SIZE_MAX = big:") for line in found)


@pytest.mark.parametrize(
    "content",
    [
        b"partitions = ",
        b"\xff",
        b"a = 1\na = 2",
        b"kafka = '\0'",
        b"a = " + b"[" * 9_000,
        b"partitions = " + b"9" * 5_000,
    ],
)
def test_a_file_that_is_not_toml(tmp_path, content):
    (tmp_path / "postroad.toml").write_bytes(content)
    assert "postroad.toml: not TOML" in faults()[0]


def test_a_named_file_must_be_there(monkeypatch):
    monkeypatch.setenv("POSTROAD_CONFIG", "absent.toml")
    assert "absent.toml: cannot be read" in faults()[0]


def test_passwords_are_masked(monkeypatch):
    monkeypatch.setenv("POSTROAD_CLICKHOUSE", "clickhouse://me:s3cret@host:9000/db")
    text = str(listing(read()))
    assert "clickhouse://me:***@host:9000/db" in text and "s3cret" not in text
    monkeypatch.setenv("POSTROAD_PARTITIONS", "x")
    assert "s3cret" not in str(faults())


def test_every_setting_has_a_description():
    assert all(line.description for line in listing(read()))


def test_load_reads_once(monkeypatch):
    first = load()
    monkeypatch.setenv("POSTROAD_PARTITIONS", "2")
    assert load() is first
    load.cache_clear()
    assert load().partitions == 2
