"""The replication scripts' parts: streams, figures, tables, options. The long runs are the scripts' own business."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import figures
import gossip_tables
import lone
import numpy as np
import product
import pytest
import simulated
import streams

from edgeswarm.demo.broker import find_mosquitto, start_broker

FOLDER = Path(__file__).resolve().parents[2] / "scripts" / "replicate"

# ---- streams --------------------------------------------------------------------------------------------------------


def test_rotation_is_repeatable_and_new_with_each_seed() -> None:
    one, same, other = streams.rotation(3), streams.rotation(3), streams.rotation(4)
    assert [(x.shape, len(y)) for x, y in one] == [((500, 8), 500)] * 5
    for (x, y), (again, labels) in zip(one, same, strict=True):
        np.testing.assert_array_equal(x, again)
        assert y == labels
    assert not np.array_equal(one[0][0], other[0][0])
    assert {label for _, y in one for label in y} == {"0", "1"}


def test_rotation_turns_and_agents_are_at_different_points_of_it() -> None:
    agents = streams.rotation(0, rows=4000, turns=0.5, shift=0.5, flipped=0.0, agents=2)
    directions = []
    for x, y in agents:
        side = np.where(np.array(y) == "1", 1.0, -1.0)
        thirds = [slice(0, 400), slice(3600, 4000)]
        directions.append([(side[part, None] * x[part, :2]).mean(0) for part in thirds])
    (first, last), (shifted, _) = directions
    angle = lambda v: np.degrees(np.arctan2(v[1], v[0]))  # noqa: E731
    assert angle(first) == pytest.approx(9, abs=8)
    assert angle(last) == pytest.approx(171, abs=8)
    assert angle(shifted) == pytest.approx(99, abs=8)


def test_redundant_features_follow_from_the_decisive_ones_and_noise_does_not() -> None:
    x, _ = streams.rotation(1)[0]
    mixture, residue, *_ = np.linalg.lstsq(x[:, :2].astype(float), x[:, 2:4].astype(float), rcond=None)
    assert mixture.shape == (2, 2)
    assert residue.max() < 1e-6
    assert np.abs(np.corrcoef(x[:, :2].T, x[:, 4:].T)[:2, 2:]).max() < 0.2


def test_dealing_gives_each_agent_every_fifth_row() -> None:
    x, y = np.arange(22, dtype=np.float32)[:, None], np.arange(22) % 2
    agents = streams.deal(x, y)
    assert [len(labels) for _, labels in agents] == [4] * 5
    assert agents[1][0][:, 0].tolist() == [1, 6, 11, 16]
    assert agents[1][1] == ("1", "0", "1", "0")


def test_no_answer_is_a_false_negative() -> None:
    assert streams.f1(["1", "0", "1"], ["1", "0", "1"]) == 1.0
    assert streams.f1(["1", "0", "1"], ["1", None, "1"]) == pytest.approx(4 / 5)
    assert streams.f1(["1", "0"], ["0", "1"]) == 0.0


def test_arrivals_come_ten_times_a_second() -> None:
    times = streams.arrivals(20_000, np.random.default_rng(0))
    assert (np.diff(times) >= 0).all()
    assert times[-1] == pytest.approx(2000, rel=0.05)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="--data FOLDER"):
        streams.make("phishing", 0, tmp_path)
    with pytest.raises(ValueError, match="rotation"):
        streams.make("lgr", 0, tmp_path)


# ---- runs -----------------------------------------------------------------------------------------------------------


def test_sharing_costs_bytes_and_staying_alone_does_not() -> None:
    runs = [
        simulated.run("rotation", 0, {"share_probability": t, "fanout": s}, streams.FOLDER)
        for t, s in ((0.02, 4), (1, 0))
    ]
    assert runs[0]["messages"] > 0 and runs[0]["prototypes_trained"] > 0
    assert runs[0]["bytes_paper"] == 105 * runs[0]["prototypes_sent"]
    assert runs[1]["messages"] == 0 and runs[1]["prototypes_trained"] == 0
    assert all(0.5 < value < 0.9 for run in runs for value in run["f1"])


def test_lone_learners_learn() -> None:
    pytest.importorskip("river")
    agents = [(x[:200], y[:200]) for x, y in streams.rotation(0)]
    assert all(value > 0.55 for value in lone.scores("scaled naive Bayes", agents))


@pytest.mark.broker
def test_the_proxy_counts_what_the_transports_count(tmp_path: Path) -> None:
    if find_mosquitto() is None:
        pytest.skip("mosquitto is not installed")
    agents = [(x[:40], y[:40]) for x, y in streams.rotation(0)]
    with start_broker("mosquitto", tmp_path) as broker:
        result = asyncio.run(product.swarm("s", 0, agents, broker, 10.0, {}))
    assert result["connections"] == 5
    # At the end the broker still sends goodbyes of others to agents that have stopped reading: the wire may have
    # carried a few packets more than anybody took, never fewer.
    on_the_wire = result["bytes_up"] + result["bytes_down"]
    assert result["bytes_counters"] <= on_the_wire <= 1.03 * result["bytes_counters"]
    assert result["bytes_down"] > result["bytes_up"] > 5000
    assert len(result["f1"]) == 5


# ---- figures --------------------------------------------------------------------------------------------------------


def fake(f1: float, bytes_paper: float = 0.0) -> list[dict[str, Any]]:
    run: dict[str, Any] = {
        "f1": [f1, f1 - 0.02],
        "bytes_paper": bytes_paper,
        "bytes_wire": bytes_paper,
        "duration_s": 10.0,
    }
    return [{**run, "prototypes_sent": bytes_paper / 105, "prototypes_trained": 0.0, "messages": 1}]


def faithful() -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Runs that come out exactly as published."""
    return {
        key: {name: fake(f1 + 0.01, (kb or 0) * 10_000) for name, (f1, kb) in figures.PUBLISHED[key].items()}
        for key in ("phishing", "electricity")
    }


def test_published_figures_are_faithful_to_themselves() -> None:
    assert figures.faithful_shortfalls(faithful()) == []
    assert "as published" in gossip_tables.paper_table(faithful())


def test_each_broken_promise_is_named() -> None:
    report = faithful()
    report["phishing"]["alone @ 1"] = fake(0.7)
    report["phishing"]["+ filter @ 1"] = fake(0.835, 5_000_000)
    report["electricity"]["base @ 1"] = fake(0.4, 33_928_000)
    missed = figures.faithful_shortfalls(report)
    assert any("Phishing, alone @ 1: F1 0.6900" in line for line in missed)
    assert any("Phishing: the filter saves 70.0%" in line for line in missed)
    assert any("base @ 1 minus alone @ 1" in line for line in missed)


def beyond(product_f1: float, product_bytes: int) -> dict[str, dict[str, list[dict[str, Any]]]]:
    ours = [{"f1": [product_f1] * 5, "f1_alone": [0.8] * 5, "bytes_up": product_bytes, "bytes_down": 0, "late_s": 0.1}]
    runs = {"product": ours, "base": fake(0.82, 1e8), "alone": fake(0.8), "base at equal bytes": fake(0.8, 1e5)}
    runs |= {"lone kNN": [{"f1": [0.84] * 5}], "equal_share": 0.01}
    return {"rotation": runs}


def test_the_product_is_held_to_its_promises() -> None:
    assert figures.beyond_shortfalls(beyond(0.85, 100_000)) == []
    missed = figures.beyond_shortfalls(beyond(0.79, 600_000))
    assert sum("fewer bytes" in line for line in missed) == 3
    assert any("mean F1 0.7900" in line for line in missed) and any("worst agent's" in line for line in missed)


def test_the_table_says_who_wins() -> None:
    assert "wins over kNN" in gossip_tables.beyond_table(beyond(0.85, 1))
    assert "LOSES to kNN" in gossip_tables.beyond_table(beyond(0.83, 1))


# ---- options --------------------------------------------------------------------------------------------------------


def script(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FOLDER / "prototype_gossip.py"), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(FOLDER.parents[1])}
    )


def test_help_names_the_options() -> None:
    said = script("--help").stdout
    assert all(option in said for option in ("--quick", "--json", "--check", "--seeds", "--data", "--explain"))


def test_a_missing_folder_ends_it_with_advice(tmp_path: Path) -> None:
    done = script("--quick", "--data", str(tmp_path))
    assert done.returncode == 2
    assert "--data FOLDER" in done.stderr


def test_no_seeds_are_refused() -> None:
    done = script("--quick", "--seeds", "-1")
    assert done.returncode == 2
    assert "--seeds" in done.stderr
