"""The store: epochs, stale keys and what compaction makes of them; the expiry sweep. A log in memory, a real RocksDB."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import rocksdict
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st

from agents.application import build
from tables.store import EPOCH, NO_EPOCH, STALE, SWEEP_BYTES, SWEEP_KEYS, Overtaken, mark_key, take
from topics.catalogue import Topic
from topics.consumer import OFFSET_KEY, Consumer
from topics.installation import Installation
from topics.outputs import Outputs
from topics.stage import Stage
from topics.state import Table

SOURCE = Topic("s", {"type": "record", "name": "R", "fields": []}, lambda value: "k")
X, Y, Z = b"\x01x", b"\x01y", b"\x01z"
LIMIT = 1 << 20


class Log:
    """One changelog partition; a producer for `Outputs.send` that appends to it."""

    max_batch_size = LIMIT

    def __init__(self):
        self.records, self.end = [], 0

    def append(self, entries, epoch):
        base = self.end
        for key, value in entries.items():
            self.records.append(SimpleNamespace(offset=self.end, key=key, value=value, headers=[("e", epoch)]))
            self.end += 1
        return base

    def compact(self, with_tombstones=False):
        """The last record of each key stays, whatever its epoch; tombstones go, at the latest after a day."""
        last = {record.key: record for record in self.records}
        self.records = [
            record for record in self.records
            if record is last[record.key] and (with_tombstones or record.value is not None)
        ]  # fmt: skip

    async def send(self, topic, partition, items):
        (epoch,) = {headers[0][1] for _, _, headers, _ in items}
        return self.append({key: value for key, value, _, _ in items}, epoch)


class Owner:
    """A worker with a store and a RocksDB of its own on the shared log, as far as the store sees one."""

    def __init__(self, log, folder):
        stage = Stage("s", [SOURCE], [], tables=[Table(1, "t", bytes, bytes)])
        stage.on(SOURCE)(lambda value, state: None)
        app = build(stage, Installation("127.0.0.1:1", data_dir=folder))
        self.store, self.log = app.runner.store, log
        self.outputs = Outputs(log, {}, {self.store.topic: LIMIT})
        self.outputs.send = log.send

    @property
    def db(self):
        return self.store._db(0)

    def restart(self):
        """A new process on the same RocksDB: recovery reads on from the last known offset (topics.consumer._recover)."""
        self.store._claimed.clear()
        known = self.db.get(OFFSET_KEY)
        fresh = [record for record in self.log.records if known is None or record.offset > int(known)]
        write = rocksdict.WriteBatch(raw_mode=True)
        for key, value in take(fresh, self.store.epoch(0)):
            write.delete(key) if value is None else write.put(key, value)
        if self.log.end:
            write.put(OFFSET_KEY, b"%d" % (self.log.end - 1))
        self.db.write(write)
        return self

    async def write(self, entries, mark=None):
        await self.store.write(0, dict(entries), self.outputs, {} if mark is None else {0: mark})

    def values(self):
        return {key: value for key, value in self.db.items() if 0 < key[0] < 32}


@pytest.fixture
def owner(tmp_path):
    log = Log()
    folders = iter(range(100))
    return lambda: Owner(log, tmp_path / str(next(folders))).restart()


async def test_a_write_is_claim_changes_and_mark(owner):
    one = owner()
    await one.write({X: b"1"}, mark=7)
    await one.write({Y: b"2", X: None}, mark=9)
    assert [(r.key, r.value) for r in one.log.records] == [
        (EPOCH, b"\0\0\0\1"), (X, b"1"), (mark_key(0), b"\0" * 7 + b"\x07"),
        (Y, b"2"), (X, None), (mark_key(0), b"\0" * 7 + b"\x09"),
    ]  # fmt: skip
    for reader in (one, owner()):
        assert reader.values() == {Y: b"2"}
        assert (reader.store.mark(0, 0), reader.store.mark(0, 1)) == (9, -1)
    assert one.store.is_ours(0)
    assert not owner().store.is_ours(0), "whoever takes over has to claim"


async def test_two_writers_find_each_other(owner):
    frozen = owner()
    await frozen.write({X: b"1"})
    other = owner()
    await other.write({X: b"2"})
    with pytest.raises(Overtaken, match="wrote at 4, knew the log up to 2"):
        await frozen.write({X: b"9"}, mark=99)
    assert owner().values() == {X: b"2"}, "a dead epoch counts for nothing"
    assert owner().store.mark(0, 0) == -1, "nor does its mark"
    with pytest.raises(Overtaken):  # its successor too: the log is not as it knows it; recovery sorts it out
        await other.write({Y: b"3"})


async def test_a_fetch_of_recovery_that_ends_late_changes_nothing(owner):
    """Recovery is over, and a long poll that began in it brings what this worker has written since."""
    worker = owner()
    await worker.write({X: b"1"}, 1)
    late = list(worker.log.records)
    await worker.write({X: b"2"}, 2)
    tp, knows = TP(worker.store.topic, 0), worker.db.get(OFFSET_KEY)
    recovery = SimpleNamespace(
        active_tps={tp}, active_offsets={tp: -1}, in_recovery=False, tp_to_table={tp: worker.store.table}
    )
    tables = SimpleNamespace(recovery=recovery, standbys_ready=True)
    Consumer._recover(SimpleNamespace(app=SimpleNamespace(tables=tables)), tp, late)
    assert (worker.db.get(X), worker.db.get(OFFSET_KEY)) == (b"2", knows)
    await worker.write({X: b"3"}, 3)  # and is not Overtaken
    assert worker.db.get(X) == b"3"


async def test_stale_keys_heal_before_compaction_makes_them_the_last_word(owner):
    """A zombie writes over a value, a deletion, a value that it alone has, and a mark."""
    frozen = owner()
    await frozen.write({X: b"1", Y: b"1"}, mark=1)
    other = owner()
    await other.write({X: b"2", Y: None}, mark=5)
    with pytest.raises(Overtaken):
        await frozen.write({X: b"9", Y: b"9", Z: b"9"}, mark=3)
    log = other.log
    naive = Log()
    naive.records, naive.end = list(log.records), log.end
    naive.compact()
    assert {r.key: r.value for r in naive.records}[X] == b"9", "unhealed, compaction would keep the zombie's"

    other.restart()
    stale = {key for key, _ in other.db.items() if key.startswith(STALE)}
    assert stale == {STALE + X, STALE + Y, STALE + Z, STALE + mark_key(0)}
    await other.write({b"\x01other": b"1"})
    assert not any(key.startswith(STALE) for key, _ in other.db.items())
    for with_tombstones in (True, False):
        log.compact(with_tombstones)
        reader = owner()
        assert reader.values() == {X: b"2", b"\x01other": b"1"}
        assert reader.store.mark(0, 0) == 5
        assert not any(key.startswith(STALE) for key, _ in reader.db.items())


async def test_a_healing_that_was_cut_short_is_done_again(owner):
    frozen = owner()
    await frozen.write({X: b"1"})
    other = owner()
    await other.write({X: b"2"})
    with pytest.raises(Overtaken):
        await frozen.write({X: b"9"})
    other.restart()
    other.log.append({EPOCH: b"\0\0\0\3"}, b"\0\0\0\3")  # the claim is out, then kill -9
    other.restart()
    assert STALE + X in other.db
    await other.write({Y: b"1"})
    other.log.compact()
    assert owner().values() == {X: b"2", Y: b"1"}


async def test_many_stale_keys_heal_in_several_writes(owner):
    frozen = owner()
    keys = [b"\x01%03d" % n for n in range(250)]
    await frozen.write(dict.fromkeys(keys, b"1"))
    other = owner()
    await other.write({X: b"2"})
    with pytest.raises(Overtaken):
        await frozen.write(dict.fromkeys(keys, b"9"))
    other.restart()
    await other.write({Y: b"1"})
    other.log.compact()
    assert owner().values() == dict.fromkeys(keys, b"1") | {X: b"2", Y: b"1"}


RECORDS = st.lists(
    st.tuples(st.sampled_from([X, Y, mark_key(0)]), st.one_of(st.none(), st.binary(max_size=1)), st.integers(1, 4))
)


@given(RECORDS, st.integers(0, 20))
def test_take_does_not_depend_on_where_the_log_was_cut(records, cut):
    """Recovery reads the log in pieces: the same RocksDB comes out."""
    log = [
        SimpleNamespace(key=key, value=value, headers=[("e", epoch.to_bytes(4, "big"))])
        for key, value, epoch in records
    ]

    def apply(state, part):
        for key, value in take(part, state.get(EPOCH, NO_EPOCH)):
            state.pop(key, None) if value is None else state.update({key: value})
        return state

    whole = apply({}, log)
    assert apply(apply({}, log[:cut]), log[cut:]) == whole
    right, highest = {}, 0
    for key, value, epoch in records:
        if epoch >= highest:
            highest = epoch
            right.pop(key, None) if value is None else right.update({key: value})
    assert {key: value for key, value in whole.items() if not key.startswith(STALE) and key != EPOCH} == right


async def test_stale_keys_heal_in_as_many_writes_as_their_values_need(owner):
    """A hundred values of 33 KB in one write were more than a record batch takes, at every start."""
    one = owner()
    values = {b"\x01%03d" % n: b"v" * 33_000 for n in range(100)}
    for part in (slice(0, 50), slice(50, 100)):
        one.log.append(dict(list(values.items())[part]), (9).to_bytes(4, "big"))
    one.log.append(dict.fromkeys(values, b"from a dead epoch"), (1).to_bytes(4, "big"))
    one.restart()
    sizes = []

    async def send(topic, partition, items):
        sizes.append(one.store.size({key: value for key, value, _, _ in items}))
        return await one.log.send(topic, partition, items)

    one.outputs.send = send
    await one.write({X: b"1"})
    assert max(sizes) <= one.outputs.limit(one.store.topic)
    assert 3 < len(sizes) < 10
    assert not next(iter(one.db.keys(from_key=STALE))).startswith(STALE)
    one.log.compact()
    assert owner().values() == values | {X: b"1"}


def test_sweep_stops_where_its_deletions_fill_a_write(tmp_path):
    """2,500 keys of 251 bytes were more than one record batch, and the worker ended at every start."""
    seen: Table[bytes] = Table(2, "seen", bytes, bytes, expires=True)
    stage = Stage("s", [SOURCE], [], tables=[seen])
    stage.on(SOURCE)(lambda value, state: None)
    store = build(stage, Installation("127.0.0.1:1", data_dir=tmp_path)).runner.store
    write, keys = rocksdict.WriteBatch(raw_mode=True), [b"\x02%06d" % n + b"k" * 990 for n in range(700)]
    for key in keys:
        write.put(key, (1).to_bytes(4, "big"))
    store._db(0).write(write)
    found = []
    for _ in range(6):
        turn = store.expired(0, now=2 * 60_000)
        assert store.size(dict.fromkeys(turn)) <= SWEEP_BYTES + 100
        found += turn
    assert found[: len(keys)] == keys, "and then from the beginning"


def test_sweep_finds_what_has_expired_and_nothing_else(tmp_path):
    """Goes round for ever, a few thousand keys a turn, over the tables with expiry only."""
    kept: Table[bytes] = Table(1, "kept", bytes, bytes)
    seen: Table[bytes] = Table(2, "seen", bytes, bytes, expires=True)
    stage = Stage("s", [SOURCE], [], tables=[kept, seen])
    stage.on(SOURCE)(lambda value, state: None)
    store = build(stage, Installation("127.0.0.1:1", data_dir=tmp_path)).runner.store
    write, old, young = rocksdict.WriteBatch(raw_mode=True), (1).to_bytes(4, "big"), (1000).to_bytes(4, "big")
    total = SWEEP_KEYS + 500
    for n in range(total):
        write.put(b"\x02%06d" % n, (old if n % 2 else young) + b"v")
        write.put(b"\x01%06d" % n, old + b"no expiry here: four bytes of its value")
    write.put(mark_key(0), old + b"abcd")
    store._db(0).write(write)
    found = []
    while turn := store.expired(0, now=2 * 60_000):
        assert len(turn) <= SWEEP_KEYS
        found += turn
        if len(turn) < SWEEP_KEYS // 2:
            break
    assert found == [b"\x02%06d" % n for n in range(total) if n % 2]
    assert store.expired(0, now=60_000 * 2)[0] == b"\x02000001", "and from the beginning again"
