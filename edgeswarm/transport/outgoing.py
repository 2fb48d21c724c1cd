"""From a message to packets on a link: cut to size, newest first, never more than the broker takes.

While there is no link only retained messages are kept, the newest of each topic. They are kept as messages, not as
bytes, so that one sent late says how old it is and fits the limit of the broker it then meets.

Sets of prototypes are cut into parts that stand alone, and a newer set takes the place of parts that wait. Models and
predictions are cut into chunks that are worth nothing alone: once some are sent the others follow, and the newest
message waits for its turn, or a slow link would carry beginnings only.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections import Counter
from dataclasses import dataclass, replace

from edgeswarm.messages import Bids, Digest, Message, Prototypes, Pull
from edgeswarm.transport.link import Link
from edgeswarm.transport.outbox import Outbox
from edgeswarm.transport.packet import Packet, fits, payload_limit_bytes
from edgeswarm.transport.settings import MqttSettings
from edgeswarm.wire import chunks, topics
from edgeswarm.wire.codec import encode
from edgeswarm.wire.split import split_encoded

_LOG = logging.getLogger(__name__)
_BACKLOG_BYTES = 262_144
"""Most bytes handed to the socket's queue ahead of time; the rest waits where newer state can replace it."""
_NO_MATCHING_SUBSCRIBERS = 0x10
_PART_DIGITS = 4


@dataclass(slots=True)
class _Kept:
    """The newest retained message of one topic. unheld: parts the broker has not acknowledged.  parts: as last
    published.  behind: it waits until an older one, of which chunks have been sent, is through."""

    to: str
    message: Message
    born_s: float
    expiry_s: int
    serial: int
    parts: int = 0
    unheld: int = 1
    behind: bool = False


class Outgoing:
    """Everything this node publishes.

    counters: messages_sent, sent_<kind>, acknowledged, puback_<code> for codes that are not plain success, and for
    what was not sent: dropped_offline, dropped_slow (no room in the outbox), dropped_with_link, superseded (newer
    state took its place), expired, oversize, unsendable (no way to cut it so that it fits).
    """

    def __init__(self, settings: MqttSettings, counters: Counter[str]) -> None:
        self._settings, self._counters = settings, counters
        self._outbox = Outbox(settings.outbox_limit_bytes)
        self._kept: dict[str, _Kept] = {}
        self._serials = itertools.count(1)
        self._link: Link | None = None
        self._v5 = settings.protocol != "3.1.1"
        self._window = settings.window
        self._pump_due = False
        self._quiet: asyncio.Event = asyncio.Event()
        self.limit_bytes = settings.packet_limit_bytes

    # ---- the link comes and goes -------------------------------------------------------------------------------

    def open(self, link: Link, limit_bytes: int, window: int) -> None:
        """Publish over `link` from now on: whole packets up to `limit_bytes`, `window` unacknowledged at once."""
        self._link, self._v5 = link, link.v5
        self.limit_bytes, self._window = limit_bytes, window

    def repeat(self, session_present: bool) -> None:
        """Publish again the retained messages the broker may not hold: all if it does not know our session."""
        for topic, kept in list(self._kept.items()):
            if not session_present:
                kept.unheld = max(1, kept.unheld)
            waited_s = time.monotonic() - kept.born_s
            if kept.expiry_s and waited_s > kept.expiry_s:
                del self._kept[topic]
            elif kept.unheld and not self._outbox.holds(topic + "#"):
                self._publish_message(kept.to, _aged(kept.message, waited_s), kept, self._route(kept.message, kept.to))

    def close(self, suspect_bytes: int) -> Packet | None:
        """Forget the link and what waited for it; the oldest packet under way of at least `suspect_bytes`."""
        oldest = self._outbox.oldest(suspect_bytes)
        self._link = None
        self._counters["dropped_with_link"] += sum(1 for packet in self._outbox.lose() if not packet.slot)
        self._quiet.set()
        return oldest

    def forget(self, packet: Packet) -> None:
        """Do not publish the message again that `packet` is a part of."""
        self._kept.pop(packet.slot.partition("#")[0], None)

    async def flushed(self) -> None:
        """Return once nothing waits and the broker has acknowledged everything."""
        while self._link is not None and (len(self._outbox) or self._outbox.under_way):
            self._quiet.clear()
            await self._quiet.wait()

    # ---- messages ------------------------------------------------------------------------------------------------

    def send(self, to: str, message: Message) -> int:
        """Bytes one copy takes in MQTT packets, all parts together; 0 if it was dropped, and counted.

        Raises ValueError for a message that has no route (a pull to everyone).
        """
        route = self._route(message, to)
        kept = None
        if route.retain:
            before = self._kept.get(route.topic)
            kept = _Kept(to, message, time.monotonic(), route.expiry_s or 0, next(self._serials))
            if before is not None:
                kept.parts = before.parts
                self._counters["superseded"] += before.behind
            self._kept[route.topic] = kept
        elif self._link is None:
            self._counters["dropped_offline"] += 1
            return 0
        return self._publish_message(to, message, kept, route)

    def _publish_message(self, to: str, message: Message, kept: _Kept | None, route: topics.Route) -> int:
        parts = self._cut(message, route.topic)
        if not parts:
            self._kept.pop(route.topic, None)
            return 0
        slot = route.topic if route.retain or isinstance(message, Digest) else ""
        packets = [self._packet(message, data, route, slot, number, kept) for number, data in enumerate(parts)]
        total = sum(packet.size_bytes(self._v5) for packet in packets)
        if kept is not None:
            kept.unheld = len(parts)
        if self._link is None:
            return total
        chunked = len(parts) > 1 and not isinstance(message, Prototypes)
        if chunked and not self._outbox.has_room(packets):
            self._counters["dropped_slow"] += 1
            return 0
        if kept is not None:
            kept.behind = not isinstance(message, Prototypes) and self._begun(slot)
            if kept.behind:
                return total
            # a set that has shrunk leaves parts at the broker that nobody needs any more
            packets += [self._withdrawal(route.topic, number) for number in range(len(parts), kept.parts)]
            kept.parts = len(parts)
        if slot:
            self._counters["superseded"] += self._outbox.withdraw(slot + "#")
        accepted = [self.put(packet) for packet in packets]
        return total if all(accepted) else 0

    def _cut(self, message: Message, topic: str) -> list[bytes]:
        """Payloads that fit one packet each; none if that cannot be done."""
        if isinstance(message, Digest | Pull):
            return [encode(message)]
        room = payload_limit_bytes(self.limit_bytes, topic + "_" + "9" * _PART_DIGITS, self._v5)
        try:
            if isinstance(message, Prototypes):
                return [data for _, data in split_encoded(message, room)]
            data = encode(message)
            return [data] if len(data) <= room else chunks.cut(data, message.epoch, next(self._serials), room)
        except ValueError as error:
            self._counters["unsendable"] += 1
            _LOG.warning("%s cannot be sent: %s", type(message).__name__, error)
            return []

    def _begun(self, slot: str) -> bool:
        """Whether some packets of a message were sent and others wait."""
        return self._outbox.waits(slot + "#") and not self._outbox.waits(slot + "#0")

    def _follow(self, packet: Packet) -> None:
        """Once the last chunk of a message has left, the newest that waited for this is next."""
        slot = packet.slot.partition("#")[0]
        kept = self._kept.get(slot)
        if kept is not None and kept.behind and not self._outbox.waits(slot + "#"):
            aged = _aged(kept.message, time.monotonic() - kept.born_s)
            self._publish_message(kept.to, aged, kept, self._route(aged, kept.to))

    def _packet(
        self, message: Message, data: bytes, route: topics.Route, slot: str, number: int, kept: _Kept | None
    ) -> Packet:
        return Packet(
            topic=topics.piece_topic(route.topic, number) if route.retain else route.topic,
            payload=data,
            qos=route.qos,
            retain=route.retain,
            expiry_s=route.expiry_s or 0,
            slot=f"{slot}#{number}" if slot else "",
            kind=type(message).__name__.lower(),
            born_s=time.monotonic(),
            serial=kept.serial if kept is not None else 0,
        )

    def _withdrawal(self, topic: str, number: int) -> Packet:
        return Packet(f"{topic}_{number}", b"", 1, True, slot=f"{topic}#{number}", kind="withdrawal")

    def _route(self, message: Message, to: str) -> topics.Route:
        settings = self._settings
        return topics.route(message, settings.site, settings.node, settings.task, to)

    # ---- packets -------------------------------------------------------------------------------------------------

    def put(self, packet: Packet) -> bool:
        """Let a packet wait for its turn. False if there is no link, no room, or no broker would take it; counted."""
        if self._link is None:
            self._counters["dropped_offline"] += 1
            return False
        if not fits(packet, self.limit_bytes, self._v5):
            self._counters["oversize"] += 1
            return False
        outcome = self._outbox.put(packet)
        self._counters["superseded"] += outcome.replaced
        self._counters["dropped_slow"] += not outcome.accepted
        self._pump_soon()
        return outcome.accepted

    def acknowledged(self, identifier: int, code: int) -> None:
        """The broker has answered a packet (or the socket has taken one of QoS 0): there is room for the next."""
        packet = self._outbox.acknowledged(identifier)
        if packet is not None:
            self._counters["acknowledged"] += 1
            if code >= 0x80 or code == _NO_MATCHING_SUBSCRIBERS:
                self._counters[f"puback_0x{code:02x}"] += 1
            kept = self._kept.get(packet.slot.partition("#")[0])
            if kept is not None and kept.serial == packet.serial and code < 0x80:
                kept.unheld -= 1
        self._pump_soon()
        if not len(self._outbox) and not self._outbox.under_way:
            self._quiet.set()

    def _pump_soon(self) -> None:
        # one turn of the event loop later, so that state replaced within this turn never reaches the wire
        if not self._pump_due:
            self._pump_due = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        self._pump_due = False
        link = self._link
        if link is None or link.closed.done():
            return
        backlog_bytes = link.backlog_bytes
        while backlog_bytes < _BACKLOG_BYTES:
            packet = self._outbox.take(self._window)
            if packet is None:
                return
            self._follow(packet)
            expiry_s = packet.expiry_s
            if expiry_s:
                expiry_s -= int(time.monotonic() - packet.born_s)
                if expiry_s <= 0:
                    self._counters["expired"] += 1
                    continue
            identifier = link.publish(packet, expiry_s)
            backlog_bytes += len(packet.payload)
            if packet.qos:
                self._outbox.sent(identifier, packet)
            self._counters["messages_sent"] += 1
            self._counters[f"sent_{packet.kind}"] += 1


def _aged(message: Message, by_s: float) -> Message:
    return message if isinstance(message, Bids | Pull) else replace(message, age_s=message.age_s + by_s)
