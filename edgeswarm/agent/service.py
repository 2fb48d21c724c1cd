"""The agent as a long-running process: one inbox, named tasks, an orderly stop.

Everything that happens (a sample, a message, a wake-up, peers coming and going) goes into one inbox in the order it
happened, and one task takes it out, so the agent is never entered twice. Arithmetic a step asks for runs in a worker
thread; the event loop, and with it the connection to the broker, never waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import random
import secrets
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeswarm import __version__
from edgeswarm.agent.agent import Agent
from edgeswarm.agent.clock import LoopClock
from edgeswarm.agent.config import build_strategy
from edgeswarm.agent.memory import Memory
from edgeswarm.agent.peers import PeerTable
from edgeswarm.agent.settings import Config
from edgeswarm.agent.sources import MqttSource, Sample, Schema, labelled_file, open_source
from edgeswarm.agent.systemd import notify, watchdog_s
from edgeswarm.backends.reference import answer
from edgeswarm.errors import EdgeswarmError
from edgeswarm.messages import Message, Presence
from edgeswarm.strategies.base import Batch, Event, Linked, Peers, Received, Started
from edgeswarm.transport.mqtt import MqttTransport
from edgeswarm.transport.settings import MqttSettings
from edgeswarm.wire.status import encode_report

log = logging.getLogger(__name__)

INBOX_LIMIT = 4096
"""Messages waiting to be looked at; more are dropped and counted, and anti-entropy brings what they said."""
BATCH_LIMIT = 64
"""Samples of a file read at full speed that are learnt in one step."""
AHEAD_LIMIT = 2 * BATCH_LIMIT


def mqtt_settings(config: Config) -> MqttSettings:
    """What the transport is told, from the configuration."""
    broker = config.broker
    return MqttSettings(
        urls=broker.url,
        site=config.site,
        node=config.node,
        task=config.task,
        keepalive_s=broker.keepalive_s,
        packet_limit_bytes=broker.packet_limit_bytes,
        ca_file=_path(broker.ca),
        cert_file=_path(broker.cert),
        key_file=_path(broker.key),
        username=broker.username,
        password_file=_path(broker.password_file),
        allow_plain=broker.allow_plain_text,
        protocol=broker.protocol,
    )


def _path(text: str) -> Path | None:
    return Path(text) if text else None


async def serve(config: Config) -> int:
    """Run one agent until SIGTERM or SIGINT; returns the exit code 0.

    Raises EdgeswarmError for what the operator must mend before anything can run.
    """
    service = Service(config)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, service.stop)
    try:
        await service.run()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
    return 0


class Service:
    """One agent with its source, its connection and its state folder. Also the transport's `Listener`."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.counters: Counter[str] = Counter()
        self._memory = Memory(config)
        self._source = open_source(config.source, config.task, seed=config.seed, features=self._memory.features)
        self._instance = secrets.token_hex(4)
        self._peers = PeerTable(config.node, silence_s=max(3600.0, 10 * config.report.every_s))
        self._transport = MqttTransport(mqtt_settings(config), self, random.Random(secrets.randbits(64)))
        self._inbox: deque[Event | Sample] = deque()
        self._filled = asyncio.Event()
        self._room = asyncio.Event()
        self._waiting_messages = self._waiting_samples = 0
        self._stopping = asyncio.Event()
        self._known = asyncio.Event()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="edgeswarm arithmetic")
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="edgeswarm disk")
        self._agent: Agent[Any] | None = None
        self._schema: Schema | None = None
        self._taken = 0
        self._finished = False
        self._link = (False, "not connected yet")
        self._started_at = time.monotonic()
        self._told_refused: set[tuple[str, str]] = set()

    # ---- life --------------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Ask for an orderly end; a second time, end at once."""
        if self._stopping.is_set():
            os._exit(130)
        log.info("stopping")
        self._stopping.set()

    async def run(self) -> None:
        """Until `stop`. What was learnt is saved at the end, whatever the end is."""
        if isinstance(self._source, MqttSource):
            for topic in self._source.subscriptions:
                self._transport.subscribe_raw(topic, 1, self._on_reading)
        tasks = [
            self._task(self._transport.run(), "transport"),
            self._task(self._feed(), "source"),
            self._task(self._work(), "agent"),
            self._task(self._report_for_ever(), "report"),
            self._task(self._save_for_ever(), "save"),
            self._task(self._stopping.wait(), "stop"),
        ]
        if self.config.evaluate.path:
            tasks.append(self._task(self._evaluate_for_ever(), "evaluate"))
        if period_s := watchdog_s():
            tasks.append(self._task(self._live_for_ever(period_s), "watchdog"))
        log.info("%s: epoch %d, state in %s", self.config.node, self._memory.epoch, self.config.state.folder)
        try:
            await self._until_the_end(tasks)
        finally:
            notify("STOPPING=1")
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._transport.stop(), 3.0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._save()
            self._write_status()
            self._memory.close()
            self._worker.shutdown(wait=False)
            self._disk.shutdown(wait=False)

    def _task(self, coroutine: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        return asyncio.get_running_loop().create_task(coroutine, name=f"edgeswarm {name}")

    async def _until_the_end(self, tasks: list[asyncio.Task[Any]]) -> None:
        """Wait for `stop`; a task that fails ends the service with its error, one that is done is no news."""
        pending = set(tasks)
        while not self._stopping.is_set():
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if error := task.exception():
                    raise error

    # ---- the inbox ---------------------------------------------------------------------------------------------------

    def _put(self, event: Event | Sample) -> None:
        if isinstance(event, Received):
            if self._waiting_messages >= INBOX_LIMIT:
                self.counters["inbox_full"] += 1
                return
            self._waiting_messages += 1
        elif isinstance(event, Sample):
            self._waiting_samples += 1
        self._inbox.append(event)
        self._filled.set()

    def _take(self) -> Event | list[Sample]:
        """The next event, or all samples that come next up to a limit."""
        first = self._inbox.popleft()
        if not isinstance(first, Sample):
            self._waiting_messages -= isinstance(first, Received)
            return first
        samples = [first]
        while self._inbox and len(samples) < BATCH_LIMIT and isinstance(self._inbox[0], Sample):
            samples.append(self._inbox.popleft())  # type: ignore[arg-type]
        self._waiting_samples -= len(samples)
        self._room.set()
        return samples

    async def _work(self) -> None:
        """The one task that enters the agent."""
        await self._known.wait()
        agent = self._begin()
        busy_since = time.monotonic()
        while True:
            while not self._inbox:
                self._filled.clear()
                await self._filled.wait()
                busy_since = time.monotonic()
            item = self._take()
            try:
                if isinstance(item, list):
                    await self._learn(agent, item)
                else:
                    await self._drive(agent, item)
            except EdgeswarmError:
                raise
            except Exception:  # a bug of ours: loud, but one bad event must not end a device's learning
                self.counters["faults"] += 1
                log.exception("a step failed; the state is as it was before it. This is a bug in edgeswarm")
            if time.monotonic() - busy_since > 0.02:  # a full inbox must not starve the connection
                await asyncio.sleep(0)
                busy_since = time.monotonic()

    def _begin(self) -> Agent[Any]:
        """The agent, once it is known what the samples look like."""
        schema = self._source.schema()
        assert schema is not None
        strategy = replace(build_strategy(self.config.strategy), schema=schema.fingerprint)
        clock = LoopClock(asyncio.get_running_loop())
        state = self._memory.restore(strategy, schema)
        ledger = self._memory.ledger
        agent = Agent(self.config.node, strategy, state, self._transport, clock, self._put, ledger.record)
        self._agent, self._schema = agent, schema
        self._inbox.appendleft(Started(clock.now(), self._memory.epoch))
        self._announce()
        notify("READY=1")
        log.info(
            "learning %s with %s from %d features", self.config.task, self.config.strategy.name, len(schema.features)
        )
        return agent

    async def _drive(self, agent: Agent[Any], event: Event) -> None:
        """One event through the agent; each sum it asks for runs in the worker thread."""
        steps = agent.steps(event)
        loop = asyncio.get_running_loop()
        reply: Any = None
        while True:
            try:
                request = steps.send(reply)
            except StopIteration:
                return
            reply = await loop.run_in_executor(self._worker, answer, request)

    async def _learn(self, agent: Agent[Any], samples: list[Sample]) -> None:
        """Labelled samples are learnt, unlabelled ones answered; order is kept."""
        now = asyncio.get_running_loop().time()
        labelled: list[Sample] = []
        for sample in samples:
            if sample.label is not None:
                labelled.append(sample)
                continue
            if labelled:
                await self._drive(agent, _batch(now, labelled))
                labelled = []
            self._answer(agent, sample)
        if labelled:
            await self._drive(agent, _batch(now, labelled))

    def _answer(self, agent: Agent[Any], sample: Sample) -> None:
        """Publish what this node makes of an unlabelled sample."""
        (label,), (confidence,) = agent.strategy.predict(agent.state, sample.x[None])
        self.counters["predictions"] += 1
        topic = self.config.source.predictions_topic
        if topic and isinstance(self._source, MqttSource):
            self._transport.publish_raw(topic, self._source.prediction_payload(sample.id, label, float(confidence)), 1)

    # ---- samples -----------------------------------------------------------------------------------------------------

    async def _feed(self) -> None:
        """Samples into the inbox, never far ahead of the learning."""
        if self._source.schema() is not None:
            self._known.set()
        skip = 0 if isinstance(self._source, MqttSource) or self.config.source.repeat else self._memory.taken
        if skip:
            log.info("%s: going on after the %d samples learnt before", self.config.source.path, skip)
        async for sample in self._samples(skip):
            self._known.set()
            self._taken += 1
            self._put(sample)
            while self._waiting_samples >= AHEAD_LIMIT:
                self._room.clear()
                await self._room.wait()
        self._finished = True
        log.info("%s: read to its end", self.config.source.path)

    async def _samples(self, skip: int) -> Any:
        """The source's samples, without the first `skip` of a file and without the pace for those."""
        if skip and not isinstance(self._source, MqttSource):
            pace, self._source._pace = self._source._pace, type(self._source._pace)(0.0)
            async for sample in self._source.samples():
                if self._taken < skip:
                    self._taken += 1
                    if self._taken == skip:
                        self._source._pace = pace
                    continue
                yield sample
        else:
            async for sample in self._source.samples():
                yield sample

    def _on_reading(self, topic: str, payload: bytes, retained: bool) -> None:
        assert isinstance(self._source, MqttSource)
        self._source.push(payload, topic)

    # ---- the transport's listener ------------------------------------------------------------------------------------

    def on_message(self, sender: str, message: Message, waited_s: float, size_bytes: int) -> None:
        """A peer's message came."""
        now = asyncio.get_running_loop().time()
        self._peers.heard(sender, now)
        self._put(Received(now, sender, message, waited_s))

    def on_refused(self, sender: str, reason: str) -> None:
        """A peer sent bytes that are no message; said once per peer and reason, counted always."""
        self.counters[f"refused_{reason}"] += 1
        if (sender, reason) not in self._told_refused and len(self._told_refused) < 1000:
            self._told_refused.add((sender, reason))
            log.warning("dropped a message from %s: %s", sender, reason)

    def on_presence(self, presence: Presence) -> None:
        """Somebody came, went or reported; or this node's own name was seen in an earlier life."""
        now = asyncio.get_running_loop().time()
        if presence.node == self.config.node:
            if presence.epoch >= self._memory.epoch:
                epoch = self._memory.raise_epoch(presence.epoch)
                log.warning("the broker knows this name with epoch %d; going on as %d", presence.epoch, epoch)
                self._announce()
                self._put(Started(now, epoch))
            return
        if self._peers.saw(presence, now):
            self._put(Peers(now, self._peers.present()))

    def on_link(self, up: bool, detail: str) -> None:
        """The connection came or went."""
        (log.info if up else log.warning)("%s", detail)
        self._link = (up, detail)
        if up:
            self._put(Linked(asyncio.get_running_loop().time()))

    # ---- saying and saving -------------------------------------------------------------------------------------------

    def _announce(self) -> None:
        if self._schema is None:
            return
        facts = {
            "version": __version__,
            "strategy": self.config.strategy.name,
            "task": self.config.task,
            "features": len(self._schema.features),
            "schema": f"{self._schema.fingerprint:016x}",
        }
        self._transport.announce(Presence(self.config.node, "ready", self._memory.epoch, self._instance, facts))

    def report(self) -> dict[str, Any]:
        """Everything an operator could want to know, as numbers: notes of this node, and of its link to each peer."""
        agent = self._agent
        notes = dict(agent.notes) if agent else {}
        counters = {**self._transport.counters, **self.counters}
        counters |= {f"dropped_{reason}": count for reason, count in self._source.dropped.items()}
        notes |= {name: float(value) for name, value in counters.items()}
        notes["uptime_s"] = time.monotonic() - self._started_at
        notes["finished"] = float(self._finished)
        notes["disk_fault"] = float(bool(self._memory.fault))
        return {"notes": notes, "links": agent.link_report() if agent else {}}

    async def _report_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self.config.report.every_s)
            if self._peers.sweep(asyncio.get_running_loop().time()):
                self._put(Peers(asyncio.get_running_loop().time(), self._peers.present()))
            report = self.report()
            links = report["links"]
            if len(links) > 1000:  # what one report may hold; the rest is in this node's own status
                report = {**report, "links": dict(sorted(links.items())[:1000])}
            self._transport.publish_report(encode_report(report))
            self._write_status()

    def _write_status(self) -> None:
        """status.json beside the state, for `edgeswarm status`; not synced, since it is of no use after a crash."""
        up, detail = self._link
        config = self.config
        report = self.report()
        status = {
            "node": config.node,
            "site": config.site,
            "task": config.task,
            "pid": os.getpid(),
            "at_unix": time.time(),
            "uptime_s": report["notes"]["uptime_s"],
            "epoch": self._memory.epoch,
            "version": __version__,
            "link": {"up": up, "detail": detail},
            "disk_fault": self._memory.fault,
            "stopped": self._stopping.is_set(),
            **report,
        }
        path = Path(config.state.folder, "status.json")
        with contextlib.suppress(OSError):  # the save task reports trouble with this folder
            fresh = path.with_suffix(".json.new")
            fresh.write_text(json.dumps(status, default=float), encoding="utf-8")
            fresh.replace(path)

    async def _save_for_ever(self) -> None:
        await self._known.wait()
        while True:
            await asyncio.sleep(self.config.state.every_s)
            await asyncio.get_running_loop().run_in_executor(self._disk, self._save)

    def _save(self) -> None:
        # The state is a value: the worker thread can pack it while the agent moves on to the next one.
        if self._agent is not None and self._schema is not None:
            taken = self._taken - self._waiting_samples
            self._memory.save(self._agent.strategy, self._agent.state, self._schema, taken)

    async def _live_for_ever(self, period_s: float) -> None:
        while True:
            notify("WATCHDOG=1")
            await asyncio.sleep(period_s)

    # ---- scoring against a labelled file -----------------------------------------------------------------------------

    async def _evaluate_for_ever(self) -> None:
        config = self.config
        loop = asyncio.get_running_loop()
        while self._agent is None or self._schema is None:
            await asyncio.sleep(0.05)
        load: Callable[[], Any] = lambda: labelled_file(  # noqa: E731
            config.source, config.evaluate.path, config.evaluate.label, self._schema or Schema("", ()), seed=config.seed
        )
        x, truth = await loop.run_in_executor(self._worker, load)
        while True:
            agent = self._agent
            for name, alone in (("holdout_alone", True), ("holdout_swarm", False)):
                said, _ = await loop.run_in_executor(self._worker, agent.strategy.predict, agent.state, x, alone)
                agent.notes[name] = float(np.mean([a == b for a, b in zip(said, truth, strict=True)]))
            await asyncio.sleep(config.evaluate.every_s)


def _batch(at: float, samples: list[Sample]) -> Batch:
    return Batch(at, np.stack([sample.x for sample in samples]), tuple(str(sample.label) for sample in samples))
