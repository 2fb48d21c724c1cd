"""Messages over MQTT: connect for ever, announce, publish what is new, hand on what arrives.

Learning never waits for the broker: `send` and `announce` return at once, and while the broker is away only the newest
snapshot and presence are kept. Everything else is dropped and counted, since the strategy is told when the link is
back and then says what is true by that time. MQTT 5 is spoken first, 3.1.1 with brokers that know no better.

Models, predictions and bids are subscribed to peer by peer, as `listen` says. A broker that remembers a session may
hold subscriptions that we do not know, of an earlier process or given up while the link was down: the first message
that comes by one of them ends it.

Sessions: under MQTT 5 the broker remembers us for `session_expiry_s`, so a short break loses nothing and a quick
return takes the will back. Under 3.1.1, where a session would last for ever, each connect starts a new one; retained
snapshots, digests and pulls then bring back what was missed.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from dataclasses import dataclass, replace
from types import TracebackType

from edgeswarm.errors import EXIT_NOT_CONNECTED, EXIT_REFUSED, ConfigError, TransportError
from edgeswarm.messages import Message, Presence
from edgeswarm.transport import presence as own
from edgeswarm.transport.backoff import backoff_s
from edgeswarm.transport.base import Listener
from edgeswarm.transport.dial import ClockFault, dial
from edgeswarm.transport.inbound import Inbound, RawCallback
from edgeswarm.transport.link import (
    PACKET_TOO_LARGE,
    SESSION_TAKEN_OVER,
    SUCCESS,
    UNSUPPORTED_PROTOCOL,
    Goodbye,
    Hello,
    Link,
    Subscription,
    Welcome,
    Will,
)
from edgeswarm.transport.outgoing import Outgoing
from edgeswarm.transport.packet import Packet
from edgeswarm.transport.settings import Address, MqttSettings
from edgeswarm.wire import topics
from edgeswarm.wire.envelope import DEFAULT_LIMITS, Limits
from edgeswarm.wire.status import encode_presence

_STABLE_S = 60.0
"""A link that lasted this long was a good one: the next break is met with the shortest delay again."""
_CLOCK_WAIT_S = 5.0
_MOST_DUPLICATE_WAIT_S = 600.0
_FLUSH_S = 2.0
_MOST_LET_GO = 4096
"""Pairs unsubscribed from over one link: a broker that leaks what others asked for has no end of them."""
_SUSPECT_BYTES = 1024
"""A packet below this is never blamed for a lost link."""
_REFUSALS = (0x85, 0x86, 0x87, 0x8A, 0x8C)
"""Reason codes that only a person can do something about: client identifier, user name or password, not authorised,
banned, authentication method."""


@dataclass(frozen=True, slots=True)
class _End:
    """How an attempt ended. why: refused, failed, clock, duplicate, again (at once: our own wish) or lost.

    up_s: seconds for which it was a working link.
    """

    why: str
    up_s: float = 0.0


class MqttTransport:
    """A `transport.base.Transport` over one of several brokers, driven by the running asyncio event loop.

    With `settings.node` empty it is an observer: it hears presence and whatever `subscribe_raw` asks for.
    `failure` says why the last attempt failed; None while connected and before the first attempt.
    """

    def __init__(
        self, settings: MqttSettings, listener: Listener, rng: random.Random, limits: Limits = DEFAULT_LIMITS
    ) -> None:
        """rng: for the jitter of reconnects.  limits: for what peers send. Raises ConfigError."""
        settings.check()
        self._settings, self._listener, self._rng = settings, listener, rng
        self._addresses = settings.addresses()
        self._counters: Counter[str] = Counter()
        self._inbound = Inbound(settings, listener, limits, self._counters, self._on_own_presence, self._on_unasked)
        self._outgoing = Outgoing(settings, self._counters)
        self._presence: Presence | None = None
        self._will_for: Presence | None = None
        self._link: Link | None = None
        self._up = False
        self._turn = 0
        self._speaks_v5: dict[Address, bool] = {}
        self._closed_early: Counter[Address] = Counter()
        self._learnt_limit_bytes: dict[Address, int] = {}
        self._announced_to: set[Address] = set()
        self._said_before = False
        self._waited_for: set[str] = set()
        self._let_go: set[tuple[str, str]] = set()
        self._suspect = ""
        self._renewing = False
        self._clashed = False
        self._heard_itself = False
        self._told: tuple[bool, str] | None = None
        self._changed = asyncio.Event()
        self._stopping = asyncio.Event()
        self._attempt: asyncio.Task[_End] | None = None
        self._running: asyncio.Task[None] | None = None
        self.failure: TransportError | None = None

    # ---- what the agent calls -----------------------------------------------------------------------------------

    def send(self, to: str, message: Message) -> int:
        """Bytes that one copy takes in MQTT packets, all parts together; 0 if it was dropped here, and counted.

        Never blocks. Without a link only snapshots to everyone are kept. Raises ValueError for a message no peer would
        take, such as a pull to everyone.
        """
        return self._outgoing.send(to, message)

    def listen(self, to: frozenset[tuple[str, str]]) -> None:
        """Hear of these peers' models, predictions and bids from now on, and of no others: (peer, channel).

        Subscribes to what is new and unsubscribes from what is not wanted any more; repeated on every reconnect.
        Raises ValueError: no such channel.
        """
        before = self._inbound.listening
        wanted = frozenset(pair for pair in to if pair[0] != self._settings.node)
        added = self._listen_subscriptions(wanted - before)
        self._inbound.listening = wanted
        if self._link is not None and self._up:
            for pair in sorted(before - wanted):
                self._let_go_of(pair)
            self._let_go -= wanted
            self._link.subscribe(added)

    def announce(self, presence: Presence) -> None:
        """Replace what the broker holds about this node, now and after every reconnect.

        A new epoch or instance needs a new last will, and MQTT takes one at connect only: the link is then renewed.
        Raises ValueError for a presence nobody could read.
        """
        if not self._settings.node:
            raise ValueError("an observer has no presence")
        encode_presence(presence)
        self._presence = presence
        if self._up:
            if own.same_life(presence, self._will_for):
                self._put_presence(presence)
            else:
                self._renewing = True
                self._disconnect_soon()

    def publish_report(self, report: bytes) -> int:
        """Publish an encoded health report, QoS 0. Bytes of the packet, or 0 if there is no link (nothing is kept)."""
        route = topics.health_route(self._settings.site, self._settings.node)
        return self._put(Packet(route.topic, report, route.qos, route.retain, route.expiry_s or 0, kind="report"))

    def publish_raw(self, topic: str, payload: bytes, qos: int = 0, retain: bool = False) -> int:
        """Publish any payload to any topic. Bytes of the packet, or 0 if it was dropped here (no link, too large)."""
        return self._put(Packet(topic, payload, qos, retain))

    def subscribe_raw(self, topic_filter: str, qos: int, callback: RawCallback) -> None:
        """Hand every message that matches to `callback(topic, payload, retained)`, now and after every reconnect."""
        self._inbound.add_raw(topic_filter, qos, callback)
        if self._link is not None and self._up:
            self._link.subscribe([Subscription(topic_filter, qos)])

    @property
    def up(self) -> bool:
        """Whether a broker has accepted us and the link is not known to be lost."""
        return self._up

    @property
    def heard_itself(self) -> bool:
        """Whether the broker has delivered our own announcement over the present link. A subscription that the access
        rules forbid is granted all the same, so this is the only sign that we can hear anything at all."""
        return self._up and self._heard_itself

    @property
    def counters(self) -> dict[str, int]:
        """Totals since the start: connects, disconnects, bytes and messages both ways, and everything dropped or
        refused, by reason. Bytes are those of whole MQTT packets of every type, before encryption."""
        counters = Counter(self._counters)
        for name in ("connects", "disconnects", "bytes_sent", "bytes_received", "messages_sent", "messages_received"):
            counters[name] += 0
        if self._link is not None:
            counters["bytes_sent"] += self._link.sent_bytes
            counters["bytes_received"] += self._link.received_bytes
        return dict(counters)

    # ---- life ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Stay connected until `stop` is called. Cancelling it ends the link without a word: peers hear the will."""
        attempt = clashes = 0
        while not self._stopping.is_set():
            address = self._addresses[self._turn % len(self._addresses)]
            self._attempt = asyncio.ensure_future(self._connection(address))
            try:
                end = await self._attempt
            except asyncio.CancelledError:
                if self._stopping.is_set():
                    return
                raise
            finally:
                self._attempt = None
            if end.up_s >= _STABLE_S:
                attempt = clashes = 0
            if end.why == "again" or (end.why in ("failed", "refused", "clock") and self._next_address()):
                continue
            if end.why == "duplicate":
                least_s = min(_MOST_DUPLICATE_WAIT_S, self._settings.duplicate_wait_s * 2.0 ** min(clashes, 10))
                wait_s = self._rng.uniform(least_s, 1.5 * least_s)
                clashes += 1
            else:
                most_s = self._settings.most_wait_s
                if end.why == "clock":
                    most_s = min(_CLOCK_WAIT_S, most_s)
                wait_s = backoff_s(attempt, self._rng, self._settings.first_wait_s, most_s)
                attempt += 1
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), wait_s)

    async def stop(self) -> None:
        """Say goodbye: publish `disconnected`, wait briefly for what is under way, close. Ends `run`."""
        self._stopping.set()
        link = self._link
        if self._up and link is not None:
            if self._presence is not None:
                self._presence = replace(self._presence, state="disconnected")
                self._put_presence(self._presence)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._outgoing.flushed(), _FLUSH_S)
            link.disconnect()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.shield(link.closed), 1.0)
            link.drop()
        elif self._attempt is not None:
            self._attempt.cancel()

    async def wait_up(self, timeout_s: float) -> None:
        """Return once connected. Raises TransportError when a broker refuses us, or none is reached in time."""
        until = time.monotonic() + timeout_s
        while not self._up:
            if self.failure is not None and self.failure.exit_code == EXIT_REFUSED:
                raise self.failure
            try:
                await asyncio.wait_for(self._changed.wait(), max(0.0, until - time.monotonic()))
            except asyncio.TimeoutError:
                text = f"no broker answered within {timeout_s:g} s"
                raise self.failure or TransportError(text, EXIT_NOT_CONNECTED) from None

    async def __aenter__(self) -> MqttTransport:
        """Start `run` beside the caller; `wait_up` tells when it has connected."""
        self._running = asyncio.get_running_loop().create_task(self.run(), name="mqtt transport")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
        if self._running is not None:
            await self._running

    # ---- one connection -----------------------------------------------------------------------------------------

    async def _connection(self, address: Address) -> _End:
        try:
            context = self._settings.tls_context() if address.tls else None
            password = self._settings.password()
            sock = await dial(address, context)
        except ClockFault as error:
            return self._failed(error, "clock")
        except TransportError as error:
            return self._failed(error, "refused" if error.exit_code == EXIT_REFUSED else "failed")
        except ConfigError as error:  # a certificate or password file that was there at the start is not any more
            return self._failed(TransportError(str(error)), "failed")
        v5 = self._speaks_v5.get(address, self._settings.protocol != "3.1.1")
        link = self._link = Link(sock, self._hello(v5, password), self._inbound.receive, self._outgoing.acknowledged)
        try:
            return await self._talk(link, address, v5)
        finally:
            link.drop()
            self._link = None
            self._counters["bytes_sent"] += link.sent_bytes
            self._counters["bytes_received"] += link.received_bytes
            if self._up:
                self._went_down("cancelled")

    def _hello(self, v5: bool, password: str | None) -> Hello:
        settings, presence = self._settings, self._presence
        will = None
        if presence is not None:
            route = topics.presence_route(settings.site, settings.node)
            will = Will(route.topic, encode_presence(own.will_of(presence)), settings.will_delay_s)
        self._will_for = presence
        return Hello(
            # no name has a dot, so site and node stay apart
            client_id=f"{settings.site}.{settings.node}" if settings.node else "",
            v5=v5,
            keepalive_s=settings.keepalive_s,
            session_expiry_s=settings.session_expiry_s,
            window=settings.window,
            receive_limit_bytes=settings.receive_limit_bytes,
            will=will,
            username=settings.username,
            password=password,
        )

    async def _talk(self, link: Link, address: Address, v5: bool) -> _End:
        try:
            welcome = await asyncio.wait_for(asyncio.shield(link.welcome), self._settings.connack_timeout_s)
        except asyncio.TimeoutError:
            self._closed_early[address] += 2 - self._closed_early[address] % 2
            return self._unwelcome(address, v5, "takes the connection but says nothing")
        except TransportError as error:
            if error.exit_code == EXIT_REFUSED:
                return self._failed(
                    TransportError(f"{address} refused our certificate: {error}", EXIT_REFUSED), "refused"
                )
            self._closed_early[address] += 1
            return self._unwelcome(address, v5, f"hung up before accepting us ({error})")
        self._closed_early[address] = 0
        if welcome.code != SUCCESS:
            return self._not_welcome(address, v5, welcome)
        began_s = time.monotonic()
        self._went_up(link, address, welcome)
        goodbye = await link.closed
        return self._lost(address, goodbye, time.monotonic() - began_s)

    def _unwelcome(self, address: Address, v5: bool, what: str) -> _End:
        """Not even a refusal. A broker may hang up on a CONNECT of a version it does not know, or read it wrongly and
        wait for more for ever (amqtt): after every second time hung up on, and every silence, try the other version."""
        if self._closed_early[address] % 2 == 0 and self._settings.protocol == "auto":
            self._speaks_v5[address] = not v5
            self._counters["fallbacks"] += 1
        return self._failed(TransportError(f"{address} {what}"), "failed")

    def _not_welcome(self, address: Address, v5: bool, welcome: Welcome) -> _End:
        if welcome.code == UNSUPPORTED_PROTOCOL and v5 and self._settings.protocol == "auto":
            self._speaks_v5[address] = False
            self._counters["fallbacks"] += 1
            return _End("again")
        code = EXIT_REFUSED if welcome.code in _REFUSALS else EXIT_NOT_CONNECTED
        return self._failed(TransportError(f"{address} refused us: {welcome.reason}", code), "refused")

    def _failed(self, error: TransportError, why: str) -> _End:
        self._counters[f"connect_{why}"] += 1
        self.failure = error
        self._tell(False, str(error))
        return _End(why)

    def _next_address(self) -> bool:
        """Move to the next broker; True if it is worth trying at once, False after a whole round."""
        self._turn += 1
        return self._turn % len(self._addresses) != 0

    # ---- link up and down ---------------------------------------------------------------------------------------

    def _went_up(self, link: Link, address: Address, welcome: Welcome) -> None:
        self._counters["connects"] += 1
        self._up = True
        self._heard_itself = False
        self.failure = None
        limits = (
            self._settings.packet_limit_bytes,
            welcome.packet_limit_bytes,
            self._learnt_limit_bytes.get(address, 0),
        )
        window = min(self._settings.window, welcome.window)
        self._outgoing.open(link, min(limit for limit in limits if limit), window)
        self._said_before = address in self._announced_to
        # Subscribed before the birth is published, so that the broker first shows what it holds from an earlier life.
        # A process that knows nothing yet wants all retained snapshots, later only those a new session lacks. Presence
        # is wanted each time, our own included: Mosquitto 2.0 closes the older of two links of one name without saying
        # why, and what is retained under our name then is the only trace of the other device.
        retained = "new" if self._said_before else "always"
        if welcome.session_present and self._settings.circle is not None:  # of a process that asked for everybody's
            wide = topics.subscriptions(self._settings.site, self._settings.node, self._settings.task)
            link.unsubscribe([name for name, _ in wide if (name, 1) not in self._inbound.filters])
        link.subscribe(
            [
                Subscription(name, qos, no_local=not state, retained="always" if state else retained)
                for name, qos in self._inbound.filters
                for state in [name.endswith("/state")]
            ]
            + self._listen_subscriptions(self._inbound.listening, retained)
            + [Subscription(name, qos) for name, qos in self._inbound.raw_filters()]
        )
        self._let_go.clear()
        if self._presence is not None:
            self._announced_to.add(address)
            self._put_presence(self._presence)
        self._tell(True, f"connected to {address} with MQTT {'5' if link.v5 else '3.1.1'}")
        # only now: a listener that has a newer snapshot has given it to us
        self._outgoing.repeat(welcome.session_present)

    def _lost(self, address: Address, goodbye: Goodbye, up_s: float) -> _End:
        if goodbye.code == SESSION_TAKEN_OVER:
            self._counters["duplicate_name"] += 1
            self._clashed = True
        why, text = "lost", f"{address}: {goodbye.reason}"
        if self._clashed:
            why, text = "duplicate", self._duplicate_text()
        elif self._renewing:
            why, text = "again", f"{address}: renewing the last will"
        self._counters["garbled"] += goodbye.garbled
        self._renewing = self._clashed = False
        self._blame(address, goodbye)
        self._went_down(text)
        return _End(why, up_s)

    def _went_down(self, detail: str) -> None:
        self._counters["disconnects"] += 1
        self._up = False
        self._outgoing.close(_SUSPECT_BYTES)
        self.failure = TransportError(detail)
        self._tell(False, detail)

    def _blame(self, address: Address, goodbye: Goodbye) -> None:
        """A large packet under way at two losses in a row is what this broker cannot take: give it up, send smaller.

        A broker that speaks 3.1.1 announces no maximum and some close without a reason; a packet sent again after each
        reconnect would keep us out for ever.
        """
        oldest = self._outgoing.close(_SUSPECT_BYTES)
        if oldest is None:
            self._suspect = ""
        elif oldest.topic == self._suspect or goodbye.code == PACKET_TOO_LARGE:
            self._suspect = ""
            self._counters["dropped_blamed"] += 1
            self._learnt_limit_bytes[address] = max(_SUSPECT_BYTES, len(oldest.payload) // 4)
            self._outgoing.forget(oldest)
        else:
            self._suspect = oldest.topic

    def _tell(self, up: bool, detail: str) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        if self._told != (up, detail):
            self._told = (up, detail)
            try:
                self._listener.on_link(up, detail)
            except Exception as error:  # as in paho's callbacks: a fault of the listener must not end the link
                loop = asyncio.get_running_loop()
                loop.call_exception_handler({"message": "on_link failed", "exception": error})

    # ---- whom we listen to --------------------------------------------------------------------------------------

    def _listen_subscriptions(self, to: frozenset[tuple[str, str]], retained: str = "always") -> list[Subscription]:
        settings = self._settings
        return [
            Subscription(name, qos, no_local=True, retained=retained)
            for peer, channel in sorted(to)
            for name, qos in topics.listen_filters(settings.site, settings.task, peer, channel)
        ]

    def _let_go_of(self, pair: tuple[str, str]) -> None:
        """End the subscriptions of a pair, once per link: what is under way may still come."""
        if self._link is not None and pair not in self._let_go:
            self._let_go.add(pair)
            filters = topics.listen_filters(self._settings.site, self._settings.task, *pair)
            self._link.unsubscribe([name for name, _ in filters])

    def _on_unasked(self, peer: str, channel: str) -> None:
        if self._up and len(self._let_go) < _MOST_LET_GO:
            self._let_go_of((peer, channel))

    # ---- our own name -------------------------------------------------------------------------------------------

    def _on_own_presence(self, seen: Presence, retained: bool) -> None:
        ours = self._presence
        if ours is None:
            return
        verdict = own.judge(ours, seen, retained, self._said_before, seen.instance in self._waited_for)
        self._heard_itself = self._heard_itself or (verdict == own.ECHO and not retained)
        if verdict == own.EARLIER_LIFE:
            self._counters["earlier_life"] += 1
            self._listener.on_presence(seen)
        elif verdict == own.OVERWRITTEN:
            self._counters["presence_repaired"] += 1
            self._put_presence(ours)
        elif verdict == own.DUPLICATE:
            self._counters["duplicate_name"] += 1
            if own.yields(ours, seen):
                self._clashed = True
                self._waited_for = {*list(self._waited_for)[-15:], seen.instance}
                self._disconnect_soon()  # politely, so that our will does not overwrite the other's birth
            else:
                self._put_presence(ours)  # the other sees it, and yields
                self._tell(True, self._duplicate_text())

    def _duplicate_text(self) -> str:
        return f"another device uses the name {self._settings.node}: rename one of the two"

    def _disconnect_soon(self) -> None:
        """paho must not be told to close from inside one of its callbacks."""
        link = self._link
        if link is not None:
            asyncio.get_running_loop().call_soon(link.disconnect)

    # ---- packets ------------------------------------------------------------------------------------------------

    def _put_presence(self, presence: Presence) -> None:
        route = topics.presence_route(self._settings.site, self._settings.node)
        payload = encode_presence(presence)
        self._put(Packet(route.topic, payload, route.qos, route.retain, slot=route.topic + "#", kind="presence"))

    def _put(self, packet: Packet) -> int:
        packet = replace(packet, born_s=time.monotonic())
        return packet.size_bytes(self._v5) if self._outgoing.put(packet) else 0

    @property
    def _v5(self) -> bool:
        return self._link is None or self._link.v5
