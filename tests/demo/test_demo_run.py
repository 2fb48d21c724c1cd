"""The demo as a person runs it: a real broker, real processes, and nothing of them left afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeswarm.demo.broker import find_mosquitto, start_broker

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 120.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.broker,
    pytest.mark.skipif(find_mosquitto() is None, reason="Mosquitto is not installed"),
]


class Demo:
    """`edgeswarm demo` in a session and with a temporary folder of its own, so that all it starts can be found."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.temporary = folder / "tmp"
        self.temporary.mkdir(exist_ok=True)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "edgeswarm", "demo", *words],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(self.temporary), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self) -> tuple[str, str]:
        """What it wrote, once it has ended."""
        try:
            return self.process.communicate(timeout=PATIENCE_S)
        finally:
            self.process.kill()
            self.process.wait()

    def left_running(self) -> list[str]:
        """Processes whose command line names our temporary folder: every agent and Mosquitto do."""
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            try:
                command = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if str(self.temporary) in command:
                found.append(f"{place.name} {command}")
        return found

    def wait_for_agents(self, count: int) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while sum("edgeswarm run" in command for command in self.left_running()) < count:
            assert self.process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    assert not list((tmp_path / "tmp").glob("edgeswarm-demo-*")), "a temporary folder stayed behind"


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_five_agents_know_more_together(folder: Path) -> None:
    demo = Demo(folder, "--seconds", "12", "--json", "--picture", "here/swarm.png")
    out, words = demo.end()
    assert demo.process.returncode == 0, words
    said: dict[str, Any] = json.loads(out)
    assert said["broker"]["kind"] == "mosquitto" and said["broker"]["url"] in words
    assert [agent["node"] for agent in said["agents"]] == ["pi-1", "pi-2", "pi-3", "pi-4", "pi-5"]
    for agent in said["agents"]:
        assert agent["reports"] > 3 and agent["finished"] and agent["ended"] is None
        assert agent["samples"] == agent["share"]
        assert agent["bytes_sent"] > agent["report_bytes"] > 0 and agent["bytes_received"] > 0
        assert len(agent["links"]) == 4 and all(link["age_s"] >= 0 for link in agent["links"].values())
        assert agent["sent"] >= 1 and agent["held"] == sum(agent["held_why"].values())
    assert said["summary"]["together"] > said["summary"]["alone"]
    assert said["summary"]["samples"] == sum(agent["share"] for agent in said["agents"])
    assert (folder / "here" / "swarm.png").read_bytes().startswith(b"\x89PNG")
    assert not [agent["pid"] for agent in said["agents"] if lives(agent["pid"])]
    assert demo.left_running() == []


def test_the_readers_own_table_on_the_readers_own_broker(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rows = "".join(f"{i % 3 + (i * 37 % 100) / 150:.3f},{i % 5},{'abc'[i % 3]},row {i}\n" for i in range(300))
    (folder / "mine.csv").write_text("v,w,kind,remark\n" + rows)
    with start_broker("mosquitto", tmp_path_factory.mktemp("broker")) as broker:
        words = ["--data", "mine.csv", "--label", "kind", "--broker", broker.url, "--agents", "3", "--seconds", "5"]
        demo = Demo(folder, *words, "--json", "--no-picture", "-q")
        out, said_aside = demo.end()
        assert demo.process.returncode == 0, said_aside
        assert broker.process.poll() is None, "a broker of somebody else's is left alone"
    said = json.loads(out)
    assert said_aside == ""
    assert said["broker"] == {"kind": "", "version": "", "url": broker.url}
    assert said["data"]["classes"] == ["a", "b", "c"] and said["data"]["notes"] == ["without remark (not numbers)"]
    assert len(said["agents"]) == 3 and all(agent["finished"] for agent in said["agents"])
    assert said["picture"] is None and demo.left_running() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interruption_while_they_learn_leaves_nothing(folder: Path, number: signal.Signals) -> None:
    demo = Demo(folder, "--seconds", "60")
    demo.wait_for_agents(5)
    demo.process.send_signal(number)
    out, _ = demo.end()
    assert demo.process.returncode == 130
    assert "Nothing is left running" in out
    assert demo.left_running() == []


@pytest.mark.parametrize("delay_s", [0.5, 0.8, 1.1, 1.4])
def test_an_impatient_interruption_during_the_start_leaves_nothing(folder: Path, delay_s: float) -> None:
    demo = Demo(folder, "--seconds", "60")
    time.sleep(delay_s)
    for _ in range(3):
        demo.process.send_signal(signal.SIGINT)
        time.sleep(0.05)
    demo.end()
    assert demo.process.returncode in (130, -signal.SIGINT), "the latter before Python itself is up"
    assert demo.left_running() == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's help is Linux's")
def test_a_killed_demo_takes_its_processes_along(tmp_path: Path) -> None:
    demo = Demo(tmp_path, "--seconds", "60")
    demo.wait_for_agents(5)
    demo.process.kill()
    demo.end()
    deadline = time.monotonic() + PATIENCE_S
    while demo.left_running():
        assert time.monotonic() < deadline, demo.left_running()
        time.sleep(0.05)


def test_a_useless_table_is_one_line_and_code_2(folder: Path) -> None:
    (folder / "mine.csv").write_text("v,kind\n1,a\n")
    demo = Demo(folder, "--data", "mine.csv", "--label", "knd")
    _, said = demo.end()
    assert demo.process.returncode == 2
    assert said == "edgeswarm: mine.csv: no column 'knd'; did you mean 'kind'?\n"
