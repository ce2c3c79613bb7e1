"""`python -m loadtest.mxfarm --folder DIR`: run the farm until SIGTERM, or until the parent dies (Linux)."""

import argparse
import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path

from loadtest.mxfarm import sites
from loadtest.mxfarm.server import FarmServer

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def _die_with_parent() -> None:
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:  # it died before the call
        sys.exit(1)


async def _run(arguments: argparse.Namespace) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    farm = FarmServer(
        arguments.folder,
        dns_port=arguments.dns_port,
        smtp_port=arguments.smtp_port,
        txt=arguments.zone_txt,
        sites=sites.read(arguments.sites) if arguments.sites else sites.SITES,
    )
    async with farm:
        print(f"mxfarm: DNS on {farm.dns}, SMTP on port {farm.smtp_port}, receipts in {arguments.folder}", flush=True)
        await stopped.wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtest.mxfarm", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="receipts, farm.json, control.json; kept")
    parser.add_argument("--dns-port", type=int, default=0, help="on 127.0.0.1; default: a free one")
    parser.add_argument("--smtp-port", type=int, default=0, help="of all receivers; default: a free one")
    parser.add_argument("--zone-txt", type=Path, help="TXT records, {name: text}; default: FOLDER/txt.json")
    parser.add_argument("--sites", type=Path, help="JSON file with other sites than those of sites.py")
    arguments = parser.parse_args()
    _die_with_parent()
    with contextlib.suppress(KeyboardInterrupt):
        try:
            asyncio.run(_run(arguments))
        except OSError as error:
            sys.exit(f"mxfarm: {error}")


if __name__ == "__main__":
    main()
