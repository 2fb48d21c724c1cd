"""`edgeswarm record` at a real broker that dies under it, and the replay of what it kept."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_world import Run, need_mosquitto, nodes

from edgeswarm.demo.broker import RunningBroker, start_broker
from edgeswarm.sim.recording import read

PATIENCE_S = 60.0


def lines(path: Path) -> list[dict[str, Any]]:
    """What is written so far."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]


def until(what: Callable[[], Any]) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < give_up, "it did not happen"
        time.sleep(0.05)


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_a_broker_that_is_killed_costs_the_time_it_was_away(run: Run, tmp_path: Path, words: tuple[str, ...]) -> None:
    need_mosquitto()
    path = Path("run.jsonl").absolute()
    began: list[RunningBroker] = [start_broker("mosquitto", tmp_path / "first")]
    failed: list[BaseException] = []
    over = threading.Event()

    def reports() -> int:
        return sum(line.get("kind") == "report" for line in lines(path))

    def links() -> list[bool]:
        return [line["up"] for line in lines(path) if line.get("kind") == "link"]

    def meanwhile() -> None:
        try:
            until(lambda: reports() > 3)
            began[0].kill()
            until(lambda: links() == [False])
            seen = reports()
            began.append(start_broker("mosquitto", tmp_path / "second", port=began[0].port))
            until(lambda: links() == [False, True] and reports() > seen + 3)
        except BaseException as error:  # told in the main thread
            failed.append(error)
        os.kill(os.getpid(), signal.SIGINT)
        over.wait(PATIENCE_S)  # a broker ends with the thread that started it

    try:
        with nodes(began[0], "hall", reporting=2):
            helper = threading.Thread(target=meanwhile)
            helper.start()
            try:
                result = run("record", str(path), "--broker", began[0].url, "--site", "hall", *words)
            finally:
                over.set()
                helper.join()
    finally:
        for broker in began:
            broker.stop()
    assert not failed, (failed, result.stderr)
    kept = read(path)
    assert set(kept.nodes) == {"node-1", "node-2"} and 0 < kept.unseen_s < kept.length_s
    assert "the broker is away; what happens until it is back is not recorded\nthe broker is back\n" in result.stderr
    if words:
        said = json.loads(result.stdout)
        assert said["losses"] == 1 and said["not_recorded_s"] == pytest.approx(kept.unseen_s, abs=0.01)
        return
    assert "without the broker, not recorded" in result.stderr
    pytest.importorskip("sklearn", reason="the built-in digits come with scikit-learn")
    replayed = run("simulate", "--replay", str(path), "--set", "strategy.name=isolated", "--set", "strategy.steps=1",
                   "--set", "data.per_node=40", "--backend", "reference", "-q")  # fmt: skip
    assert "recorded and replayed" in replayed.stdout
    assert "not recorded: the recorder had no link to the broker" in replayed.stdout


def test_a_full_file_ends_the_recording_and_is_said(run: Run, broker: RunningBroker) -> None:
    with nodes(broker, "full", reporting=1):
        said = run("record", "run.jsonl", "--broker", broker.url, "--site", "full", "--limit-mb", "0.01").stderr
    assert "stopped at the limit of 0.01 MB" in said and Path("run.jsonl").stat().st_size < 11_000
    assert lines(Path("run.jsonl"))[-1]["kind"] == "end"


def test_without_a_broker_nothing_is_kept(run: Run) -> None:
    said = run("record", "run.jsonl", "--broker", "mqtt://127.0.0.1:1", "--site", "hall", code=3).stderr
    assert "127.0.0.1:1" in said.strip().splitlines()[-1] and not Path("run.jsonl").exists()
