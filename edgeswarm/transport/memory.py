"""A broker in memory for simulations and tests: every message is really encoded, cut, sized and decoded.

Time is the clock that is passed in, chance is the generator that is passed in, so a run repeats exactly. What a broker
does that matters to a strategy is here: retained snapshots and presence for late joiners, wills, links that go down or
are slow, bridged brokers that lose one another, and copies that come late, twice, out of order or never. What is not:
sessions, so whatever is sent to a node that is cut off is lost to it, which is worse than most brokers do.

A message costs what its receivers cost: who hears a node is looked up, never searched for among all nodes.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import Any, Protocol

from edgeswarm.errors import WireError
from edgeswarm.messages import Bids, Digest, Message, Presence, Prototypes, Pull
from edgeswarm.transport import control
from edgeswarm.transport.base import Listener
from edgeswarm.transport.packet import Packet, payload_limit_bytes
from edgeswarm.transport.presence import GONE, will_of
from edgeswarm.transport.retained import UNREAD, Kept, Parcel, Retained
from edgeswarm.transport.weather import CALM, WIRE, AccessLink, Weather
from edgeswarm.wire import topics
from edgeswarm.wire.chunks import Assembly, Chunk, cut, is_chunk
from edgeswarm.wire.chunks import read as read_chunk
from edgeswarm.wire.codec import decode, encode
from edgeswarm.wire.envelope import DEFAULT_LIMITS, Limits
from edgeswarm.wire.split import split_encoded
from edgeswarm.wire.status import decode_presence, encode_presence

__all__ = ["CALM", "AccessLink", "MemoryHub", "MemoryTransport", "Weather"]

Content = Message | Presence | Chunk | WireError | None
_TO_ALL = ("state", "proto", "all")
"""Channels that reach everybody who has the sender in its circle."""


class Clock(Protocol):
    """Seconds that only grow, and appointments (as `agent.clock.Clock`, which lies to the right of here)."""

    def now(self) -> float: ...
    def call_at(self, when: float, callback: Callable[..., None], *args: object) -> None: ...


class MemoryHub:
    """Where the nodes of one site and task meet. Nothing is delivered before the clock runs.

    links: what each node's link is like, by name; `WIRE` for one that is not named. May be changed at any time.
    set_out, came, missed: copies on their way to a node, that arrived, and that found it cut off.
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
        self.links: dict[str, AccessLink] = {}
        self.retained = Retained()
        self.set_out = self.came = self.missed = 0
        self.members: dict[str, MemoryTransport] = {}
        # Names only, in the order in which they came, so that a run does not depend on how a set is ordered.
        self._everybody: dict[str, None] = {}
        self._circles: dict[str, dict[str, None]] = {}
        self._listening: dict[tuple[str, str], dict[str, None]] = {}
        self._last_due_s: dict[tuple[str, str], float] = {}
        self._joined: tuple[tuple[Any, ...], bytes, Content] = ((), b"", None)

    # ---- nodes come and go -------------------------------------------------------------------------------------------

    def join(self, node: str, listener: Listener, circle: Collection[str] | None = None) -> MemoryTransport:
        """A linked transport for `node`. Raises ValueError while the name is in use; a cut node may join anew, which
        is what a restarted process does.

        circle: whose presence, prototypes and words to all reach it; None for everybody's.
        """
        topics.valid_name(node, "node")
        before = self.members.get(node)
        if before is not None:
            if before.up:
                raise ValueError(f"{node} is linked already")
            self.listen(before, frozenset())
            self._everybody.pop(node, None)
            for other in before.circle or ():
                self._circles[other].pop(node, None)
        member = self.members[node] = MemoryTransport(self, node, listener, circle)
        member.cuts = 0 if before is None else before.cuts + 1
        if circle is None:
            self._everybody[node] = None
        for other in sorted(circle or ()):
            self._circles.setdefault(other, {})[node] = None
        self.clock.call_at(self.clock.now(), self.take, node, member.cuts)
        return member

    def cut(self, node: str) -> None:
        """Break the link of a node, as a power cut or a dead radio does. Its will follows after the will delay."""
        member = self.members[node]
        if member.up:
            member.link_down("cut off")
            when = self.clock.now() + self.weather.will_delay_s
            self.clock.call_at(when, self.speak_will, node, member.cuts)
        else:
            member.cuts += 1

    def heal(self, node: str) -> None:
        """Give a node its link back."""
        if not self.members[node].up:
            self.members[node].link_up()

    def restart(self, keep_retained: bool = False) -> None:
        """Lose all links, then take everybody back: a broker that restarts, empty unless it kept what was retained."""
        linked = [member for member in self.members.values() if member.up]
        for member in linked:
            member.link_down("the broker went away")
        if not keep_retained:
            self.retained.clear()
        for member in linked:
            member.link_up(session_present=keep_retained)

    def partition(self, groups: Iterable[Collection[str]]) -> None:
        """From now on a node hears those of its own group alone, and those in no group each other: brokers that have
        lost the bridge between them. Replaces an earlier division, which is healed first."""
        self.join_sides()
        self.retained.divide(groups)

    def join_sides(self) -> None:
        """Heal the division: bridges exchange what is retained."""
        side_of = {node: self.retained.side(node) for node in self.members}
        news = self.retained.unite()
        if len(news) > 1:
            for node, member in self.members.items():
                if member.up:
                    for owner, kept in news[side_of[node]].items():
                        self._catch_up(member, owner, kept.values())

    def take(self, node: str, cuts: int) -> None:
        """Link a node that has joined, unless it was cut off since."""
        member = self.members[node]
        if not member.up and member.cuts == cuts:
            member.link_up()

    def speak_will(self, node: str, cuts: int) -> None:
        """Tell the others that a node is lost, unless it has come back."""
        member = self.members[node]
        if not member.up and member.cuts == cuts and member.presence is not None:
            route = topics.presence_route(self.site, node)
            payload = encode_presence(will_of(member.presence))
            self.relay(Parcel(node, Packet(route.topic, payload, route.qos, route.retain, kind="presence")), cuts)

    # ---- messages ----------------------------------------------------------------------------------------------------

    def publish(self, member: MemoryTransport, parcel: Parcel) -> None:
        """Take a packet up the link of `member`."""
        link = self.links.get(member.node, WIRE)
        presence = parcel.parsed is not None and parcel.parsed.channel == "state"
        due_s = self.clock.now()
        if link.uplink_bytes_per_s:
            due_s = member.up_free_s = max(due_s, member.up_free_s) + parcel.size_bytes / link.uplink_bytes_per_s
        due_s += link.latency_s
        for _ in range(1 if presence else self._copies(link.loss, link.duplicate)):
            if due_s > self.clock.now():
                self.clock.call_at(due_s, self.relay, parcel, member.cuts)
            else:
                self.relay(parcel, member.cuts)

    def relay(self, parcel: Parcel, cuts: int) -> None:
        """What the broker does with a packet that has reached it: keep it if it says so, hand it to whoever listens.

        cuts: how often the sender had been cut off when it set out; what was on its way then never comes. A goodbye
        does: whoever goes in order waits for it.
        """
        packet, parsed = parcel.packet, parcel.parsed
        if cuts != self.members[parcel.sender].cuts and (parsed is None or parsed.channel != "state"):
            return
        if packet.retain:
            self.retained.put(parcel, self.clock.now())
        if parsed is None:
            return
        if parsed.channel == "health":
            if self.on_report is not None:
                self.on_report(parcel.sender, packet.payload)
            return
        side = self.retained.side(parcel.sender)
        for name in self._hearers(parsed):
            # whoever is not linked yet gets what is retained when it is
            member = self.members[name]
            if member.up and name != parcel.sender and self.retained.side(name) == side:
                self._deliver(member, parcel, 0.0)

    def listen(self, member: MemoryTransport, to: frozenset[tuple[str, str]]) -> None:
        """See `transport.base.Transport.listen`."""
        gone, new = sorted(member.listening - to), sorted(to - member.listening)
        for pair in gone:
            self._listening[pair].pop(member.node)
        member.listening = to
        for pair in new:
            self._listening.setdefault(pair, {})[member.node] = None
        if member.up:
            for pair in gone:
                member.took(*control.unsubscribe_bytes(self._filters([pair])))
            member.took(*control.subscribe_bytes(self._filters(new)))
            self._catch_up_on(member, new)

    def _filters(self, pairs: Iterable[tuple[str, str]]) -> list[str]:
        """What a node asks a broker for, to hear these peers and channels."""
        return [name for pair in pairs for name, _ in topics.listen_filters(self.site, self.task, *pair)]

    def catch_up(self, member: MemoryTransport) -> None:
        """Give a new link everything retained that it hears, is not its own and has not expired."""
        asked = [name for name, _ in topics.subscriptions(self.site, member.node, self.task)]
        member.took(*control.subscribe_bytes(asked + self._filters(sorted(member.listening))))
        owners = list(self.retained.owners(member.node)) if member.circle is None else sorted(member.circle)
        for owner in owners:
            kept = self.retained.of(member.node, owner, self.clock.now())
            self._catch_up(member, owner, [each for each in kept if _reaches_all(each)])
        self._catch_up_on(member, sorted(member.listening))

    def _catch_up_on(self, member: MemoryTransport, pairs: Iterable[tuple[str, str]]) -> None:
        """What is retained of these peers and channels."""
        for owner, channel in pairs:
            kept = self.retained.of(member.node, owner, self.clock.now())
            self._catch_up(member, owner, [each for each in kept if _wanted(each) == (owner, channel)])

    def _catch_up(self, member: MemoryTransport, owner: str, found: Iterable[Kept]) -> None:
        for kept in found:
            parcel = kept.parcel
            if parcel.sender == member.node or parcel.parsed is None:
                continue
            pair = parcel.parsed.wanted
            if (pair in member.listening) if pair else (member.circle is None or owner in member.circle):
                self._deliver(member, parcel, self.clock.now() - kept.born_s)

    def _hearers(self, parsed: topics.Parsed) -> Iterable[str]:
        """Names of whoever may hear a topic."""
        if parsed.channel == "inbox":
            return (parsed.to,) if parsed.to in self.members else ()
        if parsed.channel in _TO_ALL:
            near = self._circles.get(parsed.node)
            return (*self._everybody, *near) if near else self._everybody
        pair = parsed.wanted
        return self._listening.get(pair, ()) if pair else ()

    def _copies(self, loss: float, duplicate: float) -> int:
        if loss and self.rng.random() < loss:
            return 0
        return 2 if duplicate and self.rng.random() < duplicate else 1

    def _deliver(self, member: MemoryTransport, parcel: Parcel, waited_s: float) -> None:
        """Send copies down the link of `member`."""
        weather, link, now = self.weather, self.links.get(member.node, WIRE), self.clock.now()
        presence = parcel.parsed is not None and parcel.parsed.channel == "state"
        # presence is never lost or doubled: without it a simulation could not tell its nodes apart from dead ones
        copies = 1 if presence else self._copies(weather.loss, weather.duplicate)
        if copies and not presence and link is not WIRE:
            copies = sum(self._copies(link.loss, link.duplicate) for _ in range(copies))
        for _ in range(copies):
            due_s = now + link.latency_s
            if weather.delay_s[1]:
                due_s += self.rng.uniform(*weather.delay_s)
            if link.downlink_bytes_per_s:
                start_s = max(due_s, member.down_free_s)
                due_s = member.down_free_s = start_s + parcel.size_bytes / link.downlink_bytes_per_s
            if (presence or not weather.reorder) and (due_s > now or self._last_due_s):  # a topic keeps its order
                pair = (parcel.sender, member.node)
                due_s = self._last_due_s[pair] = max(due_s, self._last_due_s.get(pair, 0.0))
            self.set_out += 1
            self.clock.call_at(due_s, self.arrive, member.node, member.cuts, parcel, waited_s)

    def arrive(self, node: str, cuts: int, parcel: Parcel, waited_s: float) -> None:
        """A copy has come. cuts: how often the node had been cut off when the copy set out."""
        member = self.members[node]
        if not member.up or cuts != member.cuts or parcel.parsed is None:
            self.missed += 1
        else:
            self.came += 1
            member.arrived(parcel, parcel.parsed, waited_s)

    def content(self, parcel: Parcel) -> Content:
        """What a packet says, why it cannot be read, or None for a withdrawal."""
        if parcel.content is UNREAD:
            parcel.content = self._decoded(parcel)
        found: Content = parcel.content
        return found

    def _decoded(self, parcel: Parcel) -> Content:
        payload, parsed = parcel.packet.payload, parcel.parsed
        try:
            if parsed is not None and is_chunk(payload):
                chunk = read_chunk(payload, self.limits)
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
        message = decode(data, self.limits)
        try:
            route = topics.route(message, self.site, parsed.node, self.task, parsed.to)
        except ValueError:
            route = None
        if route is None or route.topic != topic:
            raise WireError("misrouted", f"a {type(message).__name__} does not belong on {topic}")
        return message

    # ---- to and from a file ------------------------------------------------------------------------------------------

    def dump(self) -> dict[str, Any]:
        """All that is held here but for appointments, as values."""
        return {
            "rng": self.rng.getstate(),
            "weather": self.weather,
            "links": dict(self.links),
            "retained": self.retained.dump(),
            "members": {node: member.dump() for node, member in self.members.items()},
            "everybody": list(self._everybody),
            "circles": {node: list(near) for node, near in self._circles.items()},
            "listening": {pair: list(near) for pair, near in self._listening.items()},
            "last_due_s": dict(self._last_due_s),
            "copies": (self.set_out, self.came, self.missed),
        }

    def load(self, dumped: dict[str, Any]) -> None:
        """Go on as dumped, with the members that have joined."""
        self.rng.setstate(dumped["rng"])
        self.weather, self.links = dumped["weather"], dict(dumped["links"])
        self.retained.load(dumped["retained"])
        self.members = {node: self.members[node] for node in dumped["members"]}
        for node, held in dumped["members"].items():
            self.members[node].load(held)
        self._everybody = dict.fromkeys(dumped["everybody"])
        self._circles = {node: dict.fromkeys(near) for node, near in dumped["circles"].items()}
        self._listening = {pair: dict.fromkeys(near) for pair, near in dumped["listening"].items()}
        self._last_due_s = dict(dumped["last_due_s"])
        self.set_out, self.came, self.missed = dumped["copies"]


class MemoryTransport:
    """One node's end of a MemoryHub; a `transport.base.Transport`. Counters are named as in `MqttTransport`.

    circle: see `MemoryHub.join`.  cuts: how often the link was lost.  listening: what `listen` asked for last.
    up_free_s, down_free_s: when all that waits for the link will have gone through.
    """

    def __init__(self, hub: MemoryHub, node: str, listener: Listener, circle: Collection[str] | None = None) -> None:
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
        if self.up:
            self._unsent.discard(route.topic)
            if route.retain:
                packets += [
                    Packet(topics.piece_topic(route.topic, number), b"", 1, True)
                    for number in range(len(packets), self._parts[route.topic])
                ]
                self._parts[route.topic] = sum(1 for packet in packets if packet.payload)
            for packet in packets:
                self._publish(packet)
        return sum(packet.size_bytes(True) for packet in packets if packet.payload)

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
            self._publish(packet)
            self.took(control.PUBACK_BYTES, packet.size_bytes(True))  # everybody hears the own presence too

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

    def _publish(self, packet: Packet) -> None:
        parcel = Parcel(self.node, packet)
        self._counters["messages_sent"] += 1
        self.took(parcel.size_bytes, control.PUBACK_BYTES if packet.qos else 0)
        self._hub.publish(self, parcel)

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
        self._counters["messages_received"] += 1
        self.took(control.PUBACK_BYTES if parcel.packet.qos else 0, parcel.size_bytes)
        content, size_bytes = self._hub.content(parcel), parcel.size_bytes
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
                content = self._hub.joined(parsed, topic, content.number, whole.data)
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


def _wanted(kept: Kept) -> tuple[str, str] | None:
    return None if kept.parcel.parsed is None else kept.parcel.parsed.wanted


def _reaches_all(kept: Kept) -> bool:
    return kept.parcel.parsed is not None and kept.parcel.parsed.channel in _TO_ALL
