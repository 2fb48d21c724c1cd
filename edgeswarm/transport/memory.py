"""A broker in memory for simulations and tests: every message is really encoded, cut, sized and decoded.

Time is the clock that is passed in, chance is the generator that is passed in, so a run repeats exactly. What a broker
does that matters to a strategy is here: retained snapshots and presence for late joiners, wills, links that go down,
and copies that come late, twice, out of order or never. What is not: sessions, so whatever is sent to a node that is
cut off is lost to it, which is worse than most brokers do.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from edgeswarm.errors import WireError
from edgeswarm.messages import Message, Presence, Prototypes
from edgeswarm.transport.base import Listener
from edgeswarm.transport.packet import Packet, payload_limit_bytes
from edgeswarm.transport.presence import GONE, will_of
from edgeswarm.wire import topics
from edgeswarm.wire.codec import decode, encode
from edgeswarm.wire.envelope import DEFAULT_LIMITS, Limits
from edgeswarm.wire.split import split_encoded
from edgeswarm.wire.status import decode_presence, encode_presence


class Clock(Protocol):
    """Seconds that only grow, and appointments (as `agent.clock.Clock`, which lies to the right of here)."""

    def now(self) -> float: ...
    def call_at(self, when: float, callback: Callable[..., None], *args: object) -> None: ...


@dataclass(frozen=True, slots=True)
class Weather:
    """What happens on the way. All copies of a message are treated on their own.

    delay_s: shortest and longest time, drawn evenly.  loss, duplicate: chances in [0, 1] that a copy never arrives, or
    arrives twice.  reorder: copies may overtake one another (a broker keeps the order of each sender).
    will_delay_s: how long a node must be away before the others hear that it is lost.
    """

    delay_s: tuple[float, float] = (0.0, 0.0)
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: bool = False
    will_delay_s: float = 5.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.delay_s[0] <= self.delay_s[1]:
            raise ValueError("delay_s is a shortest and a longest time")
        if not (0.0 <= self.loss <= 1.0 and 0.0 <= self.duplicate <= 1.0):
            raise ValueError("loss and duplicate are chances in [0, 1]")


CALM = Weather()


@dataclass(frozen=True, slots=True)
class _Retained:
    packet: Packet
    sender: str
    born_s: float


class MemoryHub:
    """Where the nodes of one site and task meet. Nothing is delivered before the clock runs.

    on_report(node, encoded report) hears what nodes publish about their health.
    """

    def __init__(
        self,
        clock: Clock,
        rng: random.Random,
        weather: Weather = CALM,
        site: str = "site",
        task: str = "task",
        limits: Limits = DEFAULT_LIMITS,
        packet_limit_bytes: int = 120_000,
        on_report: Callable[[str, bytes], None] | None = None,
    ) -> None:
        self.clock, self.rng, self.weather = clock, rng, weather
        self.site, self.task = topics.valid_name(site, "site"), topics.valid_name(task, "task")
        self.limits, self.packet_limit_bytes, self.on_report = limits, packet_limit_bytes, on_report
        self._members: dict[str, MemoryTransport] = {}
        self._retained: dict[str, _Retained] = {}
        self._last_due_s: dict[tuple[str, str], float] = {}

    def join(self, node: str, listener: Listener) -> MemoryTransport:
        """A linked transport for `node`. Raises ValueError while the name is in use; a cut node may join anew, which
        is what a restarted process does."""
        topics.valid_name(node, "node")
        if node in self._members and self._members[node].up:
            raise ValueError(f"{node} is linked already")
        member = self._members[node] = MemoryTransport(self, node, listener)
        self.clock.call_at(self.clock.now(), member.link_up)
        return member

    def cut(self, node: str) -> None:
        """Break the link of a node, as a power cut or a dead radio does. Its will follows after the will delay."""
        member = self._members[node]
        if member.up:
            member.link_down("cut off")
            when = self.clock.now() + self.weather.will_delay_s
            self.clock.call_at(when, self._speak_will, node, member, member.cuts)

    def heal(self, node: str) -> None:
        """Give a node its link back."""
        if not self._members[node].up:
            self._members[node].link_up()

    def restart(self) -> None:
        """Lose everything retained and all links, then take everybody back: a broker that restarts empty."""
        linked = [member for member in self._members.values() if member.up]
        for member in linked:
            member.link_down("the broker went away")
        self._retained.clear()
        for member in linked:
            member.link_up(session_present=False)

    def _speak_will(self, node: str, member: MemoryTransport, cuts: int) -> None:
        gone = not member.up and member.cuts == cuts and self._members.get(node) is member
        if gone and member.presence is not None:
            route = topics.presence_route(self.site, node)
            payload = encode_presence(will_of(member.presence))
            self.publish(node, Packet(route.topic, payload, route.qos, route.retain, kind="presence"))

    # ---- for MemoryTransport ----------------------------------------------------------------------------------

    def publish(self, sender: str, packet: Packet) -> None:
        """Deliver a packet of `sender` to whoever listens to its topic, and retain it if it says so."""
        if packet.retain:
            if packet.payload:
                self._retained[packet.topic] = _Retained(packet, sender, self.clock.now())
            else:
                self._retained.pop(packet.topic, None)
        parsed = topics.parse(packet.topic)
        if parsed is None:
            return
        if parsed.channel == "health":
            if self.on_report is not None:
                self.on_report(sender, packet.payload)
            return
        message = self._read(packet, parsed)
        for name, member in self._members.items():
            # whoever is not linked yet gets what is retained when it is
            if member.up and name != sender and (parsed.channel != "inbox" or name == parsed.to):
                self._deliver(member, packet, parsed, message, 0.0)

    def retained_for(self, member: MemoryTransport) -> None:
        """Give a new link everything retained that is not its own and has not expired."""
        now = self.clock.now()
        for kept in list(self._retained.values()):
            waited_s = now - kept.born_s
            if kept.packet.expiry_s and waited_s >= kept.packet.expiry_s:
                self._retained.pop(kept.packet.topic)
                continue
            parsed = topics.parse(kept.packet.topic)
            if parsed is not None and kept.sender != member.node:
                self._deliver(member, kept.packet, parsed, self._read(kept.packet, parsed), waited_s)

    def _read(self, packet: Packet, parsed: topics.Parsed) -> Message | Presence | WireError | None:
        """What the packet says, why it cannot be read, or None for a withdrawal. Read once for all receivers."""
        try:
            if parsed.channel == "state":
                gone = Presence(parsed.node, GONE, 0, "")
                return decode_presence(parsed.node, packet.payload) if packet.payload else gone
            return decode(packet.payload, self.limits) if packet.payload else None
        except WireError as error:
            return error

    def _deliver(
        self,
        member: MemoryTransport,
        packet: Packet,
        parsed: topics.Parsed,
        content: Message | Presence | WireError | None,
        waited_s: float,
    ) -> None:
        weather, rng = self.weather, self.rng
        presence = parsed.channel == "state"
        # presence is never lost or doubled: without it a simulation could not tell its nodes apart from dead ones
        copies = 1 if presence else int(rng.random() >= weather.loss)
        if copies and not presence and rng.random() < weather.duplicate:
            copies = 2
        for _ in range(copies):
            due_s = self.clock.now() + rng.uniform(*weather.delay_s)
            if not weather.reorder:
                pair = (parsed.node, member.node)
                due_s = self._last_due_s[pair] = max(due_s, self._last_due_s.get(pair, 0.0))
            self.clock.call_at(due_s, member.arrive, member.cuts, packet, parsed, content, waited_s)


class MemoryTransport:
    """One node's end of a MemoryHub; a `transport.base.Transport`. Counters are named as in `MqttTransport`."""

    def __init__(self, hub: MemoryHub, node: str, listener: Listener) -> None:
        self._hub, self._listener, self.node = hub, listener, node
        self._kept: dict[str, tuple[str, Prototypes, float]] = {}
        self._unsent: set[str] = set()
        self._parts: Counter[str] = Counter()
        self.presence: Presence | None = None
        self.up = False
        self.cuts = 0
        names = ("connects", "disconnects", "bytes_sent", "bytes_received", "messages_sent", "messages_received")
        self._counters: Counter[str] = Counter(dict.fromkeys(names, 0))

    @property
    def counters(self) -> dict[str, int]:
        """Totals since it joined: messages and bytes of whole MQTT 5 packets both ways, drops, refusals by reason."""
        return dict(self._counters)

    def send(self, to: str, message: Message) -> int:
        """Bytes one copy takes in MQTT packets, all parts together; 0 if it was dropped here, and counted.

        Raises ValueError for a message no peer would take.
        """
        hub = self._hub
        route = topics.route(message, hub.site, self.node, hub.task, to)
        if isinstance(message, Prototypes) and route.retain:
            self._kept[route.topic] = (to, message, hub.clock.now())
            self._unsent.add(route.topic)
        elif not self.up:
            self._counters["dropped_offline"] += 1
            return 0
        packets = self._packets(to, message, route.topic)
        if self.up:
            self._unsent.discard(route.topic)
            if route.retain:
                count = sum(1 for packet in packets if packet.payload)
                packets += [
                    Packet(f"{route.topic}_{number}", b"", 1, True) for number in range(count, self._parts[route.topic])
                ]
                self._parts[route.topic] = count
            for packet in packets:
                self._publish(packet)
        return sum(packet.size_bytes(True) for packet in packets if packet.payload)

    def announce(self, presence: Presence) -> None:
        """Replace what the hub holds about this node; repeated when the link comes back."""
        self.presence = presence
        payload = encode_presence(presence)
        if self.up:
            route = topics.presence_route(self._hub.site, self.node)
            self._publish(Packet(route.topic, payload, route.qos, route.retain, kind="presence"))

    def publish_report(self, report: bytes) -> int:
        """Publish an encoded health report. Bytes of the packet, or 0 without a link."""
        route = topics.health_route(self._hub.site, self.node)
        return self.publish_bytes(route.topic, report, route.qos)

    def publish_bytes(self, topic: str, payload: bytes, qos: int = 1, retain: bool = False) -> int:
        """Publish anything, as a broken or hostile peer would. Bytes of the packet, or 0 without a link."""
        if not self.up:
            self._counters["dropped_offline"] += 1
            return 0
        packet = Packet(topic, payload, qos, retain)
        self._publish(packet)
        return packet.size_bytes(True)

    def leave(self) -> None:
        """Say goodbye and go, as an orderly stop does."""
        if self.up:
            if self.presence is not None:
                self.announce(replace(self.presence, state="disconnected"))
            self.link_down("left")

    def _packets(self, to: str, message: Message, topic: str) -> list[Packet]:
        hub = self._hub
        parts: list[tuple[Message, bytes]] = [(message, b"")]
        if isinstance(message, Prototypes):
            parts = list(split_encoded(message, payload_limit_bytes(hub.packet_limit_bytes, topic + "_9999", True)))
        packets = []
        for part, data in parts:
            route = topics.route(part, hub.site, self.node, hub.task, to)
            packets.append(Packet(route.topic, data or encode(part), route.qos, route.retain, route.expiry_s or 0))
        return packets

    def _publish(self, packet: Packet) -> None:
        self._counters["messages_sent"] += 1
        self._counters["bytes_sent"] += packet.size_bytes(True)
        self._hub.publish(self.node, packet)

    # ---- called by the hub -----------------------------------------------------------------------------------------

    def link_up(self, session_present: bool = True) -> None:
        """The hub takes the node (back): it is announced, told, and catches up."""
        self.up = True
        self._counters["connects"] += 1
        self._hub.retained_for(self)
        if self.presence is not None:
            self.announce(self.presence)
        if not session_present:
            self._unsent.update(self._kept)
        self._listener.on_link(True, "linked")
        for topic, (to, message, born_s) in list(self._kept.items()):
            if self.up and topic in self._unsent:  # not if the listener has just sent something newer
                self.send(to, replace(message, age_s=message.age_s + self._hub.clock.now() - born_s))

    def link_down(self, detail: str) -> None:
        """The link is gone; what is on its way to this node is lost."""
        self.up = False
        self.cuts += 1
        self._counters["disconnects"] += 1
        self._listener.on_link(False, detail)

    def arrive(
        self,
        cuts: int,
        packet: Packet,
        parsed: topics.Parsed,
        content: Message | Presence | WireError | None,
        waited_s: float,
    ) -> None:
        """A copy has come. cuts: how often this node had been cut off when the copy set out."""
        if not self.up or cuts != self.cuts:
            return
        size = packet.size_bytes(True)
        self._counters["messages_received"] += 1
        self._counters["bytes_received"] += size
        if isinstance(content, WireError):
            self._counters[f"refused_{content.reason}"] += 1
            self._listener.on_refused(parsed.node, content.reason)
        elif isinstance(content, Presence):
            self._listener.on_presence(content)
        elif content is not None:
            self._listener.on_message(parsed.node, content, waited_s, size)
