"""Time, as an object that is passed in. A device uses the event loop's; a simulation turns its own."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias


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


FIRST, LATER = 0, 1
Appointment: TypeAlias = tuple[float, int, int, Callable[..., None], tuple[Any, ...]]
"""Time, FIRST or LATER, number in the order of asking, and what is to be called."""


class VirtualClock:
    """Simulated time: jumps from one appointment to the next. Equal times run in the order they were asked for.

    settle: called when nothing more is due at an instant; it may make more appointments for that same instant.
    """

    def __init__(self, settle: Callable[[], None] = lambda: None) -> None:
        self._now = 0.0
        self._settle = settle
        self._order = itertools.count()
        self._heap: list[Appointment] = []

    def now(self) -> float:
        return self._now

    def call_at(self, when: float, callback: Callable[..., None], *args: object) -> None:
        heapq.heappush(self._heap, (max(when, self._now), LATER, next(self._order), callback, args))

    def call_first_at(self, when: float, callback: Callable[..., None], *args: object) -> None:
        """As `call_at`, but ahead of all that was asked for by that at the same instant, whenever it was."""
        heapq.heappush(self._heap, (max(when, self._now), FIRST, next(self._order), callback, args))

    def run(self, until_s: float, enough: Callable[[], bool] = lambda: False) -> bool:
        """Everything due up to and including `until_s`; the clock then stands at `until_s`.

        enough: asked after each instant; True ends the run there, and a later one goes on as if it had not.
        Returns whether all that is due was done.
        """
        heap = self._heap
        while heap and heap[0][0] <= until_s:
            self._now = heap[0][0]
            while heap and heap[0][0] == self._now:
                _, _, _, callback, args = heapq.heappop(heap)
                callback(*args)
            self._settle()
            if heap and heap[0][0] <= until_s and enough():
                return False
        self._now = max(self._now, until_s)
        return True

    def appointments(self) -> list[Appointment]:
        """All that is to come, in its order."""
        return sorted(self._heap, key=lambda each: each[:3])

    def restore(self, now: float, appointments: list[Appointment]) -> None:
        """Go on at `now` with these instead of what was to come."""
        self._now = now
        self._heap[:] = appointments
        heapq.heapify(self._heap)
        self._order = itertools.count(1 + max((each[2] for each in appointments), default=-1))


class LocalClock:
    """One simulated node's own clock: it may jump forward, and run fast or slow. Until it does it is the base's.

    due(number): is called by the base when an appointment may have come, and has to call `keep(number)`; it stands
    between the two so that what waits in the base is a name and a number, and can be written to a file.
    """

    def __init__(self, base: VirtualClock, due: Callable[[str, int], None], name: str) -> None:
        self._base, self._due, self._name = base, due, name
        self._rate, self._at_s, self._shown_s = 1.0, 0.0, 0.0
        self._count = 0
        self._waiting: dict[int, tuple[float, Callable[..., None], tuple[Any, ...]]] = {}

    def now(self) -> float:
        return self._shown_s + (self._base._now - self._at_s) * self._rate  # asked for several times in every step

    def call_at(self, when: float, callback: Callable[..., None], *args: object) -> None:
        number, self._count = self._count, self._count + 1
        self._waiting[number] = (when, callback, args)
        self._base.call_at((when - self._shown_s) / self._rate + self._at_s, self._due, self._name, number)

    def keep(self, number: int) -> None:
        """The appointment of that number is due, unless it was moved or forgotten."""
        found = self._waiting.pop(number, None)
        if found is not None:
            _, callback, args = found
            callback(*args)

    def forget(self) -> None:
        """No appointment is kept any more."""
        self._waiting.clear()

    def change(self, by_s: float = 0.0, rate: float | None = None) -> None:
        """Jump forward, and run at `rate` seconds a second from now on. Raises ValueError: backwards."""
        if by_s < 0 or (rate is not None and rate <= 0):
            raise ValueError("a monotonic clock does not go backwards")
        self._shown_s, self._at_s = self.now() + by_s, self._base.now()
        self._rate = self._rate if rate is None else rate
        waiting, self._waiting = list(self._waiting.values()), {}
        for when, callback, args in waiting:
            self.call_at(when, callback, *args)

    def dump(self) -> dict[str, Any]:
        """Numbers, and (when, arguments) of each appointment by its number."""
        waiting = {number: (when, args) for number, (when, _, args) in self._waiting.items()}
        return {"numbers": (self._rate, self._at_s, self._shown_s, self._count), "waiting": waiting}

    def load(self, dumped: dict[str, Any], callback: Callable[..., None]) -> None:
        """Go on as dumped; the base has its appointments already. callback: of them all."""
        self._rate, self._at_s, self._shown_s, self._count = dumped["numbers"]
        self._waiting = {number: (when, callback, args) for number, (when, args) in dumped["waiting"].items()}
