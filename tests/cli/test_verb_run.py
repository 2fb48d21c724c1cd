"""A real agent on a real broker, started and stopped as a service manager does it, and the verbs that look at it."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cli_world import Run

from edgeswarm.demo.broker import RunningBroker

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--set", "report.every_s"), "write KEY=VALUE"),
        (("--set", "=3"), "write KEY=VALUE"),
        (("--set", "report.evry_s=3"), "did you mean 'every_s'?"),
        (("--node", "Node One"), '"node-one"'),
        (("--broker", "http://x"), "mqtts:// or mqtt://"),
        (("--log-format", "xml"), "'text', 'json'"),
        (("--config", "nowhere.toml"), "nowhere.toml"),
        ((), "is not set"),
    ],
)
def test_wrong_usage(run: Run, words: tuple[str, ...], said: str) -> None:
    result = run("run", *words, code=2)
    assert said in result.stderr.replace("\n", " ") and "Traceback" not in result.stderr


def test_a_source_that_is_not_there(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text(
        'node="n"\n[broker]\nurl="mqtt://localhost"\n[source]\nkind="csv"\npath="none.csv"\n[state]\nfolder="st"\n'
    )
    stderr = run("run", "--config", str(path), code=2).stderr
    assert stderr.splitlines()[-1].startswith("edgeswarm: ") and "none.csv" in stderr


@dataclass
class Agent:
    config: Path
    state: Path
    process: subprocess.Popen[str]


@pytest.fixture(scope="module")
def agent(broker: RunningBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """A node that has learnt and reported; it stops with the module."""
    folder = tmp_path_factory.mktemp("agent")
    rng = random.Random(5)
    rows = ["a,b,label"]
    for _ in range(400):
        name, (a, b) = rng.choice([("red", (0, 0)), ("green", (8, 0)), ("blue", (0, 8))])
        rows.append(f"{rng.gauss(a, 1):.3f},{rng.gauss(b, 1):.3f},{name}")
    (folder / "samples.csv").write_text("\n".join(rows) + "\n")
    config = folder / "agent.toml"
    config.write_text(
        f'node = "nobody"\nsite = "run-hall"\n[broker]\nurl = "{broker.url}"\n'
        '[source]\nkind = "csv"\npath = "samples.csv"\nrate_per_s = 400\n'
        '[state]\nfolder = "state"\nevery_s = 1\n[report]\nevery_s = 1\n[strategy]\nperiod_s = 0.3\n'
    )
    words = [sys.executable, "-m", "edgeswarm", "run", "--config", str(config), "--node", "node-1"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [*words, "--set", "strategy.period_s=0.2", "--log-format", "json"],
        stderr=subprocess.PIPE,
        text=True,
        env=environ,
    )
    try:
        wait_until(lambda: (folder / "state" / "state.msgpack").exists() and samples(folder / "state") >= 100, process)
        yield Agent(config, folder / "state", process)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def samples(state: Path) -> float:
    try:
        return float(json.loads((state / "status.json").read_text())["notes"].get("samples", 0))
    except (OSError, ValueError):
        return 0.0


def wait_until(true: Any, process: subprocess.Popen[str]) -> None:
    for _ in range(600):
        if true():
            return
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.1)
    raise AssertionError("the agent did not get there in a minute")


@pytest.mark.broker
def test_status_of_a_running_agent(run: Run, agent: Agent) -> None:
    text = run("status", "--state", str(agent.state)).stdout
    assert text.startswith("node-1 at site run-hall, task default: up ") and "link      up, connected to" in text


@pytest.mark.broker
def test_why_of_a_running_agent(run: Run, agent: Agent) -> None:
    lines = run("why", "--state", str(agent.state), "--last", "500").stdout.splitlines()
    assert any(" sent the whole set" in line or " sent" in line for line in lines)
    assert lines[-1].startswith("since ")
    unexplained = [line for line in lines[:-2] if "; changed" in line or "; drift" in line]
    assert not unexplained, "a decision without a sentence"


@pytest.mark.broker
def test_predict_beside_a_running_agent(run: Run, agent: Agent) -> None:
    lines = run("predict", "--state", str(agent.state), input="a,b\n0,0\n8,0\n0,8\n").stdout.splitlines()
    assert [line.split("\t")[0] for line in lines] == ["red", "green", "blue"]


@pytest.mark.broker
def test_peers_sees_it(run: Run, agent: Agent, broker: RunningBroker) -> None:
    data = json.loads(run("peers", "--config", str(agent.config), "--timeout", "20", "--json").stdout)
    (node,) = data["nodes"]
    assert (node["node"], node["state"], node["notes"]["strategy"]) == ("node-1", "ready", "prototype_gossip")
    assert node["notes"]["samples"] >= 100


@pytest.mark.broker
def test_doctor_beside_it_disturbs_nobody(run: Run, agent: Agent) -> None:
    before = json.loads((agent.state / "status.json").read_text())["notes"]["disconnects"]
    data = json.loads(run("doctor", "--config", str(agent.config), "--json").stdout)
    checks = {check["name"]: check for check in data["checks"]}
    assert checks["state-lock"]["facts"]["pid"] == agent.process.pid
    assert checks["acl-all"]["status"] == checks["acl-state"]["status"] == "ok"
    assert json.loads((agent.state / "status.json").read_text())["notes"]["disconnects"] == before


@pytest.mark.broker
def test_a_second_agent_on_the_folder_is_refused(run: Run, agent: Agent) -> None:
    stderr = run("run", "--config", str(agent.config), "--node", "node-2", code=2).stderr
    assert "in use by another agent" in stderr and str(agent.process.pid) in stderr


@pytest.mark.broker
def test_sigterm_ends_it_in_good_order(run: Run, agent: Agent) -> None:
    """Last in the file: the agent is gone afterwards."""
    agent.process.send_signal(signal.SIGTERM)
    _, stderr = agent.process.communicate(timeout=30)
    assert agent.process.returncode == 0
    lines = [json.loads(line) for line in stderr.splitlines()]
    assert all({"at_unix", "level", "source", "text"} <= set(line) for line in lines)
    assert not [line for line in lines if line["level"] == "error"]
    assert "in good order" in run("status", "--state", str(agent.state), code=3).stdout
