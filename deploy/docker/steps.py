"""The image without an engine: the Dockerfile's steps in clean roots of Debian, then its commands in them as its user.

    make image-steps        # python -m deploy.docker.steps [--folder FOLDER] [--keep]; root and debootstrap are needed

A root by debootstrap stands for python:3.11-slim-bookworm (the same Debian, its own Python 3.11). In one copy deploy/docker/build.sh
makes /opt/postroad, with no network: what it would fetch is fetched before, by hash. The other copy gets that folder, and is what the
image would be: read-only, a user without rights, two volumes. There the help of the program and of a stage are asked for, topics are made
on a real Kafka and one stage is started, asked for its health and ended. Last line RESULT; exit status 1 where anything is not as it must be.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from deploy.local import ROOT, STATE, child
from deploy.local.kafka import Kafka, free_port

SUITE = "bookworm"
PACKAGES = "python3,python3-venv,ca-certificates,tini"
DOCKERFILE = ROOT / "deploy/docker/Dockerfile"
USER = "10001:10001"
STAGE = "route"
START_S, STOP_S = 60.0, 45.0
# /proc and /dev as an engine gives them; all else read-only but for /tmp and the volumes. Ends with what it runs.
RUN = """
set -e
mount --bind "$0" "$0" && mount -o remount,ro,bind "$0"
mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev"
mount -t tmpfs tmpfs "$0/tmp" && mount -t tmpfs -o mode=750,uid=10001,gid=10001 tmpfs "$0/var/lib/postroad"
cd / && exec chroot --userspec="$1" "$0" /usr/bin/env -i "${@:2}"
"""


class StepsError(RuntimeError):
    """A step failed, or the image would not do what it must; the text says which."""


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m deploy.docker.steps", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--folder", type=Path, default=STATE / "image", help="the base root and what was fetched stay there"
    )
    parser.add_argument("--keep", action="store_true", help="do not remove the finished roots")
    given = parser.parse_args()
    began = time.monotonic()
    try:
        _possible()
        image = Image(given.folder.absolute())
        image.build()
        found = image.check()
    except (StepsError, subprocess.CalledProcessError) as error:
        print(f"image-steps: {error}", file=sys.stderr)
        return 1
    if not given.keep:
        image.remove()
    print("RESULT", json.dumps({**found, "seconds": round(time.monotonic() - began, 1)}))
    return 0


def _possible() -> None:
    if os.geteuid() != 0 or not shutil.which("debootstrap") or not shutil.which("unshare"):
        raise StepsError("root, debootstrap and unshare are needed: apt-get install debootstrap")
    if sys.version_info[:2] != (3, 11) or platform.machine() not in ("x86_64", "aarch64"):
        raise StepsError("packages are fetched by this Python, for the same Python 3.11 in Debian bookworm on Linux")


class Image:
    """Its roots, in a folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.base, self.fetched = folder / "base", folder / "fetched"
        self.builder, self.root = folder / "builder", folder / "root"

    def build(self) -> None:
        """The steps of the Dockerfile."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.base / ".complete").exists():
            shutil.rmtree(self.base, ignore_errors=True)
            _run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(self.base))
            (self.base / ".complete").touch()
        for lock in ("tools", "requirements"):
            _run(
                sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--require-hashes",
                "--dest", str(self.fetched), "-r", str(ROOT / f"deploy/docker/{lock}.lock"),
            )  # fmt: skip
        self.remove()
        for root in (self.builder, self.root):
            _run("cp", "-a", "--reflink=auto", str(self.base), str(root))
        for path in context():
            into = self.builder / "src" / path
            into.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / path, into)
        shutil.copytree(self.fetched, self.builder / "fetched")
        for step in ("tools", "packages", "program"):
            self._step(self.builder, step)
        _run("cp", "-a", str(self.builder / "opt/postroad"), str(self.root / "opt/postroad"))
        script = self.root / "src/deploy/docker/build.sh"
        script.parent.mkdir(parents=True)
        shutil.copy2(ROOT / "deploy/docker/build.sh", script)
        self._step(self.root, "system")
        shutil.rmtree(self.root / "src")

    def _step(self, root: Path, step: str) -> None:
        """With no network: a name space of its own has none."""
        began = time.monotonic()
        environment = [
            f"PATH={os.defpath}:/usr/sbin:/sbin",
            "HOME=/root",
            "PIP_NO_INDEX=1",
            "PIP_FIND_LINKS=/fetched",
            "LC_ALL=C.UTF-8",
        ]
        _run(
            "unshare",
            "--net",
            "chroot",
            str(root),
            "/usr/bin/env",
            "-i",
            *environment,
            "/src/deploy/docker/build.sh",
            step,
        )
        print(f"build.sh {step}: {time.monotonic() - began:.1f} s", flush=True)

    def remove(self) -> None:
        """The roots that are made anew each time."""
        for root in (self.builder, self.root):
            if root.exists() and root.parent == self.folder:
                shutil.rmtree(root)

    # -- what it would do ----------------------------------------------------------------------------------------------
    def command(self, *arguments: str, **settings: str) -> list[str]:
        """What an engine would run for `docker run --read-only IMAGE ARGUMENTS`."""
        variables = [f"{name}={value}" for name, value in {**declared("ENV"), **settings}.items()]
        return [
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "bash",
            "-c",
            RUN,
            str(self.root),
            USER,
            *variables,
            *arguments,
        ]

    def check(self) -> dict[str, object]:
        """Run it; what was found. Raises StepsError."""
        entry = json.loads(declared_line("ENTRYPOINT"))
        helped = self._said(*entry, "--help")
        if "worker" not in helped:
            raise StepsError(f"postroad --help does not name its commands:\n{helped}")
        if "Names of stages" not in self._said(*entry, "worker", "--help"):
            raise StepsError("postroad worker --help says nothing about stages")
        who = self._said(
            "sh", "-c", "id -u; touch /opt/postroad/x /x 2>&1 || true; touch /var/lib/postroad/x && echo written"
        )
        if who.split()[0] != "10001" or who.count("Read-only file system") != 2 or "written" not in who:
            raise StepsError(f"not the user, not read-only, or no volume:\n{who}")
        parts = json.loads((self.root / "opt/postroad/sbom.cdx.json").read_text("utf-8"))["components"]
        size = sum(path.lstat().st_size for path in (self.root / "opt/postroad").rglob("*") if path.is_file())
        return {"sbom_parts": len(parts), "mib": round(size / (1 << 20)), **self._stage(entry)}

    def _said(self, *arguments: str, **settings: str) -> str:
        done = subprocess.run(self.command(*arguments, **settings), capture_output=True, text=True, timeout=120)
        if done.returncode:
            raise StepsError(f"{' '.join(arguments)} ended with status {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def _stage(self, entry: Sequence[str]) -> dict[str, object]:
        """Make topics, start one stage, ask for its health as the engine would, end it."""
        folder = self.folder / "kafka"
        shutil.rmtree(folder, ignore_errors=True)
        kafka = Kafka(folder).start()
        metrics = f"127.0.0.1:{free_port()}"
        settings = {"POSTROAD_KAFKA": kafka.bootstrap, "POSTROAD_METRICS": metrics, "POSTROAD_PARTITIONS": "2"}
        log = self.folder / "stage.log"
        log.unlink(missing_ok=True)
        try:
            self._said(*entry, "topics", "create", **settings)
            began = time.monotonic()
            worker = child.spawn(self.command(*entry, "worker", STAGE, **settings), log)
            while "READY" not in log.read_text("utf-8"):
                if worker.poll() is not None or time.monotonic() - began > START_S:
                    raise StepsError(f"worker {STAGE} is not ready:\n{child.tail(log)}")
                time.sleep(0.1)
            ready_s = time.monotonic() - began
            self._said("postroad-health", "livez", **settings)
            with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=5) as answer:
                if answer.status != 200:
                    raise StepsError(f"{metrics} answers {answer.status}")
            began = time.monotonic()
            _terminate(worker.pid)
            status = worker.wait(STOP_S)
            if status:
                raise StepsError(f"worker {STAGE} left SIGTERM with status {status}:\n{child.tail(log)}")
            return {"stage_ready_s": round(ready_s, 1), "stage_stop_s": round(time.monotonic() - began, 1)}
        finally:
            kafka.kill()


def _terminate(unshare: int) -> None:
    """SIGTERM to number 1 of the process name space, as an engine sends it: the child of `unshare`."""
    children = Path(f"/proc/{unshare}/task/{unshare}/children").read_text("ascii").split()
    os.kill(int(children[0]), 15)


def context() -> list[Path]:
    """Files that the engine would get: those under version control, or new, that Dockerfile.dockerignore lets through."""
    lines = DOCKERFILE.with_name("Dockerfile.dockerignore").read_text("utf-8").splitlines()
    kept = [line[1:] for line in lines if line.startswith("!")]
    done = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *kept],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [Path(line) for line in sorted(set(done.stdout.splitlines())) if (ROOT / line).is_file()]


def declared_line(instruction: str) -> str:
    """The arguments of an instruction of the last stage of the Dockerfile."""
    text = DOCKERFILE.read_text("utf-8").replace("\\\n", " ").split("\nFROM ")[-1]
    return next(line.split(maxsplit=1)[1] for line in text.splitlines() if line.startswith(f"{instruction} "))


def declared(instruction: str) -> dict[str, str]:
    """The variables of ENV, as the engine would resolve them."""
    pairs = dict(word.split("=", 1) for word in declared_line(instruction).split())
    return {name: value.replace("$PATH", "/usr/local/bin:/usr/bin:/bin") for name, value in pairs.items()}


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise StepsError(
            f"{' '.join(command[:6])} ... ended with status {done.returncode}:\n{(done.stdout + done.stderr)[-4000:]}"
        )


if __name__ == "__main__":
    sys.exit(main())
