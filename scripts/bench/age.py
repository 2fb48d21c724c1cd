#!/usr/bin/env python3
"""Does the age of information that agents measure agree with the formulas it is designed by?

It informs how often devices should speak: the formulas (`maths.age`) decide that, so they have to hold on real links.

real:       five of the product's agents, each with a connection of its own to Mosquitto on loopback; every one of the
            20 directed links is measured by the receiving agent itself, as `edgeswarm peers` shows it.
  paced:    strategy, codec, transport as shipped, without jitter and filter; each node learns two samples a period, so
            that there is something to say. Formula: `mean_age_paced`, half a period. A link's age is the median over
            windows of 2 s, so that a moment in which the whole machine stood still does not count.
  poisson:  messages of one prototype handed to the transports at exponential intervals, the same agents receiving.
            Formula: `mean_age_link`, 1 / rate. From n messages a mean has a standard error of sqrt(2 / n) of itself;
            links from one sender share its times, so a mean over all links rests on five processes, not on twenty.
turns:      the product's agents in virtual time, in parallel and one after the other, at equal time per turn.
            Formula: `mean_age_turns`.
queues:     a receiver that needs time, four Poisson sources, exponential service, virtual time: the newest message
            interrupts, or waits in one place, or one source queues up. Formulas 2 to 4.

Held against 15 %: the mean over links of every case; every single link where sending is regular, and elsewhere every
single link of the cases with at least 800 messages a sender, for which 15 % is three standard errors. Rates stay below
what the machine can do: where messages wait for the processor, the process is no longer the formula's.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import random
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import numpy as np  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

from edgeswarm.agent.agent import Agent  # noqa: E402
from edgeswarm.agent.clock import LoopClock  # noqa: E402
from edgeswarm.backends.sets import answer  # noqa: E402
from edgeswarm.demo.broker import start_broker  # noqa: E402
from edgeswarm.maths import age  # noqa: E402
from edgeswarm.maths.quantise import pack  # noqa: E402
from edgeswarm.messages import EVERYONE, SNAPSHOT, Message, Presence, Prototypes  # noqa: E402
from edgeswarm.sim.world import Stream, World  # noqa: E402
from edgeswarm.strategies.base import Batch, Event, Peers, Received, Started, finish  # noqa: E402
from edgeswarm.strategies.prototype_gossip import PrototypeGossip  # noqa: E402
from edgeswarm.transport.mqtt import MqttTransport  # noqa: E402
from edgeswarm.transport.settings import MqttSettings  # noqa: E402

MOST_ERROR = 0.15
DEVICES = 5
LEAST_MESSAGES = 800
PACED_HZ, POISSON_HZ = (0.5, 1.0, 2.5, 5.0), (1.0, 2.0, 5.0, 10.0, 20.0)
LOADS = (0.1, 0.2, 0.4, 0.6, 0.8, 1.2, 2.0)
SERVICE_HZ, SOURCES = 1.0, 4
FEATURES = 4
WINDOW_S = 2.0
"""A whole number of periods of every rate in PACED_HZ."""


@dataclass(frozen=True)
class Case:
    """One comparison. x: rate per link in Hz, or load.  messages: sent by each sender.  ages_s: mean age, each link."""

    kind: str
    x: float
    formula_s: float
    messages: float
    ages_s: tuple[float, ...]

    @property
    def measured_s(self) -> float:
        return statistics.mean(self.ages_s)

    @property
    def ratio(self) -> float:
        return self.measured_s / self.formula_s

    @property
    def error(self) -> float:
        """Standard error of `ratio` that comes from random sending, as far as it is known."""
        return (2 / self.messages / DEVICES) ** 0.5 if self.kind == "poisson" else math.nan

    @property
    def worst(self) -> float:
        """Ratio of the link that is furthest from the formula."""
        return max((link / self.formula_s for link in self.ages_s), key=lambda ratio: abs(ratio - 1))

    def shortfalls(self) -> Iterator[str]:
        """What is further from the formula than promised."""
        name = f"{self.kind} at {self.x:g}"
        if abs(self.ratio - 1) > MOST_ERROR:
            yield f"{name}: mean age is {self.ratio:.3f} of the formula's"
        enough = self.messages >= LEAST_MESSAGES or self.kind in ("paced", "parallel", "sequential")
        if enough and abs(self.worst - 1) > MOST_ERROR:
            yield f"{name}: one link's age is {self.worst:.3f} of the formula's"


# ---- real agents, a real broker --------------------------------------------------------------------------------------


class Device:
    """An agent on an MQTT connection, without the service round it: no disk, no sensor."""

    def __init__(self, name: str, site: str, url: str, strategy: PrototypeGossip) -> None:
        self.name = name
        self._loop = asyncio.get_running_loop()
        self._present: set[str] = set()
        settings = MqttSettings((url,), site, name, "age")
        self.transport = MqttTransport(settings, self, random.Random(name))
        self.agent = Agent(name, strategy, strategy.init(name, 0), self.transport, LoopClock(self._loop), self.deliver)
        self.transport.announce(Presence(name, "ready", 1, name))

    def deliver(self, event: Event) -> None:
        finish(self.agent.steps(event), answer)

    def on_message(self, sender: str, message: Message, waited_s: float, size_bytes: int) -> None:
        self.deliver(Received(self._loop.time(), sender, message, waited_s))

    def on_refused(self, sender: str, reason: str) -> None:
        raise AssertionError(f"{self.name} refused a message of {sender}: {reason}")

    def on_presence(self, presence: Presence) -> None:
        if presence.node != self.name and presence.state == "ready":
            self._present.add(presence.node)
            self.deliver(Peers(self._loop.time(), tuple(sorted(self._present))))

    def on_link(self, up: bool, detail: str) -> None: ...


async def mesh(url: str, rate: float, paced: bool, seconds: float) -> Case:
    """Mean ages of the links between DEVICES agents that each send at `rate` Hz for `seconds`."""
    loop = asyncio.get_running_loop()
    kind = "paced" if paced else "poisson"
    # one that only listens has nothing learnt, hence nothing to send
    strategy = PrototypeGossip(schema=1, period_s=1 / rate, jitter=0.0, filter="off", least_move=0.0)
    site = f"{kind}-{rate:g}".replace(".", "-")
    devices = [Device(f"n{i}", site, url, strategy) for i in range(DEVICES)]
    running = [asyncio.ensure_future(device.transport.run()) for device in devices]
    try:
        while not all(device.transport.heard_itself for device in devices):
            await asyncio.sleep(0.02)
        rngs = [np.random.default_rng((i, int(100 * rate))) for i in range(DEVICES)]
        act = _learn if paced else _send
        end = loop.time() + seconds
        watching = asyncio.ensure_future(_watch(devices))
        await asyncio.gather(*(act(d, rng, rate, end) for d, rng in zip(devices, rngs, strict=True)))
        watching.cancel()
        ages = (
            await watching
            if paced
            else [meter.mean(loop.time()) for device in devices for meter in device.agent.ages.values()]
        )
        updates = statistics.mean(meter.updates for device in devices for meter in device.agent.ages.values())
    finally:
        for device in devices:
            await device.transport.stop()
        await asyncio.gather(*running)
    if len(ages) != DEVICES * (DEVICES - 1):
        raise AssertionError(f"{len(ages)} links were heard")
    formula = age.mean_age_paced(1 / rate) if paced else age.mean_age_link(rate)
    return Case(kind, rate, formula, updates, tuple(ages))


async def _watch(devices: list[Device]) -> list[float]:
    """Each link's mean age, the median over windows of WINDOW_S: until cancelled."""
    loop = asyncio.get_running_loop()
    means: dict[tuple[str, str], list[float]] = {}
    areas: dict[tuple[str, str], tuple[float, float]] = {}
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            await asyncio.sleep(WINDOW_S)
            now = loop.time()
            for device in devices:
                for peer, meter in device.agent.ages.items():
                    area = meter.mean(now) * (now - meter.first_at)
                    if before := areas.get((device.name, peer)):
                        means.setdefault((device.name, peer), []).append((area - before[1]) / (now - before[0]))
                    areas[device.name, peer] = now, area
    return [statistics.median(windows) for windows in means.values()]


async def _learn(device: Device, rng: np.random.Generator, rate: float, end: float) -> None:
    """Start the agent and feed it two samples a period; it speaks on its own."""
    loop = asyncio.get_running_loop()
    device.deliver(Started(loop.time(), 1))
    due = loop.time()
    while due < end:
        x = rng.random((1, FEATURES)).astype(np.float32)
        device.deliver(Batch(loop.time(), x, ("high" if x[0, 0] > 0.5 else "low",)))
        due += 0.5 / rate
        await asyncio.sleep(max(0.0, due - loop.time()))


async def _send(device: Device, rng: np.random.Generator, rate: float, end: float) -> None:
    """Hand the transport a set whenever a Poisson process of `rate` says so."""
    loop = asyncio.get_running_loop()
    vectors = pack(np.zeros((1, FEATURES), np.float32), "int8")
    due, version = loop.time() + rng.exponential(1 / rate), 0
    while due < end:
        await asyncio.sleep(max(0.0, due - loop.time()))
        version += 1
        message = Prototypes(
            schema=1,
            epoch=1,
            version=version,
            base=version - 1 if version > 1 else SNAPSHOT,
            classes=("low",),
            ids=np.zeros(1, np.uint32),
            vectors=vectors,
            labels=np.zeros(1, np.uint16),
            counts=np.ones(1, np.float32),
            samples=version,
        )
        device.transport.send(EVERYONE, message)
        due += rng.exponential(1 / rate)
    await asyncio.sleep(max(0.0, end - loop.time()))


async def real(url: str, seconds: float, slowest_hz: float) -> list[Case]:
    """All rates at the same time, each at a site of its own; regular sending first, for half as long."""
    paced = await asyncio.gather(*(mesh(url, rate, True, seconds / 2) for rate in PACED_HZ))
    return paced + await asyncio.gather(*(mesh(url, rate, False, seconds) for rate in POISSON_HZ if rate >= slowest_hz))


# ---- virtual time ----------------------------------------------------------------------------------------------------


def turns(turn_s: float, sequential: bool, cycles: int) -> Case:
    """The product's agents in a simulated mesh; a cycle is one turn in parallel, DEVICES turns one after the other."""
    cycle_s = turn_s * DEVICES if sequential else turn_s
    strategy = PrototypeGossip(
        schema=1,
        period_s=cycle_s,
        jitter=0.0,
        filter="off",
        least_move=0.0,
        schedule="sequential" if sequential else "parallel",
    )
    until_s = cycle_s * cycles
    rng = np.random.default_rng(0)
    times = np.arange(0.0, until_s, cycle_s / 2)
    streams = {}
    for i in range(DEVICES):
        x = rng.random((times.size, FEATURES)).astype(np.float32)
        streams[f"n{i}"] = Stream(x, ["high" if row[0] > 0.5 else "low" for row in x], times)
    world = World(strategy, streams, seed=0)
    world.run(until_s)
    meters = [meter for node in world.nodes.values() for meter in node.agent.ages.values()]
    kind = "sequential" if sequential else "parallel"
    formula = age.mean_age_turns(turn_s, DEVICES, 1.0, sequential)
    updates = statistics.mean(meter.updates for meter in meters)
    return Case(kind, 1 / turn_s, formula, updates, tuple(meter.mean(until_s) for meter in meters))


def queue(kind: str, load: float, messages: int) -> Case:
    """Mean age of each source at one receiver, from `messages` messages of each. Service takes 1 / SERVICE_HZ s."""
    sources = 1 if kind == "fifo" else SOURCES
    rate = load * SERVICE_HZ / sources
    rng = np.random.default_rng(int(1000 * load))
    times = np.cumsum(rng.exponential(1 / (rate * sources), messages * sources))
    whose = rng.integers(0, sources, times.size)
    service = rng.exponential(1 / SERVICE_HZ, times.size)
    meters = [age.AgeMeter() for _ in range(sources)]
    for i, done in _DISCIPLINES[kind](times, service):
        meters[whose[i]].update(done, done - times[i])
    formula = {
        "preempting": lambda: age.mean_age_preempting(rate, SERVICE_HZ, sources),
        "replacing": lambda: age.mean_age_replacing(rate, SERVICE_HZ, sources),
        "fifo": lambda: age.mean_age_fifo(rate, SERVICE_HZ),
    }[kind]()
    return Case(kind, load, formula, messages, tuple(meter.mean(meter.last_at) for meter in meters))


def _preempting(times: Any, service: Any) -> Iterator[tuple[int, float]]:
    """(message, time at which it is worked in): those done before the next one comes."""
    done = times + service
    for i in np.flatnonzero(done[:-1] < times[1:]):
        yield int(i), float(done[i])


def _replacing(times: Any, service: Any) -> Iterator[tuple[int, float]]:
    """The newest message waits in one place for all, and takes it from an older one."""
    free, waiting, used = 0.0, -1, 0
    for i, at in enumerate(times.tolist()):
        if waiting >= 0 and free <= at:
            free, used = free + service[used], used + 1
            yield waiting, float(free)
            waiting = -1
        if free <= at:
            free, used = at + service[used], used + 1
            yield i, float(free)
        else:
            waiting = i


def _fifo(times: Any, service: Any) -> Iterator[tuple[int, float]]:
    """First come, first served."""
    free = 0.0
    for i, at in enumerate(times.tolist()):
        free = max(free, at) + service[i]
        yield i, float(free)


_DISCIPLINES: dict[str, Callable[[Any, Any], Iterator[tuple[int, float]]]] = {
    "preempting": _preempting,
    "replacing": _replacing,
    "fifo": _fifo,
}


def simulated(messages: int) -> list[Case]:
    """Turns and queues."""
    cases = [turns(1.0, sequential, 200) for sequential in (False, True)]
    for kind in _DISCIPLINES:
        cases += [queue(kind, load, messages) for load in LOADS if kind != "fifo" or load < 0.9]
    return cases


# ---- all of it -------------------------------------------------------------------------------------------------------


def main() -> int:
    from report import end
    from report import parser as options_of

    parser = options_of(__doc__, "fewer messages")
    parser.add_argument("--figure", metavar="PATH", type=Path, help="draw measured ages against the formulas (PNG)")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder, start_broker("mosquitto", Path(folder)) as broker:
        cases = asyncio.run(real(broker.url, *((22.0, 10.0) if options.quick else (120.0, 1.0))))
    cases += simulated(5_000 if options.quick else 50_000)
    missed = [text for case in cases for text in case.shortfalls()]

    if options.figure is not None:
        from age_figure import draw

        draw(cases, options.figure)
    rows = [
        {"case": c.kind, "x": c.x, "messages": c.messages, "formula_s": c.formula_s, "measured_s": c.measured_s,
         "ratio": c.ratio, "worst_link": c.worst} for c in cases
    ]  # fmt: skip

    def show() -> None:
        heads = (
            ("rate or load", 14),
            ("messages", 10),
            ("formula s", 11),
            ("measured s", 12),
            ("ratio", 8),
            ("s.e.", 8),
            ("worst link", 12),
        )
        print(f"{'case':12}" + "".join(f"{text:>{width}}" for text, width in heads))
        for c in cases:
            print(
                f"{c.kind:12}{c.x:14g}{c.messages:10.0f}{c.formula_s:11.4f}{c.measured_s:12.4f}"
                f"{c.ratio:8.3f}{'' if math.isnan(c.error) else f'{c.error:.3f}':>8}{c.worst:12.3f}"
            )

    return end(options, {"cases": rows}, missed, show)


if __name__ == "__main__":
    sys.exit(main())
