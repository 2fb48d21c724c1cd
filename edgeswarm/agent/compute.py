"""The one thread that does arithmetic: answers that somebody waits for go first, training fills the time between.

A step of training never holds the event loop, and an inference that comes in the middle of an epoch is answered
between two of its steps. A board that is too hot does not train: an epoch waits a little, then it is given up, and its
state is the one before; whoever asked tries again when `changed` says that it has cooled down.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

from edgeswarm.agent.heat import Heat, Verdict
from edgeswarm.backends import sets
from edgeswarm.backends.base import Gradient, LocalEpoch, Request
from edgeswarm.errors import OutOfMemory

T = TypeVar("T")

PATIENCE_S = 5.0
"""How long an epoch under way may wait for the board to cool down; meanwhile its node learns of nothing."""
POLL_S = 1.0
"""How often a hot board is looked at; `Heat` reads its sensors as often as the profile says, at most."""
COOL = Verdict(False, None, None, "")


class TooHot(Exception):
    """Training was put off, or given up in the middle: nothing changed. The text says how hot it is."""


class Stopped(Exception):
    """The agent is ending: nothing changed."""


class Answering(Protocol):
    """What a backend must be able to do here; `between`, where there is one, is set."""

    def answer(self, request: Request) -> Any: ...
    def answer_all(self, requests: Sequence[Request]) -> list[Any]: ...


class Sets:
    """Answers requests about sets of prototypes, and no others: all that methods without a model need."""

    name = "sets"

    def answer(self, request: Request) -> Any:
        """See `backends.sets.answer`."""
        return sets.answer(request)

    def answer_all(self, requests: Sequence[Request]) -> list[Any]:
        """One by one, in their order."""
        return [sets.answer(request) for request in requests]


class Compute:
    """Takes work from any thread. `stop` once, then `join`; work that has not begun by then is never done.

    changed: called in the worker thread when training has to pause and when it may go on. heat: None on a board whose
    temperature does not matter.
    """

    def __init__(
        self,
        backend: Answering,
        heat: Heat | None = None,
        changed: Callable[[Verdict], None] = lambda verdict: None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.backend = backend
        self.verdict = COOL
        self._heat = heat
        self._changed = changed
        self._patience_s = patience_s
        self._first: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._later: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._wakes = threading.Condition()
        self._stopping = False
        if hasattr(backend, "between"):
            backend.between = self._between
        # A daemon: one step of a large model may take longer than a service manager waits for the process to end.
        self._thread = threading.Thread(target=self._run, name="edgeswarm arithmetic", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[], T], first: bool = False) -> Future[T]:
        """Do `work` in the worker thread. first: before all training, also before the rest of an epoch under way."""
        future: Future[T] = Future()
        with self._wakes:
            if self._stopping:
                future.cancel()
                return future
            (self._first if first else self._later).append((future, work))
            self._wakes.notify()
        return future

    def answer(self, request: Request, first: bool = False) -> Future[Any]:
        """The backend's answer. The future raises what the backend does, TooHot for training on a board that is, and
        OutOfMemory wherever memory ran out."""
        return self.submit(lambda: self._answered(request), first)

    def look(self) -> Verdict:
        """What the sensors say; tells `changed` of a change. In the worker thread only (`submit(compute.look)`)."""
        if self._heat is None:
            return COOL
        before, self.verdict = self.verdict, self._heat.verdict()
        if self.verdict.too_hot != before.too_hot:
            self._changed(self.verdict)
        return self.verdict

    def stop(self) -> None:
        """Give up the epoch under way between two of its steps, and all that waits."""
        with self._wakes:
            self._stopping = True
            for future, _ in (*self._first, *self._later):
                future.cancel()
            self._first.clear()
            self._later.clear()
            self._wakes.notify_all()

    def join(self, limit_s: float) -> bool:
        """Wait until the thread has ended; False when it has not by `limit_s`, in the middle of a long step."""
        self._thread.join(limit_s)
        return not self._thread.is_alive()

    # ---- in the worker thread ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping:
            with self._wakes:
                if not (self._first or self._later or self._stopping):
                    self._wakes.wait(POLL_S if self.verdict.too_hot else None)
            if self.verdict.too_hot:
                self.look()
            self._do_next(self._first) or self._do_next(self._later)

    def _do_next(self, waiting: deque[tuple[Future[Any], Callable[[], Any]]]) -> bool:
        with self._wakes:
            if not waiting:
                return False
            future, work = waiting.popleft()
        if future.set_running_or_notify_cancel():
            try:
                result = work()
            except MemoryError as error:
                future.set_exception(OutOfMemory(f"not enough memory for a calculation ({str(error) or 'no details'})"))
            except BaseException as error:  # the future hands it to whoever asked
                future.set_exception(error)
            else:
                future.set_result(result)
        return True

    def _answered(self, request: Request) -> Any:
        if isinstance(request, (LocalEpoch, Gradient)) and self.look().too_hot:
            raise TooHot(self.verdict.reason)
        return self.backend.answer(request)

    def _between(self) -> None:
        """Between two steps of an epoch: what does not wait, and a pause for a board that is too hot."""
        until = time.monotonic() + self._patience_s
        while True:
            if self._stopping:
                raise Stopped
            while self._do_next(self._first):
                pass
            if not self.look().too_hot:
                return
            left_s = until - time.monotonic()
            if left_s <= 0:
                raise TooHot(self.verdict.reason)
            with self._wakes:
                if not (self._first or self._stopping):
                    self._wakes.wait(min(POLL_S, left_s))
