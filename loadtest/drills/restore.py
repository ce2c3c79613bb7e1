"""The demo's load; in the middle the machine's disk is lost: RocksDB folders and blob store go, the blob store comes back from its copy.

    python -m loadtest.drills.restore [--folder FOLDER]

`postroad up` is killed by -9, every stage's folder of tables and the blob store are deleted, the blob store is put back from a copy, and
`postroad up` starts again. Tables are rebuilt from their changelogs. Kafka's topics and ClickHouse's rows stay: they have copies of their own
(docs/runbooks/restore.md). The copy is begun under load and brought up to date after the kill, as a store that mirrors every object has it;
`blobs_since_copy` says how many objects the older copy alone would have lacked. Last line RESULT; exit status 1 when lost, in_flight or
unflagged is not 0, when a blob came back other than it was, or when nothing was deleted.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from agents.worker import STAGES
from loadtest.demo.load import SETTINGS, SHAPING, Load
from loadtest.demo.road import Road, RoadError, fresh, program


def main() -> int:
    """Returns the exit status."""
    return program("drills.restore", __doc__, drill)


def drill(folder: Path, console: Console) -> int:
    """One run."""
    began = time.monotonic()
    with fresh(folder), Road(folder, SETTINGS, shaping=SHAPING) as road:
        console.print(f"ready in {road.ready_s:.1f} s")
        content, copy = folder / "data" / "content", folder / "backup"
        load = Load(road, console)
        load.prepare()
        with load.producing():
            load.wait(until=lambda: len(load.acknowledged) >= len(load.plan) // 3)
            back_up(content, copy)
            load.wait(until=lambda: len(load.acknowledged) >= len(load.plan) // 2)
            road.kill()
            lost_at = time.monotonic()
            since = back_up(content, copy)
            before = sizes(content)
            tables = [folder / "data" / stage for stage in STAGES if (folder / "data" / stage).is_dir()]
            table_bytes = sum(sum(sizes(each).values()) for each in tables)
            for each in (*tables, content):
                shutil.rmtree(each)
            if not tables or not before:
                raise RoadError(
                    f"nothing to lose: {len(tables)} folders of tables, {len(before)} blobs in {folder / 'data'}"
                )
            console.print(f"deleted: tables of {len(tables)} stages ({table_bytes:,} bytes), {len(before):,} blobs")
            put_back_at = time.monotonic()
            shutil.copytree(copy, content)
            put_back_s = time.monotonic() - put_back_at
            same = sizes(content) == before
            road.start()
            ready_s = time.monotonic() - lost_at
            console.print(f"ready again {ready_s:.1f} s after the loss")
            if not load.wait():
                console.print("[bold red]nothing moves any more; what follows is what there is[/]")
                road.print_logs()
        status = json.loads(road.cli("status", "--json"))
        account, _, _ = load.settle()
        for what, which in (("lost", account.lost), ("two ends", account.twice), ("unflagged", account.unflagged)):
            if which:
                console.print(f"[bold red]{what}:[/] {', '.join(which[:20])}")
        for line in account.differs:  # not a failure here, as in loadtest/restart.py: the clock stood still for a while
            console.print(f"other than in a run without a loss: {escape(line)}")
    result = {
        "accepted": account.accepted, "lost": len(account.lost), "in_flight": len(account.in_flight),
        "second_deliveries": len(account.second), "unflagged": len(account.unflagged), "blobs": len(before),
        "blobs_since_copy": since, "blobs_differ": 0 if same else 1, "tables": len(tables),
        "put_back_s": round(put_back_s, 2), "ready_s": round(ready_s, 1),
        "stages_ready": sum(stage["replicas"] > 0 for stage in status["stages"]),
        "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip
    print("RESULT", json.dumps(result))
    return 1 if account.lost or account.in_flight or account.unflagged or account.twice or not same else 0


def back_up(source: Path, copy: Path) -> int:
    """Copy what `copy` lacks of the blobs; how many that were. A blob never changes under its name."""
    copied = 0
    for path in [path for path in source.rglob("*") if path.is_file()]:
        target = copy / path.relative_to(source)
        try:
            if target.exists() and target.stat().st_size == path.stat().st_size:
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        except FileNotFoundError:  # a file that was being written has its final name by now: the next copy takes it
            continue
        copied += 1
    return copied


def sizes(folder: Path) -> dict[str, int]:
    """Bytes of every file below a folder, by its relative path."""
    return {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}


if __name__ == "__main__":
    raise SystemExit(main())
