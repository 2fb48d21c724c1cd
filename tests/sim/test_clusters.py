"""Sweeps by processes of this machine, of a Dask and of a Ray cluster: the same numbers, and what a death costs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeswarm.sim import sweep as module
from edgeswarm.sim.pool import spread
from edgeswarm.sim.scenario import load
from edgeswarm.sim.sweep import Cell, cells, sweep

joblib = pytest.importorskip("joblib", reason="sweeps are handed out by joblib")
pytest.importorskip("sklearn", reason="the built-in digits come with scikit-learn")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

Where = dict[str, Any]
"""Arguments of `spread` and `sweep`: two processes, and where."""
WAIT_S = 60.0
HOST = "127.0.0.1"
STARTS = {
    "dask": (
        ["distributed.cli.dask_scheduler", "--host", HOST, "--port", "{port}", "--no-dashboard"],
        ["distributed.cli.dask_worker", HOST + ":{port}", "--nworkers", "2", "--nthreads", "1", "--no-dashboard"],
    ),
    "ray": (
        ["ray.scripts.scripts", "start", "--head", "--block", "--node-ip-address", HOST, "--port", "{port}",
         "--num-cpus", "2", "--include-dashboard", "false", "--object-store-memory", "80000000",
         "--temp-dir", "{folder}", "--disable-usage-stats"],
    ),
}  # fmt: skip
"""Modules that are a cluster of two workers, with their arguments."""
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@pytest.fixture(scope="module", params=["here", "dask", "ray"])
def where(request: pytest.FixtureRequest) -> Iterator[Where]:
    """Clusters are started, and ended at last; nobody has limited their threads."""
    kind = request.param
    if kind == "here":
        yield {"jobs": 2}
        return
    package = pytest.importorskip({"dask": "distributed", "ray": "ray"}[kind], reason="in the extra cluster")
    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
    started: list[subprocess.Popen[bytes]] = []
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        for name in THREADS:
            patch.delenv(name, raising=False)
        patch.setenv("RAY_AUTH_MODE", "disabled")
        try:
            for words in STARTS[kind]:
                command = [word.format(port=port, folder=folder) for word in words]
                started.append(subprocess.Popen([sys.executable, "-m", *command]))
                wait_for(port)
            if kind == "dask":  # Ray waits for its workers itself
                with package.Client(f"{HOST}:{port}", timeout=WAIT_S) as client:
                    client.wait_for_workers(2, timeout=WAIT_S)
            yield {kind: f"{HOST}:{port}"}
        finally:
            for process in reversed(started):
                process.terminate()
                process.wait()


def wait_for(port: int) -> None:
    until = time.monotonic() + WAIT_S
    while True:
        try:
            socket.create_connection((HOST, port), 1.0).close()
            return
        except OSError:
            assert time.monotonic() < until
            time.sleep(0.1)


def two() -> list[Cell]:
    tiny = {
        "swarm.nodes": 3, "swarm.duration_s": 11.0, "report.every_s": 11.0, "data.per_node": 40, "model.hidden": 4,
        "strategy.name": "isolated", "strategy.steps": 1, "data.split": "iid",
    }  # fmt: skip
    return cells(load(None, tiny), {"swarm.seed": ("1", "2")})


def test_two_processes_at_once_come_to_the_numbers_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: Where
) -> None:
    real = module._played
    alone = sweep(two(), tmp_path / "alone", backend="reference")

    def played(key: str, place: Path, plain: Any, backend: str) -> Any:
        (tmp_path / f"{os.getpid()}.pid").touch()
        until = time.monotonic() + WAIT_S
        while len(list(tmp_path.glob("*.pid"))) < 2 and time.monotonic() < until:
            time.sleep(0.01)
        return real(key, place, plain, backend)

    monkeypatch.setattr(module, "_played", played)
    assert sweep(two(), tmp_path / "there", **where, backend="reference") == alone and all(alone)
    pids = {int(path.stem) for path in tmp_path.glob("*.pid")}
    assert len(pids) == 2 and os.getpid() not in pids


def test_a_process_that_is_killed_again_and_again_ends_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: Where
) -> None:
    real = module._played

    def played(key: str, place: Path, plain: Any, backend: str) -> Any:
        if plain["swarm"]["seed"] == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(key, place, plain, backend)

    monkeypatch.setattr(module, "_played", played)
    died: list[str] = []
    assert sweep(two(), tmp_path, **where, backend="reference", died=died.append)[1] is None
    assert "runs are missing" in died[0] and "swarm.seed = 2" in died[0]


def test_threads_of_arithmetic_share_the_cores(monkeypatch: pytest.MonkeyPatch, where: Where) -> None:
    pytest.importorskip("threadpoolctl", reason="comes with scikit-learn and tells of threads")
    for name in THREADS:
        monkeypatch.delenv(name, raising=False)

    def threads(task: int) -> list[int]:
        import numpy as np
        from threadpoolctl import threadpool_info

        assert np.ones((2, 2)).dot(np.ones(2)).sum() == 4
        return [pool["num_threads"] for pool in threadpool_info()]

    joblib.externals.loky.get_reusable_executor().shutdown()  # processes of other tests had other variables
    most = max(1, joblib.cpu_count() // 2) if "jobs" in where else 1
    for found in spread(threads, [(0,), (1,)], **where):
        assert found and max(found) <= most
