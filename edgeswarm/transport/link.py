"""One connection to one broker: paho-mqtt speaks the protocol, the asyncio event loop does the waiting.

paho's own thread uses select(), which cannot watch a descriptor above 1,023. Here its `loop_read`, `loop_write` and
`loop_misc` are called when the event loop's selector (epoll on Linux) says so. Everything runs in the loop's thread:
the socket arrives connected (see `dial`), so paho never blocks and never calls back from elsewhere.

A link lives from CONNECT to the first sign of trouble and is never used again. That rules out three traps of
re-used paho clients: messages it sends again for ever after each reconnect, its unlimited queue while there is no
connection, and a clean start that differs between the first connect and later ones.

Reading holds back by itself: messages are handed over inside the read callback, so nothing more is read from the
socket while the listener works, and the broker keeps at most `window` QoS 1 messages under way.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edgeswarm.errors import EXIT_NOT_CONNECTED, EXIT_REFUSED, TransportError
from edgeswarm.transport.lean import LeanClient, publish_properties
from edgeswarm.transport.packet import Packet
from edgeswarm.wire.topics import CONTENT_TYPE

_READ_BYTES = 65_536
_READS_PER_TURN = 64
"""Packets read before other callbacks of the loop get a turn."""

SUCCESS = 0x00
UNSUPPORTED_PROTOCOL = 0x84
SESSION_TAKEN_OVER = 0x8E
PACKET_TOO_LARGE = 0x95


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes, retained, when we vanish. delay_s counts under MQTT 5 only."""

    topic: str
    payload: bytes
    delay_s: int


@dataclass(frozen=True, slots=True)
class Hello:
    """What a CONNECT says. client_id "" makes a passing visitor: no session, whatever `session_expiry_s` says."""

    client_id: str
    v5: bool
    keepalive_s: int
    session_expiry_s: int
    window: int
    receive_limit_bytes: int
    will: Will | None = None
    username: str = ""
    password: str | None = None


@dataclass(frozen=True, slots=True)
class Welcome:
    """What the CONNACK says. code: 0, or a reason code of MQTT 5 (3.1.1 codes are translated by paho)."""

    code: int
    reason: str
    session_present: bool = False
    packet_limit_bytes: int = 0
    window: int = 65_535


@dataclass(frozen=True, slots=True)
class Goodbye:
    """Why a link ended. code: the broker's reason code, 0 if it gave none.  garbled: its bytes made no sense.
    alert: it was a TLS alert, which is how TLS 1.3 refuses our certificate after the handshake is done."""

    code: int
    reason: str
    garbled: bool = False
    alert: bool = False


class _Client(LeanClient):
    """paho's client on a socket that is connected already, reading ahead and counting every byte.

    paho asks for one byte, one byte and a rest for each packet; reading ahead makes that one system call for many
    packets. The counts are MQTT bytes (under TLS: before encryption), of every packet type.
    """

    def __init__(self, ready: socket.socket, hello: Hello) -> None:
        version = MQTTProtocolVersion.MQTTv5 if hello.v5 else MQTTProtocolVersion.MQTTv311
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=hello.client_id,
            clean_session=None if hello.v5 else True,
            protocol=version,
            reconnect_on_failure=False,
        )
        self._ready: socket.socket | None = ready
        self._limit_bytes = hello.receive_limit_bytes
        self.received_bytes = 0
        self.sent_bytes = 0
        self.fault: OSError | None = None

    def _create_socket(self) -> Any:
        ready, self._ready = self._ready, None
        return ready

    def _sock_recv(self, bufsize: int) -> bytes:
        if self._at == len(self._ahead):
            if self._in_packet["remaining_length"] > self._limit_bytes:
                # MQTT 5 brokers withhold such packets; a 3.1.1 broker must be kept from filling our memory
                self.fault = OSError(f"a packet of {self._in_packet['remaining_length']} bytes is over our limit")
                raise self.fault
            self._refill()
        taken = self._ahead[self._at : self._at + bufsize]
        self._at += len(taken)
        return taken

    def _refill(self) -> None:
        try:
            self._ahead, self._at = super()._sock_recv(_READ_BYTES), 0
        except BlockingIOError:
            raise
        except OSError as error:
            self.fault = error
            raise
        self.received_bytes += len(self._ahead)

    def _sock_send(self, buf: bytes | bytearray) -> int:
        count = super()._sock_send(buf)
        self.sent_bytes += count
        return count

    @property
    def unread(self) -> bool:
        """True if bytes have left the socket but were not looked at: the selector cannot know about them."""
        sock = self._sock
        return self._at < len(self._ahead) or (isinstance(sock, ssl.SSLSocket) and sock.pending() > 0)

    @property
    def backlog_bytes(self) -> int:
        """Bytes handed to paho that the socket has not taken yet."""
        return sum(packet["to_process"] for packet in self._out_packet)

    def drop(self) -> None:
        """Close the socket without a word."""
        self._sock_close()
        if self._ready is not None:
            self._ready.close()


Received = Callable[[Any], None]
Acknowledged = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Subscription:
    """topic_filter, qos: as in MQTT.  no_local: our own messages shall not come back.  retained: "always", or "new"
    to get retained messages only if the broker's session did not have this subscription (both MQTT 5 only)."""

    topic_filter: str
    qos: int
    no_local: bool = False
    retained: str = "always"


class Link:
    """A connection, from CONNECT to its end. Await `welcome` first, then `closed`.

    received(message) is called with a `lean.Arrival`, or one of paho's messages, for every PUBLISH, and
    acknowledged(packet identifier, reason code) for every PUBACK; both
    in the event loop's thread, and an exception in them goes to the loop's exception handler, not to paho.
    """

    def __init__(self, sock: socket.socket, hello: Hello, received: Received, acknowledged: Acknowledged) -> None:
        self._loop = asyncio.get_running_loop()
        self._received, self._acknowledged = received, acknowledged
        self.v5 = hello.v5
        self.welcome: asyncio.Future[Welcome] = self._loop.create_future()
        self.closed: asyncio.Future[Goodbye] = self._loop.create_future()
        self._descriptor = sock.fileno()
        self._tick_s = min(5.0, max(0.2, hello.keepalive_s / 4))
        self._ticking: asyncio.TimerHandle | None = None
        self._client = client = _Client(sock, hello)
        client.suppress_exceptions = True
        client.max_inflight_messages_set(0)  # the outbox keeps the window; paho would queue what is above its own
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_socket_open = self._on_socket_open
        client.on_socket_close = self._on_socket_close
        client.on_socket_register_write = self._on_register_write
        client.on_socket_unregister_write = self._on_unregister_write
        if hello.username:
            client.username_pw_set(hello.username, hello.password)
        self._connect(hello)

    def _connect(self, hello: Hello) -> None:
        will = hello.will
        if will is not None:
            delay = None
            if self.v5:
                delay = _properties(PacketTypes.WILLMESSAGE)
                delay.WillDelayInterval = will.delay_s
            self._client.will_set(will.topic, will.payload, qos=1, retain=True, properties=delay)
        properties = None
        clean_start: Any = paho.MQTT_CLEAN_START_FIRST_ONLY
        if self.v5:
            properties = _properties(PacketTypes.CONNECT)
            properties.ReceiveMaximum = hello.window
            properties.MaximumPacketSize = hello.receive_limit_bytes
            properties.SessionExpiryInterval = hello.session_expiry_s if hello.client_id else 0
            clean_start = not hello.client_id
        # the socket is connected: host and port are only what paho wants to hear
        self._client.connect("ready", 1, hello.keepalive_s, clean_start=clean_start, properties=properties)
        self._tick()

    # ---- what we say -------------------------------------------------------------------------------------------

    def publish(self, packet: Packet, expiry_s: int) -> int:
        """Hand one packet to the socket; the packet identifier. expiry_s: what is left of its life, 0 for for ever."""
        properties = None
        if self.v5 and (expiry_s or packet.retain):
            properties = publish_properties(expiry_s, CONTENT_TYPE if packet.retain else "")
        if packet.qos == 1:
            return self._client.publish_once(packet.topic, packet.payload, packet.retain, properties)
        known: Any = properties
        return self._client.publish(packet.topic, packet.payload, packet.qos, packet.retain, known).mid

    def subscribe(self, subscriptions: Sequence[Subscription]) -> None:
        """Ask for these filters, in one packet for each eight (some brokers take no more)."""
        for start in range(0, len(subscriptions), 8):
            some = subscriptions[start : start + 8]
            if self.v5:
                self._client.subscribe([(each.topic_filter, _options(each)) for each in some])
            else:
                self._client.subscribe([(each.topic_filter, each.qos) for each in some])

    def unsubscribe(self, filters: Sequence[str]) -> None:
        """Ask for these no longer, in one packet for each eight."""
        for start in range(0, len(filters), 8):
            self._client.unsubscribe(list(filters[start : start + 8]))

    def disconnect(self) -> None:
        """Say DISCONNECT: the broker then drops the will. `closed` tells when it is done."""
        self._client.disconnect()

    def drop(self) -> None:
        """End the connection at once and silently."""
        self._client.drop()
        self._end(Goodbye(0, "dropped by us"))

    # ---- numbers ----------------------------------------------------------------------------------------------

    @property
    def backlog_bytes(self) -> int:
        """Bytes that wait for the socket."""
        return self._client.backlog_bytes

    @property
    def sent_bytes(self) -> int:
        """MQTT bytes written to the socket by this link."""
        return self._client.sent_bytes

    @property
    def received_bytes(self) -> int:
        """MQTT bytes read from the socket by this link."""
        return self._client.received_bytes

    # ---- the event loop calls ---------------------------------------------------------------------------------

    def _readable(self) -> None:
        try:
            for _ in range(_READS_PER_TURN):
                if self._client.loop_read() != MQTTErrorCode.MQTT_ERR_SUCCESS or self.closed.done():
                    return
                if not self._client.unread:
                    return
        except Exception as error:
            self._garbled(error)
            return
        self._loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        if not self.closed.done():
            self._readable()

    def _writable(self) -> None:
        try:
            self._client.loop_write()
        except Exception as error:
            self._garbled(error)

    def _tick(self) -> None:
        if self.closed.done():
            return
        try:
            self._client.loop_misc()
        except Exception as error:
            self._garbled(error)
        self._ticking = self._loop.call_later(self._tick_s, self._tick)

    def _garbled(self, error: Exception) -> None:
        """paho could not make sense of what the broker sent; one bad packet must not stop the agent."""
        self._client.drop()
        self._end(Goodbye(0, f"the broker's bytes make no sense ({type(error).__name__}: {error})", garbled=True))

    def _end(self, goodbye: Goodbye) -> None:
        if self._ticking is not None:
            self._ticking.cancel()
        if not self.closed.done():
            self.closed.set_result(goodbye)
        if not self.welcome.done():
            code = EXIT_REFUSED if goodbye.alert else EXIT_NOT_CONNECTED
            self.welcome.set_exception(TransportError(goodbye.reason, code))
            self.welcome.exception()  # seen, even if nobody awaits it any more

    # ---- paho calls, always inside one of the above -------------------------------------------------------------

    def _guard(self, act: Callable[..., None], *args: Any) -> None:
        try:
            act(*args)
        except Exception as error:
            self._loop.call_exception_handler({"message": "a transport callback failed", "exception": error})

    def _on_socket_open(self, client: paho.Client, userdata: Any, sock: Any) -> None:
        self._loop.add_reader(self._descriptor, self._readable)

    def _on_socket_close(self, client: paho.Client, userdata: Any, sock: Any) -> None:
        self._loop.remove_reader(self._descriptor)
        self._loop.remove_writer(self._descriptor)

    def _on_register_write(self, client: paho.Client, userdata: Any, sock: Any) -> None:
        self._loop.add_writer(self._descriptor, self._writable)

    def _on_unregister_write(self, client: paho.Client, userdata: Any, sock: Any) -> None:
        self._loop.remove_writer(self._descriptor)

    def _on_connect(self, client: paho.Client, userdata: Any, flags: Any, reason: ReasonCode, more: Any) -> None:
        if not self.welcome.done():
            self.welcome.set_result(
                Welcome(
                    code=int(reason.value),
                    reason=str(reason),
                    session_present=bool(flags.session_present),
                    packet_limit_bytes=getattr(more, "MaximumPacketSize", 0),
                    window=getattr(more, "ReceiveMaximum", 65_535),
                )
            )

    def _on_disconnect(self, client: paho.Client, userdata: Any, flags: Any, reason: ReasonCode, more: Any) -> None:
        from_broker = bool(flags.is_disconnect_packet_from_server)
        fault = self._client.fault
        if from_broker:
            goodbye = Goodbye(int(reason.value), f"the broker ended the connection: {reason}")
        elif fault is not None:
            text = str(getattr(fault, "reason", None) or fault.strerror or fault)
            goodbye = Goodbye(0, f"connection lost: {text}", alert=isinstance(fault, ssl.SSLError) and "ALERT" in text)
        else:
            goodbye = Goodbye(0, "connection closed")
        self._loop.call_soon(self._end, goodbye)  # after paho has finished with the socket

    def _on_message(self, client: paho.Client, userdata: Any, message: Any) -> None:
        self._guard(self._received, message)

    def _on_publish(self, client: paho.Client, userdata: Any, mid: int, reason: ReasonCode, more: Any) -> None:
        self._guard(self._acknowledged, mid, int(reason.value))


def _options(subscription: Subscription) -> SubscribeOptions:
    handling = SubscribeOptions.RETAIN_SEND_IF_NEW_SUB if subscription.retained == "new" else 0
    return SubscribeOptions(subscription.qos, noLocal=subscription.no_local, retainHandling=handling)


def _properties(packet_type: int) -> Properties:
    made: Properties = Properties(packet_type)  # type: ignore[no-untyped-call]
    return made
