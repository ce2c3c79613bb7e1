"""The records of one key that wait for their effect, in the order in which they are fair to each other.

Lanes first: those of an earlier source (transactional mail, say) before all of a later one. Inside a lane owners (tenants) take
turns, one record each: deficit round robin (Shreedhar and Varghese, SIGCOMM 1995) where every record costs the same, as messages do
whose limits count messages. An owner's own records keep their order. So a record waits for one record of each other owner of its
lane that waits, however many those have. `put` and `pop` are O(1) but for the number of lanes.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class _Lane(Generic[T]):
    """`owners` in the order of their turns; none of them is empty."""

    def __init__(self) -> None:
        self.owners: OrderedDict[bytes, deque[T]] = OrderedDict()

    def put(self, item: T, owner: bytes, first: bool) -> None:
        queue = self.owners.get(owner)
        if queue is None:
            queue = self.owners[owner] = deque()
        if first:
            self.owners.move_to_end(owner, last=False)
        (queue.appendleft if first else queue.append)(item)

    def pop(self) -> T:
        owner, queue = next(iter(self.owners.items()))
        item = queue.popleft()
        if queue:
            self.owners.move_to_end(owner)
        else:
            del self.owners[owner]
        return item

    def pop_last(self) -> T:
        owner = max(self.owners, key=lambda name: len(self.owners[name]))
        item = self.owners[owner].pop()
        if not self.owners[owner]:
            del self.owners[owner]
        return item


class FairQueue(Generic[T]):
    """A queue of one key."""

    __slots__ = ("_lanes", "_length")

    def __init__(self) -> None:
        self._lanes: dict[int, _Lane[T]] = {}
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def has_first_lane(self) -> bool:
        """Whether the next one is of lane 0."""
        return 0 in self._lanes and bool(self._lanes[0].owners)

    def put(self, item: T, lane: int, owner: bytes, first: bool = False) -> None:
        """At the end of its owner's records; with `first` before all of its lane: it had its turn and could not begin."""
        found = self._lanes.get(lane)
        if found is None:
            found = self._lanes[lane] = _Lane()
        found.put(item, owner, first)
        self._length += 1

    def pop(self) -> T:
        """The next one. Raises IndexError where there is none."""
        for lane in sorted(self._lanes):
            if self._lanes[lane].owners:
                self._length -= 1
                return self._lanes[lane].pop()
        raise IndexError("an empty queue")

    def pop_last(self, lane: int) -> T:
        """The last of a lane: the newest record of the owner who has most. Raises IndexError where the lane is empty."""
        found = self._lanes.get(lane)
        if found is None or not found.owners:
            raise IndexError("an empty lane")
        self._length -= 1
        return found.pop_last()

    def take(self, lane: int, wanted: Callable[[T], bool]) -> list[T]:
        """Those of a lane that are wanted, out of their turn. Looks at each of its records."""
        found = self._lanes.get(lane)
        taken: list[T] = []
        for owner, queue in list(found.owners.items()) if found else ():
            left = deque[T]()
            for item in queue:
                (taken if wanted(item) else left).append(item)
            if left:
                found.owners[owner] = left  # type: ignore[union-attr]  # it has owners
            else:
                del found.owners[owner]  # type: ignore[union-attr]
        self._length -= len(taken)
        return taken
