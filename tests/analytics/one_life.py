"""One life of a sink for test_sink_kills.py. Arguments: URL of the warehouse, database, folder for commits, number of events, seed.

Commits a little after it has written, and not every time, as a consumer does; prints "ready" when it begins.
"""

import json
import os
import random
import sys
import time
from pathlib import Path

from event_rows import event

from analytics.clickhouse import WarehouseError, connect
from analytics.sink import Sink

url, database, folder, total, seed = sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])
PARTITIONS = 3
chance = random.Random(seed)
# Two hours around midnight, so that one insert goes to two parts of the table: not atomic.
topic = {
    partition: [
        event(f"m{partition}-{n}", accepted_at=1772409600000 + chance.randrange(-3_600_000, 3_600_000))
        for n in range(total)
    ]
    for partition in range(PARTITIONS)
}
commits = folder / "commit.json"
sink = Sink(connect(url, database), "kills")


def committed():
    known = json.loads(commits.read_text()) if commits.exists() else {}
    return {partition: known.get(str(partition), 0) for partition in topic}


def live():
    position = committed()
    sink.recover(position)
    print("ready", flush=True)
    while any(position[partition] < total for partition in topic):
        batch = []
        for partition, events in topic.items():
            end = min(position[partition] + chance.randrange(1, 600), total)
            batch += [(partition, offset, events[offset]) for offset in range(position[partition], end)]
            position[partition] = end
        if sink.write(batch):
            raise SystemExit("rows were rejected")
        if chance.random() < 0.4:
            (folder / "commit.tmp").write_text(json.dumps(position))
            os.replace(folder / "commit.tmp", commits)


while True:
    try:
        live()
        break
    except WarehouseError:
        time.sleep(0.1)
(folder / "done").touch()
