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
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from edgeswarm.agent.agent import Agent
from edgeswarm.agent.broker import mqtt_settings
from edgeswarm.agent.clock import LoopClock
from edgeswarm.agent.compute import Compute
from edgeswarm.agent.config import build_strategy
from edgeswarm.agent.encoder import Preparation
from edgeswarm.agent.equipment import PROBES, described, equip, needed
from edgeswarm.agent.evaluation import hold_out
from edgeswarm.agent.graph import circle
from edgeswarm.agent.hearing import Hearing
from edgeswarm.agent.heat import Verdict
from edgeswarm.agent.inbox import Inbox
from edgeswarm.agent.learner import Learner
from edgeswarm.agent.memory import Memory
from edgeswarm.agent.questions import Questions
from edgeswarm.agent.serving import Serving
from edgeswarm.agent.settings import Config
from edgeswarm.agent.sources import MqttSource, Schema, open_source
from edgeswarm.agent.systemd import notify, watchdog_s
from edgeswarm.agent.tasks import Tasks
from edgeswarm.agent.trouble import Trouble
from edgeswarm.agent.voice import Voice
from edgeswarm.strategies.base import Decision, Event, Started, finish
from edgeswarm.transport.mqtt import MqttTransport

log = logging.getLogger(__name__)

ARITHMETIC_LIMIT_S = 2.0
"""Time for a step of training to end when stopping, on top of what the goodbye takes."""
GOODBYE_LIMIT_S = 2.0
"""Time for the last words to the broker when stopping; service managers and people wait for little longer."""


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


@dataclass(frozen=True, eq=False)
class _Begun:
    """What there is once it is known what the samples look like. schema: of what the strategy learns from."""

    agent: Agent[Any]
    schema: Schema
    preparation: Preparation
    serving: Serving
    learner: Learner


class Service:
    """One agent with its source, its connection and its state folder: puts the parts together, runs and ends them.

    counters: refused_<reason>, inbox_full, predictions, unlabelled (samples nobody wants a prediction of), batches,
    out_of_memory, model_error, too_hot (steps that could not be computed), faults (bugs of ours that were survived).
    """

    def __init__(self, config: Config) -> None:
        """Raises EdgeswarmError: the state folder is another agent's; the source, the model, the encoder or a broker
        setting is unusable."""
        self.config = config
        self.counters: Counter[str] = Counter()
        self._trouble = Trouble(self.counters)
        self._tasks = Tasks(self._trouble)
        self._stopping = asyncio.Event()
        self._known = asyncio.Event()
        self._inbox = Inbox()
        self._memory = memory = Memory(config)
        silence_s = max(3600.0, 10 * config.report.every_s)
        self._hearing = Hearing(config.node, silence_s, self._inbox, memory, self._stopping, self.counters)
        try:
            self._files = needed(config)
            self._equipment = equip(self._files, config.compute, memory.store.folder / PROBES, node=config.node)
            self._source = source = open_source(
                config.source,
                config.task,
                seed=config.seed,
                features=self._equipment.source_features(memory.source_features),
                most=self._equipment.size or 0,
            )
            rng = random.Random(secrets.randbits(64))
            settings = replace(mqtt_settings(config), circle=circle(self._equipment.topology, config.node))
            self._transport = transport = MqttTransport(settings, self._hearing, rng)
        except BaseException:
            memory.close()
            raise
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="edgeswarm disk")
        self._voice = Voice(
            config, memory, source, transport, self._hearing, self._stopping, self.counters, self._disk, self._trouble
        )
        self._questions: Questions | None = None
        if isinstance(source, MqttSource) and (topic := config.source.predictions_topic):
            self._questions = Questions(source, topic, transport, self._trouble, self.counters)
        self._compute: Compute | None = None
        self._begun: _Begun | None = None

    def report(self) -> dict[str, Any]:
        """See `Voice.report`."""
        return self._voice.report()

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
        config, tasks = self.config, self._tasks
        try:
            log.info("%s: epoch %d, state in %s", config.node, self._memory.epoch, config.state.folder)
            for reason in self._equipment.reasons:
                log.info("%s", reason)
            loop = asyncio.get_running_loop()

            def changed(verdict: Verdict) -> None:
                with contextlib.suppress(RuntimeError):  # the loop is gone, and with it whoever wanted to know
                    loop.call_soon_threadsafe(self._on_heat, verdict)

            self._compute = Compute(self._equipment.backend, self._equipment.heat, changed)
            self._voice.compute = self._compute if self._equipment.heat is not None else None
            if isinstance(self._source, MqttSource):
                for topic in self._source.subscriptions:
                    self._transport.subscribe_raw(topic, 1, self._on_reading)
            if self._source.schema() is None:
                self._voice.announce()
            else:
                await self._begin()
            # Now, not with the first sample: a sensor may be silent for longer than a service manager waits.
            notify("READY=1")
            tasks.start("transport", self._transport.run())
            tasks.start("source", self._feed())
            tasks.start("agent", self._learn())
            tasks.start("epoch", self._hearing.outlive(self._disk, self._voice.announce))
            tasks.start("status", self._voice.keep_status())
            tasks.start("report", tasks.every(config.report.every_s, self._report, at_once=True))
            tasks.start("save", tasks.every(config.state.every_s, self._save))
            if self._questions is not None:
                tasks.start("predictions", self._answer(self._questions))
            if config.evaluate.path:
                tasks.start("evaluate", self._evaluate())
            if period_s := watchdog_s():
                tasks.start("watchdog", tasks.every(period_s, self._live, at_once=True))
            await tasks.until(self._stopping)
        finally:
            notify("STOPPING=1")
            await self._end()

    async def _end(self) -> None:
        """Stop learning, then save; say goodbye meanwhile, so that a lame broker does not cost what was learnt."""
        if self._compute is not None:
            self._compute.stop()  # an epoch under way is given up: the state is the one before
        await self._tasks.end(but="transport")
        saved = asyncio.ensure_future(self._save())
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._transport.stop(), GOODBYE_LIMIT_S)
        await self._tasks.end()
        await saved
        if self._tasks:  # else it never began, and what the folder says of an earlier run is still true
            await self._voice.write_status()
        self._memory.close()
        if self._compute is not None:
            self._compute.join(ARITHMETIC_LIMIT_S)
        self._disk.shutdown(wait=False)

    # ---- the agent ---------------------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        """Make the agent, now that it is known what the samples look like. Raises ConfigError, ModelError."""
        raw, compute, equipment = self._source.schema(), self._compute, self._equipment
        assert raw is not None and compute is not None
        bare = build_strategy(self.config.strategy)
        preparation = equipment.preparation(raw, bare)
        schema = preparation.schema
        # An encoder may take a while with thousands of public rows.
        public = await asyncio.wrap_future(
            compute.submit(lambda: finish(equipment.prepared(preparation), compute.backend.answer))
        )
        strategy = equipment.equipped(bare, schema.fingerprint, public)
        memory = self._memory
        memory.also = described(raw, equipment, self._files, self.config.strategy, self.config.node)
        clock = LoopClock(asyncio.get_running_loop())
        state = memory.restore(strategy, schema)
        agent = Agent(self.config.node, strategy, state, self._transport, clock, self._deliver, memory.ledger.record)
        agent.notes.update(memory.notes)
        serving = Serving(agent, compute, preparation)
        learner = Learner(
            agent, preparation, compute, self._inbox, memory.ledger, self._trouble, self.counters, memory.taken
        )
        self._begun = _Begun(agent, schema, preparation, serving, learner)
        self._voice.agent, self._voice.schema = agent, schema
        # Before what came while the schema was not known: retained messages of peers, for example.
        self._inbox.put_first(Started(clock.now(), memory.epoch))
        self._voice.announce()
        self._known.set()
        log.info(
            "learning %s with %s from %d features", self.config.task, self.config.strategy.name, len(schema.features)
        )

    async def _beginning(self) -> _Begun:
        """Return once the agent is there."""
        await self._known.wait()
        assert self._begun is not None
        return self._begun

    def _deliver(self, event: Event) -> None:
        self._inbox.put(event)

    async def _learn(self) -> None:
        await (await self._beginning()).learner.run()

    async def _answer(self, questions: Questions) -> None:
        await questions.answer((await self._beginning()).serving)

    async def _evaluate(self) -> None:
        """Score what is known against the hold-out, once per period. Raises DataError when the file cannot be used."""
        begun = await self._beginning()
        held_out = await hold_out(self.config, begun.preparation, begun.serving, begun.agent.notes, self.counters)
        await self._tasks.every(self.config.evaluate.every_s, held_out.score, at_once=True)

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
        if not verdict.too_hot and self._begun is not None:
            self._begun.learner.cooled_down()

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
            if self._begun is None:
                await self._begin()
            count += 1
            if sample.label is None and self._questions is not None:
                await self._questions.ask(sample)
            else:
                self._inbox.put(sample)
                await self._inbox.room()
        self._voice.finished = True
        log.info("%s: read to its end%s", path, "" if count or not skip else "; it holds nothing new")

    def _on_reading(self, topic: str, payload: bytes, retained: bool) -> None:
        assert isinstance(self._source, MqttSource)
        if retained:  # handed out again at every connect: it would be learnt as often
            self._source.dropped["retained"] += 1
        else:
            self._source.push(payload, topic)

    # ---- once per period ---------------------------------------------------------------------------------------------

    async def _report(self) -> None:
        if self._compute is not None and self._equipment.heat is not None:
            self._compute.submit(self._compute.look, first=True)
        self._hearing.sweep()
        await self._voice.speak()

    async def _save(self) -> None:
        # The state is a value: the disk's thread packs it while the agent moves on to the next one. It goes with the
        # number of samples it has learnt, so that after a power cut none is left out and none learnt twice.
        if (begun := self._begun) is not None:
            state, taken = begun.learner.point
            save, notes, loop = self._memory.save, self._voice.kept(), asyncio.get_running_loop()
            await loop.run_in_executor(self._disk, save, begun.agent.strategy, state, begun.schema, taken, notes)

    async def _live(self) -> None:
        notify("WATCHDOG=1")
