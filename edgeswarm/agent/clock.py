"""Time, as an object that is passed in. A device uses the event loop's; a simulation turns its own."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from typing import Protocol


class Clock(Protocol):
    """Seconds that only ever grow (never the wall clock: boards start without one and jump when NTP answers)."""

    def now(self) -> float: ...
    def call_at(self, when: float, callback: Callable[..., None], *args: object) -> None: ...


class LoopClock:
    """The running event loop's monotonic clock."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def now(self) -> float:
        return self._loop.time()

    def call_at(self, when: float, callback: Callable[..., None], *args: object) -> None:
        self._loop.call_at(when, callback, *args)


class VirtualClock:
    """Simulated time: jumps from one appointment to the next. Equal times run in the order they were asked for.

    settle: called when nothing more is due at an instant; it may make more appointments for that same instant.
    """

    def __init__(self, settle: Callable[[], None] = lambda: None) -> None:
        self._now = 0.0
        self._settle = settle
        self._order = itertools.count()
        self._heap: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []

    def now(self) -> float:
        return self._now

    def call_at(self, when: float, callback: Callable[..., None], *args: object) -> None:
        heapq.heappush(self._heap, (max(when, self._now), next(self._order), callback, args))

    def run(self, until_s: float) -> None:
        """Everything due up to and including `until_s`; the clock then stands at `until_s`."""
        while self._heap and self._heap[0][0] <= until_s:
            self._now = self._heap[0][0]
            while self._heap and self._heap[0][0] == self._now:
                _, _, callback, args = heapq.heappop(self._heap)
                callback(*args)
            self._settle()
        self._now = max(self._now, until_s)
