"""Listening to the swarm from outside: health reports and presence of one site, over an MQTT connection of its own.

The watcher lives in a thread with its own event loop, because the terminal and the processes are looked after by the
main thread, which must be free for Ctrl-C. What it hears waits in a queue until the main thread asks.
"""

from __future__ import annotations

import asyncio
import queue
import random
import threading
from collections.abc import Mapping
from concurrent import futures
from dataclasses import dataclass
from typing import Any

from edgeswarm.errors import TransportError, WireError
from edgeswarm.messages import Presence
from edgeswarm.transport.base import Observer
from edgeswarm.transport.mqtt import MqttTransport
from edgeswarm.transport.settings import MqttSettings
from edgeswarm.wire import topics
from edgeswarm.wire.status import decode_report

_SWEEP_S = 1.0
_STOP_S = 4.0


@dataclass(frozen=True, slots=True)
class Heard:
    """A health report of `node`: numbers by name, and numbers by name for each peer. bytes: of topic and payload."""

    node: str
    bytes: int
    notes: Mapping[str, float]
    links: Mapping[str, Mapping[str, float]]


class Watcher(Observer):
    """Hears everything at `site`; speaks only in `sweep`.

    keep_topics: remember every topic that may be retained, so that `sweep` can empty them.
    Use as a context manager. `states` holds the newest presence state of every node.
    """

    def __init__(
        self, url: str, site: str, plain_text: bool = False, protocol: str = "auto", keep_topics: bool = False
    ) -> None:
        self._settings = MqttSettings(urls=(url,), site=site, allow_plain=plain_text, protocol=protocol, keepalive_s=10)
        self._keep_topics = keep_topics
        self._heard: queue.SimpleQueue[Heard] = queue.SimpleQueue()
        self._topics: set[str] = set()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._transport: MqttTransport | None = None
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self.states: dict[str, str] = {}

    def start(self, timeout_s: float) -> None:
        """Connect. Raises TransportError when no broker answers in time, ConfigError for an unusable address."""
        self._settings.check()
        self._thread = threading.Thread(target=self._run, args=(timeout_s,), name="demo watcher", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise self._failure

    def reports(self) -> list[Heard]:
        """What has been heard since the last call, oldest first."""
        found = []
        while True:
            try:
                found.append(self._heard.get_nowait())
            except queue.Empty:
                return found

    def sweep(self) -> None:
        """Delete what the agents left retained at a broker that outlives the demo. Never raises."""
        if self._loop is None or self._transport is None or self._thread is None or not self._thread.is_alive():
            return
        task = asyncio.run_coroutine_threadsafe(self._sweep(), self._loop)
        try:
            task.result(_SWEEP_S + 1.0)
        except (futures.TimeoutError, futures.CancelledError, RuntimeError):
            task.cancel()

    def stop(self) -> None:
        """Sweep if topics were kept, and disconnect. Does nothing if it has not started or has ended."""
        if self._keep_topics:
            self.sweep()
        if self._loop is not None and self._transport is not None and self._thread is not None:
            transport = self._transport
            if self._thread.is_alive() and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(lambda: asyncio.ensure_future(transport.stop()))
                self._thread.join(_STOP_S)

    def __enter__(self) -> Watcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # ---- in the watcher's thread -------------------------------------------------------------------------------------

    def _run(self, timeout_s: float) -> None:
        try:
            asyncio.run(self._watch(timeout_s))
        except BaseException as error:
            self._failure = error
        finally:
            self._ready.set()

    async def _watch(self, timeout_s: float) -> None:
        transport = MqttTransport(self._settings, self, random.Random())
        if self._keep_topics:
            # and not the reports once more: a broker may send one message for each filter that matches it
            transport.subscribe_raw(f"{topics.ROOT}/{self._settings.site}/#", 0, self._on_any)
        else:
            transport.subscribe_raw(topics.health_topic(self._settings.site, "+"), 0, self._on_report)
        self._loop = asyncio.get_running_loop()
        running = asyncio.ensure_future(transport.run())
        try:
            await transport.wait_up(timeout_s)
        except TransportError:
            running.cancel()
            raise
        self._transport = transport
        self._ready.set()
        await running

    async def _sweep(self) -> None:
        if self._transport is None:
            return
        for topic in sorted(self._topics):
            self._transport.publish_raw(topic, b"", qos=1, retain=True)
        await asyncio.sleep(_SWEEP_S / 2)  # time for the socket's queue to drain; stop() flushes the rest

    def _on_report(self, topic: str, payload: bytes, retained: bool) -> None:
        parsed = topics.parse(topic)
        if parsed is None:
            return
        try:
            report: dict[str, Any] = decode_report(payload)
        except WireError:
            return
        self._heard.put(Heard(parsed.node, len(topic) + len(payload), report["notes"], report["links"]))

    def _on_any(self, topic: str, payload: bytes, retained: bool) -> None:
        parsed = topics.parse(topic)
        if parsed is None:
            return
        if parsed.channel == "health":
            self._on_report(topic, payload, retained)
        elif parsed.channel in ("state", "info", "proto") and payload:
            self._topics.add(topic)

    def on_presence(self, presence: Presence) -> None:
        """Remember who is there."""
        self.states[presence.node] = presence.state
