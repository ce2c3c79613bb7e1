"""Debian's packages beside those of the machine: unpacked into a folder, run in name spaces of their own.

    server = Jail(folder / "postfix", unpack("postfix"), users=("postfix",)).run("postfix start-fg", log)

Postfix, Exim and OpenSMTPD exclude each other as packages. Here each sees its own files at the usual places (overlays over
/usr, /etc and /var in a mount name space), and all of its processes end with the first (a PID name space): nothing of the
machine is changed, nothing is left behind. Needs root and Linux; `Unavailable` says what is missing.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from deploy.local import ROOT, STATE, child

PACKAGES = STATE / "delivery" / "debian"
USER_ID = 5100  # of the first user of a jail; they exist there alone
SETUP_TIMEOUT_S = 300.0

# What mount(8) makes of a jail's folder. /proc is that of the PID name space.
_ENTER = """set -e
mount --make-rprivate /
mount -t overlay usr -o lowerdir={packages}/usr:/usr /usr
mount -t overlay etc -o lowerdir={packages}/etc:/etc,upperdir={jail}/etc,workdir={jail}/.etc /etc
mount -t overlay var -o lowerdir={packages}/var:/var,upperdir={jail}/var,workdir={jail}/.var /var
mount -t tmpfs run /run
{before}
{command} &
wait $!
"""
# The shell stays: it is the name space's init, all ends with it. A server that gave up root would not hear of its parent's end.


class Unavailable(RuntimeError):
    """A server cannot be had on this machine; the text says why."""


def unpack(name: str, kind: str = "delivery") -> Path:
    """The folder with the files of a server and of the libraries that it needs, as `system.sh KIND` leaves it. Raises
    Unavailable."""
    folder = PACKAGES / name
    if not (folder / ".complete").exists():
        command = [str(ROOT / "deploy/local/system.sh"), kind, str(PACKAGES)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SETUP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise Unavailable(f"Debian's packages do not come within {SETUP_TIMEOUT_S:g} s") from None
        if not (folder / ".complete").exists():
            raise Unavailable(f"no package {name}: {(done.stderr or done.stdout).strip()[-300:]}")
    return folder


class Jail:
    """One server's view of the machine. `folder`: emptied; what the server writes to /var and /etc is found in FOLDER/var and
    FOLDER/etc. `users`: accounts that it expects, each with a group of its name; `groups`: further groups."""

    def __init__(self, folder: Path, packages: Path, users: Sequence[str] = (), groups: Iterable[str] = ()):
        if os.getuid() != 0 or shutil.which("unshare") is None:
            raise Unavailable("mail servers of Debian are run in name spaces: needs root and unshare(1)")
        self.folder, self.packages = folder.absolute(), packages.absolute()
        shutil.rmtree(self.folder, ignore_errors=True)
        for part in ("etc", ".etc", "var", ".var"):
            (self.folder / part).mkdir(parents=True)
        for part in ("usr", "etc", "var"):
            (self.packages / part).mkdir(exist_ok=True)
        passwd, group = Path("/etc/passwd").read_text("utf-8"), Path("/etc/group").read_text("utf-8")
        for number, user in enumerate(users, USER_ID):
            passwd += f"{user}:x:{number}:{number}::/nonexistent:/bin/false\n"
            group += f"{user}:x:{number}:\n"
        for number, one in enumerate(groups, USER_ID + len(users)):
            group += f"{one}:x:{number}:\n"
        self.write("etc/passwd", passwd)
        self.write("etc/group", group)
        self.write("etc/resolv.conf", "nameserver 127.0.0.1\n")  # nothing of a jail asks the world

    def write(self, name: str, text: str, mode: int = 0o644) -> Path:
        """Write a file of the jail, before it runs."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        path.chmod(mode)
        return path

    def folder_for(self, name: str, mode: int = 0o777) -> Path:
        """A folder of the jail that every user of it may use, by default."""
        path = self.folder / name
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(mode)
        return path

    def run(self, command: str, log: Path, *, before: str = ":") -> subprocess.Popen[bytes]:
        """Start `command` inside, after `before` (both of sh). Everything that it starts ends with the process that is returned,
        which is ended by SIGKILL: unshare hears no other signal."""
        enter = _ENTER.format(
            packages=shlex.quote(str(self.packages)), jail=shlex.quote(str(self.folder)), before=before, command=command
        )
        unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"]
        return child.spawn([*unshare, "sh", "-c", enter], log)
