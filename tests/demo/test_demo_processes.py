"""Signals, and processes that end when they should."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgeswarm.demo.processes import AgentProcess, Interrupts, start_agent, stop_agents

OBEDIENT = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); print('up', flush=True)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True)"
SLEEP = "; [time.sleep(0.05) for _ in iter(int, 1)]"


def started(code: str, folder: Path) -> AgentProcess:
    """A process of our own that has set its signal handlers up."""
    log = folder / "log"
    with log.open("ab") as output:
        process = subprocess.Popen([sys.executable, "-c", code + SLEEP], stdout=output, start_new_session=True)
    while "up" not in log.read_text():
        assert process.poll() is None
        time.sleep(0.02)
    return AgentProcess("pi-1", process, log)


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_an_obedient_agent_is_not_killed(tmp_path: Path) -> None:
    agent = started(OBEDIENT, tmp_path)
    stop_agents([agent], patience_s=30.0)
    assert agent.process.returncode == 0 and not lives(agent.process.pid)


def test_a_stubborn_agent_is_killed(tmp_path: Path) -> None:
    agent = started(STUBBORN, tmp_path)
    stop_agents([agent], patience_s=0.1)
    assert agent.process.returncode == -signal.SIGKILL and not lives(agent.process.pid)


def test_a_hurry_does_not_wait_for_patience(tmp_path: Path) -> None:
    agent = started(STUBBORN, tmp_path)
    stop_agents([agent], hurry=lambda: True, patience_s=3600.0)
    assert agent.process.returncode == -signal.SIGKILL


def test_last_words(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    process.wait()
    agent = AgentProcess("pi-1", process, log)
    assert agent.last_words() == "no last words, exit code 3"
    log.write_text("12:00:00 info  up\nedgeswarm: agent.toml:3: [broker] url is wrong\n\n")
    assert agent.last_words() == "agent.toml:3: [broker] url is wrong"
    log.write_text("Traceback ...\nKeyError: 'x'\nedgeswarm: this is a bug in edgeswarm, not in what you did\n")
    assert agent.last_words() == "KeyError: 'x'"


def test_an_agent_takes_its_settings_from_its_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGESWARM_NODE", "stranger")
    config = tmp_path / "pi-1.toml"
    config.write_text('node = "pi-1"\nno_such_key = 1\n')
    agent = start_agent("pi-1", config)
    agent.process.wait(60)
    assert agent.process.returncode == 2
    assert "pi-1.toml:2: unknown key 'no_such_key'" in agent.last_words()


def test_a_signal_waits_for_check() -> None:
    with Interrupts() as interrupts:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupts.count == 2
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()
        with pytest.raises(KeyboardInterrupt), interrupts.at_once():
            pytest.fail("entered although a signal had come")


def test_a_signal_ends_slow_work_at_once() -> None:
    with Interrupts() as interrupts:
        with pytest.raises(KeyboardInterrupt), interrupts.at_once():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(60)
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.count == 2, "outside of it the next one only counts again"


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with Interrupts():
        assert signal.getsignal(signal.SIGINT) is not before[0]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before
