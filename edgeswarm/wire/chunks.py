"""A message larger than a packet, as several payloads and back.

Every chunk says which message it belongs to, where in it, and how long and what the whole is, so they may come in any
order, twice, or with some missing: then the message waits, until the missing ones come or a newer message takes its
place. What a sender can make a receiver hold is bounded, and held only once it has arrived.
"""

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict
from dataclasses import dataclass, field, replace
from typing import Any

from edgeswarm.wire.envelope import (
    DEFAULT_LIMITS,
    KIND_CHUNK,
    MOST_EPOCH,
    MOST_VERSION,
    Limits,
    frame,
    refuse,
    unframe,
    whole,
)

_DIGEST_BYTES = 8
_HEAD_BYTES = 48
"""The frame, numbers, digest and length of a chunk never take more than this."""
_COST_BYTES = 1024
"""What holding a chunk takes beside its data, generously: many tiny ones cannot fill the memory either."""
_FIELDS = 7


@dataclass(frozen=True, slots=True)
class Chunk:
    """Piece `index` of `count` of a message of `size_bytes`.

    number: (epoch of the sender, serial); it grows from message to message.  digest: blake2b of the whole, 8 bytes.
    All pieces but the last have ceil(size_bytes / count) bytes.
    """

    number: tuple[int, int]
    index: int
    count: int
    size_bytes: int
    digest: bytes
    data: bytes


@dataclass(frozen=True, slots=True)
class Whole:
    """A message that is complete. size_bytes: of the packets it came in.  waited_s: the longest that one of them lay at
    the broker."""

    data: bytes
    size_bytes: int
    waited_s: float


def is_chunk(payload: bytes) -> bool:
    """Whether these bytes begin like a chunk; `read` says whether they are one."""
    return len(payload) > 2 and payload[2] == KIND_CHUNK


def cut(data: bytes, epoch: int, serial: int, room_bytes: int) -> list[bytes]:
    """An encoded message as the payloads of its chunks, each at most `room_bytes`.

    serial: larger than for any earlier message of this epoch.  Raises ValueError: more than Limits.max_parts chunks.
    """
    room = room_bytes - _HEAD_BYTES
    count = -(-len(data) // room) if room > 0 else 0
    if not 1 <= count <= DEFAULT_LIMITS.max_parts:
        raise ValueError(f"{len(data)} bytes do not fit {DEFAULT_LIMITS.max_parts} packets of {room_bytes} bytes")
    size = -(-len(data) // count)
    count = -(-len(data) // size)
    digest = _digest(data)
    return [
        write(Chunk((epoch, serial), i, count, len(data), digest, data[i * size : (i + 1) * size]))
        for i in range(count)
    ]


def write(chunk: Chunk) -> bytes:
    """The payload of a chunk."""
    body = [*chunk.number, chunk.index, chunk.count, chunk.size_bytes, chunk.digest, chunk.data]
    return frame(KIND_CHUNK, body, float_bytes=4)


def read(payload: bytes, limits: Limits = DEFAULT_LIMITS) -> Chunk:
    """A chunk from the payload of a packet. Raises WireError, nothing else."""
    _, body = unframe(payload, (KIND_CHUNK,), _FIELDS, limits.max_bytes, 0)
    if len(body) != _FIELDS:
        refuse("malformed", f"a chunk has {_FIELDS} fields, not {len(body)}")
    epoch, serial, index, count, size, digest, data = body
    if type(digest) is not bytes or type(data) is not bytes:
        refuse("malformed", "an array is not a bin")
    whole(epoch, MOST_EPOCH, "epoch")
    whole(serial, MOST_VERSION, "serial")
    whole(count, MOST_VERSION, "count", least=1)
    whole(index, count - 1, "index")
    whole(size, MOST_VERSION, "size", least=1)
    if count > limits.max_parts:
        refuse("limits", f"{count} chunks, limit is {limits.max_parts}")
    if size > limits.max_long_bytes:
        refuse("limits", f"a message of {size} bytes, limit is {limits.max_long_bytes}")
    if len(digest) != _DIGEST_BYTES:
        refuse("bad_shape", f"a digest of {len(digest)} bytes")
    each = -(-size // count)
    expected = min(each, size - index * each)
    if expected < 1 or len(data) != expected:
        refuse("bad_shape", f"chunk {index} of {count} has {len(data)} bytes, not {expected}")
    return Chunk((epoch, serial), index, count, size, digest, data)


@dataclass(slots=True)
class _Open:
    """A message some of whose chunks have come."""

    first: Chunk
    pieces: dict[int, bytes] = field(default_factory=dict)
    held_bytes: int = 0
    size_bytes: int = 0
    waited_s: float = 0.0


class Assembly:
    """Chunks of many senders, put together again. One message is open for each sender and topic: the newest.

    At most twice `Limits.max_long_bytes` are held for one sender, and four times that for all, counting _COST_BYTES for
    each chunk beside its data; beyond that what has waited longest for its next chunk is forgotten.

    counters: chunks_repeated and chunks_stale (older than the message that is open) for single chunks;
    chunked_superseded (a newer message began), chunked_forgotten (no room) and chunked_contradicted for messages never
    completed.
    """

    def __init__(self, limits: Limits = DEFAULT_LIMITS, counters: Counter[str] | None = None) -> None:
        self._limits = limits
        self._counters: Counter[str] = Counter() if counters is None else counters
        self._open: OrderedDict[tuple[str, str], _Open] = OrderedDict()
        self._held: Counter[str] = Counter()
        self.held_bytes = 0

    def add(self, sender: str, topic: str, chunk: Chunk, size_bytes: int = 0, waited_s: float = 0.0) -> Whole | None:
        """The message that `chunk` completes, if it does. topic: that of the message, without the number of a piece.

        size_bytes, waited_s: of the packet it came in.  Raises WireError: chunks of one message that contradict one
        another, or together are not what their digest says; the message is forgotten.
        """
        key = sender, topic
        held = self._open.get(key)
        if held is not None and chunk.number < held.first.number:
            self._counters["chunks_stale"] += 1
            return None
        if held is not None and chunk.number > held.first.number:
            self._forget(key, "superseded")
            held = None
        if held is None:
            held = self._open[key] = _Open(chunk)
        first = held.first
        if (chunk.count, chunk.size_bytes, chunk.digest) != (first.count, first.size_bytes, first.digest):
            self._forget(key, "contradicted")
            refuse("bad_value", "two chunks of one message contradict one another")
        if chunk.index in held.pieces:
            self._counters["chunks_repeated"] += 1
            return None
        self._open.move_to_end(key)
        held.pieces[chunk.index] = chunk.data
        held.size_bytes += size_bytes
        held.waited_s = max(held.waited_s, waited_s)
        self._hold(key, held, len(chunk.data) + _COST_BYTES)
        if len(held.pieces) < chunk.count:
            self._make_room(sender)
            return None
        self._remove(key)
        data = b"".join(held.pieces[index] for index in range(chunk.count))
        if _digest(data) != chunk.digest:
            refuse("bad_value", "the chunks of a message are not what their digest says")
        return Whole(data, held.size_bytes, held.waited_s)

    def dump(self) -> list[Any]:
        """The messages that are not complete, the one that waits longest first, as plain data."""
        return [
            [
                *key,
                held.size_bytes,
                held.waited_s,
                [write(replace(held.first, index=i, data=data)) for i, data in pieces],
            ]
            for key, held in self._open.items()
            if (pieces := list(held.pieces.items()))
        ]

    def load(self, dumped: list[Any]) -> None:
        """Go on with what was dumped."""
        for sender, topic, size_bytes, waited_s, payloads in dumped:
            for payload in payloads:
                self.add(sender, topic, read(payload, self._limits), 0, waited_s)
            self._open[sender, topic].size_bytes = size_bytes

    def _hold(self, key: tuple[str, str], held: _Open, count_bytes: int) -> None:
        held.held_bytes += count_bytes
        self._held[key[0]] += count_bytes
        self.held_bytes += count_bytes

    def _make_room(self, sender: str) -> None:
        while self._held[sender] > 2 * self._limits.max_long_bytes:
            self._forget(next(key for key in self._open if key[0] == sender), "forgotten")
        while self.held_bytes > 4 * self._limits.max_long_bytes:
            self._forget(next(iter(self._open)), "forgotten")

    def _forget(self, key: tuple[str, str], why: str) -> None:
        self._remove(key)
        self._counters[f"chunked_{why}"] += 1

    def _remove(self, key: tuple[str, str]) -> None:
        held = self._open.pop(key)
        self._hold(key, held, -held.held_bytes)
        if not self._held[key[0]]:
            del self._held[key[0]]


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()
