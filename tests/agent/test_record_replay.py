"""A real swarm, recorded at its broker and played again in the simulator: the same swarm, by the numbers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from agent_process import Node, lessons, wait_for
from click.testing import CliRunner

from edgeswarm.cli import group
from edgeswarm.demo.broker import RunningBroker
from edgeswarm.models.file import write
from edgeswarm.models.perceptron import perceptron
from edgeswarm.sim.recording import read

ROOT = Path(__file__).parents[2]
ROUNDS = 14


@pytest.mark.broker
def test_recorded_and_replayed(broker: RunningBroker, node: Callable[..., Node], site: str, tmp_path: Path) -> None:
    """Three agents that average models; one starts late, one is killed and comes back."""
    names = ("a", "b", "c")
    parts = tmp_path / "parts"
    parts.mkdir()
    for at, name in enumerate(names):
        x, y = lessons(60, seed=at)
        np.savez(parts / f"{name}.npz", x=x, y=y)
    x, y = lessons(200, seed=99)
    np.savez(tmp_path / "test.npz", x=x, y=y)
    model = tmp_path / "model.esm"
    write(perceptron(("0", "1", "2"), x.mean(axis=0), x.std(axis=0), 8), model)
    strategy = {"name": "d_psgd", "period_s": 0.5, "rate": 0.05}
    agents = {
        name: node(
            broker.url, name, strategy=strategy, source={"kind": "npz", "path": str(parts / f"{name}.npz")},
            model={"path": str(model)}, evaluate={"path": str(tmp_path / "test.npz"), "every_s": 0.5},
            compute={"backend": "reference"},
        )
        for name in names
    }  # fmt: skip
    record = tmp_path / "run.jsonl"
    words = [sys.executable, "-m", "edgeswarm", "record", str(record), "--broker", broker.url, "--site", site]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    recorder = subprocess.Popen(words, env=environ, stderr=subprocess.PIPE, text=True)
    try:
        assert recorder.stderr is not None and "recording site" in recorder.stderr.readline()
        for name in ("a", "b"):
            agents[name].start()
        agents["a"].wait(lambda status: status["notes"].get("rounds", 0) >= 2)
        agents["c"].start().wait(lambda status: status["notes"].get("rounds", 0) >= 2)
        agents["b"].kill()
        rounds = agents["a"].note("rounds")
        agents["a"].wait(lambda status: status["notes"].get("rounds", 0) >= rounds + 3)
        agents["b"].start()
        agents["a"].wait(lambda status: status["notes"].get("rounds", 0) >= rounds + ROUNDS)
        wait_for(lambda: agents["b"].note("holdout_swarm") > 0)
        recorder.send_signal(signal.SIGINT)
        assert "3 nodes" in recorder.stderr.read() and recorder.wait() == 0
    finally:
        recorder.kill()
        recorder.communicate()

    found = read(record)
    assert list(found.nodes) == list(names) and found.nodes["c"].start_s > found.nodes["a"].start_s
    states = [state for _, state, _ in found.nodes["b"].states]
    assert states == ["ready", "lost", "ready"] and found.nodes["b"].states[2][2] > found.nodes["b"].states[0][2]
    (died_s,), (told_s,) = zip(*found.nodes["b"].wills_s.items(), strict=True)
    assert found.nodes["b"].states[1][0] == died_s < told_s, "it was gone before the broker told of it"
    assert found.nodes["b"].unreported_bytes is not None and found.nodes["a"].unreported_bytes is None
    assert all(one.round_trip_s is not None and one.round_trip_s < 5 for one in found.nodes.values())

    config = tmp_path / "swarm.toml"
    config.write_text(
        f'[data]\npath = "{parts}"\nsplit = "files"\ntest_path = "{tmp_path / "test.npz"}"\n[model]\npath = "{model}"\n'
        f'[strategy]\nname = "d_psgd"\nperiod_s = 0.5\nrate = 0.05\n[state]\nevery_s = 1.0\n[report]\nevery_s = 1.0\n'
    )
    shown = CliRunner().invoke(group, ["simulate", "--config", str(config), "--replay", str(record), "--backend",
                                       "reference", "--json", "-q"])  # fmt: skip
    assert shown.exit_code == 0, shown.output
    data: dict[str, Any] = json.loads(shown.stdout)
    assert [event["nodes"] for event in data["scenario"]["event"]][-1] == ["c"]
    for pair in data["replay"]:
        real, played = pair["accuracy"]
        assert abs(real - played) < 0.1, pair
        if pair["name"] != "b":  # b's queue at the broker, filled while it was away, is not modelled
            for key in ("bytes_sent", "bytes_received"):
                real, played = pair[key]
                assert played == pytest.approx(real, rel=0.25), pair
    table = CliRunner().invoke(
        group, ["simulate", "--config", str(config), "--replay", str(record), "--backend", "reference"]
    )
    assert "b: a process ended after its last report; " in table.stdout
    assert "recorded and replayed" in table.stdout and "bytes sent: replayed " in table.stdout
