"""What aiokafka keeps to itself, and the low watermark."""

import asyncio
import time
from collections import Counter, deque
from types import SimpleNamespace

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import GroupLoadInProgressError, NotCoordinatorError
from aiokafka.protocol.commit import OffsetFetchRequest
from aiokafka.protocol.group import HeartbeatRequest
from aiokafka.structs import OffsetAndMetadata
from faust.tables.recovery import RebalanceAgain
from faust.transport.drivers import aiokafka as stock
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st

from topics.catalogue import ALL
from topics.consumer import BATCH_BYTES_MAX, FETCH_WAIT_MS, OUTSTANDING_BYTES_MAX, Batch, Consumer, InlineConsumer
from topics.group import watch_answers
from topics.transport import PRODUCER_BATCH_BYTES, settings

HERE = TP("t", 0)


def coordinator(response):
    async def send(request):
        return response

    found = SimpleNamespace(_send_req=send, dead=0)
    found.coordinator_dead = lambda: setattr(found, "dead", found.dead + 1)
    watch_answers(found)
    return found


@pytest.mark.parametrize(("code", "error", "dead"), [(14, GroupLoadInProgressError, 0), (16, NotCoordinatorError, 1)])
async def test_error_of_offset_fetch_is_raised(code, error, dead):
    """As shipped, "the coordinator is still loading" reads as "nothing committed", and the group starts over."""
    found = coordinator(SimpleNamespace(error_code=code))
    with pytest.raises(error):
        await found._send_req(OffsetFetchRequest("g", [("t", [0])]))
    assert found.dead == dead


async def test_offset_fetch_that_worked_passes():
    response = SimpleNamespace(error_code=0)
    assert await coordinator(response)._send_req(OffsetFetchRequest("g", [("t", [0])])) is response
    old = SimpleNamespace()  # versions before 2 have no top-level error
    assert await coordinator(old)._send_req(OffsetFetchRequest("g", [("t", [0])])) is old


@pytest.mark.parametrize(("code", "alive"), [(0, True), (27, True), (25, False), (22, False)])
async def test_lease_is_renewed_by_heartbeats_that_the_group_accepts(code, alive):
    """27: a rebalance, the group waits for us. 25 and 22: it knows us no more."""
    found = coordinator(SimpleNamespace(error_code=code))
    found.alive_at = before = time.monotonic() - 100
    await found._send_req(HeartbeatRequest("g", 1, "m"))
    assert (found.alive_at > before) is alive


def test_the_brokers_clock_stamps_every_record():
    """Retention goes by that: of a worker whose clock is a week behind it would take what nobody has read."""
    assert {topic.configuration()["message.timestamp.type"] for topic in ALL} == {"LogAppendTime"}


def test_no_batch_of_the_producer_is_above_a_topics_limit():
    assert all(topic.max_bytes >= PRODUCER_BATCH_BYTES for topic in ALL)


def test_session_stays_below_the_request_timeout():
    for seconds in (6.0, 10.0, 45.0):
        assert settings(seconds)["broker_session_timeout"] < settings(seconds)["broker_request_timeout"]


async def test_a_rebalance_waits_neither_for_heartbeats_nor_for_polls_long(monkeypatch):
    """Members learn of it by their heartbeats; metadata and changelogs are asked for behind the poll that is under way."""
    assert max(settings(seconds)["broker_heartbeat_interval"] for seconds in (6.0, 10.0, 45.0)) <= 1.0
    made = AIOKafkaConsumer(fetch_max_wait_ms=1500)
    assert made._fetch_max_wait_ms == 1500  # where aiokafka keeps it
    monkeypatch.setattr(stock.AIOKafkaConsumerThread, "_create_worker_consumer", lambda self, transport: made)
    found = InlineConsumer._create_worker_consumer(object.__new__(InlineConsumer), None)
    assert found is made and found._fetch_max_wait_ms == FETCH_WAIT_MS <= 750


def consumer():
    found = Consumer.__new__(Consumer)
    found._delivered, found._watermark, found._next_read = {HERE: deque()}, {}, {}
    found._in_effect, found._wake = set(), SimpleNamespace(set=lambda: None)
    found._held_bytes, found.app = Counter(), SimpleNamespace()
    return found


def batch(first, end, size=1):
    return Batch(HERE, [SimpleNamespace(offset=n, value=b"x" * size, timestamp=0) for n in range(first, end)], 1)


@given(st.permutations(range(6)))
def test_commit_is_the_end_of_the_unbroken_run_of_finished_batches(order):
    found = consumer()
    batches = [batch(n * 10, n * 10 + 10) for n in range(6)]
    found._delivered[HERE].extend(batches)
    done = set()
    for n in order:
        found.finish(batches[n])
        done.add(n)
        run = next(k for k in range(7) if k not in done)
        assert found._watermark.get(HERE, 0) == run * 10


def test_a_batch_of_an_earlier_assignment_moves_nothing():
    found, old = consumer(), batch(0, 10)
    found._delivered[HERE].append(batch(0, 10))
    found.finish(old)
    assert HERE not in found._watermark


def test_only_the_oldest_batch_advances_inside():
    found, first, second = consumer(), batch(0, 10), batch(10, 20)
    found._delivered[HERE].extend([first, second])
    found.advance(second, 15)
    assert HERE not in found._watermark
    found.advance(first, 5)
    found.advance(first, 3)
    assert found._watermark[HERE] == 5


def test_a_partition_is_full_by_bytes_until_a_batch_is_finished():
    found, size = consumer(), OUTSTANDING_BYTES_MAX // 8
    batches = [batch(n, n + 1, size) for n in range(9)]
    for one in batches:
        assert found._has_room(HERE) is (one.first < 8)
        found._delivered[HERE].append(one)
        found._held_bytes[HERE] += one.bytes
    found.finish(batches[1])
    assert not found._has_room(HERE), "what is behind an unfinished batch is still held"
    found.finish(batches[0])
    assert found._has_room(HERE)
    assert found._held_bytes[HERE] == 7 * size


def test_bytes_of_records_that_are_done_are_free_before_their_batch_is():
    found, one = consumer(), batch(0, 2, OUTSTANDING_BYTES_MAX // 2)
    found._delivered[HERE].append(one)
    found._held_bytes[HERE] += one.bytes
    assert not found._has_room(HERE)
    found.release(one, one.bytes // 2)
    assert found._has_room(HERE)
    found.finish(one)
    assert found._held_bytes[HERE] == 0


def test_neighbours_join_up_to_a_number_of_bytes():
    found = consumer()
    batches = [batch(n, n + 1, BATCH_BYTES_MAX // 3) for n in range(4)]
    found._delivered[HERE].extend(batches)
    assert not found.join(batches[0], batches[2]), "not the next one"
    assert found.join(batches[0], batches[1])
    assert found.join(batches[0], batches[2])
    assert not found.join(batches[0], batches[3])
    assert (batches[0].bytes, batches[0].next_offset) == (BATCH_BYTES_MAX // 3 * 3, 3)
    found._held_bytes[HERE] = batches[0].bytes + batches[3].bytes
    found.finish(batches[0])
    assert found._held_bytes[HERE] == batches[3].bytes


def test_why_a_commit_does_not_move_is_told():
    """The broker does not take it, nothing comes, or the runner has it in hand."""
    found, one = consumer(), batch(0, 10)
    found._committed_offset = {}
    assert found.state_of(HERE) == "the fetcher brings nothing"
    found._delivered[HERE].append(one)
    assert found.state_of(HERE) == ""
    found.finish(one)
    assert found.state_of(HERE) == "finished up to 10, and the broker does not take the commit"
    found._committed_offset[HERE] = 10
    assert found.state_of(HERE) == "the fetcher brings nothing"


def asked(first, end):
    """A consumer of a partition that has offsets from `first` up to `end`, and its fetcher's state of it."""

    async def answer(values, tps):
        return {tp: values[tp] for tp in tps}

    state = SimpleNamespace(has_valid_position=True, position=5)
    assignment = SimpleNamespace(state_value=lambda tp: state)
    client = SimpleNamespace(
        end_offsets=lambda tps: answer(end, tps), beginning_offsets=lambda tps: answer(first, tps),
        _subscription=SimpleNamespace(subscription=SimpleNamespace(assignment=assignment)),
    )  # fmt: skip
    found = consumer()
    found._thread = SimpleNamespace(_ensure_consumer=lambda: client)
    found._committed_offset = {HERE: 5}
    return found, state


async def test_what_retention_has_taken_is_no_lag():
    first = {HERE: 20}
    found, _ = asked(first, {HERE: 20})
    assert await found.ends({HERE}) == {HERE: 0}
    first[HERE] = 7
    assert await found.ends({HERE}) == {HERE: 20}
    assert await found.ends(set()) == {}


async def test_markers_of_transactions_at_the_end_are_no_lag():
    """A healthy worker ended itself after a minute, for ever: their offsets are no record's, and are never finished."""
    found, state = asked({HERE: 0}, {HERE: 7})
    one = batch(0, 5)
    state.position = 7
    assert await found.ends({HERE}) == {HERE: 0}
    found._delivered[HERE].append(one)
    assert await found.ends({HERE}) == {HERE: 7}, "the fetcher is at the end, and there is work"
    found.advance(one, 5)  # an effect stage keeps its last batch
    assert await found.ends({HERE}) == {HERE: 0}
    found._committed_offset[HERE] = 3
    assert await found.ends({HERE}) == {HERE: 7}, "finished, and not committed"
    found._committed_offset[HERE] = None
    assert await found.ends({HERE}) == {HERE: 7}
    found._committed_offset[HERE], state.position = 5, 6
    assert await found.ends({HERE}) == {HERE: 7}, "the fetcher stands still"
    state.has_valid_position, state.position = False, 7
    assert await found.ends({HERE}) == {HERE: 7}


@pytest.mark.parametrize("lease", [True, False])
async def test_what_is_half_written_is_written_to_its_end_while_a_rebalance_waits(lease):
    """It was dropped between outputs and state, and its outputs came twice, at every clean stop."""
    found, one = consumer(), batch(0, 10)
    found._delivered[HERE].append(one)
    found.app.rebalancing = True
    found.holds_lease = lambda: lease
    assert await found.may_finish(one) is lease
    found._delivered[HERE].clear()
    assert not await found.may_finish(one), "another worker's by now"


@pytest.mark.parametrize("when", ["before", "meanwhile", "later"])
async def test_a_recovery_that_ends_while_its_partitions_are_given_up_reads_nothing(when):
    """The next rebalance began (and perhaps assigned) while the last recovery asked where to read from."""
    consumer, app = object.__new__(Consumer), SimpleNamespace(consumer_generation_id=7)
    app.tables = SimpleNamespace(recovery=SimpleNamespace(_generation_id=7))

    async def committed(tps):
        consumer._revoking = when in ("before", "meanwhile")
        app.consumer_generation_id += when == "later"
        return {tp: OffsetAndMetadata(5, "") for tp in tps}

    client = SimpleNamespace(_coordinator=SimpleNamespace(fetch_committed_offsets=committed), seek=lambda *to: None)
    consumer.__dict__.update(
        app=app, _revoking=when == "before", _sought=set(), _thread=SimpleNamespace(_ensure_consumer=lambda: client),
        assignment=lambda: {HERE}, _is_changelog_tp=lambda tp: False,
    )  # fmt: skip
    with pytest.raises(RebalanceAgain):
        await consumer.perform_seek()
    assert consumer._sought == set()


class Rebalancing(Consumer):
    """One that flows and does not stop."""

    should_stop, flow_active = False, True

    def __init__(self):
        self.__dict__.update(consumer().__dict__, _sought={HERE}, _allowed={}, _next_read={})
        self.app = SimpleNamespace(rebalancing=True, consumer_generation_id=1)
        self._is_changelog_tp, self._get_active_partitions = (lambda tp: False), lambda: {HERE}
        self.holds_lease, self.soughts = (lambda: True), []
        self._thread = SimpleNamespace(
            _ensure_consumer=lambda: SimpleNamespace(seek=lambda tp, to: self.soughts.append(to))
        )
        self._was_sought = lambda tp, records: False


def test_nothing_is_delivered_while_a_rebalance_goes_on():
    """A recovery seeks, and says a moment later that the rebalance is over. What was delivered in between was dropped as if it
    were of the assignment before, and nothing brought it again."""
    found = Rebalancing()
    assert found._fetchable()[0] == set()
    found._take(HERE, [SimpleNamespace(offset=7, timestamp=0)])
    assert found.soughts == [7] and not found._delivered[HERE]
    found.app.rebalancing = False
    assert found._fetchable()[0] == {HERE}


async def test_what_is_owned_is_dropped_only_when_it_is_taken_away():
    found, one, other = Rebalancing(), batch(0, 10), batch(10, 20)
    found._delivered[HERE].extend([one, other])
    first, second = (asyncio.ensure_future(found.begin_effects(each)) for each in (one, other))
    await asyncio.sleep(0.05)
    assert not first.done() and not second.done()
    found._delivered[HERE].remove(other)
    assert not await second
    found.app.rebalancing = False
    assert await first and one in found._in_effect


def test_the_oldest_batch_is_the_first_that_is_not_finished():
    found, one, other = Rebalancing(), batch(0, 10), batch(10, 20)
    found._delivered[HERE].extend([one, other])
    assert found.is_oldest(one) and not found.is_oldest(other)
    found.finish(one)
    assert found.is_oldest(other) and not found.is_oldest(one)
