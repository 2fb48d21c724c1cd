"""`edgeswarm model show`: what a file holds in numbers that can be checked, and estimates that say they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_world import Run
from model_world import model_file

from edgeswarm.agent.profile import profiles
from edgeswarm.models.cost import exchange


def test_everything_is_told(run: Run, tmp_path: Path) -> None:
    path, model = model_file(tmp_path, "cnn")
    text = run("model", "show", str(path)).stdout
    card = model.card
    for word in (card.hash, card.licence, "image 1 x 8 x 8", "3: 0, 1, 2", f"{card.embedding} numbers", "ce"):
        assert word in text
    for parameter in card.parameters:
        line = next(line for line in text.splitlines() if line.startswith(parameter.name))
        assert " x ".join(map(str, parameter.shape)) in line and line.endswith(f"{parameter.size:,}")
    for each in exchange(card.size):
        assert any(line.startswith(each.scheme) for line in text.splitlines())
    for profile in profiles():
        line = next(line for line in text.splitlines() if line.startswith(profile.id))
        assert "estimate" in line
    assert "measured" not in text.replace("not measured", "")


def test_json(run_json: Callable[..., Any], tmp_path: Path) -> None:
    path, model = model_file(tmp_path)
    data = run_json("model", "show", str(path))
    assert set(data) == {
        "file", "name", "architecture", "hash", "licence", "producer", "input", "labels", "embedding", "normalised",
        "heads", "losses", "size", "body_size", "parameters", "flops", "activation_bytes", "files", "exchange",
        "boards", "measured",
    }  # fmt: skip
    assert data["size"] == sum(each["size"] for each in data["parameters"]) == model.card.size
    assert {each["profile"] for each in data["boards"]} == {profile.id for profile in profiles()}
    assert all(each["kind"] == "estimate" and each["step_s"] > each["inference_s"] > 0 for each in data["boards"])
    assert data["exchange"][0] == {"scheme": "float32", "size_bytes": 4 * model.card.size, "messages": 1}
    assert data["measured"] is None


def test_measured_beside_the_estimate(run: Run, run_json: Callable[..., Any], tmp_path: Path) -> None:
    path, _ = model_file(tmp_path)
    words = ("model", "show", str(path), "--profile", "pi-4", "--measure", "--backend", "reference", "--batch", "4")
    lines = run(*words).stdout.splitlines()
    mine = next(line for line in lines if line.startswith("this machine, reference"))
    assert "measured" in mine and "estimate" in next(line for line in lines if line.startswith("pi-4"))
    data = run_json(*words)
    assert data["measured"]["backend"] == "reference" and data["measured"]["step_s"] > 0
    assert data["measured"]["batch"] == 4 and [each["batch"] for each in data["boards"]] == [4]


def test_a_board_that_is_too_small_is_named_with_the_reason(
    run_json: Callable[..., Any], run: Run, tmp_path: Path
) -> None:
    path, _ = model_file(tmp_path, "cnn")
    words = ("model", "show", str(path), "--batch", "65536")
    refused = {each["profile"]: each["refused"] for each in run_json(*words)["boards"]}
    assert refused["pi-zero-2w"].startswith("over ") and refused["pi-zero-2w"].endswith("of memory")
    assert "no: over" in run(*words).stdout


def test_an_encoder_has_nothing_to_exchange(run: Run, run_json: Callable[..., Any], tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="wrapping an encoder needs onnx")
    from edgeswarm.export.encoder import wrap
    from edgeswarm.models.file import write
    from tests.export.networks import network, saved

    write(wrap(saved(network(), tmp_path / "a.onnx"), "a", normalise=True), tmp_path / "a.esm")
    text = run("model", "show", str(tmp_path / "a.esm")).stdout
    assert "none: a pure encoder" in text and "none: serves, does not train" in text and "5 numbers, length 1" in text
    assert "exchange" not in text
    data = run_json("model", "show", str(tmp_path / "a.esm"))
    assert data["exchange"] == [] and data["boards"][0]["step_s"] is None


def test_refusals(run: Run, tmp_path: Path) -> None:
    assert "No such file" in run("model", "show", str(tmp_path / "none.esm"), code=2).stderr
    path, _ = model_file(tmp_path)
    assert "did you mean 'pi-5'" in run("model", "show", str(path), "--profile", "pi5", code=2).stderr
    assert run("model", "shoe", str(path), code=2).stderr.count("did you mean 'show'?") == 1
