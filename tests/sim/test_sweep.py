"""Sweeps: which cells there are, that each is run once and kept, and what they come to."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeswarm.errors import ConfigError
from edgeswarm.sim import sweep as module
from edgeswarm.sim.run import run
from edgeswarm.sim.scenario import Scenario, load
from edgeswarm.sim.sweep import cells, draw, heads, parsed, plain, sweep, table, words

pytest.importorskip("joblib", reason="sweeps are handed out by joblib")
pytest.importorskip("sklearn", reason="the built-in digits come with scikit-learn")

TINY = {
    "swarm.nodes": 3, "swarm.duration_s": 11.0, "report.every_s": 11.0, "data.per_node": 40, "model.hidden": 4,
    "strategy.name": "isolated", "strategy.steps": 1, "data.split": "iid",
}  # fmt: skip


def tiny(**more: Any) -> Scenario:
    return load(None, TINY | more)


def test_values_lists_and_ranges() -> None:
    found = parsed(["strategy.name=d_psgd, isolated", "seed=1..3,7", "strategy.rate=0.1"])
    assert found == {
        "strategy.name": ("d_psgd", "isolated"),
        "swarm.seed": ("1", "2", "3", "7"),
        "strategy.rate": ("0.1",),
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [("rate=1", "as strategy.name="), ("strategy.rate", "KEY=A,B,C"), ("strategy.rate=", "has no value"),
     ("seed=5..1", "a range is two whole numbers"), ("seed=a..b", "a range is"), ("seed=1..99999999", "a range is")],
)  # fmt: skip
def test_what_cannot_be_swept_over_is_a_line(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parsed([text])


def test_every_combination_once() -> None:
    over = {"strategy.name": ("isolated", "d_psgd"), "strategy.rate": ("0.1", "0.2"), "swarm.seed": ("1", "2")}
    found = cells(tiny(), over)
    assert len(found) == len({cell.key for cell in found}) == 8
    assert {(c.scenario.strategy.name, c.scenario.strategy.knobs["rate"], c.scenario.swarm.seed) for c in found} == {
        (name, rate, seed) for name in over["strategy.name"] for rate in (0.1, 0.2) for seed in (1, 2)
    }
    assert len({cell.setting for cell in found}) == 4, "seeds are repetitions"
    assert [cell.key for cell in found] == [cell.key for cell in cells(tiny(), over)]
    with pytest.raises(ConfigError, match="twice"):
        parsed(["seed=1", "swarm.seed=2"])
    with pytest.raises(ConfigError, match="has no knob 'rate'"):
        cells(tiny(), {"strategy.name": ("prototype_gossip",), "strategy.rate": ("0.1",)})
    with pytest.raises(ConfigError, match=r"1,000,000 cells"):
        cells(tiny(), {"swarm.seed": ("1",) * 1000, "data.per_node": ("1",) * 1000})


def test_means_and_deviations_are_those_of_the_runs_and_what_is_kept_is_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = cells(tiny(), {"strategy.rate": ("0.01", "0.1"), "swarm.seed": ("1", "2")})
    told: list[int] = []
    outcomes = sweep(wanted, tmp_path, backend="reference", progress=lambda done, of, cell: told.append(done))
    assert told == [1, 2, 3, 4] and all(outcomes)
    assert outcomes[3] == run(wanted[3].scenario, backend="reference"), "a cell is a run like any other"
    rows = table(wanted, outcomes, tmp_path)
    values = [outcome.accuracy_common for outcome in outcomes[:2] if outcome is not None]
    assert [row.setting for row in rows] == [(("strategy.rate", "0.01"),), (("strategy.rate", "0.1"),)]
    assert rows[0].runs == 2 and rows[0].mean["accuracy_common"] == pytest.approx(statistics.fmean(values))
    assert rows[0].sd["accuracy_common"] == pytest.approx(statistics.stdev(values))
    assert heads(rows)[0] == "rate" and len(words(rows[0])) == len(heads(rows)) and " ± " in words(rows[0])[2]
    assert json.dumps(plain(rows)) and draw(rows, "a title", tmp_path / "p.png").stat().st_size > 10_000

    monkeypatch.setattr(module, "_pool", lambda *told: pytest.fail("everything is there"))
    assert sweep(wanted, tmp_path) == outcomes


def test_a_sweep_that_was_stopped_goes_on_with_what_is_missing(tmp_path: Path) -> None:
    wanted = cells(tiny(), {"swarm.seed": ("1", "2", "3")})
    first = sweep(wanted, tmp_path, backend="reference", stop=lambda: any(tmp_path.glob("*.json")))
    assert [outcome is not None for outcome in first] == [True, False, False]
    kept = next(tmp_path.glob("*.json"))
    before = kept.stat().st_mtime_ns
    (tmp_path / f"{wanted[1].key}.json").write_text("cut o")  # as a power cut would never leave it, but a disk might
    whole = sweep(wanted, tmp_path, backend="reference")
    assert all(whole) and whole[0] == first[0] and kept.stat().st_mtime_ns == before


def test_a_cell_that_cannot_be_played_is_said_and_the_others_are_run(tmp_path: Path) -> None:
    wanted = cells(tiny(), {"data.per_node": ("40", "4000")})
    outcomes = sweep(wanted, tmp_path, backend="reference")
    rows = table(wanted, outcomes, tmp_path)
    assert outcomes[0] is not None and outcomes[1] is None
    assert rows[1].runs == 0 and "too few" in rows[1].failed[0] and words(rows[1])[-1] == "-"
    assert table(wanted, sweep(wanted, tmp_path), tmp_path)[1].failed == rows[1].failed


def test_a_cell_is_tried_again_once_its_file_is_there(tmp_path: Path) -> None:
    data = tmp_path / "mine.csv"
    wanted = cells(tiny(**{"data.path": str(data)}), {"swarm.seed": ("1",)})
    assert sweep(wanted, tmp_path, backend="reference") == [None]
    (failed,) = tmp_path.glob("*.failed")
    assert module.common_fault(row.failed for row in table(wanted, [None], tmp_path)) == failed.read_text()
    lines = [f"{at % 2}.{at},{at % 7},{'ab'[at % 2]}" for at in range(400)]
    data.write_text("\n".join(["x,z,label", *lines]) + "\n")
    assert all(sweep(wanted, tmp_path, backend="reference")) and not failed.exists()
    assert module.common_fault([("one",), ("other",)]) == module.common_fault([]) == ""


def test_in_processes_of_their_own_the_numbers_are_the_same(tmp_path: Path) -> None:
    wanted = cells(tiny(), {"swarm.seed": ("1", "2")})
    assert sweep(wanted, tmp_path / "two", 2, backend="reference") == sweep(
        wanted, tmp_path / "one", backend="reference"
    )


@pytest.mark.parametrize(("where", "package"), [("dask", "distributed"), ("ray", "ray")])
def test_a_package_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=f"pip install {package}"):
        sweep(cells(tiny(), {}), tmp_path, **{where: "tcp://127.0.0.1:1"})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="not both"):
        sweep(cells(tiny(), {}), tmp_path, dask="a", ray="b")


@pytest.fixture
def scheduler() -> Iterator[str]:
    """A Dask scheduler and a worker as processes of their own; their address."""
    pytest.importorskip("distributed", reason="a Dask cluster needs the package distributed")
    port = "18787"
    dask = [sys.executable, "-m"]
    started = [subprocess.Popen([*dask, "distributed.cli.dask_scheduler", "--port", port, "--no-dashboard"])]
    time.sleep(2)
    address = f"tcp://127.0.0.1:{port}"
    started.append(
        subprocess.Popen([*dask, "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-dashboard"])
    )
    yield address
    for process in reversed(started):
        process.terminate()
        process.wait()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_on_a_dask_cluster_the_numbers_are_the_same(tmp_path: Path, scheduler: str) -> None:
    wanted = cells(tiny(), {"swarm.seed": ("1", "2")})
    there = sweep(wanted, tmp_path / "there", dask=scheduler, backend="reference")
    assert there == sweep(wanted, tmp_path / "here", backend="reference")
