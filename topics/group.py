"""What aiokafka 0.14 keeps to itself about its consumer group, and how a member leaves it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from aiokafka.errors import KafkaError, NotCoordinatorError, for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.commit import OffsetFetchRequest
from aiokafka.protocol.group import HeartbeatRequest, SyncGroupRequest
from aiokafka.protocol.types import Array, Int16, Int32, Schema, String

REBALANCE_IN_PROGRESS = 27
log = logging.getLogger(__name__)


class _Left(Response):
    API_KEY, API_VERSION = 13, 3
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("error_code", Int16),
        (
            "members",
            Array(("member_id", String("utf-8")), ("group_instance_id", String("utf-8")), ("error_code", Int16)),
        ),
    )


class _Leave(RequestStruct):
    API_KEY, API_VERSION, RESPONSE_TYPE = 13, 3, _Left
    SCHEMA = Schema(
        ("group", String("utf-8")),
        ("members", Array(("member_id", String("utf-8")), ("group_instance_id", String("utf-8")))),
    )


class LeaveGroup(Request[_Leave]):
    """LeaveGroup version 3 (KIP-345): the first that names a static member. aiokafka has up to version 1."""

    API_KEY = 13

    def __init__(self, group: str, member_id: str, instance_id: str):
        self.group, self.member = group, (member_id, instance_id)

    def build(self, request_struct_class: type[_Leave]) -> _Leave:
        return request_struct_class(self.group, [self.member])


def watch_answers(coordinator: Any) -> None:
    """Two things that aiokafka keeps to itself.

    `coordinator.alive_at`: when the last heartbeat that the group accepted was sent (monotonic seconds). "Rebalance in
    progress" is accepted: the group waits for us, nobody has our partitions yet.

    Errors of OffsetFetch: aiokafka ignores the top-level error of v2+ (COORDINATOR_LOAD_IN_PROGRESS for a moment after a
    broker restart), takes the empty answer for "nothing committed" and starts over from auto_offset_reset. Here it is
    raised; the callers try again.
    """
    send = coordinator._send_req
    coordinator.alive_at = time.monotonic()

    async def checked(request: Any) -> Any:
        sent = time.monotonic()
        response = await send(request)
        if isinstance(request, HeartbeatRequest | SyncGroupRequest) and response.error_code in (
            0,
            REBALANCE_IN_PROGRESS,
        ):
            coordinator.alive_at = sent
        if isinstance(request, OffsetFetchRequest) and (code := getattr(response, "error_code", 0)):
            error = for_code(code)
            if error is NotCoordinatorError:
                coordinator.coordinator_dead()
            raise error()
        return response

    coordinator._send_req = checked


def leave_when_closed(coordinator: Any, group_instance_id: str | None, should_stop: Callable[[], bool]) -> None:
    """A member that stops leaves its group, a static one too: nobody knows then whether it comes back, and a worker that was
    scaled away would keep its partitions unread for a session. One that does come back costs two rebalances, of which a clean
    stop makes no duplicate: what it had begun is finished and committed. (One that was killed keeps its partitions, and is
    back within its session without any.)

    aiokafka lets a static member stay, and knows LeaveGroup up to version 1, which does not name one. It also joins once
    more where a rebalance began while it was stopping; here it leaves instead.
    """
    leave, join = coordinator._maybe_leave_group, coordinator._do_rejoin_group

    async def leave_static() -> None:
        if group_instance_id is not None and coordinator.generation > 0 and coordinator._closing.done():
            try:
                await coordinator._send_req(LeaveGroup(coordinator.group_id, coordinator.member_id, group_instance_id))
            except KafkaError as exc:
                log.warning("%s: not left, the session has to end: %r", coordinator.group_id, exc)
        await leave()

    async def join_unless_stopping(subscription: Any) -> bool:
        if should_stop():
            await coordinator._closing
            return False
        await coordinator._client.force_metadata_update()  # a leader assigns what it sees
        return bool(await join(subscription))

    coordinator._maybe_leave_group, coordinator._do_rejoin_group = leave_static, join_unless_stopping
