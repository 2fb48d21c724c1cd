from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_world import Run

ROOT = Path(__file__).parents[2]
TINY = """
[swarm]
nodes = 3
duration_s = 40.0
[data]
path = "rows.npz"
[strategy]
name = "d_psgd"
rate = 0.05
[model]
hidden = 4
[report]
every_s = 10.0
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A small swarm on data of its own, whatever folder one is in."""
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=200)
    np.savez(tmp_path / "rows.npz", x=(rng.normal(size=(200, 4)) + 4 * np.eye(4)[y]).astype(np.float32), y=y)
    path = tmp_path / "swarm.toml"
    path.write_text(TINY)
    return path


def test_the_screen(run: Run, config: Path, tmp_path: Path) -> None:
    result = run("simulate", "--config", str(config), "--folder", str(tmp_path / "run"), "--backend", "reference")
    lines = result.stdout.splitlines()
    assert lines[0] == "d_psgd on rows, 3 devices, graph full, 40 s, seed 0"
    assert lines[1].startswith("accuracy, own mix") and "worst device" in lines[1]
    head = next(at for at, line in enumerate(lines) if line.startswith("device"))
    assert [line.split()[0] for line in lines[head + 1 : head + 4]] == ["n1", "n2", "n3"]
    assert lines[-1].endswith("report.json, accuracy.png, bytes.png, age.png, devices.png")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "checkpoint", "report.md", "report.json", "accuracy.png", "bytes.png", "age.png", "devices.png",
    }  # fmt: skip


def test_json_is_the_outcome(run_json: Callable[..., Any], config: Path) -> None:
    data = run_json("simulate", "--config", str(config), "--set", "swarm.seed=3", "--backend", "reference")
    assert data["scenario"]["swarm"]["seed"] == 3 and data["backend"] == "reference" and data["files"] == []
    assert data["at_s"] == [10.0, 20.0, 30.0, 40.0] and len(data["nodes"][0]["accuracy"]) == 4
    assert data["summary"]["accuracy"] > 0.5


def test_wrong_words_are_a_line_and_2(run: Run, config: Path, tmp_path: Path) -> None:
    said = run("simulate", "--config", str(config), "--set", "data.alhpa=1", code=2).stderr.strip()
    assert said == "edgeswarm: command line: [data] unknown key 'alhpa'; did you mean 'alpha'?"
    assert "KEY=VALUE" in run("simulate", "--set", "rate", code=2).stderr
    assert "--resume needs --folder" in run("simulate", "--resume", code=2).stderr
    nothing = ("simulate", "--folder", str(tmp_path / "none"), "--resume")
    assert "holds no checkpoint" in run(*nothing, code=2).stderr


def test_the_example_is_a_scenario(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "swarm.toml"
    path.write_text(run("simulate", "--example").stdout)
    from edgeswarm.sim.scenario import load

    assert load(path).strategy.name == "d_psgd" and len(load(path).events) == 2


def test_the_example_takes_less_than_the_patience_of_a_minute(
    run_json: Callable[..., Any], run: Run, tmp_path: Path
) -> None:
    """Not a measurement: the run is there, with devices that have learnt, and its events."""
    pytest.importorskip("sklearn", reason="the built-in digits come with scikit-learn")
    path = tmp_path / "swarm.toml"
    path.write_text(run("simulate", "--example").stdout)
    data = run_json("simulate", "--config", str(path), "--set", "swarm.duration_s=320", "--backend", "onnx")
    assert data["summary"]["accuracy"] > 0.9 and {node["board"] for node in data["nodes"]} == {"pi-4", "pi-zero-2w"}
    assert data["nodes"][1]["accuracy"][7] is None, "n2 is away at 240 s"


def test_ctrl_c_keeps_a_checkpoint_and_says_how_to_go_on(
    run_json: Callable[..., Any], config: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    words = [sys.executable, "-m", "edgeswarm", "simulate", "--config", str(config), "--backend", "reference",
             "--set", "swarm.duration_s=4000", "--set", "report.every_s=400", "--folder", str(folder)]  # fmt: skip
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ) as process:
        assert process.stderr is not None
        while not (folder / "checkpoint" / "lock").exists() and process.poll() is None:  # then it has begun
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
    assert process.returncode == 130, said
    assert said.splitlines()[0] == "stopping; once more ends it at once"
    assert f"go on with: edgeswarm simulate --folder {folder} --resume" in said.strip().splitlines()[-1]
    data = run_json("simulate", "--folder", str(folder), "--resume", "--backend", "reference")
    whole = run_json("simulate", "--config", str(config), "--backend", "reference",
                     "--set", "swarm.duration_s=4000", "--set", "report.every_s=400")  # fmt: skip
    assert data["nodes"] == whole["nodes"]


def test_a_folder_with_a_run_is_not_written_over(run: Run, config: Path, tmp_path: Path) -> None:
    words = ("simulate", "--config", str(config), "--folder", str(tmp_path / "run"), "--backend", "reference")
    run(*words)
    report = (tmp_path / "run" / "report.json").read_bytes()
    assert "holds a run already" in run(*words, code=2).stderr
    (tmp_path / "other" / "report.json").mkdir(parents=True)  # in the way of the report
    shown = run(*words[:4], str(tmp_path / "other"), *words[5:], code=75)
    assert "accuracy, own mix" in shown.stdout and "write the report to" in shown.stderr
    alone = run("simulate", "--folder", str(tmp_path / "run"), "--resume", "--set", "swarm.seed=3", code=2).stderr
    assert "--resume goes on with the run as it is" in alone
    run(*words, "--resume")
    assert json.loads((tmp_path / "run" / "report.json").read_bytes())["nodes"] == json.loads(report)["nodes"]
