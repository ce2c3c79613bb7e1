"""`postroad shaping`: every fault and exit status 1; what holds for a site, and why."""

import pytest
from typer.testing import CliRunner

from postroad import cli, settings

runner = CliRunner()


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("POSTROAD_CONFIG", raising=False)
    monkeypatch.delenv("POSTROAD_SHAPING", raising=False)
    settings.load.cache_clear()
    yield
    settings.load.cache_clear()


def shaping(*arguments):
    return runner.invoke(cli.app, ["shaping", *arguments])


def test_check_tells_every_fault_with_its_line(tmp_path):
    (tmp_path / "s.toml").write_text('[default]\nconections = 3\nidle = -1\n[site."a\\u001b"]\ntls = "no"\n')
    done = shaping("check", "s.toml")
    assert done.exit_code == 1
    lines = done.stderr.splitlines()
    assert [line.split(" ")[0] for line in lines] == ["s.toml:2:", "s.toml:3:", "s.toml:4:"]
    assert "did you mean connections?" in lines[0] and "\x1b" not in done.stderr


def test_check_of_a_right_file_of_the_setting_and_of_none(tmp_path, monkeypatch):
    assert "the shipped defaults: in order" in shaping("check").output
    (tmp_path / "s.toml").write_text("[default]\nconnections = 3\n")
    done = shaping("check", "s.toml")
    assert done.exit_code == 0 and done.output.startswith("s.toml: in order, version ")
    monkeypatch.setenv("POSTROAD_SHAPING", str(tmp_path / "missing.toml"))
    settings.load.cache_clear()
    done = shaping("check")
    assert done.exit_code == 1 and "missing.toml: cannot be read: No such file" in done.stderr


def test_show_names_the_table_of_every_limit_and_the_rules(tmp_path, monkeypatch):
    (tmp_path / "s.toml").write_text(
        '[default]\nretry_broadcast.delays = ["1h", "4h"]\n[source.a]\nconnections = 2\n[warmup.a]\nstart = 2026-11-30\n[[rule]]\nname = "mine"\nreply = "[x]"\naction = "suspend-source"\n'
    )
    monkeypatch.setenv("POSTROAD_SHAPING", "s.toml")
    settings.load.cache_clear()
    done = shaping("show", "l.google.com", "--source", "a")
    assert done.exit_code == 0
    lines = done.output.splitlines()
    assert lines[0].startswith("site google, source a, shaping version ")
    found = {line.split()[0]: line for line in lines if line.strip()}
    assert "s.toml [source.a]" in found["connections"] and " 2 " in found["connections"]
    assert "required" in found["tls"] and "default.toml [site.google]" in found["tls"]
    assert "3d" in found["broken_tls"]
    assert "1h 4h" in found["retry_broadcast.delays"] and "as retry" in found["retry_broadcast.jitter"]
    assert "suspend-source for 30m" in found["mine"] and "[x]" in found["mine"]
    assert "reduce-rate to 0.25 of it for 30m" in found["google-unusual-rate"] and "yahoo-volume" not in found
    assert "40 days from 2026-11-30, to each site 50, 100, 500, 1,000, 1,500, ..." in done.output
