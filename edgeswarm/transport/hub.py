"""A broker in memory for simulations and tests: it keeps, relays and loses messages as a real one and its links do.

Time is the clock that is passed in, chance is the generator that is passed in, so a run repeats exactly. What a broker
does that matters to a strategy is here: retained snapshots and presence for late joiners, wills, links that go down or
are slow, bridged brokers that lose one another, and copies that come late, twice, out of order or never. What is not:
sessions, so whatever is sent to a node that is cut off is lost to it, which is worse than most brokers do.

A message costs what its receivers cost: who hears a node is looked up, never searched for among all nodes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable
from typing import Any

from edgeswarm.transport import control
from edgeswarm.transport.base import Listener
from edgeswarm.transport.memory import Clock, MemoryTransport
from edgeswarm.transport.packet import Packet
from edgeswarm.transport.parcel import Contents, Parcel
from edgeswarm.transport.presence import will_of
from edgeswarm.transport.retained import Kept, Retained
from edgeswarm.transport.weather import CALM, WIRE, AccessLink, Weather
from edgeswarm.wire import topics
from edgeswarm.wire.envelope import DEFAULT_LIMITS, Limits
from edgeswarm.wire.status import encode_presence

_TO_ALL = ("state", "proto", "all")
"""Channels that reach everybody who has the sender in its circle."""


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
        self.contents = Contents(self.site, self.task, limits)
        self.retained = Retained()
        self.set_out = self.came = self.missed = 0
        self._divided = 0
        self._divisions: dict[int, dict[str, int]] = {}
        self.members: dict[str, MemoryTransport] = {}
        # Names only, in the order in which they came, so that a run does not depend on how a set is ordered.
        self._everybody: dict[str, None] = {}
        self._circles: dict[str, dict[str, None]] = {}
        self._listening: dict[tuple[str, str], dict[str, None]] = {}
        self._last_due_s: dict[tuple[str, str], float] = {}

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

    def cut(self, node: str, will_delay_s: float | None = None) -> None:
        """Break the link of a node, as a power cut or a dead radio does. Its will follows after the will delay: that
        of the weather, unless another is given."""
        member = self.members[node]
        if member.up:
            member.link_down("cut off")
            delay_s = self.weather.will_delay_s if will_delay_s is None else will_delay_s
            self.clock.call_at(self.clock.now() + delay_s, self.speak_will, node, member.cuts)
        elif not member.counters["connects"]:  # its first link is under way; of a lost one, only the will
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

    def partition(self, groups: Iterable[Collection[str]]) -> int:
        """Divide the site: each group has a broker of its own, without a bridge to the others, and so have those in no
        group together. Divisions under way at once compose: a node hears those that none of them parts it from.
        Returns the number of this one, for `join_sides`."""
        self._divided += 1
        self._divisions[self._divided] = {node: place for place, group in enumerate(groups, 1) for node in group}
        self._divide()
        return self._divided

    def join_sides(self, number: int | None = None) -> None:
        """End that division if it is still under way, or all of them: bridges exchange what is retained."""
        if number is None:
            self._divisions.clear()
        else:
            self._divisions.pop(number, None)
        self._divide()

    def _divide(self) -> None:
        """Nodes that no division parts are on one side. Whoever is linked is told what its side had not heard."""
        divisions = list(self._divisions.values())
        sides = {(0,) * len(divisions): 0}
        side_of: dict[str, int] = {}
        for node in dict.fromkeys(node for division in divisions for node in division):
            places = tuple(division.get(node, 0) for division in divisions)
            side_of[node] = sides.setdefault(places, len(sides))
        news = self.retained.divide(side_of)
        for node, member in self.members.items():
            if member.up:
                for owner, kept in news(node).items():
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
        if link is WIRE:
            self.relay(parcel, member.cuts)
            return
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
        asked = [name for name, _ in topics.subscriptions(self.site, member.node, self.task, member.circle)]
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
        if weather is CALM and link is WIRE and not self._last_due_s:  # nothing can happen on the way
            self.set_out += 1
            self.clock.call_at(now, self.arrive, member.node, member.cuts, parcel, waited_s)
            return
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

    # ---- to and from a file ------------------------------------------------------------------------------------------

    def dump(self) -> dict[str, Any]:
        """All that is held here but for appointments, as values."""
        return {
            "rng": self.rng.getstate(),
            "weather": self.weather,
            "links": dict(self.links),
            "retained": self.retained.dump(),
            "divisions": (self._divided, dict(self._divisions)),
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
        self._divided, self._divisions = dumped["divisions"]
        self.members = {node: self.members[node] for node in dumped["members"]}
        for node, held in dumped["members"].items():
            self.members[node].load(held)
        self._everybody = dict.fromkeys(dumped["everybody"])
        self._circles = {node: dict.fromkeys(near) for node, near in dumped["circles"].items()}
        self._listening = {pair: dict.fromkeys(near) for pair, near in dumped["listening"].items()}
        self._last_due_s = dict(dumped["last_due_s"])
        self.set_out, self.came, self.missed = dumped["copies"]


def _wanted(kept: Kept) -> tuple[str, str] | None:
    return None if kept.parcel.parsed is None else kept.parcel.parsed.wanted


def _reaches_all(kept: Kept) -> bool:
    return kept.parcel.parsed is not None and kept.parcel.parsed.channel in _TO_ALL
