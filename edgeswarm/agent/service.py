"""The agent as a long-running process: one inbox, named tasks, an orderly stop.

Everything that happens (a sample, a message, a wake-up, peers coming and going) goes into one inbox in the order it
happened, and one task takes it out, so the agent is never entered twice. Arithmetic a step asks for runs in a worker
thread, and everything that touches the disk in another; the event loop, and with it the connection to the broker,
waits for neither. Samples that somebody wants a prediction of are answered by a task of their own, from what is known
at that moment: they do not wait for an epoch of training to end.
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
from collections.abc import Awaitable, Callable, Coroutine, Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from edgeswarm import __version__
from edgeswarm.agent.agent import Agent
from edgeswarm.agent.clock import LoopClock
from edgeswarm.agent.compute import Compute, TooHot
from edgeswarm.agent.config import build_strategy
from edgeswarm.agent.encoder import Preparation
from edgeswarm.agent.equipment import PROBES, Equipment, described, equip
from edgeswarm.agent.heat import Verdict
from edgeswarm.agent.inbox import Inbox, Item
from edgeswarm.agent.memory import Memory
from edgeswarm.agent.peers import PeerTable
from edgeswarm.agent.serving import Serving
from edgeswarm.agent.settings import Config, ModelConfig
from edgeswarm.agent.sources import MqttSource, Sample, Schema, labelled_file, open_source
from edgeswarm.agent.status_file import write_status
from edgeswarm.agent.systemd import notify, watchdog_s
from edgeswarm.backends.base import Request
from edgeswarm.errors import ConfigError, EdgeswarmError, ModelError, OutOfMemory
from edgeswarm.messages import Array, Message, Presence
from edgeswarm.strategies.base import (
    Batch,
    Decision,
    Event,
    Linked,
    Peers,
    Received,
    Started,
    Woke,
    wants_model,
)
from edgeswarm.transport.mqtt import MqttTransport
from edgeswarm.transport.settings import MqttSettings
from edgeswarm.wire.status import encode_report

log = logging.getLogger(__name__)

T = TypeVar("T")

BATCH_LIMIT = 64
"""Samples learnt in one step, at most."""
STEP_TARGET_S = 0.02
"""How long a step may keep the event loop: batches shrink where learning is slow (many features, many peers)."""
FAULT_PAUSE_S = 1.0
"""A wake-up whose step failed comes again after this time."""
AGAIN_S = 10.0
"""A wake-up whose step could not be computed comes again after this time; memory may be free by then."""
ARITHMETIC_LIMIT_S = 2.0
"""Time for a step of training to end when stopping, on top of what the goodbye takes."""
QUESTIONS = 32
"""Unlabelled samples that wait for a prediction, at most, and that are answered together."""
GOODBYE_LIMIT_S = 2.0
"""Time for the last words to the broker when stopping; service managers and people wait for little longer."""
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
    out_of_memory, model_error, too_hot (steps that could not be computed), faults (bugs of ours that were survived).
    """

    def __init__(self, config: Config) -> None:
        """Raises EdgeswarmError: the state folder is another agent's; the source, the model, the encoder or a broker
        setting is unusable."""
        self.config = config
        self.counters: Counter[str] = Counter()
        self._memory = Memory(config)
        try:
            self._equipment = self._equip()
            self._source = open_source(
                config.source,
                config.task,
                seed=config.seed,
                features=self._source_features(),
                most=self._equipment.size or 0,
            )
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
        self._compute: Compute | None = None
        self._preparation: Preparation | None = None
        self._serving: Serving | None = None
        self._questions: asyncio.Queue[Sample] = asyncio.Queue(QUESTIONS)
        self._put_off: dict[str, Woke] = {}
        self._told_error = ""
        self._complained: EdgeswarmError | None = None
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

    def _equip(self) -> Equipment:
        """See `equipment.equip`. A model that nobody trains is not even read."""
        config = self.config
        model, trains = config.model, wants_model(build_strategy(config.strategy))
        if model.path and not trains:
            log.warning("[model] path is not used: %s trains no model", config.strategy.name)
            model = ModelConfig()
        elif trains and not model.path:
            raise ConfigError(f"[strategy] name = {config.strategy.name!r} trains a model: set [model] path as well")
        return equip(model, config.encoder, config.compute, self._memory.store.folder / PROBES)

    def _source_features(self) -> tuple[str, ...]:
        """Names of a sensor's features, when nobody has set them: those learnt with so far, or as many as a model
        takes, so that a stranger's first reading does not decide."""
        size = self._equipment.size
        return self._memory.source_features or tuple(f"x{at}" for at in range(size or 0))

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
            for reason in self._equipment.reasons:
                log.info("%s", reason)
            loop = asyncio.get_running_loop()

            def changed(verdict: Verdict) -> None:
                with contextlib.suppress(RuntimeError):  # the loop is gone, and with it whoever wanted to know
                    loop.call_soon_threadsafe(self._on_heat, verdict)

            self._compute = Compute(self._equipment.backend, self._equipment.heat, changed)
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
                self._task(self._serve(), "predictions"),
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
        if self._compute is not None:
            self._compute.stop()  # an epoch under way is given up: the state is the one before
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
        if self._compute is not None:
            self._compute.join(ARITHMETIC_LIMIT_S)
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
        raw = self._source.schema()
        assert raw is not None
        bare = build_strategy(self.config.strategy)
        self._preparation = self._equipment.preparation(raw, bare)
        schema = self._preparation.schema
        strategy = self._equipment.equipped(bare, schema.fingerprint)
        if not self._preparation.trivial or wants_model(strategy):
            self._memory.also = described(raw, self._equipment, self.config.model, self.config.encoder)
        clock = LoopClock(asyncio.get_running_loop())
        state = self._memory.restore(strategy, schema)
        ledger = self._memory.ledger
        self._agent = Agent(self.config.node, strategy, state, self._transport, clock, self._deliver, ledger.record)
        self._agent.notes.update(self._memory.notes)
        assert self._compute is not None
        self._serving = Serving(self._agent, self._compute, self._preparation)
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
            except (ModelError, OutOfMemory, TooHot) as error:
                self._not_computed(error, item)
            except MemoryError:
                self._not_computed(OutOfMemory("not enough memory for a step"), item)
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
            await self._drive(agent.steps(item))
        elif item[0].label is None:
            self.counters["unlabelled"] += 1
        else:
            assert self._preparation is not None
            labels = tuple(str(sample.label) for sample in item)
            x, _ = await self._drive(self._preparation.rows(np.stack([sample.x for sample in item])))
            began = time.perf_counter()
            _, waited_s = await self._drive(agent.steps(Batch(asyncio.get_running_loop().time(), x, labels)))
            each_s = (time.perf_counter() - began - waited_s) / len(item)
            self._sample_s = max(1e-6, 0.7 * self._sample_s + 0.3 * each_s)
            self.counters["batches"] += 1

    async def _drive(self, steps: Generator[Request, Any, T]) -> tuple[T, float]:
        """What the steps return; each sum they ask for runs in the worker thread. Seconds spent waiting for it."""
        assert self._compute is not None
        waited_s = 0.0
        reply: Any = None
        error: EdgeswarmError | None = None
        while True:
            try:
                request = steps.send(reply) if error is None else steps.throw(error)
            except StopIteration as stop:
                return stop.value, waited_s
            began = time.perf_counter()
            try:
                reply, error = await asyncio.wrap_future(self._compute.answer(request)), None
            except (ModelError, OutOfMemory) as failed:
                reply, error = None, failed
                self._complain(failed)
            waited_s += time.perf_counter() - began

    def _not_computed(self, error: ModelError | OutOfMemory | TooHot, item: Item) -> None:
        """A step whose arithmetic failed: nothing changed, and a wake-up comes again."""
        loop = asyncio.get_running_loop()
        if isinstance(error, TooHot):
            self.counters["too_hot"] += 1
            if isinstance(item, Woke):
                assert self._compute is not None
                if self._compute.verdict.too_hot:
                    self._put_off[item.name] = item
                else:  # it has cooled down since
                    self._inbox.put(item)
            return
        if error is not self._complained:
            self._complain(error)
        reason = "model_error" if isinstance(error, ModelError) else "out_of_memory"
        facts = {"failures": float(self.counters[reason])}
        self._memory.ledger.record(Decision(loop.time(), "step", "given_up", reason, facts))
        if isinstance(item, Woke):
            loop.call_later(AGAIN_S, self._inbox.put, item)

    def _complain(self, error: EdgeswarmError) -> None:
        """What could not be computed, once per hundred times it is the same: a node may try for days."""
        self._complained = error
        reason = "model_error" if isinstance(error, ModelError) else "out_of_memory"
        self.counters[reason] += 1
        if str(error) != self._told_error or self.counters[reason] % 100 == 0:
            self._told_error = str(error)
            log.error("%s; nothing has changed, and it is tried again later", error)

    def _on_heat(self, verdict: Verdict) -> None:
        """Training has to pause, or may go on: say so, and give the wake-ups that were put off another chance."""
        if self._stopping.is_set():
            return
        log.warning("training pauses: %s", verdict.reason) if verdict.too_hot else log.info("training goes on")
        measured = {"temperature_c": verdict.temperature_c, "limit_c": verdict.limit_c}
        facts = {name: value for name, value in measured.items() if value is not None}
        outcome, reason = ("paused", "too_hot") if verdict.too_hot else ("resumed", "cooled_down")
        now = asyncio.get_running_loop().time()
        self._memory.ledger.record(Decision(now, "training", outcome, reason, facts))
        if not verdict.too_hot:
            for event in self._put_off.values():
                self._inbox.put(event)
            self._put_off.clear()

    # ---- predictions -------------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        """Publish what this node makes of samples without a label, those that wait together."""
        await self._known.wait()
        serving = self._serving
        assert serving is not None
        while True:
            asked = [await self._questions.get()]
            while len(asked) < QUESTIONS and not self._questions.empty():
                asked.append(self._questions.get_nowait())
            try:
                names, confidences = await serving.predict(np.stack([sample.x for sample in asked]))
            except (ModelError, OutOfMemory) as error:
                self.counters["unanswered"] += len(asked)
                self._complain(error)
            except Exception:
                self._fault()
            else:
                assert isinstance(self._source, MqttSource)
                for sample, name, confidence in zip(asked, names, confidences.tolist(), strict=True):
                    self.counters["predictions"] += 1
                    payload = self._source.prediction_payload(sample.id, name, confidence)
                    self._transport.publish_raw(self.config.source.predictions_topic, payload, 1)

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
            if sample.label is None and isinstance(source, MqttSource) and self.config.source.predictions_topic:
                await self._questions.put(sample)
            else:
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
        if self._compute is not None and self._equipment.heat is not None:
            notes["training_paused"] = float(self._compute.verdict.too_hot)
            if self._compute.verdict.temperature_c is not None:
                notes["temperature_c"] = self._compute.verdict.temperature_c
        return {"notes": notes, "links": agent.link_report() if agent else {}}

    async def _report(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._compute is not None and self._equipment.heat is not None:
            self._compute.submit(self._compute.look, first=True)
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
        agent, config, preparation, serving = self._agent, self.config, self._preparation, self._serving
        assert agent is not None and preparation is not None and serving is not None
        raw, truth = await asyncio.to_thread(
            labelled_file,
            config.source,
            config.evaluate.path,
            config.evaluate.label,
            preparation.raw,
            seed=config.seed,
            same_form=not preparation.trivial,
        )
        ready: list[Array] = []

        async def score() -> None:
            try:
                if not ready:
                    ready.append(await serving.prepared(raw))
                for name, alone in (("holdout_alone", True), ("holdout_swarm", False)):
                    agent.notes[name] = await serving.score(ready[0], truth, alone)
            except (ModelError, OutOfMemory) as error:
                self.counters["unscored"] += 1
                log.error("%s; not scored this time", error)

        await self._every(config.evaluate.every_s, score, at_once=True)
