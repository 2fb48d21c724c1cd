"""paho's client with the packets we exchange all day handled in a fifth of the time; everything else is left to paho.

For each PUBLISH and PUBACK paho makes a lock, a table of all MQTT 5 properties and a reason code, and it looks up
callbacks by topic. That is more work than reading a whole message of ours. Here, packets with no property but an expiry
interval (ours), and acknowledgements, are read and written directly; what looks different goes to paho's own code.

Parts of paho that are not documented are used: `_packet_read`, `_in_packet`, `_out_packet`, `_packet_queue`,
`_mid_generate`, `_send_puback`, `_handle_pubackcomp`. The transport's tests with real brokers fail if they change.
"""

from __future__ import annotations

import time
from functools import lru_cache
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

_EXPIRY = b"\x02"
_MERGE_BYTES = 65_536
"""Waiting packets are handed to the socket together up to about this size: one system call for many."""
_PUBLISH, _PUBACK, _DISCONNECT = 0x30, 0x40, 0xE0
_V5 = MQTTProtocolVersion.MQTTv5
_SUCCESS = ReasonCode(PacketTypes.PUBACK)


class Packed:
    """Properties of a PUBLISH in the form they have on the wire, made once for many packets."""

    def __init__(self, packed: bytes) -> None:
        self._packed = packed

    def pack(self) -> bytes:
        """The properties with their length in front, as paho's own class gives them."""
        return self._packed


class Expiring(Packed):
    """The same with a message expiry interval, the one property that a receiver looks at."""

    def __init__(self, packed: bytes, left_s: int) -> None:
        super().__init__(packed)
        self.MessageExpiryInterval = left_s


@lru_cache(maxsize=256)
def publish_properties(expiry_s: int, content_type: str) -> Packed:
    """Properties of a PUBLISH of ours. expiry_s: 0 for none.  content_type: "" for none."""
    made: Any = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    if expiry_s:
        made.MessageExpiryInterval = expiry_s
    if content_type:
        made.ContentType = content_type
    return Packed(made.pack())


@lru_cache(maxsize=256)
def _arrived(packed: bytes) -> Packed:
    """Properties that are nothing at all or an expiry interval and nothing else."""
    return Packed(packed) if len(packed) == 1 else Expiring(packed, int.from_bytes(packed[2:6], "big"))


class Arrival:
    """A message that came in, with the attributes of paho's own class that we read."""

    __slots__ = ("_topic", "payload", "properties", "qos", "retain")

    def __init__(self, topic: bytes, payload: bytes, qos: int, retain: bool, properties: Packed | None) -> None:
        self._topic, self.payload = topic, payload
        self.qos, self.retain, self.properties = qos, retain, properties

    @property
    def topic(self) -> str:
        """Raises UnicodeDecodeError for a topic that is no text."""
        return self._topic.decode()


class LeanClient(paho.Client):
    """See the module. `on_message` gets an `Arrival` or one of paho's messages, which can be read alike."""

    def publish_once(self, topic: str, payload: bytes, retain: bool, properties: Packed | None) -> int:
        """Send with QoS 1 and return the packet identifier; the caller keeps track of what is not acknowledged."""
        encoded = topic.encode()
        self._raise_for_invalid_topic(encoded)
        identifier = self._mid_generate()
        packed = properties.pack() if properties is not None else b"\0" if self._protocol == _V5 else b""
        head = bytearray((_PUBLISH | 2 | retain,))
        self._pack_remaining_length(head, 4 + len(encoded) + len(packed) + len(payload))
        place = len(encoded).to_bytes(2, "big"), encoded, identifier.to_bytes(2, "big")
        self._packet_queue(_PUBLISH, b"".join((head, *place, packed, payload)), identifier, 1)
        return identifier

    def loop_write(self) -> MQTTErrorCode:
        """Write what waits, small packets joined."""
        self._merge()
        return super().loop_write()

    def _merge(self) -> None:
        """Join the first waiting packets. Those that paho follows up once they are written stay single."""
        waiting: Any = self._out_packet
        if len(waiting) < 2:
            return
        joined = bytearray()
        last: Any = None
        while waiting and len(joined) < _MERGE_BYTES:
            packet = waiting[0]
            kind = packet["command"] & 0xF0
            if kind == _DISCONNECT or (kind == _PUBLISH and packet["qos"] == 0):
                break
            joined += packet["packet"][packet["pos"] :]
            last = waiting.popleft()
        if last is not None:
            waiting.appendleft({**last, "packet": joined, "pos": 0, "to_process": len(joined)})

    # ---- what comes in -----------------------------------------------------------------------------------------

    _ahead: bytes = b""
    _at: int = 0

    def _refill(self) -> None:
        """Replace what was read ahead, all of it used, by what the socket has; b"" at its end. Raises OSError."""
        raise NotImplementedError

    def _packet_read(self) -> MQTTErrorCode:
        if self._in_packet["command"] == 0:
            try:
                if self._at == len(self._ahead):
                    self._refill()
            except BlockingIOError:
                return MQTTErrorCode.MQTT_ERR_AGAIN
            except OSError:
                return MQTTErrorCode.MQTT_ERR_CONN_LOST
            if self._simple():
                self._last_bytes_received = time.monotonic()
                return MQTTErrorCode.MQTT_ERR_SUCCESS
        return super()._packet_read()

    def _simple(self) -> bool:
        """Take the next packet if all of it is here and it is one of ours; otherwise leave everything as it is."""
        data, at, end = self._ahead, self._at, len(self._ahead)
        if end - at < 4:
            return False
        head = data[at]
        if head == _PUBACK and data[at + 1] == 2:
            self._at = at + 4
            self._acknowledge(data[at + 2] << 8 | data[at + 3], _SUCCESS)
            return True
        if head & 0xF4 != _PUBLISH:  # another kind, or above QoS 1
            return False
        size, shift, start = 0, 0, at + 1
        while True:
            if start == end or shift > 21:
                return False
            digit = data[start]
            size, shift, start = size | (digit & 0x7F) << shift, shift + 7, start + 1
            if digit < 0x80:
                break
        stop = start + size
        if stop > end or size < 3:
            return False
        named = start + 2 + (data[start] << 8 | data[start + 1])
        qos = head >> 1 & 1
        body = named + 2 * qos
        properties = None
        if self._protocol == _V5:
            if body >= stop or (data[body] and not (data[body] == 5 and data[body + 1 : body + 2] == _EXPIRY)):
                return False
            after = body + 1 + data[body]
            properties, body = _arrived(data[body:after]), after
        if body > stop or named == start + 2:
            return False
        self._at = stop
        receive: Any = self.on_message
        receive(self, None, Arrival(data[start + 2 : named], data[body:stop], qos, bool(head & 1), properties))
        if qos:
            self._send_puback(data[named] << 8 | data[named + 1])
        return True

    def _handle_pubackcomp(self, cmd: Any) -> MQTTErrorCode:
        packet = self._in_packet["packet"]
        if cmd != "PUBACK" or len(packet) < 2:
            return super()._handle_pubackcomp(cmd)
        reason = _SUCCESS if len(packet) == 2 else ReasonCode(PacketTypes.PUBACK, identifier=packet[2])
        self._acknowledge(packet[0] << 8 | packet[1], reason)
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _acknowledge(self, identifier: int, reason: ReasonCode) -> None:
        acknowledged: Any = self.on_publish
        acknowledged(self, None, identifier, reason, None)
