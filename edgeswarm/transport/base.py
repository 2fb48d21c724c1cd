"""How messages leave and arrive. A transport has never heard of strategies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from edgeswarm.messages import Message, Presence

__all__ = ["CallLater", "Listener", "Presence", "Transport"]


class Listener(Protocol):
    """Who a transport talks to. Called from one thread only (the event loop's); must not block."""

    def on_message(self, sender: str, message: Message, waited_s: float, size_bytes: int) -> None: ...
    def on_refused(self, sender: str, reason: str) -> None: ...
    def on_presence(self, presence: Presence) -> None: ...
    def on_link(self, up: bool, detail: str) -> None: ...


class Observer:
    """A `Listener` that is told nothing: an observer hears by topic what it asks for (`MqttTransport.subscribe_raw`),
    nodes count what they refuse, and the transport reconnects by itself."""

    def on_message(self, sender: str, message: Message, waited_s: float, size_bytes: int) -> None:
        """Not for an observer."""

    def on_refused(self, sender: str, reason: str) -> None:
        """Not for an observer."""

    def on_presence(self, presence: Presence) -> None:
        """Not for an observer, unless it wants to know who is there."""

    def on_link(self, up: bool, detail: str) -> None:
        """Not for an observer, unless it keeps time."""


class Transport(Protocol):
    """Messages out, messages in."""

    def send(self, to: str, message: Message) -> int:
        """Bytes one copy takes on the wire (0: dropped here, and counted). Neither blocks nor raises for a bad link."""
        ...

    def listen(self, to: frozenset[tuple[str, str]]) -> None:
        """Hear of these peers' models, predictions and bids from now on, and of no others (`strategies.base.Listen`):
        (peer, channel). What is retained there comes at once. Kept over reconnects."""
        ...

    def announce(self, presence: Presence) -> None:
        """Replace what the broker holds about this node; repeated on every reconnect."""
        ...


CallLater = Callable[[float, Callable[[], None]], object]
