"""Accept: a submission into its lane's topic, and the ids of the messages that it becomes.

Returned means accepted: all in-sync replicas have the submission, and what it refers to was in the content store before. The ids are
made of the broker's append time and the record's place, as ingest makes them (docs/decisions/0002-message-ids.md), so they are known
here without a word from anybody.
"""

from __future__ import annotations

from collections.abc import Sequence

from avro.records import Submission
from gateway.writer import KafkaProducer
from postroad.content import ContentStore
from postroad.ids import message_id
from postroad.intake import distinct
from topics.catalogue import BROADCASTS, SUBMISSIONS, Topic, place_of
from topics.client import Place

INLINE_MAX = 32 << 10  # bytes of a file that travels in the record; larger ones by reference
RAW_MAX = 4 << 20  # the same of a raw message: half of what a record may have


class Acceptor:
    """Writes submissions of any number of connections at a time. `producer` must know SUBMISSIONS and BROADCASTS."""

    def __init__(self, producer: KafkaProducer, contents: ContentStore) -> None:
        self._producer, self._contents = producer, contents

    async def accept(self, submission: Submission) -> list[str]:
        """Message ids of its distinct recipients, in their order. Raises gateway.inbound.Unavailable, ContentUnavailable (both:
        try again later), gateway.writer.TooLarge."""
        return ids_of(submission, await self.write(submission))

    async def write(self, submission: Submission, headers: Sequence[tuple[str, bytes]] = ()) -> Place:
        """Where the submission is. Large files, and a large raw message, go to the content store first, and are replaced in `submission` by
        references. `headers`: of the record. Raises as `accept`."""
        for attachment in submission.get("attachments", []):
            content = attachment["content"]
            if isinstance(content, bytes) and len(content) > INLINE_MAX:
                attachment["content"] = await self._contents.put_blob(content)
        if len(raw := submission.get("raw") or b"") > RAW_MAX:
            submission["raw"], submission["raw_blob"] = None, await self._contents.put_blob(raw)
        return await self._producer.send(lane_of(submission), submission, headers)


def lane_of(submission: Submission) -> Topic[Submission]:
    """The topic of its message stream."""
    return BROADCASTS if submission.get("stream") == "broadcast" else SUBMISSIONS


def ids_of(submission: Submission, place: Place) -> list[str]:
    """The message ids of its distinct recipients, in their order, once it is at `place`."""
    where = place_of(lane_of(submission).name, place.partition, place.offset)
    tenant, id = submission["tenant"], submission["submission_id"]
    return [
        message_id(place.timestamp, tenant, id, where, recipient["address"])
        for recipient in distinct(submission["recipients"])
    ]
