"""What waits to be published, what is under way, and what is given up: bounded, and the newest state wins.

No socket and no clock here: the transport puts packets in, takes the next one out when the window allows it, and
reports what the broker acknowledged. An acknowledgement frees room in the window and means nothing more: brokers drop
messages after it (Mosquitto does so for a subscriber that lags), so nobody is ever told "delivered".
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from edgeswarm.transport.packet import Packet


@dataclass(frozen=True, slots=True)
class Put:
    """Outcome of `Outbox.put`. accepted: False if there was no room.  replaced: an older packet gave way."""

    accepted: bool
    replaced: bool = False


class Outbox:
    """Waiting packets and the QoS 1 packets under way.

    Packets of one slot replace one another where they wait, so a slow link carries the newest state rather than a
    history. Packets without a slot wait up to `limit_bytes` of payload and topic and are refused beyond; a packet with
    one is always accepted, because there are only as many slots as topics of our own.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._waiting: OrderedDict[str, Packet] = OrderedDict()
        self._names = itertools.count()
        self._under_way: OrderedDict[int, Packet] = OrderedDict()
        self._plain_bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def under_way(self) -> int:
        """QoS 1 packets the broker has not acknowledged."""
        return len(self._under_way)

    def oldest(self, least_bytes: int) -> Packet | None:
        """Of the packets under way that have at least this many bytes, the one sent first."""
        return next((packet for packet in self._under_way.values() if _bytes(packet) >= least_bytes), None)

    def holds(self, prefix: str) -> bool:
        """Whether a packet waits or is under way whose slot starts with `prefix`."""
        under_way = (packet.slot for packet in self._under_way.values())
        return any(slot.startswith(prefix) for slot in (*self._waiting, *under_way))

    def waits(self, prefix: str) -> bool:
        """Whether a packet waits whose slot starts with `prefix`."""
        return any(slot.startswith(prefix) for slot in self._waiting)

    def put(self, packet: Packet) -> Put:
        """Let a packet wait, behind all others: an older one of its slot gives up its place too, so that a digest never
        overtakes the difference it speaks of."""
        if not packet.slot and self._plain_bytes + _bytes(packet) > self._limit_bytes:
            return Put(False)
        old = self._waiting.pop(packet.slot, None) if packet.slot else None
        # "" and plain numbers are no slots, so names cannot clash
        self._waiting[packet.slot or str(next(self._names))] = packet
        self._count(packet, 1)
        if old is not None:
            self._count(old, -1)
        return Put(True, old is not None)

    def has_room(self, packets: Sequence[Packet]) -> bool:
        """Whether these packets would all be accepted."""
        return self._plain_bytes + sum(_bytes(packet) for packet in packets if not packet.slot) <= self._limit_bytes

    def withdraw(self, prefix: str) -> int:
        """Forget waiting packets whose slot starts with `prefix`; how many there were."""
        gone = [slot for slot in self._waiting if slot.startswith(prefix)]
        for slot in gone:
            self._count(self._waiting.pop(slot), -1)
        return len(gone)

    def take(self, window: int) -> Packet | None:
        """The packet that has waited for longest; None if nothing waits or the window is full."""
        if len(self._under_way) >= window or not self._waiting:
            return None
        _, packet = self._waiting.popitem(last=False)
        self._count(packet, -1)
        return packet

    def sent(self, identifier: int, packet: Packet) -> None:
        """Note that a QoS 1 packet is under way."""
        self._under_way[identifier] = packet

    def acknowledged(self, identifier: int) -> Packet | None:
        """The packet the broker acknowledged, now forgotten; None for one we do not know (QoS 0)."""
        return self._under_way.pop(identifier, None)

    def lose(self) -> list[Packet]:
        """Empty it: everything that waited or was under way when the link went."""
        lost = [*self._under_way.values(), *self._waiting.values()]
        self._under_way.clear()
        self._waiting.clear()
        self._plain_bytes = 0
        return lost

    def _count(self, packet: Packet, sign: int) -> None:
        if not packet.slot:
            self._plain_bytes += sign * _bytes(packet)


def _bytes(packet: Packet) -> int:
    return len(packet.payload) + len(packet.topic)
