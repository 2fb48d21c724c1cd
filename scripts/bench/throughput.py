"""Messages per second through a broker: a bare paho loop beside the product. Used by agent.py.

Both sides have a sender and a receiver in one process, Mosquitto on loopback, MQTT 5, QoS 1, at most 20 messages under
way, and payloads of equal size. The sender has all its messages ready; the clock runs from the first call until the
receiver has seen the last one.

bare:    two paho clients, each with the thread that `loop_start` starts; the receiver counts. No properties.
single:  the same without threads: `loop()` of both clients in turns until all has come.
product: `MqttTransport.send` of `Prototypes` (a difference: rows of a 250-prototype set, and class summaries), which
         encodes each one, to an `MqttTransport` whose listener hands each decoded message to an `Agent` with
         `PrototypeGossip`, which joins it into its replica. That the last version has arrived there is checked.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import statistics
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import paho.mqtt.client as paho

from edgeswarm.agent.agent import Agent
from edgeswarm.agent.clock import LoopClock
from edgeswarm.backends.sets import answer
from edgeswarm.demo.broker import start_broker
from edgeswarm.maths.learner import HALF_LIVES
from edgeswarm.maths.quantise import pack
from edgeswarm.messages import EVERYONE, SNAPSHOT, Presence, Prototypes
from edgeswarm.strategies.base import Received, Started, finish
from edgeswarm.strategies.prototype_gossip import PrototypeGossip
from edgeswarm.transport.mqtt import MqttTransport
from edgeswarm.transport.settings import MqttSettings
from edgeswarm.wire.codec import encode

WINDOW = 20
FEATURES, HELD, BYTES = 8, 250, 1024
_PATIENCE_S = 60.0
_TOPIC = "bench/bare"


def differences(count: int) -> list[Prototypes]:
    """A snapshot of HELD prototypes and `count` differences of as near to BYTES bytes as whole rows allow."""
    rng = np.random.default_rng(0)
    rows = 10
    while len(encode(_message(rng, 2, rows + 1))) <= BYTES:
        rows += 1
    return [_message(rng, 1, HELD), *(_message(rng, version, rows) for version in range(2, count + 2))]


def _message(rng: np.random.Generator, version: int, rows: int) -> Prototypes:
    whole = rows == HELD
    return Prototypes(
        schema=1,
        epoch=1,
        version=version,
        base=SNAPSHOT if whole else version - 1,
        classes=("empty", "occupied"),
        ids=np.sort(rng.choice(HELD, rows, replace=False)).astype(np.uint32),
        vectors=pack(rng.normal(size=(rows, FEATURES)).astype(np.float32), "int8"),
        labels=rng.integers(0, 2, rows).astype(np.uint16),
        counts=rng.integers(1, 50, rows).astype(np.float32),
        samples=version,
        summary=rng.uniform(0.1, 1.0, (2 * len(HALF_LIVES), 1 + 2 * FEATURES)).astype(np.float16),
    )


# ---- bare paho -------------------------------------------------------------------------------------------------------


def _pair(count: Any, ready: threading.Event) -> tuple[paho.Client, paho.Client]:
    """Receiver and sender; `count` is the receiver's on_message, `ready` is set once it is subscribed."""
    receiver, sender = (paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5) for _ in range(2))
    receiver.on_message = count
    receiver.on_connect = lambda *_: receiver.subscribe(_TOPIC, 1)
    receiver.on_subscribe = lambda *_: ready.set()
    sender.max_inflight_messages_set(WINDOW)
    return receiver, sender


def bare(port: int, payloads: list[bytes]) -> tuple[float, float]:
    """(messages per second, CPU seconds of this process per message) of two paho clients with a thread each."""
    ready, done, missing = threading.Event(), threading.Event(), len(payloads)

    def count(*_: Any) -> None:
        nonlocal missing
        missing -= 1
        if not missing:
            done.set()

    receiver, sender = _pair(count, ready)
    for client in (receiver, sender):
        client.connect("127.0.0.1", port)
        client.loop_start()
    try:
        if not ready.wait(_PATIENCE_S):
            raise TimeoutError("the broker did not grant the subscription")
        clock, cpu = time.perf_counter(), time.process_time()
        for payload in payloads:
            sender.publish(_TOPIC, payload, 1)
        if not done.wait(_PATIENCE_S):
            raise TimeoutError(f"{missing} messages did not arrive")
        return len(payloads) / (time.perf_counter() - clock), (time.process_time() - cpu) / len(payloads)
    finally:
        for client in (receiver, sender):
            client.disconnect()
            client.loop_stop()


def single(port: int, payloads: list[bytes]) -> tuple[float, float]:
    """The same in one thread."""
    ready, missing = threading.Event(), len(payloads)

    def count(*_: Any) -> None:
        nonlocal missing
        missing -= 1

    clients = receiver, sender = _pair(count, ready)
    for client in clients:
        client.connect("127.0.0.1", port)
    until = time.monotonic() + _PATIENCE_S
    while not (ready.is_set() and sender.is_connected()):
        for client in clients:
            client.loop(0.01)
    clock, cpu = time.perf_counter(), time.process_time()
    for payload in payloads:
        sender.publish(_TOPIC, payload, 1)
    while missing:
        if time.monotonic() > until:
            raise TimeoutError(f"{missing} messages did not arrive")
        sender.loop(0)
        receiver.loop(0)
    figures = len(payloads) / (time.perf_counter() - clock), (time.process_time() - cpu) / len(payloads)
    for client in clients:
        client.disconnect()
    return figures


# ---- the product -----------------------------------------------------------------------------------------------------


class Ear:
    """A transport's listener: what comes goes to the agent."""

    def __init__(self) -> None:
        self.agent: Agent[Any] | None = None
        self.taken = 0
        self.wanted = -1
        self.done = asyncio.Event()

    def on_message(self, sender: str, message: Any, waited_s: float, size_bytes: int) -> None:
        if self.agent is not None:
            now = asyncio.get_running_loop().time()
            finish(self.agent.steps(Received(now, sender, message, waited_s)), answer)
            self.taken += 1
            if self.taken == self.wanted:
                self.done.set()

    def on_refused(self, sender: str, reason: str) -> None:
        raise AssertionError(f"a message of {sender} was refused: {reason}")

    def on_presence(self, presence: Presence) -> None: ...

    def on_link(self, up: bool, detail: str) -> None: ...


async def product(url: str, messages: list[Prototypes]) -> tuple[float, float]:
    """As `bare`, for the product; the first of `messages` is sent before the clock runs."""
    site, ears = "s" + os.urandom(4).hex(), (Ear(), Ear())
    sender, receiver = (
        MqttTransport(
            MqttSettings((url,), site, node, "bench", window=WINDOW, outbox_limit_bytes=1 << 30), ear, random.Random(0)
        )
        for node, ear in zip(("sender", "receiver"), ears, strict=True)
    )
    sender.announce(Presence("sender", "ready", 1, "a"))
    receiver.announce(Presence("receiver", "ready", 1, "b"))
    loop = asyncio.get_running_loop()
    async with sender, receiver:
        while not (sender.heard_itself and receiver.heard_itself):
            await asyncio.sleep(0.01)
        strategy = PrototypeGossip(schema=1)
        ear = ears[1]
        ear.agent = agent = Agent(
            "receiver", strategy, strategy.init("receiver", 0), receiver, LoopClock(loop), lambda event: None
        )
        finish(agent.steps(Started(loop.time(), 1)), answer)
        sender.send(EVERYONE, messages[0])
        while not ear.taken:
            await asyncio.sleep(0.01)
        ear.taken, ear.wanted = 0, len(messages) - 1
        clock, cpu = time.perf_counter(), time.process_time()
        for sent, message in enumerate(messages[1:], 1):
            sender.send(EVERYONE, message)
            if sent % WINDOW == 0:  # nothing leaves before the event loop gets its turn
                await asyncio.sleep(0)
        await asyncio.wait_for(ear.done.wait(), _PATIENCE_S)
        rate = ear.wanted / (time.perf_counter() - clock)
        cpu = (time.process_time() - cpu) / ear.wanted
        replica = agent.state.replicas["sender"]
        if replica.behind(1, messages[-1].version) or len(replica) != HELD:
            raise AssertionError("the agent has not taken in what was sent")
    return rate, cpu


# ---- side by side ----------------------------------------------------------------------------------------------------


def side_by_side(repeats: int, count: int, folder: Path) -> dict[str, float]:
    """Medians over `repeats` rounds; ratios, the more the better, are medians of each round's own."""
    messages = differences(count)
    payloads = [encode(message) for message in messages[1:]]
    gc.collect()
    gc.freeze()  # the prepared messages are not for the collector to walk through again and again
    rates: dict[str, list[float]] = {"bare": [], "single": [], "product": []}
    cpus: dict[str, list[float]] = {"bare": [], "single": [], "product": []}
    with start_broker("mosquitto", folder) as broker:
        for _ in range(repeats):
            for name, run in (
                ("bare", lambda: bare(broker.port, payloads)),
                ("product", lambda: asyncio.run(product(broker.url, messages))),
                ("single", lambda: single(broker.port, payloads)),
            ):
                rate, cpu = run()
                rates[name].append(rate)
                cpus[name].append(cpu)
    gc.unfreeze()

    def ratio(above: list[float], below: list[float]) -> float:
        return statistics.median(a / b for a, b in zip(above, below, strict=True))

    return {
        "payload_bytes": statistics.mean(map(len, payloads)),
        **{f"{name}_messages_per_s": statistics.median(values) for name, values in rates.items()},
        **{f"{name}_cpu_us_per_message": 1e6 * statistics.median(values) for name, values in cpus.items()},
        "ratio_messages": ratio(rates["product"], rates["bare"]),
        "ratio_messages_single": ratio(rates["product"], rates["single"]),
        "ratio_cpu": ratio(cpus["bare"], cpus["product"]),
        "ratio_cpu_single": ratio(cpus["single"], cpus["product"]),
    }
