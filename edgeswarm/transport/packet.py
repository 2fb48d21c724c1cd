"""One MQTT PUBLISH packet of ours, and exactly how many bytes it takes."""

from __future__ import annotations

from functools import lru_cache

from edgeswarm.values import value
from edgeswarm.wire.topics import CONTENT_TYPE

_EXPIRY_BYTES = 5
_MARGIN_BYTES = 16
"""Kept free below a broker's announced maximum: brokers have been off by a few bytes (Mosquitto issues 3515, 3593)."""


@value(frozen=True, slots=True, eq=False)
class Packet:
    """What is to be published. expiry_s: 0 for never.  born_s: loop time it was made at.

    Under MQTT 5 retained packets name their content type, for the person with a debugger who finds them; on all the
    others it would be a third of a digest.
    slot: packets with the same non-empty slot replace one another while they wait.  kind: one word, for the counters.
    serial: tells packets made from different messages apart.
    """

    topic: str
    payload: bytes
    qos: int
    retain: bool
    expiry_s: int = 0
    slot: str = ""
    kind: str = "raw"
    born_s: float = 0.0
    serial: int = 0

    def size_bytes(self, v5: bool) -> int:
        """Bytes of the whole packet on the wire, fixed header included (MQTT 5 section 3.3)."""
        return overhead_bytes(self.topic, self.qos, self.retain, self.expiry_s, v5, len(self.payload)) + len(
            self.payload
        )


def overhead_bytes(topic: str, qos: int, retain: bool, expiry_s: int, v5: bool, payload_bytes: int) -> int:
    """Bytes a PUBLISH takes beside its payload: fixed header, topic, packet identifier, properties."""
    rest = 2 + len(topic.encode()) + (2 if qos else 0)
    if v5:
        properties = (_EXPIRY_BYTES if expiry_s else 0) + (3 + len(CONTENT_TYPE) if retain else 0)
        rest += 1 + properties
    return 1 + varint_bytes(rest + payload_bytes) + rest


def arrived_bytes(topic: str, qos: int, properties: bytes, payload: bytes) -> int:
    """Bytes of a PUBLISH that came in. properties: as on the wire with their length, empty under MQTT 3.1.1."""
    rest = 2 + len(topic.encode()) + (2 if qos else 0) + len(properties) + len(payload)
    return 1 + varint_bytes(rest) + rest


def payload_limit_bytes(packet_limit_bytes: int, topic: str, v5: bool) -> int:
    """Largest payload for which a packet with this topic, whatever its properties, stays below the limit."""
    return packet_limit_bytes - _most_overhead_bytes(packet_limit_bytes, len(topic), v5) - _MARGIN_BYTES


@lru_cache(maxsize=256)
def _most_overhead_bytes(packet_limit_bytes: int, topic_bytes: int, v5: bool) -> int:
    """Of a packet of that size with a topic of so many bytes (they are ASCII), whatever its properties."""
    return overhead_bytes("t" * topic_bytes, 1, True, 1, v5, packet_limit_bytes)


def fits(packet: Packet, packet_limit_bytes: int, v5: bool) -> bool:
    """True if the packet, with a margin, is not larger than the limit."""
    return packet.size_bytes(v5) + _MARGIN_BYTES <= packet_limit_bytes


def varint_bytes(value: int) -> int:
    """Bytes that MQTT takes to say a length."""
    return 1 if value < 128 else 2 if value < 16_384 else 3 if value < 2_097_152 else 4
