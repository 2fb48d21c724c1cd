from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from cli_world import Run

from edgeswarm.cli import status


def link(*values: float) -> dict[str, float]:
    return dict(zip(("age_s", "age_mean_s", "weight", "prototypes", "updates", "muted"), values, strict=True))


def report(**changes: Any) -> dict[str, Any]:
    return {
        "node": "node-1", "site": "hall", "task": "wafer", "pid": os.getpid(), "at_unix": time.time() - 3,
        "uptime_s": 8000.0,
        "link": {"up": True, "detail": "connected to mqtt://localhost:1883 with MQTT 5"},
        "notes": {
            "samples": 12340.0, "prototypes": 64.0, "accuracy_alone": 0.84, "accuracy_swarm": 0.912,
            "sent": 210.0,             "held": 1022.0, "held_no_news": 1000.0, "held_over_budget": 22.0,
            "bytes_sent": 84200.0, "bytes_received": 1.2e6,
            "refused_malformed": 2.0, "dropped_offline": 0.0,
        },
        "links": {
            "node-3": link(99.0, 50.0, 0.0, 10.0, 4.0, 1.0),
            "node-2": link(0.4, 1.1, 0.85, 61.0, 210.0, 0.0),
        },
        "epoch": 7, "version": "0.1.0", "stopped": False, "disk_fault": "", "unknown_label": "",
        "report_every_s": 30.0,
    } | changes  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "state"
    place.mkdir()
    return place


@pytest.fixture
def write(folder: Path) -> Callable[..., None]:
    return lambda **changes: (folder / "status.json").write_text(json.dumps(report(**changes)))  # type: ignore[return-value]


def test_the_screen(run: Run, folder: Path, write: Callable[..., None]) -> None:
    write()
    lines = run("status", "--state", str(folder)).stdout.splitlines()
    assert lines[0].startswith("node-1 at site hall, task wafer: up 2 h 13 min, reported 3")
    text = "\n".join(lines)
    assert "link      up, connected to mqtt://localhost:1883 with MQTT 5" in text
    assert "accuracy  91.2 % with the swarm, 84.0 % alone (on its own newest samples)" in text
    assert "learnt    12,340 samples into 64 prototypes" in text
    assert "said      210 times; held back 1,022 (no_news 1,000, over_budget 22)" in text
    assert "traffic   84.2 kB sent, 1.2 MB received" in text
    assert "dropped   refused_malformed 2" in text and "offline" not in text and "disk" not in text
    assert [line.split()[0] for line in lines[-3:]] == ["peer", "node-2", "node-3"]
    assert lines[-1].endswith("muted") and not lines[-2].endswith("muted")


def test_json_has_every_key(folder: Path, write: Callable[..., None], run_json: Callable[..., Any]) -> None:
    write()
    data = run_json("status", "--state", str(folder))
    assert set(data) == {*report(), "age_s", "running", "stale"}
    assert data["running"] is True and data["stale"] is False and 2 < data["age_s"] < 60


def test_json_has_every_key_even_from_a_sparse_report(folder: Path, run_json: Callable[..., Any]) -> None:
    (folder / "status.json").write_text("{}")
    assert set(run_json("status", "--state", str(folder), code=3)) == {*report(), "age_s", "running", "stale"}


def test_an_agent_that_knows_nothing_yet_can_be_shown(run: Run, folder: Path, write: Callable[..., None]) -> None:
    write(notes={}, links={})
    text = run("status", "--state", str(folder)).stdout
    assert "accuracy  not known yet" in text and "learnt    - samples" in text


def test_a_dead_agent_is_called_dead(run: Run, folder: Path, write: Callable[..., None]) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    write(pid=gone.pid, at_unix=time.time() - 3600)
    text = run("status", "--state", str(folder), code=3).stdout
    assert f"not running (process {gone.pid} is gone), reported 60 min ago" in text


def test_a_silent_agent_is_asked_about(run: Run, folder: Path, write: Callable[..., None]) -> None:
    write(at_unix=time.time() - 3600)
    assert "reported 60 min ago (is it stuck?)" in run("status", "--state", str(folder)).stdout


def test_slow_reports_are_not_called_silence(run: Run, folder: Path, write: Callable[..., None]) -> None:
    write(at_unix=time.time() - 1000, report_every_s=300.0)
    assert "stuck" not in run("status", "--state", str(folder)).stdout


def test_an_agent_that_stopped_says_so(run: Run, folder: Path, write: Callable[..., None]) -> None:
    write(stopped=True)
    assert "stopped 3" in run("status", "--state", str(folder), code=3).stdout


def test_trouble_with_the_disk_is_shown(run: Run, folder: Path, write: Callable[..., None]) -> None:
    write(disk_fault="disk full: cannot save")
    assert "disk      disk full: cannot save" in run("status", "--state", str(folder)).stdout


def test_no_link_ends_with_3_and_is_shown(run: Run, folder: Path, write: Callable[..., None]) -> None:
    write(link={"up": False, "detail": "connection refused"})
    assert "link      down, connection refused" in run("status", "--state", str(folder), code=3).stdout


def test_nothing_there(run: Run, tmp_path: Path) -> None:
    assert "no agent has run in" in run("status", "--state", str(tmp_path / "none"), code=3).stderr


@pytest.mark.parametrize("text", ["", "[]", "not json", "{"])
def test_a_damaged_file_is_an_error_not_a_bug(run: Run, folder: Path, text: str) -> None:
    (folder / "status.json").write_text(text)
    assert "bug" not in run("status", "--state", str(folder), code=75).stderr


def test_the_folder_comes_from_the_config(run: Run, folder: Path, write: Callable[..., None], tmp_path: Path) -> None:
    write()
    config = tmp_path / "agent.toml"
    config.write_text(f'node = "node-1"\n[state]\nfolder = "{folder}"\n')
    assert "node-1 at site hall" in run("status", "--config", str(config)).stdout


@pytest.mark.parametrize("verb", ["status", "why"])
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("task = 'A task'", "is not usable in a topic"),
        ("[strategy]\nname = 'nobody'", "cannot be 'nobody'"),
        ("[strategy]\nname = 'd_psgd'\nspeed = 1", "d_psgd has no knob 'speed'"),
        ("[source]\nkind = 'csv'", "needs path to be set too"),
        ("[broker]\nurls = ''", "unknown key 'urls'"),
    ],
)
def test_what_is_wrong_with_a_config_is_said_where_it_names_no_state(
    run: Run, tmp_path: Path, verb: str, text: str, says: str
) -> None:
    config = tmp_path / "agent.toml"
    config.write_text(f"{text}\n[state]\nfolder = 'none'\n")
    assert says in run(verb, "--config", str(config), code=2).stderr


@pytest.mark.parametrize("name", ["a\\u0000b", "x" * 300])
def test_a_folder_that_no_system_has_is_an_error_not_a_bug(run: Run, tmp_path: Path, name: str) -> None:
    config = tmp_path / "agent.toml"
    config.write_text(f'[state]\nfolder = "{name}"\n')
    assert "cannot be read" in run("status", "--config", str(config), code=75).stderr


def test_watch_repeats_until_interrupted(
    run: Run, folder: Path, write: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    write()
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(status.time, "sleep", pause)
    lines = run("status", "--state", str(folder), "--watch", "0.5", "--json", code=130).stdout.splitlines()
    assert pauses == [0.5] * 3
    assert [json.loads(line)["node"] for line in lines] == ["node-1"] * 3


def test_holdout_is_shown_where_there_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    notes = {"holdout_swarm": 0.9, "holdout_alone": 0.8}
    status.print_status(status.judged(report(notes=notes), time.time()))
    assert "90.0 % with the swarm, 80.0 % alone (on the held-out file)" in click.unstyle(capsys.readouterr().out)


def test_a_method_that_shares_a_model_is_shown_in_its_own_words(capsys: pytest.CaptureFixture[str]) -> None:
    notes = {"samples": 71.0, "rounds": 120.0, "steps": 480.0, "neighbours": 3.0, "neighbours_heard": 2.0,
             "staleness_rounds": 2.5, "loss": 0.25, "refused_peers": 1.0}  # fmt: skip
    links = {"b": {"age_s": 2.0, "age_mean_s": 1.0, "updates": 9.0, "staleness_rounds": 2.5}, "c": {"age_s": 1.0}}
    status.print_status(status.judged(report(notes=notes, links=links), time.time()))
    text = click.unstyle(capsys.readouterr().out)
    assert "learnt    71 samples, 120 rounds of training (480 steps)" in text
    assert "heard     2 of 3 neighbours, the oldest 2.5 rounds ago" in text
    assert "method    loss 0.25" in text and "dropped   refused_peers 1" in text
    assert "prototypes" not in text and "held back" not in text
    head, b, c = text.splitlines()[-3:]
    assert head.split() == ["peer", "age", "mean", "rounds", "updates"]
    assert b.split() == ["b", "2.0", "s", "1.0", "s", "2.5", "9"] and c.split() == ["c", "1.0", "s", "-", "-", "-"]


def test_a_method_with_one_model_has_no_accuracy_alone(capsys: pytest.CaptureFixture[str]) -> None:
    notes = {"accuracy_swarm": 0.9, "accuracy_alone": 0.9, "rounds": 1.0, "steps": 1.0, "samples": 1.0}
    status.print_status(status.judged(report(notes=notes), time.time()))
    text = click.unstyle(capsys.readouterr().out)
    assert "accuracy  90.0 % (on its own newest samples)" in text and "alone" not in text
    assert "learnt    1 sample, 1 round of training (1 step)" in text
    status.print_status(status.judged(report(notes={**notes, "prototypes": 4.0}), time.time()))
    assert "90.0 % with the swarm, 90.0 % alone" in click.unstyle(capsys.readouterr().out)


def test_samples_that_were_not_learnt_are_said(run: Run, folder: Path, write: Callable[..., None]) -> None:
    write(notes={"samples": 0.0, "unknown_labels": 324.0, "too_large_rows": 1.0, "left_out": 7.0}, unknown_label="q0")
    lines = run("status", "--state", str(folder)).stdout.splitlines()
    said = [line for line in lines if line.startswith("left out")]
    assert said[0].startswith("left out  324 samples: the method does not know their labels ('q0', for one); correct")
    assert said[1].startswith("left out  1 sample: they hold numbers beyond a million; correct the sensor")
    assert any(line.startswith("dropped") and "left_out 7" in line for line in lines)
    write(notes={"samples": 9.0, "unknown_labels": 2.0})  # written by an earlier version, or after a restart
    assert "2 samples: the method does not know their labels; correct" in run("status", "--state", str(folder)).stdout
    write()
    assert "left out" not in run("status", "--state", str(folder)).stdout
