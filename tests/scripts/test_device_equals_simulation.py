"""The benchmark that holds devices against the simulation: its data, its two sides, its verdict."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from edgeswarm.agent.config import load
from edgeswarm.demo.broker import find_mosquitto


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts" / "bench"))
    import device_equals_simulation

    return device_equals_simulation


@pytest.fixture
def laboratory(bench: ModuleType, tmp_path: Path):
    made = bench.Laboratory(tmp_path, 4.0)
    made.prepare()
    return made


def test_every_node_has_rows_of_its_own_and_nobody_those_of_the_examination(bench, laboratory) -> None:
    shares = [np.load(laboratory.folder / f"{name}.npz")["x"] for name in bench.NODES]
    examination = np.load(laboratory.folder / "holdout.npz")["x"]
    assert len(examination) == bench.HOLD_OUT and min(len(share) for share in shares) > 0
    seen = {row.tobytes() for row in examination.astype(np.float32)}
    assert not any(row.astype(np.float32).tobytes() in seen for share in shares for row in share)


def test_the_files_are_those_of_an_agent(bench, laboratory) -> None:
    for method in bench.METHODS:
        for name, path in laboratory.configurations(method, "mqtt://localhost").items():
            config, _ = load(path, {}, {})
            assert (config.node, config.strategy.name) == (name, method)


def test_two_simulations_are_one_and_the_switch_times_count(bench, laboratory) -> None:
    seen = {name: bench.Result(100.0 + at / 10, 106.45, 0.0, 1.0, 1.0, 0.0) for at, name in enumerate(bench.NODES)}
    first, again = (bench.simulated(laboratory, "d_psgd", seen) for _ in range(2))
    assert first == again
    assert [result.rounds for result in first.values()] == [6.0] * 5 + [5.0] * 3
    assert all(result.bytes_sent > 0 and 0 <= result.accuracy <= 1 for result in first.values())


def test_the_verdict_names_the_method_and_the_figure(bench) -> None:
    good = {"accuracy_points": -0.9, "bytes_sent_share": 0.02, "bytes_received_share": -0.029}
    assert bench.shortfalls({"d_psgd": good}) == []
    bad = {"accuracy_points": 1.2, "bytes_sent_share": -0.04, "bytes_received_share": 0.0}
    assert bench.shortfalls({"d_psgd": good, "gatta": bad}) == [
        "gatta: accuracy differs by +1.20 points",
        "gatta: bytes_sent differ by -4.0%",
    ]


@pytest.mark.broker
def test_devices_run_and_cost_what_the_simulation_says(bench: ModuleType, tmp_path: Path) -> None:
    """Twelve seconds of eight real processes. What a round costs is held closely on every machine; accuracy, and with
    it all bytes, where devices had nine in ten of their rounds, which a very busy machine does not leave them."""
    if find_mosquitto() is None:
        pytest.skip("mosquitto is not installed")
    longer = bench.Laboratory(tmp_path, 12.0)
    longer.prepare()
    found = bench.compared(longer, "d_psgd")
    rounds = found["rounds_devices"] / found["rounds_simulation"]
    assert 0.5 < rounds < 1.1 and (rounds < 0.9 or abs(found["accuracy_points"]) < 10), found
    for way in ("bytes_sent", "bytes_received"):
        per_round = (1 + found[f"{way}_share"]) * rounds
        assert abs(per_round - 1) < (0.05 if way == "bytes_sent" else 0.15), (way, found)
