"""What the transport tests share: a listener that can be waited for, brokers with one face, a TCP proxy with faults."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import uuid
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest

from edgeswarm.agent.clock import LoopClock
from edgeswarm.demo.broker import RunningBroker, find_mosquitto
from edgeswarm.maths.compress import compress
from edgeswarm.messages import SNAPSHOT, Bids, Message, Packed, Predictions, Presence, Prototypes, Weights
from edgeswarm.transport.hub import MemoryHub
from edgeswarm.transport.memory import MemoryTransport
from edgeswarm.transport.mqtt import MqttTransport
from edgeswarm.transport.settings import MqttSettings

TASK = "wine"


def need_mosquitto() -> None:
    """Skip the test without Mosquitto, or fail it where REQUIRE_MOSQUITTO=1 says that it must be there."""
    if find_mosquitto() is None:
        if os.environ.get("REQUIRE_MOSQUITTO") == "1":
            pytest.fail("mosquitto is not installed, and REQUIRE_MOSQUITTO=1 says it must be")
        pytest.skip("mosquitto is not installed")


def finish(test: Coroutine[Any, Any, None], limit_s: float = 30.0) -> None:
    """Run one test to its end; the limit is only there to turn a hang into a failure."""
    asyncio.run(asyncio.wait_for(test, limit_s))


class Heard:
    """A listener that remembers everything, and can be waited for."""

    def __init__(self, node: str = "") -> None:
        self.node = node
        self.messages: list[tuple[str, Message, float, int]] = []
        self.refused: list[tuple[str, str]] = []
        self.presences: list[Presence] = []
        self.links: list[tuple[bool, str]] = []
        self.on_up: Callable[[], None] | None = None
        self._waiting: list[tuple[Callable[[], Any], asyncio.Future[Any]]] = []

    def on_message(self, sender: str, message: Message, waited_s: float, size_bytes: int) -> None:
        self.messages.append((sender, message, waited_s, size_bytes))
        self._check()

    def on_refused(self, sender: str, reason: str) -> None:
        self.refused.append((sender, reason))
        self._check()

    def on_presence(self, presence: Presence) -> None:
        self.presences.append(presence)
        self._check()

    def on_link(self, up: bool, detail: str) -> None:
        self.links.append((up, detail))
        if up and self.on_up is not None:
            self.on_up()
        self._check()

    def state(self, node: str) -> str:
        return next((p.state for p in reversed(self.presences) if p.node == node), "")

    def versions(self, sender: str, kind: type = Prototypes, part: str = "") -> list[int]:
        """Of its messages of a kind, in the order in which they came; part: of weights, "" for any."""
        found = [m for s, m, _, _ in self.messages if s == sender and isinstance(m, kind)]
        return [m.version for m in found if not part or m.part == part]

    def _check(self) -> None:
        for wanted, answer in self._waiting:
            if not answer.done() and wanted():
                answer.set_result(None)

    async def until(self, wanted: Callable[[], Any], limit_s: float = 12.0) -> None:
        """Return once `wanted()` is true; looked at again whenever something was heard."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        entry = (wanted, answer)
        self._waiting.append(entry)
        try:
            self._check()
            await asyncio.wait_for(answer, limit_s)
        except asyncio.TimeoutError:
            raise AssertionError(
                f"{self.node} waited in vain; heard {self.presences} {self.refused} {self.links}"
            ) from None
        finally:
            self._waiting.remove(entry)


async def until(wanted: Callable[[], Any], limit_s: float = 12.0) -> None:
    """Return once `wanted()` is true, for facts nobody is called about (counters)."""
    for _ in range(int(limit_s / 0.02)):
        if wanted():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("waited in vain")


def prototypes(k: int = 3, d: int = 4, version: int = 1, base: int = SNAPSHOT, schema: int = 7) -> Prototypes:
    """A set of k points whose values tell one version from another."""
    rng = np.random.default_rng(version)
    return Prototypes(
        schema=schema,
        epoch=1,
        version=version,
        base=base,
        classes=("a", "b"),
        ids=np.arange(k, dtype=np.uint32),
        vectors=Packed(
            "float32", rng.normal(size=(k, d)).astype(np.float32), np.ones(d, np.float32), np.zeros(d, np.float32)
        ),
        labels=(np.arange(k) % 2).astype(np.uint16),
        counts=np.ones(k, np.float32),
    )


def weights(size: int = 50, version: int = 1, part: str = "all", base: int = SNAPSHOT) -> Weights:
    """A model of `size` numbers that tell one version from another."""
    values = compress(np.random.default_rng(version).normal(size=size).astype(np.float32), "float32")
    return Weights(7, 8, part, 1, version, values, base)


def predictions(n: int = 20, version: int = 1, base: int = SNAPSHOT) -> Predictions:
    shares = np.random.default_rng(version).dirichlet(np.ones(3), (n, 2)).astype(np.float32)
    none = np.zeros((0, 0, 0), np.uint8)
    rows = np.arange(n, dtype=np.uint32)
    return Predictions(7, 9, 1, version, 3, rows, "float32", shares, none, np.full(n, 255, np.uint8), base=base)


def bids(n: int = 20, version: int = 1) -> Bids:
    return Bids(7, 9, 1, version, (np.arange(n) % 256).astype(np.uint8))


def ready(node: str, epoch: int = 1, instance: str = "") -> Presence:
    return Presence(node, "ready", epoch, instance or f"i-{node}-{epoch}", {"samples": 3})


class World:
    """Nodes that meet at one broker (or in one memory hub), at a site of this test's own."""

    def __init__(self, broker: RunningBroker | None, protocol: str = "auto", **settings: Any) -> None:
        self.broker, self.protocol, self.settings = broker, protocol, settings
        self.site = "t" + uuid.uuid4().hex[:10]
        self.hub: MemoryHub | None = None
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> World:
        if self.broker is None:
            limit = self.settings.get("packet_limit_bytes", 120_000)
            clock = LoopClock(asyncio.get_running_loop())
            self.hub = MemoryHub(clock, random.Random(1), site=self.site, task=TASK, packet_limit_bytes=limit)
        await self._stack.__aenter__()
        return self

    async def __aexit__(self, *what: Any) -> None:
        await self._stack.__aexit__(*what)

    def mqtt(self, node: str, heard: Heard, **settings: Any) -> MqttTransport:
        """A transport that is not running yet."""
        assert self.broker is not None
        chosen: dict[str, Any] = {
            "urls": (self.broker.url,),
            "site": self.site,
            "node": node,
            "task": TASK if node else "",
            "protocol": self.protocol,
            "first_wait_s": 0.05,
            "most_wait_s": 0.2,
        }
        return MqttTransport(MqttSettings(**{**chosen, **self.settings, **settings}), heard, random.Random(node))

    async def join(
        self, node: str, presence: Presence | None = None, heard: Heard | None = None, **settings: Any
    ) -> tuple[Any, Heard]:
        """A linked, announced transport and its listener."""
        heard = heard or Heard(node)
        if self.hub is not None:
            member: MemoryTransport = self.hub.join(node, heard)
            member.announce(presence or ready(node))
            await heard.until(lambda: heard.links)
            return member, heard
        transport = self.mqtt(node, heard, **settings)
        if node:
            transport.announce(presence or ready(node))
        await self._stack.enter_async_context(transport)
        await transport.wait_up(10)
        if node:
            # the broker has then read our subscriptions
            await until(lambda: transport.heard_itself)
        return transport, heard

    async def leave(self, transport: Any) -> None:
        if isinstance(transport, MemoryTransport):
            transport.leave()
        else:
            await transport.stop()


class Proxy:
    """A TCP proxy on loopback that counts bytes and can cut, stall or end connections.

    to_broker, to_client: bytes passed on.  cut_to_broker, cut_to_client: end the connection once so many bytes of the
    present connection have passed that way, in the middle of whatever packet that is; used up by doing so.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.to_broker = self.to_client = self.connections = 0
        self.cut_to_broker: int | None = None
        self.cut_to_client: int | None = None
        self.url = ""

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"mqtt://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: Any) -> None:
        self._server.close()
        self.drop()
        for task in list(self._tasks):
            with contextlib.suppress(asyncio.CancelledError):
                task.cancel()
                await task
        await self._server.wait_closed()

    def drop(self) -> None:
        """End every connection at once, without a word of MQTT."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            there_reader, there = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, there}
        try:
            ways = (self._pass(reader, there, "broker"), self._pass(there_reader, writer, "client"))
            await asyncio.gather(*ways)
        finally:
            self._writers -= {writer, there}
            writer.transport.abort()
            there.transport.abort()
            self._tasks.discard(task)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: str) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                limit = getattr(self, f"cut_to_{way}")
                cut = limit is not None and passed + len(data) >= limit
                if cut:
                    data = data[: limit - passed]
                    setattr(self, f"cut_to_{way}", None)
                passed += len(data)
                setattr(self, f"to_{way}", getattr(self, f"to_{way}") + len(data))
                writer.write(data)
                await writer.drain()
                if cut:
                    # what was passed on must arrive before the end does
                    writer.close()
                    self.drop_all_but(writer)
                    return
            if writer.can_write_eof():
                writer.write_eof()

    def drop_all_but(self, keep: asyncio.StreamWriter) -> None:
        """Abort the other half of a cut connection (tests that cut have one connection)."""
        for writer in list(self._writers):
            if writer is not keep:
                writer.transport.abort()
