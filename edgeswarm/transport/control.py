"""What a link takes beside PUBLISH under MQTT 5: opening it, asking for topics, acknowledgements, ending it.

The sizes are those of the packets that `mqtt` and `link` really send, and of Mosquitto's answers, so that a simulation
counts the bytes that devices count. Nothing is sent here.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgeswarm.messages import Presence
from edgeswarm.transport.packet import varint_bytes
from edgeswarm.transport.presence import will_of
from edgeswarm.wire import topics
from edgeswarm.wire.status import encode_presence

FILTERS_PER_PACKET = 8
"""Filters in one SUBSCRIBE or UNSUBSCRIBE; some brokers take no more."""
CONNACK_BYTES = 16
"""With the broker's receive maximum, largest packet and topic aliases (Mosquitto 2)."""
PUBACK_BYTES = 4
DISCONNECT_BYTES = 2
_CONNECT_HEAD_BYTES = 10
_CONNECT_PROPERTIES_BYTES = 1 + 5 + 3 + 5
"""Session expiry, receive maximum, largest packet."""
_WILL_PROPERTIES_BYTES = 1 + 5
"""Will delay."""


def connect_bytes(site: str, node: str, presence: Presence | None) -> int:
    """A CONNECT of `node`, whose will is made from `presence`."""
    rest = _CONNECT_HEAD_BYTES + _CONNECT_PROPERTIES_BYTES + 2 + len(f"{site}.{node}")
    if presence is not None:
        will = len(topics.state_topic(site, node)) + len(encode_presence(will_of(presence)))
        rest += _WILL_PROPERTIES_BYTES + 2 + 2 + will
    return _packet(rest)


def subscribe_bytes(filters: Sequence[str]) -> tuple[int, int]:
    """SUBSCRIBE for these filters, and the SUBACK: bytes sent and received."""
    return _asking(filters, 1)


def unsubscribe_bytes(filters: Sequence[str]) -> tuple[int, int]:
    """UNSUBSCRIBE for these filters, and the UNSUBACK: bytes sent and received."""
    return _asking(filters, 0)


def _asking(filters: Sequence[str], options_bytes: int) -> tuple[int, int]:
    sent = received = 0
    for start in range(0, len(filters), FILTERS_PER_PACKET):
        some = filters[start : start + FILTERS_PER_PACKET]
        sent += _packet(3 + sum(2 + len(each) + options_bytes for each in some))
        received += _packet(3 + len(some))
    return sent, received


def _packet(rest_bytes: int) -> int:
    return 1 + varint_bytes(rest_bytes) + rest_bytes
