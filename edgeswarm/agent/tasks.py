"""The tasks of a running agent: started by name, ended in order; one that fails ends them all, with its error."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from edgeswarm.agent.trouble import Trouble
from edgeswarm.errors import EdgeswarmError


class Tasks:
    """Used from the event loop. False until the first task is started."""

    def __init__(self, trouble: Trouble) -> None:
        """trouble: told of bugs in what is done once per period."""
        self._trouble = trouble
        self._tasks: dict[str, asyncio.Task[Any]] = {}

    def __bool__(self) -> bool:
        return bool(self._tasks)

    def start(self, name: str, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Run `coroutine` beside the others. Two tasks must not have one name."""
        assert name not in self._tasks, name
        self._tasks[name] = asyncio.get_running_loop().create_task(coroutine, name=f"edgeswarm {name}")

    async def every(self, period_s: float, do: Callable[[], Awaitable[None]], at_once: bool = False) -> None:
        """`do` once per period, its own time included, until cancelled; a bug in it is survived.

        at_once: the first time now, not after a period.  Raises the EdgeswarmError that `do` raises.
        """
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
                self._trouble.fault()

    async def until(self, stopping: asyncio.Event) -> None:
        """Return once `stopping` is set; a task that fails ends the wait with its error, one that is done is no news.

        A task started meanwhile is not waited for.
        """
        self.start("stop", stopping.wait())
        pending = set(self._tasks.values())
        while not stopping.is_set():
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if error := task.exception():
                    raise error

    async def end(self, but: str = "") -> None:
        """Cancel all tasks, or all but one, and wait until they have ended; how they ended is of no interest."""
        ending = [task for name, task in self._tasks.items() if name != but]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
