"""What happened and has not been looked at yet, in the order it happened, in a bounded amount of memory.

Nothing a peer does may make it grow without limit, or keep another peer or the node's own samples from being heard:
messages are limited in number and bytes, and one sender may take only a part of that. Of the events that say how
things are now (who is present, the link is up) only the newest of a kind waits. Samples are not dropped: whoever reads
a file waits in `room` until the learning has caught up, and a sensor's source drops its oldest by itself.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from typing import TypeAlias

from edgeswarm.agent.sources import Sample
from edgeswarm.strategies.base import Event, Linked, Peers, Received

MESSAGES_LIMIT = 4096
BYTES_LIMIT = 32 * 1024 * 1024
SENDER_LIMIT = MESSAGES_LIMIT // 4
SAMPLES_AHEAD = 128

Item: TypeAlias = Event | list[Sample]


class Inbox:
    """Put from anywhere on the event loop's thread; one task takes. Bytes are those the messages took on the wire."""

    def __init__(
        self,
        messages_limit: int = MESSAGES_LIMIT,
        bytes_limit: int = BYTES_LIMIT,
        sender_limit: int = SENDER_LIMIT,
        samples_ahead: int = SAMPLES_AHEAD,
    ) -> None:
        self._messages_limit, self._bytes_limit, self._sender_limit = messages_limit, bytes_limit, sender_limit
        self._samples_ahead = samples_ahead
        # A kind stands for its newest event, which `_newest` holds.
        self._waiting: deque[tuple[Event | Sample | type[Event], int]] = deque()
        self._newest: dict[type[Event], Event] = {}
        self._by_sender: Counter[str] = Counter()
        self._messages = self._bytes = self._samples = 0
        self._filled = asyncio.Event()
        self._room = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, event: Event | Sample, size_bytes: int = 0) -> bool:
        """Let `event` wait behind all others; False if it is a message and there is no room for it."""
        if isinstance(event, (Peers, Linked)):
            known = type(event) in self._newest
            self._newest[type(event)] = event
            if not known:
                self._waiting.append((type(event), 0))
        elif isinstance(event, Received):
            if (
                self._messages >= self._messages_limit
                or self._by_sender[event.sender] >= self._sender_limit
                or self._bytes + size_bytes > self._bytes_limit
            ):
                return False
            self._by_sender[event.sender] += 1
            self._messages += 1
            self._bytes += size_bytes
            self._waiting.append((event, size_bytes))
        else:
            self._samples += isinstance(event, Sample)
            self._waiting.append((event, 0))
        self._filled.set()
        return True

    def put_first(self, event: Event) -> None:
        """Let `event` go before everything that waits."""
        self._waiting.appendleft((event, 0))
        self._filled.set()

    async def filled(self) -> None:
        """Return once something waits."""
        while not self._waiting:
            self._filled.clear()
            await self._filled.wait()

    async def room(self) -> None:
        """Return once fewer samples wait than the source may be ahead of the learning."""
        while self._samples >= self._samples_ahead:
            self._room.clear()
            await self._room.wait()

    def take(self, batch_limit: int) -> Item:
        """What comes next: an event, one unlabelled sample, or up to `batch_limit` labelled samples in a row.

        Raises IndexError when nothing waits.
        """
        first, size_bytes = self._waiting.popleft()
        if isinstance(first, Sample):
            return self._run_of_samples(first, batch_limit)
        if isinstance(first, type):
            return self._newest.pop(first)
        if isinstance(first, Received):
            self._messages -= 1
            self._bytes -= size_bytes
            self._by_sender[first.sender] -= 1
            if not self._by_sender[first.sender]:  # names come from strangers: do not collect them
                del self._by_sender[first.sender]
        return first

    def _run_of_samples(self, first: Sample, limit: int) -> list[Sample]:
        run = [first]
        while first.label is not None and self._waiting and len(run) < limit:
            following = self._waiting[0][0]
            if not isinstance(following, Sample) or following.label is None:
                break
            run.append(following)
            self._waiting.popleft()
        self._samples -= len(run)
        self._room.set()
        return run
