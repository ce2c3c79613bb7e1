"""rspamd as an independent verifier of DKIM, RSA and Ed25519: a worker with its dkim module alone, keys from a name server of ours."""

from __future__ import annotations

import http.client
import json
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.local import child
from loadtest.delivery.debian import Jail, Unavailable, unpack

START_S = 90.0
WORKER = "127.0.90.9"
SIGNATURES_MAX = 10


class Rspamd:
    """`with Rspamd(folder, dns="127.0.0.1:5353", port=11333) as verifier`. Raises Unavailable."""

    def __init__(self, folder: Path, dns: str, port: int):
        self._port, self._log = port, folder / "rspamd.log"
        self._jail = Jail(folder / "rspamd", unpack("rspamd"), users=("_rspamd",))
        self._jail.folder_for("var/lib/rspamd")
        host, _, dns_port = dns.rpartition(":")
        self._jail.write(
            "etc/rspamd/alone.conf",
            f"""options {{
  filters = "dkim";
  dns {{ nameserver = ["{host}:{dns_port}:1"]; timeout = 5s; }}
  url_tld = "/usr/share/rspamd/effective_tld_names.dat";
  control_socket = "/run/rspamd.sock";
  disable_hyperscan = true;
}}
logging {{ type = "console"; level = "warning"; }}
dkim {{ check_local = true; check_authed = true; max_sigs = {SIGNATURES_MAX}; }}
worker "normal" {{ bind_socket = "{WORKER}:{port}"; count = 1; }}
""",
        )
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        command = "rspamd --no-fork --insecure --config=/etc/rspamd/alone.conf"
        self._process = self._jail.run(command, self._log)
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                connection = http.client.HTTPConnection(WORKER, self._port, timeout=5)
                connection.request("GET", "/ping")
                if connection.getresponse().status == 200:
                    return self
            except OSError:
                time.sleep(0.1)
        self.__exit__(None, None, None)
        raise Unavailable(f"rspamd does not start: {child.tail(self._log, 5)}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def valid(self, message: bytes) -> set[tuple[str, str]]:
        """(domain, selector) of every DKIM signature that holds. OSError where rspamd does not answer."""
        connection = http.client.HTTPConnection(WORKER, self._port, timeout=30)
        try:
            connection.request("POST", "/checkv2", message, {"IP": "192.0.2.1", "Pass": "all"})
            said = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        options = said.get("symbols", {}).get("R_DKIM_ALLOW", {}).get("options", [])
        return {(domain, selector) for domain, _, selector in (option.partition(":s=") for option in options)}
