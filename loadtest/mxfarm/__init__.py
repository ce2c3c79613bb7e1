"""The receiving side of demo, tests and benchmarks: a name server and SMTP receivers on loopback.

`Farm.start(folder)` runs it as a child process; `FarmServer` is the same inside an event loop of one's own; `Receipts`
reads what was received. Who answers how is in sites.py, how to change it while it runs in server.py.
"""

from loadtest.mxfarm.child import Farm, FarmError
from loadtest.mxfarm.connections import Connection
from loadtest.mxfarm.receipts import Receipt, Receipts
from loadtest.mxfarm.server import FarmServer
from loadtest.mxfarm.signatures import DkimResult
from loadtest.mxfarm.sites import SITES, Behaviour, Host, Site

__all__ = [
    "SITES",
    "Behaviour",
    "Connection",
    "DkimResult",
    "Farm",
    "FarmError",
    "FarmServer",
    "Host",
    "Receipt",
    "Receipts",
    "Site",
]
