"""A packet on its way through a broker in memory, and what it says, read once for all who get it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from edgeswarm.errors import WireError
from edgeswarm.messages import Message, Presence
from edgeswarm.transport.packet import Packet
from edgeswarm.transport.presence import GONE
from edgeswarm.wire import topics
from edgeswarm.wire.chunks import Chunk, is_chunk
from edgeswarm.wire.chunks import read as read_chunk
from edgeswarm.wire.codec import decode
from edgeswarm.wire.envelope import Limits
from edgeswarm.wire.status import decode_presence

Content = Message | Presence | Chunk | WireError | None
_UNREAD = object()


@dataclass(eq=False, slots=True)
class Parcel:
    """A packet of `sender` on its way. parsed: its topic, None for one of nobody's.

    content: what it says, once somebody has read it; it is read once for all who get it.
    """

    sender: str
    packet: Packet
    parsed: topics.Parsed | None = field(init=False)
    size_bytes: int = field(init=False)
    content: Any = field(init=False, default=_UNREAD)

    def __post_init__(self) -> None:
        self.parsed, self.size_bytes = topics.parse(self.packet.topic), self.packet.size_bytes(True)


class Contents:
    """Decodes what comes by the topics of one site and task."""

    def __init__(self, site: str, task: str, limits: Limits) -> None:
        self._site, self._task, self._limits = site, task, limits
        self._joined: tuple[tuple[Any, ...], bytes, Content] = ((), b"", None)

    def of(self, parcel: Parcel) -> Content:
        """What a packet says, why it cannot be read, or None for a withdrawal."""
        if parcel.content is _UNREAD:
            parcel.content = self._decoded(parcel)
        found: Content = parcel.content
        return found

    def _decoded(self, parcel: Parcel) -> Content:
        payload, parsed = parcel.packet.payload, parcel.parsed
        try:
            if parsed is not None and is_chunk(payload):
                chunk = read_chunk(payload, self._limits)
                if not topics.takes_chunk(parsed, chunk.index):
                    raise WireError("misrouted", f"chunk {chunk.index} does not belong on {parcel.packet.topic}")
                return chunk
            if parsed is not None and parsed.channel == "state":
                return decode_presence(parsed.node, payload) if payload else Presence(parsed.node, GONE, 0, "")
            return self._routed(parsed, parcel.packet.topic, payload) if parsed is not None and payload else None
        except WireError as error:
            return error

    def joined(self, parsed: topics.Parsed, topic: str, number: tuple[int, int], data: bytes) -> Content:
        """What the pieces of a message say together. The last one is remembered: its receivers have it one after
        another."""
        if self._joined[:2] != ((topic, *number), data):
            try:
                self._joined = (topic, *number), data, self._routed(parsed, topic, data)
            except WireError as error:
                self._joined = (topic, *number), data, error
        return self._joined[2]

    def _routed(self, parsed: topics.Parsed, topic: str, data: bytes) -> Message:
        """A message, if the topic is one that it may come by. Raises WireError."""
        message = decode(data, self._limits)
        if not topics.belongs(message, topic, parsed, self._site, self._task):
            raise WireError("misrouted", f"a {type(message).__name__} does not belong on {topic}")
        return message
