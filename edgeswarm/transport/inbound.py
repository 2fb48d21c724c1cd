"""From an arrived PUBLISH to the listener: who sent it, whether we asked for it, whether it can be read.

Whatever arrives is hostile until checked. Brokers add their own surprises: amqtt hands out retained messages that
match somebody else's subscription, and a 3.1.1 broker returns our own messages to us.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import lru_cache

import paho.mqtt.client as paho

from edgeswarm.errors import WireError
from edgeswarm.messages import Presence
from edgeswarm.transport.base import Listener
from edgeswarm.transport.lean import Arrival
from edgeswarm.transport.packet import arrived_bytes
from edgeswarm.transport.presence import GONE
from edgeswarm.transport.settings import MqttSettings
from edgeswarm.wire import chunks, topics
from edgeswarm.wire.codec import decode
from edgeswarm.wire.envelope import Limits
from edgeswarm.wire.status import decode_presence

RawCallback = Callable[[str, bytes, bool], None]
"""Called with topic, payload, and whether it was retained."""

_matches = lru_cache(maxsize=4096)(paho.topic_matches_sub)
"""A node hears the same few topics all the time."""


@lru_cache(maxsize=4096)
def _any_matches(filters: tuple[tuple[str, int], ...], topic: str) -> bool:
    return any(paho.topic_matches_sub(topic_filter, topic) for topic_filter, _ in filters)


class Inbound:
    """Sorts arrivals. own_presence(presence, retained) is called for our own state topic, the listener for the rest.

    unasked(peer, channel) is called for a model, predictions or bids that nobody asked for (any more).
    listening: the pairs of `strategies.base.Listen` asked for.
    counters: messages_received, and for what was not handed on: unasked (no subscription of ours matches), own_echo,
    other_task, refused_<reason>, and those of `wire.chunks.Assembly`.
    """

    def __init__(
        self,
        settings: MqttSettings,
        listener: Listener,
        limits: Limits,
        counters: Counter[str],
        own_presence: Callable[[Presence, bool], None],
        unasked: Callable[[str, str], None],
    ) -> None:
        self._site, self._node, self._task = settings.site, settings.node, settings.task
        self._listener, self._limits, self._counters = listener, limits, counters
        self._own_presence, self._unasked = own_presence, unasked
        self._assembly = chunks.Assembly(limits, counters)
        self.listening: frozenset[tuple[str, str]] = frozenset()
        self._raw: list[tuple[str, int, RawCallback]] = []
        if settings.node:
            self.filters = topics.subscriptions(settings.site, settings.node, settings.task, settings.circle)
        else:
            self.filters = ((topics.state_topic(settings.site, "+"), 1),)

    def add_raw(self, topic_filter: str, qos: int, callback: RawCallback) -> None:
        """Hand everything that matches the filter to `callback`, as it is."""
        self._raw.append((topic_filter, qos, callback))

    def raw_filters(self) -> list[tuple[str, int]]:
        """Filters added with `add_raw`, and their QoS."""
        return [(topic_filter, qos) for topic_filter, qos, _ in self._raw]

    def receive(self, message: paho.MQTTMessage | Arrival) -> None:
        """Hand on, drop or refuse one message; what the listener raises passes through."""
        self._counters["messages_received"] += 1
        try:
            topic = message.topic
        except UnicodeDecodeError:
            self._counters["refused_topic"] += 1
            return
        asked = False
        payload = bytes(message.payload)
        for topic_filter, _, callback in self._raw:
            if _matches(topic_filter, topic):
                asked = True
                callback(topic, payload, bool(message.retain))
        parsed = topics.parse(topic)
        pair = parsed.wanted if parsed is not None and parsed.site == self._site else None
        if pair in self.listening or _any_matches(self.filters, topic):
            self._ours(topic, parsed, payload, message)
        elif not asked:
            self._counters["unasked"] += 1
            if pair is not None:
                self._unasked(*pair)

    def _ours(
        self, topic: str, parsed: topics.Parsed | None, payload: bytes, message: paho.MQTTMessage | Arrival
    ) -> None:
        if parsed is None:
            self._counters["refused_topic"] += 1
        elif parsed.channel == "state":
            self._presence(parsed.node, payload, bool(message.retain))
        elif parsed.node == self._node:
            self._counters["own_echo"] += 1
        elif parsed.task and parsed.task != self._task:
            self._counters["other_task"] += 1
        elif payload or not parsed.task:  # an empty retained payload withdraws a part of a snapshot
            self._message(topic, parsed, payload, message)

    def _presence(self, node: str, payload: bytes, retained: bool) -> None:
        if payload:
            try:
                presence = decode_presence(node, payload)
            except WireError as error:
                self._refuse(node, error.reason)
                return
        else:
            presence = Presence(node, GONE, 0, "")
        if node == self._node:
            self._own_presence(presence, retained)
        else:
            self._listener.on_presence(presence)

    def _message(self, topic: str, parsed: topics.Parsed, payload: bytes, message: paho.MQTTMessage | Arrival) -> None:
        properties = message.properties
        left_s = getattr(properties, "MessageExpiryInterval", None)
        waited_s = 0.0 if left_s is None else float(max(0, topics.expiry_s(parsed) - left_s))
        packed: bytes = b"" if properties is None else properties.pack()
        size_bytes = arrived_bytes(topic, message.qos, packed, payload)
        try:
            if chunks.is_chunk(payload):
                chunk = chunks.read(payload, self._limits)
                if not topics.takes_chunk(parsed, chunk.index):
                    raise WireError("misrouted", f"chunk {chunk.index} does not belong on {topic}")
                topic = topics.whole_topic(topic)
                whole = self._assembly.add(parsed.node, topic, chunk, size_bytes, waited_s)
                if whole is None:
                    return
                payload, size_bytes, waited_s = whole.data, whole.size_bytes, whole.waited_s
            content = decode(payload, self._limits)
        except WireError as error:
            self._refuse(parsed.node, error.reason)
            return
        if not topics.belongs(content, topic, parsed, self._site, self._task):
            self._refuse(parsed.node, "misrouted")
            return
        self._listener.on_message(parsed.node, content, waited_s, size_bytes)

    def _refuse(self, sender: str, reason: str) -> None:
        self._counters[f"refused_{reason}"] += 1
        self._listener.on_refused(sender, reason)
