"""The agent as a long-running process: one inbox, named tasks, an orderly stop.

Everything that happens (a sample, a message, a wake-up, peers coming and going) goes into one inbox in the order it
happened, and one task takes it out, so the agent is never entered twice. Arithmetic a step asks for runs in a worker
thread, and everything that touches the disk in another; the event loop, and with it the connection to the broker,
waits for neither.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import secrets
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeswarm import __version__
from edgeswarm.agent.agent import Agent
from edgeswarm.agent.clock import LoopClock
from edgeswarm.agent.config import build_strategy
from edgeswarm.agent.inbox import Inbox, Item
from edgeswarm.agent.memory import Memory
from edgeswarm.agent.peers import PeerTable
from edgeswarm.agent.settings import Config
from edgeswarm.agent.sources import MqttSource, Sample, Schema, labelled_file, open_source
from edgeswarm.agent.status_file import write_status
from edgeswarm.agent.systemd import notify, watchdog_s
from edgeswarm.backends.reference import answer
from edgeswarm.errors import EdgeswarmError
from edgeswarm.messages import Message, Presence
from edgeswarm.strategies.base import Batch, Event, Linked, Peers, Received, Started, Woke
from edgeswarm.transport.mqtt import MqttTransport
from edgeswarm.transport.settings import MqttSettings
from edgeswarm.wire.status import encode_report

log = logging.getLogger(__name__)

BATCH_LIMIT = 64
"""Samples learnt in one step, at most."""
STEP_TARGET_S = 0.02
"""How long a step may keep the event loop: batches shrink where learning is slow (many features, many peers)."""
FAULT_PAUSE_S = 1.0
"""A wake-up whose step failed comes again after this time."""
GOODBYE_LIMIT_S = 2.0
"""Time for the last words to the broker when stopping; service managers and people wait for little longer."""
PREDICT_ROWS = 256
"""Rows scored at a time, so that arithmetic that learning waits for gets its turn in between."""
LINKS_LIMIT = 1000
"""Links one report may hold."""
TOLD_LIMIT = 1000
HEADLINES = ("samples", "prototypes", "accuracy_alone", "accuracy_swarm")
HEADLINES_EVERY_S = 120.0
"""Presence is retained, so it is what a visitor sees at once; a few numbers in it are renewed this often."""
PACKET_HEAD_BYTES = 256


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
    loop = asyncio.get_running_loop()
    service = Service(config)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, service.stop, 128 + number)
    try:
        await service.run()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
    return 0


class Service:
    """One agent with its source, its connection and its state folder. Also the transport's `Listener`.

    counters: refused_<reason>, inbox_full, predictions, unlabelled (samples nobody wants a prediction of), batches,
    faults (bugs of ours that were survived).
    """

    def __init__(self, config: Config) -> None:
        """Raises EdgeswarmError: the state folder is another agent's, the source or a broker setting is unusable."""
        self.config = config
        self.counters: Counter[str] = Counter()
        self._memory = Memory(config)
        try:
            self._source = open_source(config.source, config.task, seed=config.seed, features=self._memory.features)
            self._transport = MqttTransport(mqtt_settings(config), self, random.Random(secrets.randbits(64)))
        except BaseException:
            self._memory.close()
            raise
        self._instance = secrets.token_hex(4)
        self._peers = PeerTable(config.node, silence_s=max(3600.0, 10 * config.report.every_s))
        self._inbox = Inbox()
        self._stopping = asyncio.Event()
        self._known = asyncio.Event()
        self._outdated = asyncio.Event()
        self._status_due = asyncio.Event()
        self._seen_epoch = 0
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="edgeswarm arithmetic")
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="edgeswarm disk")
        self._agent: Agent[Any] | None = None
        self._schema: Schema | None = None
        self._taken = 0
        self._point: tuple[Any, int] = (None, 0)
        self._sample_s = STEP_TARGET_S / BATCH_LIMIT
        self._finished = False
        self._link = (False, "not connected yet")
        self._started_at = self._announced_at = time.monotonic()
        self._told_refused: set[tuple[str, str]] = set()

    # ---- life --------------------------------------------------------------------------------------------------------

    def stop(self, code: int = 130) -> None:
        """Ask for an orderly end; a second time, end the process at once with exit code `code`."""
        if self._stopping.is_set():
            os._exit(code)
        log.info("stopping")
        self._stopping.set()

    async def run(self) -> None:
        """Until `stop`. What was learnt is saved at the end, whatever the end is.

        Raises EdgeswarmError: the saved state or the source cannot be used with this configuration.
        """
        tasks: list[asyncio.Task[Any]] = []
        config, every = self.config, self._every
        try:
            log.info("%s: epoch %d, state in %s", config.node, self._memory.epoch, config.state.folder)
            if isinstance(self._source, MqttSource):
                for topic in self._source.subscriptions:
                    self._transport.subscribe_raw(topic, 1, self._on_reading)
            if self._source.schema() is None:
                self._announce()
            else:
                self._begin()
            # Now, not with the first sample: a sensor may be silent for longer than a service manager waits.
            notify("READY=1")
            tasks += [
                self._task(self._transport.run(), "transport"),
                self._task(self._feed(), "source"),
                self._task(self._work(), "agent"),
                self._task(self._outlive(), "epoch"),
                self._task(self._keep_status(), "status"),
                self._task(every(config.report.every_s, self._report, at_once=True), "report"),
                self._task(every(config.state.every_s, self._save), "save"),
                self._task(self._stopping.wait(), "stop"),
            ]
            if config.evaluate.path:
                tasks.append(self._task(self._evaluate(), "evaluate"))
            if period_s := watchdog_s():
                tasks.append(self._task(every(period_s, self._live, at_once=True), "watchdog"))
            await self._until_the_end(tasks)
        finally:
            notify("STOPPING=1")
            await self._end(tasks)

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

    async def _end(self, tasks: list[asyncio.Task[Any]]) -> None:
        """Stop learning, then save; say goodbye meanwhile, so that a lame broker does not cost what was learnt."""
        talking = [task for task in tasks if task.get_name() == "edgeswarm transport"]
        await self._cancel([task for task in tasks if task not in talking])
        saved = asyncio.ensure_future(self._save())
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._transport.stop(), GOODBYE_LIMIT_S)
        await self._cancel(talking)
        await saved
        if tasks:  # else it never began, and what the folder says of an earlier run is still true
            await self._write_status()
        self._memory.close()
        self._worker.shutdown(wait=False, cancel_futures=True)
        self._disk.shutdown(wait=False)

    async def _cancel(self, tasks: list[asyncio.Task[Any]]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _every(self, period_s: float, do: Callable[[], Awaitable[None]], at_once: bool = False) -> None:
        """`do` once per period, its own time included, until cancelled; a bug in it is survived."""
        loop = asyncio.get_running_loop()
        due = loop.time() + (0.0 if at_once else period_s)
        while True:
            await asyncio.sleep(due - loop.time())
            due = max(due + period_s, loop.time())
            try:
                await do()
            except EdgeswarmError:
                raise
            except Exception:
                self._fault()

    def _fault(self) -> None:
        """A bug of ours: loud, but one bad event must not end a device's learning, nor fill its journal."""
        self.counters["faults"] += 1
        count = self.counters["faults"]
        if count <= 5 or count & (count - 1) == 0:
            log.exception("something failed and was left out (%d so far). This is a bug in edgeswarm", count)

    # ---- steps -------------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Make the agent, now that it is known what the samples look like. Raises ConfigError."""
        schema = self._source.schema()
        assert schema is not None
        strategy = replace(build_strategy(self.config.strategy), schema=schema.fingerprint)
        clock = LoopClock(asyncio.get_running_loop())
        state = self._memory.restore(strategy, schema)
        ledger = self._memory.ledger
        self._agent = Agent(self.config.node, strategy, state, self._transport, clock, self._deliver, ledger.record)
        self._agent.notes.update(self._memory.notes)
        self._schema, self._taken = schema, self._memory.taken
        self._point = (state, self._taken)
        # Before what came while the schema was not known: retained messages of peers, for example.
        self._inbox.put_first(Started(clock.now(), self._memory.epoch))
        self._announce()
        self._known.set()
        log.info(
            "learning %s with %s from %d features", self.config.task, self.config.strategy.name, len(schema.features)
        )

    def _deliver(self, event: Event) -> None:
        self._inbox.put(event)

    async def _work(self) -> None:
        """The one task that enters the agent."""
        await self._known.wait()
        agent = self._agent
        assert agent is not None
        busy_since = time.monotonic()
        while True:
            if not len(self._inbox):
                await self._inbox.filled()
                busy_since = time.monotonic()
            item = self._inbox.take(max(1, min(BATCH_LIMIT, int(STEP_TARGET_S / self._sample_s))))
            try:
                await self._step(agent, item)
            except EdgeswarmError:
                raise
            except Exception:
                self._fault()
                if isinstance(item, Woke):  # else the node would never share again
                    asyncio.get_running_loop().call_later(FAULT_PAUSE_S, self._inbox.put, item)
            if isinstance(item, list):
                self._taken += len(item)
            self._point = (agent.state, self._taken)
            if time.monotonic() - busy_since > STEP_TARGET_S:  # a full inbox must not starve the connection
                await asyncio.sleep(0)
                busy_since = time.monotonic()

    async def _step(self, agent: Agent[Any], item: Item) -> None:
        if not isinstance(item, list):
            await self._drive(agent, item)
        elif item[0].label is None:
            self._answer(agent, item[0])
        else:
            began = time.perf_counter()
            waited_s = await self._drive(agent, _batch(asyncio.get_running_loop().time(), item))
            each_s = (time.perf_counter() - began - waited_s) / len(item)
            self._sample_s = max(1e-6, 0.7 * self._sample_s + 0.3 * each_s)
            self.counters["batches"] += 1

    async def _drive(self, agent: Agent[Any], event: Event) -> float:
        """One event through the agent; each sum it asks for runs in the worker thread. Seconds spent waiting for it."""
        steps = agent.steps(event)
        loop = asyncio.get_running_loop()
        waited_s = 0.0
        reply: Any = None
        while True:
            try:
                request = steps.send(reply)
            except StopIteration:
                return waited_s
            began = time.perf_counter()
            reply = await loop.run_in_executor(self._worker, answer, request)
            waited_s += time.perf_counter() - began

    def _answer(self, agent: Agent[Any], sample: Sample) -> None:
        """Publish what this node makes of an unlabelled sample, where somebody wants to know."""
        topic = self.config.source.predictions_topic
        if not topic or not isinstance(self._source, MqttSource):
            self.counters["unlabelled"] += 1
            return
        (label,), (confidence,) = agent.strategy.predict(agent.state, sample.x[None])
        self.counters["predictions"] += 1
        self._transport.publish_raw(topic, self._source.prediction_payload(sample.id, label, float(confidence)), 1)

    # ---- samples -----------------------------------------------------------------------------------------------------

    async def _feed(self) -> None:
        """Samples into the inbox, never far ahead of the learning."""
        source, path = self._source, self.config.source.path
        skip = self._memory.taken
        if isinstance(source, MqttSource):
            samples = source.samples()
        else:
            samples = source.samples(skip)
            if skip:
                log.info("%s: going on after the %d samples learnt before", path, skip)
        count = 0
        async for sample in samples:
            if self._agent is None:
                self._begin()
            count += 1
            self._inbox.put(sample)
            await self._inbox.room()
        self._finished = True
        log.info("%s: read to its end%s", path, "" if count or not skip else "; it holds nothing new")

    def _on_reading(self, topic: str, payload: bytes, retained: bool) -> None:
        assert isinstance(self._source, MqttSource)
        if retained:  # handed out again at every connect: it would be learnt as often
            self._source.dropped["retained"] += 1
        else:
            self._source.push(payload, topic)

    # ---- the transport's listener ------------------------------------------------------------------------------------

    def on_message(self, sender: str, message: Message, waited_s: float, size_bytes: int) -> None:
        """A peer's message came."""
        now = asyncio.get_running_loop().time()
        if self._peers.heard(sender, now):
            self._inbox.put(Peers(now, self._peers.present()))
        if not self._inbox.put(Received(now, sender, message, waited_s), size_bytes):
            self.counters["inbox_full"] += 1

    def on_refused(self, sender: str, reason: str) -> None:
        """A peer sent bytes that are no message; said once per peer and reason (the transport counts them)."""
        if (sender, reason) not in self._told_refused and len(self._told_refused) < TOLD_LIMIT:
            self._told_refused.add((sender, reason))
            log.warning("dropped a message from %s: %s", sender, reason)

    def on_presence(self, presence: Presence) -> None:
        """Somebody came, went or reported; or this node's own name was seen in an earlier life."""
        now = asyncio.get_running_loop().time()
        if presence.node == self.config.node:
            self._seen_epoch = max(self._seen_epoch, presence.epoch)
            self._outdated.set()
            if presence.state == "ready":  # a crash may have left it, but so does a twin that has just stepped back
                log.warning(
                    "the broker says that %s is there already: unless it was this node a moment ago, two devices have "
                    "one name; rename one of the two",
                    presence.node,
                )
        elif self._peers.saw(presence, now):
            self._inbox.put(Peers(now, self._peers.present()))

    def on_link(self, up: bool, detail: str) -> None:
        """The connection came or went, or there is something to say about it."""
        news = up and not self._link[0]
        (log.info if news or self._stopping.is_set() else log.warning)("%s", detail)
        self._link = (up, detail)
        self._status_due.set()
        if news:
            self._inbox.put(Linked(asyncio.get_running_loop().time()))

    async def _outlive(self) -> None:
        """Take a boot epoch above one that the broker knows this name by, or peers would take us for our own past."""
        loop = asyncio.get_running_loop()
        while True:
            await self._outdated.wait()
            self._outdated.clear()
            seen, before = self._seen_epoch, self._memory.epoch
            if seen < before:
                continue
            epoch = await loop.run_in_executor(self._disk, self._memory.raise_epoch, seen)
            if epoch > before:
                log.warning("the broker knows this name with epoch %d; going on as %d", seen, epoch)
                self._announce()
                self._inbox.put(Started(loop.time(), epoch))

    # ---- saying and saving -------------------------------------------------------------------------------------------

    def _announce(self) -> None:
        """Presence, with what is known so far: a node whose sensor is silent is there too."""
        facts: dict[str, float | int | str] = {
            "version": __version__,
            "strategy": self.config.strategy.name,
            "task": self.config.task,
        }
        if self._schema is not None:
            facts |= {"features": len(self._schema.features), "schema": f"{self._schema.fingerprint:016x}"}
        if self._agent is not None:
            facts |= {name: round(self._agent.notes[name], 4) for name in HEADLINES if name in self._agent.notes}
        self._announced_at = time.monotonic()
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

    async def _report(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._peers.sweep(now):
            self._inbox.put(Peers(now, self._peers.present()))
        if self._link[0]:
            self._transport.publish_report(self._encoded_report())
            if time.monotonic() - self._announced_at > HEADLINES_EVERY_S:
                self._announce()
        await self._write_status()

    def _encoded_report(self) -> bytes:
        """The report, with as many links as one packet holds; all of them are in this node's own status."""
        report = self.report()
        room = self.config.broker.packet_limit_bytes - PACKET_HEAD_BYTES
        links = sorted(report["links"].items())[:LINKS_LIMIT]
        while True:
            try:
                data = encode_report({"notes": report["notes"], "links": dict(links)})
            except ValueError:
                if not links:
                    raise
            else:
                if len(data) <= room or not links:
                    return data
            links = links[: len(links) // 2]

    async def _keep_status(self) -> None:
        """Status at once when the link changes: whoever asks right after a start or a failure wants the truth."""
        while True:
            await self._status_due.wait()
            self._status_due.clear()
            await self._write_status()

    async def _write_status(self) -> None:
        """See `status_file`. The save task reports trouble with the folder, so none is reported here."""
        up, detail = self._link
        config, report = self.config, self.report()
        status = {
            "node": config.node,
            "site": config.site,
            "task": config.task,
            "pid": os.getpid(),
            "at_unix": time.time(),
            "report_every_s": config.report.every_s,
            "uptime_s": report["notes"]["uptime_s"],
            "epoch": self._memory.epoch,
            "version": __version__,
            "link": {"up": up, "detail": detail},
            "disk_fault": self._memory.fault,
            "stopped": self._stopping.is_set(),
            **report,
        }
        with contextlib.suppress(OSError):
            await asyncio.get_running_loop().run_in_executor(self._disk, write_status, config.state.folder, status)

    async def _save(self) -> None:
        # The state is a value: the disk's thread packs it while the agent moves on to the next one. It goes with the
        # number of samples it has learnt, so that after a power cut none is left out and none learnt twice.
        agent, schema = self._agent, self._schema
        if agent is not None and schema is not None:
            state, taken = self._point
            notes = {name: agent.notes[name] for name in HEADLINES if name in agent.notes}
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._disk, self._memory.save, agent.strategy, state, schema, taken, notes)

    async def _live(self) -> None:
        notify("WATCHDOG=1")

    # ---- scoring against a labelled file -----------------------------------------------------------------------------

    async def _evaluate(self) -> None:
        """Score what is known against the file, once per period. Raises DataError when the file cannot be used."""
        await self._known.wait()
        agent, schema, config = self._agent, self._schema, self.config
        assert agent is not None and schema is not None
        x, truth = await asyncio.to_thread(
            labelled_file, config.source, config.evaluate.path, config.evaluate.label, schema, seed=config.seed
        )
        labels = np.array(truth)

        async def score() -> None:
            state = agent.state
            for name, alone in (("holdout_alone", True), ("holdout_swarm", False)):
                right = 0
                for at in range(0, len(x), PREDICT_ROWS):
                    rows = slice(at, at + PREDICT_ROWS)
                    said, _ = await asyncio.get_running_loop().run_in_executor(
                        self._worker, agent.strategy.predict, state, x[rows], alone
                    )
                    right += int((np.array(said, dtype=object) == labels[rows]).sum())
                agent.notes[name] = right / len(x)

        await self._every(config.evaluate.every_s, score, at_once=True)


def _batch(at: float, samples: list[Sample]) -> Batch:
    return Batch(at, np.stack([sample.x for sample in samples]), tuple(str(sample.label) for sample in samples))
