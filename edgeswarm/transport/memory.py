"""A node's end of a broker in memory: every message is really encoded, cut, sized and decoded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any, Protocol

from edgeswarm.errors import WireError
from edgeswarm.messages import Bids, Digest, Message, Presence, Prototypes, Pull
from edgeswarm.transport import control
from edgeswarm.transport.base import Listener
from edgeswarm.transport.packet import Packet, payload_limit_bytes
from edgeswarm.transport.parcel import Contents, Parcel
from edgeswarm.wire import topics
from edgeswarm.wire.chunks import Assembly, Chunk, cut
from edgeswarm.wire.codec import encode
from edgeswarm.wire.envelope import Limits
from edgeswarm.wire.split import split_encoded
from edgeswarm.wire.status import encode_presence


class Clock(Protocol):
    """Seconds that only grow, and appointments (as `agent.clock.Clock`, which lies to the right of here)."""

    def now(self) -> float: ...
    def call_at(self, when: float, callback: Callable[..., None], *args: object) -> None: ...


class Broker(Protocol):
    """What a node needs of the broker it is linked to; see `transport.hub.MemoryHub`."""

    clock: Clock
    site: str
    task: str
    limits: Limits
    packet_limit_bytes: int
    contents: Contents

    def publish(self, member: MemoryTransport, parcel: Parcel) -> None: ...
    def listen(self, member: MemoryTransport, to: frozenset[tuple[str, str]]) -> None: ...
    def catch_up(self, member: MemoryTransport) -> None: ...


class MemoryTransport:
    """A `transport.base.Transport`. Counters are named as in `MqttTransport`.

    circle: see `MemoryHub.join`.  cuts: how often the link was lost.  listening: what `listen` asked for last.
    up_free_s, down_free_s: when all that waits for the link will have gone through.
    """

    def __init__(self, hub: Broker, node: str, listener: Listener, circle: Collection[str] | None = None) -> None:
        self._hub, self._listener, self.node, self.circle = hub, listener, node, circle
        self._kept: dict[str, tuple[str, Message, float]] = {}
        self._unsent: set[str] = set()
        self._parts: Counter[str] = Counter()
        self._serial = 0
        self.presence: Presence | None = None
        self.up = False
        self.cuts = 0
        self.up_free_s = self.down_free_s = 0.0
        self.listening: frozenset[tuple[str, str]] = frozenset()
        names = ("connects", "disconnects", "bytes_sent", "bytes_received", "messages_sent", "messages_received")
        self._counters: Counter[str] = Counter(dict.fromkeys(names, 0))
        self._assembly = Assembly(hub.limits, self._counters)

    @property
    def counters(self) -> dict[str, int]:
        """Totals since it joined: messages and bytes both ways, drops, refusals by reason. Bytes are those of whole
        MQTT 5 packets of every type (but for the pings of an idle link, 4 bytes in 30 s)."""
        return dict(self._counters)

    def send(self, to: str, message: Message) -> int:
        """Bytes one copy takes in MQTT packets, all parts together; 0 if it was dropped here, and counted.

        Raises ValueError for a message no peer would take.
        """
        hub = self._hub
        route = topics.route(message, hub.site, self.node, hub.task, to)
        if route.retain:
            self._kept[route.topic] = (to, message, hub.clock.now())
            self._unsent.add(route.topic)
        elif not self.up:
            self._counters["dropped_offline"] += 1
            return 0
        packets = self._packets(to, message, route)
        count = len(packets)
        if self.up:
            if route.retain:
                self._unsent.discard(route.topic)
                packets += [
                    Packet(topics.piece_topic(route.topic, number), b"", 1, True)
                    for number in range(count, self._parts[route.topic])
                ]
                self._parts[route.topic] = count
            sizes = [self._publish(packet) for packet in packets]
            return sum(sizes[:count])
        return sum(packet.size_bytes(True) for packet in packets)

    def listen(self, to: frozenset[tuple[str, str]]) -> None:
        """See `transport.base.Transport`."""
        self._hub.listen(self, to)

    def announce(self, presence: Presence) -> None:
        """Replace what the hub holds about this node; repeated when the link comes back."""
        self.presence = presence
        payload = encode_presence(presence)
        if self.up:
            route = topics.presence_route(self._hub.site, self.node)
            packet = Packet(route.topic, payload, route.qos, route.retain, kind="presence")
            self.took(control.PUBACK_BYTES, self._publish(packet))  # everybody hears the own presence too

    def publish_report(self, report: bytes) -> int:
        """Publish an encoded health report. Bytes of the packet, or 0 without a link."""
        route = topics.health_route(self._hub.site, self.node)
        return self.publish_bytes(route.topic, report, route.qos)

    def publish_bytes(self, topic: str, payload: bytes, qos: int = 1, retain: bool = False) -> int:
        """Publish anything, as a broken or hostile peer would. Bytes of the packet, or 0 without a link."""
        if not self.up:
            self._counters["dropped_offline"] += 1
            return 0
        return self._publish(Packet(topic, payload, qos, retain))

    def leave(self, state: str = "disconnected") -> None:
        """Say goodbye, or good night, and go, as an orderly stop does."""
        if self.up:
            if self.presence is not None:
                self.announce(replace(self.presence, state=state))
            self.took(control.DISCONNECT_BYTES)
            self.link_down("left")

    def took(self, sent_bytes: int, received_bytes: int = 0) -> None:
        """The link carried this beside messages."""
        self._counters["bytes_sent"] += sent_bytes
        self._counters["bytes_received"] += received_bytes

    def _packets(self, to: str, message: Message, route: topics.Route) -> list[Packet]:
        hub = self._hub
        if isinstance(message, (Digest, Pull)):
            return [Packet(route.topic, encode(message), route.qos, route.retain, route.expiry_s or 0)]
        room = payload_limit_bytes(hub.packet_limit_bytes, topics.piece_topic(route.topic, 9999), True)
        if not isinstance(message, Prototypes):
            whole, expiry_s = encode(message), route.expiry_s or 0
            if len(whole) <= room:
                return [Packet(route.topic, whole, route.qos, route.retain, expiry_s)]
            self._serial += 1
            pieces = enumerate(cut(whole, message.epoch, self._serial, room))
            return [
                Packet(
                    topics.piece_topic(route.topic, i if route.retain else 0), data, route.qos, route.retain, expiry_s
                )
                for i, data in pieces
            ]
        packets = []
        for part, data in split_encoded(message, room):
            route = topics.route(part, hub.site, self.node, hub.task, to)
            packets.append(Packet(route.topic, data or encode(part), route.qos, route.retain, route.expiry_s or 0))
        return packets

    def _publish(self, packet: Packet) -> int:
        """Bytes of the packet."""
        parcel, counters = Parcel(self.node, packet), self._counters
        counters["messages_sent"] += 1
        counters["bytes_sent"] += parcel.size_bytes
        if packet.qos:
            counters["bytes_received"] += control.PUBACK_BYTES
        self._hub.publish(self, parcel)
        return parcel.size_bytes

    # ---- called by the hub -----------------------------------------------------------------------------------------

    def link_up(self, session_present: bool = True) -> None:
        """The hub takes the node (back): it is announced, told, and catches up."""
        self.up = True
        self._counters["connects"] += 1
        self.took(control.connect_bytes(self._hub.site, self.node, self.presence), control.CONNACK_BYTES)
        self._hub.catch_up(self)
        if self.presence is not None:
            self.announce(self.presence)
        if not session_present:
            self._unsent.update(self._kept)
        self._listener.on_link(True, "linked")
        for topic, (to, message, born_s) in list(self._kept.items()):
            if self.up and topic in self._unsent:  # not if the listener has just sent something newer
                self.send(to, _aged(message, self._hub.clock.now() - born_s))

    def link_down(self, detail: str) -> None:
        """The link is gone; what is on its way to this node is lost."""
        self.up = False
        self.cuts += 1
        self.up_free_s = self.down_free_s = 0.0
        self._counters["disconnects"] += 1
        self._listener.on_link(False, detail)

    def arrived(self, parcel: Parcel, parsed: topics.Parsed, waited_s: float) -> None:
        """A copy is here."""
        content, size_bytes, counters = self._hub.contents.of(parcel), parcel.size_bytes, self._counters
        counters["messages_received"] += 1
        counters["bytes_received"] += size_bytes
        if parcel.packet.qos:
            counters["bytes_sent"] += control.PUBACK_BYTES
        if isinstance(content, Chunk):
            topic = topics.whole_topic(parcel.packet.topic)
            try:
                whole = self._assembly.add(parsed.node, topic, content, size_bytes, waited_s)
            except WireError as error:
                content = error
            else:
                if whole is None:
                    return
                size_bytes, waited_s = whole.size_bytes, whole.waited_s
                content = self._hub.contents.joined(parsed, topic, content.number, whole.data)
        if isinstance(content, WireError):
            self._counters[f"refused_{content.reason}"] += 1
            self._listener.on_refused(parsed.node, content.reason)
        elif isinstance(content, Presence):
            self._listener.on_presence(content)
        elif content is not None and not isinstance(content, Chunk):
            self._listener.on_message(parsed.node, content, waited_s, size_bytes)

    # ---- to and from a file ------------------------------------------------------------------------------------------

    def dump(self) -> dict[str, Any]:
        """All that is held here, as values."""
        return {
            "kept": dict(self._kept),
            "unsent": sorted(self._unsent),
            "parts": dict(self._parts),
            "listening": sorted(self.listening),
            "counters": dict(self._counters),
            "assembly": self._assembly.dump(),
            **{name: getattr(self, name) for name in _PLAIN},
        }

    def load(self, dumped: dict[str, Any]) -> None:
        """Go on as dumped."""
        self._kept, self._unsent = dict(dumped["kept"]), set(dumped["unsent"])
        self._parts = Counter(dumped["parts"])
        self._counters.update(dumped["counters"])
        self._assembly.load(dumped["assembly"])
        self.listening = frozenset(dumped["listening"])
        for name in _PLAIN:
            setattr(self, name, dumped[name])


_PLAIN = ("presence", "_serial", "up", "cuts", "up_free_s", "down_free_s")


def _aged(message: Message, waited_s: float) -> Message:
    """The message as it is sent late; those that have no age are as good as new."""
    if isinstance(message, (Pull, Bids)):
        return message
    return replace(message, age_s=message.age_s + waited_s)
