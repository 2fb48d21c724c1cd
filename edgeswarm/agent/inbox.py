"""What happened and has not been looked at yet, in the order it happened, in a bounded amount of memory.

Nothing a peer does may make it grow without limit, or keep another peer or the node's own samples from being heard:
messages are limited in number and bytes, and one sender may take only a part of that (a single message may be larger
than its part of the bytes: a model is sent whole). Of the events that say how things are now (who is present, the link
is up, what a peer's model is) only the newest of a kind waits, so a node that trains for a minute does not pile up
models that nobody will use. Samples are not dropped: whoever reads a file waits in `room` until the learning has caught
up, and a sensor's source drops its oldest by itself.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from dataclasses import dataclass
from typing import Any, TypeAlias

from edgeswarm.agent.sources import Sample
from edgeswarm.messages import SNAPSHOT, Bids, Weights, array_bytes
from edgeswarm.strategies.base import Event, Linked, Peers, Received

MESSAGES_LIMIT = 4096
BYTES_LIMIT = 32 * 1024 * 1024
SENDER_LIMIT = MESSAGES_LIMIT // 4
SENDER_PART = 4
"""One sender's messages take at most this part of the bytes, if they are more than one."""
SAMPLES_AHEAD = 128

Item: TypeAlias = Event | list[Sample]


@dataclass(frozen=True, slots=True)
class _Kind:
    """Waits in the place of the newest event that has this key."""

    key: tuple[Any, ...]


class Inbox:
    """Put from anywhere on the event loop's thread; one task takes. Bytes of a message are those it took on the wire,
    or those of its arrays, which may be many times as many."""

    def __init__(
        self,
        messages_limit: int = MESSAGES_LIMIT,
        bytes_limit: int = BYTES_LIMIT,
        sender_limit: int = SENDER_LIMIT,
        samples_ahead: int = SAMPLES_AHEAD,
    ) -> None:
        self._messages_limit, self._bytes_limit, self._sender_limit = messages_limit, bytes_limit, sender_limit
        self._samples_ahead = samples_ahead
        self._waiting: deque[tuple[Event | Sample | _Kind, int]] = deque()
        self._newest: dict[_Kind, tuple[Event, int]] = {}
        self._by_sender: Counter[str] = Counter()
        self._bytes_by_sender: Counter[str] = Counter()
        self._messages = self._bytes = self._samples = 0
        self._filled = asyncio.Event()
        self._room = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, event: Event | Sample, size_bytes: int = 0) -> bool:
        """Let `event` wait behind all others; False if it is a message and there is no room for it.

        size_bytes: on the wire. What is no longer the newest of its kind is left out, which is no reason for False.
        """
        kind = _kind_of(event)
        before = self._newest.get(kind) if kind is not None else None
        if isinstance(event, Received):
            size_bytes = max(size_bytes, array_bytes(event.message))
            if before is not None and not _is_later(event, before[0]):
                return True
            if not self._fits(event.sender, size_bytes, before):
                return False
            self._counted(event.sender, size_bytes, 1)
            if before is not None:
                self._counted(event.sender, before[1], -1)
        self._samples += isinstance(event, Sample)
        if kind is None:
            self._waiting.append((event, size_bytes))
        else:
            assert not isinstance(event, Sample)
            self._newest[kind] = event, size_bytes
            if before is None:
                self._waiting.append((kind, 0))
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
        if isinstance(first, _Kind):
            first, size_bytes = self._newest.pop(first)
        if isinstance(first, Received):
            self._counted(first.sender, size_bytes, -1)
        return first

    def _fits(self, sender: str, size_bytes: int, before: tuple[Event, int] | None) -> bool:
        """Whether a message of `sender` may wait, in the place of `before` if there is one."""
        messages, freed_bytes = (1, 0) if before is None else (0, before[1])
        alone = self._by_sender[sender] + messages == 1
        of_sender = self._bytes_by_sender[sender] + size_bytes - freed_bytes
        return (
            self._messages + messages <= self._messages_limit
            and self._by_sender[sender] + messages <= self._sender_limit
            and self._bytes + size_bytes - freed_bytes <= self._bytes_limit
            and (alone or of_sender <= self._bytes_limit // SENDER_PART)
        )

    def _counted(self, sender: str, size_bytes: int, messages: int) -> None:
        """A message of `sender` waits now (messages 1), or does so no more (-1)."""
        self._messages += messages
        self._bytes += messages * size_bytes
        self._by_sender[sender] += messages
        self._bytes_by_sender[sender] += messages * size_bytes
        if not self._by_sender[sender]:  # names come from strangers: do not collect them
            del self._by_sender[sender], self._bytes_by_sender[sender]

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


def _kind_of(event: Event | Sample) -> _Kind | None:
    """What only the newest of matters; None for what has to be taken one by one.

    Which model or public set a message names is no part of it: a sender has one, and could invent any number.
    """
    match event:
        case Peers() | Linked():
            return _Kind((type(event),))
        case Received(_, sender, Weights() as message) if message.base == SNAPSHOT:
            return _Kind((Weights, sender, message.part))
        case Received(_, sender, Bids()):
            return _Kind((Bids, sender))
        case _:
            return None


def _is_later(event: Received, before: Any) -> bool:
    one, other = event.message, before.message
    assert isinstance(one, (Weights, Bids))
    return (one.epoch, one.version) > (other.epoch, other.version)
