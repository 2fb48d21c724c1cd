from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_world import Run

pytest.importorskip("joblib", reason="sweeps are handed out by joblib")
pytest.importorskip("sklearn", reason="the built-in digits come with scikit-learn")

WORDS = (
    "sweep", "--set", "swarm.nodes=3", "--set", "swarm.duration_s=11", "--set", "report.every_s=11", "--set",
    "data.per_node=40", "--set", "model.hidden=4", "--set", "strategy.name=isolated", "--set", "strategy.steps=1",
    "--set", "data.split=iid", "--backend", "reference", "--jobs", "1",
)  # fmt: skip


def test_a_table_of_means_and_deviations(run: Run, tmp_path: Path) -> None:
    words = (*WORDS, "--over", "strategy.name=isolated,d_psgd", "--over", "seed=1..2", "--folder", str(tmp_path / "s"))
    result = run(*words)
    lines = result.stdout.splitlines()
    assert lines[0].split()[:2] == ["name", "runs"] and [line.split()[0] for line in lines[1:3]] == [
        "isolated",
        "d_psgd",
    ]
    assert lines[1].split()[1] == "2" and "±" in lines[1] and lines[-1] == f"Picture: {tmp_path / 's' / 'sweep.png'}"
    assert "4 of 4" in result.stderr
    assert run(*words).stderr.splitlines() == [f"4 runs; each is kept in {tmp_path / 's'}"], "nothing is run twice"


def test_json_and_a_cell_that_cannot_be_played(run: Run, run_json: Callable[..., Any], tmp_path: Path) -> None:
    words = (*WORDS, "--over", "data.per_node=40,4000", "--folder", str(tmp_path / "s"))
    lines = run(*words, code=1).stdout.splitlines()
    assert lines[-2].startswith("data.per_node = 4000: [data] split = 'iid': ")
    good = run_json(*WORDS, "--over", "seed=1..2", "--folder", str(tmp_path / "t"))
    assert good["runs"] == 2 and good["rows"][0]["runs"] == 2 and good["rows"][0]["failed"] == []
    assert good["rows"][0]["sd"]["accuracy"] is not None


def test_a_process_that_is_killed_is_one_line_and_what_is_over_is_shown(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgeswarm.sim import sweep

    real, folder = sweep._played, tmp_path / "s"

    def played(key: str, place: Path, plain: Any, backend: str) -> Any:
        while plain["swarm"]["seed"] == 2:
            if any(folder.glob("*.json")):
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(0.01)
        return real(key, place, plain, backend)

    monkeypatch.setattr(sweep, "_played", played)
    words = (*WORDS[:-1], "2", "--over", "seed=1..2", "--folder", str(folder))
    result = run(*words, code=1)
    assert result.stdout.splitlines()[1].split()[:4] == ["as", "it", "is", "1"]
    said = result.stderr.splitlines()
    assert said[:2] == [f"2 runs; each is kept in {folder}", "1 of 2"] and len(said) == 3
    assert "1 of 2 runs are missing: swarm.seed = 2;" in said[2] and "this is a bug" not in said[2]


def test_stopped_before_the_first_result_it_draws_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import contextlib

    from edgeswarm.cli import sweep

    monkeypatch.setattr(sweep, "asked_to_stop", lambda: contextlib.nullcontext([2]))
    result = run(*WORDS, "--over", "seed=1..2", "--folder", str(tmp_path / "s"), code=130)
    assert "stopped with 0 of 2 runs" in result.stderr and "Picture" not in result.stdout
    assert not (tmp_path / "s" / "sweep.png").exists()


def test_a_package_that_is_missing_is_said_before_anything_else(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    words = (*WORDS, "--over", "seed=1..2", "--folder", str(tmp_path / "s"), "--dask", "tcp://127.0.0.1:1")
    said = run(*words, code=2).stderr.splitlines()
    assert said == ["edgeswarm: a sweep on Dask needs a package that is not here: pip install distributed"]


def test_wrong_words_are_a_line_and_2(run: Run) -> None:
    assert "no knob 'rat'; did you mean 'rate'?" in run(*WORDS, "--over", "strategy.rat=1,2", code=2).stderr
    assert "KEY=1..5" in run(*WORDS, "--over", "rate", code=2).stderr
