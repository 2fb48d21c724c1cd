"""A short visit to a broker: everything that is retained about nodes, and the reports that come while we are there."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from edgeswarm.errors import WireError
from edgeswarm.transport.base import Observer
from edgeswarm.transport.mqtt import MqttTransport
from edgeswarm.transport.settings import MqttSettings
from edgeswarm.wire import topics
from edgeswarm.wire.status import decode_presence, decode_report

_PATIENCE_S = 1.0
"""After this long without an answer a person wants to know what is going on."""


_RETAINED_S = 0.3
"""Time for everything that is retained to arrive; the broker sends it right after the subscription."""


@dataclass
class Seen:
    """A node as it was heard. notes: facts of its presence, then of its report; links: of its report."""

    site: str
    node: str
    state: str = "unknown"
    epoch: int = 0
    notes: dict[str, Any] = field(default_factory=dict)
    links: dict[str, dict[str, float]] = field(default_factory=dict)
    reported: bool = False


class Visitor(Observer):
    """Collects presence and reports."""

    def __init__(self) -> None:
        self.nodes: dict[tuple[str, str], Seen] = {}

    def complete(self) -> bool:
        """Whether anybody is known and every one that is up has reported."""
        return bool(self.nodes) and all(seen.reported for seen in self.nodes.values() if seen.state == "ready")

    def on_state(self, topic: str, payload: bytes, retained: bool) -> None:
        """Presence of a node; an empty payload means it was removed."""
        parsed = topics.parse(topic)
        if parsed is None:
            return
        if not payload:
            self.nodes.pop((parsed.site, parsed.node), None)
            return
        try:
            presence = decode_presence(parsed.node, payload)
        except WireError as error:
            self._seen(parsed).state = f"unreadable ({error.reason})"
            return
        seen = self._seen(parsed)
        seen.state, seen.epoch = presence.state, presence.epoch
        seen.notes = {**presence.facts, **seen.notes}

    def on_health(self, topic: str, payload: bytes, retained: bool) -> None:
        """A report of a node; unreadable ones are left out."""
        parsed = topics.parse(topic)
        if parsed is None:
            return
        try:
            report = decode_report(payload)
        except WireError:
            return
        seen = self._seen(parsed)
        seen.notes |= report["notes"]
        seen.links, seen.reported = report["links"], True

    def _seen(self, parsed: topics.Parsed) -> Seen:
        return self.nodes.setdefault((parsed.site, parsed.node), Seen(parsed.site, parsed.node))


async def visit(settings: MqttSettings, site: str, timeout_s: float, say: Callable[[str], None]) -> list[Seen]:
    """Nodes of `site` ("+" for all), sorted. settings: an observer's (node "").

    timeout_s: for connecting, and again for listening, which ends early once every node that is up has reported.
    say: called with a word for the person who waits. Raises TransportError when no broker takes us, ConfigError.
    """
    visitor = Visitor()
    if site != "+":
        settings = dataclasses.replace(settings, site=site)
    transport = MqttTransport(settings, visitor, random.Random())
    transport.subscribe_raw(topics.state_topic(site, "+"), 1, visitor.on_state)
    transport.subscribe_raw(topics.health_topic(site, "+"), 0, visitor.on_health)
    loop = asyncio.get_running_loop()
    began = loop.time()
    told = False

    def tell() -> None:
        nonlocal told
        if not told:
            told = True
            what = "reports" if transport.up else "the broker"
            say(f"waiting for {what} ({timeout_s:g} s at most)")

    hint = loop.call_later(_PATIENCE_S, tell)
    running = asyncio.ensure_future(transport.run())
    try:
        await transport.wait_up(timeout_s)
        began = loop.time()
        await asyncio.sleep(min(timeout_s, _RETAINED_S))
        while loop.time() - began < timeout_s and not visitor.complete():
            await asyncio.sleep(0.05)
    finally:
        hint.cancel()
        await transport.stop()
        running.cancel()
        await asyncio.wait([running])
    return [seen for _, seen in sorted(visitor.nodes.items())]
