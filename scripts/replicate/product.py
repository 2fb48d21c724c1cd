"""The product over a real broker: five agents, each with a connection of its own, every byte counted at a TCP proxy.

Agents, strategy, codec and MQTT transport are the product's own, wired as `edgeswarm run` does it: presence with a last
will, health reports, snapshots, differences, digests, pulls. All times are divided by `speed`: samples come that much
faster, and the sharing period, the report interval and the MQTT keep-alive are that much shorter, so a run stands for
one in real time with the same number of messages of each kind.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from streams import Samples, arrivals, f1, make

from edgeswarm import __version__
from edgeswarm.agent.agent import Agent
from edgeswarm.agent.clock import LoopClock
from edgeswarm.agent.peers import PeerTable
from edgeswarm.backends.sets import answer
from edgeswarm.demo.broker import RunningBroker
from edgeswarm.messages import Message, Presence
from edgeswarm.strategies.base import Batch, Decision, Event, Linked, Peers, Received, Started, Tested, finish
from edgeswarm.strategies.prototype_gossip import PrototypeGossip
from edgeswarm.transport.mqtt import MqttTransport
from edgeswarm.transport.settings import MqttSettings
from edgeswarm.wire.status import encode_report

SPEED = 5.0
PERIOD_S = 2.0
REPORT_S = 30.0
KEEPALIVE_S = 30
"""Sharing period chosen for streams of 10 samples a second; report interval and keep-alive are the defaults."""


def run(
    key: str,
    seed: int,
    folder: Path,
    broker: RunningBroker,
    speed: float = SPEED,
    settings: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """One run of five agents on stream `key`; settings: of `PrototypeGossip`, besides the times.

    Returns f1 and f1_alone (one per agent), bytes_up and bytes_down (all connections, whole MQTT traffic from CONNECT
    to DISCONNECT), bytes_counters (the same by the transports' own counters), decisions (how often each was taken),
    late_s (the furthest that learning lagged behind its schedule, in undivided seconds), connections.
    """
    return asyncio.run(swarm(f"{key}-{seed}", seed, make(key, seed, folder), broker, speed, settings or {}))


class Proxy:
    """Passes TCP connections on to a local port and counts the bytes of both directions."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._open: set[asyncio.Task[None]] = set()
        self.up = self.down = self.connections = 0

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"mqtt://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        if self._open:  # all clients have said goodbye; what they said last is still under way
            await asyncio.wait(self._open, timeout=5)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        self.connections += 1
        there_reader, there = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            await asyncio.gather(self._pass(reader, there, True), self._pass(there_reader, writer, False))
        finally:
            there.close()
            writer.close()
            self._open.discard(task)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, up: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                if up:
                    self.up += len(data)
                else:
                    self.down += len(data)
                writer.write(data)
                await writer.drain()
            writer.write_eof()


class Device:
    """One agent with its connection; also the transport's `Listener`."""

    def __init__(self, name: str, site: str, url: str, strategy: PrototypeGossip, seed: int, speed: float) -> None:
        self.name, self.tested, self.decided = name, list[Tested](), Counter[str]()
        self._loop = asyncio.get_running_loop()
        self._peers = PeerTable(name)
        keepalive_s = max(1, round(KEEPALIVE_S / speed))
        mqtt = MqttSettings(urls=(url,), site=site, node=name, task="replication", keepalive_s=keepalive_s)
        self.transport = MqttTransport(mqtt, self, random.Random(seed))
        self._agent = Agent(
            name,
            strategy,
            strategy.init(name, seed),
            self.transport,
            LoopClock(self._loop),
            self.deliver,
            self._decided,
            self.tested.append,
        )
        self.deliver(Started(self._loop.time(), 1))
        facts = {"version": __version__, "strategy": strategy.name, "task": "replication", "schema": f"{7:016x}"}
        self.transport.announce(Presence(name, "ready", 1, f"{seed:08x}", facts))

    def deliver(self, event: Event) -> None:
        finish(self._agent.steps(event), answer)

    def report(self) -> None:
        notes = {**self._agent.notes, **{name: float(value) for name, value in self.transport.counters.items()}}
        self.transport.publish_report(encode_report({"notes": notes, "links": self._agent.link_report()}))

    def _decided(self, decision: Decision) -> None:
        self.decided[f"{decision.outcome} {decision.reason}"] += 1

    def on_message(self, sender: str, message: Message, waited_s: float, size_bytes: int) -> None:
        self._peers.heard(sender, self._loop.time())
        self.deliver(Received(self._loop.time(), sender, message, waited_s))

    def on_refused(self, sender: str, reason: str) -> None:
        raise RuntimeError(f"{self.name} could not read a message of {sender}: {reason}")

    def on_presence(self, presence: Presence) -> None:
        if self._peers.saw(presence, self._loop.time()):
            self.deliver(Peers(self._loop.time(), self._peers.present()))

    def on_link(self, up: bool, detail: str) -> None:
        if up:
            self.deliver(Linked(self._loop.time()))


async def swarm(
    site: str, seed: int, agents: list[Samples], broker: RunningBroker, speed: float, settings: dict[str, Any]
) -> dict[str, Any]:
    """What `run` does, for any samples. site: one that this broker has not seen yet, or old snapshots are met there."""
    rng = np.random.default_rng((seed, 7))
    times = {"period_s": PERIOD_S, "silence_limit_s": 300.0, "forget_s": 86_400.0}
    times = {name: settings.get(name, value) / speed for name, value in times.items()}
    strategy = PrototypeGossip(**{**settings, **times, "schema": 7})
    async with Proxy(broker.port) as proxy, contextlib.AsyncExitStack() as stack:
        devices = [Device(f"node-{i}", site, proxy.url, strategy, seed, speed) for i in range(len(agents))]
        for device in devices:
            await stack.enter_async_context(device.transport)
        for device in devices:
            await device.transport.wait_up(10)
        feeds = [
            _feed(device, x, y, arrivals(len(y), rng) / speed) for device, (x, y) in zip(devices, agents, strict=True)
        ]
        reports = asyncio.ensure_future(_report(devices, REPORT_S / speed))
        late = await asyncio.gather(*feeds)
        await asyncio.sleep(0.1)  # what was said last may arrive
        reports.cancel()
    counters = [device.transport.counters for device in devices]
    answered = [[(t.truth, t.answer, t.alone) for t in device.tested] for device in devices]
    return {
        "f1": [f1([t for t, _, _ in rows], [a for _, a, _ in rows]) for rows in answered],
        "f1_alone": [f1([t for t, _, _ in rows], [a for _, _, a in rows]) for rows in answered],
        "bytes_up": proxy.up,
        "bytes_down": proxy.down,
        "bytes_counters": sum(c["bytes_sent"] + c["bytes_received"] for c in counters),
        "decisions": dict(sum((device.decided for device in devices), Counter[str]())),
        "late_s": max(late) * speed,
        "connections": proxy.connections,
    }


async def _feed(device: Device, x: Any, y: tuple[str, ...], times_s: Any) -> float:
    """Samples at their times; returns the longest delay in s of the loop."""
    loop = asyncio.get_running_loop()
    start, late = loop.time(), 0.0
    for row, label, due in zip(x, y, times_s.tolist(), strict=True):
        await asyncio.sleep(max(0.0, start + due - loop.time()))
        device.deliver(Batch(loop.time(), row[None], (label,)))
        late = max(late, loop.time() - start - due)
    return late


async def _report(devices: list[Device], every_s: float) -> None:
    while True:
        await asyncio.sleep(every_s)
        for device in devices:
            device.report()
