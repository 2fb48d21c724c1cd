"""The one task that enters an agent: what waits in the inbox, step by step, and what follows when a step fails.

A step that fails has changed nothing: it is counted and said, and if a wake-up began it, that wake-up comes again.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Generator, Mapping
from typing import Any, TypeVar

import numpy as np

from edgeswarm.agent.agent import Agent
from edgeswarm.agent.compute import Compute, TooHot
from edgeswarm.agent.encoder import Preparation
from edgeswarm.agent.inbox import Inbox, Item
from edgeswarm.agent.ledger import Ledger
from edgeswarm.agent.trouble import Trouble, reason
from edgeswarm.backends.base import Request
from edgeswarm.errors import EdgeswarmError, ModelError, OutOfMemory
from edgeswarm.strategies.base import Batch, Decision, Woke, labels_of

T = TypeVar("T")

BATCH_LIMIT = 64
"""Samples learnt in one step, at most."""
STEP_TARGET_S = 0.02
"""How long a step may keep the event loop: batches shrink where learning is slow (many features, many peers)."""
FAULT_PAUSE_S = 1.0
"""A wake-up whose step failed comes again after this time."""
LEFT_OUT = ("unknown_labels", "too_large_rows")
"""Notes of methods that count own samples which are not learnt."""
AGAIN_S = 10.0
"""A wake-up whose step could not be computed comes again after this time; memory may be free by then."""


class Learner:
    """Takes from the inbox and drives the agent, the arithmetic of its steps in the worker thread.

    point: the newest state, and how many of the source's samples are in it; one value, so that a save in the middle of
    a step leaves none out and takes none twice.  taken: samples in the agent's state before the first step.
    counters: batches, unlabelled (samples nobody wants a prediction of), too_hot.
    """

    def __init__(
        self,
        agent: Agent[Any],
        preparation: Preparation,
        compute: Compute,
        inbox: Inbox,
        ledger: Ledger,
        trouble: Trouble,
        counters: Counter[str],
        taken: int,
    ) -> None:
        self.point: tuple[Any, int] = (agent.state, taken)
        self._agent = agent
        self._preparation = preparation
        self._compute = compute
        self._inbox = inbox
        self._ledger = ledger
        self._trouble = trouble
        self._counters = counters
        self._taken = taken
        self._put_off: dict[str, Woke] = {}
        self._sample_s = STEP_TARGET_S / BATCH_LIMIT
        self._said: Counter[str] = Counter()

    async def run(self) -> None:
        """Until cancelled. Raises EdgeswarmError: a step found what the operator must mend."""
        busy_since = time.monotonic()
        while True:
            if not len(self._inbox):
                await self._inbox.filled()
                busy_since = time.monotonic()
            item = self._inbox.take(max(1, min(BATCH_LIMIT, int(STEP_TARGET_S / self._sample_s))))
            try:
                await self._step(item)
            except (ModelError, OutOfMemory, TooHot) as error:
                self._not_computed(error, item)
            except MemoryError:
                self._not_computed(OutOfMemory("not enough memory for a step"), item)
            except EdgeswarmError:
                raise
            except Exception:
                self._trouble.fault()
                if isinstance(item, Woke):  # else the node would never share again
                    asyncio.get_running_loop().call_later(FAULT_PAUSE_S, self._inbox.put, item)
            if isinstance(item, list):
                self._taken += len(item)
            self.point = (self._agent.state, self._taken)
            if time.monotonic() - busy_since > STEP_TARGET_S:  # a full inbox must not starve the connection
                await asyncio.sleep(0)
                busy_since = time.monotonic()

    def cooled_down(self) -> None:
        """Training may go on: the wake-ups that were put off get another chance."""
        for event in self._put_off.values():
            self._inbox.put(event)
        self._put_off.clear()

    async def _step(self, item: Item) -> None:
        if not isinstance(item, list):
            await self._drive(self._agent.steps(item))
        elif item[0].label is None:
            self._counters["unlabelled"] += 1
        else:
            labels = tuple(str(sample.label) for sample in item)
            x, _ = await self._drive(self._preparation.rows(np.stack([sample.x for sample in item])))
            before = self._left_out()
            began = time.perf_counter()
            _, waited_s = await self._drive(self._agent.steps(Batch(asyncio.get_running_loop().time(), x, labels)))
            each_s = (time.perf_counter() - began - waited_s) / len(item)
            self._sample_s = max(1e-6, 0.7 * self._sample_s + 0.3 * each_s)
            self._counters["batches"] += 1
            if (after := self._left_out()) != before:
                self._tell_left_out(labels, before, after)

    def _left_out(self) -> dict[str, int]:
        """By name of LEFT_OUT, how many samples the method has counted as not fit to be learnt."""
        return {name: int(self._agent.notes.get(name, 0)) for name in LEFT_OUT}

    def _tell_left_out(self, labels: tuple[str, ...], before: Mapping[str, int], counts: Mapping[str, int]) -> None:
        """Said at first, and when they are twice as many, since a node that learns nothing for its labels' sake looks
        well otherwise. labels: of the samples that made `before` become `counts`."""
        known, at = labels_of(self._agent.strategy), asyncio.get_running_loop().time()
        alien = next((label for label in labels if known and label not in known), "")
        self._trouble.unknown_label = alien or self._trouble.unknown_label
        for name, count in counts.items():
            if count == before[name] or count < 2 * self._said[name]:
                continue
            self._said[name] = count
            if name == "unknown_labels":
                self._trouble.unknown(count, alien, known)
                self._ledger.record(Decision(at, "sample", "dropped", "unknown_label", {"samples": float(count)}))
            else:
                self._trouble.too_large(count)
                self._ledger.record(Decision(at, "sample", "dropped", "too_large", {"samples": float(count)}))

    async def _drive(self, steps: Generator[Request, Any, T]) -> tuple[T, float]:
        """What the steps return; each sum they ask for runs in the worker thread. Seconds spent waiting for it."""
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
                self._trouble.not_computed(failed)
            waited_s += time.perf_counter() - began

    def _not_computed(self, error: ModelError | OutOfMemory | TooHot, item: Item) -> None:
        """A step whose arithmetic failed: nothing changed, and a wake-up comes again."""
        if isinstance(error, TooHot):
            self._counters["too_hot"] += 1
            if isinstance(item, Woke):
                if self._compute.verdict.too_hot:
                    self._put_off[item.name] = item
                else:  # it has cooled down since
                    self._inbox.put(item)
            return
        if error is not self._trouble.told:
            self._trouble.not_computed(error)
        loop, name = asyncio.get_running_loop(), reason(error)
        facts = {"failures": float(self._counters[name])}
        self._ledger.record(Decision(loop.time(), "step", "given_up", name, facts))
        if isinstance(item, Woke):
            loop.call_later(AGAIN_S, self._inbox.put, item)
        elif isinstance(item, list):
            self._trouble.left_out(len(item))
