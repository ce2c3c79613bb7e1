"""Effect stages without a broker: progress as two bit sets, over crashes at any moment; cycle by cycle, what is performed,
flagged, settled, refused."""

from __future__ import annotations

import asyncio
from collections import Counter
from types import SimpleNamespace

import pytest
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st

from agents.application import build
from loadtest.engine.stages import SCHEMA, SOURCE, TARGET
from loadtest.engine.stages import record as event
from topics.catalogue import DEAD_LETTERS
from topics.codec import Codec
from topics.consumer import Batch
from topics.effects import Window
from topics.installation import Installation
from topics.outputs import Outputs
from topics.runner import PERFORMED
from topics.stage import EffectStage
from topics.state import Table

CODEC, LETTERS = Codec(SCHEMA), Codec("DeadLetter")
DONE: Table[bytes] = Table(1, "done", bytes, bytes)


def read(window, offsets):
    """What `_accept` does with records of one batch."""
    offsets = [offset for offset in offsets if offset >= window.low]
    window.order.extend(offset for offset in offsets if not window.is_finished(offset))
    return offsets


def start(raw, end):
    window = Window(("t", 0), 0, 0, raw)
    window.batches.append(SimpleNamespace(next_offset=end))
    read(window, range(window.low, end))
    return window


STEPS = st.lists(
    st.tuples(st.sampled_from(["begin", "finish", "take_back", "write", "crash"]), st.integers(0, 39)), max_size=80
)


@given(STEPS)
def test_window_is_two_sets_of_offsets(steps):
    """A record is performed until it is finished; after a crash exactly those that were begun and not finished, by the last
    write, are in doubt."""
    end, raw = 40, None
    begun, finished, written = set(), set(), (set(), set())
    running, doubt = set(), set()  # of this process; of those before it
    window = start(raw, end)
    for step, offset in steps:
        match step:
            case "begin" if offset not in running | finished:
                window.begin(offset)
                begun.add(offset)
                running.add(offset)
            case "take_back" if offset in running:
                window.take_back(offset)
                running.discard(offset)
                if offset not in doubt:
                    begun.discard(offset)
            case "finish" if offset in running:
                window.finish(offset)
                running.discard(offset)
                finished.add(offset)
            case "write":
                window.move()
                raw, written = window.pack(), (set(begun), set(finished))
            case "crash":
                (begun, finished), running = map(set, written), set()
                doubt = begun - finished
                window = start(raw, end)
        assert {n for n in range(end) if window.is_finished(n)} == finished
        assert {n for n in range(end) if window.in_doubt(n)} == doubt
        assert window.low <= min(set(range(end)) - finished, default=end), "nothing unfinished is below"


def test_low_passes_gaps_of_offsets_that_do_not_exist():
    """Compaction and transaction markers leave gaps: only what was read is waited for."""
    window = Window(("t", 0), 10, 0, None)
    window.batches.append(SimpleNamespace(next_offset=100))
    window.order.extend([10, 50, 90])
    for offset in (10, 90):
        window.begin(offset)
        window.finish(offset)
    window.move()
    assert window.low == 50
    window.finish(50)
    window.move()
    assert window.low == 100
    again = Window(("t", 0), 0, 0, window.pack())
    assert again.low == 100
    assert again.is_finished(99)


def test_a_record_of_doubt_stays_in_doubt_when_it_could_not_begin():
    """Begun by an owner who died; begun here, taken back before it started: the next owner must flag it still."""
    window = start(None, 4)
    window.begin(2)
    window = start(window.pack(), 4)
    assert window.in_doubt(2)
    window.begin(2)
    window.take_back(2)
    assert start(window.pack(), 4).in_doubt(2)
    window.begin(1)
    window.take_back(1)
    assert not start(window.pack(), 4).in_doubt(1)


HERE = TP(SOURCE.name, 0)


class Consumer:
    """The consumer of partitions that stay ours until `lost`."""

    def __init__(self):
        self.lost, self.lease, self.finished, self.low = False, True, [], 0

    def owns(self, batch):
        return not self.lost

    is_current = owns

    def holds_lease(self):
        return self.lease

    def hold(self, window):
        pass

    abandon = hold

    def release(self, batch, size):
        batch.bytes -= size

    def is_half_full(self, tp):
        return False

    def finish(self, batch):
        self.finished.append(batch)

    def advance(self, batch, offset):
        self.low = offset


class Bench:
    """An effect stage that notes what it performs, on a real RocksDB, with the broker in memory."""

    def __init__(self, folder, producer, **changes):
        self.performed, self.release, self.slow = [], asyncio.Event(), False
        self.stage = EffectStage(**{"name": "e", "reads": [SOURCE], "writes": [TARGET], "tables": [DONE],
                                    "identity": lambda value: value["event_id"], **changes})  # fmt: skip

        @self.stage.perform
        async def perform(value, state, possible_duplicate):
            if state.done.get(value["event_id"]) is not None:
                return None
            if value["kind"] == "poison":
                raise ValueError("poison")
            self.performed.append((value["seq"], possible_duplicate))
            if self.slow:
                await self.release.wait()
            return value["seq"]

        @self.stage.settle
        def settle(value, result, state):
            if result is None:
                return None
            state.done.put(value["event_id"], b"x" * (1 + value["ts"] % 1_000_000))
            return TARGET.send(value)

        self.folder, self.producer, self.offset = folder, producer, 0
        self.start()

    def start(self):
        """A process; again: after a crash, on the same RocksDB."""
        self.app = build(self.stage, Installation("127.0.0.1:1", partitions=1, data_dir=self.folder))
        self.runner, self.consumer = self.app.runner, Consumer()
        self.runner.__dict__["consumer"] = self.consumer
        wiring = self.runner.wiring
        self.runner.outputs = lambda: Outputs(self.producer, wiring.partitions, wiring.max_bytes)
        self.futures = []
        self.app.add_future = lambda work: self.futures.append(asyncio.ensure_future(work))

    def crash(self):
        old = self.runner.store.table.data
        for database in old._dbs.values():
            database.close()
        self.start()

    def batch(self, *values, key=b"k"):
        records = []
        for value in values:
            raw = value if isinstance(value, bytes | None) else CODEC.encode(value)
            records.append(SimpleNamespace(topic=SOURCE.name, partition=0, offset=self.offset, timestamp=5, key=key,
                                           value=raw, headers=()))  # fmt: skip
            self.offset += 1
        return Batch(HERE, records, 1)

    def accept(self, batch):
        self.runner._accept(Batch(HERE, list(batch.records), 1))

    async def cycles(self, n=4):
        for _ in range(n):
            await self.runner._cycle()
            for _ in range(5):
                await asyncio.sleep(0)

    @property
    def item(self):
        return SimpleNamespace(record=SimpleNamespace(partition=0))

    @property
    def out(self):
        return [CODEC.decode(value)["seq"] for value in self.producer.values(TARGET.name)]

    @property
    def dead(self):
        return [LETTERS.decode(value) for value in self.producer.values(DEAD_LETTERS.name)]


@pytest.fixture
def bench(tmp_path, producer):
    return Bench(tmp_path, producer)


def quiet(number, **changes):
    return {**event(number), "ts": 0, **changes}


async def test_effects_results_and_dead_letters(bench):
    bench.accept(bench.batch(quiet(0), None, b"garbage", quiet(3, kind="poison"), quiet(4)))
    await bench.cycles()
    assert sorted(bench.performed) == [(0, False), (4, False)]
    assert sorted(bench.out) == [0, 4]
    assert sorted((d["offset"], d["error"]) for d in bench.dead) == [
        (1, "DecodeError"), (2, "DecodeError"), (3, "ValueError")]  # fmt: skip
    assert bench.consumer.low == 5


async def test_an_identity_that_raises_is_a_dead_letter(tmp_path, producer):
    bench = Bench(tmp_path, producer, identity=lambda value: value["attrs"]["id"])
    bench.accept(bench.batch(quiet(0), quiet(1, attrs={"id": "a"})))
    await bench.cycles()
    assert bench.out == [1]
    assert [letter["error"] for letter in bench.dead] == ["KeyError"]


async def test_nothing_begins_before_its_begun_is_written(bench):
    bench.accept(bench.batch(quiet(0)))
    written = bench.runner.store.write

    async def write(partition, entries, outputs, progress):
        assert bench.performed == []
        await written(partition, entries, outputs, progress)

    bench.runner.store.write = write
    await bench.runner._cycle()
    assert bench.performed == []
    assert bench.producer.logs, "the begun of record 0 is in the changelog"
    bench.runner.store.write = written
    await bench.cycles()
    assert bench.performed == [(0, False)]


async def test_after_a_crash_what_was_begun_is_flagged_and_what_was_not_is_not(tmp_path, producer):
    bench = Bench(tmp_path, producer, limit=2)
    batch = bench.batch(*map(quiet, range(4)))
    bench.slow = True
    bench.accept(batch)
    await bench.cycles()
    assert bench.performed == [(0, False), (1, False)]
    bench.crash()
    bench.slow, bench.performed = False, []
    bench.accept(batch)
    await bench.cycles()
    assert bench.performed == [(0, True), (1, True), (2, False), (3, False)]
    assert sorted(bench.out) == [0, 1, 2, 3]
    bench.crash()
    bench.performed = []
    bench.accept(batch)
    await bench.cycles()
    assert bench.performed == []
    assert bench.runner.metrics.counts["passed_over"] == 4


async def test_an_effect_is_told_how_many_its_predecessors_left_in_doubt(tmp_path, producer):
    bench = Bench(tmp_path, producer, limit=2)
    batch = bench.batch(*map(quiet, range(4)))
    bench.slow = True
    bench.accept(batch)
    await bench.cycles()
    assert bench.runner._view(bench.item).in_doubt == 0, "a new partition"
    bench.crash()
    bench.slow = False
    bench.accept(batch)
    await bench.cycles()
    assert sorted(bench.out) == [0, 1, 2, 3]
    assert bench.runner._view(bench.item).in_doubt == 2, "as of the take-over"
    bench.crash()
    bench.accept(bench.batch(quiet(4)))
    assert bench.runner._view(bench.item).in_doubt == 0


async def test_records_of_one_identity_run_one_after_another(bench):
    bench.slow = True
    bench.accept(bench.batch(quiet(0), quiet(0), quiet(1), quiet(0)))
    await bench.cycles()
    assert bench.performed == [(0, False), (1, False)]
    bench.release.set()
    await bench.cycles(6)
    assert bench.performed == [(0, False), (1, False)], "the second and third see what the first has left"
    assert sorted(bench.out) == [0, 1]
    assert bench.consumer.low == 4


async def test_limits_of_the_process_and_of_a_key(tmp_path, producer):
    bench = Bench(tmp_path, producer, limit=3, key_limit=2)
    bench.slow = True
    bench.accept(bench.batch(*map(quiet, range(3)), key=b"busy"))
    bench.accept(bench.batch(*map(quiet, range(3, 6)), key=b"other"))
    await bench.cycles()
    assert len(bench.performed) == 3
    assert {0, 3} <= {seq for seq, _ in bench.performed}, "keys take turns"
    bench.release.set()
    await bench.cycles()
    assert sorted(bench.out) == list(range(6))


async def test_the_limit_of_a_key_may_depend_on_it(tmp_path, producer):
    bench = Bench(tmp_path, producer, key_limit=lambda key, services: len(key))
    bench.slow = True
    bench.runner._at_once[b"abc"] = 20
    bench.accept(bench.batch(*map(quiet, range(9)), key=b"abc"))
    bench.accept(bench.batch(*map(quiet, range(9, 12)), key=b"d"))
    await bench.cycles()
    assert sorted(seq for seq, _ in bench.performed) == [0, 1, 2, 9]


async def test_effects_that_take_long_do_not_stop_the_others(tmp_path, producer, monkeypatch):
    """Hosts that say nothing; they are bounded all the same."""
    monkeypatch.setattr("topics.effects.SLOW_SECONDS", 0)
    monkeypatch.setattr("topics.effects.SLOW_TIMES", 2)
    bench = Bench(tmp_path, producer, limit=2, key_limit=2)
    bench.slow = True
    for n in range(5):
        bench.accept(bench.batch(*(quiet(2 * n + i) for i in (0, 1)), key=b"%d" % n))
    await bench.cycles(9)
    assert len(bench.performed) == 2 * (1 + 2)
    bench.release.set()
    await bench.cycles(9)
    assert sorted(bench.out) == list(range(10))
    assert not bench.runner._young and not bench.runner._slow


async def test_unknown_schema_holds_its_records_only(bench):
    class Registry:
        asked = 0

        async def schema(self, id):
            self.asked += 1
            await bench.release.wait()
            return SCHEMA if id == 7 else None

    registry = Registry()
    bench.runner.codec_of[SOURCE.name] = Codec(SCHEMA, registry)
    framed = [b"\0" + id.to_bytes(4, "big") + CODEC.encode(quiet(n))[10:] for n, id in enumerate((7, 7, 666))]
    bench.accept(bench.batch(*framed, quiet(3)))
    await bench.cycles()
    assert bench.out == [3]
    assert registry.asked == 2, "once for each id"
    assert bench.consumer.low == 0
    bench.release.set()
    await asyncio.gather(*bench.futures)
    await bench.cycles()
    assert sorted(bench.out) == [0, 1, 3]
    assert [letter["offset"] for letter in bench.dead] == [2]
    assert bench.consumer.low == 4


async def test_results_that_do_not_fit_one_write_follow_in_the_next(bench):
    """Three changes of 300 KB; a write takes half a megabyte; one of 700 KB never fits."""
    values = [quiet(n, ts=300_000) for n in range(3)] + [quiet(3, ts=700_000)]
    bench.accept(bench.batch(*values))
    await bench.cycles(8)
    assert sorted(bench.out) == [0, 1, 2]
    assert [(letter["offset"], letter["error"]) for letter in bench.dead] == [(3, "TooMuchChange")]
    assert bench.consumer.low == 4


async def test_an_output_that_the_broker_refuses_is_a_dead_letter(bench):
    bench.producer.refuses.add(CODEC.encode(quiet(1)))
    bench.accept(bench.batch(quiet(0), quiet(1)))
    await bench.cycles()
    assert bench.out == [0]
    (letter,) = bench.dead
    assert (letter["error"], letter["topic"]) == ("MessageSizeTooLargeError", TARGET.name)
    assert letter["source"].startswith(f"{SOURCE.name}[0]@1#{TARGET.name}[0]:")
    assert CODEC.decode(letter["value"])["seq"] == 1
    assert bench.consumer.low == 2
    assert bench.runner.store.view(0).done.get(quiet(1)["event_id"]), "it was performed, and that is known"


async def test_what_was_performed_and_could_not_be_settled_is_in_doubt_when_it_comes_back(tmp_path, producer):
    bench, failing = Bench(tmp_path, producer), [ValueError("settle")]
    settle = bench.stage.settler

    def settle_later(value, result, state):
        if failing:
            raise failing.pop()
        return settle(value, result, state)

    bench.runner._settler = settle_later
    bench.accept(bench.batch(quiet(0), b"garbage"))
    await bench.cycles()
    letters = {letter["offset"]: letter for letter in bench.dead}
    flag = {"name": PERFORMED[0], "value": PERFORMED[1]}
    assert letters[0]["headers"] == [flag]
    assert letters[1]["headers"] == [], "never performed"
    again = bench.batch(letters[0]["value"])  # as `postroad dead-letters replay` puts it back
    again.records[0].headers = (PERFORMED,)
    bench.accept(again)
    await bench.cycles()
    assert bench.performed == [(0, False), (0, True)]
    assert bench.out == [0]


async def test_the_header_of_the_performed_stays_on_a_letter_that_is_cut(tmp_path, producer):
    bench = Bench(tmp_path, producer)
    bench.runner._settler = lambda value, result, state: 1 / 0
    bench.runner.wiring.max_bytes[DEAD_LETTERS.name] = 2 << 20
    batch = bench.batch(quiet(0, body=b"x" * (3 << 20)))
    batch.records[0].headers = (("a", b"1"), PERFORMED)
    bench.accept(batch)
    await bench.cycles()
    (letter,) = bench.dead
    assert letter["text"].startswith("cut from ")
    assert letter["headers"] == [{"name": PERFORMED[0], "value": PERFORMED[1]}]
    assert bench.performed == [(0, True)]


async def test_results_of_a_partition_that_went_are_dropped_and_without_a_lease_nothing_begins(bench):
    bench.slow = True
    bench.accept(bench.batch(quiet(0)))
    await bench.cycles()
    bench.consumer.lost = True
    bench.release.set()
    await bench.cycles()
    assert bench.out == []
    assert bench.runner.metrics.counts["dropped"] == 1
    bench.crash()
    bench.consumer.lease, bench.performed = False, []
    bench.accept(bench.batch(quiet(1)))
    await bench.cycles()
    assert bench.performed == []


async def test_an_effect_within_its_time_is_waited_for_and_one_beyond_it_is_told(bench):
    bench.slow = True
    assert bench.runner.wait_of(HERE) == ""
    assert bench.runner.doing(HERE) == "no effect runs, 0 results wait, 0 records wait"
    bench.accept(bench.batch(quiet(0), quiet(1)))
    await bench.cycles()
    assert bench.runner.wait_of(HERE) == "effect"
    bench.stage.effect_s = 0.0
    assert bench.runner.wait_of(HERE) == ""
    assert bench.runner.doing(HERE).startswith("2 effects run, the oldest, of offset 0, for 0 s")
    bench.release.set()
    await bench.cycles()
    assert not bench.runner._running(HERE)


def crowding(tmp_path, producer, monkeypatch, **changes):
    for name, value in {"CROWD": 20, "CROWD_LEFT": 10, "CROWD_KEY": 2}.items():
        monkeypatch.setattr(f"topics.effects.{name}", value)
    bench = Bench(tmp_path, producer, limit=4, **changes)
    bench.slow, bench.aside = True, []

    @bench.stage.crowded
    def crowded(value, state, ahead):
        if value["kind"] == "burst":
            raise ValueError("burst")
        bench.aside.append((value["seq"], ahead))
        return -1

    return bench


async def test_a_crowd_is_settled_without_an_effect_and_the_partition_goes_on(tmp_path, producer, monkeypatch):
    bench = crowding(tmp_path, producer, monkeypatch)
    bench.accept(bench.batch(*map(quiet, range(40)), key=b"hangs"))
    bench.accept(bench.batch(*map(quiet, range(40, 44)), key=b"healthy"))
    await bench.cycles()
    aside = [seq for seq, _ in bench.aside]
    assert aside == sorted(aside), "in their order"
    assert not {0, 1} & set(aside), "what has begun is not taken back"
    assert max(aside) < 40, "of the key that has most"
    assert {ahead for _, ahead in bench.aside} == {5}, "what stays of it"
    assert len(bench.runner._queues[b"hangs"]) <= 10
    assert set(bench.out) == set(aside), "settled, finished, and told"
    bench.release.set()
    await bench.cycles(20)
    assert sorted(bench.out) == list(range(44)), "each once"
    assert {seq for seq, _ in bench.performed} == set(range(44)) - set(aside)
    assert bench.consumer.low == 44


async def test_what_is_in_doubt_is_not_crowded_out(tmp_path, producer, monkeypatch):
    """Its effect may have happened: only its turn can flag it."""
    bench = crowding(tmp_path, producer, monkeypatch, key_limit=20)
    bench.runner._at_once[b"k"] = 20
    bench.accept(batch := bench.batch(*map(quiet, range(40))))
    await bench.runner._cycle()
    begun = {item.record.offset for item in bench.runner._young}
    bench.crash()
    bench.accept(batch)
    await bench.cycles()
    assert begun and not begun & {seq for seq, _ in bench.aside}


async def test_a_crowded_record_that_cannot_be_settled_is_a_dead_letter_of_nothing_performed(
    tmp_path, producer, monkeypatch
):
    bench = crowding(tmp_path, producer, monkeypatch)
    bench.accept(bench.batch(*map(quiet, range(30)), None, b"garbage", quiet(32, kind="burst")))
    await bench.cycles()
    assert sorted((d["offset"], d["error"]) for d in bench.dead) == [
        (30, "DecodeError"), (31, "DecodeError"), (32, "ValueError")]  # fmt: skip
    assert not any(header["name"] == "postroad-performed" for letter in bench.dead for header in letter["headers"])


async def test_a_key_that_ends_in_time_gets_more_places_and_one_that_does_not_keeps_few(tmp_path, producer):
    bench = Bench(tmp_path, producer)
    bench.accept(bench.batch(*map(quiet, range(200)), key=b"quick"))
    await bench.cycles(12)
    bench.slow = True
    bench.accept(bench.batch(*map(quiet, range(200, 300)), key=b"quick"))
    bench.accept(bench.batch(*map(quiet, range(300, 400)), key=b"hangs"))
    await bench.cycles(12)
    running = Counter(item.record.key for item in bench.runner._young)
    assert running[b"hangs"] == 2 < running[b"quick"] == 20


async def test_what_belongs_to_partitions_is_let_go_before_they_are(tmp_path, producer, monkeypatch):
    monkeypatch.setattr("topics.effects.LOST_SECONDS", 0.05)
    bench, gone = Bench(tmp_path, producer), []

    @bench.stage.lost
    async def lost(partition, services):
        gone.append(partition)
        await asyncio.sleep(30)  # a host that does not say goodbye holds nobody up

    bench.accept(bench.batch(quiet(0)))
    await bench.app.give_up_partitions()
    assert gone == [0]


def test_progress_of_a_long_window_is_packed():
    window = start(None, 60_000)
    for offset in range(1, 60_000):
        window.begin(offset)
        window.finish(offset)
    raw = window.pack()
    assert len(raw) < 1000
    again = Window(("t", 0), 0, 0, raw)
    assert (again.low, again.begun, again.finished) == (window.low, window.begun, window.finished)
