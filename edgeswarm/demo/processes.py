"""The agents as processes: started apart from the terminal's Ctrl-C, ended with certainty.

Each agent has its own session, so that Ctrl-C reaches the demo alone, which then stops them in an orderly way. Should
the demo itself be killed, the kernel kills the agents (PR_SET_PDEATHSIG, Linux).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from edgeswarm.demo.broker import _dies_with_parent as dies_with_parent

STOP_PATIENCE_S = 2.0
LAST_WORDS_LIMIT = 200
_BUG = "this is a bug"
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class AgentProcess:
    """One agent. log: what it writes to stdout and stderr."""

    node: str
    process: subprocess.Popen[bytes]
    log: Path

    def last_words(self) -> str:
        """The last line it wrote about its own end, or how it ended; at most LAST_WORDS_LIMIT characters."""
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            lines = []
        said = [line.strip().removeprefix("edgeswarm: ") for line in lines if line.strip()]
        if len(said) > 1 and said[-1].startswith(_BUG):
            said.pop()  # the line above it is the exception
        return said[-1][:LAST_WORDS_LIMIT] if said else f"no last words, exit code {self.process.returncode}"


def start_agent(node: str, config: Path) -> AgentProcess:
    """Start `edgeswarm run` with this configuration. Its settings come from there alone, not from the environment.

    To be called in the main thread, or in one that lives as long as the agent should.
    """
    root = str(Path(__file__).resolve().parents[2])
    environ = {name: value for name, value in os.environ.items() if not name.startswith("EDGESWARM_")}
    environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, environ.get("PYTHONPATH", "")]))
    # five agents share the cores: threads of their own would only wait for one another
    environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
    log = config.with_suffix(".log")
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "edgeswarm", "run", "--config", str(config), "--no-color"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environ,
            cwd=config.parent,
            start_new_session=True,
            preexec_fn=dies_with_parent(),
        )
    return AgentProcess(node, process, log)


def stop_agents(
    agents: Sequence[AgentProcess], hurry: Callable[[], bool] = lambda: False, patience_s: float = STOP_PATIENCE_S
) -> None:
    """SIGTERM to all, SIGKILL to what is left of their process groups after `patience_s` or once `hurry()` says so.

    Returns when none of them runs any more.
    """
    for agent in agents:
        if agent.process.poll() is None:
            agent.process.terminate()
    deadline = time.monotonic() + patience_s
    while any(agent.process.poll() is None for agent in agents) and time.monotonic() < deadline and not hurry():
        time.sleep(0.02)
    for agent in agents:
        if agent.process.poll() is None:
            # its session's number is its own: the group holds it and whatever it may have started
            with contextlib.suppress(ProcessLookupError):
                os.killpg(agent.process.pid, signal.SIGKILL)
        agent.process.wait()


class Interrupts:
    """Ctrl-C, SIGTERM and SIGHUP, noticed where it does no harm.

    While active, a signal is only counted; `check` raises KeyboardInterrupt for it. Around slow work that may be left
    at any point, `at_once` lets the signal raise there and then.
    """

    def __init__(self) -> None:
        self.count = 0
        self._raising = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        for number in _SIGNALS:
            # SIGHUP that is ignored (nohup) stays ignored
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._noticed)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raises KeyboardInterrupt once a signal has come."""
        if self.count:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Within, a signal raises KeyboardInterrupt wherever the main thread is."""
        self.check()
        self._raising = True
        try:
            yield
        finally:
            self._raising = False

    def _noticed(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if self._raising:
            self._raising = False
            raise KeyboardInterrupt
