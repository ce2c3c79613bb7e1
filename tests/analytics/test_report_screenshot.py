"""The report as a browser shows it: light, dark, narrow and printed, in headless Chromium. `apt-get install chromium`; skipped without."""

import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from functools import cache

import numpy as np
import pytest
from PIL import Image

from analytics.report import Facts, page
from analytics.report.facts import VOLUMES

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium: apt-get install chromium")

SINCE, HOUR = datetime(2026, 1, 31, tzinfo=UTC), timedelta(hours=1)
WHITE, DELIVERED = (255, 255, 255), (0x5B, 0x93, 0xBD)  # --page and --delivered of style.css
DARK, DELIVERED_IN_DARK = (0x14, 0x19, 0x1D), (0x4D, 0x84, 0xAD)


@cache
def written_page():
    return page(facts())


def facts():
    volumes = [
        {"at": SINCE + n * HOUR} | dict.fromkeys(VOLUMES, 0) | {"accepted": 100 + n, "delivered": 95 + n, "bounced": 5, "deferred": n}
        for n in range(24)
    ]  # fmt: skip
    total = {"accepted": 2676, "ended": 2676, "in_flight": 0, "delivered": 2556, "two_ends": 0, "not_accepted": 0}
    long = "a-site-with-a-name-that-is-much-longer-than-a-phone-is-wide.and-goes-on-and-on.example.test"
    sites = [
        {"site": name, "ended": 1338, "delivered": 1278, "bounced": 60, "dropped": 0, "rejected": 0, "expired": 0, "cancelled": 0}
        for name in ("granite.test", long)
    ]  # fmt: skip
    return Facts(
        tenant="", since=SINCE, until=SINCE + 24 * HOUR, step=HOUR, volumes=volumes, ends_by_site=sites,
        deliverability=[
            {"at": SINCE + n * HOUR, "site": one["site"], "delivered": 50, "bounced": n, "expired": 0} for one in sites for n in range(24)
        ],
        ends_by_reason=[{"kind": "delivered", "reason": "", "messages": 2556}, {"kind": "bounced", "reason": "user-unknown", "messages": 120}],
        bounce_reasons=[{"site": long, "reason": "user-unknown", "enhanced_code": "5.1.1", "messages": 120, "example": "550 " + "z" * 150}],
        deferrals=[],
        latency=[{"site": one, "messages": 2556, "p50_ms": 300, "p95_ms": 900, "p99_ms": 61_000, "max_ms": 70_000} for one in ("(all)", long)],
        distribution=[{"from_ms": 2**n, "below_ms": 2 ** (n + 1), "deliveries": n * n} for n in range(4, 16)],
        sources=[{"source": "out-1", "site": long, "delivered": 2556, "bounced": 120, "deferred": 9, "complained": 1}],
        conservation=[{"tenant": "(all)"} | total, {"tenant": "shop"} | total], anomalies=[],
    )  # fmt: skip


def browse(folder, *arguments):
    written = folder / "report.html"
    written.write_text(written_page(), encoding="utf-8")
    subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--force-color-profile=srgb",
         f"--user-data-dir={folder / 'profile'}", *arguments, written.as_uri()],
        check=True, capture_output=True, timeout=100,
    )  # fmt: skip


def looked_at(folder, width, dark):
    """What is seen, as an array of pixels."""
    file = folder / "seen.png"
    browse(
        folder, f"--window-size={width},2400", f"--blink-settings=preferredColorScheme={0 if dark else 1}", f"--screenshot={file}"
    )  # fmt: skip
    return np.asarray(Image.open(file).convert("RGB"))


def share(picture, colour):
    return (picture == colour).all(axis=2).mean()


@pytest.mark.parametrize("width", [1100, 500])
@pytest.mark.parametrize(("dark", "ground", "delivered"), [(False, WHITE, DELIVERED), (True, DARK, DELIVERED_IN_DARK)])
def test_it_is_seen(tmp_path, width, dark, ground, delivered):
    seen = looked_at(tmp_path, width, dark)
    assert seen.shape == (2400, width, 3)
    assert share(seen, ground) > 0.5 and share(seen, delivered) > 0.01
    assert share(seen[:, :6], ground) == share(seen[:, -6:], ground) == 1  # nothing runs out of the page


def test_it_is_printed_in_the_colours_of_paper(tmp_path):
    file = tmp_path / "report.pdf"
    browse(tmp_path, "--blink-settings=preferredColorScheme=0", "--no-pdf-header-footer", f"--print-to-pdf={file}")
    assert file.read_bytes().startswith(b"%PDF")
    if shutil.which("pdftoppm") is None:
        pytest.skip("it is printed; what it looks like needs pdftoppm: apt-get install poppler-utils")
    subprocess.run(["pdftoppm", "-r", "50", "-png", file, tmp_path / "sheet"], check=True, timeout=60)
    sheets = [np.asarray(Image.open(one).convert("RGB")) for one in sorted(tmp_path.glob("sheet-*.png"))]
    assert 2 <= len(sheets) <= 6 and all(share(sheet, WHITE) > 0.5 for sheet in sheets)
    assert max(share(sheet, DELIVERED) for sheet in sheets) > 0.01
