"""What a process tells of where it runs, beside its counters (agents/exporter.py): `postroad_disk_free_bytes` and `postroad_disk_size_bytes` of the
disk that has `data_dir`, and `postroad_certificate_end_timestamp_seconds{door}` of the certificate that a door shows."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable
from pathlib import Path

from cryptography import x509
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

log = logging.getLogger(__name__)


class Machine(Collector):
    """`door`: api, smtp or inbound; `certificate`: the PEM file that it shows. The file is read once, as the door does it: one that was put
    there later is not shown yet."""

    def __init__(self, data_dir: Path, door: str = "", certificate: Path | None = None):
        self._data_dir, self._door = data_dir.absolute(), door
        self._ends = _end_of(certificate) if certificate else None

    def ends_at(self, timestamp: float) -> None:
        """Its certificate ends then (Unix time)."""
        self._ends = timestamp

    def collect(self) -> Iterable[Metric]:
        """As it is now; nothing of a disk that cannot be asked."""
        folder = next(place for place in (self._data_dir, *self._data_dir.parents) if place.exists())
        try:
            disk = shutil.disk_usage(folder)
        except OSError:
            pass  # the figures are missing, which is what there is to say
        else:
            yield GaugeMetricFamily(
                "postroad_disk_free_bytes", "of the disk that has data_dir, for who is not root", disk.free
            )
            yield GaugeMetricFamily("postroad_disk_size_bytes", "of the disk that has data_dir", disk.total)
        if self._ends is not None:
            name = "postroad_certificate_end_timestamp_seconds"
            family = GaugeMetricFamily(name, "when the certificate of a door ends, in Unix time", labels=["door"])
            family.add_metric([self._door], self._ends)
            yield family


def _end_of(path: Path) -> float | None:
    """Of the first certificate of a chain, which is the door's own."""
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())[0].not_valid_after_utc.timestamp()
    except (OSError, ValueError) as error:  # the door itself says what is wrong with it
        log.warning("when %s ends cannot be told: %s", path, error)
        return None
