"""`edgeswarm profiles`: what an operator sees of the classes of boards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cli_world import Run

from edgeswarm.agent.profile import detect, folder, load_profile, profiles


def test_list(run: Run, run_json: Callable[..., Any]) -> None:
    here, reason = detect()
    done = run("profiles", "list")
    lines = done.stdout.splitlines()
    assert len(lines) == len(profiles()) + 1
    assert [line.split()[1] for line in lines if line.startswith("*")] == [here.id]
    assert f"this board: {here.id} ({reason})" in done.stderr
    data = run_json("profiles", "list")
    assert data["here"] == here.id and {row["id"] for row in data["profiles"]} == {each.id for each in profiles()}


def test_show(run: Run, run_json: Callable[..., Any]) -> None:
    done = run("profiles", "show", "pi-4")
    shown = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert shown["runtime.backends"] == "onnx, torch, reference" and shown["accelerator.cuda"] == "-"
    assert shown["memory.cgroup_flag_needed"] == "yes" and shown["hash"] == load_profile("pi-4").hash
    assert "estimate, never measured" in shown["speed.derivation"] and "of memory" in done.stderr
    data = run_json("profiles", "show", "pi-4")
    assert data["profile"]["training"]["batch"] == 32 and data["budget"]["threads"] >= 1
    assert run_json("profiles", "show")["profile"]["id"] == detect()[0].id


def test_show_a_file_of_ones_own_and_a_wrong_name(run: Run, tmp_path: Path) -> None:
    own = tmp_path / "mine.toml"
    own.write_text((folder() / "pi-5.toml").read_text(encoding="utf-8").replace('id = "pi-5"', 'id = "mine"'))
    assert "\nthermal.limit_c" in run("profiles", "show", str(own)).stdout
    assert "did you mean 'pi-zero-2w'" in run("profiles", "show", "pi-zero2w", code=2).stderr
