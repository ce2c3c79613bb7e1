"""What a process tells of its disk and of the certificate that it shows, as Prometheus reads it."""

import shutil
import time

import pytest

from agents.exporter import serve
from agents.machine import Machine
from deploy.local.kafka import free_port
from gateway import tls
from tests.agents.test_exporter import scrape

END = "postroad_certificate_end_timestamp_seconds"


def told(*machine):
    port = free_port()
    end = serve(f"127.0.0.1:{port}", [], also=[Machine(*machine)])
    try:
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in scrape(port)}
    finally:
        end()


def test_the_disk_of_data_dir_also_before_the_folder_is_made(tmp_path):
    found = told(tmp_path / "not" / "yet")
    disk = shutil.disk_usage(tmp_path)
    assert set(found) == {"postroad_disk_free_bytes", "postroad_disk_size_bytes"}
    assert found["postroad_disk_size_bytes"] == disk.total
    assert found["postroad_disk_free_bytes"] == pytest.approx(disk.free, rel=0.2)


def test_when_the_certificate_of_a_door_ends(tmp_path):
    tls.context(None, None, tmp_path, "mx.example.com")  # makes one
    found = told(tmp_path, "inbound", tmp_path / "inbound-tls.pem")
    assert found[f'{END}{{door="inbound"}}'] == pytest.approx(time.time() + tls.DAYS * 86_400, abs=600)


def test_a_file_that_is_no_certificate_is_logged_and_does_not_keep_the_rest_from_being_told(tmp_path, caplog):
    (tmp_path / "a.pem").write_text("nothing")
    assert len(told(tmp_path, "smtp", tmp_path / "a.pem")) == 2
    assert "a.pem" in caplog.text
